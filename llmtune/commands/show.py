"""`llmtune show [VERB [RUN]]`: the composed, checked config of a verb as YAML that reads back equal."""

from typing import TYPE_CHECKING

from llmtune.cli import VERBS, word_overrides
from llmtune.config import compose
from llmtune.config.explain import suggestion
from llmtune.config.schema import VERB_CONFIGS
from llmtune.console import notice
from llmtune.errors import UsageError

if TYPE_CHECKING:
    from llmtune.cli import Options


def run(args: list[str], options: "Options") -> int:
    verb, *words = options.words or ("train",)
    if verb not in VERB_CONFIGS:
        message = f"'{verb}' is no verb with a config; {suggestion(verb, VERB_CONFIGS)}"
        raise UsageError(message, remedy="llmtune show train +recipe=NAME")
    if len(words) > VERBS[verb].words:
        raise UsageError(f"unexpected word '{words[-1]}'", remedy=f"llmtune show {verb} {VERBS[verb].usage}")
    composed = compose.compose(verb, word_overrides(verb, words) + args, config_dir=options.config_dir)
    for text in composed.notices:
        notice(text)
    print(compose.to_yaml(composed.tree), end="")
    return 0
