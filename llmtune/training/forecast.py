"""What a training stage will need, from a few measured steps: peak memory, time, and what to change if it does not fit."""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from llmtune.data.batches import deal
from llmtune.training import checkpoint
from llmtune.training.memory import OutOfMemory, Peak
from llmtune.training.plan import PlannedStep
from llmtune.training.plan import window as window_of
from llmtune.training.trainer import Trainer

WARM_UP, MEASURED = 3, 16  # steps
MOST_COUNTED = 4000  # planned steps whose size is looked at


@dataclass(frozen=True)
class Forecast:
    """Bytes and seconds; of this process, on the device where it computes.

    Attributes:
        total_steps: of the run.
        base_bytes: in use before the first step: weights, libraries.
        train_bytes, evaluate_bytes, save_bytes: peaks of a step and of an evaluation at the longest batch, and of a save.
        free_bytes: that this process can still get, what it has included.
        checkpoint_bytes: of one checkpoint on the disk.
        tokens_per_second: of training.
        train_seconds, evaluate_seconds, save_seconds: of the whole run.
        fits: whether the longest batch could be computed.
    """

    total_steps: int
    base_bytes: int
    train_bytes: int
    evaluate_bytes: int
    save_bytes: int
    free_bytes: int
    checkpoint_bytes: int
    tokens_per_second: float
    train_seconds: float
    evaluate_seconds: float
    save_seconds: float
    fits: bool


def forecast(
    trainer: Trainer, scratch: Path, *, score: Callable[[np.ndarray], object] | None, batches: list[np.ndarray]
) -> Forecast:
    """Run some steps, an evaluation batch and a save, and count the rest.

    Args:
        trainer: of the stage, whose run directory holds nothing but config.yaml; the weights are changed.
        scratch: a folder on the disk of the runs, for one checkpoint.
        score: predicts a batch of validation rows; None if there are none.
        batches: of these rows, longest first.
    """
    peak = Peak(trainer.compute.device)
    peak.reset()
    base_bytes = peak.read()
    trainer.averages.reserve()
    planned = _looked_at(trainer)
    sizes_S = np.array([_positions(trainer, step) for step in planned])
    fits, seconds, rate = True, 0.0, 0.0
    try:
        timed = _timed(trainer, [planned[i] for i in _spread(sizes_S)])
        seconds = _total(timed, sizes_S) / len(planned) * trainer.plan.total_steps
        rate = sum(tokens for _, _, tokens in timed) / sum(took for _, took, _ in timed)
        peak.reset()
        _timed(trainer, [planned[int(sizes_S.argmax())]] * 2)
    except OutOfMemory:
        fits = False
    train_bytes = peak.read()
    evaluate_bytes, evaluate_seconds = _evaluations(trainer, peak, score, batches)
    save_bytes, save_seconds, checkpoint_bytes = _saves(trainer, peak, scratch)
    return Forecast(
        total_steps=trainer.plan.total_steps,
        base_bytes=base_bytes,
        train_bytes=train_bytes,
        evaluate_bytes=evaluate_bytes,
        save_bytes=save_bytes,
        free_bytes=available_bytes(trainer.compute.device),
        checkpoint_bytes=checkpoint_bytes,
        tokens_per_second=rate,
        train_seconds=seconds,
        evaluate_seconds=evaluate_seconds,
        save_seconds=save_seconds,
        fits=fits,
    )


def available_bytes(device: torch.device) -> int:
    """Memory that this process has or can still get: of the GPU, or of this machine or container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    own = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    free = int(facts["MemAvailable"].split()[0]) * 1024 + own
    limit = Path("/sys/fs/cgroup/memory.max")
    told = limit.read_text().strip() if limit.is_file() else "max"
    return free if told == "max" else min(free, int(told))


def _looked_at(trainer: Trainer) -> list[PlannedStep]:
    """The planned steps, or so many of the first that they stand for all."""
    return [step for step, _ in zip(trainer.plan.steps(0), range(MOST_COUNTED), strict=False)]


def _positions(trainer: Trainer, planned: PlannedStep) -> int:
    """Tokens of a step, padding included."""
    lengths_B = trainer.split.lengths[planned.indices]
    hands = deal(lengths_B, num_micro_batches=trainer.training.gradient_accumulation_steps)
    return sum(len(hand) * int(lengths_B[hand].max()) for hand in hands if len(hand))


def _spread(sizes_S: np.ndarray) -> list[int]:
    """Steps to measure: some of middle size to warm up with, then small to large ones in mixed order."""
    order = np.argsort(sizes_S, kind="stable")
    at = np.linspace(0, len(order) - 1, MEASURED).round().astype(int)
    mixed = np.random.default_rng(0).permutation(order[at])
    return [int(i) for i in [*[order[len(order) // 2]] * WARM_UP, *mixed]]


def _timed(trainer: Trainer, steps: list[PlannedStep]) -> list[tuple[int, float, int]]:
    """Positions, seconds and tokens of each step, those to warm up with left out."""
    cut = {"seed": trainer.seed, "num_micro_batches": trainer.training.gradient_accumulation_steps, "ranks": trainer.ranks}
    loader = (window_of(step, trainer.split, trainer.task, **cut) for step in steps)
    results = list(trainer.steps_over(loader, trainer.called(), lambda: False))
    return [(r.num_positions, r.seconds, r.num_tokens) for r in results[WARM_UP:]]


def _total(timed: list[tuple[int, float, int]], sizes: np.ndarray) -> float:
    """Seconds of all steps, from a line through the measured ones."""
    positions, seconds = np.array([p for p, _, _ in timed]), np.array([s for _, s, _ in timed])
    if np.ptp(positions) == 0:
        return float(np.median(seconds)) * len(sizes)
    slope, offset = np.polyfit(positions, seconds, 1)
    return float(np.maximum(offset + slope * sizes, 0.0).sum())


def _evaluations(
    trainer: Trainer, peak: Peak, score: Callable[[np.ndarray], object] | None, batches: list[np.ndarray]
) -> tuple[int, float]:
    """Peak at the longest batch, and the seconds of all evaluations of the run."""
    if score is None:
        return 0, 0.0
    trainer.model.eval()
    peak.reset()
    score(batches[0])
    highest = peak.read()
    every = max(1, len(batches) // MEASURED)
    started = time.perf_counter()
    for batch in batches[::every]:
        score(batch)
    seconds = (time.perf_counter() - started) / len(batches[::every]) * len(batches)
    number = sum(trainer.is_evaluation_due(step) for step in range(1, trainer.plan.total_steps + 1))
    return highest, seconds * number


def _saves(trainer: Trainer, peak: Peak, scratch: Path) -> tuple[int, float, int]:
    """Peak of a save, the seconds of all saves of the run, and the bytes of one."""
    peak.reset()
    took = []
    for number in (1, 2, 3):
        started = time.perf_counter()
        with trainer.state(number) as state:
            path = checkpoint.save(scratch, state, step=number)
        checkpoint.verify(path, reads=False)
        took.append(time.perf_counter() - started)
    size = sum(file.stat().st_size for file in path.iterdir())
    due = trainer.training.save_every
    last = trainer.plan.total_steps
    number = sum(trainer.is_evaluation_due(n) or n == last or bool(due and n % due == 0) for n in range(1, last + 1))
    return peak.read(), statistics.median(took) * number, size


def remedies(found: Forecast, trainer: Trainer, *, is_transformer: bool) -> list[str]:
    """Overrides that lower the peak, the mildest first; none if it fits."""
    if found.fits and max(found.train_bytes, found.evaluate_bytes, found.save_bytes) <= found.free_bytes:
        return []
    room, needed = found.free_bytes - found.base_bytes, found.train_bytes - found.base_bytes
    parts = trainer.training.gradient_accumulation_steps * (max(2, -(-needed // room)) if room > 0 else 2)
    told = [f"training.gradient_accumulation_steps={min(parts, trainer.training.batch_size)}"]
    if is_transformer and not trainer.training.activation_checkpointing:
        told.append("training.activation_checkpointing=true")
    return [*told, f"tokenizer.max_length={max(1, int(trainer.split.lengths.max()) // 2)}", "a smaller model"]
