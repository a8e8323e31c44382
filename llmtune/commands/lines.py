"""What `predict` reads and where it writes: lines of a file or of standard input, rows of a table; JSON lines."""

import contextlib
import gzip
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from llmtune.config.sections.data import FilesData
from llmtune.config.store import Library
from llmtune.errors import CheckpointError, DataError
from llmtune.files import replacing

TABLE_FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".conll", ".bio")


@contextlib.contextmanager
def output(name: str, *, source: str) -> Iterator[TextIO]:
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


def chunks(file: str, description: dict[str, Any], run: str, size: int) -> Iterator[dict[str, Sequence]]:
    """Canonical columns, `size` rows at a time: of a table as the run's data was read, or of plain lines.

    Args:
        file: its name, or - for standard input.
        description: of the task, see `Task.describe`.
        run: that the model is of.
        size: rows at a time.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    name = file.removesuffix(".gz")
    if name.endswith(TABLE_FORMATS):
        from llmtune.data import forms, sources

        form = forms.OF_TASK[description["type"]]
        data = _read_as(file, run, is_needed=form != "messages")
        data = data.model_copy(update={"label_column": None, "label_columns": ()})
        table = sources.load(data, need_label=False, form="prompts" if form == "messages" else form)["train"]
        wanted = ("messages",) if form == "messages" else ("text", "text_pair", "features", "spans")
        inputs = [c for c in wanted if c in table.column_names]
        for batch in table.select(inputs).to_batches(max_chunksize=size):
            yield batch.to_pydict()
        return
    with _input(file) as stream:
        numbered = ((number, line.rstrip("\r\n")) for number, line in enumerate(stream, 1))
        lines = ((number, line) for number, line in numbered if line.strip())
        while chunk := _next(lines, size, file):
            yield _columns(chunk, description, file)


def _read_as(file: str, run: str, *, is_needed: bool) -> FilesData:
    """How a table is read: as the run's data was, or, if that is not needed, as any other where there is no run."""
    from llmtune.commands import rows, runs

    try:
        return rows.file_like(runs.stage_config(runs.run_of(run)).data, file)
    except CheckpointError:
        if is_needed:
            raise
        return rows.file_like(
            FilesData.model_validate(
                Library("train", None).option_of_type("data", "files") | {"train_file": file}, strict=False
            ),
            file,
        )


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
