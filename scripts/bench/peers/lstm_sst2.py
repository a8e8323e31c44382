"""An LSTM(128) from scratch on SST-2 sentences: llmtune, Keras with the TensorFlow backend, and a plain PyTorch loop.

    python scripts/bench/peers/lstm_sst2.py SST2 CACHE [--rounds 3] [--epochs 4]

SST2 holds train.csv and test.csv with the columns text and label; environments of peers are kept in CACHE. Embedding(128),
LSTM(128), Dense; batch 32, Adam at 1e-3, dropout 0.2, at most 64 tokens. The first table is with recurrent_dropout=0.2, as
Keras' tutorials have it (Keras drops parts of the state, llmtune of the recurrent weights), the second without. Keras trains as
it does by itself, compiled by XLA, and unrolled. All read the same token ids, those of llmtune's tokenizer; Keras pads them to
64, PyTorch to the longest of a batch, which it packs. Prints Markdown tables: samples a second after the first epoch, in which
TensorFlow traces its graphs (after the first step if there is one epoch alone), and test accuracy after the last.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

KERAS = ["tensorflow-cpu==2.21.0", "keras==3.15.1", "numpy==2.4.6"]
HOW = {"": {}, ", XLA": {"use_xla": True}, ", unrolled": {"unroll": True}}
WIDTH, BATCH, LENGTH, LR, DROPOUT, EPS = 128, 32, 64, 1e-3, 0.2, 1e-7


def overrides(train: Path, test: Path, epochs: int, recurrent_dropout: float, seed: int) -> list[str]:
    return [
        "+recipe=lstm_cls",
        "optimizer=adam",
        "schedule=constant",
        "data.where={}",
        "data.label_map={}",
        f"data.train_file={train}",
        f"data.test_file={test}",
        "split.validation_fraction=0",
        f"tokenizer.max_length={LENGTH}",
        f"model.embedding_size={WIDTH}",
        f"model.hidden_size={WIDTH}",
        "model.num_layers=1",
        "model.bidirectional=false",
        "model.pooling=last",
        f"model.dropout={DROPOUT}",
        f"model.recurrent_dropout={recurrent_dropout}",
        f"optimizer.lr={LR}",
        f"optimizer.eps={EPS}",
        f"training.epochs={epochs}",
        f"training.batch_size={BATCH}",
        "training.early_stopping_patience=null",
        "training.max_grad_norm=null",
        "hardware.device=cpu",
        f"seed={seed}",
    ]


def encoded(words: list[str], file: str) -> common.Result:
    """To be called: llmtune's token ids of the train and test rows, as an .npz file."""
    import numpy as np

    from llmtune.commands.preparing import prepare_stage
    from llmtune.config.compose import compose

    ready, arrays = prepare_stage(compose("run", words).config), {}
    for name, split in ready.splits.items():
        rows = split.rows(range(split.num_rows))
        arrays[f"{name}_ids"] = np.concatenate([row["input_ids"] for row in rows])
        arrays[f"{name}_lengths"] = split.lengths
        arrays[f"{name}_labels"] = np.array([row["label"] for row in rows])
    np.savez(file, **arrays)
    return {"vocab_size": ready.meta["tokenizer"]["vocab_size"]}


def read(file: str, split: str) -> tuple[list[Any], Any]:
    """Token ids of each row, and the labels."""
    import numpy as np

    arrays = np.load(file)
    ends = np.cumsum(arrays[f"{split}_lengths"])
    return np.split(arrays[f"{split}_ids"], ends[:-1]), arrays[f"{split}_labels"]


def keras(
    file: str,
    vocab_size: int,
    epochs: int,
    recurrent_dropout: float,
    seed: int,
    use_xla: bool = False,
    unroll: bool = False,
) -> common.Result:
    """To be called, in the environment with TensorFlow."""
    import keras

    keras.utils.set_random_seed(seed)
    clock = common.Clock()

    class Ticking(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            clock.tick(examples=min(BATCH, len(train) - batch * BATCH))

    train, labels = read(file, "train")
    test, wanted = read(file, "test")
    train, test = (keras.utils.pad_sequences(rows, maxlen=LENGTH) for rows in (train, test))
    layers = keras.layers
    how = {"unroll": unroll, **({"use_cudnn": False} if use_xla else {})}  # what XLA wants
    model = keras.Sequential(
        [
            layers.Embedding(vocab_size, WIDTH),
            layers.LSTM(WIDTH, dropout=DROPOUT, recurrent_dropout=recurrent_dropout, **how),
            layers.Dense(int(labels.max()) + 1, activation="softmax"),
        ]
    )
    model.compile(
        loss="sparse_categorical_crossentropy",
        optimizer=keras.optimizers.Adam(LR, epsilon=EPS),
        metrics=["accuracy"],
        jit_compile=True if use_xla else "auto",
    )
    model.fit(train, labels, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[Ticking()])
    return {"steps": clock.steps, "accuracy": float(model.evaluate(test, wanted, verbose=0)[1])}


def pytorch(file: str, vocab_size: int, epochs: int, seed: int) -> common.Result:
    """To be called: the loop that one would write by hand."""
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

    class Net(nn.Module):
        def __init__(self, num_labels: int):
            super().__init__()
            self.embedding, self.dropout = nn.Embedding(vocab_size, WIDTH, padding_idx=0), nn.Dropout(DROPOUT)
            self.lstm, self.head = nn.LSTM(WIDTH, WIDTH, batch_first=True), nn.Linear(WIDTH, num_labels)

        def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            packed = pack_padded_sequence(self.dropout(self.embedding(ids)), lengths, batch_first=True, enforce_sorted=False)
            return self.head(self.dropout(self.lstm(packed)[1][0][-1]))

    def collate(rows: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        texts, labels = zip(*rows, strict=True)
        return pad_sequence(texts, batch_first=True), torch.tensor([len(t) for t in texts]), torch.tensor(labels)

    torch.manual_seed(seed)
    rows = {s: [(torch.from_numpy(t).long(), int(y)) for t, y in zip(*read(file, s), strict=True)] for s in ("train", "test")}
    model = Net(max(label for _, label in rows["train"]) + 1)
    optimizer = torch.optim.Adam(model.parameters(), LR, eps=EPS)
    loader = torch.utils.data.DataLoader(rows["train"], BATCH, shuffle=True, collate_fn=collate)
    clock = common.Clock()
    for _ in range(epochs):
        for ids, lengths, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(ids, lengths), labels).backward()
            optimizer.step()
            clock.tick(examples=len(labels))
    model.eval()
    with torch.inference_mode():
        batches = torch.utils.data.DataLoader(rows["test"], 64, collate_fn=collate)
        right = sum(int((model(ids, lengths).argmax(-1) == labels).sum()) for ids, lengths, labels in batches)
    return {"steps": clock.steps, "accuracy": right / len(rows["test"])}


def finished(result: common.Result, epochs: int) -> common.Result:
    accuracy = result["metrics"]["accuracy"] if "metrics" in result else result["accuracy"]
    steps = result["steps"]
    skip = len(steps) // epochs if epochs > 1 else 1
    num_samples = sum(step["examples"] for step in steps)
    return {"samples": common.rate(steps, "examples", skip=skip), "accuracy": accuracy, "num_samples": num_samples}


def main() -> None:
    parser = common.parser(__doc__, overrides=True)
    parser.add_argument("sst2", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rows", type=int, help="of each file; else all")
    arguments = parser.parse_args()
    epochs, python = arguments.epochs, common.environment(arguments.cache, "keras", KERAS)
    with common.work_folder(arguments.threads) as folder:
        train, test = (common.head_of_csv(arguments.sst2 / n, folder / n, arguments.rows) for n in ("train.csv", "test.csv"))
        ids = {"file": folder / "ids.npz"}
        how = {"vocab_size": common.call(encoded, words=overrides(train, test, epochs, 0.0, 0), **ids)["vocab_size"], **ids}

        def ours(number: int, recurrent_dropout: float) -> common.Result:
            words = [*overrides(train, test, epochs, recurrent_dropout, number), *arguments.overrides]
            return finished(common.call(common.llmtune, words=words, folder=folder), epochs)

        def of_keras(number: int, recurrent_dropout: float, more: common.Result) -> common.Result:
            more = {**more, "recurrent_dropout": recurrent_dropout, "epochs": epochs, "seed": number}
            return finished(common.call(keras, python=python, **how, **more), epochs)

        def sides(recurrent_dropout: float) -> dict[str, Callable[[int], common.Result]]:
            kerases = {
                f"Keras{name}": lambda number, more=more: of_keras(number, recurrent_dropout, more)
                for name, more in HOW.items()
            }
            return {"llmtune": lambda number: ours(number, recurrent_dropout), **kerases}

        packed = {"PyTorch, packed": lambda number: finished(common.call(pytorch, epochs=epochs, seed=number, **how), epochs)}
        tables = [common.in_turns(s, arguments.rounds) for s in (sides(DROPOUT), sides(0.0) | packed)]
    columns = {"samples/s": ("samples", ",.0f"), "test accuracy": ("accuracy", ".4f")}
    for results in tables:
        common.require_same_work(results, "num_samples")
        common.compare(results, columns, by="samples")
        print()


if __name__ == "__main__":
    main()
