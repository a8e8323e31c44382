"""The table of cleaners of texts, and all of them that a config names as one."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from llmtune.config.sections.clean import CleanConfig
from llmtune.data.clean import text

Cleaner = Callable[[pa.Array], pa.Array]

TEXT_CLEANERS: dict[str, Callable[..., pa.Array]] = {
    "unicode": text.unicode,
    "mojibake": text.mojibake,
    "html": text.html,
    "urls": text.urls,
    "whitespace": text.whitespace,
    "control": text.control,
    "segment": text.segment,
}


def text_cleaners(clean: Mapping[str, CleanConfig]) -> dict[str, Cleaner]:
    """Those that change texts, by name, in written order: functions of arrays of strings."""
    return {
        name: partial(TEXT_CLEANERS[config.type], **config.model_dump(exclude={"type"}))
        for name, config in clean.items()
        if config.type in TEXT_CLEANERS
    }


def described(clean: Mapping[str, CleanConfig]) -> list[dict[str, Any]]:
    """What a checkpoint and an export tell of how texts were changed, JSON-ready: sections in written order."""
    return [config.model_dump(mode="json") for config in clean.values() if config.type in TEXT_CLEANERS]


def told(description: list[dict[str, Any]]) -> str:
    """The same in a line, for a model card."""
    steps = []
    for section in description:
        options = ", ".join(f"{name} {value!r}" for name, value in section.items() if name != "type")
        steps.append(section["type"] + (f" ({options})" if options else ""))
    return "; then ".join(steps)


def rebuild(description: list[dict[str, Any]]) -> Cleaner:
    """All cleaners that `described` tells of as one function.

    Raises:
        ValueError: there is one that this version does not know.
    """
    sections = TypeAdapter(list[CleanConfig]).validate_python(description)
    return partial(_apply, [*text_cleaners({str(i): section for i, section in enumerate(sections)}).values()])


def _apply(cleaners: list[Cleaner], texts: pa.Array) -> pa.Array:
    for cleaner in cleaners:
        texts = cleaner(texts)
    return texts
