"""The rows that a verb works on: those that a run was trained with, or those of another file."""

from pathlib import Path
from typing import Any

import llmtune
from llmtune.commands.preparing import cache_dir, prepare_stage
from llmtune.config.schema import StageConfig
from llmtune.config.sections.data import DataConfig, FilesData
from llmtune.config.store import Library
from llmtune.data import forms, prepared, sources
from llmtune.data.clean.stages import cleaned
from llmtune.data.prepared import Prepared, Split
from llmtune.data.spool import Spool
from llmtune.errors import DataError
from llmtune.tasks.encoding import encode_rows
from llmtune.tasks.prepare import load_rows
from llmtune.training.manifest import sha256
from llmtune.training.restore import Restored


def of_run(trained: StageConfig, restored: Restored) -> Prepared:
    """The rows that a model was trained with: from the cache, else prepared anew from the same files.

    Raises:
        DataError: they are no longer in the cache and the files have changed, so that other rows would pass for them.
    """
    known = restored.facts.get("data", {})
    found = prepared.find(known["prepared"], cache_dir=cache_dir()) if known else None
    if found is not None:
        return found
    ready = prepare_stage(trained)
    task = {name: value for name, value in restored.facts.get("task", {}).items() if name != "label_bias"}
    if ready.meta["task"] != task or (known and prepared.inputs_of(ready) != known["inputs"]):
        raise DataError(
            "the data is not what the model was trained with",
            where=str(restored.directory),
            remedy="bring the old files back, train again, or evaluate on a file: file=...",
        )
    return ready


def of_file(file: str, trained: StageConfig, restored: Restored) -> Split:
    """Another file's rows, all of them, read and cleaned as the run's data was and encoded for its task."""
    source = file_like(trained.data, file)
    task = restored.task()
    tokenizer = [restored.directory / name for name in ("tokenizer.json", "chat_template.jinja")]
    key = {
        "llmtune": llmtune.__version__,
        "inputs": sources.fingerprint(source),
        "data": source.model_dump(mode="json"),
        "clean": restored.facts.get("clean", []),
        "task": task.describe(),
        "tokenizer": [sha256(file) for file in tokenizer if file.is_file()],
    }

    def build(directory: Path) -> dict[str, Any]:
        needs_label, form = trained.task.type in forms.NEED_LABEL, forms.OF_TASK[trained.task.type]
        spool = Spool(directory)
        table = load_rows(source, need_label=needs_label, form=form, seed=trained.seed, spool=spool)["train"]
        table = cleaned(table, restored.cleaner(), spool=spool)
        prepared.write_split(directory, "test", encode_rows(task, table))
        return {}

    return prepared.open_or_build(key, build, cache_dir=cache_dir()).splits["test"]


def file_like(data: DataConfig, file: str) -> FilesData:
    """A file with the columns of a run's data, all its rows; read as its ending says, tables of text as the run's were."""
    packaged = Library("train", None).option_of_type("data", "files")
    own = {name: getattr(data, name) for name in FilesData.model_fields if name != "type" and hasattr(data, name)}
    kind = sources.ENDINGS.get(Path(file.removesuffix(".gz")).suffix)
    if kind not in (None, "csv", "tsv"):
        own |= {name: packaged[name] for name in ("delimiter", "quoting", "quote")}
    if kind not in (None, "csv", "tsv", "conll"):
        own["column_names"] = packaged["column_names"]
    if kind == "parquet":
        own["encoding"] = packaged["encoding"]
    if kind is not None:
        own["format"] = "auto"
    changes = {"train_file": file, "validation_file": None, "test_file": None, "where": {}, "max_rows": None}
    return FilesData.model_validate({**packaged, **own, **changes}, strict=False)
