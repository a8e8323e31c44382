"""The checkpoints of a run: files are written at once; sync, hashes, a name and rotation follow while training goes on."""

from concurrent.futures import Future, wait
from pathlib import Path

from llmtune.files import in_background
from llmtune.training import checkpoint
from llmtune.training.checkpoint import State, Unsealed


class Saver:
    """Writes checkpoints, one at a time. While entered; when it is left, no save is at work.

    Args:
        directory: of the checkpoints.
        keep: how many of the newest stay, beside the best.
        is_newest_best: whether `best` follows `latest`: there is nothing to tell checkpoints apart by.

    Attributes:
        step: of the last checkpoint that was saved, or that a resume has begun with; None: there is none.
    """

    def __init__(self, directory: Path, *, keep: int, is_newest_best: bool):
        self.directory = directory
        self.step: int | None = None
        self._keep, self._is_newest_best = keep, is_newest_best
        self._sealing: Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_: object) -> None:
        if self._sealing is not None:
            wait([self._sealing])

    def save(self, state: State, *, step: int) -> None:
        """Write a step; the state may change after it. A kill before it is settled may lose this step, and no other.

        Raises:
            ResourceError: this save cannot be written, or the one before could not be completed.
        """
        self.settle()
        written = checkpoint.write(self.directory, state, step=step)
        self.step = step
        self._sealing = in_background(lambda: self._seal(written))

    def settle(self, *, waits: bool = True) -> None:
        """Let the last save be complete.

        Args:
            waits: else look only whether it is.

        Raises:
            ResourceError: it has failed.
        """
        if self._sealing is not None and (waits or self._sealing.done()):
            sealing, self._sealing = self._sealing, None
            sealing.result()

    def point_latest(self, step: int) -> None:
        """Let `latest` name the checkpoint that a run goes on from: a kill may have come between the two."""
        path = self._path(step)
        checkpoint.point(self.directory / "latest", path)
        if self._is_newest_best:
            checkpoint.point(self.directory / "best", path)

    def point_best(self, step: int) -> None:
        if (path := self._path(step)).is_dir():
            checkpoint.point(self.directory / "best", path)

    def rotate(self) -> None:
        """Remove what is older than the newest, and neither the best nor the latest."""
        protected = {link for name in ("best", "latest") if (link := self.directory / name).exists()}
        checkpoint.rotate(self.directory, keep=self._keep, protected=protected)

    def _seal(self, written: Unsealed) -> None:
        path = checkpoint.seal(written)
        self.point_latest(written.step)
        checkpoint.verify(path, reads=False)  # before the older ones go; its hashes are of files that were just read
        self.rotate()

    def _path(self, step: int) -> Path:
        return self.directory / checkpoint.name_of(step)
