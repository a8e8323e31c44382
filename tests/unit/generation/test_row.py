"""Texts that come token by token: whole characters, and stop texts cut exactly."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtune.config.sections.generation import Sampling
from llmtune.data import tokenizer as tokenizers
from llmtune.generation.detokenizer import Detokenizer
from llmtune.generation.row import Row

TEXTS = ["a film about rain, and two friends", "电影很好看 🙂👩‍👩‍👧 Größe", "the end.\n\nUser: more\n"]
ALPHABET = "ab é字电🙂👧\u200d\n.:Us\ufffd"


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.train("bpe", family="gpt", vocab_size=300, min_frequency=1, lowercase=False, texts=TEXTS * 3)


def row(tokenizer, *, stop=(), ends=(), longest: int = 1000, prompt=(1, 2)) -> Row:
    rest = {"temperature": 0.0, "top_k": None, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 0}
    how = Sampling(max_new_tokens=longest, stop=tuple(stop), **rest)
    ends = frozenset(ends)
    return Row(prompt, key=0, how=how, tokenizer=tokenizer, ends=ends, window=None, slides=True, is_shown=True)


def written(made: Row, tokens: list[int]) -> list[str]:
    """Let a row take tokens until it ends; the pieces that it shows."""
    pieces = []
    for token in tokens:
        made.take(token)
        pieces.append(made.fresh())
        if made.finish_reason:
            break
    return pieces


@given(st.text(st.sampled_from(ALPHABET), max_size=40))
@settings(max_examples=200)
def test_pieces_are_whole_and_make_the_text(tokenizer, text: str):
    stream = Detokenizer(tokenizer)
    pieces = [stream.add(token) for token in tokenizer(text)["input_ids"]]
    assert all(not piece.endswith("\ufffd") for piece in pieces)
    assert "".join(pieces) + stream.rest() == text


@given(st.lists(st.integers(0, 255), max_size=30))
@settings(max_examples=200)
def test_any_tokens_make_the_text_that_they_make_together(tokenizer, tokens: list[int]):
    stream = Detokenizer(tokenizer)
    pieces = [stream.add(token) for token in tokens]
    assert "".join(pieces) + stream.rest() == tokenizer.decode(tokens, skip_special_tokens=True)


@pytest.mark.parametrize("kind", ["word", "char", "bpe"])
def test_every_kind_of_tokenizer_streams(kind: str):
    made = tokenizers.train(kind, family="gpt", vocab_size=300, min_frequency=1, lowercase=False, texts=TEXTS * 3)
    ids = made("a film about rain, and two friends 电影")["input_ids"]
    stream = Detokenizer(made)
    assert "".join(stream.add(token) for token in ids) + stream.rest() == made.decode(ids, skip_special_tokens=True)


@given(
    st.text(st.sampled_from("ab\n电🙂"), max_size=30),
    st.lists(st.text(st.sampled_from("ab\n电🙂"), min_size=1, max_size=4), max_size=3),
)
@settings(max_examples=300)
def test_a_text_is_cut_at_the_first_stop_text(tokenizer, text: str, stop: list[str]):
    made = row(tokenizer, stop=stop)
    pieces = written(made, tokenizer(text)["input_ids"])
    places = [text.find(s) for s in stop if s in text]
    expected = text[: min(places)] if places else text
    if places:
        assert made.finish_reason == "stop"
    else:
        made.interrupt()
        pieces.append(made.fresh())
    assert made.answer().text == expected == "".join(pieces)


def test_a_stop_text_may_span_tokens_and_hide_in_the_middle_of_one(tokenizer):
    ids = tokenizer("two friends.\n\nUser: more")["input_ids"]
    made = row(tokenizer, stop=["s.\n\nUs"])
    pieces = written(made, ids)
    assert made.answer().text == "two friend" == "".join(pieces)
    assert made.answer().finish_reason == "stop"


def test_half_a_character_at_the_end_is_shown_as_such(tokenizer):
    ids = tokenizer("喜")["input_ids"]
    assert len(ids) > 1
    made = row(tokenizer, longest=len(ids) - 1)
    pieces = written(made, ids)
    assert made.finish_reason == "length" and made.answer().text == "".join(pieces) == "\ufffd"


def test_special_tokens_are_not_part_of_the_text(tokenizer):
    end = tokenizer.eos_token_id
    a, b = tokenizer("ab")["input_ids"][:1], tokenizer("b")["input_ids"][:1]
    kept = row(tokenizer)
    assert "".join(written(kept, [*a, end, *b])) == tokenizer.decode(a) + tokenizer.decode(b)
    ended = row(tokenizer, ends=[end])
    written(ended, [*a, end, *b])
    assert ended.answer().text == tokenizer.decode(a) and ended.answer().num_tokens == 1


def test_draws_are_made_as_they_are_needed(tokenizer):
    rest = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 0, "stop": ()}

    def numbers(key: int, longest: int) -> list[float]:
        how = Sampling(max_new_tokens=longest, **rest)
        made = Row([1], key=key, how=how, tokenizer=tokenizer, ends=frozenset(), window=None, slides=True)
        drawn = []
        for _ in range(600):
            drawn.append(made.uniform)
            made.take(5)
        return drawn

    first = numbers(0, 2**31 - 1)
    assert first == numbers(0, 1000) != numbers(1, 1000)
    assert len(set(first)) == 600 and 0.45 < sum(first) / 600 < 0.55
