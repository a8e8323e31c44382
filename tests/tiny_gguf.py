"""Tiny random causal models with a byte-level tokenizer, as bundles to export and as GGUF files."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from llmtune.export import Bundle, gguf
from tests import tiny

TEXTS = ("a fine film", "a dull film", "fine and dull", "so so", "not a film at all, but fine", "a  12  b  123")
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
CONFIGS = {
    "llama": transformers.LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, rope_parameters={"rope_theta": 5e4}),
    "mistral": transformers.MistralConfig(**SIZES, head_dim=32, sliding_window=24),
    "qwen2": transformers.Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=32),
    "gpt2": transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=48, n_inner=96, tie_word_embeddings=False),
}
TEMPLATE = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"


def bytes_bpe(*, before=(), use_regex=True, normalizer=None, prefix=False, ignore_merges=False, texts=TEXTS) -> Tokenizer:
    made = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [*before, pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([*texts] * 3, trainer)
    return made


def save_tokenizer(made: Tokenizer, directory: Path, **kwargs) -> transformers.PreTrainedTokenizerFast:
    special = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "bos_token": "<|im_start|>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special, **kwargs)
    fast.save_pretrained(directory)
    return fast


def bundle(directory: Path, config: transformers.PretrainedConfig, made: Tokenizer | None = None) -> Bundle:
    """A random model of an architecture with four entries more than its tokenizer, which lies in `directory`."""
    fast = save_tokenizer(made or bytes_bpe(), directory / "tokenizer", chat_template=TEMPLATE)
    config.vocab_size, config.pad_token_id = len(fast) + 4, fast.pad_token_id
    config.bos_token_id, config.eos_token_id = fast.bos_token_id, fast.eos_token_id
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    task = {"type": "causal_lm", "max_length": tiny.MAX_LENGTH, "pad_token_id": fast.pad_token_id, "token_types": False}
    return Bundle(
        model, directory / "tokenizer", {"llmtune": "0.1", "task": task, "model": {"pretrained": "/home/someone"}}, {}
    )


def write(file: Path, *, kind: str = "llama", outtype: str = "f32") -> Bundle:
    """A GGUF file, and what it was made from."""
    made = bundle(file.parent / f"of-{file.stem}", CONFIGS[kind])
    (file.parent / "written").mkdir()
    gguf.write(made, file.parent / "written", outtype=outtype)
    (file.parent / "written" / gguf.FILE).rename(file)
    return made
