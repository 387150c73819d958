"""The passes of `sweep_kernel`, compiled by numba; imported only when a sweep asks for them.

In and out: see `sweep_kernel.Kernel`. Compiling takes about two seconds, once in a process. Nothing is cached
on disk: the package may lie where nobody may write.
"""

# pyright: reportMissingParameterType=false

from typing import Any

import numba
import numpy as np

_BLOCK = 512  # documents whose merged scores stay in the first cache
# Placing and counting in turns of a few hundred documents is twice as slow as in turns of many.
_TURN = 1 << 18

_jit: Any = numba.njit(nogil=True, error_model="numpy")


@_jit
def counts(scores, tokens, starts, gaps, weights, low, inverse, bins):
    """Return (M, bins) int64 tokens per bin."""
    found = np.zeros((len(gaps), bins), dtype=np.int64)
    sums, places = np.zeros((4, _BLOCK), dtype=np.float32), np.empty(_TURN, dtype=np.uint16)
    for m in range(len(gaps)):
        for begin in range(starts[m], starts[m + 1], _TURN):
            end = min(begin + _TURN, starts[m + 1])
            for a in range(begin, end, _BLOCK):
                e = min(a + _BLOCK, end)
                merged = _merge(sums, scores, a, e, gaps[m], weights[m])
                _place(places[a - begin : e - begin], merged, low[m], inverse[m], np.float32(bins - 1))
            _count(found[m], places[: end - begin], tokens[begin:end])
    return found


@_jit
def spans(scores, start, stop, gaps, weights, low, inverse, wanted):
    """Return (2, bins) float32 least and greatest merged score of the wanted bins."""
    found = np.empty((2, len(wanted)), dtype=np.float32)
    found[0], found[1] = np.float32(np.inf), np.float32(-np.inf)
    sums, places = np.zeros((4, _BLOCK), dtype=np.float32), np.empty(_BLOCK, dtype=np.uint16)
    for a in range(start, stop, _BLOCK):
        e = min(a + _BLOCK, stop)
        merged = _merge(sums, scores, a, e, gaps, weights)
        _place(places[: e - a], merged, low, inverse, np.float32(len(wanted) - 1))
        for i in range(e - a):
            b = places[i]
            if wanted[b]:
                found[0, b] = min(found[0, b], merged[i])
                found[1, b] = max(found[1, b], merged[i])
    return found


@_jit
def _merge(sums, scores, a, e, gaps, weights):
    """Return the merged scores of documents a..e, in the first row of `sums` (4, _BLOCK).

    Column by column: loops over contiguous memory are what the compiler turns into vector instructions.
    """
    q, seen, total, number = sums[0, : e - a], sums[1], sums[2], sums[3]
    if gaps:
        sums[:] = np.float32(0)
        for n in range(len(weights)):
            _present(q, seen, total, number, scores[n, a:e], weights[n])
        _divide(q, seen, total, number)
    else:
        _first(q, scores[0, a:e], weights[0])
        for n in range(1, len(weights)):
            _further(q, scores[n, a:e], weights[n])
    return q


@_jit
def _first(q, column, alpha):
    for i in range(q.size):
        q[i] = alpha * column[i]


@_jit
def _further(q, column, alpha):
    for i in range(q.size):
        q[i] += alpha * column[i]


@_jit
def _present(q, seen, total, number, column, alpha):
    zero, one = np.float32(0), np.float32(1)
    for i in range(q.size):
        known = column[i] == column[i]
        value = column[i] if known else zero
        q[i] += alpha * value
        seen[i] += alpha if known else zero
        total[i] += value
        number[i] += one if known else zero


@_jit
def _divide(q, seen, total, number):
    for i in range(q.size):
        weighted = seen[i] > np.float32(0)
        above = q[i] if weighted else total[i]
        q[i] = above / (seen[i] if weighted else number[i])


@_jit
def _place(places, q, low, inverse, top):
    zero = np.float32(0)
    for i in range(q.size):
        x = (q[i] - low) * inverse
        x = x if x > zero else zero
        places[i] = np.uint16(np.int32(x if x < top else top))


@_jit
def _count(found, places, tokens):
    for i in range(places.size):
        found[places[i]] += tokens[i]
