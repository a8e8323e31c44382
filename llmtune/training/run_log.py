"""metrics.jsonl: one line for each logged step and each evaluation. What was best follows from it alone."""

import json
import os
from pathlib import Path
from typing import Any, TextIO

from llmtune.files import replacing


class RunLog:
    """Appends events to a run's metrics.jsonl and keeps them at hand.

    Args:
        path: of the file.
        until_step: events of later steps are cut off: a resumed run writes them anew. None keeps everything.
        is_writer: whether this process writes the file; the others only remember.
    """

    def __init__(self, path: Path, *, until_step: int | None = None, is_writer: bool = True):
        self.events = [e for e in _read(path) if until_step is None or e["step"] <= until_step]
        self._file: TextIO | None = None
        if not is_writer:
            return
        if until_step is not None:
            with replacing(path, durable=True) as file:
                file.write("".join(_line(e) for e in self.events))
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, *, step: int, **facts: Any) -> None:
        entry = {"event": event, "step": step, **facts}
        self.events.append(entry)
        if self._file is not None:
            self._file.write(_line(entry))
            self._file.flush()

    def sync(self) -> None:
        """Before a checkpoint of the same step is written."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def evaluations(self) -> list[dict[str, Any]]:
        return [e for e in self.events if e["event"] == "evaluation"]

    def best(self, metric: str, *, higher_is_better: bool) -> dict[str, Any] | None:
        """The evaluation with the best value; the earliest of equals. One without the metric does not count."""
        scored = [e for e in self.evaluations() if e["metrics"].get(metric) is not None]
        sign = -1 if higher_is_better else 1
        return min(scored, key=lambda e: sign * e["metrics"][metric], default=None)

    def evaluations_since_best(self, metric: str, *, higher_is_better: bool, after: int = 0) -> int:
        """Evaluations since the best one, those up to the step `after` left out."""
        best = self.best(metric, higher_is_better=higher_is_better)
        return sum(best is not None and e["step"] > max(best["step"], after) for e in self.evaluations())


def _read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a kill can leave half a line at the end."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            events.append(json.loads(line))
        except ValueError:
            break
    return events


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False) + "\n"
