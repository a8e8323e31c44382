"""The transformers Trainer and llmtune, given the same job and the same hooks; kills_beside_trainer.py compares them.

The job: a BERT of 2 layers of width 128 learns a masked language model in 40 steps with accumulation, a save every five steps,
an evaluation every ten, two checkpoints kept. All of it runs in forked processes; see compared_runs.py.
"""

import contextlib
import csv
import functools
import json
import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kills import COMMON, MODELS

STEPS, SAVE_EVERY, EVAL_EVERY, KEEP, MICRO_BATCHES = 40, 5, 10, 2, 2
TEXT_LENGTH = 24  # tokens
ROWS = "rows.csv"
# What the Trainer has no word for, what a hook sets, and a size too small for a save to take any time.
UNEQUAL = ("augment=", "hardware.num_threads=", "model.num_layers=", "model.num_heads=", "model.hidden_size=")
TIMES = "times.json"


@dataclass(frozen=True)
class Job:
    """What is to happen in a run besides training.

    Attributes:
        threads: of torch.
        signal_after, signal_number: the process sends itself a signal after this step.
        limit_after, limit: no file may grow beyond this many bytes after this step.
        nan_at: the model gives NaN in this step.
        pause: seconds after each step.
        just_in_time: the Trainer's own answer to SIGTERM, `enable_jit_checkpoint`, is on.
        masks_once: the Trainer's rows are masked before the run instead of in its collator.
        is_timed: the moment of the first save and the seconds of each are written down.
    """

    threads: int = 1
    signal_after: int | None = None
    signal_number: int = signal.SIGKILL
    limit_after: int | None = None
    limit: int = 0
    nan_at: int | None = None
    pause: float = 0.0
    just_in_time: bool = False
    masks_once: bool = False
    is_timed: bool = False

    def prepare(self, trainer: type, save: str) -> None:
        """Before a run. `save` is the method of the trainer that saves."""
        import torch

        torch.set_num_threads(self.threads)
        if self.nan_at is not None:
            _give_nan(self.nan_at)
        if self.is_timed:
            _note_times(trainer, save)

    def after_step(self, step: int) -> None:
        if step == self.signal_after:
            os.kill(os.getpid(), self.signal_number)
        if step == self.limit_after:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.RLIM_INFINITY))
        time.sleep(self.pause)


class HuggingFace:
    """A script around the Trainer as transformers' own examples write it, resumed from the last checkpoint.

    Args:
        like: directory with the config.json and the tokenizer of the model.
    """

    name = "Trainer"
    random_state = "rng_state.pth"
    optimizer = "optimizer.pt"

    def __init__(self, like: Path):
        self.like = like

    def run(self, job: Job) -> int:
        from transformers import Trainer, TrainerCallback
        from transformers.trainer_utils import get_last_checkpoint

        job.prepare(Trainer, "_save_checkpoint")

        class AfterStep(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                job.after_step(state.global_step)

        rows = self._masked() if job.masks_once else self._rows()
        made = self._trainer(rows[:-32], rows[-32:], callbacks=[AfterStep()], enable_jit_checkpoint=job.just_in_time)
        made.train(resume_from_checkpoint=get_last_checkpoint("out") if os.path.isdir("out") else None)
        return 0

    def evaluate(self, batch_sizes: list[int]) -> int:
        """Losses of the trained model on rows whose masks are drawn once, and on masks that the collator draws."""
        import torch

        torch.set_num_threads(1)
        model_dir, data = (
            self.checkpoints(Path())[-1],
            {"masks of the rows": self._masked(), "masks of the collator": self._rows()},
        )
        losses: dict[str, list[float]] = {name: [] for name in data}
        for size in batch_sizes:
            for name, rows in data.items():
                made = self._trainer(rows, rows, model_dir=model_dir, per_device_eval_batch_size=size)
                losses[name].append(made.evaluate()["eval_loss"])
        total = count = 0.0
        model = made.model.eval()
        for row in data["masks of the rows"]:
            labels = torch.tensor(row["labels"])
            with torch.no_grad():
                logits = model(**{k: torch.tensor([v]) for k, v in row.items() if k != "labels"}).logits[0].double()
            total += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
            count += int((labels != -100).sum())
        Path("losses.json").write_text(json.dumps({**losses, "exact": total / count}))
        return 0

    def checkpoints(self, folder: Path) -> list[Path]:
        """Oldest first."""
        return sorted(folder.glob("out/checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))

    def begun_saves(self, folder: Path) -> list[int]:
        """Steps whose save is to be seen on the disk."""
        return [int(path.name.rpartition("-")[2]) for path in folder.glob("out/checkpoint-*")]

    def is_torn(self, folder: Path) -> bool:
        """Whether a save or a rotation was cut short: what is written last is not there, or not whole."""
        return any(_json(path / "trainer_state.json") is None for path in self.checkpoints(folder))

    def losses(self, folder: Path) -> list[Any]:
        history = (_json(self.checkpoints(folder)[-1] / "trainer_state.json") or {})["log_history"]
        return [[entry["step"], entry["loss"]] for entry in history if "loss" in entry]

    def _rows(self) -> list[dict[str, list[int]]]:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.like)
        with open(ROWS, encoding="utf-8", newline="") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
        return [dict(tokenizer(text, truncation=True, max_length=TEXT_LENGTH)) for text in texts]

    def _masked(self) -> list[dict[str, list[int]]]:
        from transformers import AutoTokenizer, DataCollatorForLanguageModeling, set_seed

        draw = DataCollatorForLanguageModeling(AutoTokenizer.from_pretrained(self.like))
        set_seed(7)
        return [{name: values[0].tolist() for name, values in draw([row]).items()} for row in self._rows()]

    def _trainer(self, train: Any, evaluation: Any, *, model_dir: Path | None = None, callbacks: Any = (), **more: Any) -> Any:
        from transformers import AutoConfig, AutoTokenizer, BertForMaskedLM, Trainer, TrainingArguments, set_seed
        from transformers import DataCollatorForLanguageModeling as Masking
        from transformers import DataCollatorForTokenClassification as Padding

        set_seed(7)
        config = AutoConfig.from_pretrained(self.like)
        model = BertForMaskedLM(config) if model_dir is None else BertForMaskedLM.from_pretrained(model_dir)
        tokenizer = AutoTokenizer.from_pretrained(self.like)
        arguments = TrainingArguments(
            output_dir="out",
            max_steps=STEPS,
            per_device_train_batch_size=8 // MICRO_BATCHES,
            gradient_accumulation_steps=MICRO_BATCHES,
            learning_rate=1e-3,
            logging_steps=1,
            save_steps=SAVE_EVERY,
            eval_strategy="steps",
            eval_steps=EVAL_EVERY,
            save_total_limit=KEEP,
            seed=7,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            **more,
        )
        collator = (Padding if "labels" in train[0] else Masking)(tokenizer)
        return Trainer(model, arguments, collator, train, evaluation, processing_class=tokenizer, callbacks=list(callbacks))


class Llmtune:
    """`llmtune train`, started again with the same words."""

    name = "llmtune"
    random_state = "trainer.json"  # the step counter is all that it needs
    optimizer = "optimizer.safetensors"
    words = [w for w in [*COMMON, *MODELS["bert"]] if not w.startswith(UNEQUAL)] + [
        "model.size=tiny",
        "hardware.precision=fp32",
        "hardware.num_workers=0",
    ]

    def run(self, job: Job) -> int:
        from llmtune.cli import main
        from llmtune.training.trainer import Trainer

        job.prepare(Trainer, "_save")
        after_step = Trainer._after_step

        def noted(trainer: Trainer, result: Any, *args: Any) -> Any:
            job.after_step(result.step)
            return after_step(trainer, result, *args)

        Trainer._after_step = noted
        return main(["train", *self.words])

    def evaluate(self, batch_sizes: list[int]) -> int:
        import torch

        from llmtune.cli import main

        torch.set_num_threads(1)
        losses = []
        run = self._run(Path())
        for size in batch_sizes:
            words = [str(run), f"file={ROWS}", f"evaluation.batch_size={size}", "hardware.device=cpu"]
            if code := main(["evaluate", *words, "checkpoint=latest"]):
                return code
            newest = max(run.glob("evaluation/*/metrics.json"), key=lambda path: path.stat().st_mtime_ns)
            losses.append(json.loads(newest.read_text(encoding="utf-8"))["loss"])
        Path("losses.json").write_text(json.dumps({"masks of the rows": losses}))
        return 0

    def checkpoints(self, folder: Path) -> list[Path]:
        """Oldest first."""
        return sorted((self._run(folder) / "checkpoints").glob("step-*"))

    def begun_saves(self, folder: Path) -> list[int]:
        """Steps whose save is to be seen on the disk: .tmp-step-N.ID."""
        return [int(path.name.split("-")[2][:6]) for path in folder.glob("runs/*/2*/checkpoints/.tmp-step-*")]

    def is_torn(self, folder: Path) -> bool:
        """Whether a save or a rotation was cut short."""
        return any(path.is_dir() for path in (self._run(folder) / "checkpoints").glob(".t*-step-*"))

    def losses(self, folder: Path) -> list[Any]:
        lines = (self._run(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [[e["step"], e["loss"]] for line in lines if (e := json.loads(line))["event"] == "step"]

    def _run(self, folder: Path) -> Path:
        return next(folder.glob("runs/*/2*"), folder / "none")


Tool = HuggingFace | Llmtune


def _give_nan(step: int) -> None:
    """Both tools call this class: it gives NaN in the first micro-batch of a step."""
    import torch
    from transformers import BertForMaskedLM

    original, num_calls = BertForMaskedLM.forward, 0

    @functools.wraps(original)
    def forward(model: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal num_calls
        output = original(model, *args, **kwargs)
        num_calls += model.training
        if model.training and num_calls == MICRO_BATCHES * (step - 1) + 1:
            output.logits = output.logits * torch.nan
            output.loss = None if output.loss is None else output.loss * torch.nan
        return output

    BertForMaskedLM.forward = forward


def _note_times(trainer: type, save: str) -> None:
    """The moment of the first save, by the clock that all processes share, and the seconds of each."""
    original, first, seconds = getattr(trainer, save), time.monotonic(), []

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal first
        started = time.monotonic()
        first = first if seconds else started
        result = original(*args, **kwargs)
        seconds.append(time.monotonic() - started)
        Path(TIMES).write_text(json.dumps({"first_save": first, "saves": seconds}))
        return result

    setattr(trainer, save, timed)


def _json(file: Path) -> Any:
    """The content of a JSON file; None if it is not there or not whole."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    return None
