"""Training the rows alone that the data reads: the same learning, and the whole table for everyone else."""

import copy

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from llmtune.config.sections.optimizer import AdamW
from llmtune.config.sections.tuning import FullTuning
from llmtune.data import prepared
from llmtune.training import live_rows, optimizers, parameter_groups

ROWS = [[1, 5, 7], [1, 9], [1, 5, 30]]
READ = [0, 1, 5, 7, 9, 30]
ADAMW = AdamW(type="adamw", lr=0.01, weight_decay=0.0, beta1=0.9, beta2=0.999, eps=1e-8)


def built(model: nn.Module, config: AdamW) -> torch.optim.Optimizer:
    groups = parameter_groups.build(model, FullTuning(type="full"), weight_decay=config.weight_decay)
    return optimizers.build(groups, config)


@pytest.fixture
def split(tmp_path):
    def make(rows=ROWS):
        prepared.write_split(tmp_path, "train", [{"input_ids": rows, "label": [0] * len(rows)}])
        return prepared.Split(tmp_path / "train.arrow")

    return make


def bert() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(BertConfig(vocab_size=50, pad_token_id=0, **sizes, **dropout))


@pytest.fixture
def models(split):
    """A BERT as it is, and the same one with live rows."""
    whole = bert()
    live = copy.deepcopy(whole)
    live_rows.install(live, split(), pad_token_id=0)
    return whole, live


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, number: int = 3) -> None:
    for i in range(number):
        ids = torch.tensor([[1, 5, 7], [1, 9, 0], [1, 5, 30]])
        model.train()
        out = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
        (out * torch.arange(out.numel()).view(out.shape)).sum().mul(i + 1).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_the_parameter_holds_what_is_read(models):
    embedding = models[1].get_input_embeddings()
    assert isinstance(embedding, live_rows.LiveRows) and embedding.rows.tolist() == READ
    assert embedding.weight.shape == (len(READ), embedding.embedding_dim)


def test_it_learns_the_same_to_the_bit(models):
    for model in models:
        steps(model, built(model, ADAMW))
    whole, live = (model.state_dict() for model in models)
    assert list(whole) == list(live) and all(torch.equal(whole[name], live[name]) for name in whole)


def test_weight_decay_spares_what_is_never_read(models):
    model, before = models[1], models[0].get_input_embeddings().weight.detach()
    steps(model, built(model, ADAMW.model_copy(update={"weight_decay": 0.5})))
    table = model.state_dict()["bert.embeddings.word_embeddings.weight"]
    unread = [i for i in range(50) if i not in READ]
    assert torch.equal(table[unread], before[unread]) and not torch.isclose(table[READ[1:]], before[READ[1:]]).all(1).any()


def test_in_evaluation_every_token_has_its_vector(models):
    ids = torch.arange(50)[None, :8] + torch.arange(0, 42, 6)[:, None]
    for model in models:
        steps(model, built(model, ADAMW))
        model.eval()
    with torch.no_grad():
        whole, live = (model(input_ids=ids).logits for model in models)
    assert torch.equal(whole, live)


def test_a_token_that_the_rows_lack_is_an_error_in_training(models):
    models[1].train()
    with pytest.raises(IndexError):
        models[1](input_ids=torch.tensor([[1, 6]]))


def test_what_is_saved_is_the_whole_model(models, tmp_path):
    model = models[1]
    steps(model, built(model, ADAMW))
    model.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved")
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in again.state_dict().items())
    other = copy.deepcopy(models[1])
    other.load_state_dict(models[0].state_dict())
    assert torch.equal(other.get_input_embeddings().weight, models[0].get_input_embeddings().weight[READ])


@pytest.mark.parametrize("weight", [torch.zeros(49, 16), None])
def test_another_table_does_not_fit(models, weight):
    state = {name: value for name, value in models[1].state_dict().items() if "word_embeddings" not in name}
    if weight is not None:
        state["bert.embeddings.word_embeddings.weight"] = weight
    with pytest.raises(RuntimeError, match="word_embeddings.weight"):
        models[1].load_state_dict(state)


def test_the_state_of_the_optimizer_follows_the_rows(models, split):
    """Also that of a run without live rows, and for other data: a row that is new starts at zero."""
    whole, live = models
    made = [built(model, ADAMW) for model in models]
    for model, optimizer in zip(models, made, strict=True):
        steps(model, optimizer)
    name = "bert.embeddings.word_embeddings.weight"
    stored_whole, stored = (optimizers.state_tensors(m, o) for m, o in zip(models, made, strict=True))
    assert stored[f"{name}/rows"].tolist() == READ and f"{name}/rows" not in stored_whole
    for tensors in (stored, stored_whole):
        again = built(live, ADAMW)
        optimizers.load_state_tensors(live, again, tensors)
        assert torch.equal(again.state[live.get_input_embeddings().weight]["exp_avg"], stored[f"{name}/exp_avg"])
    other = copy.deepcopy(whole)
    live_rows.install(other, split([[1, 5, 8]]), pad_token_id=0)
    again = built(other, ADAMW)
    optimizers.load_state_tensors(other, again, stored)
    moved = again.state[other.get_input_embeddings().weight]["exp_avg"]
    assert torch.equal(moved[[1, 2]], stored[f"{name}/exp_avg"][[1, 2]]) and not moved[3].any()


def test_where_it_is_not_exact_nothing_changes(split):
    for model, rows in (
        (GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)), ROWS),  # the head reads the table, too
        (bert(), [list(range(45))]),  # little to gain
        (bert().requires_grad_(False), ROWS),
    ):
        before = [type(module) for module in model.modules()]
        live_rows.install(model, split(rows), pad_token_id=0)
        assert [type(module) for module in model.modules()] == before


def test_the_padding_of_the_rows_is_read(split):
    """Which is not always the one that the embedding names: GPT-2 names none."""
    model = bert()
    model.get_input_embeddings().padding_idx = None
    live_rows.install(model, split(), pad_token_id=44)
    assert model.get_input_embeddings().rows.tolist() == [1, 5, 7, 9, 30, 44]


def test_all_pieces_of_the_rows_are_read(tmp_path):
    pieces = [{"input_ids": rows, "label": [0] * len(rows)} for rows in (ROWS[:2], ROWS[2:])]
    prepared.write_split(tmp_path, "train", pieces)
    split = prepared.Split(tmp_path / "train.arrow")
    assert live_rows.read_rows(split, num_rows=50, also=[0]).tolist() == READ
    assert live_rows.read_rows(split, num_rows=50, also=[]).tolist() == READ[1:]
