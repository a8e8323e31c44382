"""What averages of the weights are worth: runs of an LSTM, judged by their newest weights and by averages.

    OMP_NUM_THREADS=1 python scripts/bench/averages.py TRAIN.csv VALIDATION.csv TEST.csv [--seeds 3] [--epochs 3]

The files have the columns text and label. An average changes nothing about the steps of a run, so that all are taken along in
one for each schedule and seed. Prints the accuracy on the test rows after the last step.
"""

import argparse
import tempfile
from pathlib import Path

from llmtune.commands import stage
from llmtune.commands.preparing import prepare_stage
from llmtune.config.compose import compose
from llmtune.config.sections.averaging import Ema, NoAveraging, Swa
from llmtune.evaluation.evaluate import evaluate
from llmtune.training import precision
from llmtune.training.averaging import Averages
from llmtune.training.distributed import Ranks
from llmtune.training.plan import windows

WAYS = {
    "newest": NoAveraging(type="none"),
    "ema": Ema(type="ema", decay=0.999, warmup=True),
    "swa from 1/3 on": Swa(type="swa", start_ratio=1 / 3, every=1),
}
SCHEDULES = ("constant", "linear")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    print("schedule, seed".ljust(18), *(name.rjust(16) for name in WAYS), flush=True)
    for schedule in SCHEDULES:
        for seed in range(args.seeds):
            found = accuracies(args.files, schedule, seed, args.epochs)
            print(f"{schedule}, {seed}".ljust(18), *(f"{value:16.4f}" for value in found), flush=True)


def accuracies(files: list[str], schedule: str, seed: int, epochs: int) -> list[float]:
    data = [f"data.{kind}_file={file}" for kind, file in zip(("train", "validation", "test"), files, strict=True)]
    args = ["model=lstm", f"schedule={schedule}", f"seed={seed}", f"training.epochs={epochs}", "hardware=cpu"]
    config = compose("train", [*data, *args]).config
    precision.set_up(config.hardware, exact=True)
    compute = precision.choose(config.hardware, precision="fp32", is_transformer=False)
    ready, ranks = prepare_stage(config), Ranks(config.hardware)
    with tempfile.TemporaryDirectory() as scratch:
        model = stage._model(config, ready, compute)
        trainer = stage._trainer(config, Path(scratch), ready, None, model, compute, ranks)
        how = {"total_steps": trainer.plan.total_steps}
        averages = [Averages(model, trainer.groups, way, trainer.optimizer, **how) for way in WAYS.values()]
        dealt = {"num_micro_batches": 1, "ranks": ranks, "num_workers": 0, "pin_memory": False}
        loader = windows(trainer.plan, trainer.split, trainer.task, start=0, seed=seed, **dealt)
        for result in trainer.steps_over(loader, trainer.called(), lambda: False):
            for average in averages:
                average.update(result.step - 1)
        scored = []
        for average in averages:
            with average.in_place():
                found = evaluate(model, trainer.task, ready.splits["test"], batch_size=64, compute=compute, seed=seed)
            scored.append(found.metrics["accuracy"])
    return scored


if __name__ == "__main__":
    main()
