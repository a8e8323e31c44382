"""Tokenizers trained on the data, and those that models bring along."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from llmtune.config.sections.model import ModelConfig
from llmtune.config.sections.tokenizer import TokenizerConfig
from llmtune.errors import ConfigError, DataError, ModelError
from llmtune.failures import is_the_systems

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Kind = Literal["pretrained", "word", "char", "wordpiece", "bpe"]

# Any of them makes a directory one with a tokenizer.
FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")

_BATCH = 1_000  # texts counted at once
WORD = r"\w+(?:['’]\w+)*|[^\w\s]"  # an apostrophe within a word belongs to it
_OF_MODEL: dict[str, Kind] = {"lstm": "word", "mlp": "word", "bert": "wordpiece", "gpt": "bpe"}


@dataclass(frozen=True)
class Family:
    """What a kind of model expects of its tokenizer.

    Attributes:
        roles: special tokens by what transformers calls them, in the order of their ids.
        single, pair: how they enclose a text, and a pair of texts; None: not at all.
        input_names: what the model's forward takes.
    """

    roles: dict[str, str]
    single: str | None
    pair: str | None
    input_names: tuple[str, ...]


FAMILIES = {
    "lstm": Family(
        {"pad_token": "[PAD]", "unk_token": "[UNK]", "sep_token": "[SEP]"}, "$A", "$A [SEP] $B", ("input_ids", "attention_mask")
    ),
    "bert": Family(
        {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"},
        "[CLS] $A [SEP]",
        "[CLS] $A [SEP] $B:1 [SEP]:1",
        ("input_ids", "token_type_ids", "attention_mask"),
    ),
    "gpt": Family(
        {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|unk|>"},
        None,
        None,
        ("input_ids", "attention_mask"),
    ),
}


@dataclass(frozen=True)
class Recipe:
    """What a tokenizer is trained with.

    Attributes:
        special: its special tokens.
        unknown: the one that stands for what is not in the vocabulary; None: everything is.
        vocab_size: largest number of entries, special tokens included.
        min_frequency: of an entry.
        lowercase: whether case and accents are folded away.
        chinese: whether each Chinese character is a word ('characters'), or what stands between blanks ('words').
    """

    special: list[str]
    unknown: str | None
    vocab_size: int
    min_frequency: int
    lowercase: bool
    chinese: Literal["characters", "words"] = "characters"


def kind(tokenizer: TokenizerConfig, model: ModelConfig) -> Kind:
    """Which tokenizer a model gets: 'auto' is its own if it has one, else words, WordPiece or BPE."""
    if tokenizer.type != "auto":
        return tokenizer.type
    is_pretrained = model.type == "run" or bool(getattr(model, "pretrained", None))
    return "pretrained" if is_pretrained else _OF_MODEL[model.type]


def train(
    kind: Kind,
    *,
    family: Literal["lstm", "bert", "gpt"],
    vocab_size: int,
    min_frequency: int,
    lowercase: bool,
    texts: Iterable[str],
    chinese: Literal["characters", "words"] = "characters",
) -> "PreTrainedTokenizerFast":
    """A tokenizer whose entries are the most frequent of `texts`; the same texts give the same entries and ids.

    Args:
        kind: of tokenizer.
        family: of the model that it is for.
        vocab_size, min_frequency, lowercase: see `Recipe`.
        texts: may be gone through more than once; they are not kept.
        chinese: see `Recipe`; of words.

    Raises:
        ConfigError: the vocabulary is too small for the kind.
        DataError: nothing is frequent enough for an entry.
    """
    from transformers import PreTrainedTokenizerFast

    shape = FAMILIES[family]
    roles = dict(shape.roles)
    if family == "gpt" and kind == "bpe":
        roles.pop("unk_token")  # bytes spell everything
    special = list(dict.fromkeys(roles.values()))
    recipe = Recipe(special, roles.get("unk_token"), vocab_size, min_frequency, lowercase, chinese)
    made = TRAINERS[kind](recipe, texts)
    if made.get_vocab_size() <= len(special):
        raise DataError(
            f"nothing occurs {min_frequency} times in the texts: the tokenizer would have no entries",
            remedy="set tokenizer.min_frequency=1, or add rows",
        )
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if shape.single is not None:
        ids = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]") if token in special]
        made.post_processor = processors.TemplateProcessing(single=shape.single, pair=shape.pair, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=list(shape.input_names), **roles)


def load(directory: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer of a model directory.

    Raises:
        ModelError: it is missing or broken, or its code would have to be run.
    """
    from transformers import AutoTokenizer

    if not directory.is_dir():
        raise ModelError("there is no such directory", where=str(directory))
    if not any((directory / name).is_file() for name in FILES):  # transformers would make up an empty one
        raise ModelError("there is no tokenizer", where=str(directory), remedy="save it there with save_pretrained")
    try:
        loaded = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        loaded("a word", "and \N{SNOWMAN}")  # some that are broken can be loaded, but not used
    except BaseException as e:  # tokenizers panics with an exception that is no Exception
        if is_the_systems(e) or (not isinstance(e, Exception) and type(e).__name__ != "PanicException"):
            raise
        told = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise ModelError(
            f"the tokenizer cannot be loaded: {told}", where=str(directory), remedy="save it again with save_pretrained"
        ) from None
    if not loaded.is_fast:
        raise ModelError("the tokenizer has no tokenizer.json", where=str(directory), remedy="save it as a fast tokenizer")
    return loaded


def _train_words(recipe: Recipe, texts: Iterable[str]) -> Tokenizer:
    made = Tokenizer(models.WordLevel(unk_token=recipe.unknown))
    made.normalizer = _clean(recipe)
    made.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    made.decoder = decoders.WordPiece(cleanup=True)  # joins by spaces, and moves punctuation marks to their words
    trainer = trainers.WordLevelTrainer(
        vocab_size=recipe.vocab_size, min_frequency=recipe.min_frequency, special_tokens=recipe.special, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return made


def _train_chars(recipe: Recipe, texts: Iterable[str]) -> Tokenizer:
    normalizer = _fold() if recipe.lowercase else None
    chars = _frequent_chars(texts, normalizer, recipe)[: recipe.vocab_size - len(recipe.special)]
    vocab = {token: i for i, token in enumerate([*recipe.special, *chars])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=recipe.unknown))
    if normalizer is not None:
        made.normalizer = normalizer
    made.decoder = decoders.Fuse()
    return made


def _train_wordpieces(recipe: Recipe, texts: Iterable[str]) -> Tokenizer:
    """The trainer numbers continuing characters by a hash map, and ties go by number: they get theirs beforehand."""
    made = Tokenizer(models.WordPiece(unk_token=recipe.unknown))
    made.normalizer = _clean(recipe)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = made.pre_tokenizer.pre_tokenize_str
    chars = [char for char in _frequent_chars(texts, made.normalizer, recipe) if words(char)]
    # Each takes up to two entries: one for the start of a word and one for the rest.
    chars = sorted(chars[: (recipe.vocab_size - len(recipe.special)) // 2])
    continuing = [f"##{char}" for char in chars if words(f"a{char}")[0][0] != "a"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=recipe.vocab_size,
        min_frequency=recipe.min_frequency,
        special_tokens=[*recipe.special, *continuing],
        initial_alphabet=chars,
        limit_alphabet=len(chars),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    plain = Tokenizer(models.WordPiece(vocab=made.get_vocab(), unk_token=recipe.unknown))
    plain.normalizer, plain.pre_tokenizer, plain.decoder = made.normalizer, made.pre_tokenizer, decoders.WordPiece()
    return plain


def _train_bytes(recipe: Recipe, texts: Iterable[str]) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(alphabet) + len(recipe.special)
    if recipe.vocab_size < smallest:
        problem = f"{recipe.vocab_size} is too small for bpe, which has an entry for every byte: set {smallest} or more"
        raise ConfigError([f"tokenizer.vocab_size: {problem}"])
    made = Tokenizer(models.BPE())
    if recipe.lowercase:
        made.normalizer = _fold()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        min_frequency=recipe.min_frequency,
        special_tokens=recipe.special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return made


TRAINERS: dict[str, Callable[[Recipe, Iterable[str]], Tokenizer]] = {
    "word": _train_words,
    "char": _train_chars,
    "wordpiece": _train_wordpieces,
    "bpe": _train_bytes,
}


def _clean(recipe: Recipe) -> normalizers.Normalizer:
    """BERT's: control characters go, spaces are one kind, ideographs become words if they are to."""
    by_character = recipe.chinese == "characters"
    return normalizers.BertNormalizer(
        lowercase=recipe.lowercase, strip_accents=recipe.lowercase, handle_chinese_chars=by_character
    )


def _fold() -> normalizers.Normalizer:
    """Without case and accents."""
    return normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])


def _frequent_chars(texts: Iterable[str], normalizer: normalizers.Normalizer | None, recipe: Recipe) -> list[str]:
    """The characters of the normalized texts that are frequent enough, the most frequent first."""
    counts: Counter[str] = Counter()
    texts = iter(texts)
    while batch := list(islice(texts, _BATCH)):
        counts.update("".join(batch))
    if normalizer is not None:  # normalizes by the character: each needs to be normalized once only
        raw, counts = counts, Counter()
        for char, count in raw.items():
            counts.update({c: count for c in normalizer.normalize_str(char)})
    frequent = [char for char, count in counts.items() if count >= recipe.min_frequency]
    return sorted(frequent, key=lambda char: (-counts[char], char))
