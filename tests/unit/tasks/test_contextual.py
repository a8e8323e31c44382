"""Words put anew by a masked language model: which ones, by which, and that all else stays to the character."""

import contextlib
from collections import Counter

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from llmtune.config.sections.augment_model import Contextual
from llmtune.data import prepared
from llmtune.data.augment.variants import Variants
from llmtune.errors import ModelError
from llmtune.tasks import contextual
from tests import tiny

WORDS = ["good", "bad", "film", "story", "the", "a", "very", "good-", "##s", "7", "!", "好", "片"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=24, **names)


def settings(**changes) -> Contextual:
    given = {"model": "x", "num_variants": 3, "rate": 0.3, "top_k": 3, "prepend_label": False, **changes}
    return Contextual(type="contextual", **given)


def rewriter(**changes) -> contextual.Rewriter:
    model = tiny.model("bert", "masked_lm", vocab_size=len(VOCABULARY))
    how = {"settings": settings(**changes), "autocast": contextlib.nullcontext, "seed": 0}
    return contextual.Rewriter(model, tokenizer(), **how)


def keys(number):
    return [(i, 0, 0) for i in range(number)]


TEXTS = ["The  Good\tfilm!", "a very very good story 7", "好片 好 片", "films", "", "🙂 zebra", " \n bad "]


def test_one_word_for_another_and_nothing_else():
    changed = rewriter().rewrite(TEXTS, None, keys(len(TEXTS)))
    assert changed[3:6] == TEXTS[3:6]  # of several pieces, without words, or unknown
    for before, after in [(TEXTS[0], changed[0]), (TEXTS[6], changed[6])]:
        assert before != after
        assert [c for c in before if not c.isalpha()] == [c for c in after if not c.isalpha()]
    assert changed[2] != TEXTS[2] and changed[2].count(" ") == 2
    assert changed[1].endswith(" 7") and len(changed[1].split()) == 6


def test_a_word_is_never_put_in_its_own_place():
    made = rewriter(rate=0.99)
    for i in range(20):
        (changed,) = made.rewrite(["good film story"], None, [(i, 0, 0)])
        assert all(a != b for a, b in zip(changed.split(), ["good", "film", "story"], strict=True))


def test_draws_depend_on_the_key_and_not_on_the_batch():
    made = rewriter()
    whole = made.rewrite(TEXTS, None, keys(len(TEXTS)))
    alone = [made.rewrite([text], None, [key])[0] for text, key in zip(TEXTS, keys(len(TEXTS)), strict=True)]
    assert whole == alone
    assert len({made.rewrite(["good film story the a very"], None, [(i, 0, 0)])[0] for i in range(10)}) > 3


def test_the_context_is_read_and_left_alone():
    made = rewriter(rate=0.01)
    plain = [made.rewrite(["the film"], None, [(i, 0, 0)])[0] for i in range(8)]
    led = [made.rewrite(["the film"], ["very good"], [(i, 0, 0)])[0] for i in range(8)]
    assert all(len(text.split()) == 2 and text != "the film" for text in led) and led != plain


def test_words_behind_the_models_limit_stay():
    text = " ".join(["good"] * 100)
    (changed,) = rewriter(rate=0.99).rewrite([text], None, [(0, 0, 0)])
    words = changed.split()
    assert "good" not in words[:22] and set(words[22:]) == {"good"} and len(words) == 100


def test_nothing_to_do():
    assert rewriter().rewrite([], None, []) == []
    assert rewriter().rewrite(["", "!"], None, keys(2)) == ["", "!"]


def test_drawn_by_probability():
    logits = torch.tensor([[0.0, 1.0, 2.0, -9.0]]).expand(30_000, -1)
    uniform = torch.rand(30_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shares = torch.bincount(contextual.draw(logits, uniform, top_k=2), minlength=4) / 30_000
    expected = torch.tensor([1.0, 2.0]).softmax(-1)
    torch.testing.assert_close(shares[1:3], expected, atol=0.01, rtol=0)
    assert shares[0] == shares[3] == 0
    assert contextual.draw(logits[:2], torch.tensor([0.0, 1.0 - 1e-16]).double(), top_k=9).tolist()[0] == 2


@pytest.fixture
def rows(tmp_path):
    texts = ["good film", "bad story", "", "a very good film", "the film"]
    stored = {"input_ids": [[1]] * 5, "text": texts, "text_pair": texts[::-1], "label": [1, 0, 1, 0, 1]}
    (tmp_path / "rows").mkdir()
    prepared.write_split(tmp_path / "rows", "train", [stored])
    return prepared.Split(tmp_path / "rows" / "train.arrow")


def test_variants_of_every_row(rows, tmp_path):
    told = contextual.write_variants(tmp_path, rows, rewriter(), label_names=["no", "yes"])
    split = prepared.Split(tmp_path / "train.arrow")
    assert told["variants"] == len(split) == 15 and told["changed"] == 12  # all but those of the empty row
    variants = Variants(split, per_row=3)
    for i, example in enumerate(rows.rows(range(5))):
        example = {**example, "id": i}
        drawn = [variants.drawn(example, seed=0, epoch=epoch) for epoch in range(400)]
        count = Counter(row["text"] + "/" + row["text_pair"] for row in drawn)
        made = [row["text"] + "/" + row["text_pair"] for row in split.rows(range(3 * i, 3 * i + 3))]
        expected = Counter([*made, example["text"] + "/" + example["text_pair"]])
        assert count.keys() == expected.keys()
        for text, number in expected.items():
            assert count[text] / 400 == pytest.approx(number / 4, abs=0.09)
        assert drawn[0] == variants.drawn(example, seed=0, epoch=0) and drawn[0]["label"] == example["label"]


def test_the_labels_name_is_the_context(rows, tmp_path, monkeypatch):
    asked = []
    made = rewriter(prepend_label=True, num_variants=1)
    monkeypatch.setattr(made, "rewrite", lambda texts, contexts, _: asked.append(contexts) or texts)
    contextual.write_variants(tmp_path, rows, made, label_names=["no", "yes"])
    assert sorted(asked[0]) == ["no", "no", "yes", "yes", "yes"]
    contextual.write_variants(tmp_path, rows, made, label_names=None)
    assert asked[-1] is None


@pytest.mark.parametrize("form", ["body", "classification"])
def test_a_model_without_the_head_is_refused(form):
    how = {"settings": settings(model="my/model"), "autocast": contextlib.nullcontext, "seed": 0}
    with pytest.raises(ModelError, match=r"augment\.contextual\.model: my/model is a bert model without a head") as told:
        contextual.Rewriter(tiny.model("bert", form), tokenizer(), **how)
    assert "bert_mlm" in told.value.remedy
    with pytest.raises(ModelError, match="mask token"):
        contextual.Rewriter(tiny.model("bert", "masked_lm"), None, **how)


def test_whole_words_of_a_vocabulary_that_marks_their_start():
    made = Tokenizer(models.WordLevel({"<mask>": 0, "\u2581good": 1, "s": 2, "\u25817": 3, "\u2581": 4}, unk_token="s"))
    fast = PreTrainedTokenizerFast(tokenizer_object=made, mask_token="<mask>")
    fast.backend_tokenizer.decoder = decoders.Metaspace()
    assert np.flatnonzero(contextual._words(fast, 5)).tolist() == [1]
