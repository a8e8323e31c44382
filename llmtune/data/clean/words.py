"""How many words texts have."""

from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.data import ideographs

_OTHER, _SPACE, _IDEOGRAPH = range(3)
_LAST_SPACE = 0x3000


def num_words(texts: pa.Array) -> np.ndarray:
    """Words of each text, int64 [N]: what stands between white space, and each Chinese or Japanese character; null has none."""
    texts = pc.fill_null(texts, "")
    ends = np.cumsum(pc.utf8_length(texts).to_numpy(), dtype=np.int64)
    kinds = _kinds()[np.frombuffer("".join(texts.to_pylist()).encode("utf-32-le"), np.uint32)]
    goes_on = np.zeros(len(kinds), bool)
    goes_on[1:] = kinds[:-1] == _OTHER
    goes_on[ends[:-1][ends[:-1] < len(kinds)]] = False  # the first character of a text
    begun = np.concatenate([[0], np.cumsum((kinds == _IDEOGRAPH) | ((kinds == _OTHER) & ~goes_on))])
    return np.diff(begun[ends], prepend=0)


@cache
def _kinds() -> np.ndarray:
    """What kind of character each code point is, uint8."""
    kinds = np.full(0x110000, _OTHER, np.uint8)
    kinds[[code for code in range(_LAST_SPACE + 1) if chr(code).isspace()]] = _SPACE
    for first, last in ideographs.RANGES:
        kinds[first : last + 1] = _IDEOGRAPH
    return kinds
