"""RegMix's domain mixtures: how they are drawn, and random documents in the proportions of one.

In: tokens per domain, a budget in tokens, a generator or seed. Out: shares (n, M), or copies (D,) int32.
"""

from dataclasses import dataclass

import numpy as np

from quadmix.errors import BudgetError, RecipeError
from quadmix.mixing.draw import settle_copies
from quadmix.mixing.rank import pool_tokens
from quadmix.types import Annotations, Copies, Floats


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
    """Draw random documents so that domain m gets `shares[m] * budget` tokens (whole passes, then a draw).

    shares: (M,) >= 0, sum 1. Each domain is met to within one document; documents repeat where a domain is
    smaller than its part. Raises BudgetError for a part of a domain that has no documents.
    """
    available = pool_tokens(table)
    if shares.shape != available.shape or not np.isclose(shares.sum(), 1.0, atol=1e-6) or (shares < 0).any():
        raise RecipeError(
            f"a mixture has shape {shares.shape} and sum {shares.sum():g}, expected ({len(available)},), "
            "shares >= 0 of the table's domains that sum to 1"
        )
    empty = np.flatnonzero((available == 0) & (shares * budget >= 0.5))
    if len(empty):
        m = int(empty[0])
        raise BudgetError(
            f"the mixture asks for {shares[m] * budget:,.0f} tokens of domain {table.domains[m]!r}, which "
            f"has none here: it reaches {budget * shares[available > 0].sum():,.0f} of {budget:,.0f} tokens; "
            "enlarge the pool or give that domain no share"
        )
    rate = shares * budget / np.maximum(available, 1.0)
    expected = np.where(table.held_out, 0.0, rate[table.domain])
    drawn = settle_copies(expected, table.keys, table.tokens, table.domain, num_domains=len(rate), seed=seed)
    return drawn.copies
