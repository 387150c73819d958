"""One pass over a table grouped by domain: merged scores -> tokens per bin of merged score.

In: a block of score columns and tokens, weights, the range of the bins. Out: token counts per bin.

Two implementations: `PLAIN` here (numpy) and the same in `sweep_numba` (compiled, without the interpreter's
lock). Both add and multiply float32 in the same order, so that they agree to the last token. Scores are
merged as in `merge_scores` (Eq. 1), but in float32: a table of ten million documents is limited by memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import MissingExtraError
from quadmix.types import Ints

KernelName = Literal["auto", "numba", "numpy"]
Singles = NDArray[np.float32]
Tokens = NDArray[np.int32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The two passes. A document falls into bin floor((merged - low) · inverse), clipped to 0..bins - 1.

    counts(scores (N, D) grouped by domain, NaN = missing; tokens (D,); starts (M + 1,); gaps (M,) whether the
        domain has missing scores; weights (M, N), low and inverse (M,), float32; bins) -> (M, bins) int64
    spans(scores (N, D); start, stop of one domain; its gaps; weights (N,); low; inverse; wanted (bins,))
        -> (2, bins) float32, least and greatest merged score of each wanted bin; +inf and -inf elsewhere
    """

    counts: Callable[[Singles, Tokens, Ints, Flags, Singles, Singles, Singles, int], Ints]
    spans: Callable[[Singles, int, int, bool, Singles, np.float32, np.float32, Flags], Singles]


def kernel_of(name: KernelName) -> Kernel:
    """Return the kernel; `auto` is numba where it is installed. The first call with numba compiles it."""
    if name == "numpy":
        return PLAIN
    try:
        import numba  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        if name == "auto":
            return PLAIN
        raise MissingExtraError("numba", "search", "the compiled sweep") from error
    from quadmix.mixing import sweep_numba

    return Kernel(counts=sweep_numba.counts, spans=sweep_numba.spans)


def merge_columns(scores: Singles, weights: Singles, gaps: bool) -> Singles:
    """Return (D,) float32 merged scores of one domain. scores: (N, D). weights: (N,)."""
    if not gaps:
        merged = weights[0] * scores[0]
        for alpha, column in zip(weights[1:], scores[1:], strict=True):
            merged += alpha * column
        return merged
    known = ~np.isnan(scores)
    merged, seen, total, number = (np.zeros(scores.shape[1], dtype=np.float32) for _ in range(4))
    for alpha, column, has in zip(weights, scores, known, strict=True):
        value, one = np.where(has, column, np.float32(0)), has.astype(np.float32)
        merged += alpha * value
        seen += alpha * one
        total += value
        number += one
    weighted = seen > 0
    return np.divide(np.where(weighted, merged, total), np.where(weighted, seen, number), dtype=np.float32)


def places_of(merged: Singles, low: np.float32, inverse: np.float32, bins: int) -> NDArray[np.uint16]:
    """Return (D,) the bin of every merged score."""
    return np.clip((merged - low) * inverse, np.float32(0), np.float32(bins - 1)).astype(np.uint16)


def _counts(
    scores: Singles, tokens: Tokens, starts: Ints, gaps: Flags,
    weights: Singles, low: Singles, inverse: Singles, bins: int,
) -> Ints:  # fmt: skip
    counts = np.zeros((len(gaps), bins), dtype=np.int64)
    for m in range(len(gaps)):
        block = slice(int(starts[m]), int(starts[m + 1]))
        merged = merge_columns(scores[:, block], weights[m], bool(gaps[m]))
        np.add.at(counts[m], places_of(merged, low[m], inverse[m], bins), tokens[block])
    return counts


def _spans(
    scores: Singles, start: int, stop: int, gaps: bool,
    weights: Singles, low: np.float32, inverse: np.float32, wanted: Flags,
) -> Singles:  # fmt: skip
    merged = merge_columns(scores[:, start:stop], weights, gaps)
    places = places_of(merged, low, inverse, len(wanted))
    inside = np.flatnonzero(wanted[places])
    spans = np.repeat(np.array([[np.inf], [-np.inf]], dtype=np.float32), len(wanted), axis=1)
    np.minimum.at(spans[0], places[inside], merged[inside])
    np.maximum.at(spans[1], places[inside], merged[inside])
    return spans


PLAIN = Kernel(counts=_counts, spans=_spans)
