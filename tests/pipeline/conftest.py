"""A user's folder with small generated data, and command lines run in it, within this process."""

import gzip
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from llmtune.cli import main
from tests.conftest import Outcome

GOOD = ["good", "great", "fine", "superb", "lovely", "charming", "bright", "witty"]
BAD = ["bad", "awful", "poor", "dull", "horrid", "clumsy", "dreary", "tedious"]
FILLERS = [
    "the",
    "film",
    "was",
    "a",
    "story",
    "of",
    "two",
    "friends",
    "who",
    "walk",
    "home",
    "and",
    "talk",
    "about",
    "rain",
    "music",
    "bread",
    "trains",
]
ON_DEVICE = ("run", "train", "finetune", "evaluate", "export", "predict")
SMALL = {
    "lstm": ["model=lstm", "model.embedding_size=16", "model.hidden_size=16"],
    "bert": ["model=bert", "model.num_layers=1", "model.num_heads=2", "model.hidden_size=32"],
    "gpt": ["model=gpt", "model.num_layers=1", "model.num_heads=2", "model.hidden_size=32"],
}


class Folder:
    """Runs `llmtune ARGS` in a folder of its own, on the CPU in float32 unless `hardware` is among the arguments."""

    def __init__(self, path: Path):
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __call__(self, *args: str, stdin: str = "") -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.path)
            patch.setenv("LLMTUNE_CACHE", str(self.path / "cache"))
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            code = main(complete(args))
        return Outcome(code, out.getvalue(), err.getvalue())

    def ok(self, *args: str, stdin: str = "") -> Outcome:
        done = self(*args, stdin=stdin)
        assert done.code == 0, done.err
        return done

    def latest(self, name: str) -> Path:
        return (self.path / "runs" / name / "latest").resolve()

    def copy(self, path: Path) -> "Folder":
        """The same in another folder, times included."""
        return Folder(shutil.copytree(self.path, path, symlinks=True, dirs_exist_ok=True))


def complete(args: tuple[str, ...]) -> list[str]:
    """The arguments with the hardware that makes results equal everywhere."""
    if args[0] not in ON_DEVICE or any(arg.startswith("hardware") for arg in args):
        return list(args)
    return [*args, "hardware=cpu", "hardware.precision=fp32"]


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """One thread for small matrices; afterwards torch is as the other tests know it."""
    before, was_exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(was_exact)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """One folder for all tests of a module."""
    return Folder(tmp_path_factory.mktemp("shared"))


def sentences(num_rows: int, *, seed: int = 0) -> list[dict[str, str]]:
    """Texts of 4 to 12 words with a label that one of the words decides, and the number of their words."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(num_rows):
        label, words = ("positive", GOOD) if i % 2 else ("negative", BAD)
        length = int(rng.integers(3, 12))
        text = list(rng.choice(FILLERS, length))
        text.insert(int(rng.integers(length + 1)), str(rng.choice(words)))
        rows.append({"text": " ".join(text), "label": label, "length": str(length + 1)})
    return rows


def pairs(num_rows: int) -> list[dict[str, str]]:
    """Two texts each, the second of which has the mood of the first, or not."""
    rows, others = sentences(num_rows), sentences(num_rows, seed=1)[::-1]
    return [
        {"premise": a["text"], "hypothesis": b["text"], "label": "same" if a["label"] == b["label"] else "other"}
        for a, b in zip(rows, [others[i // 2 * 2 + (i // 2 + i) % 2] for i in range(num_rows)], strict=True)
    ]


def moods(num_rows: int) -> list[dict]:
    """Texts with none, one or both of two labels, which words decide."""
    rows = []
    for i, row in enumerate(sentences(num_rows)):
        words = [w for w in row["text"].split() if w not in (*GOOD, *BAD)]
        labels = [name for name, is_set in (("good", i % 2), ("bad", i // 2 % 2)) if is_set]
        picked = [{"good": GOOD, "bad": BAD}[name][i % 8] for name in labels]
        rows.append({"text": " ".join([*words[:2], *picked, *words[2:]]), "labels": labels})
    return rows


def tagged(num_rows: int) -> list[dict]:
    """Lists of words, of which those of mood are entities of one word."""
    kinds = {**dict.fromkeys(GOOD, "B-good"), **dict.fromkeys(BAD, "B-bad")}
    rows = [row["text"].split() for row in sentences(num_rows)]
    return [{"words": words, "tags": [kinds.get(word, "O") for word in words]} for words in rows]


def points(num_rows: int) -> list[dict[str, str]]:
    """Rows on the plane y = 3 u - 2 v + 5, with a little noise."""
    u, v = np.random.default_rng(0).normal(size=(2, num_rows))
    noise = np.random.default_rng(1).normal(scale=0.05, size=num_rows)
    y = 3 * u - 2 * v + 5 + noise
    return [{"u": repr(float(a)), "v": repr(float(b)), "y": repr(float(c))} for a, b, c in zip(u, v, y, strict=True)]


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    """Rows in the format that the name's ending tells."""
    name = path.name.removesuffix(".gz")
    delimiter = "\t" if name.endswith(".tsv") else ","
    match name.rpartition(".")[2]:
        case "csv" | "tsv":
            content = (
                "\n".join(delimiter.join(cells) for cells in [list(rows[0]), *(list(row.values()) for row in rows)]) + "\n"
            )
        case "jsonl":
            content = "".join(json.dumps(row) + "\n" for row in rows)
        case "json":
            content = json.dumps(rows)
        case "txt":
            content = "".join(row["text"] + "\n" for row in rows)
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
            return path
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def step_losses(run: Path) -> list[tuple[int, float]]:
    return [(e["step"], e["loss"]) for e in read_lines(run / "metrics.jsonl") if e["event"] == "step"]


@pytest.fixture
def reviews(folder: Folder) -> Folder:
    """A folder with reviews.csv."""
    write_rows(folder / "reviews.csv", sentences(200))
    return folder
