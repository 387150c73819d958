"""Equation 1: several criteria -> one merged score per document (QuaDMix, arXiv 2504.16511).

In: normalised scores and the weights of each domain. Out: the merged score, smaller = better.

    q̄_x = Σ_n σ(q_{n,x}) α_{n, d_x}                                                    (Eq. 1)

Differs from the paper, which has no missing scores: a missing score (NaN) is left out and the
weights of the criteria that are present are rescaled to sum to 1, so a document is never judged by
a score it lacks. Where all present criteria have weight 0, they count equally.
"""

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import ScoreError
from quadmix.types import Floats, Ints


def merge_scores(scores: NDArray[np.floating], weights: Floats, domain: NDArray[np.integer]) -> Floats:
    """Return the merged score q̄ of every document (Eq. 1).

    scores: (D, N) normalised, smaller = better, NaN = missing. weights: (M, N), rows on the simplex.
    domain: (D,) in 0..M-1. Result: (D,) float64, finite, smaller = better.
    """
    if scores.ndim != 2 or scores.shape[1] != weights.shape[1]:
        raise ScoreError(
            f"merge_scores got scores of shape {scores.shape}, expected (D, {weights.shape[1]}) "
            f"to fit weights of shape {weights.shape}"
        )
    # Criterion by criterion, so that a document's sum never depends on its neighbours in memory.
    merged, present = np.zeros(len(scores)), np.zeros(len(scores))
    for n in range(scores.shape[1]):
        column = scores[:, n].astype(np.float64)
        known = ~np.isnan(column)
        alpha = np.where(known, weights[domain, n], 0.0)
        merged += alpha * np.where(known, column, 0.0)
        present += alpha
    missing = np.flatnonzero(np.isnan(scores).any(axis=1))
    return _renormalise(merged, present, scores, missing) if len(missing) else merged


def _renormalise(merged: Floats, present: Floats, scores: NDArray[np.floating], rows: Ints) -> Floats:
    """Divide by the weight that is present in the rows that lack a score."""
    known = ~np.isnan(scores[rows])
    if not known.any(axis=1).all():
        bare = rows[~known.any(axis=1)]
        raise ScoreError(
            f"{len(bare)} documents have no score at all (first: row {bare[0]}), expected at least one "
            "criterion each; drop them or impute them (annotate.missing: drop or median)"
        )
    plain = np.where(known, scores[rows], 0.0).sum(axis=1, dtype=np.float64) / known.sum(axis=1)
    weight = present[rows]
    result = merged.copy()
    result[rows] = np.where(weight > 0, merged[rows] / np.where(weight > 0, weight, 1.0), plain)
    return result
