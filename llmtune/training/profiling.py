"""Where the time of a training step goes: `training.profile=true` watches some steps and prints a table."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from llmtune import console
from llmtune.files import write_json

FIRST_STEPS, WATCHED_STEPS = 3, 20  # the first are slower than the rest
SMALLEST_SHARE = 0.005  # of a row of its own

# What an operator's name begins with, and what it is told as; the first that fits counts.
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "mkldnn_linear", "_mkldnn", "linear", "gemm", "mkldnn_"),
    "attention": ("_scaled_dot_product", "scaled_dot_product", "_flash", "_efficient"),
    "recurrent layers": ("lstm", "_thnn", "mkldnn_rnn", "_cudnn_rnn"),
    "dropout": ("_Dropout", "random_", "bernoulli_", "ge", "native_dropout"),
    "optimizer": ("_fused_adamw", "_fused_adam", "_fused_sgd", "_foreach", "linalg_vector_norm", "Optimizer"),
    "embeddings": ("embedding", "index_select", "_embedding", "index_put"),
    "normalization": ("native_layer_norm", "layer_norm", "native_batch_norm", "rms_norm", "_fused_rms", "rsqrt"),
    "activations": ("gelu", "silu", "relu", "tanh", "sigmoid", "erf"),
    "softmax and loss": ("_softmax", "_log_softmax", "nll_loss", "cross_entropy", "logsumexp"),
    "copies and casts": ("copy_", "cat", "_to_copy", "clone", "contiguous", "stack", "Memcpy"),
    "zero fills": ("fill_", "zero_", "zeros", "Memset"),
    "sums": ("sum", "mean"),
    "elementwise": ("add", "mul", "div", "sub", "pow", "neg", "masked", "where", "exp", "sqrt", "threshold", "clamp", "lerp"),
}
REST = "the rest: Python, bookkeeping, small operators"


class StepProfile:
    """Watches steps 4 to 23 of a run; told of the end of each step. Nothing is watched unless `is_on`."""

    def __init__(self, *, is_on: bool, device: torch.device):
        self.rows: list[tuple[str, float]] = []
        self._is_on, self._device = is_on, device
        self._num_steps, self._seconds, self._wait = 0, 0.0, 0.0
        self._profile: Any = None

    def step(self, *, seconds: float, wait_seconds: float) -> None:
        """A step has ended that took so long, with so much of it spent waiting for data."""
        if not self._is_on or self.rows:
            return
        self._num_steps += 1
        if self._profile is not None:
            self._seconds += seconds
            self._wait += wait_seconds
        if self._num_steps == FIRST_STEPS:
            on_cuda = self._device.type == "cuda"
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
            self._profile = profile(activities=activities)
            self._profile.__enter__()
        elif self._num_steps == FIRST_STEPS + WATCHED_STEPS:
            self.finish()

    def finish(self) -> None:
        """The run ends: what was seen so far counts."""
        if self._profile is None or self.rows:
            return
        self._profile.__exit__(None, None, None)
        events = self._profile.key_averages()
        of_device = "self_device_time_total" if self._device.type == "cuda" else "self_cpu_time_total"
        self.rows = shares([(e.key, getattr(e, of_device) / 1e6) for e in events], self._seconds, self._wait)

    def tell(self, run: Path) -> None:
        """Print the table, and keep it as profile.json."""
        num_steps = self._num_steps - FIRST_STEPS
        if not self.rows:
            if self._is_on:
                console.notice(f"the run was too short for a profile: it needs more than {FIRST_STEPS} steps")
            return
        shown = [(name, f"{share:6.1%}   {share * self._seconds / num_steps * 1e3:8.2f} ms") for name, share in self.rows]
        console.result_table(f"where a step's {self._seconds / num_steps * 1e3:.1f} ms go ({num_steps} steps)", shown)
        content = {"steps": num_steps, "seconds_per_step": self._seconds / num_steps, "shares": dict(self.rows)}
        write_json(run / "profile.json", content)


def shares(operators: list[tuple[str, float]], seconds: float, wait: float) -> list[tuple[str, float]]:
    """Share of the time by kind, largest first, the rest last.

    Args:
        operators: name and own seconds of each, over all steps.
        seconds: wall clock of the steps.
        wait: seconds of them without data.
    """
    times: dict[str, float] = defaultdict(float)
    for name, own in operators:
        if kind := kind_of(name):
            times[kind] += own
    times["waiting for data"] = wait
    seconds = max(seconds, 1e-9)
    rows = sorted(((kind, t / seconds) for kind, t in times.items() if t / seconds >= SMALLEST_SHARE), key=lambda row: -row[1])
    return [*rows, (REST, max(0.0, 1 - sum(share for _, share in rows)))]


def kind_of(operator: str) -> str | None:
    """What an operator is told as; None for one that belongs to the rest."""
    name = operator.removeprefix("aten::").removeprefix("mkldnn::")
    for kind, beginnings in KINDS.items():
        if any(name == b or name.startswith(b if b.endswith("_") or len(b) > 4 else f"{b}_") for b in beginnings):
            return kind
    return None
