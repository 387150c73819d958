"""The shuffled order of the dataset: every copy's place, a function of seed, document ids and copies alone.

In: keys (C,) and copy indices (C,), one entry per copy. Out: times, shards, and the order inside a shard.
Copy j of c of a document with hash time u stands at (u + j / c) mod 1 (the clock of `rng.clock_times`): a
seeded global shuffle in which copies are spread evenly. Shard k of K holds the times k/K..(k + 1)/K, so a
copy knows its shard without knowing the other documents, and a shard is put in order by itself.

Inside a shard, where no other document falls between two copies the later one waits for the next gap, so
copies are never neighbours there unless one document makes up more than half of the shard's rows, where it
cannot be avoided. Over the border of two shards nobody looks: the last row of one and the first of the next
may be copies of one document if no other document falls between them, which takes a dataset of a few
documents.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from quadmix.rng import keyed_uniform
from quadmix.types import Copies, Floats, Ints


def copy_rows(copies: Copies) -> tuple[Ints, Copies]:
    """Return (C,) the document of each copy, ascending, and (C,) its index 0..copies-1. copies: (D,) >= 0."""
    rows = np.repeat(np.arange(len(copies), dtype=np.int64), copies)
    first = np.cumsum(copies, dtype=np.int64) - copies
    return rows, (np.arange(len(rows), dtype=np.int64) - first[rows]).astype(np.int32)


def copy_times(seed: int, keys: NDArray[np.uint64], copy_index: Copies, copies: Copies) -> Floats:
    """Return (C,) float64 in [0, 1), the time of each copy.

    keys: (C,) uint64 hash of the copy's document id. copies: (C,) > 0, how many copies that document has.
    """
    return (keyed_uniform(seed, keys, "clock") + copy_index / copies) % 1.0


def shard_of(times: Floats, shards: int) -> Ints:
    """Return (C,) the shard 0..shards-1 of each copy."""
    return np.minimum((times * shards).astype(np.int64), shards - 1)


def shard_order(keys: NDArray[np.uint64], copy_index: Copies, times: Floats) -> Ints:
    """Return (C,) the permutation that puts the copies of one shard in order; all arrays are (C,)."""
    return separate(keys, np.lexsort((copy_index, keys, times)).astype(np.int64))


def separate(documents: NDArray[np.uint64] | Ints, order: Ints) -> Ints:
    """Return `order` with the fewest delays such that no two neighbours have equal `documents`.

    documents: (C,) document of each copy. order: (C,) permutation. A copy that would follow its own document
    waits until another has passed; those still waiting at the end fill gaps from the back.
    """
    out = order.copy()
    line = documents[order]
    touching = np.flatnonzero(line[1:] == line[:-1]) + 1
    end = 0
    waiting: deque[int] = deque()
    for start in touching.tolist():
        if start >= end and not waiting:
            end, waiting = _delay(documents, order, out, start)
    if not waiting:
        return out
    return _fill_gaps(documents, out[: len(out) - len(waiting)], list(waiting))


def _delay(
    documents: NDArray[np.uint64] | Ints, order: Ints, out: Ints, start: int
) -> tuple[int, deque[int]]:
    """Rewrite `out` from `start` until nobody waits; return where that is, and who waits at the end.

    All who wait are copies of one document, the one placed last.
    """
    waiting: deque[int] = deque()
    place = start
    last = documents[out[start - 1]]
    for taken in range(start, len(order)):
        item = int(order[taken])
        if documents[item] == last:
            waiting.append(item)
        elif not waiting:
            return taken, waiting
        else:
            out[place], out[place + 1] = item, waiting.popleft()
            place += 2
    return len(order), waiting


def _fill_gaps(documents: NDArray[np.uint64] | Ints, placed: Ints, waiting: list[int]) -> Ints:
    """Insert the waiting copies of one document into the last gaps that do not touch it."""
    is_it = documents[placed] == documents[waiting[0]]
    left = np.concatenate(([False], is_it))
    right = np.concatenate((is_it, [False]))
    gaps = np.flatnonzero(~(left | right))[-len(waiting) :]
    stuck = len(waiting) - len(gaps)
    filled = np.insert(placed, gaps, waiting[stuck:])
    return np.concatenate((filled, np.asarray(waiting[:stuck], dtype=np.int64)))
