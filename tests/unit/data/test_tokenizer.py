"""Tokenizers trained on texts: the same texts give the same ids everywhere, and what was saved is what is loaded."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmtune.data import tokenizer as tokenizers
from llmtune.errors import ConfigError, DataError, ModelError

KINDS = ("word", "char", "wordpiece", "bpe")
FAMILIES = ("lstm", "bert", "gpt")
SIZES = {"word": 30, "char": 30, "wordpiece": 120, "bpe": 300}
TEXTS = [
    "The quick brown fox jumps over the lazy dog, doesn't it?",
    "Quick foxes jump; lazy dogs don't.",
    "我喜欢这部电影,你好世界",
    "Ça va très bien à l'été",
    "tie ait eat tea ate eta\nline two\twith a tab",
] * 3


def trained(kind, family="bert", **changes):
    options = {"vocab_size": SIZES[kind], "min_frequency": 1, "lowercase": False, "texts": TEXTS, **changes}
    return tokenizers.train(kind, family=family, **options)


def test_chinese_words_between_blanks():
    texts = ["我 喜欢 这 部 电影 ， good"] * 2
    by_words, by_characters = (trained("word", "lstm", chinese=chinese, texts=texts) for chinese in ("words", "characters"))
    assert by_words.tokenize("喜欢 电影，good") == ["喜欢", "电影", "，", "good"]
    assert by_characters.tokenize("喜欢 电影") == ["喜", "欢", "电", "影"]


def digest(kind: str) -> str:
    return hashlib.sha256(trained(kind).backend_tokenizer.to_str().encode()).hexdigest()


@pytest.fixture(scope="module")
def digests_elsewhere():
    """What two other processes with other hash seeds get for each kind."""
    here = Path(__file__).resolve()
    code = (
        f"import runpy; made = runpy.run_path({str(here)!r}); "
        "print(__import__('json').dumps({kind: made['digest'](kind) for kind in made['KINDS']}))"
    )
    processes = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(here.parents[3])}
        processes.append(subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True))
    return [json.loads(process.communicate(timeout=120)[0]) for process in processes]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_tokenizer_in_every_process(kind, digests_elsewhere):
    assert {digest(kind), digest(kind), *(found[kind] for found in digests_elsewhere)} == {digest(kind)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_texts_is_nothing(kind):
    assert trained(kind, texts=TEXTS[::-1]).get_vocab() == trained(kind).get_vocab()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_what_is_loaded(kind, family, tmp_path):
    made = trained(kind, family)
    made.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": {"bert": "bert", "gpt": "gpt2"}.get(family, "other")}))
    loaded = tokenizers.load(tmp_path)
    pairs = (TEXTS[:4], ["Quick?", "", "电影 zzz ☃", "été"])
    assert loaded(*pairs) == made(*pairs)
    assert loaded(TEXTS) == made(TEXTS)
    assert loaded.special_tokens_map == made.special_tokens_map
    assert len(loaded) == len(made)
    assert list(loaded(TEXTS[0])) == list(tokenizers.FAMILIES[family].input_names)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_come_first_and_enclose(kind):
    made = trained(kind)
    assert [made.pad_token_id, made.unk_token_id, made.cls_token_id, made.sep_token_id, made.mask_token_id] == [0, 1, 2, 3, 4]
    single, pair = made("quick"), made("quick", "fox")
    assert single["input_ids"][0] == 2 and single["input_ids"][-1] == 3
    assert pair["input_ids"].count(3) == 2
    first = len(single["input_ids"])
    assert pair["token_type_ids"] == [0] * first + [1] * (len(pair["input_ids"]) - first)
    assert made("[MASK]", add_special_tokens=False)["input_ids"] == [4]


@pytest.mark.parametrize("kind", KINDS)
def test_lstm_and_gpt_tokens(kind):
    lstm, gpt = trained(kind, "lstm"), trained(kind, "gpt")
    assert lstm.sep_token_id not in lstm("quick fox")["input_ids"]
    assert lstm("quick", "fox")["input_ids"].count(lstm.sep_token_id) == 1
    assert gpt.eos_token_id == gpt.bos_token_id == gpt.pad_token_id == 0
    assert gpt("quick fox")["input_ids"].count(0) == 0
    assert (gpt.unk_token is None) == (kind == "bpe")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_vocab_size_is_a_bound(kind, family):
    for size in (SIZES[kind], 266 if kind == "bpe" else 16):
        made = trained(kind, family, vocab_size=size)
        assert len(made) <= size
        assert max(made.get_vocab().values()) < len(made)
        assert sorted(made.get_vocab().values()) == list(range(len(made)))
        assert max(i for ids in made(TEXTS)["input_ids"] for i in ids) < len(made)


def test_bpe_needs_room_for_every_byte():
    with pytest.raises(ConfigError, match="tokenizer.vocab_size: 100 is too small for bpe.*261"):
        trained("bpe", vocab_size=100)


@pytest.mark.parametrize("kind", ["word", "char"])
def test_min_frequency(kind):
    made = trained(kind, texts=["a a b", "a b c"], min_frequency=2, vocab_size=100)
    entries = set(made.get_vocab()) - set(made.all_special_tokens)
    assert entries == {"word": {"a", "b"}, "char": {"a", "b", " "}}[kind]
    assert made("c", add_special_tokens=False)["input_ids"] == [made.unk_token_id]


@pytest.mark.parametrize("kind", ["word", "char", "wordpiece"])
def test_nothing_frequent_enough(kind):
    with pytest.raises(DataError, match="nothing occurs 5 times") as caught:
        trained(kind, texts=["one", "two"], min_frequency=5)
    assert "tokenizer.min_frequency=1" in caught.value.remedy


@pytest.mark.parametrize("kind", KINDS)
def test_lowercase_folds_case_and_accents(kind):
    folded, kept = trained(kind, lowercase=True, vocab_size=500), trained(kind, vocab_size=500)
    ids = lambda made, text: made(text)["input_ids"]  # noqa: E731
    assert ids(folded, "QUICK Été") == ids(folded, "quick ete")
    assert ids(kept, "Quick") != ids(kept, "quick")


def test_the_most_frequent_words_win_ties_by_the_alphabet():
    made = trained("word", texts=["b a c c", "d"], vocab_size=8)
    assert [word for word, _ in sorted(made.get_vocab().items(), key=lambda item: item[1])][5:] == ["c", "a", "b"]


def test_words_keep_their_apostrophes_and_stand_apart_from_marks():
    made = trained("word", vocab_size=100)
    assert made.tokenize("don't jump; l'été?") == ["don't", "jump", ";", "l'été", "?"]


@pytest.mark.parametrize("kind", KINDS)
def test_chinese_is_cut_by_the_character_or_finer(kind):
    made = trained(kind, vocab_size=500)
    ids = made("电影", add_special_tokens=False)["input_ids"]
    assert made.unk_token_id not in ids
    assert made.decode(ids).replace(" ", "") == "电影"
    assert len(ids) == 2 or kind == "bpe"


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_texts_come_back_whole(kind):
    made = trained(kind, vocab_size=500)
    for text in TEXTS:
        assert made.decode(made(text, add_special_tokens=False)["input_ids"]) == text


def test_bpe_spells_what_it_never_saw():
    made = trained("bpe", "gpt")
    assert made.decode(made("☃ ñ 한글")["input_ids"]) == "☃ ñ 한글"


@pytest.mark.parametrize("kind", ["word", "char", "wordpiece"])
def test_what_it_never_saw_is_unknown(kind):
    made = trained(kind)
    assert made("☃", add_special_tokens=False)["input_ids"] == [made.unk_token_id]


@pytest.mark.parametrize(
    ("tokenizer", "model", "changes", "expected"),
    [
        ("auto", "lstm", {}, "word"),
        ("auto", "bert", {}, "wordpiece"),
        ("auto", "gpt", {}, "bpe"),
        ("auto", "bert", {"pretrained": "x"}, "pretrained"),
        ("auto", "run", {"path": "x"}, "pretrained"),
        ("char", "bert", {}, "char"),
        ("pretrained", "bert", {"pretrained": "x"}, "pretrained"),
    ],
)
def test_auto_goes_by_the_model(section, tokenizer, model, changes, expected):
    assert tokenizers.kind(section(f"tokenizer/{tokenizer}"), section(f"model/{model}", **changes)) == expected


def saved(tmp_path, **changes) -> Path:
    """A saved tokenizer, some keys of its tokenizer.json changed."""
    trained("word").save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return tmp_path


PANICS_ON_LOADING = {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}
PANICS_IN_USE = {
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[NONE]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"SpecialToken": {"id": "[NONE]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {},
    }
}


@pytest.mark.parametrize(
    "changes",
    [
        PANICS_ON_LOADING,
        PANICS_IN_USE,
        {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "b"}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}},
        {"model": None},
        {"version": "9.0"},
    ],
)
def test_a_broken_tokenizer_is_an_error_of_the_model(tmp_path, changes):
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded") as caught:
        tokenizers.load(saved(tmp_path, **changes))
    assert caught.value.where == str(tmp_path) and "\n" not in caught.value.message


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1}', b"[" * 10_000, b"\xff\xfe"])
def test_a_tokenizer_file_that_is_no_tokenizer(tmp_path, content):
    saved(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError):
        tokenizers.load(tmp_path)


def test_code_of_a_tokenizer_is_not_run(tmp_path):
    saved(tmp_path)
    (tmp_path / "evil.py").write_text("open('ran', 'w')\nclass Evil: ...\n")
    path = tmp_path / "tokenizer_config.json"
    auto_map = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "Evil", "auto_map": auto_map}))
    with pytest.raises(ModelError):
        tokenizers.load(tmp_path)
    assert not Path("ran").exists()


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="no such directory"):
        tokenizers.load(tmp_path / "none")


def test_an_interrupt_is_no_broken_tokenizer(tmp_path, monkeypatch):
    import transformers

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", interrupt)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(KeyboardInterrupt):
        tokenizers.load(tmp_path)


def test_a_model_without_a_tokenizer_is_told(tmp_path):
    """transformers makes up one that knows no word."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="no tokenizer"):
        tokenizers.load(tmp_path)
