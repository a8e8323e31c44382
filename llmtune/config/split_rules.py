"""What must hold between how rows are set aside and the other sections."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmtune.config.schema import StageConfig


def rules(config: "StageConfig") -> Iterator[tuple[bool, str]]:
    """Pairs of whether something is wrong, and what; see `schema.contradictions`."""
    split, data, resume = config.split, config.data, config.training.resume
    given = next((key for key in ("validation_file", "validation_split") if getattr(data, key, None) is not None), None)
    if split.type != "kfold":
        yield (
            split.validation_fraction + split.test_fraction >= 1,
            "split.test_fraction: together with split.validation_fraction it leaves nothing to train on",
        )
        return
    yield (
        split.fold is not None and split.fold > split.num_folds,
        f"split.fold: there is no fold {split.fold}: they are 1 to split.num_folds={split.num_folds}",
    )
    yield (
        given is not None,
        f"data.{given}: split=kfold takes its validation rows from the train rows: leave it out, or choose another split",
    )
    yield (
        split.fold is None and resume not in ("auto", "never", "must"),
        "training.resume: names one run, and split=kfold makes one for each fold: name the fold with split.fold",
    )
