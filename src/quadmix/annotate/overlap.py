"""Overlap of the pool with targets and benchmarks: which documents share a 13-word run with their texts.

In: texts. Out: 64-bit hashes of word 13-grams (lower case, punctuation dropped) and, per document, a
bit for every target it overlaps. A target that stands in the pool makes its loss easy to lower for the
wrong reason, so the counts go into the manifest and the report. 13 words is the span of GPT-3's
contamination study (Brown et al. 2020, arXiv 2005.14165, appendix C). Where words are written without
spaces a clause is one word, so characters count, too, whatever stands between: 13 in a row in Chinese and
Japanese, 39 in Thai, Lao, Khmer and Burmese. Unrelated news shares 13 Chinese or Japanese characters with
one in 120 documents, but 13 Thai, Lao or Khmer letters, which are two or three words, with nine in ten
(benchmarks/overlap.py); 39 with one in 90 at most. Texts of fewer words and characters cannot match;
`count_short` says how many they are.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from quadmix.corpus.scripts import unspaced

NGRAM = 13
BITS = 31  # of an int32; with more targets the last bit stands for all the rest
_LETTERS = 3  # times as many letters in a row as words or signs
_WORD = re.compile(r"[^\W_]+")
_PIECE = 1_000_000  # characters hashed at a time, so that one huge document cannot fill the memory
_MARGIN = 1_000  # a piece begins this much earlier, so that no run of words is lost at a cut
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)

Hashes = NDArray[np.uint64]
Split = Callable[[str], Sequence[str]]  # a text in lower case -> its words


def ngram_hashes(texts: Sequence[str], n: int = NGRAM, split: Split | None = None) -> Hashes:
    """Return the sorted distinct (H,) uint64 hashes of all n-grams of the texts, of words and characters; of
    the words that `split` finds alone, where it is given."""
    parts = [_runs(piece, n, split) for text in texts for piece in _pieces(text)]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)


def count_overlap(texts: Sequence[str], hashes: Hashes, n: int = NGRAM) -> NDArray[np.bool_]:
    """Return (D,) bool: does the document contain any of the sorted n-gram `hashes`?"""
    return overlap_bits(texts, [hashes], n) != 0


def overlap_bits(
    texts: Sequence[str], targets: Sequence[Hashes], n: int = NGRAM, split: Split | None = None
) -> NDArray[np.int32]:
    """Return (D,) int32, bit `target_bit(j)` set where a document overlaps target j."""
    bits = np.zeros(len(texts), np.int32)
    if not sum(map(len, targets)):
        return bits
    for i, text in enumerate(texts):
        for piece in _pieces(text):
            windows = _runs(piece, n, split)
            for j, hashes in enumerate(targets):
                if count_shared(windows, hashes):
                    bits[i] |= np.int32(1 << target_bit(j))
    return bits


def target_bit(index: int) -> int:
    """Return the bit of target `index`; targets from the 31st on share the last."""
    return min(index, BITS - 1)


def count_short(texts: Sequence[str], n: int = NGRAM) -> int:
    """Return how many texts have fewer than n words (and characters of scripts without spaces), so that no
    n-gram of theirs can be found anywhere."""
    return sum(not len(_runs(text, n, None)) for text in texts)


def count_shared(windows: Hashes, hashes: Hashes) -> int:
    """Return how many of `windows` are among the sorted `hashes`."""
    if not len(windows) or not len(hashes):
        return 0
    place = np.minimum(np.searchsorted(hashes, windows), len(hashes) - 1)
    return int((hashes[place] == windows).sum())


def plain_words(text: str) -> tuple[str, ...]:
    """Return the words of a text as the n-grams see them: lower case, without punctuation."""
    return tuple(_WORD.findall(text.lower()))


def _pieces(text: str) -> list[str]:
    return [text[max(0, i - _MARGIN) : i + _PIECE] for i in range(0, max(len(text), 1), _PIECE)]


def _runs(text: str, n: int, split: Split | None) -> Hashes:
    """Return the hashes of all runs of n words, then of characters of scripts without spaces."""
    if split is not None:
        return _windows(_word_hashes(text, split), n)
    letters, signs = unspaced(text)
    words = _windows(_word_hashes(text, _WORD.findall), n)
    return np.concatenate([words, character_runs(letters, _LETTERS * n), character_runs(signs, n)])


def character_runs(characters: str, n: int) -> Hashes:
    """Return the hashes of all runs of n characters."""
    if len(characters) < n:
        return np.empty(0, np.uint64)
    codes = np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = (codes + np.uint64(1)) * _MIX  # as random as the hashes of words, and none of them
        mixed ^= mixed >> np.uint64(29)
    return _windows(mixed, n)


def _word_hashes(text: str, split: Split) -> Hashes:
    words = split(text.lower())
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(w.encode("utf-8", "surrogatepass")) for w in words), np.uint64, len(words))


def _windows(words: Hashes, n: int) -> Hashes:
    """Return the hash of every run of n words: a polynomial in the word hashes, modulo 2^64."""
    count = len(words) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for j in range(n):
        total = total * _BASE + words[j : j + count]
    return total
