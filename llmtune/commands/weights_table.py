"""What a training prints before it begins: which weights there are, which learn, at what rate, and with what decay."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from llmtune import console
from llmtune.config.sections.optimizer import OptimizerConfig
from llmtune.config.sections.tuning import TuningConfig
from llmtune.training import parameter_groups
from llmtune.tuning import four_bit, places

NUMBERS = (1, 2, 3)  # columns


@dataclass(frozen=True)
class _Row:
    """Some places in succession that are treated alike."""

    names: list[str]
    total: int
    learned: int
    spared: int
    scale: float | None
    decay: float


def tell(model: nn.Module, tuning: TuningConfig, optimizer: OptimizerConfig, *, title: str) -> None:
    """One line where all weights learn at one rate, else a table of their places."""
    rows = list(_in_succession(_rows(model, tuning, optimizer)))
    total, learned = sum(row.total for row in rows), sum(row.learned for row in rows)
    if tuning.type == "full":
        whole = _Row([], total, learned, sum(row.spared for row in rows), 1.0, optimizer.weight_decay)
        console.notice(f"{title}; {total:,} weights, all learn; lr {optimizer.lr:g}, weight decay {_decay(whole)}")
        return
    shown = [
        [
            _name(row.names),
            f"{row.total:,}",
            f"{row.learned:,}" if row.learned else "-",
            f"{optimizer.lr * row.scale:.2e}" if row.learned else "-",
            _decay(row) if row.learned else "-",
        ]
        for row in rows
    ]
    shown.append(["together", f"{total:,}", f"{learned:,}", "", f"{100 * learned / total:.3g} % learn"])
    header = [f"tuning={tuning.type}", "weights", "learn", "lr", "weight decay"]
    console.notice_table(title, header, shown, numbers=NUMBERS)


def _rows(model: nn.Module, tuning: TuningConfig, optimizer: OptimizerConfig) -> Iterator[_Row]:
    parameters = dict(model.named_parameters())
    groups = parameter_groups.build(model, tuning, weight_decay=optimizer.weight_decay)
    for place, names in places.of(model).items():
        here = [group for group in groups if group.name == place]
        counts = [(group, sum(p.numel() for p in group.params)) for group in here]
        spared = sum(number for group, number in counts if group.weight_decay == 0.0)
        scale = here[0].lr_scale if here else None
        total = sum(four_bit.num_weights(parameters[name]) for name in names)
        yield _Row([place], total, sum(number for _, number in counts), spared, scale, optimizer.weight_decay)


def _in_succession(rows: Iterator[_Row]) -> Iterator[_Row]:
    """The rows, layers in succession put together that learn alike."""
    held: _Row | None = None
    for row in rows:
        alike = held is not None and _kind(held) == _kind(row) and row.scale == held.scale
        if alike and bool(row.learned) == bool(held.learned):
            sums = (held.total + row.total, held.learned + row.learned, held.spared + row.spared)
            held = _Row([*held.names, *row.names], *sums, held.scale, held.decay)
            continue
        if held is not None:
            yield held
        held = row
    if held is not None:
        yield held


def _kind(row: _Row) -> str:
    return row.names[0].split()[0]


def _name(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0].replace('layer', 'layers')}-{names[-1].split()[1]}"


def _decay(row: _Row) -> str:
    """The decay, and for how many weights there is none."""
    if row.decay == 0.0 or row.spared == row.learned:
        return "0"
    return f"{row.decay:g}, but 0 for {row.spared:,}" if row.spared else f"{row.decay:g}"
