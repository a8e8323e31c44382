"""Time and test score of every recipe, seed 0: python scripts/bench/recipes.py [NAME ...]. Prints the README's table."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from llmtune.config.compose import recipe_header, recipes

# The metric of each task that tells most, and how it is called.
SHOWN = {
    "classification": ("accuracy", "accuracy {:.3f}"),
    "regression": ("mse", "MSE {:.3f}"),
    "multilabel": ("f1_micro", "F1 (micro) {:.3f}"),
    "tagging": ("f1", "entity F1 {:.3f}"),
    "causal_lm": ("perplexity", "perplexity {:.1f}"),
    "masked_lm": ("accuracy", "masked tokens right {:.3f}"),
    "instruction": ("perplexity", "perplexity of answers {:.3f}"),
    "preference": ("accuracy", "pairs right {:.3f}"),
}


def score(name: str, folder: Path) -> tuple[float, str]:
    """Training seconds over all stages, and the test metric of the last one."""
    result_file = folder / "result.json"
    command = [sys.executable, "-m", "llmtune", "run", f"recipe={name}", f"output_dir={folder}", "export=none"]
    done = subprocess.run(command, env={**os.environ, "LLMTUNE_RESULT_FILE": str(result_file)}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    last = Path(json.loads(result_file.read_text())["run_dir"])
    stages = [last] if last.name != "finetune" else [last.parent, last]
    seconds = sum(json.loads((stage / "result.json").read_text())["train_seconds"] for stage in stages)
    metrics = json.loads((last / "evaluation" / "test" / "metrics.json").read_text())
    key, text = SHOWN[yaml.safe_load((last / "config.yaml").read_text())["task"]["type"]]
    return seconds, text.format(metrics[key])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    known = recipes()
    for name in parser.parse_args().names or known:
        with tempfile.TemporaryDirectory() as folder:
            seconds, metric = score(name, Path(folder))
        what = recipe_header(known[name]).splitlines()[1].split("; go on")[0]
        print(f"| `{name}` | {what} | {seconds:.0f} s | {metric} |", flush=True)


if __name__ == "__main__":
    main()
