"""Arbitrary input ends in an answer or in an error of ours: never in another exception, never in a hang.

2,000 cases in all; ten times as many with --slow.
"""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmtune import cli
from llmtune.config import reference
from llmtune.config.schema import VERB_CONFIGS
from llmtune.config.yaml_source import read_yaml
from llmtune.data import sources
from llmtune.errors import CheckpointError, ConfigError, DataError, ModelError
from llmtune.models import checks
from llmtune.training import manifest

QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


def cases(number: int):
    """A test in two sizes: `number` examples, and ten times as many under --slow."""

    def both(test):
        return pytest.mark.parametrize(
            "size", [pytest.param(number, id="few"), pytest.param(10 * number, id="many", marks=pytest.mark.slow)]
        )(test)

    return both


def run(size: int, strategy, check) -> None:
    settings(max_examples=size, suppress_health_check=QUIET, database=None)(given(strategy)(check))()


keys = st.sampled_from(sorted(reference.key_values("train")))
words = st.text(max_size=20)
numbers = st.one_of(st.integers(), st.floats()).map(str)
values = st.one_of(words, numbers, st.sampled_from(["null", "true", "[]", "{}", "[a,b]", "{a: b}", "${x}", "'", "1,2", "???"]))
overrides = st.one_of(
    st.builds("{}{}={}".format, st.sampled_from(["", "+", "++", "~"]), st.one_of(keys, words), values),
    st.builds("{}={}".format, st.sampled_from(sorted(reference.default_options("train"))), values),
    st.builds("~{}".format, keys),
    words,
)


@cases(100)
def test_command_lines(size, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def check(line: list[str]) -> None:
        code = cli.main(["show", *line])
        told = capsys.readouterr()
        assert code in (0, 2), told.err
        assert "Traceback" not in told.err and "bug of llmtune" not in told.err

    run(size, st.lists(overrides, max_size=4), check)
    assert list(tmp_path.iterdir()) == []


json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4)),
    max_leaves=12,
)


@cases(200)
def test_saved_configs(size):
    """The decoder of every verb takes any tree: it decodes or explains."""
    from pydantic import ValidationError

    from llmtune.config.compose import decode
    from llmtune.config.explain import explain

    sections = st.dictionaries(
        st.one_of(st.sampled_from(sorted(VERB_CONFIGS["train"].model_fields)), words), json_like, max_size=6
    )

    def check(tree: dict) -> None:
        for schema in set(VERB_CONFIGS.values()):
            try:
                decode(tree, schema)
            except ValidationError as e:
                assert all(explain(e.errors(), tree, schema, lambda path: None))

    run(size, sections, check)


@cases(700)
def test_yaml_files(size, tmp_path):
    file = tmp_path / "x.yaml"
    pieces = st.sampled_from(
        [
            "a",
            ":",
            " ",
            "\n",
            "\t",
            "- ",
            "{",
            "}",
            "[",
            "]",
            "&x ",
            "*x",
            "!!python/object:os.system ",
            "'",
            '"',
            "|",
            "<<: ",
            "#",
            "1e5",
            "\0",
        ]
    )
    texts = st.one_of(st.lists(pieces, max_size=30).map("".join).map(str.encode), st.binary(max_size=60))

    def check(content: bytes) -> None:
        file.write_bytes(content)
        try:
            assert isinstance(read_yaml(file).tree, dict)
        except ConfigError as e:
            assert all(str(file) in problem for problem in e.problems)

    run(size, texts, check)


@cases(500)
@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet", "txt", "csv.gz"])
def test_data_files(size, ending, section, tmp_path):
    file = tmp_path / f"x.{ending}"
    pieces = st.sampled_from(
        ["text", "label", ",", "\t", "\n", "\r\n", '"', '""', "{", "}", "[", "]", ":", "1", "null", "é", "\ufeff", "\0"]
    )
    contents = st.one_of(
        st.lists(pieces, max_size=40).map(lambda parts: ("text,label\n" + "".join(parts)).encode()),
        st.binary(max_size=80),
        st.binary(max_size=40).map(lambda tail: b"\x1f\x8b\x08\x00" + tail),
        st.binary(max_size=40).map(lambda middle: b"PAR1" + middle + b"PAR1"),
    )
    data = section("data/files", train_file=str(file))

    def check(content: bytes) -> None:
        file.write_bytes(content)
        try:
            table = sources.load(data, need_label=False)["train"]
        except DataError as e:
            assert e.message and (e.where or e.remedy or str(file) in e.message)
        else:
            assert table.num_rows > 0

    run(max(1, size // 7), contents, check)


@cases(300)
def test_weights(size, tmp_path):
    file = tmp_path / "model.safetensors"
    offsets = st.lists(st.one_of(st.integers(-5, 200), words), max_size=3)
    tensors = st.dictionaries(
        words, st.fixed_dictionaries({"dtype": words, "shape": offsets, "data_offsets": offsets}), max_size=3
    )
    headers = st.one_of(
        tensors.map(lambda t: json.dumps(t).encode()), json_like.map(lambda t: json.dumps(t).encode()), st.binary(max_size=60)
    )
    files = st.builds(
        lambda header, length, data: struct.pack("<Q", length if length is not None else len(header)) + header + data,
        headers,
        st.one_of(st.none(), st.integers(0, 2**64 - 1)),
        st.binary(max_size=100),
    )

    def check(content: bytes) -> None:
        file.write_bytes(content)
        try:
            checks.check_safetensors(file)
        except ModelError as e:
            assert str(file) in (e.where or "")

    run(size, st.one_of(files, st.binary(max_size=40)), check)


@cases(200)
def test_manifests(size, tmp_path):
    (tmp_path / "a").write_text("a")
    path: Path = tmp_path / manifest.NAME
    shapes = st.fixed_dictionaries({"format": json_like, "sha256": json_like, "files": json_like})

    def check(content) -> None:
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(CheckpointError):
            manifest.verify(tmp_path)

    run(size, st.one_of(json_like, shapes), check)
