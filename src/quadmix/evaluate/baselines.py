"""Baseline selectors with one interface: a table, a token budget and a seed in, copies (D,) int32 out.

All meet the same budget in tokens with copies counted, so that a comparison at equal training tokens
differs only in which documents were chosen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import BudgetError
from quadmix.mixing.draw import draw_copies, settle_copies
from quadmix.rng import keyed_uniform
from quadmix.types import Annotations, Copies, Floats


def random_copies(table: Annotations, budget: float, *, seed: int) -> Copies:
    """Take documents in random order until the budget is met ("Random" of the paper's Table 1)."""
    order = np.argsort(keyed_uniform(seed, table.keys, "random"), kind="stable")
    return fill_quota(order, table, budget, seed=seed)


def top_copies(table: Annotations, normalised: NDArray[np.float32], criterion: int, budget: float, *,
               seed: int) -> Copies:  # fmt: skip
    """Take the best documents of one criterion over the whole corpus until the budget is met.

    normalised: (D, N), 0 = best. Ties are ordered by a hash of the document, a missing score is worst.
    """
    score = np.nan_to_num(normalised[:, criterion].astype(np.float64), nan=np.inf)
    order = np.lexsort((keyed_uniform(seed, table.keys, "ties"), score))
    return fill_quota(order, table, budget, seed=seed)


def fill_quota(order: NDArray[np.int64], table: Annotations, budget: float, *, seed: int) -> Copies:
    """Return one copy of each document in `order` up to `budget` tokens.

    The document that crosses the budget is kept with the probability of its part inside.
    """
    tokens = table.tokens[order].astype(np.float64)
    end = np.cumsum(tokens)
    if budget <= 0 or not len(end) or budget > end[-1]:
        total = end[-1] if len(end) else 0
        raise BudgetError(f"a budget of {budget:,.0f} tokens needs a pool of that size; it has {total:,.0f}")
    inside = np.clip((budget - (end - tokens)) / tokens, 0.0, 1.0)
    expected = np.zeros(len(order))
    expected[order] = inside
    return draw_copies(expected, table.keys, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegmixPrior:
    """RegMix's design (arXiv 2407.01492): Dirichlet draws around tempered natural domain shares.

    Concentration log-uniform in 0.1..5 as released; `cap` limits how often a domain may be repeated.
    """

    temperature: float = 0.5
    strength_low: float = 0.1
    strength_high: float = 5.0
    cap: float = 15.0


def draw_mixtures(
    rng: np.random.Generator, domain_tokens: Floats, budget: float, n: int, prior: RegmixPrior | None = None
) -> Floats:
    """Return (n, M) domain shares; rows sum to 1, none asks for a domain more than `cap` times over."""
    prior = prior or RegmixPrior()
    present = domain_tokens > 0
    base = np.where(present, domain_tokens, 0.0) ** prior.temperature
    base /= base.sum()
    limit = np.minimum(1.0, prior.cap * domain_tokens / budget)
    strength = np.exp(rng.uniform(np.log(prior.strength_low), np.log(prior.strength_high), size=n))
    draws = np.zeros((n, len(base)))
    for row, scale in enumerate(strength):
        draws[row, present] = rng.dirichlet(np.maximum(base[present] * scale, 1e-6))
    return cap_shares(draws, limit)


def cap_shares(shares: Floats, limit: Floats) -> Floats:
    """Clip shares (n, M) at `limit` (M,) and give the excess to the other domains in proportion."""
    shares = shares.copy()
    for _ in range(len(limit)):
        over = shares > limit + 1e-12
        if not over.any():
            break
        excess = np.where(over, shares - limit, 0.0).sum(axis=1, keepdims=True)
        shares = np.where(over, limit, shares)
        room = np.where(shares < limit - 1e-12, np.maximum(shares, 1e-9), 0.0)
        shares = shares + excess * room / np.maximum(room.sum(axis=1, keepdims=True), 1e-300)
    return shares / shares.sum(axis=1, keepdims=True)


def mixture_copies(shares: Floats, table: Annotations, budget: float, *, seed: int) -> Copies:
    """Draw random documents so that domain m gets `shares[m] * budget` tokens (whole passes, then a draw)."""
    rate = shares * budget / np.maximum(table.domain_tokens(), 1.0)
    drawn = settle_copies(
        rate[table.domain], table.keys, table.tokens, table.domain, num_domains=len(rate), seed=seed
    )
    return drawn.copies
