"""What each way to balance does for a rare class: SMS spam, several seeds each, on test rows that nothing was chosen by:

    python scripts/bench/balance_spam.py DATA/sms_spam/sms.tsv [--model lstm | bert] [--weights DIR] [--methods ...]

Messages that come up again are left out. For each seed 70 % of the rows are to train on, 10 % for validation, 20 % for the
test; all classes alike. In the rows named `rare`, train spam is cut to 60 messages and validation spam in proportion; test
rows stay. Every run has the same number of steps, and its best checkpoint is chosen by validation F1 of spam. Prints Markdown.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# Each is trained once, with thresholds found at its end; scores without them are those of the method alone.
METHODS = {
    "none": [],
    "oversample": ["oversample"],
    "undersample": ["undersample"],
    "square_root": ["square_root"],
    "temperature": ["temperature"],
    "inverse_frequency": ["inverse_frequency"],
    "effective_number": ["effective_number"],
    "focal": ["focal"],
    "logit_adjustment": ["logit_adjustment"],
    "oversample, focal": ["oversample", "focal"],
}
RARE = 60
MODELS = {
    "lstm": [
        "model=lstm",
        "model.embedding_size=64",
        "model.hidden_size=64",
        "training.max_steps=500",
        "training.eval_every=100",
    ],
    "bert": ["model=bert", "optimizer.lr=1e-4", "training.max_steps=100", "training.eval_every=50"],
}
SHOWN = ("F1 of spam", "precision", "recall", "F1 macro")


def write_files(source: Path, folder: Path, *, seed: int, rare: bool) -> None:
    """train.tsv, validation.tsv and test.tsv of one seed."""
    lines = list(dict.fromkeys(source.read_text(encoding="utf-8").splitlines()))
    of_label = {label: [line for line in lines if line.startswith(f"{label}\t")] for label in ("ham", "spam")}
    parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for label, rows in of_label.items():
        order = np.random.default_rng(seed).permutation(len(rows))
        train, validation = round(0.7 * len(rows)), round(0.1 * len(rows))
        share = RARE / train if rare and label == "spam" else 1.0
        cuts = {"train": order[:train][: round(share * train)], "test": order[train + validation :]}
        cuts["validation"] = order[train : train + validation][: round(share * validation)]
        for name, chosen in cuts.items():
            parts[name] += [rows[i] for i in chosen]
    for name, rows in parts.items():
        (folder / f"{name}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def llmtune(*words: str) -> None:
    from llmtune.cli import main

    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = main(list(words))
    if code:
        sys.exit(f"{' '.join(words)}\n{told.getvalue()[-3000:]}")


def scores(method: str, folder: Path, *, model: list[str], seed: int) -> dict[str, list[float]]:
    """`SHOWN` of the test rows, of the method alone and with thresholds."""
    runs, name = folder / "runs", method.replace(", ", "-")
    files = [f"data.{part}_file={folder}/{part}.tsv" for part in ("train", "validation", "test")]
    balance = f"balance=[{','.join([*METHODS[method], 'threshold'])}]"
    how = ["data.column_names=[label,text]", "data.quoting=false", "training.epochs=null", "training.best_metric=f1_minority"]
    place = [f"output_dir={runs}", f"run_name={name}", f"seed={seed}", "hardware=cpu"]
    llmtune("train", *files, *how, *model, *place, balance)
    llmtune("evaluate", str(runs / name / "latest"), "split=test", "hardware=cpu")
    folder_of = runs / name / "latest" / "evaluation" / "test"
    rows = [json.loads(line) for line in (folder_of / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    is_spam = np.array([row["reference"] == "spam" for row in rows])
    alone = np.array([row["probabilities"]["spam"] > 0.5 for row in rows])
    moved = np.array([row["prediction"] == "spam" for row in rows])
    return {"alone": measures(is_spam, alone), "with thresholds": measures(is_spam, moved)}


def measures(is_spam: np.ndarray, predicted: np.ndarray) -> list[float]:
    hits = int((is_spam & predicted).sum())
    precision, recall = hits / max(1, predicted.sum()), hits / is_spam.sum()
    f1 = 2 * hits / (predicted.sum() + is_spam.sum())
    ham_hits = int((~is_spam & ~predicted).sum())
    ham_f1 = 2 * ham_hits / ((~predicted).sum() + (~is_spam).sum())
    return [f1, precision, recall, (f1 + ham_f1) / 2]


def shown(values: list[float]) -> str:
    spread = (max(values) - min(values)) / 2
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--model", choices=list(MODELS), default="lstm")
    parser.add_argument("--weights", help="of --model bert: a directory, or package:NAME/PATH")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--only", choices=("all", "rare"), nargs="*", default=("all", "rare"))
    arguments = parser.parse_args()
    model = MODELS[arguments.model] + ([f"model.pretrained={arguments.weights}"] if arguments.weights else [])
    print(f"| rows | method | {' | '.join(SHOWN)} | F1 of spam, with thresholds | F1 macro, with thresholds |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLMTUNE_CACHE"] = f"{folder}/cache"
        for rows in arguments.only:
            places = {seed: Path(folder) / f"{rows}-{seed}" for seed in arguments.seeds}
            for seed, place in places.items():
                place.mkdir()
                write_files(arguments.source, place, seed=seed, rare=rows == "rare")
            for method in arguments.methods:
                found = [scores(method, place, model=model, seed=seed) for seed, place in places.items()]
                alone, moved = (list(zip(*(f[kind] for f in found), strict=True)) for kind in ("alone", "with thresholds"))
                cells = [shown(values) for values in (*alone, moved[0], moved[3])]
                print(f"| {rows} | {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"\n{time.monotonic() - started:.0f} s in all", file=sys.stderr)
