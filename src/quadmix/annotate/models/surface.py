"""Statistics of a text's surface that do not grow with its length, for raters over hashed n-grams.

In: texts. Out: (D, S) float32, one row per text, all of them shares in [0, 1]. The n-grams of a language that
a rater was not trained on tell it nothing, these numbers do. Shares that differ by script and not by quality
(of letters, capitals, blanks, commas) are left out: with them parallel texts stood farther apart.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

NAMES = ("digits", "symbols", "brackets", "line_ends", "closed_lines")
_DIGIT, _SYMBOL, _BRACKET, _END, _LINE = 1, 2, 4, 8, 16
_ENDS = ".!?。！？؟।॥။៕።…"
Shares = NDArray[np.float32]


def surface(texts: Sequence[str]) -> Shares:
    """Return the statistics, columns as in NAMES: digits, symbols (Unicode's S), brackets with quotation
    marks, and line ends as shares of the characters; the share of line ends that follow the end of a
    sentence. A row of zeros for an empty text."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
    row = np.repeat(np.arange(len(texts)), lengths)
    marks = _marks()[codes]
    closed = (marks[:-1] & _END > 0) & (marks[1:] & _LINE > 0) & (row[:-1] == row[1:])
    counted = [row[marks & bit > 0] for bit in (_DIGIT, _SYMBOL, _BRACKET, _LINE)] + [row[:-1][closed]]
    counts = [np.bincount(rows, minlength=len(texts)) for rows in counted]
    whole = [*[np.maximum(lengths, 1)] * 4, np.maximum(counts[3], 1)]
    return np.stack([c / w for c, w in zip(counts, whole, strict=True)], axis=1).astype(np.float32)


@lru_cache(maxsize=1)
def _marks() -> NDArray[np.uint8]:
    """Return (0x110000,) what every code point counts as."""
    kinds = {"N": _DIGIT, "S": _SYMBOL, "Ps": _BRACKET, "Pe": _BRACKET, "Pi": _BRACKET, "Pf": _BRACKET}
    table = np.zeros(0x110000, np.uint8)
    for code in range(0x110000):
        kind = unicodedata.category(chr(code))
        table[code] = kinds.get(kind[0], 0) | kinds.get(kind, 0)
    table[ord('"')] = _BRACKET
    table[[ord(c) for c in _ENDS]] = _END
    table[ord("\n")] = _LINE
    return table
