"""The consumer of the loop: logs its steps, saves, evaluates, finds the best, stops early, and takes up where a run ended."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmtune import console
from llmtune.config.sections.averaging import AveragingConfig
from llmtune.config.sections.optimizer import OptimizerConfig
from llmtune.config.sections.schedule import ScheduleConfig
from llmtune.config.sections.training import TrainingConfig
from llmtune.data.prepared import Split
from llmtune.data.sampling import ClassSampler
from llmtune.errors import CheckpointError, DivergedError, Interrupted, ResourceError
from llmtune.files import write_json
from llmtune.tasks.base import LossOf, Task
from llmtune.training import checkpoint, drift, manifest, memory, optimizers, resume, run_dir, schedules
from llmtune.training.averaging import Averages
from llmtune.training.checkpoint import State
from llmtune.training.distributed import Ranks
from llmtune.training.loop import StepResult, train_steps
from llmtune.training.memory import OutOfMemory
from llmtune.training.openings import Openings
from llmtune.training.pace import Pace
from llmtune.training.parameter_groups import ParameterGroup
from llmtune.training.plan import TrainPlan, Window, windows
from llmtune.training.precision import Compute
from llmtune.training.profiling import StepProfile
from llmtune.training.run_log import RunLog
from llmtune.training.saver import Saver
from llmtune.training.signals import StopRequest

ENDING = ("step", "epoch", "loss", "lr", "grad_norm")


@dataclass
class Trainer:
    """One training stage in one run directory.

    Attributes:
        run: the run directory; it exists and holds the config.
        model: opened for tuning, on its device.
        groups: of its weights that learn.
        task: of the rows.
        loss_of: of a model and a batch, what training makes small.
        split: the train rows.
        sampler: those of each epoch; None: each row once.
        evaluate: scores the model on the validation rows, or gives None if the function that it is given says to stop; None
            if there are no such rows.
        best_metric, higher_is_better: decide which checkpoint is the best.
        conclude: the main rank's last work, once training is complete: it gets what asks whether to stop, and gives what the
            result tells of it, by name, or None if it was stopped.
        make_state: the checkpoint's content but for optimizer, trainer and fingerprint.
        fingerprint: must be equal for a resume.
        num_workers: processes that collate.
        openings: which weights learn when; None: all of them always.
        compiled: the model as the loop calls it, or None to call it as it is.
        whole: within it, weights that training holds in fewer bits are what they were.
    """

    run: Path
    model: nn.Module
    groups: list[ParameterGroup]
    task: Task
    loss_of: LossOf
    split: Split
    sampler: ClassSampler | None
    evaluate: Callable[[Callable[[], bool]], dict[str, Any] | None] | None
    best_metric: str
    higher_is_better: bool
    conclude: Callable[[Callable[[], bool]], dict[str, Any] | None]
    make_state: Callable[..., State]
    fingerprint: dict[str, Any]
    training: TrainingConfig
    optimizer_config: OptimizerConfig
    schedule: ScheduleConfig
    averaging: AveragingConfig
    compute: Compute
    ranks: Ranks
    seed: int
    num_workers: int
    openings: Openings | None = None
    compiled: nn.Module | None = None
    whole: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    _drifted: dict[str, list[Any]] = field(default_factory=dict)
    _num_micro_batches: int = 1
    _pace: Pace = field(default_factory=Pace)

    def fit(self) -> dict[str, Any]:
        """Train to the end, from the last good checkpoint if there is one. Returns what result.json holds.

        Raises:
            Interrupted: a signal came; the state is saved.
            DivergedError: a loss or gradient is not finite.
            CheckpointError: there are checkpoints, and none is good or they belong to another run.
        """
        self._num_micro_batches = self.training.gradient_accumulation_steps
        start = last = self._resume()
        if self.ranks.is_main and not start:
            how = {"averages": self.averages, "is_frozen": self.fingerprint.get("frozen") is not None}
            size = resume.checkpoint_size(self.model, self.groups, self.optimizer_config, **how)
            checkpoint.require_room(self.checkpoints, size)
        self.log = RunLog(self.run / "metrics.jsonl", until_step=start, is_writer=self.ranks.is_main)
        if self._drifted:
            self.log.write("drift", step=start, changes=self._drifted)
        with contextlib.closing(self.log), self.saver, StopRequest() as stop:
            if self.ranks.is_main and start:
                self.saver.point_latest(start)
            self._point_best()
            if start and self._is_evaluation_missing(start):
                self._evaluate(start, stop)
            profile = StepProfile(is_on=self.training.profile and self.ranks.is_main, device=self.compute.device)
            with console.progress("training", total=self.plan.total_steps, unit="steps", done=start) as advance:
                for result in iter(()) if self._is_over(start) else self._steps(start, stop):
                    last = result.step
                    self._pace.note(result)
                    advance(1, self._pace.live_line())
                    profile.step(seconds=result.seconds, wait_seconds=result.wait_seconds)
                    if self._after_step(result, stop):
                        break
            profile.finish()
            profile.tell(self.run)
            exit_code = self.ranks.largest(stop.exit_code or 0)
            stopped = f"stopped after step {last} of {self.plan.total_steps}"
            if exit_code and (not self._is_over(last) or self._is_evaluation_missing(last)):
                self._save(last)
                self.saver.settle()
                remedy = "run the same command again to resume"
                raise Interrupted(f"{stopped}; everything is saved", exit_code=exit_code, remedy=remedy)
            self.saver.settle()
            result = self._result(last)
            if self.ranks.is_main:
                concluded = self.conclude(stop)
                if concluded is None:
                    remedy = "run the same command again to take up what is left"
                    raise Interrupted(f"{stopped}; its thresholds are missing", exit_code=stop.exit_code, remedy=remedy)
                result |= concluded
                run_dir.finish(self.run, result)
            if exit_code:
                raise Interrupted(f"{stopped}; training is complete", exit_code=exit_code)
            return result

    @cached_property
    def plan(self) -> TrainPlan:
        return TrainPlan(self.split.lengths, self.training, seed=self.seed, sampler=self.sampler)

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        return optimizers.build(self.groups, self.optimizer_config)

    @cached_property
    def averages(self) -> Averages:
        return Averages(self.model, self.groups, self.averaging, self.optimizer, total_steps=self.plan.total_steps)

    @cached_property
    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.compute.device.type, enabled=self.compute.precision == "fp16")

    @property
    def checkpoints(self) -> Path:
        return self.run / "checkpoints"

    @cached_property
    def saver(self) -> Saver:
        return Saver(self.checkpoints, keep=self.training.keep_checkpoints, is_newest_best=self.evaluate is None)

    def _steps(self, start: int, stop: StopRequest) -> Iterator[StepResult]:
        """The steps from `start` on; where memory runs out, in smaller micro-batches from there."""
        called = self.called()
        while True:
            try:
                for result in self._steps_as_cut(called, start, stop):
                    yield result
                    start = result.step
                return
            except OutOfMemory:
                self._cut_smaller(start)

    def _cut_smaller(self, step: int) -> None:
        """Halve the micro-batches. The batch of a step, and the number of steps, stay as they are.

        Raises:
            ResourceError: each micro-batch is a single example already; or other ranks wait for this one.
        """
        self.saver.settle()  # for loader processes are about to be forked
        self.optimizer.zero_grad(set_to_none=True)
        memory.free()
        if self.ranks.size > 1 or self._num_micro_batches >= self.plan.num_examples(step):
            raise ResourceError(
                f"the memory is used up in step {step + 1}"
                + ("" if self.ranks.size > 1 else ", though its micro-batches hold one example each"),
                remedy="a larger training.gradient_accumulation_steps, training.activation_checkpointing=true, a smaller "
                "tokenizer.max_length, or a smaller model",
            )
        self._num_micro_batches *= 2
        console.notice(f"step {step + 1} does not fit into memory: from here on in {self._num_micro_batches} micro-batches")
        self.log.write("out_of_memory", step=step, micro_batches=self._num_micro_batches)

    def _steps_as_cut(self, called: nn.Module, start: int, stop: StopRequest) -> Iterator[StepResult]:
        loader = windows(
            self.plan,
            self.split,
            self.task,
            start=start,
            seed=self.seed,
            num_micro_batches=self._num_micro_batches,
            ranks=self.ranks,
            num_workers=self.num_workers,
            pin_memory=self.compute.device.type == "cuda",
        )
        try:
            yield from self.steps_over(loader, called, stop)
        except DivergedError as e:
            if self.ranks.is_main:
                write_json(self.run / "diverged.json", {"message": e.message, "rows": e.rows})
            raise

    def called(self) -> nn.Module:
        """The model as the loop calls it."""
        called = self.model if self.compiled is None else self.compiled  # `or` would ask for its length
        return self.ranks.prepare(called, opens_later=self.openings is not None)

    def steps_over(self, loader: Iterable[Window], called: nn.Module, is_stopping: Callable[[], bool]) -> Iterator[StepResult]:
        """One optimizer step for each window; nothing is logged, saved or evaluated."""
        return train_steps(
            called,
            self.loss_of,
            loader if self.openings is None else self.openings.before(loader, self.plan),
            self.optimizer,
            lr_factor=schedules.build(self.schedule, total_steps=self.plan.total_steps),
            compute=self.compute,
            ranks=self.ranks,
            seed=self.seed,
            max_grad_norm=self.training.max_grad_norm,
            scaler=self.scaler,
            after_update=self.averages.update,
            is_stopping=is_stopping,
        )

    def _after_step(self, result: StepResult, stop: StopRequest) -> bool:
        """Log, save and evaluate as far as they are due. Returns whether the loop ends here."""
        step = result.step
        is_last = step == self.plan.total_steps
        self.saver.settle(waits=False)
        if step % self.training.log_every == 0 or is_last or step == 1:
            self._log_step(result)
        if self.ranks.largest(stop.exit_code or 0):
            return True
        is_due = self.is_evaluation_due(step)
        if is_due or is_last or (self.training.save_every and step % self.training.save_every == 0):
            self._save(step)
        if is_due:
            self._evaluate(step, stop)
        return self._is_over(step)

    def is_evaluation_due(self, step: int) -> bool:
        if self.evaluate is None:
            return False
        if step == self.plan.total_steps:
            return True
        if self.training.eval_every is not None:
            return step % self.training.eval_every == 0
        return self.plan.epochs_done(step)[1]

    def _is_evaluation_missing(self, step: int) -> bool:
        return self.is_evaluation_due(step) and not any(e["step"] == step for e in self.log.evaluations())

    def _is_over(self, step: int) -> bool:
        """Whether the run is complete at this step: no steps are left, or patience is at its end."""
        patience = self.training.early_stopping_patience
        if step >= self.plan.total_steps:
            return True
        if patience is None:
            return False
        opened = 0 if self.openings is None else self.openings.complete_after(step, self.plan)
        how = {"higher_is_better": self.higher_is_better, "after": step if opened is None else opened}
        since = self.log.evaluations_since_best(self.best_metric, **how)
        return since >= patience

    def _evaluate(self, step: int, stop: StopRequest) -> None:
        self.saver.settle()
        with self.judged():
            metrics = self.evaluate(stop)
        if metrics is None:
            return
        self.log.write("evaluation", step=step, epoch=self.plan.epochs_done(step)[0], split="validation", metrics=metrics)
        best = self.log.best(self.best_metric, higher_is_better=self.higher_is_better)
        is_best = best is not None and best["step"] == step
        shown = "  ".join(f"{k} {v:.4f}" for k, v in metrics.items() if k in ("loss", self.best_metric) and v is not None)
        console.notice(f"step {step}: validation {shown}{'  (best)' if is_best else ''}")
        self._point_best()
        if self.ranks.is_main:
            self.saver.rotate()

    def _point_best(self) -> None:
        """Let `best` follow from the log: a kill may have come between the two."""
        best = self.log.best(self.best_metric, higher_is_better=self.higher_is_better)
        if self.ranks.is_main and best is not None:
            self.saver.point_best(best["step"])

    def _save(self, step: int) -> None:
        if self.ranks.is_main and step != self.saver.step:
            self.log.sync()
            with self.state(step, place=self.plan.place_of(step)) as state:
                self.saver.save(state, step=step)

    @contextlib.contextmanager
    def judged(self) -> Iterator[None]:
        """While entered, the model has the weights that are to be scored."""
        with self.whole(), self.averages.in_place():
            yield

    @contextlib.contextmanager
    def state(self, step: int, **counters: Any) -> Iterator[State]:
        """What a checkpoint holds; while entered, the model has the weights that are to be kept."""
        counted = {
            "step": step,
            "total_steps": self.plan.total_steps,
            "scaler": self.scaler.state_dict(),
            "micro_batches": self._num_micro_batches,
            "averaged": self.averages.count,
        }
        with self.averages.in_place() as newest:
            yield self.make_state(
                newest=newest,
                optimizer=optimizers.state_tensors(self.model, self.optimizer),
                trainer={**counted, **counters},
                fingerprint=self.fingerprint,
                config_digest=manifest.sha256(self.run / run_dir.CONFIG),
            )

    def _resume(self) -> int:
        """Put back the newest good checkpoint; returns its step, 0 for none."""
        found = checkpoint.newest_good(self.checkpoints, tell=console.notice)
        if found is None:
            if checkpoint.steps(self.checkpoints):
                remedy = "training.resume=never starts a new run"
                raise CheckpointError("no checkpoint of the run is good", where=str(self.checkpoints), remedy=remedy)
            return 0
        step, path = found
        with self.state(step) as state:
            self._drifted = drift.require_none(path, state, allowed=self.training.allow_drift)
        counters = resume.load(path, self.model, self.optimizer, self.averages)
        self.scaler.load_state_dict(counters["scaler"])
        if "gradient_accumulation_steps" not in self._drifted:
            self._num_micro_batches = counters.get("micro_batches", self._num_micro_batches)
        if not self._drifted:
            self.plan.remember(*counters.get("place", (0, 0)))
        self.saver.step = step
        console.notice(f"resuming {self.run} after step {step} of {self.plan.total_steps}")
        return step

    def _log_step(self, result: StepResult) -> None:
        facts = {k: getattr(result, k) for k in ENDING if k != "step"}
        self.log.write(
            "step",
            step=result.step,
            **facts,
            **({"parts": result.parts} if result.parts else {}),
            **self._pace.recent_rates(),
            time=round(time.time(), 3),
        )

    def _result(self, last: int) -> dict[str, Any]:
        best = self.log.best(self.best_metric, higher_is_better=self.higher_is_better)
        return {
            "steps": last,
            "total_steps": self.plan.total_steps,
            "stopped_early": last < self.plan.total_steps,
            "metric": self.best_metric,
            "higher_is_better": self.higher_is_better,
            "value": best["metrics"][self.best_metric] if best else None,
            "best_step": best["step"] if best else last,
            "metrics": best["metrics"] if best else {},
            **self._pace.total_rates(),
            "peak_memory": memory.Peak(self.compute.device).read(),
        }
