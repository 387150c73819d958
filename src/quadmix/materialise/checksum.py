"""Equality of two large multisets of rows that never meet in memory: sums of hashes, by bucket of the key.

In: key and numbers of every row, in any order and any pieces. Out: (2, BUCKETS) uint64 sums mod 2^64 of two
64-bit mixes of each whole row; the sums of all pieces of one multiset equal those of another with equal rows.
Different multisets agree in a bucket with a probability of about 2^-128. This finds faults, not forgers.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

BUCKETS = 1024
_BITS = np.uint64(54)  # the first 10 of 64
_SALTS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)
_STEP = np.uint64(0xA0761D6478BD642F)

Sums = NDArray[np.uint64]


def bucket_of(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return (C,) the bucket 0..BUCKETS-1 of each key, a hash of a document id."""
    return (keys >> _BITS).astype(np.int64)


def checksum(keys: NDArray[np.uint64], *numbers: NDArray[np.integer]) -> Sums:
    """Return the sums of some rows. keys: (C,) uint64; numbers: (C,) integers each."""
    sums, place = np.zeros((len(_SALTS), BUCKETS), dtype=np.uint64), bucket_of(keys)
    for number, salt in enumerate(_SALTS):
        np.add.at(sums[number], place, mix_rows(keys, numbers, salt))
    return sums


def mix_rows(
    keys: NDArray[np.uint64], numbers: Iterable[NDArray[np.integer]], salt: int = _SALTS[0]
) -> NDArray[np.uint64]:
    """Return (C,) uint64, a hash of each row."""
    with np.errstate(over="ignore"):
        mixed = _mix(keys + np.uint64(salt))
        for column in numbers:
            mixed = _mix((mixed ^ column.astype(np.int64).view(np.uint64)) + _STEP)
    return mixed


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """MurmurHash3's 64-bit finaliser, with the constants of Stafford's variant 13."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
