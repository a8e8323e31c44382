"""What became of the rows: told at the end of a command, and kept in the run."""

from pathlib import Path

from llmtune import console
from llmtune.data import accounting
from llmtune.data.prepared import Prepared
from llmtune.errors import LlmtuneError
from llmtune.files import write_json
from llmtune.training.manifest import read_json

FILE = "data.json"


def write(run: Path, ready: Prepared) -> None:
    """Keep the account of a stage's rows in its run directory."""
    dropped = ready.directory / accounting.DROPPED
    told = {"prepared": ready.directory.name, "dropped": str(dropped) if dropped.is_file() else None}
    write_json(run / FILE, {**told, "splits": ready.meta["account"]})


def tell(account: accounting.Account) -> None:
    """A line for each stage, a column for each split."""
    header, lines = accounting.table_of(account)
    console.jobs_table("rows", header, lines)


def tell_run(run: Path) -> None:
    """The account of a run. Where it cannot be read the run is complete all the same: its command does not fail for it."""
    try:
        account = read_json(run / FILE)["splits"] if (run / FILE).is_file() else None  # older runs have none
    except (OSError, LlmtuneError) as e:
        console.notice(f"what became of the rows cannot be told: {e}")
        return
    if account is not None:
        tell(account)
