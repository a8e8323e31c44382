"""A recurrent classifier. B: examples, L: tokens, E: embedding width, H: hidden width, D: directions, C: outputs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class LstmConfig(PretrainedConfig):
    """What `LstmForSequenceClassification` is built from; the fields are those of config section `model=lstm`."""

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
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size, self.embedding_size, self.hidden_size = vocab_size, embedding_size, hidden_size
        self.num_layers, self.bidirectional, self.pooling = num_layers, bidirectional, pooling
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout


class LstmForSequenceClassification(PreTrainedModel):
    """Embedding, LSTM layers over packed sequences, pooling over the tokens, linear head.

    The layers are modules of their own: dropout between them is drawn by us from the keyed generator, which `nn.LSTM`
    would not do on CUDA.
    """

    config_class = LstmConfig
    base_model_prefix = "encoder"

    def __init__(self, config: LstmConfig):
        super().__init__(config)
        directions = 2 if config.bidirectional else 1
        self.encoder = LstmEncoder(config)
        self.classifier = nn.Linear(config.hidden_size * directions, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.LSTM):
            for name, weight in module.named_parameters():
                if "weight_hh" in name:
                    for gate in weight.chunk(4):
                        nn.init.orthogonal_(gate)
                elif "weight_ih" in name:
                    nn.init.xavier_uniform_(weight)
                else:
                    nn.init.zeros_(weight)
                    if "bias_ih" in name:  # a forget gate that starts open. Jozefowicz et al. 2015
                        weight.data[module.hidden_size : 2 * module.hidden_size] = 1.0
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
            module.weight.data[module.padding_idx] = 0
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        """Logits [B, C] for token ids and mask [B, L]; tokens are padded on the right."""
        pooled_BDH = self.encoder(input_ids, attention_mask)
        return SequenceClassifierOutput(logits=self.classifier(F.dropout(pooled_BDH, self.config.dropout, self.training)))


class LstmEncoder(nn.Module):
    """From tokens to one vector."""

    def __init__(self, config: LstmConfig):
        super().__init__()
        self.config = config
        directions = 2 if config.bidirectional else 1
        widths = [config.embedding_size, *[config.hidden_size * directions] * (config.num_layers - 1)]
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.layers = nn.ModuleList(
            nn.LSTM(width, config.hidden_size, batch_first=True, bidirectional=config.bidirectional) for width in widths
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        lengths_B = attention_mask.sum(-1)
        states_BLE = self.embedding(input_ids)
        final_BDH = states_BLE[:, 0]
        for layer in self.layers:
            states_BLE = F.dropout(states_BLE, self.config.dropout, self.training)
            packed = pack_padded_sequence(states_BLE, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
            packed, (final_DBH, _) = self._run(layer, packed)
            states_BLE, _ = pad_packed_sequence(packed, batch_first=True)
            final_BDH = final_DBH.transpose(0, 1).flatten(1)
        if self.config.pooling == "last":
            return final_BDH
        mask_BL1 = attention_mask[:, : states_BLE.shape[1], None].bool()
        if self.config.pooling == "max":
            return states_BLE.masked_fill(~mask_BL1, float("-inf")).amax(1)
        return states_BLE.masked_fill(~mask_BL1, 0.0).sum(1) / lengths_B[:, None]

    def _run(self, layer: nn.LSTM, packed):
        """One layer; in training with part of its recurrent weights dropped, the same ones at every token."""
        if not (self.training and self.config.recurrent_dropout):
            return layer(packed)
        weights = {
            name: F.dropout(weight, self.config.recurrent_dropout) if "weight_hh" in name else weight
            for name, weight in layer.named_parameters()
        }
        return torch.func.functional_call(layer, weights, (packed,))
