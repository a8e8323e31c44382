"""`llmtune predict RUN [FILE]`: lines of a file or of standard input to one JSON object each."""

import contextlib
import gzip
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from llmtune import startup
from llmtune.config.compose import compose
from llmtune.errors import DataError
from llmtune.files import replacing

if TYPE_CHECKING:
    from llmtune.cli import Options

_MASK = "\ue000"  # a character that no cleaner touches
TABLE_FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".conll", ".bio")


def run(args: list[str], options: "Options") -> int:
    config = compose("predict", args, config_dir=options.config_dir).config
    with startup.importing():
        from llmtune.evaluation.predicting import predict
        from llmtune.training import precision
        from llmtune.training.restore import restore

    precision.set_up(config.hardware, exact=True)
    restored = restore(config.run, which=config.checkpoint)
    task = restored.task()
    wanted = "fp32" if config.hardware.precision == "auto" else config.hardware.precision
    compute = precision.choose(config.hardware, precision=wanted, is_transformer=True)
    model = restored.model.to(compute.device).eval()
    with _output(config.output, source=config.file) as out:
        for columns in _chunks(config.file, task.describe(), config.run, config.batch_size):
            texts = {name: values for name, values in columns.items() if name != "features"}
            cleaned = _cleaned(texts, restored.cleaner(), task)
            answers = predict(model, task, columns | cleaned, compute=compute, max_new_tokens=config.max_new_tokens)
            for number, row in enumerate(answers):
                row |= {name: values[number] for name, values in texts.items()}  # as they were given
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
    return 0


def _cleaned(texts: dict[str, Sequence], cleaner: Callable, task: Any) -> dict[str, list]:
    """Texts changed as those were that the model was trained on, but for the mask token of a masked language model."""
    import pyarrow as pa

    mask = task.text.tokenizer.mask_token if task.type == "masked_lm" else None
    cleaned = {}
    for name, values in texts.items():
        hidden = [value.replace(mask, _MASK) if mask and value else value for value in values]
        found = cleaner(pa.array(hidden, pa.string())).to_pylist()
        cleaned[name] = [value.replace(_MASK, mask) if mask and value else value for value in found]
    return cleaned


@contextlib.contextmanager
def _output(name: str, *, source: str) -> Iterator[TextIO]:
    if name == "-":
        yield sys.stdout
        return
    path = Path(name).resolve()  # a link stays a link
    if not path.parent.is_dir() or path.is_dir():
        raise DataError("is no file that could be written", where=name, remedy="output=FILE, in a folder that exists")
    if path.exists() and source != "-" and Path(source).exists() and path.samefile(source):
        raise DataError("the predictions would take the place of what is predicted", where=name, remedy="choose another output")
    # A pipe or device is written to, a file is replaced once all is done.
    with path.open("w", encoding="utf-8") if path.exists() and not path.is_file() else replacing(path) as file:
        yield file


def _chunks(file: str, description: dict[str, Any], run: str, size: int) -> Iterator[dict[str, Sequence]]:
    """Canonical columns, `size` rows at a time: of a table as the run's data was read, or of plain lines."""
    name = file.removesuffix(".gz")
    if name.endswith(TABLE_FORMATS):
        from llmtune.commands import rows, runs
        from llmtune.data import forms, sources

        data = rows.file_like(runs.stage_config(runs.run_of(run)).data, file)
        data = data.model_copy(update={"label_column": None, "label_columns": ()})
        table = sources.load(data, need_label=False, form=forms.OF_TASK[description["type"]])["train"]
        inputs = [c for c in ("text", "text_pair", "features", "spans") if c in table.column_names]
        for batch in table.select(inputs).to_batches(max_chunksize=size):
            yield batch.to_pydict()
        return
    with _input(file) as stream:
        numbered = ((number, line.rstrip("\r\n")) for number, line in enumerate(stream, 1))
        lines = ((number, line) for number, line in numbered if line.strip())
        while chunk := _next(lines, size, file):
            yield _columns(chunk, description, file)


def _next(lines: Iterator[tuple[int, str]], size: int, file: str) -> list[tuple[int, str]]:
    try:
        return list(islice(lines, size))
    except UnicodeDecodeError as e:
        raise DataError(f"is no UTF-8 text: {e.reason}", where=file, remedy="convert it: iconv -f OLD -t UTF-8") from None
    except (EOFError, gzip.BadGzipFile) as e:
        raise DataError(f"is no whole gzip file: {e}", where=file) from None


@contextlib.contextmanager
def _input(file: str) -> Iterator[TextIO]:
    if file == "-":
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
        yield sys.stdin
        return
    path = Path(file)
    if not path.is_file():
        raise DataError(f"there is no file {file}", remedy="name a file of lines or a table, or - for standard input")
    with (gzip.open if file.endswith(".gz") else open)(path, "rt", encoding="utf-8") as stream:
        yield stream


def _columns(lines: list[tuple[int, str]], description: dict[str, Any], file: str) -> dict[str, Sequence]:
    """Plain lines as columns: a text, two texts with a tab between them, or numbers with commas or blanks between them."""
    if names := description.get("feature_names"):
        rows = []
        for number, line in lines:
            try:
                values = [float(v) for v in line.replace(",", " ").split()]
            except ValueError:
                values = []
            if len(values) != len(names):
                raise DataError(
                    f"expected {len(names)} numbers ({', '.join(names)}), got {line[:80]!r}", where=f"{file}:{number}"
                )
            rows.append(values)
        return {"features": rows}
    if description.get("has_pairs"):
        parts = [line.partition("\t") for _, line in lines]
        for (number, line), (_, tab, _) in zip(lines, parts, strict=True):
            if not tab:
                raise DataError(f"expected two texts with a tab between them, got {line[:80]!r}", where=f"{file}:{number}")
        return {"text": [p[0] for p in parts], "text_pair": [p[2] for p in parts]}
    return {"text": [line for _, line in lines]}
