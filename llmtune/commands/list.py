"""`llmtune list`: recipes, groups, and the options of a group."""

from typing import TYPE_CHECKING

from llmtune.config import compose, reference
from llmtune.config.explain import suggestion
from llmtune.console import jobs_table
from llmtune.errors import UsageError

if TYPE_CHECKING:
    from llmtune.cli import Options


def run(args: list[str], options: "Options") -> int:
    if args:
        raise UsageError(f"list takes no overrides: '{args[0]}'", remedy="llmtune list model")
    what = options.words[0] if options.words else None
    groups = compose.groups()
    if what in (None, "recipes", "recipe"):
        _list_recipes(whole_header=what is not None)
    if what is None:
        print()
        jobs_table("groups (GROUP=OPTION)", ["group", "options"], [[name, " ".join(names)] for name, names in groups.items()])
    elif what in groups:
        rows = [[option.name, option.doc] for option in reference.options(what)]
        rows += [[name, "Nothing."] for name in groups[what] if name not in dict(rows)]
        jobs_table(f"{what}=OPTION", ["option", "what it is"], rows)
    elif what not in ("recipes", "recipe"):
        raise UsageError(f"there is no group '{what}'; {suggestion(what, ['recipes', *groups])}", remedy="llmtune list")
    return 0


def _list_recipes(*, whole_header: bool) -> None:
    headers = {name: compose.recipe_header(path).strip().splitlines() for name, path in compose.recipes().items()}
    if not whole_header:
        rows = [[name, "".join(lines[:1]), "; ".join(lines[1:])] for name, lines in headers.items()]
        jobs_table("recipes (+recipe=NAME)", ["recipe", "command", "what it is"], rows)
        return
    for name, lines in headers.items():
        print("\n".join([name, *(f"  {line}" for line in lines), ""]))
