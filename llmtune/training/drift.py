"""What a resumed run must share with its beginning to go on bit for bit, and which differences the user allows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmtune import console
from llmtune.errors import CheckpointError
from llmtune.training import manifest
from llmtune.training.checkpoint import State

# What is told of a difference where the values are hashes.
DIGESTS = {
    "data": "data: a source file has changed, or the model that wrote variants, or llmtune reads them in another way",
    "frozen": "frozen: the weights that it started from have changed",
}
# The config keys behind an entry of the fingerprint, or sections: `data` covers all keys below `data`.
CONFIG_KEYS = {
    "data": {"data"},
    "batch_size": {"training.batch_size"},
    "max_tokens_per_batch": {"training.max_tokens_per_batch"},
    "gradient_accumulation_steps": {"training.gradient_accumulation_steps"},
    "group_by_length": {"training.group_by_length"},
    "threads": {"hardware.num_threads"},
    "device": {"hardware.device"},
    "precision": {"hardware.precision"},
    "compile": {"hardware.compile"},
}


def config_keys(allowed: Sequence[str]) -> set[str]:
    """The config keys that may differ between a run and the command that goes on with it, if these entries may."""
    return set().union(*(CONFIG_KEYS.get(name, set()) for name in allowed))


def require_none(path: Path, state: State, *, allowed: Sequence[str]) -> dict[str, list[Any]]:
    """Compare a checkpoint's fingerprint with that of the run that wants to go on from it.

    Args:
        path: of the checkpoint.
        state: what the run would save now; its weights are not looked at.
        allowed: entries of the fingerprint that may differ.

    Returns:
        What differs and is allowed, as name -> [then, now].

    Raises:
        CheckpointError: something else differs; or the data do, and with them the labels or the tokenizer.
    """
    theirs = manifest.read(path)["fingerprint"]
    found = {name: [theirs.get(name), now] for name, now in state.fingerprint.items() if theirs.get(name) != now}
    refused = {name: values for name, values in found.items() if name not in allowed}
    if refused:
        could = [name for name in refused if name != "frozen"]
        raise CheckpointError(
            "the run would not go on as it began: " + "; ".join(told(refused)),
            where=str(path),
            remedy="undo the change, or training.resume=never starts a new run"
            + (f"; training.allow_drift=[{','.join(could)}] goes on all the same" if could == list(refused) else ""),
        )
    if "data" in found and not _means_the_same(path, state):
        raise CheckpointError(
            "the changed data have other labels, or another tokenizer was learned from them: the weights do not fit",
            where=str(path),
            remedy="training.resume=never starts a new run",
        )
    if found:
        console.notice("goes on otherwise than it began, as training.allow_drift says: " + "; ".join(told(found)))
    return found


def told(differences: dict[str, list[Any]]) -> list[str]:
    return [DIGESTS.get(name) or f"{name}: {then} -> {now}" for name, (then, now) in differences.items()]


def _means_the_same(path: Path, state: State) -> bool:
    """Whether rows still become the same token ids and class ids."""
    facts = manifest.read_json(path / "llmtune.json")
    if any(facts.get(name) != state.description.get(name) for name in ("task", "tokenizer")):
        return False
    files = state.tokenizer_dir.iterdir() if state.tokenizer_dir is not None else ()
    kept = manifest.read(path)["files"]
    return all(kept.get(file.name, {}).get("sha256") == manifest.sha256(file) for file in files)
