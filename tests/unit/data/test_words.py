"""Texts tokenized by their words: the ids are those of the whole texts, whatever the texts hold."""

from functools import cache

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from llmtune.data import tokenizer as tokenizers
from llmtune.data import words
from llmtune.data.words import word_encoder

SENTENCES = ["the café isn't good, and bad!", "Straße naïve 中文 don't it's a-b", "ΣΑΣ good bad film 12.50", "<mask> x"]
ENTRIES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"ab.!,'’ßix中文\u0301\x1f",
    "##a",
    "##b",
    "##s",
    "the",
    "café",
    "good",
    "isn",
]
ODD = "\0\x01\t\n\v\f\r\x1c\x1f\x7f\x85\xa0\xad\u0300\u0301\u0345\u0378\u1680\u180e\u2000\u200b\u200d\u2028\u2029\u202e\u3000"
MORE = "\ufeff\ufffd\ufffe\U000e0001aAbBéÉßİıΣςσǅﬁ中文㐀𠀀가ﾊﾟ'’,.!-_[]<>0٣²½👍🏽"
PIECES = [
    *ODD,
    *MORE,
    " ",
    "  ",
    "[MASK]",
    "<mask>",
    "[mask]",
    "[SEP]",
    "new",
    "New!",
    "ing",
    "a" * 101,
    "isn't",
    "good",
    "##s",
]
TEXT = (
    st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12)
    .map("".join)
    .filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text))
)


def bert(**options) -> Tokenizer:
    return split(pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(**options))


def split(pre_tokenizer, normalizer=None, model=models.WordPiece) -> Tokenizer:
    entries = {entry: i for i, entry in enumerate(ENTRIES)}
    more = {"max_input_chars_per_word": 100} if model is models.WordPiece else {}
    made = Tokenizer(model(vocab=entries, unk_token="[UNK]", **more))
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizer
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens([AddedToken("[SEP]", normalized=False), AddedToken("[MASK]", normalized=False)])
    return made


def with_tokens() -> Tokenizer:
    """Added tokens of every kind that transformers knows."""
    made = bert(lowercase=True)
    made.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False)])
    made.add_tokens([AddedToken("New!", normalized=True, rstrip=True), AddedToken("ing", single_word=True)])
    made.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def trained(kind: str, family: str) -> Tokenizer:
    sizes = {"vocab_size": 300, "min_frequency": 1, "lowercase": family == "lstm"}
    return tokenizers.train(kind, family=family, texts=SENTENCES, **sizes).backend_tokenizer


MADE = {
    "bert": lambda: bert(lowercase=True),
    "bert-cased": lambda: bert(lowercase=False, strip_accents=False),
    "bert-unclean": lambda: bert(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=True),
    "added tokens": with_tokens,
    "white space": lambda: split(pre_tokenizers.Whitespace()),
    "white space alone": lambda: split(pre_tokenizers.WhitespaceSplit(), model=models.WordLevel),
    "word-lstm": lambda: trained("word", "lstm"),
    "word-bert": lambda: trained("word", "bert"),
    "wordpiece-lstm": lambda: trained("wordpiece", "lstm"),
    "wordpiece-bert": lambda: trained("wordpiece", "bert"),
}
made = cache(lambda name: MADE[name]())


def both_ways(tokenizer: Tokenizer, rows: list[tuple[str, ...]]) -> None:
    """Each text stands there several times, so that it is worth while to remember its words."""
    encoder = word_encoder(tokenizer, num_texts=len(rows[0]))
    expected = tokenizer.encode_batch_fast([row if len(row) > 1 else row[0] for row in rows])
    columns = [pa.array(["skipped", *texts] * 3, pa.string()).slice(1) for texts in zip(*rows, strict=True)]
    for _ in range(2):  # with nothing remembered, and all of it
        found = encoder.encode(*columns)
        assert found is not None
        ids, types = (array.slice(0, len(rows)).to_pylist() for array in found)
        assert ids == [row.ids for row in expected]
        assert types == [row.type_ids for row in expected]


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(words, "_LARGEST_SHARE_OF_NEW", 1)


@pytest.mark.parametrize("name", MADE)
@given(texts=st.lists(TEXT, min_size=1, max_size=4), length=st.integers(3, 20), side=st.sampled_from(["right", "left"]))
@example(texts=["", " ", "\n \n", "  a  "], length=9, side="right")
@example(texts=["a <mask> \u0301b", "x\v<mask>\x85y New!\n\xa0New! a", "sing ing ing."], length=30, side="left")
def test_texts(name, texts, length, side):
    tokenizer = made(name)
    tokenizer.enable_truncation(length, direction=side)
    both_ways(tokenizer, [(text,) for text in texts])


@pytest.mark.parametrize("name", ["bert", "added tokens", "word-lstm", "wordpiece-bert"])
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), length=st.integers(5, 15), side=st.booleans())
def test_pairs(name, rows, length, side):
    tokenizer = made(name)
    tokenizer.enable_truncation(length, direction="left" if side else "right")
    both_ways(tokenizer, rows)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("length", [4, 5, 8, 9])
def test_pairs_of_all_lengths(length, side):
    tokenizer = made("bert")
    tokenizer.enable_truncation(length, direction=side)
    both_ways(tokenizer, [("a b " * first, "x good " * second) for first in range(6) for second in range(6)])


@pytest.mark.parametrize("name", MADE)
def test_every_character_beside_a_space(name):
    """Alone, at the beginning and at the end of a word, before and behind another word."""
    tokenizer = made(name)
    tokenizer.enable_truncation(99)
    codes = [*range(0x300), *range(0x300, 0x30000, 7)]
    chars = [chr(code) for code in codes if not 0xD800 <= code <= 0xDFFF]
    both_ways(tokenizer, [(f"a{char} {char} {char}b {char}",) for char in chars])


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(words, "_MOST_WORDS", 5)
    tokenizer = made("bert")
    tokenizer.enable_truncation(9)
    encoder = word_encoder(tokenizer, num_texts=1)
    for texts in (["a b ", "a b c "], ["x b ", "good "], ["a b c d e f g ", "a "], ["b ", "x b "]):
        ids, _ = encoder.encode(pa.array(texts))
        assert ids.to_pylist() == [row.ids for row in tokenizer.encode_batch_fast(texts)]
        assert len(encoder._words) == len(encoder._ids) <= 7


def test_texts_of_words_that_are_all_new_are_left_to_the_tokenizer(monkeypatch):
    monkeypatch.setattr(words, "_LARGEST_SHARE_OF_NEW", 0.5)
    tokenizer = made("bert")
    tokenizer.enable_truncation(9)
    encoder = word_encoder(tokenizer, num_texts=1)
    assert encoder.encode(pa.array(["a b c d "])) is None
    assert encoder.encode(pa.array(["a b a b "])) is not None
    assert encoder.encode(pa.array(["a b a c "])) is not None


def test_a_tokenizer_that_takes_special_tokens_for_text():
    tokenizer = bert(lowercase=True)
    tokenizer.encode_special_tokens = True
    tokenizer.enable_truncation(30)
    both_ways(tokenizer, [("a [MASK] b",)])


def spanning(content: str, **options) -> Tokenizer:
    tokenizer = bert(lowercase=True)
    tokenizer.add_tokens([AddedToken(content, **options)])
    return tokenizer


REFUSED = {
    "bytes": lambda: trained("bpe", "gpt"),
    "characters": lambda: trained("char", "lstm"),
    "no split": lambda: Tokenizer(models.WordLevel({"a": 0}, unk_token="a")),
    "another normalizer": lambda: split(pre_tokenizers.BertPreTokenizer(), normalizers.Replace(" ", "_")),
    "another split": lambda: split(pre_tokenizers.Split(" ", "isolated")),
    "a token with a space": lambda: spanning("New York"),
    "a token that gets spaces": lambda: spanning("中", normalized=True),
    "a token that vanishes": lambda: spanning("\u0301", normalized=True),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_tokenizers_are_refused(name):
    tokenizer = REFUSED[name]()
    tokenizer.enable_truncation(9)
    assert word_encoder(tokenizer, num_texts=1) is None


def test_no_room_for_text_is_refused():
    tokenizer = made("bert")
    for length, num_texts in ((2, 1), (3, 2)):
        tokenizer.enable_truncation(length)
        assert word_encoder(tokenizer, num_texts=num_texts) is None
