"""Selectors that keep the best documents: of one criterion, of their mean, per domain, or of any.

In: normalised scores (0 = best, NaN = missing), a budget in tokens, a seed. Out: copies (D,) int32, 0 or 1.
A missing score is never taken before one that is there, and never to fill a budget.
"""

import numpy as np
from numpy.typing import NDArray

from quadmix.evaluate.sampling import best_first, check_supply, fill_quota, mean_score
from quadmix.mixing.draw import settle_copies
from quadmix.mixing.rank import pool_tokens
from quadmix.types import Annotations, Copies, Floats


def top_copies(table: Annotations, normalised: NDArray[np.float32], criterion: int, budget: float, *,
               seed: int) -> Copies:  # fmt: skip
    """Take the best documents of one criterion over the whole corpus until the budget is met.

    normalised: (D, N), 0 = best. Ties are ordered by a hash of the document.
    """
    order = best_first(_column(normalised, criterion), table, seed=seed)
    return fill_quota(order, table, budget, seed=seed, needs=_score_of(table, criterion))


def global_cut_copies(
    table: Annotations, normalised: NDArray[np.float32], budget: float, *, seed: int
) -> Copies:
    """Take the documents of the best mean normalised score over the whole corpus until the budget is met."""
    order = best_first(mean_score(normalised), table, seed=seed)
    return fill_quota(order, table, budget, seed=seed, needs="a score")


def top_domain_copies(
    table: Annotations, normalised: NDArray[np.float32], criterion: int, budget: float, *, seed: int
) -> Copies:
    """Take the best documents of one criterion in every domain, which keeps its share of the pool's tokens.

    Domain m gets budget · T_m / Σ T tokens to within one document, all together to within one document: the
    documents that cross a domain's part are settled together (`settle_copies`).
    """
    score = _column(normalised, criterion)
    wanted = _natural(table, budget)
    order = best_first(score, table, seed=seed)
    order = order[~table.held_out[order]]
    order = order[np.argsort(table.domain[order], kind="stable")]
    starts = np.searchsorted(table.domain[order], np.arange(len(table.domains) + 1))
    expected = np.zeros(len(table))
    for m, part in enumerate(wanted):
        rows = order[starts[m] : starts[m + 1]]
        if part <= 0:
            continue
        tokens = table.tokens[rows].astype(np.float64)
        where = f" in domain {table.domains[m]!r}"
        check_supply(float(part), float(tokens.sum()), _score_of(table, criterion), where)
        expected[rows] = np.clip((part - (np.cumsum(tokens) - tokens)) / tokens, 0.0, 1.0)
    return settle_together(expected, table, seed=seed)


def union_copies(table: Annotations, normalised: NDArray[np.float32], budget: float, *, seed: int) -> Copies:
    """Take the union of the best k tokens of every criterion; k is such that the union meets the budget.

    A document enters the union at the smallest k at which some criterion's best k tokens hold it, so the
    union for the right k is the documents in the order in which they enter.
    """
    enters = np.full(len(table), np.nan)
    for n in range(normalised.shape[1]):
        order = best_first(_column(normalised, n), table, seed=seed)
        order = order[~table.held_out[order]]
        enters[order] = np.fmin(enters[order], np.cumsum(table.tokens[order], dtype=np.int64))
    order = best_first(enters, table, seed=seed)
    return fill_quota(order, table, budget, seed=seed, needs="a score")


def settle_together(expected: Floats, table: Annotations, *, seed: int) -> Copies:
    """Draw copies whose tokens add up to Σ t · expected to within one document, whatever the domains."""
    whole = np.zeros(len(table), dtype=np.int16)
    return settle_copies(expected, table.keys, table.tokens, whole, num_domains=1, seed=seed).copies


def _column(normalised: NDArray[np.float32], criterion: int) -> Floats:
    return normalised[:, criterion].astype(np.float64)


def _natural(table: Annotations, budget: float) -> Floats:
    """Return (M,) the budget in proportion to the tokens of the domains."""
    available = pool_tokens(table)
    check_supply(budget, float(available.sum()))
    return budget * (available / available.sum())


def _score_of(table: Annotations, criterion: int) -> str:
    return f"a score of {table.criteria[criterion].name!r}"
