"""How a model is addressed: texts and conversations as the token ids that it reads before it writes."""

from collections.abc import Iterable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from llmtune.config.sections.model import CHATS
from llmtune.data import tokenizer as tokenizers
from llmtune.errors import ModelError
from llmtune.tasks.chat import Chat, Message
from llmtune.training.restore import Restored

BEYOND = 1 << 24  # tokens; a tokenizer without a limit says something larger


class Prompts:
    """Makes prompts for one model.

    Args:
        tokenizer: the model's.
        window: most tokens that the model can read; None: any number.
        ends: tokens that end a text.
        chat: writes conversations; None: the model continues plain text.
        is_bare: whether texts come without the tokenizer's special tokens, as where llmtune trains.
        start: stands for an empty text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        window: int | None,
        ends: Iterable[int],
        chat: Chat | None,
        is_bare: bool,
        start: int,
    ):
        self.tokenizer, self.window, self.ends = tokenizer, window, frozenset(ends)
        self.chat, self._is_bare, self._start = chat, is_bare, start

    def of_text(self, text: str) -> list[int]:
        """A text to continue."""
        return self.tokenizer(text, add_special_tokens=not self._is_bare, verbose=False)["input_ids"] or [self._start]

    def of_messages(self, messages: Sequence[Message]) -> list[int]:
        """A conversation whose next turn is the assistant's.

        Raises:
            DataError: the chat template refuses it.
        """
        return self.chat.prompt_ids(messages)

    def single_tokens(self, texts: Sequence[str]) -> frozenset[int]:
        """Those of the texts that are a token the tokenizer does not spell, such as <|im_end|>."""
        added = self.tokenizer.get_added_vocab()
        return frozenset(added[text] for text in texts if text in added)


def prompts_for(restored: Restored, *, converses: bool | None = None) -> Prompts:
    """How a restored model is addressed.

    Args:
        restored: a run's model, or any causal model of transformers with its tokenizer.
        converses: whether by its chat template; None: if it was trained on conversations, or brings a template from elsewhere.

    Raises:
        ModelError: it writes no text, or has no tokenizer.
    """
    model, facts = restored.model, restored.facts.get("task", {})
    where = str(restored.directory)
    if not model.can_generate():
        kind = facts.get("type", model.config.model_type)
        raise ModelError(f"the model writes no text: it is of the kind {kind}", where=where, remedy="name a causal model")
    tokenizer = tokenizers.load(restored.directory)
    has_template = tokenizer.chat_template is not None
    if converses is None:
        converses = facts["type"] in CHATS if facts else has_template
    chat = Chat(tokenizer, system_prompt=facts.get("system_prompt")) if converses and has_template else None
    ends = {*_ids(model.generation_config.eos_token_id), *_ids(model.config.eos_token_id), tokenizer.eos_token_id}
    ends |= {facts.get("end_of_text"), *(chat.end_ids if chat is not None else ())}
    starts = (facts.get("end_of_text"), tokenizer.bos_token_id, tokenizer.eos_token_id, facts.get("pad_token_id"), 0)
    return Prompts(
        tokenizer,
        window=_window(model, tokenizer),
        ends=ends - {None},
        chat=chat,
        is_bare=bool(facts),
        start=next(token for token in starts if token is not None),
    )


def _window(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int | None:
    places = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return places or (tokenizer.model_max_length if tokenizer.model_max_length < BEYOND else None)


def _ids(ids: int | Sequence[int] | None) -> Sequence[int]:
    return ids if isinstance(ids, (list, tuple)) else [ids]
