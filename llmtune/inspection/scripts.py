"""Which scripts texts are written in, by Unicode's own property."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.data.ngrams import code_points

SCRIPTS = (
    "none", "Latin", "Han", "Cyrillic", "Arabic", "Devanagari", "Greek", "Hebrew", "Kana", "Hangul", "Thai", "Bengali", "Tamil",
    "Telugu", "Georgian", "Armenian", "Ethiopic", "Khmer", "Myanmar", "Sinhala", "Gujarati", "Gurmukhi", "other",
)  # fmt: skip
NONE, OTHER = 0, len(SCRIPTS) - 1
WITHOUT_SPACES = ("Han", "Kana", "Thai", "Khmer", "Myanmar")
_CLASSES = {"Kana": r"[\p{Hiragana}\p{Katakana}]"}
# A letter of one script beside one of another, in the pairs of scripts whose letters look alike.
MIXED_LETTERS = "|".join(
    rf"\p{{{a}}}\p{{{b}}}" for a in ("Latin", "Cyrillic", "Greek") for b in ("Latin", "Cyrillic", "Greek") if a != b
)
_LARGEST_SHARE_OF_KANJI = 0.9  # Japanese is written in both, Chinese in ideographs alone


class Scripts:
    """Tells the script of texts; what it has learned about characters it keeps."""

    def __init__(self) -> None:
        self._script_of = np.full(0x110000, 255, np.uint8)

    def of(self, texts: pa.Array) -> np.ndarray:
        """The script of most letters of each text, places in `SCRIPTS`, uint8 [N]; `NONE` for texts without letters."""
        codes = code_points(texts)
        self._learn(codes)
        rows = np.repeat(np.arange(len(texts)), pc.utf8_length(texts).to_numpy())
        places = rows * len(SCRIPTS) + self._script_of[codes]
        counts = np.bincount(places, minlength=len(texts) * len(SCRIPTS)).reshape(len(texts), len(SCRIPTS))
        han, kana = SCRIPTS.index("Han"), SCRIPTS.index("Kana")
        is_japanese = counts[:, han] < _LARGEST_SHARE_OF_KANJI * (counts[:, han] + counts[:, kana])
        counts[is_japanese, kana] += counts[is_japanese, han]
        counts[:, NONE] = 0
        return np.where(counts.any(axis=1), counts.argmax(axis=1), NONE).astype(np.uint8)

    def _learn(self, codes: np.ndarray) -> None:
        is_new = np.zeros(len(self._script_of), bool)
        is_new[codes] = True
        new = np.flatnonzero(is_new & (self._script_of == 255))
        if not len(new):
            return
        chars = pa.array([chr(code) for code in new])
        found = np.full(len(new), NONE, np.uint8)
        found[pc.match_substring_regex(chars, r"\pL").to_numpy(zero_copy_only=False)] = OTHER
        for number, name in enumerate(SCRIPTS[1:-1], 1):
            found[pc.match_substring_regex(chars, _CLASSES.get(name, rf"\p{{{name}}}")).to_numpy(zero_copy_only=False)] = number
        self._script_of[new] = found
