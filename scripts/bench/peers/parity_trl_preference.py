"""Whether task=preference has the losses and the gradients of TRL: python scripts/bench/peers/parity_trl_preference.py CACHE

A tiny random Llama, another one as the reference, float32, one batch of pairs. dpo and ipo beside DPOTrainer, which reads the
pairs as texts; orpo and simpo beside ORPOTrainer and CPOTrainer of trl.experimental, which get llmtune's tokens, since they
would put an end token of their own behind them. ORPOTrainer adds the likelihood of the prompt to that of the chosen answer, and
the paper does not: here the paper's sum is made of the trainer's parts. TRL has no conservative DPO to compare with:
tests/parity does it. CACHE keeps TRL's environment. Ends with 1 where a loss or gradient differs by more than TOLERANCE: the
loss relatively, the gradients by the norm of their difference over their norm.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import common
import parity_trl
from lora_llama import TRL, WEIGHTS
from parity_trl import MAX_LENGTH, QUESTIONS, TOLERANCE, distance

WORSE = ["mouses, obviously", "Hallo", "9, 5, 3, and that took me a while!\nReally.", "Green."]
LOSSES = {
    "dpo": {"loss": "dpo", "beta": 0.1},
    "ipo": {"loss": "ipo", "beta": 0.2},
    "orpo": {"loss": "orpo", "beta": 0.5},
    "simpo": {"loss": "simpo", "beta": 2.5, "margin": 1.25},
}


def moved(model: str, out: str) -> common.Result:
    """To be called: another model of the same kind, whose answers are others than the first one's."""
    import torch
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    net.save_pretrained(out)
    return {}


def ours(model: str, reference: str, out: str, rows: str, how: dict[str, Any]) -> common.Result:
    """To be called: the loss of llmtune; its gradients are saved, and the rows that it was computed on."""
    import numpy as np
    import pyarrow as pa
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from llmtune.data.forms import MESSAGES
    from llmtune.tasks.base import Draw
    from llmtune.tasks.preference import REFERENCE, PreferenceTask, ReferenceTask
    from llmtune.tasks.preference_losses import settings_of
    from llmtune.tasks.text import TextInputs

    net, start = (AutoModelForCausalLM.from_pretrained(path, dtype="float32") for path in (model, reference))
    text = TextInputs(Path(model), max_length=MAX_LENGTH, pad_token_id=0, token_types=False, has_pairs=False)
    loss, numbers = how["loss"], {"beta": None, "label_smoothing": 0.0, "margin": None, **how}
    settings = settings_of(numbers.pop("loss"), **numbers)
    task = PreferenceTask(text, loss=loss, settings=settings, system_prompt=None, too_long="drop", end_ids=())
    stored = pa.RecordBatch.from_pydict(task.encode(columns(MESSAGES))).to_pylist()
    Path(rows).write_text(json.dumps(stored))
    examples = [{"id": i, **{name: np.array(values) for name, values in row.items()}} for i, row in enumerate(stored)]
    with torch.no_grad():
        said = ReferenceTask(task).score(start.eval(), task.collate(examples, Draw(0, 0))).outputs
    examples = [{**e, **{side: said[side][i] for side in REFERENCE}} for i, e in enumerate(examples)]
    batch = task.collate(examples, Draw(0, 0))
    value = task.loss(net.train(), batch).sum / batch.num_targets
    value.backward()
    save_file({name: p.grad.clone() for name, p in net.named_parameters()}, out)
    return {"loss": value.item()}


def columns(kind: Any) -> dict[str, Any]:
    import pyarrow as pa

    def side(answers: list[str]) -> Any:
        turns = [(asked, answer) for (asked, _), answer in zip(QUESTIONS, answers, strict=True)]
        return pa.array([[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in turns], kind)

    return {"messages": side([answer for _, answer in QUESTIONS]), "rejected": side(WORSE)}


def theirs(model: str, reference: str, out: str, rows: str, how: dict[str, Any]) -> common.Result:
    """To be called, in TRL's environment: the same of TRL's trainer for the loss."""
    from safetensors.torch import save_file

    stored = json.loads(Path(rows).read_text())
    make = {"dpo": _dpo, "ipo": _dpo, "orpo": _orpo, "simpo": _simpo}[how["loss"]]
    trainer, loss = make(model, reference, Path(out).parent / "trl", stored, how)
    loss.backward()
    save_file({name: p.grad.clone() for name, p in trainer.model.named_parameters()}, out)
    return {"loss": loss.item()}


ARGUMENTS = {
    "model_init_kwargs": {"dtype": "float32"},
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
    "max_length": MAX_LENGTH,
}


def _dataset() -> Any:
    from datasets import Dataset

    said = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
    pairs = zip(QUESTIONS, WORSE, strict=True)
    return Dataset.from_list(
        [
            {"prompt": said("user", asked), "chosen": said("assistant", good), "rejected": said("assistant", bad)}
            for (asked, good), bad in pairs
        ]
    )


def _dpo(model: str, reference: str, folder: Path, stored: list[dict], how: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    kind = {"dpo": "sigmoid", "ipo": "ipo"}[how["loss"]]
    sizes = {"per_device_train_batch_size": len(stored), "beta": how["beta"]}
    arguments = DPOConfig(output_dir=str(folder), loss_type=[kind], **sizes, **ARGUMENTS)
    start = AutoModelForCausalLM.from_pretrained(reference, dtype="float32")
    trainer: Any = DPOTrainer(model, ref_model=start, args=arguments, train_dataset=_dataset())
    return trainer, trainer.compute_loss(trainer.model.train(), dict(next(iter(trainer.get_train_dataloader()))))


def _batch(stored: list[dict]) -> dict[str, Any]:
    """llmtune's tokens in the form of the experimental trainers."""
    import torch

    made: dict[str, Any] = {}
    for side in ("chosen", "rejected"):
        rows = []
        for row in stored:
            first, behind, other, _ = row["pair"]
            is_chosen = side == "chosen"
            ids = row["input_ids"][:behind] if is_chosen else row["input_ids"][behind:]
            rows.append((ids, first if is_chosen else other - behind))
        longest = max(len(ids) for ids, _ in rows)
        fill = lambda values, pad: torch.tensor([[*v, *[pad] * (longest - len(v))] for v in values])  # noqa: B023, E731
        made[f"{side}_input_ids"] = fill([ids for ids, _ in rows], 0)
        made[f"{side}_attention_mask"] = fill([[1] * len(ids) for ids, _ in rows], 0)
        made[f"{side}_labels"] = fill([[*[-100] * first, *ids[first:]] for ids, first in rows], -100)
    return made


def _orpo(model: str, reference: str, folder: Path, stored: list[dict], how: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoTokenizer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    arguments = ORPOConfig(output_dir=str(folder), beta=how["beta"], **ARGUMENTS)
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer: Any = ORPOTrainer(model, args=arguments, train_dataset=_dataset(), processing_class=tokenizer)
    chosen, rejected, *_ = trainer.concatenated_forward(trainer.model.train(), _batch(stored))
    ratio, *_ = trainer.odds_ratio_loss(chosen, rejected)
    return trainer, -chosen.mean() - ratio.mean()


def _simpo(model: str, reference: str, folder: Path, stored: list[dict], how: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoTokenizer
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    numbers = {"loss_type": "simpo", "beta": how["beta"], "simpo_gamma": how["margin"], "cpo_alpha": 0.0}
    arguments = CPOConfig(output_dir=str(folder), **numbers, **ARGUMENTS)
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer: Any = CPOTrainer(model, args=arguments, train_dataset=_dataset(), processing_class=tokenizer)
    loss, _ = trainer.get_batch_loss_metrics(trainer.model.train(), _batch(stored), "train")
    return trainer, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    python = common.environment(parser.parse_args().cache, "trl", TRL, alone=WEIGHTS)
    lines, differs = [], False
    with common.work_folder(threads=1) as folder:
        common.call(parity_trl.made, folder=folder)
        common.call(moved, model=folder / "pairs", out=folder / "reference")
        for name, how in LOSSES.items():
            shared = {"model": folder / "pairs", "reference": folder / "reference", "rows": folder / "rows.json", "how": how}
            mine = common.call(ours, **shared, out=folder / "ours.safetensors")
            other = common.call(theirs, python=python, **shared, out=folder / "theirs.safetensors")
            apart = distance(folder / "ours.safetensors", folder / "theirs.safetensors")
            differs |= not (abs(mine["loss"] / other["loss"] - 1) <= TOLERANCE and apart <= TOLERANCE)
            lines.append([name, f"{mine['loss']:.7f}", f"{other['loss']:.7f}", f"{apart:.1e}"])
    common.print_table(["loss", "value", "of TRL", "gradients differ by"], lines)
    sys.exit(int(differs))


if __name__ == "__main__":
    main()
