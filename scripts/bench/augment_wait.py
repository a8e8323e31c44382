"""How long training waits for augmented rows: MiniLM and an LSTM on SST-2 with no, four (EDA) and eight augmenters.

    python scripts/bench/augment_wait.py DATA/sst2 WEIGHTS [--steps 200]

WEIGHTS is the folder of MiniLM. Each run is `llmtune train` in a process of its own, with 0 or 2 workers, all cores and no
evaluation. Prints a Markdown table: tokens a second, and the share of the training time that steps waited for their rows,
the first one included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

EDA = "synonyms,insert,swap,drop"
AUGMENTERS = {"none": "none", "EDA": f"[{EDA}]", "eight": f"[{EDA},characters,keyboard,casing,punctuation]"}
MODELS = {
    "MiniLM": ["model=bert", "model.pretrained={weights}", "training.batch_size=32"],
    "LSTM": ["model=lstm", "training.batch_size=32"],
}


def train(model: str, augment: str, workers: int, *, data: Path, weights: Path, steps: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "llmtune", "train"),
            *(word.format(weights=weights) for word in MODELS[model]),
            f"data.train_file={data / 'train.csv'}",
            "split.validation_fraction=0",
            "split.test_fraction=0",
            f"augment={AUGMENTERS[augment]}",
            f"hardware.num_workers={workers}",
            "training.epochs=null",
            f"training.max_steps={steps}",
            "training.resume=never",
            "run_name=wait",
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        return json.loads(Path(folder, "runs", "wait", "latest", "result.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    how = {"data": arguments.data.resolve(), "weights": arguments.weights.resolve(), "steps": arguments.steps}
    print("| model | augmenters | workers | tokens/s | waiting |\n|---|---|---|---|---|")
    for model in MODELS:
        for augment in AUGMENTERS:
            for workers in (0, 2):
                found = train(model, augment, workers, **how)
                speed, waiting = found["tokens_per_second"], found["wait_share"]
                print(f"| {model} | {augment} | {workers} | {speed:,.0f} | {waiting:.1%} |", flush=True)


if __name__ == "__main__":
    main()
