"""Scores a run's checkpoint on its splits with several batch sizes, on as many ranks as there are, and writes the metrics."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from llmtune.commands import rows, runs
from llmtune.evaluation.evaluate import evaluate
from llmtune.training import precision
from llmtune.training.distributed import Ranks
from llmtune.training.restore import restore

BATCH_SIZES = (1, 4, 7, 16)


def scores(run: str, ranks: Ranks, hardware) -> dict[str, dict]:
    compute = precision.choose(hardware, precision="fp32", is_transformer=True)
    restored = restore(run, which="best")
    ready = rows.of_run(runs.stage_config(Path(run)), restored)
    return {
        f"{split} {size}": evaluate(
            restored.model, restored.task(), ready.splits[split], batch_size=size, compute=compute, seed=0, ranks=ranks
        ).metrics
        for split in ("train", "validation")
        for size in BATCH_SIZES
    }


def main(names: Sequence[str], out: Path) -> None:
    torch.set_num_threads(1)
    hardware = runs.stage_config(Path(names[0])).hardware
    with Ranks(hardware) as ranks:
        found = {name: scores(name, ranks, hardware) for name in names}
        if ranks.is_main:
            out.write_text(json.dumps({"ranks": ranks.size, **found}), encoding="utf-8")
