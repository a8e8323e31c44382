"""The whole look at the rows of all splits, and what it gives."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from llmtune import console
from llmtune.data.label_errors import label_errors
from llmtune.data.spool import Spool
from llmtune.files import side_by_side
from llmtune.inspection import labels, outliers, texts
from llmtune.inspection.copies import Cluster, Copies, text_columns
from llmtune.inspection.findings import Finding, examples, together
from llmtune.inspection.labels import Suspicious
from llmtune.inspection.scripts import WITHOUT_SPACES
from llmtune.inspection.tokens import Tokens

QUANTILES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
WEIGHTS = ("fix", "look", "note")  # the order in which findings are told
_SHINGLE_SIZE, _SHINGLE_SIZE_WITHOUT_SPACES = 5, 3


@dataclass
class SplitFacts:
    """What there is to know about a split.

    Attributes:
        rows: of it.
        is_made: whether it was set aside from the train rows.
        columns: that were read.
        scripts: rows by script.
        characters_N, tokens_N: lengths of each row, int64; None where rows have no text.
        targets_N: numbers to predict; None for other tasks.
    """

    rows: int
    is_made: bool
    columns: list[str]
    scripts: dict[str, int]
    characters_N: np.ndarray | None = None
    tokens_N: np.ndarray | None = None
    targets_N: np.ndarray | None = None


@dataclass
class Inspection:
    """What was seen.

    Attributes:
        splits: by name, the train rows first.
        given: rows of each split as it was given.
        task: the type of the task.
        classes: rows of each class for each split; empty where there are none.
        findings: those to be fixed first.
        clusters: the largest clusters of near duplicates.
        suspicious: rows whose label is likely wrong, the surest first.
        accuracy: of the quick linear model that judged the labels; None: they were not judged.
        max_length: tokens at which rows are cut; None: they are not.
        cleaners: names of those that were at work before.
    """

    splits: dict[str, SplitFacts]
    given: dict[str, int]
    task: str
    classes: dict[str, dict[str, int]]
    findings: list[Finding]
    clusters: list[Cluster]
    suspicious: list[Suspicious]
    accuracy: float | None
    max_length: int | None
    cleaners: list[str]

    @property
    def remedy(self) -> list[str]:
        """The overrides that deal with all that is to be fixed."""
        return together(self.findings, already=self.cleaners)


def inspect(
    tables: Mapping[str, pa.Table],
    *,
    given: Mapping[str, int],
    made: Collection[str],
    task: str,
    tokens: Tokens | None,
    feature_names: tuple[str, ...],
    cleaners: list[str],
    seed: int,
    spool: Spool,
) -> Inspection:
    """Look at the rows of all splits.

    Args:
        tables: canonical tables by split, after the split; the train rows first.
        given: rows of each split as it was given.
        made: the splits that were set aside from the train rows.
        task: the type of the task: labels are classes, numbers, or of no interest.
        tokens: counts tokens; None: rows have no text.
        feature_names: of numeric columns.
        cleaners: names of those that were at work before.
        seed: of the folds by which labels are judged.
        spool: holds what grows with the rows.
    """
    train = tables["train"]
    has_texts, has_labels = "text" in train.column_names, "label" in train.column_names
    findings: list[Finding] = []
    splits = {}
    for split, table in tables.items():
        with console.progress(f"reading {split}", total=table.num_rows, unit="rows") as advance:
            splits[split] = _facts(split, table, split in made, tokens, findings)
            advance(table.num_rows)
    if feature_names:
        findings += _constant_columns(train, feature_names)
    classes = {}
    if has_labels and task in ("classification", "regression"):
        findings += labels.missing(tables)
    if has_labels and task == "classification":
        classes = labels.class_sizes(tables)
        findings += labels.of_classes(tables, classes)
    elif has_labels and task == "regression":
        for split, table in tables.items():
            splits[split].targets_N = labels.numbers(table)
            findings += labels.of_numbers(split, table, splits[split].targets_N)
    shingle_size = _shingle_size(splits["train"].scripts)
    with console.progress("comparing rows", total=sum(given.values()), unit="rows") as advance:
        (copies, clusters), (found, suspicious, accuracy) = side_by_side(
            lambda: _copies(tables, made, task, shingle_size, spool),
            lambda: _beside_others(train, has_texts, bool(classes), seed),
        )
        advance(sum(given.values()))
    findings += [*copies, *found]
    findings.sort(key=lambda finding: WEIGHTS.index(finding.weight))
    return Inspection(
        splits=splits,
        given=dict(given),
        task=task,
        classes=classes,
        findings=findings,
        clusters=clusters,
        suspicious=suspicious,
        accuracy=accuracy,
        max_length=tokens.max_length if tokens else None,
        cleaners=cleaners,
    )


def as_json(found: Inspection) -> dict[str, Any]:
    """All of it, JSON-ready."""
    return {
        "task": found.task,
        "given_rows": found.given,
        "splits": {name: _split_as_json(split, found.max_length) for name, split in found.splits.items()},
        "classes": found.classes,
        "cleaned_by": found.cleaners,
        "findings": [
            {
                "kind": finding.kind,
                "what": finding.title,
                "split": finding.split,
                "weight": finding.weight,
                "rows": finding.count,
                "share": finding.count / finding.total,
                "overrides": finding.overrides,
                "advice": finding.advice,
                "examples": [asdict(example) for example in finding.examples],
            }
            for finding in found.findings
        ],
        "remedy": found.remedy,
        "clusters": [asdict(cluster) for cluster in found.clusters],
        "suspicious_labels": [asdict(row) for row in found.suspicious],
        "label_model_accuracy": found.accuracy,
    }


def quantiles(values_N: np.ndarray) -> dict[str, float]:
    """`QUANTILES` of some values by name: min, 1 %, ..., 99 %, max."""
    names = ["min", *(f"{share:.0%}" for share in QUANTILES[1:-1]), "max"]
    return dict(zip(names, np.quantile(values_N, QUANTILES).tolist(), strict=True))


def _facts(split: str, table: pa.Table, is_made: bool, tokens: Tokens | None, findings: list[Finding]) -> SplitFacts:
    columns = [name for name in table.column_names if name not in ("file", "row")]
    if "text" not in table.column_names:
        return SplitFacts(table.num_rows, is_made, columns, {})
    seen = texts.look(split, table)
    findings += seen.findings
    tokens_N = None
    if tokens is not None:
        tokens_N, found = tokens.look(split, table)
        findings += found
    return SplitFacts(table.num_rows, is_made, columns, seen.scripts, seen.lengths_N, tokens_N)


def _beside_others(
    train: pa.Table, has_texts: bool, has_classes: bool, seed: int
) -> tuple[list[Finding], list[Suspicious], float | None]:
    """Train rows that are unlike the others of their class, or unlike all others; and how often the labels' judge is right."""
    findings: list[Finding] = []
    suspicious: list[Suspicious] = []
    columns = text_columns(train) if has_texts else [train["features"]]
    judged = label_errors(columns, train["label"], seed=seed) if has_classes else None
    if judged is not None:
        findings, suspicious = labels.suspicious(train, judged)
    if has_texts:
        findings += outliers.outliers("train", train, columns)
    return findings, suspicious, judged.accuracy if judged is not None else None


def _copies(
    tables: Mapping[str, pa.Table], made: Collection[str], task: str, shingle_size: int, spool: Spool
) -> tuple[list[Finding], list[Cluster]]:
    copies = Copies(tables, made=made, has_classes=task == "classification", shingle_size=shingle_size, spool=spool)
    findings: list[Finding] = []
    clusters: list[Cluster] = []
    for split in tables:
        found, largest = copies.within(split)
        findings += found
        clusters += largest
    return [*findings, *copies.across()], clusters


def _shingle_size(scripts: Mapping[str, int]) -> int:
    main = next((name for name in scripts if name != "none"), "none")
    return _SHINGLE_SIZE_WITHOUT_SPACES if main in WITHOUT_SPACES else _SHINGLE_SIZE


def _constant_columns(train: pa.Table, names: tuple[str, ...]) -> list[Finding]:
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for batch in train.select(["features"]).to_batches():
        if batch.num_rows:
            values_NF = batch.column(0).flatten().to_numpy().reshape(-1, len(names))
            low, high = np.minimum(low, values_NF.min(axis=0)), np.maximum(high, values_NF.max(axis=0))
    constant = [name for name, is_one in zip(names, low == high, strict=True) if is_one]
    others = [name for name in names if name not in constant]
    if not constant or not others:
        return []
    facts = {"columns": ", ".join(constant), "others": f"[{','.join(others)}]"}
    return [Finding("constant_features", "train", train.num_rows, train.num_rows, examples(train, np.arange(1)), facts)]


def _split_as_json(split: SplitFacts, max_length: int | None) -> dict[str, Any]:
    told: dict[str, Any] = {"rows": split.rows, "set_aside": split.is_made, "columns": split.columns, "scripts": split.scripts}
    if split.characters_N is not None:
        told["characters"] = quantiles(split.characters_N)
    if split.tokens_N is not None:
        told["tokens"] = quantiles(split.tokens_N)
        told["cut"] = int((split.tokens_N > max_length).sum()) if max_length else 0
    if split.targets_N is not None and np.isfinite(split.targets_N).any():
        told["targets"] = quantiles(split.targets_N[np.isfinite(split.targets_N)])
    return told
