"""What a run tells of its rows."""

from pathlib import Path

from llmtune.commands import accounts


def test_an_account_that_cannot_be_read_is_no_failure(tmp_path: Path, capsys):
    (tmp_path / accounts.FILE).write_text("{", encoding="utf-8")
    accounts.tell_run(tmp_path)
    assert "what became of the rows cannot be told" in capsys.readouterr().err


def test_an_older_run_has_none(tmp_path: Path, capsys):
    accounts.tell_run(tmp_path)
    assert capsys.readouterr() == ("", "")
