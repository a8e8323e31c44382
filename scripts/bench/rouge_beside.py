"""Our ROUGE beside the package rouge_score: python scripts/bench/rouge_beside.py FILE.json. Needs: pip install rouge-score.

FILE holds rows with `instruction` and `output`; each output is scored against the next, and against itself in another order.
Only ASCII texts: rouge_score leaves out all other letters. Prints the largest difference.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

from rouge_score.rouge_scorer import RougeScorer

from llmtune.evaluation.rouge import rouge


def main() -> None:
    rows = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    texts = [row["output"] for row in rows if row["output"].isascii()]
    pairs = [*pairwise(texts), *((" ".join(reversed(text.split(" "))), text) for text in texts)]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    worst = 0.0
    for answer, reference in pairs:
        theirs = {name: score.fmeasure for name, score in scorer.score(reference, answer).items()}
        worst = max(worst, *(abs(theirs[name] - ours) for name, ours in rouge(answer, reference).items()))
    print(f"{len(pairs):,} pairs, largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
