"""From a checkpoint of the run back to the state that training was in, and how large a checkpoint will be."""

from pathlib import Path
from typing import Any

from torch import nn

from llmtune.config.sections.optimizer import OptimizerConfig
from llmtune.training import checkpoint, manifest, optimizers
from llmtune.training.averaging import Averages
from llmtune.training.parameter_groups import ParameterGroup


def load(path: Path, model: nn.Module, optimizer: Any, averages: Averages) -> dict[str, Any]:
    """Put back weights, their average and the optimizer's state; returns the trainer's counters.

    Raises:
        CheckpointError: they are of another model.
    """
    counters = manifest.read_json(path / "trainer.json")
    learned, newest = path / checkpoint.LEARNED, path / checkpoint.NEWEST
    if learned.is_file():
        checkpoint.load_learned(model, checkpoint.read_tensors(learned))
    else:
        checkpoint.load_all(model, checkpoint.read_tensors(path / "model.safetensors"))
    state = checkpoint.read_tensors(path / checkpoint.OPTIMIZER)
    if newest.is_file():
        averages.resume(counters["averaged"], optimizers.aligned(model, checkpoint.read_tensors(newest), state))
    optimizers.load_state_tensors(model, optimizer, state)
    return counters


def checkpoint_size(
    model: nn.Module, groups: list[ParameterGroup], optimizer: OptimizerConfig, *, averages: Averages, is_frozen: bool
) -> int:
    """Bytes of weights, averages and optimizer, the bulk of a checkpoint."""
    learned = {p.data_ptr(): p for p in model.parameters() if p.requires_grad}
    kept = learned if is_frozen else {t.data_ptr(): t for t in model.state_dict().values()}
    tensors = [*kept.values(), *(learned.values() if averages.is_on else ())]
    return sum(t.numel() * t.element_size() for t in tensors) + optimizers.state_size(groups, optimizer)
