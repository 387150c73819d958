"""Selectors that keep the best documents: of one criterion, of their mean, per group, or of any.

In: normalised scores (0 = best, NaN = missing), a budget in tokens, a seed. Out: copies (D,) int32, 0 or 1.
A missing score is never taken before one that is there, and never to fill a budget.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.evaluate.sampling import best_first, check_supply, fill_quota, mean_score
from quadmix.mixing.draw import settle_copies
from quadmix.mixing.rank import pool_tokens
from quadmix.types import Annotations, Copies, Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Groups:
    """A partition of the documents. code: (D,) 0..G-1. names: (G,), such as "domain 'news'"."""

    code: NDArray[np.integer[Any]]
    names: tuple[str, ...]


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
    groups = Groups(code=table.domain, names=tuple(f"domain {name!r}" for name in table.domains))
    return grouped_copies(
        _column(normalised, criterion), groups, _natural(table, budget), table,
        seed=seed, needs=_score_of(table, criterion),
    )  # fmt: skip


def grouped_copies(
    score: Floats, groups: Groups, parts: Floats, table: Annotations, *, seed: int, needs: str
) -> Copies:
    """Take the documents of the smallest score in every group until its part is met.

    score: (D,), NaN = never taken. parts: (G,) tokens, each met to within one document, and so are all
    together: the documents that cross a part are settled together. Equal scores are ordered by a hash of the
    document.
    Raises BudgetError, which names the group and what documents in it lack (`needs`).
    """
    order = best_first(score, table, seed=seed)
    order = order[~table.held_out[order]]
    order = order[np.argsort(groups.code[order], kind="stable")]
    starts = np.searchsorted(groups.code[order], np.arange(len(groups.names) + 1))
    expected = np.zeros(len(table))
    for g, part in enumerate(parts):
        rows = order[starts[g] : starts[g + 1]]
        if part <= 0:
            continue
        tokens = table.tokens[rows].astype(np.float64)
        check_supply(float(part), float(tokens.sum()), needs, f" in {groups.names[g]}")
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
