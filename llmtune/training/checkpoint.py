"""Checkpoints: safetensors and JSON only, written so that a kill at any moment leaves the last good one intact.

A step directory is itself a model directory: `checkpoints/step-000123/` holds config.json, the weights, the tokenizer,
what the task is (llmtune.json), the optimizer, the trainer's counters, and last of all a manifest with the sha256 of
every file. Where most weights are frozen it holds the learned ones and the digest of those they were added to. Where
the weights are an average, it holds those that training goes on with besides.
"""

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from llmtune import tuning
from llmtune.errors import CheckpointError, ResourceError
from llmtune.failures import REMEDIES, is_the_systems, os_error_in
from llmtune.files import side_by_side, sync, write_json
from llmtune.training import manifest
from llmtune.tuning import pissa

OPTIMIZER, LEARNED, NEWEST = "optimizer.safetensors", "learned.safetensors", "newest.safetensors"
THRESHOLDS = "thresholds.json"  # beside the weights of the best step, if the decision was moved after training
STEP_NAME = re.compile(r"^step-(\d{6,})$")


def name_of(step: int) -> str:
    return f"step-{step:06d}"


@dataclass(frozen=True)
class State:
    """Everything that a checkpoint holds.

    Attributes:
        save_model: writes config.json and model.safetensors into a directory; None where only `learned` is kept.
        learned: the weights that learn, by name, where the others are frozen.
        description: of `Task.describe()`, the tuning and the base, as llmtune.json.
        tokenizer_dir: copied beside the weights.
        newest: the weights that training goes on with, by name, where those above are an average.
        optimizer: named tensors of the optimizer's state.
        trainer: counters, data key, and everything else that a resume has to know.
        fingerprint: what must be equal for a resume to be exact.
        config_digest: sha256 of the run's config.yaml.
    """

    save_model: Callable[[Path], None] | None
    learned: dict[str, Tensor]
    newest: dict[str, Tensor]
    description: dict[str, Any]
    tokenizer_dir: Path | None
    optimizer: dict[str, Tensor]
    trainer: dict[str, Any]
    fingerprint: dict[str, Any]
    config_digest: str


@dataclass(frozen=True)
class Unsealed:
    """A step whose files are written, but neither synced nor named: to whoever looks for checkpoints, it is not there.

    Attributes:
        step: its number.
        temporary: the directory that holds it.
        final: the one that it is to be.
        facts: for the manifest.
    """

    step: int
    temporary: Path
    final: Path
    facts: dict[str, Any]


def save(directory: Path, state: State, *, step: int) -> Path:
    """Write `directory/step-N`; it appears complete or not at all.

    Raises:
        ResourceError: the disk is full or cannot be written; nothing is left over and older checkpoints are intact.
    """
    return seal(write(directory, state, step=step))


def write(directory: Path, state: State, *, step: int) -> Unsealed:
    """The first half of `save`, after which the state may change."""
    from safetensors.torch import save_file

    final = directory / name_of(step)
    directory.mkdir(parents=True, exist_ok=True)
    facts = {"config": state.config_digest, "fingerprint": state.fingerprint}
    written = Unsealed(step, directory / f".tmp-{final.name}.{uuid.uuid4().hex[:8]}", final, facts)
    temporary = written.temporary
    with _whole_or_gone(written):
        temporary.mkdir()
        save_model = state.save_model or (lambda place: save_file(_storable(state.learned), place / LEARNED))
        work = [lambda: save_file(_storable(state.optimizer), temporary / OPTIMIZER), lambda: save_model(temporary)]
        if state.newest:
            work.append(lambda: save_file(_storable(state.newest), temporary / NEWEST))
        side_by_side(*work)
        if state.tokenizer_dir is not None:
            for file in state.tokenizer_dir.iterdir():
                shutil.copyfile(file, temporary / file.name)
        write_json(temporary / "llmtune.json", state.description)
        write_json(temporary / "trainer.json", state.trainer)
    return written


def seal(written: Unsealed) -> Path:
    """The second half of `save`: sync, hash and name what is written."""
    temporary, final = written.temporary, written.final
    with _whole_or_gone(written):
        manifest.write(temporary, step=written.step, **written.facts)
        if final.exists():  # the same step of an earlier attempt that was found damaged
            _trash(final)
        temporary.rename(final)
        sync(final.parent)
    return final


def require_room(directory: Path, num_bytes: int) -> None:
    """Find out before the first step whether a checkpoint of this size can be written.

    Raises:
        ResourceError: the disk or a limit on file sizes refuses it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rehearsal = directory / f".tmp-rehearsal.{uuid.uuid4().hex[:8]}"
    try:
        with rehearsal.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
    except OSError as e:
        raise ResourceError(
            f"a checkpoint of about {num_bytes / 1e6:,.0f} MB could not be written: {e.strerror or e}",
            where=str(directory),
            remedy="make room, raise the limit on file sizes, or choose another disk with output_dir=...",
        ) from None
    finally:
        rehearsal.unlink(missing_ok=True)


def verify(checkpoint: Path, *, reads: bool = True) -> dict[str, Any]:
    """Check a step directory against its manifest, which is returned.

    Args:
        checkpoint: the directory.
        reads: whether the files are read; else their names, sizes and kinds have to do.

    Raises:
        CheckpointError: something is missing, altered, a link, of another step, or of a newer format.
    """
    content = manifest.verify(checkpoint, reads=reads)
    match = STEP_NAME.match(checkpoint.name)
    if match and content.get("step") != int(match[1]):
        raise CheckpointError(f"the manifest is that of step {content.get('step')}", where=str(checkpoint))
    return content


def steps(directory: Path) -> list[tuple[int, Path]]:
    """The step directories, oldest first, by their number."""
    found = directory.iterdir() if directory.is_dir() else []
    return sorted((int(m[1]), p) for p in found if (m := STEP_NAME.match(p.name)) and not p.is_symlink())


def newest_good(directory: Path, *, tell: Callable[[str], None]) -> tuple[int, Path] | None:
    """The newest step whose manifest verifies. Each one that is passed over is told."""
    for step, path in reversed(steps(directory)):
        try:
            verify(path)
            return step, path
        except CheckpointError as e:
            tell(f"passing over {path.name}: {e.message}")
    return None


def rotate(directory: Path, *, keep: int, protected: set[Path]) -> None:
    """Remove the oldest steps but `keep`, never a protected one; and what interrupted saves left."""
    for leftover in [*directory.glob(".tmp-*"), *directory.glob(".trash-*")]:
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    kept_safe = {p.resolve() for p in protected}
    for _, path in steps(directory)[:-keep]:
        if path.resolve() not in kept_safe:
            _trash(path)


def point(link: Path, target: Path) -> None:
    """Let a link name its neighbour `target`, replacing what it named before in one move."""
    temporary = link.with_name(f".tmp-{link.name}-{uuid.uuid4().hex[:8]}.{os.getpid()}")
    try:
        temporary.symlink_to(target.name)
        temporary.replace(link)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as e:
        if is_the_systems(e):
            raise
        raise CheckpointError(f"{file.name} cannot be read: {e}", where=str(file)) from None


def load_all(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy all weights and buffers into a model of the same architecture; tied weights are stored once.

    Raises:
        CheckpointError: names or shapes differ.
    """
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError as e:
        raise CheckpointError(f"the weights do not fit the model: {e}") from None
    own = model.state_dict()
    stored = {own[name].data_ptr() for name in tensors if name in own}
    lost = [name for name in missing if own[name].data_ptr() not in stored]
    if lost or unexpected:
        raise CheckpointError(f"the weights do not fit the model: missing {lost[:5]}, unexpected {list(unexpected)[:5]}")


def load_learned(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy learned weights into a model that was opened for the same tuning.

    Raises:
        CheckpointError: names or shapes differ.
    """
    learned = tuning.learned_tensors(model)
    _require_fit(tensors, learned)
    pissa.set_starts(model, tensors)
    copy(tensors, learned)


def copy(tensors: dict[str, Tensor], into: dict[str, Tensor]) -> None:
    """Copy tensors into the weights of the same names.

    Raises:
        CheckpointError: names or shapes differ.
    """
    _require_fit(tensors, into)
    for name, own in into.items():
        own.data.copy_(tensors[name])


def _require_fit(tensors: dict[str, Tensor], into: dict[str, Tensor]) -> None:
    if into.keys() != tensors.keys():
        odd = sorted(into.keys() ^ tensors.keys())
        raise CheckpointError(f"the learned weights do not fit the model: {', '.join(odd[:5])}")
    for name, own in into.items():
        if own.shape != tensors[name].shape:
            raise CheckpointError(f"{name} is {tuple(tensors[name].shape)}, but the model has {tuple(own.shape)}")


@contextlib.contextmanager
def _whole_or_gone(written: Unsealed) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except BaseException as e:
        shutil.rmtree(written.temporary, ignore_errors=True)
        if not isinstance(e, OSError | SafetensorError):
            raise
        refused = os_error_in(e)
        helps = REMEDIES.get(refused.errno, "look for what has changed on the disk") if refused else "make room"
        raise ResourceError(
            f"the checkpoint of step {written.step} could not be written: {refused.strerror if refused else e}",
            where=str(written.final.parent),
            remedy=f"{helps}; the same command goes on from the last checkpoint",
        ) from e


def _trash(directory: Path) -> None:
    """Remove a step so that it is there whole or not at all."""
    trash = directory.with_name(f".trash-{directory.name}.{uuid.uuid4().hex[:8]}")
    directory.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
