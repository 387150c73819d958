"""Hashed character n-grams: the features of the rater that needs no encoder and no download.

In: texts. Out: a sparse (D, F) matrix in CSR, rows of length 1. A text is normalised (NFKC), put in lower
case, and its runs of blanks become one; of every word, a blank before and after it included, the n-grams of
1 to 4 characters are counted, none of which crosses a blank (scikit-learn's analyser `char_wb`, for words of
at least two characters). Where words are not written apart, as in Chinese or Thai, a whole clause is one
word. Counts enter as 1 + log(count) and rows are scaled, so a long text does not weigh more than a short one.

N-grams are hashed by numpy over all code points of many texts at once: a polynomial in 64 bits, rolled from n
to n + 1, mixed, and its highest bits are the column. One sort of 32-bit keys (text, column) counts them.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEATURES = 1 << 18
LONGEST = 4
VERSION = 1
BLANK = 32
CHUNK = 1 << 18  # characters that are hashed at once: their keys fit into a core's cache
_ROLL = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SALT = 0x94D049BB133111EB
Counts = NDArray[np.int32]


def plain_text(text: str) -> str:
    """Return a text as its n-grams are taken: NFKC, lower case, one blank between words."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def ngram_matrix(texts: Sequence[str], *, features: int = FEATURES, longest: int = LONGEST) -> Any:
    """Return the (D, features) float32 CSR matrix, columns ascending within a row; an empty text is a row of
    zeros. features: a power of two, at most 2**26."""
    from scipy.sparse import csr_array

    rows, columns, counts = ngram_counts(texts, features=features, longest=longest)
    ends = np.searchsorted(rows, np.arange(len(texts) + 1))
    values = (1.0 + np.log(counts)).astype(np.float32)
    norms = np.sqrt(np.bincount(rows, values.astype(np.float64) ** 2, minlength=len(texts)))
    values /= norms[rows].astype(np.float32)
    return csr_array((values, columns, ends.astype(np.int32)), shape=(len(texts), features))


def ngram_counts(
    texts: Sequence[str], *, features: int = FEATURES, longest: int = LONGEST
) -> tuple[Counts, Counts, Counts]:
    """Return rows, columns and counts of the n-grams that occur, ascending by (row, column)."""
    bits = features.bit_length() - 1
    if features != 1 << bits or not 0 < bits <= 26:
        raise ValueError(f"features is {features}, expected a power of two up to 2**26")
    found: list[tuple[Counts, Counts, Counts]] = []
    for start, padded in _chunks(texts, most=1 << (32 - bits)):
        keys = np.sort(_keys(padded, bits, longest))
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]) if len(keys) else np.empty(0, bool))
        counts = np.diff(np.append(first, len(keys))).astype(np.int32)
        keys = keys[first]
        rows = (keys >> np.uint32(bits)).astype(np.int32) + np.int32(start)
        found.append((rows, (keys & np.uint32(features - 1)).astype(np.int32), counts))
    none = np.empty(0, np.int32)
    columns = zip(*found, strict=True) if found else [[none]] * 3
    rows, places, counts = (np.concatenate(list(part)) for part in columns)
    return rows, places, counts


def _chunks(texts: Sequence[str], *, most: int) -> Any:
    """Yield (row of the first text, texts with a blank before and after): about CHUNK characters each."""
    start, size, padded = 0, 0, list[str]()
    for row, text in enumerate(texts):
        padded.append(f" {plain_text(text)} ")
        size += len(padded[-1])
        if size >= CHUNK or len(padded) == most:
            yield start, padded
            start, size, padded = row + 1, 0, []
    if padded:
        yield start, padded


def _keys(padded: Sequence[str], bits: int, longest: int) -> NDArray[np.uint32]:
    """Return the key (row, column) of every n-gram of a chunk, in no order."""
    data = "".join(padded).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(data, "<u4")
    lengths = np.fromiter(map(len, padded), np.int64, len(padded))
    row = np.repeat(np.arange(len(padded), dtype=np.uint32) << np.uint32(bits), lengths)
    wide, blank = codes.astype(np.uint64), codes == BLANK
    rolled, inside = wide, ~blank
    keys: list[NDArray[np.uint32]] = []
    for n in range(1, longest + 1):
        if n > 1:
            rolled = rolled[:-1] * _ROLL + wide[n - 1 :]
        if n == 2:  # no blank beside a blank: that is where one text ends and the next begins
            inside = ~(blank[:-1] & blank[1:])
        elif n == 3:
            inside = ~blank[1:-1]
        elif n > 3:
            inside = inside[:-1] & ~blank[n - 2 : -1]
        kept = rolled[inside]
        kept += np.uint64(n * _SALT % 2**64)
        kept ^= kept >> np.uint64(32)
        kept *= _MIX
        kept >>= np.uint64(64 - bits)
        keys.append(kept.astype(np.uint32) | row[: len(inside)][inside])
    return np.concatenate(keys)
