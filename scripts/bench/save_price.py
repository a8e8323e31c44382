"""What a checkpoint costs: the seconds of a save as a share of the seconds between two saves.

    python scripts/bench/save_price.py TRAIN.csv WEIGHTS [--steps 1000] [--save-every 100]

TRAIN.csv has the columns text and label, WEIGHTS is the directory of a BERT, of which every weight learns. `llmtune train`
runs in this process, with a clock around the functions that a save is made of. Prints Markdown tables.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GOAL = 0.03  # of the time between two saves
BESIDE = 8  # steps, in which the rest of a save ends


@dataclass(frozen=True)
class Step:
    """Its seconds, its tokens with padding, and the number of steps since a save."""

    seconds: float
    positions: int
    since: int


@dataclass
class Clock:
    """Seconds that training waits for each save, of the steps, and of the parts of a save: some run beside each other."""

    steps: list[Step] = field(default_factory=list)
    saves: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _now: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # seconds of the parts of the last save
    _since: int = BESIDE  # steps since the last save
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Let a function's seconds count as a part, whenever it is called within a save."""
        original = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                with self._lock:
                    self._now[part] += time.perf_counter() - started

        setattr(owner, name, timed)

    def wrap_save(self, owner: Any, name: str, is_due: Callable[..., bool]) -> None:
        original = getattr(owner, name)

        def timed(*args: Any) -> Any:
            if not is_due(*args):
                return original(*args)
            self._note_parts()
            started = time.perf_counter()
            result = original(*args)
            self.saves.append(time.perf_counter() - started)
            self._since = 0
            return result

        setattr(owner, name, timed)

    def wrap_step(self, owner: Any, name: str) -> None:
        """Of a function that is given the result of a step."""
        original = getattr(owner, name)

        def noted(trainer: Any, result: Any, *args: Any) -> Any:
            self.steps.append(Step(result.seconds, result.num_positions, self._since))
            self._since += 1
            return original(trainer, result, *args)

        setattr(owner, name, noted)

    def slowed(self) -> float:
        """Mean seconds that the steps beside the rest of a save take longer than steps of their size."""
        alone = [step for step in self.steps if step.since >= BESIDE]
        fit = statistics.linear_regression([s.positions for s in alone], [s.seconds for s in alone])
        excess = [s.seconds - fit.intercept - fit.slope * s.positions for s in self.steps if s.since < BESIDE]
        return sum(excess) / (len(excess) / BESIDE)

    def _note_parts(self) -> None:
        if self.saves:
            for part, seconds in self._now.items():
                self.parts[part].append(seconds)
        self._now.clear()


def instrument(clock: Clock) -> None:
    import safetensors.torch

    from llmtune import files
    from llmtune.commands import stage
    from llmtune.training import checkpoint, manifest
    from llmtune.training.run_log import RunLog
    from llmtune.training.trainer import Trainer

    clock.wrap_step(Trainer, "_after_step")
    clock.wrap_save(Trainer, "_save", lambda trainer, step: step != trainer.saver.step)
    clock.wrap(stage, "_save_pretrained", "write the weights")
    clock.wrap(safetensors.torch, "save_file", "write the optimizer")
    clock.wrap(manifest, "sha256", "sha256 for the manifest")
    clock.wrap(checkpoint, "rotate", "rotation")
    for module in (files, checkpoint, manifest):
        clock.wrap(module, "sync", "fsync")
    clock.wrap(RunLog, "sync", "fsync")


def plain_write(folder: Path, num_bytes: int, repeat: int = 5) -> tuple[float, float]:
    """Median seconds that the disk takes for one file of that size: to write it, and to sync it."""
    block, written, synced = os.urandom(1 << 20), [], []
    for _ in range(repeat):
        path = folder / "plain"
        with path.open("wb", buffering=0) as file:
            started = time.perf_counter()
            for _ in range(num_bytes >> 20):
                file.write(block)
            written.append(time.perf_counter() - started)
            started = time.perf_counter()
            os.fsync(file.fileno())
            synced.append(time.perf_counter() - started)
        path.unlink()
    return statistics.median(written), statistics.median(synced)


def train(arguments: argparse.Namespace, folder: Path) -> int:
    from llmtune.cli import main as llmtune

    return llmtune(
        [
            "train",
            "+recipe=bert_cls",
            "data.where={}",
            "data.label_map={}",
            f"data.train_file={arguments.train.resolve()}",
            f"model.pretrained={arguments.weights.resolve()}",
            f"output_dir={folder}",
            "split.validation_fraction=0",  # an evaluation saves, too
            "split.test_fraction=0",
            "training.epochs=null",
            f"training.max_steps={arguments.steps}",
            f"training.batch_size={arguments.batch_size}",
            f"training.save_every={arguments.save_every}",
            "hardware.device=cpu",
            *arguments.overrides,
        ]
    )


def report(clock: Clock, *, save_every: int, num_bytes: int, plain: tuple[float, float]) -> bool:
    """Print the tables; returns whether the goal is met."""
    seconds = [step.seconds for step in clock.steps]
    step, save, slowed = statistics.median(seconds), statistics.median(clock.saves), clock.slowed()
    share = (save + slowed) / (save_every * statistics.mean(seconds))
    print("| what | measured |\n|---|---|")
    print(f"| steps, median of {len(seconds)} | {step:.4f} s |")
    print(f"| steps, mean | {statistics.mean(seconds):.4f} s |")
    print(f"| training waits for a save, median of {len(clock.saves)} | {save:.3f} s |")
    print(f"| shortest and longest | {min(clock.saves):.3f} s, {max(clock.saves):.3f} s |")
    print(f"| steps beside the rest of a save take longer by, in all, mean | {slowed:.3f} s |")
    print(f"| a checkpoint | {num_bytes / 1e6:.0f} MB |")
    print(f"| both, as a share of the steps between saves every {save_every} steps (goal ≤ {GOAL:.0%}) | {share:.2%} |")
    print("\n| part of a save | median s | share of the step time |\n|---|---|---|")
    medians = {part: statistics.median(seconds) for part, seconds in clock.parts.items()}
    for part, seconds in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"| {part} | {seconds:.4f} | {seconds / (save_every * step):.2%} |")
    print("\n| one plain file of that size on that disk | median s |\n|---|---|")
    print(f"| write | {plain[0]:.3f} |\n| fsync | {plain[1]:.3f} |")
    return share <= GOAL


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="rows")
    parser.add_argument("weights", type=Path, help="of a pretrained BERT")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the config, such as hardware.num_threads=1")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; else the one for temporary files")
    arguments = parser.parse_args()
    if arguments.steps < 2 * arguments.save_every:
        parser.error("two saves at least: --steps is less than twice --save-every")
    clock = Clock()
    instrument(clock)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        os.environ["LLMTUNE_CACHE"] = str(Path(name) / "cache")
        code = train(arguments, Path(name) / "runs")
        if code:
            return code
        (latest,) = Path(name).glob("runs/*/2*/checkpoints/latest")
        num_bytes = sum(file.stat().st_size for file in latest.iterdir())
        plain = plain_write(Path(name), num_bytes)
    is_met = report(clock, save_every=arguments.save_every, num_bytes=num_bytes, plain=plain)
    return int(not is_met)


if __name__ == "__main__":
    sys.exit(main())
