"""Selectors that sample documents without replacement until a token budget is met, and that budget's filler.

In: a table, a budget in tokens, a seed. Out: copies (D,) int32, each 0 or 1.
"""

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import BudgetError, ScoreError
from quadmix.mixing.draw import draw_copies
from quadmix.mixing.merge import merge_scores
from quadmix.mixing.sampling import gumbel_keys
from quadmix.rng import keyed_uniform
from quadmix.types import Annotations, Copies, Floats, Ints


def random_copies(table: Annotations, budget: float, *, seed: int) -> Copies:
    """Take documents in random order until the budget is met ("Random" of the paper's Table 1)."""
    order = np.argsort(keyed_uniform(seed, table.keys, "random"), kind="stable")
    return fill_quota(order, table, budget, seed=seed)


def gumbel_copies(
    logits: Floats,
    table: Annotations,
    budget: float,
    *,
    temperature: float,
    seed: int,
    needs: str = "a score",
) -> Copies:
    """Sample documents one after another, each with probability ∝ exp(logit / τ) among those left.

    The order of `gumbel_keys` is such a sample. logits: (D,), larger = likelier, NaN = never taken.
    temperature: τ > 0; towards 0 this is the cut at the best logits, towards infinity random selection.
    """
    keyed = gumbel_keys(logits, table.keys, temperature=temperature, seed=seed)
    return fill_quota(best_first(-keyed, table, seed=seed), table, budget, seed=seed, needs=needs)


def mean_score(normalised: NDArray[np.float32]) -> Floats:
    """Return (D,) the mean of the normalised scores that a document has, 0 = best; NaN where it has none."""
    scored = np.flatnonzero(~np.isnan(normalised).all(axis=1))
    criteria = normalised.shape[1]
    mean = np.full(len(normalised), np.nan)
    mean[scored] = merge_scores(
        normalised[scored], np.full((1, criteria), 1.0 / criteria), np.zeros(len(scored), dtype=np.int16)
    )
    return mean


def best_first(score: Floats, table: Annotations, *, seed: int) -> Ints:
    """Return the rows that have a score (not NaN), smallest first; a hash of the id orders ties."""
    order = np.lexsort((keyed_uniform(seed, table.keys, "ties"), score))  # NaN is sorted last
    return order[~np.isnan(score[order])]


def log_importance(importance: Floats, documents: int) -> Floats:
    """Return the log importance weights, checked: (D,), finite, -inf or NaN (never taken)."""
    if importance.shape != (documents,):
        raise ScoreError(f"importance weights have shape {importance.shape}, expected ({documents},)")
    if np.isposinf(importance).any():
        row = int(np.flatnonzero(np.isposinf(importance))[0])
        raise ScoreError(f"log importance weight of row {row} is infinite, expected a number or NaN")
    return np.where(np.isneginf(importance), np.nan, importance)


def fill_quota(
    order: NDArray[np.int64], table: Annotations, budget: float, *, seed: int, needs: str = ""
) -> Copies:
    """Return one copy of each document in `order` up to `budget` tokens.

    order: rows, best first; rows that it lacks and held-out documents are never taken. The document that
    crosses the budget is kept with the probability of its part inside.
    Raises BudgetError, which names what documents in `order` have (`needs`, such as "a score").
    """
    order = order[~table.held_out[order]]
    tokens = table.tokens[order].astype(np.float64)
    end = np.cumsum(tokens)
    check_supply(budget, float(end[-1]) if len(end) else 0.0, needs)
    expected = np.zeros(len(table))
    expected[order] = np.clip((budget - (end - tokens)) / tokens, 0.0, 1.0)
    return draw_copies(expected, table.keys, seed=seed)


def check_supply(budget: float, available: float, needs: str = "", where: str = "") -> None:
    """Raise BudgetError unless 0 < budget <= available (both in tokens)."""
    if not budget > 0:
        raise BudgetError(f"the budget is {budget:,.0f} tokens, expected more than 0")
    if budget <= available * (1 + 1e-12):
        return
    if needs:
        raise BudgetError(
            f"a budget of {budget:,.0f} tokens{where} needs that many tokens of documents with {needs}; "
            f"there are {available:,.0f}. Lower the budget, or give more documents {needs}"
        )
    raise BudgetError(
        f"a budget of {budget:,.0f} tokens needs a pool of that size; it has {available:,.0f}. Lower the "
        "budget or add documents"
    )
