"""GGUF files to start from, each converted once into a directory of the cache. Torch is imported only to convert."""

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune import console, paths
from llmtune.errors import ModelError, ResourceError
from llmtune.failures import loaded
from llmtune.files import build_once

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

MAGIC, SUFFIX = b"GGUF", ".gguf"
AGAIN = "copy or download it again"
NOT_CONVERTED = "the GGUF file cannot be converted"
FORMAT = 1  # of a converted directory; part of its name

# Byte-level tokenizers that llama.cpp cuts at every digit and then as GPT-2 does; transformers only knows the second step.
SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell")
AS_GPT2 = ("gpt-2", "default", "phi-2", "mpt", "olmo", "jais", "jina-en")


def is_gguf(path: Path) -> bool:
    """Whether a file is one by its name or by its first bytes."""
    try:
        if not path.is_file() or path.suffix.lower() == SUFFIX:
            return path.is_file()
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:  # too long for a path, or not readable
        return False


def the_only_one(directory: Path) -> Path | None:
    """The GGUF file of a directory that holds no other weights.

    Raises:
        ModelError: there are several.
    """
    found = sorted(path for path in directory.glob(f"*{SUFFIX}") if path.is_file())
    if not found or any(directory.glob("*.safetensors")) or any(directory.glob("*.safetensors.index.json")):
        return None
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise ModelError(f"there are {len(found)} GGUF files: {names}", where=str(directory), remedy="name one of them")
    return found[0]


def as_directory(file: Path) -> Path:
    """The model directory that a GGUF file was converted to, now or before: safetensors, tokenizer, chat template.

    Weights are stored as bfloat16 where that changes none of them, else as float32.

    Raises:
        ModelError: the file is no GGUF file or damaged, or transformers does not read its architecture or tokenizer.
        ResourceError: the package gguf is not installed, or the cache cannot be written.
    """
    status = file.stat()
    digest = _sha256(file, status.st_size, status.st_mtime_ns)
    return build_once(paths.cache_dir("gguf") / f"{digest[:32]}-{FORMAT}", lambda folder: _convert(file, folder))


@cache
def _sha256(file: Path, size: int, changed: int) -> str:
    """Of a file that has this size and was changed at this time."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _convert(file: Path, folder: Path) -> None:
    console.notice(f"converting {file.name} to a model directory, once")
    model, tokenizer = load(file)
    _narrow(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load(file: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """The causal model of a GGUF file in float32, and its tokenizer; see `as_directory`.

    Raises:
        ModelError, ResourceError: as `as_directory`.
    """
    from transformers.utils.logging import disable_progress_bar

    reader = _read(file)
    _require_known(reader, file)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        link = Path(place) / f"model{SUFFIX}"  # transformers goes by the name
        link.symlink_to(file.resolve())
        how = {"where": str(file), "remedy": AGAIN}
        model = loaded(lambda: _load_model(link, reader, file), NOT_CONVERTED, **how)
        return model.eval(), loaded(lambda: _load_tokenizer(link, reader, file), NOT_CONVERTED, **how)


def _read(file: Path) -> "GGUFReader":
    """What a file says of itself.

    Raises:
        ModelError: it is no GGUF file, cut off, or one part of several.
        ResourceError: the package gguf is not installed.
    """
    with file.open("rb") as content:
        if content.read(len(MAGIC)) != MAGIC:
            raise ModelError("this is no GGUF file: it does not begin with 'GGUF'", where=str(file), remedy=AGAIN)
    try:
        import gguf
    except ImportError:
        remedy = "pip install 'llmtune[gguf]'"
        raise ResourceError("reading a GGUF file needs the package gguf", where=str(file), remedy=remedy) from None

    def opened() -> "GGUFReader":
        reader = gguf.GGUFReader(file)
        field(reader, "general.architecture")
        return reader

    reader = loaded(opened, "the GGUF file is damaged or cut off", where=str(file), remedy=AGAIN)
    if (parts := field(reader, "split.count", 1)) > 1:
        remedy = "join them: llama-gguf-split --merge FIRST_PART WHOLE.gguf"
        raise ModelError(f"the file is one of {parts} parts of a model", where=str(file), remedy=remedy)
    return reader


def field(reader: "GGUFReader", key: str, *default: Any) -> Any:
    """The value of a key; the default where the file does not have it.

    Raises:
        KeyError: there is neither.
    """
    if key not in reader.fields and default:
        return default[0]
    return reader.fields[key].contents()


def _require_known(reader: "GGUFReader", file: Path) -> None:
    """Raises ModelError for an architecture that transformers does not read, or without its sizes."""
    from transformers.integrations.gguf import GGUF_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    known = {name.replace("_", "").replace("-", ""): name for name in (*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_ARCHS)}
    del known["general"], known["tokenizer"]  # sections of a file
    architecture = field(reader, "general.architecture")
    if not isinstance(architecture, str) or architecture.replace("-", "").replace("_", "") not in known:
        raise ModelError(
            f"transformers does not read GGUF files of the architecture {architecture!r}",
            where=str(file),
            remedy=f"use the model's original directory, or a file of {', '.join(sorted(known.values()))}",
        )
    for key in (f"{architecture}.block_count", f"{architecture}.embedding_length"):  # else transformers takes those of 7B
        if key not in reader.fields:
            raise ModelError(f"the GGUF file holds no whole model: {key} is missing", where=str(file), remedy=AGAIN)


def _load_model(link: Path, reader: "GGUFReader", file: Path) -> "PreTrainedModel":
    import transformers

    from llmtune.models import heads, pretrained

    config = transformers.AutoConfig.from_pretrained(link.parent, gguf_file=link.name)
    _complete(config, reader)
    cls = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if cls is None:
        raise ModelError(f"the architecture {config.model_type} is no causal model", where=str(file), remedy=heads.OTHER)
    scaling = field(reader, f"{field(reader, 'general.architecture')}.rope.scaling.type", "none")
    if scaling != "none" or any(tensor.name.startswith("rope_") for tensor in reader.tensors):
        console.notice(f"{file.name} scales its positions for long texts, which transformers does not read from it")
    with _quiet():
        model, info = cls.from_pretrained(
            link.parent, gguf_file=link.name, config=config, dtype="float32", output_loading_info=True
        )
    pretrained.judge(model, info, str(file))
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    del model.config._model_name_or_path  # llama.cpp's name of the model
    return model


def _complete(config: "PretrainedConfig", reader: "GGUFReader") -> None:
    """What the file says and transformers passes over: sizes of GPT-2, and the biases and width of heads of others."""
    names = {tensor.name for tensor in reader.tensors}
    if config.model_type == "gpt2":
        config.n_positions = config.n_ctx = field(reader, "gpt2.context_length")
        config.n_inner = field(reader, "gpt2.feed_forward_length", None)
    if config.model_type == "llama":
        config.attention_bias, config.mlp_bias = "blk.0.attn_q.bias" in names, "blk.0.ffn_up.bias" in names
    if hasattr(config, "head_dim"):
        config.head_dim = field(reader, f"{field(reader, 'general.architecture')}.attention.key_length", config.head_dim)


def _load_tokenizer(link: Path, reader: "GGUFReader", file: Path) -> "PreTrainedTokenizerFast":
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    tokenizer = AutoTokenizer.from_pretrained(link.parent, gguf_file=link.name)
    kind = field(reader, "tokenizer.ggml.pre", "default")
    if field(reader, "tokenizer.ggml.model") == "gpt2" and kind in SINGLE_DIGITS:
        digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    elif field(reader, "tokenizer.ggml.model") == "gpt2" and kind not in (*AS_GPT2, *GGUF_PRE_TOKENIZER_SPLITS):
        console.notice(f"{file.name} cuts words as {kind!r}, which is not known: they are cut as GPT-2 does")
    return tokenizer


def _narrow(model: "PreTrainedModel") -> None:
    """Half the bytes, where every weight is one that bfloat16 has."""
    import torch

    if all(torch.equal(weight, weight.bfloat16().float()) for weight in model.state_dict().values()):
        model.to(torch.bfloat16)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bar of transformers, and its advice on kernels that keep weights quantized."""
    from transformers import modeling_gguf_pytorch_utils as reading

    bar, logger = reading.tqdm, logging.getLogger("transformers")
    level = logger.level
    reading.tqdm = lambda steps, **kwargs: steps
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        reading.tqdm = bar
        logger.setLevel(level)
