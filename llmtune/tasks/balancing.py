"""What `balance` makes of a classification, of one label or several: which rows stand in an epoch, and the loss of a row."""

from collections.abc import Iterator, Sequence

import numpy as np

from llmtune import console
from llmtune.config.sections.balance import BalanceConfig, ClassWeights, Sampling
from llmtune.data.prepared import Split
from llmtune.data.sampling import ClassSampler, class_sizes
from llmtune.errors import ConfigError
from llmtune.tasks import criterion
from llmtune.tasks.classification import ClassificationTask, plain_label
from llmtune.tasks.multilabel import MultilabelTask

TOLD_FROM = 3.0  # times as many rows in the largest class as in the smallest


def require_labels(balance: dict[str, BalanceConfig], label_names: Sequence[str]) -> None:
    """Find out before anything is written whether weights are for labels that there are.

    Raises:
        ConfigError: one is not.
    """
    for name, weights in _weights(balance):
        for label in weights:
            if label not in label_names:
                known = ", ".join(label_names[:10]) + (", ..." if len(label_names) > 10 else "")
                raise ConfigError([f"balance.{name}.by_label: there is no label '{label}'; the labels are: {known}"])


def apply(
    balance: dict[str, BalanceConfig], task: ClassificationTask | MultilabelTask, train: Split, *, seed: int
) -> ClassSampler | None:
    """Give the task its criterion; returns what draws the rows of each epoch, or None if each row stands there once.

    The loss goes by the classes as an epoch holds them, so that a sampler and weights do not correct twice.
    """
    weights = {label: weight for _, given in _weights(balance) for label, weight in given.items()}
    by_label = [weights.get(label, 1.0) for label in task.label_names]
    if task.type == "multilabel":
        counts_C = _label_counts(train, len(task.label_names)) if balance else np.zeros(len(by_label), dtype=np.int64)
        task.criterion = criterion.build_binary(balance, counts_C=counts_C, num_rows=len(train), weights_by_label=by_label)
        return None
    labels_N = train.numbers("label")
    counts_C = np.bincount(labels_N, minlength=len(task.label_names))
    if not balance:
        _tell_imbalance(counts_C, task.label_names)
    sampling = next((section for section in balance.values() if isinstance(section, Sampling)), None)
    sizes_C = counts_C if sampling is None else class_sizes(sampling, counts_C)
    task.criterion = criterion.build(balance, counts_C=sizes_C, weights_by_label=by_label)
    if sampling is None:
        return None
    _tell_sizes(sampling.type, counts_C, sizes_C, task.label_names)
    return ClassSampler(labels_N, sizes_C, seed=seed)


def _label_counts(train: Split, num_labels: int) -> np.ndarray:
    """Rows with each label; one that names a label twice should not, and counts twice."""
    counts_C = sum(np.bincount(labels, minlength=num_labels) for labels in train.items("labels"))
    return np.minimum(counts_C, len(train))


def _weights(balance: dict[str, BalanceConfig]) -> Iterator[tuple[str, dict[str, float]]]:
    """The name of an entry with weights given by hand, and these by label in its plain form."""
    for name, section in balance.items():
        if isinstance(section, ClassWeights):
            yield name, {plain_label(label): weight for label, weight in section.by_label.items()}


def _tell_imbalance(counts_C: np.ndarray, names: tuple[str, ...]) -> None:
    largest, smallest = int(counts_C.argmax()), int(np.where(counts_C > 0, counts_C, counts_C.max()).argmin())
    times = counts_C[largest] / counts_C[smallest]
    if times > TOLD_FROM:
        few, many = (f"{names[i]} ({counts_C[i]:,} rows)" for i in (smallest, largest))
        console.notice(
            f"the train labels are imbalanced: {many} to {few}, {times:,.1f} to 1. balance=oversample or "
            "balance=[focal,threshold] may help the smaller ones; training.best_metric=f1_macro looks at all alike"
        )


def _tell_sizes(kind: str, counts_C: np.ndarray, sizes_C: np.ndarray, names: tuple[str, ...]) -> None:
    changed = [i for i in np.argsort(-np.abs(sizes_C - counts_C)).tolist() if sizes_C[i] != counts_C[i]]
    told = [f"{names[i]} {counts_C[i]:,} -> {sizes_C[i]:,}" for i in changed[:4]] + ["..."] * (len(changed) > 4)
    console.notice(f"{kind}: an epoch has {sizes_C.sum():,} rows of {counts_C.sum():,}: {', '.join(told) or 'all as they are'}")
