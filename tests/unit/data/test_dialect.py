"""Other delimiters and quotes are found where they alone fit the header; what was read well before is read the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtune.data import sources
from llmtune.data.readers.columns import Source, Wanted
from llmtune.data.readers.dialect import found
from llmtune.errors import DataError

WANTED = Wanted({"text": "data.text_column", "label": "data.label_column"})


def source(path="a.csv", **changes) -> Source:
    return Source(path, "a.csv", False, **{"is_delimiter_told": False, "is_quote_told": False, **changes})


def rows_of(data) -> list[tuple[str, str]]:
    table = sources.load(data)["train"]
    return list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("text;label\na, b;1\nc;2\n", "data.delimiter=';'"),
        ("text|label\na, b|1\nc|2\n", "data.delimiter='|'"),
        ("text\tlabel\na, b\t1\nc\t2\n", "data.delimiter='\\t'"),
        ("'text','label'\n'a, b','1'\n'c',2\n", 'data.quote="\'"'),
        ("'text';'label'\n'a, b';'1'\n'c';2", "data.delimiter=';' data.quote=\"'\""),
        ('"text";"label"\r\n"a, b";1\r\n\r\nc;2\r\n', "data.delimiter=';'"),
    ],
)
def test_what_fits_alone_is_taken_and_told(files, capsys, content, told):
    assert rows_of(files({"a.csv": content})) == [("a, b", "1"), ("c", "2")]
    [line] = capsys.readouterr().err.splitlines()
    assert f"is read with {told}, " in line


def test_tabs_are_expected_of_tsv(files, capsys):
    assert rows_of(files({"a.tsv": "text,label\na,1\n"})) == [("a", "1")]
    assert "data.delimiter='\\t' insists" in capsys.readouterr().err


def test_names_without_a_header_decide_by_their_number(files):
    names = {"column_names": ["text", "label"]}
    assert rows_of(files({"a.csv": "a, b, c;1\nd;2\n"}, **names)) == [("a, b, c", "1"), ("d", "2")]
    assert rows_of(files({"b.csv": "a;b,1\nc;d,2\n"}, train_file="b.csv", **names)) == [("a;b", "1"), ("c;d", "2")]


def test_what_is_told_is_kept(files):
    data = files({"a.csv": "text;label\na;1\n"}, delimiter=",")
    with pytest.raises(DataError, match="no column 'text'"):
        sources.load(data)


def test_several_ways_are_refused():
    with pytest.raises(DataError, match="several ways") as caught:
        found("text;x|text\n1;2|3\n", source(), Wanted({"text": "data.text_column"}))
    assert "data.delimiter=';'" in caught.value.remedy and "data.delimiter='|'" in caught.value.remedy


@pytest.mark.parametrize("content", ["", "\n\n", "text;label\na;b;c\n", "other;label\na;b\n", 'text;"label\na;b\n'])
def test_what_fits_nothing_is_left_to_the_usual_way(content):
    assert found(content, source(), WANTED) == source()


@settings(deadline=None)
@given(rest=st.text(st.sampled_from("ab;,|\t'\"\n"), max_size=60), cut=st.booleans())
def test_a_header_that_fits_is_never_read_otherwise(rest, cut):
    assert found("text,label\n" + rest, source(), WANTED) == source()
    assert found('"label",other,"text"\n' + rest + ("" if cut else "\n"), source(), WANTED) == source()
