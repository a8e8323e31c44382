"""Tags of words: their schemes, and the entities that they spell. M: words."""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from llmtune.errors import DataError

OUTSIDE = "O"
# The prefixes of IOB, BIOES and BILOU by what they are in BIO.
PREFIXES = {"B": "B", "I": "I", "E": "I", "L": "I", "S": "B", "U": "B"}
_PREFIXED = re.compile(r"([BIELSU])[-_](.+)", re.DOTALL)


def are_spans(tags: Sequence[str]) -> bool:
    """Whether tags spell entities of several words by prefixes; else each tagged word is one of its own."""
    return any(_PREFIXED.fullmatch(tag) for tag in tags)


def require_one_scheme(tags: Sequence[str], place_of: Callable[[str], str]) -> None:
    """Make sure that all tags of the train rows are of one scheme, and that there is something to learn.

    Args:
        tags: different ones.
        place_of: a tag.

    Raises:
        DataError: some have prefixes and others not, or there is one tag alone.
    """
    plain = [tag for tag in tags if tag != OUTSIDE and not _PREFIXED.fullmatch(tag)]
    if plain and are_spans(tags):
        remedy = f"write B-{plain[0]} and I-{plain[0]}, or rename it: data.label_map={{{plain[0]}: B-{plain[0]}}}"
        raise DataError(f"the tag {plain[0]!r} has no B- or I-, others have", where=place_of(plain[0]), remedy=remedy)
    if len(tags) < 2:
        raise DataError(f"all words of the train rows have the tag {tags[0]!r}: there is nothing to tell apart")


def as_bio(rows: pa.ListArray) -> tuple[pa.ListArray, int]:
    """Tags with prefixes as BIO: each entity begins with B-, its other words have I-; and how many I- became B- for that.

    An I- that follows no word of its type begins an entity, as in IOB1 and as the usual scoring has it.

    Args:
        rows: lists of strings.
    """
    made, num_repaired = [], 0
    for tags in rows.to_pylist():
        before, row = None, []
        for tag in tags:
            found = _PREFIXED.fullmatch(tag)
            if found is None:
                before = None
                row.append(tag)
                continue
            prefix, kind = PREFIXES[found[1]], found[2]
            begins = prefix == "B" or before != kind
            num_repaired += begins and prefix == "I"
            before = kind if found[1] in "BI" else None  # the others end an entity
            row.append(f"{'B' if begins else 'I'}-{kind}")
        made.append(row)
    return pa.array(made, pa.list_(pa.string())), num_repaired


def names_of(tags: Sequence[str]) -> list[str]:
    """The label names for tags of one scheme: O first, and of each type B- and I-."""
    if not are_spans(tags):
        return sorted(tags, key=lambda tag: (tag != OUTSIDE, tag))
    kinds = sorted({tag[2:] for tag in tags if tag != OUTSIDE})
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")]


class Scheme:
    """What label ids spell.

    Args:
        label_names: in the order of their ids.

    Attributes:
        types: of entities, in the order of their first label.
        outside: the id of O; -1 if there is no such label.
    """

    def __init__(self, label_names: Sequence[str]):
        spans = are_spans(label_names)
        kinds = [name[2:] if spans and name != OUTSIDE else name for name in label_names]
        self.types = list(dict.fromkeys(kind for kind in kinds if kind != OUTSIDE))
        self.outside = list(label_names).index(OUTSIDE) if OUTSIDE in label_names else -1
        self._types = np.array([self.types.index(kind) if kind != OUTSIDE else -1 for kind in kinds])
        self._begins = np.array([not spans or name.startswith("B") for name in label_names])

    def entities(self, ids_M: np.ndarray) -> np.ndarray:
        """Entities of one sentence, or of several with an O (-1) between them: begin, end and type of each, int64 [E, 3].

        A label I- that follows no word of its type begins an entity, too: so conlleval and seqeval count.
        """
        is_known = ids_M >= 0
        types_M = np.where(is_known, self._types[ids_M], -1)
        before_M = np.concatenate([[-1], types_M[:-1]])
        is_start = (types_M >= 0) & ((is_known & self._begins[ids_M]) | (types_M != before_M))
        others = np.append(np.flatnonzero((types_M < 0) | is_start), len(ids_M))  # where no entity goes on
        starts = np.flatnonzero(is_start)
        return np.stack([starts, others[np.searchsorted(others, starts, side="right")], types_M[starts]], axis=1)

    def counts(self, predicted_M: np.ndarray, reference_M: np.ndarray) -> np.ndarray:
        """Right, predicted and real entities of each type, int64 [T, 3]; right is one with the same words and type."""
        predicted, reference = self.entities(predicted_M), self.entities(reference_M)
        _, mine, theirs = np.intersect1d(predicted[:, 0], reference[:, 0], assume_unique=True, return_indices=True)
        right = predicted[mine][(predicted[mine] == reference[theirs]).all(1)]
        return np.stack([np.bincount(e[:, 2], minlength=len(self.types)) for e in (right, predicted, reference)], axis=1)
