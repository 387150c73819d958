"""DSIR: how much likelier a document is under the words of a target text than under those of the pool.

In: texts. Out: their hashed n-grams, counts per bucket, and from the counts of pool and target one log
importance weight per text (arXiv 2302.03169, section 3): log w(x) = Σ over the n-grams g of x of
log p(bucket(g)) - log q(bucket(g)), where p and q are the shares of the buckets in target and pool.

Words, buckets and smoothing are those of the authors' package `data-selection` 1.0.3, so that the weights
agree with it: lower-case runs of letters and digits or of other signs, SHA-256 of the n-gram's words with a
space between, modulo the number of buckets; 1e-8 is added to every share. A batch of texts hashes each of
its distinct n-grams once.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.types import Floats, Ints

_WORD = re.compile(r"\w+|[^\w\s]+")
_SMOOTHING = 1e-8
_DIGEST_WORDS = 8  # a SHA-256 is eight numbers of 32 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramSettings:
    """What is counted. order: n-grams of 1 up to so many words. buckets: of the hash, 2 to 2^32. min_words:
    shorter texts get no weight. The defaults are the package's."""

    order: int = 2
    buckets: int = 10_000
    min_words: int = 100

    def __post_init__(self) -> None:
        if self.order < 1 or not 2 <= self.buckets <= 2**32:
            raise InputError(
                f"n-grams of up to {self.order} words in {self.buckets} buckets; expected an order of 1 or "
                "more and 2 to 2^32 buckets"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ngrams:
    """The n-grams of B texts, first all single words, then all pairs and so on, each in order of the texts.

    bucket: (G,) int64 in 0..buckets-1. text: (G,) int64 in 0..B-1, whose n-gram it is. words: (B,) int64.
    """

    bucket: Ints
    text: Ints
    words: Ints


def hash_ngrams(texts: Sequence[str], settings: NgramSettings) -> Ngrams:
    """Return the hashed n-grams of some texts; memory is about 200 bytes per word of all of them."""
    split = [_WORD.findall(text.lower()) for text in texts]
    words = np.fromiter(map(len, split), np.int64, len(split))
    flat = list(chain.from_iterable(split))
    owner = np.repeat(np.arange(len(split)), words)
    known = _Numbers()
    number = np.fromiter(map(known.__getitem__, flat), np.int64, len(flat))
    bucket, text = [_buckets(list(known), settings.buckets)[number]], [owner]
    begin, gram = np.arange(len(flat)), number
    for size in range(2, settings.order + 1):
        inside = begin + size <= len(flat)
        inside[inside] = owner[begin[inside]] == owner[begin[inside] + size - 1]
        begin = begin[inside]
        # the number of the first size - 1 words and that of the last: both are below 2^32
        pair = (gram[inside] << 32) | number[begin + size - 1]
        places, gram = _distinct(pair)
        names = [" ".join(flat[at : at + size]) for at in begin[places].tolist()]
        bucket.append(_buckets(names, settings.buckets)[gram])
        text.append(owner[begin])
    return Ngrams(bucket=np.concatenate(bucket), text=np.concatenate(text), words=words)


def bucket_counts(ngrams: Ngrams, settings: NgramSettings) -> Ints:
    """Return (buckets,) int64: how many n-grams fell into each bucket. Counts of batches may be added."""
    return np.bincount(ngrams.bucket, minlength=settings.buckets).astype(np.int64)


def log_ratio(target: Ints, raw: Ints) -> Floats:
    """Return (buckets,) float64: log of a bucket's share in the target minus that in the pool.

    target, raw: (buckets,) counts. InputError if one of them holds nothing.
    """
    for name, counts in (("target text has", target), ("documents of the pool have", raw)):
        if not counts.any():
            raise InputError(f"DSIR: the {name} no word at all; check the columns of text in the recipe")
    return np.log(target / target.sum() + _SMOOTHING) - np.log(raw / raw.sum() + _SMOOTHING)


def log_weights(ngrams: Ngrams, ratio: Floats, settings: NgramSettings) -> Floats:
    """Return (B,) float64 log importance weights, larger = more like the target; NaN below `min_words`.

    ratio: (buckets,) of `log_ratio`. A text's weight does not depend on the others of its batch.
    """
    weight = np.bincount(ngrams.text, weights=ratio[ngrams.bucket], minlength=len(ngrams.words))
    return np.where(ngrams.words >= max(settings.min_words, 1), weight, np.nan)


class _Numbers(dict[str, int]):
    """Numbers words in the order in which they are first asked for."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


def _distinct(values: Ints) -> tuple[Ints, Ints]:
    """Return one place of every distinct value, ascending, and for each value which of these is its own.

    As np.unique in less than half the time. Places ascend because neighbours in a text are so in memory.
    """
    order = np.argsort(values)
    ordered = values[order]
    new = np.ones(len(values), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    places = order[new]
    turn = np.argsort(places)
    number = np.empty(len(places), np.int64)
    number[turn] = np.arange(len(places))
    own = np.empty(len(values), np.int64)
    own[order] = number[np.cumsum(new) - 1]
    return places[turn], own


def _buckets(names: Sequence[str], buckets: int) -> Ints:
    """Return SHA-256(name) modulo `buckets` as (len(names),) int64."""
    sha = hashlib.sha256
    digests = b"".join([sha(name.encode()).digest() for name in names])
    parts: NDArray[np.uint64] = np.frombuffer(digests, ">u4").reshape(-1, _DIGEST_WORDS).astype(np.uint64)
    rest = np.zeros(len(parts), np.uint64)
    for column in range(_DIGEST_WORDS):  # long division, the first 32 bits are the highest
        rest = ((rest << np.uint64(32)) | parts[:, column]) % np.uint64(buckets)
    return rest.astype(np.int64)
