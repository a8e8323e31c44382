"""CSV parsed by blocks and row by row: the same rows, lines and complaints, whatever the file holds."""

import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmtune.data.readers import delimited, stream
from llmtune.data.readers.columns import Source, Wanted
from llmtune.data.readers.well_formed import WellFormed
from llmtune.errors import DataError

PIECES = ["a", "é", "中", ",", ",", '"', '""', '",', '\n"', ',"', "\n", "\n", "\r\n", "\r", " ", "\u2028", "\x1c"]
PIECES += ["'", "',", "\n'", ",'"]
WAYS = [{}, {"quote": None}, {"quote": "'"}, {"column_names": ("a", "b")}, {"delimiter": "é"}]
FIELD = st.text(st.sampled_from('ab,"\n é'), max_size=6)
ENDS = st.sampled_from(["\n", "\r\n"])


def rows_of(path, **options) -> list | tuple:
    """All rows with their lines, or what is complained about."""
    given = {"delimiter": ",", "column_names": None, **options}
    source = Source(path, "a.csv", gzipped=False, **given)
    wanted = Wanted({"a": "data.text_column"}, ("b",))
    rows = []
    try:
        for chunk in delimited.read(source, wanted):
            columns = [chunk.columns[name].to_pylist() for name in sorted(chunk.columns)]
            rows += list(zip(chunk.rows.tolist(), *columns, strict=True))
    except DataError as e:
        return str(e), e.where
    return rows


def both_ways(path, **options) -> list | tuple:
    by_blocks = rows_of(path, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WellFormed, "__iter__", lambda self: iter(()))
        assert rows_of(path, **options) == by_blocks
    return by_blocks


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("csv") / "a.csv"


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "_BLOCK", 7)
        yield


@pytest.mark.parametrize("options", WAYS, ids=str)
@settings(max_examples=300)
@given(text=st.lists(st.sampled_from(PIECES), min_size=1, max_size=40).map("".join))
@example(text='x,y\n"a""b",c\n\n"","d\r\n\n"\r\n')
@example(text='1,2\n3,4\n"5",6\n7,8\n9,"0"1\n')
@example(text="1,2\r\n3,4\n5,6\r7,8")
@example(text='1,2\n3,4"\n5,6\n')
@example(text='1,2\n"3,4\n5,6\n')
@example(text="\n\r\n1,2\n\n3")
def test_any_file(path, options, text):
    header = "" if "column_names" in options else f"a{options.get('delimiter', ',')}b\n"
    path.write_bytes((header + text).encode())
    both_ways(path, **options)


@given(rows=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=20), end=ENDS, all_quoted=st.booleans(), cut=st.booleans())
def test_what_the_csv_module_writes_is_well_formed(path, rows, end, all_quoted, cut):
    written = io.StringIO()
    csv.writer(written, lineterminator=end, quoting=csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL).writerows(rows)
    text = "a,b" + end + written.getvalue()
    path.write_bytes((text.removesuffix(end) if cut else text).encode())
    found = both_ways(path)
    assert [row[1:] for row in found] == rows
    blocks = WellFormed(iter([text]), delimiter=",", quote='"', width=None)
    assert sum(len(block.lines) for block in blocks) == len(rows) + 1
    assert not list(blocks.rest())


def test_a_row_longer_than_is_looked_for(path, monkeypatch):
    monkeypatch.setattr("llmtune.data.readers.well_formed._LONGEST", 30)
    path.write_text('a,b\n1,2\n3,"' + "long\n" * 20 + '"\n4,5\n')
    assert [row[:2] for row in both_ways(path)] == [(2, "1"), (3, "3"), (24, "4")]


def test_a_file_that_is_well_formed_up_to_a_row(path):
    path.write_text("a,b\n" + "1,2\n" * 50 + "3\n")
    assert both_ways(path)[1] == "a.csv:52"
