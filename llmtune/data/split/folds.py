"""k-fold cross-validation: each row is a validation row of exactly one fold."""

import numpy as np

from llmtune.config.sections.split import KFoldSplit, SplitConfig
from llmtune.data.split.groups import divided
from llmtune.data.split.rows import Rows, Sides, stratified
from llmtune.errors import ConfigError, DataError


def one_fold(rows: Rows, config: SplitConfig, wanted: dict[str, int]) -> Sides:
    """The rows of `config.fold` for validation, and for the test those that no fold holds, if they are wanted.

    Raises:
        DataError: there are fewer rows, groups, or rows of a class than folds.
        ConfigError: the fold is not set.
    """
    if config.fold is None:
        raise ConfigError(["split.fold: is null: name the fold to work on, such as split.fold=1"])
    folds_N = folds_of(rows, config, test_size=wanted.get("test", 0))
    sides = {"test": folds_N < 0} if "test" in wanted else {}
    return {**sides, "validation": folds_N == config.fold - 1}


def folds_of(rows: Rows, config: KFoldSplit, *, test_size: int) -> np.ndarray:
    """The fold of each row from 0, int16 [N]; -1 for test rows, which are the same whatever the fold.

    Raises:
        DataError: there are fewer rows, groups, or rows of a class than folds.
    """
    rows = rows if config.stratify else Rows(rows.table, rows.seed, False)
    num_rows, num_folds = rows.table.num_rows, config.num_folds
    if num_rows - test_size < num_folds:
        raise DataError(
            f"{num_rows - test_size} train rows cannot be divided into {num_folds} folds",
            where="split.num_folds",
            remedy="add rows, or lower split.num_folds",
        )
    if config.group_column is not None:
        return _of_groups(rows, num_folds, test_size)
    folds_N = np.full(num_rows, -1, dtype=np.int16)
    rest = rows.order
    if test_size:
        is_test = np.zeros(num_rows, dtype=bool)
        is_test[stratified(rows, config, {"test": test_size})["test"]] = True
        rest = rest[~is_test[rest]]
    if rows.classes is not None:
        codes, names = rows.classes
        if "label" in rows.table.column_names:
            _require_enough(np.bincount(codes[rest], minlength=len(names)), names, num_folds)
        rest = rest[np.argsort(codes[rest], kind="stable")]
    folds_N[rest] = np.arange(len(rest)) % num_folds  # class by class: sizes differ by one row at most
    return folds_N


def _of_groups(rows: Rows, num_folds: int, test_size: int) -> np.ndarray:
    size, more = divmod(rows.table.num_rows - test_size, num_folds)
    wanted = [size + (fold < more) for fold in range(num_folds)]
    names = [f"fold {fold + 1}" for fold in range(num_folds)]
    if not test_size:
        return divided(rows, wanted, names=names)
    sides_N = divided(rows, [*wanted, test_size], names=[*names, "test"])
    sides_N[sides_N == num_folds] = -1
    return sides_N


def _require_enough(class_sizes: np.ndarray, names: list[str], num_folds: int) -> None:
    rarest = int(np.argmin(class_sizes))
    if class_sizes[rarest] < num_folds:
        raise DataError(
            f"the class '{names[rarest][:50]}' has {class_sizes[rarest]} rows, fewer than the {num_folds} folds",
            where="split.num_folds",
            remedy="add rows of it, lower split.num_folds, or set split.stratify=false",
        )
