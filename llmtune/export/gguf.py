"""A GGUF file for llama.cpp, ollama and what else builds on them: weights, tokenizer and chat template in one."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from llmtune.errors import ModelError, ResourceError
from llmtune.export import Bundle
from llmtune.export.gguf_tokenizer import add_vocabulary
from llmtune.export.huggingface import write_description

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter
    from transformers import PretrainedConfig

FILE = "model.gguf"
TURNED = ("c_attn", "c_proj", "c_fc")  # GPT-2's layers, whose weights are [in, out]
FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
AS_THEY_ARE = "wpe"  # GPT-2's positions, which llama.cpp does not round either
LEAVE_OUT = "leave it out with ~export.gguf"


@dataclass(frozen=True)
class Architecture:
    """What llama.cpp knows a model_type of transformers as.

    Attributes:
        name: of the architecture.
        describe: writes its sizes; refuses what llama.cpp would compute in another way.
        pairs: whether queries and keys have the two halves of each rotated pair side by side, not half a head apart.
    """

    name: str
    describe: "Callable[[GGUFWriter, PretrainedConfig], None]"
    pairs: bool = False


def write(bundle: Bundle, directory: Path, *, outtype: str) -> None:
    """Write model.gguf.

    Args:
        bundle: a causal language model.
        directory: is there, and empty.
        outtype: 'f32', 'f16' or 'q8_0': how the matrices are stored.

    Raises:
        ResourceError: the package gguf is not installed.
        ModelError: llama.cpp has no such architecture or tokenizer, or none that this module writes.
    """
    try:
        from gguf import GGUFWriter, LlamaFileType
    except ImportError:
        raise ResourceError("export=gguf needs the package gguf", remedy="pip install 'llmtune[gguf]'") from None
    model = bundle.model
    architecture = _architecture(model)
    writer = GGUFWriter(directory / FILE, architecture.name)
    writer.add_type("model")
    writer.add_name(f"llmtune {model.config.model_type}")
    writer.add_file_type(LlamaFileType[FILE_TYPES[outtype]])
    writer.add_vocab_size(model.config.vocab_size)
    architecture.describe(writer, model.config)
    add_vocabulary(writer, bundle.tokenizer_dir, size=model.get_input_embeddings().num_embeddings)
    try:
        _write_tensors(writer, model, architecture, outtype)
    finally:
        writer.close()
    write_description(bundle, directory)
    (directory / "README.md").write_text(_card(bundle), encoding="utf-8")


def rounded(model: nn.Module, outtype: str) -> nn.Module:
    """A copy of a model whose weights are those that its file holds."""
    from gguf import dequantize

    copied = copy.deepcopy(model)
    for name, parameter in copied.named_parameters():
        stored, kind = _stored(name, _turned(name, parameter), outtype)
        parameter.data = _turned(name, torch.from_numpy(np.array(dequantize(stored, kind)))).contiguous()
    return copied


def _architecture(model: nn.Module) -> Architecture:
    kind = model.config.model_type
    is_causal = type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))
    if not is_causal:
        message = f"export=gguf writes causal language models, and this one is {type(model).__name__}"
        raise ModelError(message, remedy=f"{LEAVE_OUT}; export=onnx and export=huggingface write it")
    if kind not in ARCHITECTURES:
        message = f"export=gguf does not write the architecture {kind}, but {', '.join(ARCHITECTURES)}"
        raise ModelError(message, remedy=f"{LEAVE_OUT}; llama.cpp's own convert_hf_to_gguf.py reads export=huggingface")
    return ARCHITECTURES[kind]


def _write_tensors(writer: "GGUFWriter", model: nn.Module, architecture: Architecture, outtype: str) -> None:
    """One at a time: first what they are, then the numbers."""
    for name, data, kind in _tensors(model, architecture, outtype):
        writer.add_tensor_info(name, data.shape, data.dtype, data.nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, data, _ in _tensors(model, architecture, outtype):
        writer.write_tensor_data(data)


def _tensors(
    model: nn.Module, architecture: Architecture, outtype: str
) -> Iterator[tuple[str, np.ndarray, "GGMLQuantizationType"]]:
    """The weights under llama.cpp's names; those that are tied once."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    config = model.config
    arch = next(arch for arch in MODEL_ARCH if MODEL_ARCH_NAMES[arch] == architecture.name)
    names = get_tensor_name_map(arch, config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise ModelError(f"llama.cpp has no place for the weight {name}", remedy=LEAVE_OUT)
        tensor = _turned(name, parameter)
        if architecture.pairs and ".q_proj." in name:
            tensor = _in_pairs(tensor, config.num_attention_heads)
        elif architecture.pairs and ".k_proj." in name:
            tensor = _in_pairs(tensor, config.num_key_value_heads)
        yield theirs, *_stored(name, tensor, outtype)


def _turned(name: str, tensor: Tensor) -> Tensor:
    """A weight [out, in], which GPT-2 keeps as [in, out]; back again, too."""
    return tensor.detach().T if tensor.ndim == 2 and any(f".{layer}." in name for layer in TURNED) else tensor.detach()


def _in_pairs(tensor: Tensor, num_heads: int) -> Tensor:
    """The rows of each head: 0, half, 1, half + 1, ..."""
    return tensor.unflatten(0, (num_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _stored(name: str, tensor: Tensor, outtype: str) -> tuple[np.ndarray, "GGMLQuantizationType"]:
    """The numbers as they are in the file: vectors as float32, and matrices whose rows are no whole blocks as float16."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quantize

    kind = GGMLQuantizationType.F32
    if outtype != "f32" and tensor.ndim > 1 and f".{AS_THEY_ARE}." not in name:
        kind = GGMLQuantizationType[outtype.upper()]
        if tensor.shape[-1] % GGML_QUANT_SIZES[kind][0]:
            kind = GGMLQuantizationType.F16
    return quantize(tensor.float().contiguous().numpy(), kind), kind


def _describe_gpt2(writer: "GGUFWriter", config: "PretrainedConfig") -> None:
    _require(config, activation_function=("gelu_new", "gelu_pytorch_tanh"), scale_attn_weights=(True,))
    _require(config, scale_attn_by_inverse_layer_idx=(False,), add_cross_attention=(False,))
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _describe_llama(writer: "GGUFWriter", config: "PretrainedConfig") -> None:
    _require(config, hidden_act=("silu",))
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        message = f"export=gguf does not write positions that are scaled ({rope['rope_type']})"
        raise ModelError(message, remedy=f"{LEAVE_OUT}; llama.cpp's own convert_hf_to_gguf.py reads export=huggingface")
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    window = getattr(config, "sliding_window", None)  # within it, a model with and one without a window are the same
    writer.add_context_length(min(config.max_position_embeddings, window or config.max_position_embeddings))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(head_width)
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)


def _require(config: "PretrainedConfig", **known: tuple[Any, ...]) -> None:
    for key, values in known.items():
        if getattr(config, key) not in values:
            message = f"llama.cpp's {config.model_type} has no {key}={getattr(config, key)} but {values[0]}"
            raise ModelError(message, remedy=LEAVE_OUT)


ARCHITECTURES = {
    "gpt2": Architecture("gpt2", _describe_gpt2),
    "llama": Architecture("llama", _describe_llama, pairs=True),
    "mistral": Architecture("llama", _describe_llama, pairs=True),
    "qwen2": Architecture("qwen2", _describe_llama),
    "qwen3": Architecture("qwen3", _describe_llama),
}


def _card(bundle: Bundle) -> str:
    facts = "\n".join(f"- **{key}**: {value}" for key, value in bundle.card.items() if not isinstance(value, dict))
    return f"""---
library_name: gguf
tags: [llmtune]
---

# {bundle.model.config.model_type}

{facts}

## Use

```
llama-cli -m {FILE}
```

```python
from llama_cpp import Llama

model = Llama("{FILE}")
print(model("Once upon a time", max_tokens=64, temperature=0)["choices"][0]["text"])
```

With ollama: a `Modelfile` of one line, `FROM ./{FILE}`, and `ollama create NAME -f Modelfile`.
"""
