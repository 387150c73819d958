"""The order of the dataset: every copy's place, a function of seed, document ids and copies alone.

In: keys (D,) and copies (D,). Out: `Order`, one entry per copy. Copy j of c of a document with hash time u
stands at (u + j / c) mod 1 (`rng.clock_times`): a seeded global shuffle in which copies are spread evenly.
Where no other document falls between two copies the later one waits for the next gap, so copies are never
adjacent unless one document makes up more than half of the rows, where it cannot be avoided.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.rng import clock_times
from quadmix.types import Copies, Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """One entry per copy, documents ascending and copies of a document in turn.

    row: (C,) index of the document. copy_index: (C,) 0..copies-1. position: (C,) place in the dataset,
    a permutation of 0..C-1.
    """

    row: Ints
    copy_index: Copies
    position: Ints


def output_order(keys: NDArray[np.uint64], copies: Copies, *, seed: int) -> Order:
    """Return where every copy stands in the dataset.

    keys: (D,) uint64 hash of the document id. copies: (D,) int32 >= 0.
    """
    rows, times = clock_times(seed, keys, copies)
    first = np.cumsum(copies, dtype=np.int64) - copies
    copy_index = (np.arange(len(rows), dtype=np.int64) - first[rows]).astype(np.int32)
    order = separate(rows, np.lexsort((copy_index, keys[rows], times)).astype(np.int64))
    position = np.empty(len(rows), dtype=np.int64)
    position[order] = np.arange(len(rows), dtype=np.int64)
    return Order(row=rows, copy_index=copy_index, position=position)


def separate(rows: Ints, order: Ints) -> Ints:
    """Return `order` with the fewest delays such that no two neighbours have equal `rows`.

    rows: (C,) document of each copy. order: (C,) permutation. A copy that would follow its own document
    waits until another has passed; those still waiting at the end fill gaps from the back.
    """
    out = order.copy()
    documents = rows[order]
    touching = np.flatnonzero(documents[1:] == documents[:-1]) + 1
    end = 0
    waiting: deque[int] = deque()
    for start in touching.tolist():
        if start >= end and not waiting:
            end, waiting = _delay(rows, order, out, start)
    if not waiting:
        return out
    return _fill_gaps(rows, out[: len(out) - len(waiting)], list(waiting))


def _delay(rows: Ints, order: Ints, out: Ints, start: int) -> tuple[int, deque[int]]:
    """Rewrite `out` from `start` until nobody waits; return where that is, and who waits at the end.

    All who wait are copies of one document, the one placed last.
    """
    waiting: deque[int] = deque()
    place = start
    last = int(rows[out[start - 1]])
    for taken in range(start, len(order)):
        item = int(order[taken])
        if rows[item] == last:
            waiting.append(item)
        elif not waiting:
            return taken, waiting
        else:
            out[place], out[place + 1] = item, waiting.popleft()
            place += 2
    return len(order), waiting


def _fill_gaps(rows: Ints, placed: Ints, waiting: list[int]) -> Ints:
    """Insert the waiting copies of one document into the last gaps that do not touch it."""
    is_it = rows[placed] == rows[waiting[0]]
    left = np.concatenate(([False], is_it))
    right = np.concatenate((is_it, [False]))
    gaps = np.flatnonzero(~(left | right))[-len(waiting) :]
    stuck = len(waiting) - len(gaps)
    filled = np.insert(placed, gaps, waiting[stuck:])
    return np.concatenate((filled, np.asarray(waiting[:stuck], dtype=np.int64)))
