"""From a trained body to another task: what is kept, what is new, and that nothing of it is silent."""

import pytest
import torch
from torch import nn

from llmtune.errors import ModelError
from llmtune.models import heads, registry
from tests import tiny

CHANGES = [
    (name, form, task)
    for name in tiny.ARCHITECTURES
    for form in ("body", *tiny.tasks_of(name))
    for task in tiny.tasks_of(name)
    if form != task
]


@pytest.mark.parametrize(("name", "form", "task"), CHANGES)
def test_the_body_is_kept_bit_for_bit(section, tmp_path, name, form, task):
    trained = tiny.model(name, form)
    body = {key: tensor.clone() for key, tensor in trained.base_model.named_parameters()}
    directory = str(tiny.save(trained, tmp_path / "from"))

    def build(seed):
        torch.manual_seed(seed)
        return registry.build(section("model/bert", pretrained=directory), tiny.spec(task)).eval()

    built, again, other = build(1), build(1), build(2)
    for key, tensor in built.base_model.named_parameters():
        assert torch.equal(tensor, body[key]) if key in body else key.startswith("pooler.")
    assert not any(tensor.is_meta for tensor in (*built.parameters(), *built.buffers()))
    assert all(parameter.requires_grad for parameter in built.parameters())
    weights, same, different = built.state_dict(), again.state_dict(), other.state_dict()
    new = {key for key in weights if not torch.equal(weights[key], different[key])}
    assert new <= heads.new_weights(built) and bool(new) == bool(heads.new_weights(built))
    assert all(torch.equal(weights[key], same[key]) for key in weights)
    if built.config.tie_word_embeddings and (output := built.get_output_embeddings()) is not None:
        assert output.weight is built.get_input_embeddings().weight

    loaded, batch = registry.load(tiny.save(built, tmp_path / "to")), tiny.batch()
    assert heads.task_of(built) == heads.task_of(loaded) == task
    with torch.no_grad():
        logits = built(**batch).logits
        assert logits.isfinite().all() and torch.equal(loaded(**batch).logits, logits)
    if task in ("classification", "regression"):
        assert tuple(loaded.config.id2label.values()) == (tiny.LABELS if task == "classification" else ("value",))


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
@pytest.mark.parametrize("task_index", range(3))
def test_the_head_is_kept_if_the_task_agrees(tmp_path, name, task_index):
    task = tiny.tasks_of(name)[task_index]
    model = registry.load(tiny.save(tiny.model(name, task), tmp_path), task=task)
    assert registry.adapt(model, tiny.spec(task)) is model
    assert not heads.new_weights(model)


@pytest.mark.parametrize("labels", [("positive", "neutral", "negative"), ("a", "b", "c"), ("negative", "positive")])
def test_other_label_names_need_another_head(labels):
    adapted = registry.adapt(tiny.model("bert", "classification"), tiny.spec("classification", label_names=labels))
    assert heads.new_weights(adapted) == {"classifier.weight", "classifier.bias"}
    assert tuple(adapted.config.id2label.values()) == labels and adapted.config.label2id == {n: i for i, n in enumerate(labels)}


def test_a_config_without_a_name_for_each_label():
    model = tiny.model("bert", "classification")
    model.config.id2label = {0: "negative", 1: "neutral", 7: "positive"}
    assert heads.new_weights(registry.adapt(model, tiny.spec("classification")))


@pytest.mark.parametrize(
    ("num_labels", "problem_type", "is_kept"), [(1, None, True), (1, "regression", True), (2, "regression", False)]
)
def test_what_counts_as_regression(num_labels, problem_type, is_kept):
    """transformers takes a single output for a number; a head of two numbers does not fit one target."""
    model = tiny.model("bert", "regression")
    model.config.num_labels, model.config.problem_type = num_labels, problem_type
    adapted = registry.adapt(model, tiny.spec("regression"))
    assert (adapted is model) == is_kept and adapted.config.num_labels == 1


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra", "deberta-v2"])
def test_a_new_head_for_numbers_starts_at_the_mean(name):
    adapted = registry.adapt(tiny.model(name, "body"), tiny.spec("regression")).eval()
    last = [module for module in adapted.modules() if isinstance(module, nn.Linear)][-1]
    assert last.bias.tolist() == [2.5]
    with torch.no_grad():
        assert adapted(**tiny.batch()).logits.mean().item() == pytest.approx(2.5, abs=0.5)


def test_the_pooler_of_a_language_model_is_not_lost(section, tmp_path):
    """BERT is published as a masked language model whose file has the pooler, too: a classifier needs it."""
    model = tiny.model("bert", "masked_lm")
    pooler = tiny.model("bert", "body").pooler
    model.bert.pooler = pooler
    built = registry.build(section("model/bert", pretrained=str(tiny.save(model, tmp_path))), tiny.spec("classification"))
    assert torch.equal(built.bert.pooler.dense.weight, pooler.dense.weight)
    assert heads.new_weights(built) == {"classifier.weight", "classifier.bias"}


def test_a_body_without_a_pooler(section, tmp_path):
    """Many sentence encoders are saved so."""
    model = tiny.model("bert", "body")
    model.pooler = None
    directory = tiny.save(model, tmp_path)
    built = registry.build(section("model/bert", pretrained=str(directory)), tiny.spec("classification"))
    drawn = {f"{module}.{kind}" for module in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")}
    assert heads.new_weights(built) == drawn
    assert built.bert.pooler.dense.weight.std().item() == pytest.approx(0.02, abs=0.01)
    assert registry.load(directory)(**tiny.batch()).last_hidden_state.isfinite().all()


def test_an_encoder_counts_positions_from_its_own_padding_token(tmp_path):
    model = registry.adapt(tiny.model("roberta", "body"), tiny.spec("classification"))
    assert model.config.pad_token_id == 1  # of the tokenizer: 0


@pytest.mark.parametrize("form", ["body", "classification"])
def test_a_causal_model_finds_the_end_of_a_text(form):
    """By the tokenizer's padding token, whether its head is new or not."""
    model = tiny.model("gpt2", form)
    model.config.pad_token_id = None
    adapted = registry.adapt(model, tiny.spec("classification")).eval()
    batch = tiny.batch()
    with torch.no_grad():
        texts = [ids[None, : mask.sum()] for ids, mask in zip(*batch.values(), strict=True)]
        alone = [adapted(input_ids=ids).logits for ids in texts]
        assert torch.allclose(adapted(**batch).logits, torch.cat(alone), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "form", "wanted", "words"),
    [
        ("bert", "body", tiny.spec("causal_lm"), "reads in both directions"),
        ("llama", "body", tiny.spec("masked_lm"), "llama cannot do task=masked_lm"),
        (
            "bert",
            "classification",
            tiny.spec("classification", vocab_size=1_041),
            "tokenizer has 1,041 entries, the model's embedding 40",
        ),
        ("gpt2", "causal_lm", tiny.spec("causal_lm", vocab_size=41), "tokenizer has 41 entries, the model's embedding 40"),
    ],
)
def test_what_a_model_cannot_serve(tmp_path, name, form, wanted, words):
    model = registry.load(tiny.save(tiny.model(name, form), tmp_path))
    with pytest.raises(ModelError, match=words) as caught:
        registry.adapt(model, wanted)
    assert caught.value.where == str(tmp_path) and caught.value.remedy


def test_half_a_body(section, tmp_path):
    """The decoder of BART alone is no model for its classifier, whose encoder would be random."""
    import transformers

    sizes = {"vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 32}
    heads_of = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    decoder = transformers.BartForCausalLM(transformers.BartConfig(**sizes, **heads_of))
    with pytest.raises(ModelError, match="hold a part of BartForSequenceClassification only"):
        registry.adapt(decoder, tiny.spec("classification"))
    with pytest.raises(ModelError, match="weights are missing: encoder"):
        registry.build(section("model/gpt", pretrained=str(tiny.save(decoder, tmp_path))), tiny.spec("classification"))
