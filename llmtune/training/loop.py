"""The training loop: a generator of facts. Logging, evaluation, checkpoints and stopping live in its consumer."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from llmtune.errors import DivergedError
from llmtune.failures import is_out_of_memory
from llmtune.randomness import draw_key
from llmtune.tasks.base import Batch, LossOf
from llmtune.training.distributed import Ranks
from llmtune.training.memory import OutOfMemory
from llmtune.training.plan import Window
from llmtune.training.precision import Compute


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did.

    Attributes:
        step: steps done, this one included.
        epoch: passes over the data begun before this step, from 0.
        ends_epoch: whether it was the last step of its epoch.
        loss: mean over the targets of the whole window and all ranks.
        lr: learning rate of the step, the highest of its groups.
        grad_norm: of the mean loss, before clipping.
        num_examples, num_tokens, num_positions: of all ranks; positions count padding too.
        seconds: wall clock, waiting for data included.
        wait_seconds: spent waiting for data.
        parts: of the loss, by name, where it has several.
    """

    step: int
    epoch: int
    ends_epoch: bool
    loss: float
    lr: float
    grad_norm: float
    num_examples: int
    num_tokens: int
    num_positions: int
    seconds: float
    wait_seconds: float
    parts: dict[str, float] = field(default_factory=dict)


def train_steps(
    model: nn.Module,
    loss_of: LossOf,
    windows: Iterable[Window],
    optimizer: torch.optim.Optimizer,
    *,
    lr_factor: Callable[[int], float],
    compute: Compute,
    ranks: Ranks,
    seed: int,
    max_grad_norm: float | None,
    scaler: torch.amp.GradScaler,
    after_update: Callable[[int], None],
    is_stopping: Callable[[], bool],
) -> Iterator[StepResult]:
    """Run one optimizer step for each window of micro-batches.

    Dropout is keyed by (seed, step, micro-batch, rank), so that a resumed run needs its step counter alone.
    `after_update` is told each step (from 0) whose update is done, as part of its time.
    `is_stopping` is asked between micro-batches; a window that it interrupts is dropped. Several ranks are not asked, since
    they have to stop together: the consumer sees to that between two steps.

    Raises:
        DivergedError: a loss or gradient is not finite; the weights are those of the step before.
        OutOfMemory: a micro-batch does not fit; the weights are those of the step before.
    """
    weights = list(model.parameters())  # those without a gradient count for nothing; which ones have one may change
    base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]  # may begin a second time
    clock = time.perf_counter()
    for window in windows:
        waited = time.perf_counter() - clock
        step = window.step
        num_targets = ranks.sum(sum(b.num_targets for b in window.batches)) or 1.0  # a window may hold nothing to predict
        model.train()
        losses: list[Tensor] = []
        parts: dict[str, Tensor | float] = {}
        for micro, batch in enumerate(window.batches):
            if ranks.size == 1 and is_stopping():
                return
            _begin_draws(draw_key(seed, "dropout", step, micro, ranks.rank), compute.device)
            with ranks.no_sync(model, until_last=micro < len(window.batches) - 1):
                # Ranks are averaged by DDP, so that the sum over all of them needs their number as a factor.
                factor = ranks.size / num_targets
                losses.append(_backward(model, loss_of, batch, compute, scaler, factor=factor, parts=parts))
        loss, *shares = (v / num_targets for v in ranks.sums([float(sum(losses)), *map(float, parts.values())]))
        scaler.unscale_(optimizer)
        grad_norm = float(nn.utils.clip_grad_norm_(weights, max_grad_norm if max_grad_norm is not None else float("inf")))
        if not math.isfinite(loss) or not (scaler.is_enabled() or math.isfinite(grad_norm)):
            raise _diverged(loss, step, window.batches, losses, ranks)
        factor = lr_factor(step)
        for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
            group["lr"] = lr * factor
        scaler.step(optimizer)
        scaler.update()
        after_update(step)
        optimizer.zero_grad(set_to_none=True)
        now = time.perf_counter()
        examples, tokens, positions = ranks.sums(_sizes(window.batches))
        lr = max(base_lrs) * factor
        place, sizes, took = (step + 1, window.epoch, window.ends_epoch), (examples, tokens, positions), (now - clock, waited)
        yield StepResult(*place, loss, lr, grad_norm, *sizes, *took, dict(zip(parts, shares, strict=True)))
        clock = time.perf_counter()


def _backward(
    model: nn.Module,
    loss_of: LossOf,
    batch: Batch,
    compute: Compute,
    scaler: torch.amp.GradScaler,
    *,
    factor: float,
    parts: dict[str, Tensor | float],
) -> Tensor:
    """Add the gradients of one micro-batch, times a factor, and its loss to the parts; returns its loss sum, float64."""
    try:
        with compute.autocast():
            terms = loss_of(model, batch.to(compute.device))
            loss = terms.sum * factor if batch.num_targets else terms.sum * 0.0
            scaler.scale(loss).backward()
        for name, part in terms.parts.items():
            parts[name] = parts.get(name, 0.0) + (part.double() if batch.num_targets else 0.0)
        return terms.sum.detach().double() if batch.num_targets else torch.zeros_like(terms.sum, dtype=torch.float64)
    except (RuntimeError, MemoryError) as e:
        if not is_out_of_memory(e):
            raise
    raise OutOfMemory  # not from above, where the exception would keep the computation alive


def _begin_draws(key: int, device: torch.device) -> None:
    """What torch.manual_seed does, but for devices that are not at work: it notes a stack trace for each of them."""
    torch.default_generator.manual_seed(key)
    if device.type == "cuda":
        torch.cuda.manual_seed(key)


def _sizes(batches: list[Batch]) -> list[int]:
    """Examples, tokens and positions of a window; idle micro-batches count nothing."""
    real = [b for b in batches if b.num_targets]
    return [
        sum(len(b.lengths) for b in real),
        sum(int(b.lengths.sum()) for b in real),
        sum(len(b.lengths) * int(b.lengths.max()) for b in real),
    ]


def _diverged(loss: float, step: int, batches: list[Batch], losses: list[Tensor], ranks: Ranks) -> DivergedError:
    """Names the examples of those micro-batches, on whatever rank, whose loss is not finite; else all of the step."""
    ids = [b.example_ids.tolist() if b.num_targets else [] for b in batches]
    faulty = [rows for rows, value in zip(ids, losses, strict=True) if not math.isfinite(value)]
    told = ranks.gather((sum(faulty, []), sum(ids, [])))
    rows = sum((of_rank for of_rank, _ in told), []) or sum((of_rank for _, of_rank in told), [])
    what = "gradient" if math.isfinite(loss) else "loss"
    return DivergedError(
        f"step {step + 1}: the {what} is no finite number; the weights were not changed",
        where=f"train rows {', '.join(map(str, rows[:8]))}{', ...' if len(rows) > 8 else ''} (all of them in diverged.json)",
        rows=rows,
        remedy="a smaller optimizer.lr, a longer warm-up, hardware.precision=fp32, or look at the rows named",
    )
