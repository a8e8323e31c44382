"""Recurrent models of texts and words. B: texts, L: tokens, E: width of what a layer reads, H: hidden width, C: outputs."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput

EMBEDDING_STD = 0.1
HASH_FACTOR, HASH_PRIME = 1_540_483_477, 2_147_483_647  # a product of both fits into 63 bits


class LstmConfig(PretrainedConfig):
    """What the classes here are built from; the fields are those of the config section `model=lstm`."""

    model_type = "llmtune_lstm"

    def __init__(
        self,
        vocab_size: int = 100,
        embedding_size: int = 128,
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = True,
        pooling: str = "max",
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        max_ngram: int = 1,
        ngram_buckets: int = 50_000,
        pad_token_id: int | None = 0,
        **kwargs,
    ):
        super().__init__(pad_token_id=pad_token_id, **kwargs)
        self.vocab_size, self.embedding_size, self.hidden_size = vocab_size, embedding_size, hidden_size
        self.num_layers, self.bidirectional, self.pooling = num_layers, bidirectional, pooling
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
        self.max_ngram, self.ngram_buckets = max_ngram, ngram_buckets


class LstmPreTrainedModel(PreTrainedModel):
    """What both heads share: the encoder, a linear layer behind it, and how both begin."""

    config_class = LstmConfig
    base_model_prefix = "encoder"

    def __init__(self, config: LstmConfig):
        super().__init__(config)
        self.encoder = LstmEncoder(config)
        self.classifier = nn.Linear(config.hidden_size * (2 if config.bidirectional else 1), config.num_labels)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.embedding

    def _init_weights(self, module: nn.Module) -> None:
        weights = {name: w for name, w in module.named_parameters(recurse=False) if not getattr(w, "_is_hf_initialized", False)}
        for name, weight in weights.items():
            if name == "ngram_weight":
                nn.init.zeros_(weight)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(weight, std=EMBEDDING_STD)
                if module.padding_idx is not None:
                    weight[module.padding_idx] = 0.0
            elif "weight_hh" in name:
                for gate in weight.chunk(4):
                    nn.init.orthogonal_(gate)
            elif weight.dim() > 1:
                nn.init.xavier_uniform_(weight)
            else:
                nn.init.zeros_(weight)
                if name == "bias_ih_l0":  # gates: input, forget, cell, output; the second starts open. Jozefowicz et al. 2015
                    weight.chunk(4)[1].fill_(1.0)


class LstmForSequenceClassification(LstmPreTrainedModel):
    """Embedding, LSTM layers, pooling over the tokens, linear head. Hochreiter and Schmidhuber 1997."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        """Logits [B, C] for token ids and mask [B, L], padded on the right, at least one token a text."""
        pooled_BH = self.encoder(input_ids, attention_mask)
        return SequenceClassifierOutput(logits=self.classifier(F.dropout(pooled_BH, self.config.dropout, self.training)))


class LstmForTokenClassification(LstmPreTrainedModel):
    """Embedding, LSTM layers, linear head for each token. Graves and Schmidhuber 2005."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TokenClassifierOutput:
        """Logits [B, L, C] for token ids and mask [B, L], padded on the right; those of padding mean nothing."""
        states_BLH = self.encoder.of_tokens(input_ids, attention_mask)
        return TokenClassifierOutput(logits=self.classifier(F.dropout(states_BLH, self.config.dropout, self.training)))


class LstmEncoder(nn.Module):
    """From tokens to one vector, or to one for each of them.

    Each direction of each layer is a one-way `nn.LSTM` over padded rows; the backward ones read every text reversed
    within its own length. What a one-way net says of a token depends on the tokens before it alone, so padding on the
    right changes nothing, and rows that need no packing go through oneDNN: two to six times faster on a CPU (docs/log.md).
    Dropout between the layers is ours, since the random state of `nn.LSTM(dropout=...)` on CUDA is not keyed.
    """

    def __init__(self, config: LstmConfig):
        super().__init__()
        self.config = config
        directions = 2 if config.bidirectional else 1
        widths = [config.embedding_size, *[config.hidden_size * directions] * (config.num_layers - 1)]
        self.embedding = _embedding(config)
        self.forward_layers = _layers(widths, config.hidden_size)
        self.backward_layers = _layers(widths if config.bidirectional else [], config.hidden_size)
        if config.recurrent_dropout:  # cuDNN copies the weights at each step, as it must when they are new at each step
            warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One vector for each text, [B, H] or [B, 2H], for token ids and mask [B, L]."""
        lengths_B1, reversal_BL = _reversal(attention_mask)
        # The backward states stay reversed: mean and max do not mind, and the last one has read the whole text.
        states = self._states(input_ids, reversal_BL)
        return torch.cat([self._pooled(states_BLH, attention_mask, lengths_B1) for states_BLH in states], -1)

    def of_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One vector for each token, [B, L, H] or [B, L, 2H], for token ids and mask [B, L]."""
        _, reversal_BL = _reversal(attention_mask)
        ahead, *back = self._states(input_ids, reversal_BL)
        return torch.cat([ahead, *(_reordered(states_BLH, reversal_BL) for states_BLH in back)], -1)

    def _states(self, input_ids: Tensor, reversal_BL: Tensor) -> list[Tensor]:
        """The last layer's states [B, L, H] forwards and, of a model that reads both ways, backwards."""
        states_BLE, states = self.embedding(input_ids), []  # the latter: of each direction
        for i, layer in enumerate(self.forward_layers):
            if i and self.config.bidirectional:
                states_BLE = torch.cat([states[0], _reordered(states[1], reversal_BL)], -1)
            elif i:
                states_BLE = states[0]
            states_BLE = F.dropout(states_BLE, self.config.dropout, self.training)
            states = [self._run(layer, states_BLE)]
            if self.config.bidirectional:
                states.append(self._run(self.backward_layers[i], _reordered(states_BLE, reversal_BL)))
        return states

    def _run(self, layer: nn.LSTM, states_BLE: Tensor) -> Tensor:
        """One layer in one direction; in training with a share of its recurrent weights dropped, the same at every token."""
        if not (self.training and self.config.recurrent_dropout):
            return layer(states_BLE)[0]
        dropped = {"weight_hh_l0": F.dropout(layer.weight_hh_l0, self.config.recurrent_dropout)}  # Merity et al. 2018
        return torch.func.functional_call(layer, dropped, (states_BLE,))[0]

    def _pooled(self, states_BLH: Tensor, mask_BL: Tensor, lengths_B1: Tensor) -> Tensor:
        if self.config.pooling == "last":
            last_B1H = (lengths_B1 - 1).unsqueeze(-1).expand(-1, 1, states_BLH.shape[-1])
            return states_BLH.gather(1, last_B1H).squeeze(1)
        is_padding_BL1 = mask_BL.unsqueeze(-1) == 0
        if self.config.pooling == "max":
            return states_BLH.masked_fill(is_padding_BL1, float("-inf")).amax(1)
        return states_BLH.masked_fill(is_padding_BL1, 0.0).sum(1) / lengths_B1


def _reversal(mask_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths [B, 1], and the order [B, L] that reads each text backwards, and that back; padding reads anything."""
    lengths_B1 = mask_BL.sum(-1, keepdim=True)
    return lengths_B1, lengths_B1 - mask_BL.cumsum(-1)


class NgramEmbedding(nn.Embedding):
    """A token's vector plus those of the n-grams that end with it. Joulin et al. 2017: https://aclanthology.org/E17-2068

    The vectors of n-grams begin with zeros, so that one which training never met says nothing. N-grams are hashed: those of one
    bucket share a vector. What stands before a text counts as padding.
    """

    def __init__(self, config: LstmConfig):
        super().__init__(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.max_ngram = config.max_ngram
        self.ngram_weight = nn.Parameter(torch.zeros(config.ngram_buckets, config.embedding_size))

    def forward(self, input: Tensor) -> Tensor:
        """Vectors [B, L, E] of token ids [B, L]."""
        return super().forward(input) + F.embedding(self.buckets(input), self.ngram_weight).sum(2)

    def buckets(self, input: Tensor) -> Tensor:
        """The buckets [B, L, max_ngram - 1] of the n-grams of two tokens, of three, ... that end with each token."""
        earlier_BL, hash_BL, found = input, input * HASH_FACTOR % HASH_PRIME, []
        for _ in range(self.max_ngram - 1):
            earlier_BL = F.pad(earlier_BL[:, :-1], (1, 0), value=self.padding_idx or 0)
            hash_BL = (hash_BL + earlier_BL) * HASH_FACTOR % HASH_PRIME
            found.append(hash_BL % len(self.ngram_weight))
        return torch.stack(found, -1)


def _embedding(config: LstmConfig) -> nn.Embedding:
    if config.max_ngram > 1:
        return NgramEmbedding(config)
    return nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)


def _layers(widths: list[int], hidden_size: int) -> nn.ModuleList:
    return nn.ModuleList(nn.LSTM(width, hidden_size, batch_first=True) for width in widths)


def _reordered(states_BLE: Tensor, order_BL: Tensor) -> Tensor:
    return states_BLE.gather(1, order_BL.unsqueeze(-1).expand(-1, -1, states_BLE.shape[-1]))
