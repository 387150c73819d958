"""Randomness as a function of (seed, stream name, key): no state, no order, no global generator.

`keyed_uniform` gives every document its own number, whatever shard, worker or order it is met in
(promise P7); `stream` gives a numpy Generator that is named, so that adding a stage never shifts
the draws of another.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator of the named stream of a seed; equal names give equal draws."""
    digest = xxhash.xxh3_128_digest("\x1f".join(map(str, names)).encode())
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype=np.uint32).tolist()])


def derived_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the named stream (for libraries that want an integer)."""
    return int(stream(seed, *names).integers(2**63))


def doc_keys(doc_ids: Iterable[str]) -> NDArray[np.uint64]:
    """Return (D,) uint64, the xxh3 hash of each document id."""
    return np.fromiter(
        (xxhash.xxh3_64_intdigest(i.encode("utf-8", "surrogatepass")) for i in doc_ids), dtype=np.uint64
    )


def keyed_uniform(
    seed: int, keys: NDArray[np.uint64] | Sequence[str], name: str = "copies"
) -> NDArray[np.float64]:
    """Return (D,) float64 in [0, 1), a function of (seed, name, key) alone.

    keys: (D,) uint64 from `doc_keys`, or the document ids themselves.
    The mixer is SplitMix64's finaliser, applied twice with the stream's salt between.
    """
    array = keys if isinstance(keys, np.ndarray) and keys.dtype == np.uint64 else doc_keys(keys)  # pyright: ignore[reportArgumentType]
    salt = np.uint64(xxhash.xxh3_64_intdigest(f"{seed}\x1f{name}".encode()))
    with np.errstate(over="ignore"):
        mixed = _mix(_mix(array + _GOLDEN) ^ salt)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def clock_times(
    seed: int, keys: NDArray[np.uint64], copies: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the place of every copy in an epoch as (document row, time in [0, 1)).

    Copy j of c of a document with hash time u stands at (u + j / c) mod 1: copies are spread
    evenly through the epoch, never adjacent, and two selections differ only where their
    copies differ. Both results have length sum(copies); rows are ascending.
    """
    rows = np.repeat(np.arange(len(copies), dtype=np.int64), copies)
    first = np.cumsum(copies, dtype=np.int64) - copies
    copy_index = np.arange(len(rows), dtype=np.int64) - first[rows]
    start = keyed_uniform(seed, keys, "clock")
    times = (start[rows] + copy_index / copies[rows]) % 1.0
    return rows, times
