"""The verbs in order, as a user runs them, for every task; and that everything they leave behind says the same."""

import html
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import transformers

from tests.pipeline.conftest import SMALL, Folder, moods, pairs, points, read, read_lines, sentences, tagged, write_rows

TEXTS = ["the film was good", "two friends talk about a dreary story", "rain and music and bread and a lovely walk home"]


@dataclass(frozen=True)
class Case:
    """One way through the verbs: `args` of train, the metric of the test rows and where it must lie."""

    task: str
    file: str
    rows: list[dict[str, str]]
    args: list[str]
    metric: str
    at_least: float = -math.inf
    at_most: float = math.inf
    inputs: tuple[str, ...] = tuple(TEXTS)


LR = ["optimizer.lr=.01", "schedule=constant", "training.batch_size=16", "tokenizer.min_frequency=1"]
LM = ["data.label_column=null", "tokenizer.max_length=16", "training.epochs=2", *LR]
CASES = {
    "lstm": Case(
        "classification", "reviews.csv", sentences(300), [*SMALL["lstm"], *LR, "training.epochs=5"], "accuracy", at_least=0.9
    ),
    "bert": Case(
        "classification", "reviews.jsonl", sentences(300), [*SMALL["bert"], *LR, "training.epochs=4"], "accuracy", at_least=0.9
    ),
    "pairs": Case(
        "classification",
        "pairs.tsv",
        pairs(120),
        [*SMALL["bert"], *LR, "training.epochs=1", "data.text_column=premise", "data.text_pair_column=hypothesis"],
        "accuracy",
        inputs=tuple(f"{text}\t{other}" for text, other in zip(TEXTS, TEXTS[1:] + TEXTS[:1], strict=True)),
    ),
    "text regression": Case(
        "regression",
        "lengths.parquet",
        sentences(300),
        [*SMALL["lstm"], *LR, "model.pooling=last", "training.epochs=8", "data.label_column=length"],
        "r2",
        at_least=0.5,
    ),
    "numbers": Case(
        "regression",
        "points.csv",
        points(300),
        ["model=mlp", "model.hidden_sizes=[]", "optimizer=sgd", "data.text_column=null", "data.feature_columns=[u,v]"]
        + ["data.label_column=y", "training.epochs=10"],
        "r2",
        at_least=0.99,
        inputs=("1.0 2.0", "-0.5, 0.25", "0\t0"),
    ),
    "several labels": Case(
        "multilabel",
        "moods.jsonl",
        moods(200),
        [*SMALL["lstm"], *LR, "training.epochs=8", "data.label_column=labels"],
        "f1_micro",
        at_least=0.9,
    ),
    "tags": Case(
        "tagging",
        "tagged.jsonl",
        tagged(200),
        [*SMALL["lstm"], *LR, "training.epochs=6", "data.text_column=words", "data.label_column=tags"],
        "f1",
        at_least=0.9,
    ),
    "tags of a transformer": Case(
        "tagging",
        "tagged.json",
        tagged(200),
        [*SMALL["bert"], *LR, "training.epochs=4", "data.text_column=words", "data.label_column=tags"],
        "f1",
        at_least=0.9,
    ),
    "causal": Case("causal_lm", "book.txt.gz", sentences(300), [*SMALL["gpt"], *LM], "perplexity", at_most=60),
    "masked": Case(
        "masked_lm",
        "book.json",
        sentences(300),
        [*SMALL["bert"], *LM],
        "perplexity",
        at_most=60,
        inputs=("the [MASK] was good", "two friends [MASK] home and [MASK]", "[MASK]"),
    ),
}


@dataclass(frozen=True)
class Flow:
    """What the verbs left: the first run, the one that was trained on from it, and what `predict` said."""

    case: Case
    folder: Folder
    first: Path
    second: Path
    said: list[dict]
    verbs_out: str


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def flow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Flow:
    case: Case = request.param
    folder = Folder(tmp_path_factory.mktemp("flow"))
    write_rows(folder / case.file, case.rows)
    config = [f"task={case.task}", f"data.train_file={case.file}", *case.args]
    options = [arg for arg in config if not arg.startswith(("model", "tokenizer.min"))]
    run, again = f"runs/{case.task}/latest", "runs/again/latest"
    out = folder.ok("preprocess", *config).out
    out += folder.ok("train", *config).out
    out += folder.ok("evaluate", run).out
    out += folder.ok("finetune", run, *options, "run_name=again", "optimizer.lr=.001", "training.epochs=1", "seed=1").out
    out += folder.ok("evaluate", again).out
    out += folder.ok("export", again).out
    (folder / "inputs.txt").write_text("".join(f"{line}\n" for line in case.inputs))
    folder.ok("predict", again, "inputs.txt", "output=said.jsonl")
    return Flow(case, folder, folder.latest(case.task), folder.latest("again"), read_lines(folder / "said.jsonl"), out)


def test_a_run_directory_is_laid_out_as_documented(flow: Flow):
    for run in (flow.first, flow.second):
        steps = [p for p in (run / "checkpoints").iterdir() if p.name.startswith("step-")]
        assert {p.name for p in run.iterdir()} - {".lock", "export"} == {
            "config.yaml",
            "metrics.jsonl",
            "data.json",
            "checkpoints",
            "evaluation",
            "result.json",
        }
        assert {p.name for p in (run / "checkpoints").iterdir()} == {"best", "latest"} | {p.name for p in steps}
        for link in ("best", "latest"):
            assert (run / "checkpoints" / link).readlink() in [Path(p.name) for p in steps]
        for step in steps:
            names = {p.name for p in step.iterdir()}
            assert names >= {"config.json", "model.safetensors", "llmtune.json", "optimizer.safetensors", "trainer.json"}
            assert names - {"MANIFEST.json"} == set(read(step / "MANIFEST.json")["files"])
        written = {p.name for p in (run / "evaluation" / "test").iterdir()}
        assert written == {"metrics.json", "predictions.jsonl", "report.html"}
    assert {p.name for p in (flow.second / "export").iterdir()} == {"huggingface", "onnx", "parity.json"}


def test_all_files_tell_the_same(flow: Flow):
    for run in (flow.first, flow.second):
        result, metrics = read(run / "result.json"), read(run / "evaluation" / "test" / "metrics.json")
        evaluations = [e for e in read_lines(run / "metrics.jsonl") if e["event"] == "evaluation"]
        best = next(e for e in evaluations if e["step"] == result["best_step"])
        assert best["metrics"] == result["metrics"] and result["value"] == result["metrics"][result["metric"]]
        assert (run / "checkpoints" / "best").readlink().name == f"step-{result['best_step']:06d}"
        rows = read_lines(run / "evaluation" / "test" / "predictions.jsonl")
        assert metrics[flow.case.metric] == pytest.approx(recomputed(flow.case.metric, rows), rel=1e-4)
        report = html.unescape((run / "evaluation" / "test" / "report.html").read_text())
        assert f"{metrics[flow.case.metric]:.4f}" in report and f"{metrics[flow.case.metric]:.4f}" in flow.verbs_out
    parity = read(flow.second / "export" / "parity.json")["exports"]
    assert set(parity) == {"huggingface", "onnx"}
    for facts in parity.values():
        assert facts["rows"] == len(rows) and facts["max_difference"] < 1e-4 and facts["argmax_differences"] == 0
        assert facts["checkpoint"] == (flow.second / "checkpoints" / "best").readlink().name


def recomputed(metric: str, rows: list[dict]) -> float:
    """The metric from predictions.jsonl alone."""
    if metric == "accuracy":
        return float(np.mean([row["prediction"] == row["reference"] for row in rows]))
    if metric == "r2":
        references, predictions = (np.array([row[k] for row in rows]) for k in ("reference", "prediction"))
        return 1 - ((references - predictions) ** 2).sum() / ((references - references.mean()) ** 2).sum()
    if metric in ("f1", "f1_micro"):
        found = [tuple(map(set, (_said(row, "reference"), _said(row, "prediction")))) for row in rows]
        return 2 * sum(len(a & b) for a, b in found) / sum(len(a) + len(b) for a, b in found)
    weights = [row["num_targets"] for row in rows]
    return math.exp(np.average([row["loss"] for row in rows], weights=weights))


def _said(row: dict, side: str) -> list:
    """Labels; or the entities of one word each, with their places."""
    return [(i, tag) for i, tag in enumerate(row[side]) if tag != "O"] if "tokens" in row else row[side]


def test_the_model_has_learned(flow: Flow):
    value = read(flow.second / "evaluation" / "test" / "metrics.json")[flow.case.metric]
    assert flow.case.at_least <= value <= flow.case.at_most


def test_a_second_look_at_the_validation_rows_gives_what_training_saw(flow: Flow):
    flow.folder.ok("evaluate", str(flow.first), "split=validation")
    metrics = read(flow.first / "evaluation" / "validation" / "metrics.json")
    for name, value in read(flow.first / "result.json")["metrics"].items():
        assert metrics[name] == pytest.approx(value, rel=1e-6), name


def test_the_finetuned_run_begins_where_the_first_ended(flow: Flow):
    """Same tokenizer, same labels: the head is kept, so that the loss starts low."""
    before, after = (run / "checkpoints" / "best" / "tokenizer.json" for run in (flow.first, flow.second))
    assert before.is_file() == after.is_file() == (not flow.case.file.startswith("points"))
    assert not before.is_file() or before.read_bytes() == after.read_bytes()
    started, ended = (read_lines(run / "metrics.jsonl") for run in (flow.second, flow.first))
    assert started[0]["loss"] < ended[0]["loss"]


def test_predict_says_the_same_of_run_export_and_standard_input(flow: Flow):
    lines = "".join(f"{line}\n" for line in flow.case.inputs)
    expected = (flow.folder / "said.jsonl").read_text()
    for model in (flow.second, flow.second / "checkpoints" / "best", flow.second / "export" / "huggingface"):
        assert flow.folder.ok("predict", str(model), stdin=lines).out == expected, model
    assert flow.folder.ok("predict", str(flow.second), "-", "batch_size=1", stdin=lines).out.count("\n") == len(flow.said)


def test_onnx_answers_as_predict(flow: Flow):
    """The graph is fed with what an outsider has: the ONNX folder alone."""
    directory = flow.second / "export" / "onnx"
    session = onnxruntime.InferenceSession(directory / "model.onnx", providers=["CPUExecutionProvider"])
    wanted = {node.name for node in session.get_inputs()}
    if flow.case.inputs[0][0].isdigit():
        values = [[float(v) for v in re.split(r"[,\s]+", line)] for line in flow.case.inputs]
        logits = session.run(["logits"], {"features": np.array(values, dtype=np.float32)})[0]
        assert logits[:, 0] == pytest.approx([row["value"] for row in flow.said], abs=1e-4)
        return
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(directory)
    for line, said in zip(flow.case.inputs, flow.said, strict=True):
        is_causal = flow.case.task == "causal_lm"
        encoded = tokenizer(*line.split("\t"), return_tensors="np", add_special_tokens=not is_causal)
        inputs = {k: v.astype(np.int64) for k, v in encoded.items() if k in wanted}
        (logits,) = session.run(["logits"], inputs)[0]
        match flow.case.task:
            case "classification":
                shares = np.exp(logits) / np.exp(logits).sum()
                assert list(shares) == pytest.approx(list(said["probabilities"].values()), abs=1e-5)
            case "multilabel":
                assert list(1 / (1 + np.exp(-logits))) == pytest.approx(list(said["probabilities"].values()), abs=1e-5)
            case "tagging":
                config = transformers.PretrainedConfig.from_pretrained(flow.second / "export" / "huggingface")
                names = [config.id2label[i] for i in logits.argmax(-1)]
                assert set(said["tags"]) <= set(names) and len(said["tags"]) == len(line.split())
            case "regression":
                assert logits[0] == pytest.approx(said["value"], abs=1e-4)
            case "masked_lm":
                masks = np.flatnonzero(inputs["input_ids"][0] == tokenizer.mask_token_id)
                likeliest = [tokenizer.decode([logits[i].argmax()]) for i in masks]
                assert likeliest == [fillers[0]["token"] for fillers in said["masks"]]
            case "causal_lm":
                assert said["continuation"].startswith(tokenizer.decode([logits[-1].argmax()]))


def test_the_export_is_a_plain_transformers_directory(flow: Flow):
    directory = flow.second / "export" / "huggingface"
    config = read(directory / "config.json")
    if config["model_type"].startswith("llmtune_"):
        pytest.skip("an architecture of our own")
    model = getattr(transformers, config["architectures"][0]).from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    if flow.case.task == "classification":
        line, said = flow.case.inputs[0], flow.said[0]
        shares = model(**tokenizer(*line.split("\t"), return_tensors="pt")).logits.softmax(-1)[0].tolist()
        assert shares == pytest.approx(list(said["probabilities"].values()), abs=1e-5)
        assert list(model.config.id2label.values()) == list(said["probabilities"])
