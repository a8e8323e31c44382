"""The folder that an evaluation leaves, for every task."""

import json

from llmtune.evaluation.evaluate import evaluate
from llmtune.evaluation.writing import write_evaluation


def test_every_task_leaves_three_files(case, compute, tmp_path):
    model, task, split = case
    found = evaluate(model, task, split, batch_size=8, compute=compute, seed=0, keep_in=tmp_path)
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"event": "step", "step": 1, "loss": 0.5, "lr": 0.1, "grad_norm": 1.0}\n{"event": "st', encoding="utf-8")
    folder = tmp_path / "evaluation" / "test"
    write_evaluation(folder, found, task=task, split=split, facts=[("rows", "23")], history_file=log)
    assert sorted(file.name for file in folder.iterdir()) == ["metrics.json", "predictions.jsonl", "report.html"]
    assert json.loads((folder / "metrics.json").read_text()) == found.metrics
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{task.type.replace('_', ' ')} on test" in html and "Learning rate" in html and "<script" not in html
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert len(lines) == split.num_rows
    if task.type == "classification":
        wrong = [line for line in lines if line["prediction"] != line["reference"]]
        surest = max(wrong, key=lambda line: line["probability"])
        assert f"{surest['probability']:.1%}" in html and html.count('<td class="text"') == len(wrong)
        assert 1 - len(wrong) / len(lines) == found.metrics["accuracy"]
    if task.type == "regression":
        assert lines[0]["features"] == split.row(0)["features"].tolist() and "x = " in html and ">Fit<" in html
    if task.type.endswith("lm"):
        total = sum(line["loss"] * line["num_targets"] for line in lines)
        assert abs(total / sum(line["num_targets"] for line in lines) / found.metrics["loss"] - 1) < 1e-6
