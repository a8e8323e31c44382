"""The tokenizer of a model as llama.cpp knows it: byte-level BPE, by the name of the way in which it cuts texts into words."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune.data.tokenizer import load
from llmtune.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerFast

ANOTHER = "train with tokenizer=bpe, or leave it out with ~export.gguf"


def add_vocabulary(writer: "GGUFWriter", directory: Path | None, *, size: int) -> None:
    """Write the tokenizer of a directory, its special tokens and its chat template.

    Args:
        writer: of the file.
        directory: with the tokenizer.
        size: of the model's embedding; entries that the tokenizer does not have are unused ones.

    Raises:
        ModelError: llama.cpp has no counterpart.
    """
    from gguf import TokenType

    tokenizer = load(directory)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    cut = _name_of_cut(content)
    tokens, types = [f"[PAD{i}]" for i in range(size)], [TokenType.UNUSED] * size
    for token, i in tokenizer.get_vocab().items():
        tokens[i], types[i] = token, TokenType.NORMAL
    for i, token in tokenizer.added_tokens_decoder.items():
        types[i] = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]])
    _add_special(writer, tokenizer)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _add_special(writer: "GGUFWriter", tokenizer: "PreTrainedTokenizerFast") -> None:
    plain, whole = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    writer.add_add_bos_token(len(whole) > len(plain) and whole[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(len(whole) > len(plain) and whole[-1] == tokenizer.eos_token_id)
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token_id is not None:
            add(token_id)


def _name_of_cut(content: dict[str, Any]) -> str:
    """What llama.cpp calls the way in which a tokenizer cuts texts before it merges bytes.

    Args:
        content: of tokenizer.json.

    Raises:
        ModelError: it is no byte-level BPE, or cuts or changes texts in a way that has no name here.
    """
    model, normalizer = content["model"], content["normalizer"]
    steps = content["pre_tokenizer"] or {"type": None}
    steps = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    if model["type"] != "BPE" or steps[-1]["type"] != "ByteLevel":
        kind = "WordLevel, of words" if model["type"] == "WordLevel" else model["type"]
        raise ModelError(f"export=gguf writes byte-level BPE tokenizers, and this one is another ({kind})", remedy=ANOTHER)
    if normalizer is not None and normalizer["type"] != "NFC":  # which llama.cpp leaves out, as almost all texts are in it
        message = "llama.cpp changes no text before it is tokenized, and this tokenizer folds case and accents away"
        raise ModelError(message, remedy="train with tokenizer.lowercase=false, or leave it out with ~export.gguf")
    if steps[-1]["add_prefix_space"]:
        raise ModelError("llama.cpp puts no space before a text, as this tokenizer does", remedy=ANOTHER)
    whole_words = bool(model.get("ignore_merges"))
    for name, form in _known_cuts().items():
        if form == (_plain(steps[:-1]), steps[-1]["use_regex"], whole_words):
            return name
    raise ModelError("the tokenizer cuts texts in a way that export=gguf has no name for", remedy=ANOTHER)


def _plain(steps: list[dict[str, Any]]) -> list[Any]:
    """Each step as its type and what matters of it."""
    matters = {"Digits": "individual_digits", "Split": "pattern"}
    return [[step["type"], step.get(matters.get(step["type"], ""))] for step in steps]


def _known_cuts() -> dict[str, tuple[list[Any], bool, bool]]:
    """Names, and: the steps before bytes, whether GPT-2's expression follows, whether known words are taken whole."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS as SPLITS

    by_expression = {
        name: ([["Split", {"Regex": SPLITS[name]}]], False, name in ("llama-bpe", "tekken"))
        for name in ("llama-bpe", "tekken", "qwen2", "gpt-4o")
    }
    return {"gpt-2": ([], True, False), "smollm": ([["Digits", True]], True, False), **by_expression}
