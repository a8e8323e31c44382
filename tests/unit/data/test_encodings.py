"""Files in other encodings than UTF-8."""

import pytest

from llmtune.data import sources
from llmtune.data.readers import encodings
from llmtune.errors import DataError

GERMAN = "Der Film war schön, aber die Länge störte uns sehr. Für Kinder ungeeignet."
CHINESE = "这部电影很好看，我非常喜欢。演员也不错。"
RUSSIAN = "Этот фильм мне очень понравился, актёры играли прекрасно."
TEXTS = {
    "cp1252": GERMAN,
    "gb18030": CHINESE,
    "cp1251": RUSSIAN,
    "koi8_r": RUSSIAN,
    "cp932": "この映画はとても面白かったです。",
}


def texts_of(data):
    return sources.load(data, need_label=False)["train"]["text"].to_pylist()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "txt"])
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-16-le", "utf-8-sig", "UTF8"])
def test_a_named_encoding(files, encoding, ending):
    content = {"csv": "text\nschön\n", "jsonl": '{"text": "schön"}\n', "txt": "schön\n"}[ending]
    data = files({f"a.{ending}": content.encode(encoding)}, encoding=encoding, label_column=None)
    assert [text.strip() for text in texts_of(data)] == ["schön"]


@pytest.mark.parametrize("encoding", TEXTS)
def test_auto_finds_and_tells(files, capsys, encoding):
    content = "text\n" + "plain words\n" * 200_000 + TEXTS[encoding].replace(",", "") + "\n"
    data = files({"a.csv": content.encode(encoding)}, encoding="auto", label_column=None)
    assert texts_of(data)[-1] == TEXTS[encoding].replace(",", "")
    assert f"data.encoding={encoding} says so" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_auto_knows_unicode(files, encoding):
    assert texts_of(files({"a.csv": f"text\n{CHINESE} 😀\n".encode(encoding)}, encoding="auto", label_column=None)) == [
        CHINESE + " 😀"
    ]


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_error_names_what_would_read_it(files, encoding):
    with pytest.raises(DataError, match="invalid UTF-8 at byte") as caught:
        texts_of(files({"a.txt": TEXTS[encoding].encode(encoding) + b"\n"}, label_column=None))
    assert f"data.encoding={encoding}" in caught.value.remedy


def test_bytes_that_are_no_text(files):
    with pytest.raises(DataError, match="invalid UTF-8 at byte 0"):
        texts_of(files({"a.txt": b"\xff\x00\x81"}, encoding="auto", label_column=None))
    with pytest.raises(DataError, match="invalid ASCII at byte 2") as caught:
        texts_of(files({"a.txt": "ab中".encode()}, encoding="ascii", label_column=None))
    assert caught.value.where.endswith("a.txt:1")


def test_guesses_do_not_depend_on_anything_else():
    assert {encodings.guessed("schön".encode("cp1252")) for _ in range(3)} == {"cp1252"}


def test_an_encoding_for_parquet_is_refused(files):
    with pytest.raises(DataError, match="data.encoding is for"):
        sources.load(files({"a.parquet": b"x"}, encoding="cp1252"))


@pytest.mark.parametrize("name", ["utf9", "base64", "rot13", ""])
def test_what_is_no_encoding(files, name):
    with pytest.raises(ValueError, match="encoding"):
        files({"a.csv": "text\n"}, encoding=name)
