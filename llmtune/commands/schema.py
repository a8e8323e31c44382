"""`llmtune schema [VERB]`: the JSON schema of a verb's config."""

import json
from typing import TYPE_CHECKING

from llmtune.config.explain import suggestion
from llmtune.config.schema import VERB_CONFIGS
from llmtune.errors import UsageError

if TYPE_CHECKING:
    from llmtune.cli import Options


def run(args: list[str], options: "Options") -> int:
    verb = options.words[0] if options.words else "train"
    if args or verb not in VERB_CONFIGS:
        wrong = (args or [verb])[0]
        raise UsageError(
            f"'{wrong}' is no verb with a config; {suggestion(wrong, VERB_CONFIGS)}", remedy="llmtune schema train"
        )
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **VERB_CONFIGS[verb].model_json_schema()}
    print(json.dumps(schema, indent=2, ensure_ascii=False))
    return 0
