"""metrics.jsonl: what was best is a function of the log, and a resume cuts it back."""

from llmtune.training.run_log import RunLog


def log_with(path, values):
    log = RunLog(path)
    for step, value in enumerate(values, 1):
        log.write("step", step=step, loss=1.0)
        log.write("evaluation", step=step, metrics={"accuracy": value})
    return log


def test_the_earliest_best_counts(tmp_path):
    log = log_with(tmp_path / "metrics.jsonl", [0.5, 0.8, None, 0.8, 0.7])
    assert log.best("accuracy", higher_is_better=True)["step"] == 2
    assert log.best("accuracy", higher_is_better=False)["step"] == 1
    assert log.evaluations_since_best("accuracy", higher_is_better=True) == 3


def test_an_empty_log_has_no_best(tmp_path):
    log = RunLog(tmp_path / "metrics.jsonl")
    assert log.best("loss", higher_is_better=False) is None
    assert log.evaluations_since_best("loss", higher_is_better=False) == 0


def test_a_resume_cuts_later_events_and_half_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log_with(path, [0.1, 0.2, 0.3]).close()
    with path.open("a") as f:
        f.write('{"event": "st')
    log = RunLog(path, until_step=2)
    log.write("step", step=3, loss=2.0)
    log.close()
    assert [e["step"] for e in RunLog(path).events] == [1, 1, 2, 2, 3]
    assert path.read_text().count("\n") == 5
