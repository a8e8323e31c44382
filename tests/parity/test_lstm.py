"""Our LSTM against torch's own over packed rows. B: texts, L: tokens, H: hidden width of both directions."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from llmtune.models.lstm import LstmConfig, LstmForSequenceClassification
from tests import tiny

SHAPES = list(product(("mean", "max", "last"), (1, 2), (False, True)))


def ours(pooling: str = "max", num_layers: int = 1, bidirectional: bool = True, **changes) -> LstmForSequenceClassification:
    torch.manual_seed(3)
    sizes = {"vocab_size": tiny.VOCAB_SIZE, "embedding_size": 6, "hidden_size": 5, "num_labels": 3}
    config = LstmConfig(**sizes, pooling=pooling, num_layers=num_layers, bidirectional=bidirectional, **changes)
    made = LstmForSequenceClassification(config).double().eval()
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made


class Reference(nn.Module):
    """The textbook's: one packed `nn.LSTM`, pooling over each text by a loop. Takes its weights from ours."""

    def __init__(self, model: LstmForSequenceClassification):
        super().__init__()
        config, encoder = model.config, model.encoder
        self.pooling = config.pooling
        self.embedding = nn.Embedding.from_pretrained(
            encoder.embedding.weight.detach().clone(), freeze=False, padding_idx=tiny.PAD
        )
        self.lstm = nn.LSTM(
            config.embedding_size, config.hidden_size, config.num_layers, batch_first=True, bidirectional=config.bidirectional
        ).double()
        self.classifier = nn.Linear(model.classifier.in_features, 3).double()
        self.classifier.load_state_dict(model.classifier.state_dict())
        for name, theirs in self.weights(model):
            name.data.copy_(theirs)

    def weights(self, model: LstmForSequenceClassification) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Pairs of weights that play the same part."""
        layers = [("", model.encoder.forward_layers), ("_reverse", model.encoder.backward_layers)]
        pairs = [
            (getattr(self.lstm, f"{kind}_l{i}{suffix}"), getattr(layer, f"{kind}_l0"))
            for suffix, stack in layers
            for i, layer in enumerate(stack)
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        heads = zip(self.classifier.parameters(), model.classifier.parameters(), strict=True)
        return [*pairs, *heads, (self.embedding.weight, model.encoder.embedding.weight)]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        lengths_B = attention_mask.sum(-1)
        packed = pack_padded_sequence(self.embedding(input_ids), lengths_B, batch_first=True, enforce_sorted=False)
        states, (last_DBH, _) = self.lstm(packed)
        states_BLH, _ = pad_packed_sequence(states, batch_first=True)
        if self.pooling == "last":
            directions = 2 if self.lstm.bidirectional else 1
            return self.classifier(torch.cat(list(last_DBH[-directions:]), -1))
        rows = [states_BLH[i, :length] for i, length in enumerate(lengths_B)]
        pooled = [row.mean(0) if self.pooling == "mean" else row.max(0).values for row in rows]
        return self.classifier(torch.stack(pooled))


@pytest.mark.parametrize(("pooling", "num_layers", "bidirectional"), SHAPES)
def test_logits_and_gradients_equal_a_packed_lstm(pooling, num_layers, bidirectional):
    model, batch = ours(pooling, num_layers, bidirectional), tiny.batch(5, 9)
    reference = Reference(model)
    logits_BC, expected_BC = model(**batch).logits, reference(**batch)
    assert torch.allclose(logits_BC, expected_BC, rtol=0, atol=1e-12)
    weights_BC = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (logits_BC * weights_BC).sum().backward()
    (expected_BC * weights_BC).sum().backward()
    pairs = reference.weights(model)
    assert len(pairs) == len(list(model.parameters()))
    for theirs, mine in pairs:
        assert mine.grad.abs().sum() > 0
        assert torch.allclose(mine.grad, theirs.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("pooling", "num_layers", "bidirectional"), SHAPES)
def test_neither_padding_nor_order_changes_a_row(pooling, num_layers, bidirectional):
    model, batch = ours(pooling, num_layers, bidirectional), tiny.batch(5, 9)
    with torch.no_grad():
        logits_BC = model(**batch).logits
        wider = model(F.pad(batch["input_ids"], (0, 6), value=17), F.pad(batch["attention_mask"], (0, 6))).logits
        order_B = torch.tensor([3, 0, 4, 1, 2])
        shuffled = model(**{name: t[order_B] for name, t in batch.items()}).logits
        texts = [(ids[None, : mask.sum()], mask[None, : mask.sum()]) for ids, mask in zip(*batch.values(), strict=True)]
        alone = torch.cat([model(*text).logits for text in texts])
    for other in (wider, shuffled[order_B.argsort()], alone):
        assert torch.allclose(logits_BC, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (2, True)])
def test_recurrent_weights_are_dropped_once_for_each_forward_pass(num_layers, bidirectional):
    model = ours("mean", num_layers, bidirectional, recurrent_dropout=0.4)
    dropped = ours("mean", num_layers, bidirectional)
    batch = tiny.batch(4, 8)
    torch.manual_seed(11)
    logits_BC = model.train()(**batch).logits
    torch.manual_seed(11)
    stacks = [model.encoder.forward_layers, model.encoder.backward_layers][: 2 if bidirectional else 1]
    others = [dropped.encoder.forward_layers, dropped.encoder.backward_layers]
    for i in range(num_layers):
        for stack, other in zip(stacks, others, strict=False):
            other[i].weight_hh_l0.data.copy_(F.dropout(stack[i].weight_hh_l0, 0.4))
    assert torch.allclose(logits_BC, dropped(**batch).logits, rtol=0, atol=1e-12)
    assert not torch.allclose(logits_BC, model.eval()(**batch).logits, atol=1e-3)
