"""Files and folders that appear whole or not at all."""

import contextlib
import errno
import fcntl
import glob
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from llmtune.errors import ResourceError

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")
SIZES = "sizes.json"  # of the files of a folder that `build_once` made


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[TextIO]:
    """A text file to write to that takes the place of `path` in one move once it is complete.

    Args:
        path: of the file.
        durable: whether its content is on the disk itself before the move.
    """
    remove_leftovers(path.parent, of=f"{glob.escape(path.name)}-*")
    temporary = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
        if durable:
            sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, durably and in one move. NaN, which JSON does not know, is a bug."""
    with replacing(path, durable=True) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Have a file's content, or a directory's entries, on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """A folder with all its parents, unless it is there.

    Raises:
        ResourceError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        in_the_way = isinstance(e, FileExistsError | NotADirectoryError)
        why = "a file is in the way" if in_the_way else e.strerror
        raise ResourceError(f"the folder cannot be made: {why}", where=str(folder), remedy="choose another one") from None


def new_folder(parent: Path, fill: Callable[[Path], None] = lambda folder: None) -> Path:
    """A new folder named after the time; another one in the same second gets -2, -3, ...

    Args:
        parent: is made, too.
        fill: writes what the folder holds from its first moment on: a kill leaves it whole or not at all.

    Raises:
        ResourceError: a file is in the way.
    """
    make_folder(parent)
    remove_leftovers(parent)
    temporary = parent / f".tmp-{uuid.uuid4().hex[:8]}.{os.getpid()}"
    try:
        temporary.mkdir()
        fill(temporary)
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        for number in range(1, 10_000):
            path = parent / (stamp if number == 1 else f"{stamp}-{number}")
            if path.exists():
                continue
            try:
                temporary.rename(path)
            except OSError as e:
                if e.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
            else:
                return path
        raise ResourceError("no free name for a folder", where=str(parent))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def build_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """A folder of files that is filled once, by one process while the others wait; again if a file of it is gone or cut off.

    Args:
        folder: is made with its parents.
        fill: writes the files into a folder beside it.

    Raises:
        ResourceError: it cannot be written, or the disk is full.
    """
    if _is_whole(folder):
        return folder
    make_folder(folder.parent)
    try:
        with (folder.parent / f".lock-{folder.name}").open("w") as lock:
            with contextlib.suppress(OSError):  # not every network file system has locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_whole(folder):
                _fill(folder, fill)
    except OSError as e:
        remedy = "free some space, or set the environment variable LLMTUNE_CACHE to another folder"
        message = f"the cache cannot be written: {e.strerror or e}"
        raise ResourceError(message, where=str(e.filename or folder), remedy=remedy) from e
    return folder


def _fill(folder: Path, fill: Callable[[Path], None]) -> None:
    remove_leftovers(folder.parent)
    temporary = folder.parent / f".tmp-{folder.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with the same number, as in a container
    temporary.mkdir()
    try:
        fill(temporary)
        sizes = {path.name: path.stat().st_size for path in temporary.iterdir()}
        write_json(temporary / SIZES, sizes)
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / SIZES).read_bytes())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def side_by_side(*jobs: Callable[[], Any]) -> list[Any]:
    """What each job gives, two at a time: neither hashing nor waiting for the disk holds Python up."""
    from concurrent.futures import ThreadPoolExecutor  # not at every start

    with ThreadPoolExecutor(2) as pool:
        return [answer.result() for answer in [pool.submit(job) for job in jobs]]


def in_background(job: Callable[[], T]) -> "Future[T]":
    """What a job gives, done by a thread of its own."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(job)
    finally:
        pool.shutdown(wait=False)


def remove_leftovers(parent: Path, *, of: str = "*") -> None:
    """Remove files and folders `.tmp-NAME.PID` of processes that were killed; `of` is a pattern of the names."""
    for leftover in parent.glob(f".tmp-{of}.*"):
        pid = leftover.name.rpartition(".")[2]
        if not pid.isdigit() or _is_alive(int(pid)):
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; no process at all
        return True
    return True
