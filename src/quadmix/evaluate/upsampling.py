"""Quality-aware upsampling: copies rise smoothly with quality, the worst documents are dropped.

In: a merged score, a budget in tokens, a seed. Out: copies (D,) int32, 0 to 7.

    f(x) = C (x - a)^p for x > a, else 0;      ∫ f dx = budget / tokens;      f(1) = cap

x is the quality percentile of a token (0 = worst, 1 = best), f its expected copies (Olmo 3, arXiv 2512.13961,
§3.4.4). Published are the family, the integral, a cap of 7 copies, that about 40 % are dropped and that the
best are repeated about 7 times. Ours: a = 0.4 and the cap is reached at the best token, which leaves

    p = cap (1 - a) / (budget / tokens) - 1,      C = cap / (1 - a)^p.

Differs: there the cap holds for the mean of a quality bucket, here for every document, and there is one curve
for the pool, not one per topic.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import BudgetError
from quadmix.evaluate.cuts import settle_together
from quadmix.evaluate.sampling import mean_score
from quadmix.mixing.rank import rank_within_domain
from quadmix.types import Annotations, Copies, Floats

CAP, DROPPED = 7.0, 0.4
_NEVER = 1e-12  # the tail of a steep curve goes down to 1e-300, which no draw can divide by


@dataclass(frozen=True, slots=True, kw_only=True)
class UpsamplingCurve:
    """f(x) = cap · ((x - dropped) / (1 - dropped))^power above `dropped`; x: quality percentile."""

    power: float
    dropped: float = DROPPED
    cap: float = CAP

    def copies(self, quality: Floats) -> Floats:
        """Return f at percentiles in [0, 1], 1 = best."""
        kept = self._kept(quality)
        return np.where(kept > 0, self.cap * kept**self.power, 0.0)

    def tokens_below(self, quality: Floats) -> Floats:
        """Return ∫_0^x f, in units of the pool's tokens."""
        total = self.cap * (1.0 - self.dropped) / (self.power + 1.0)
        return total * self._kept(quality) ** (self.power + 1.0)

    def _kept(self, quality: Floats) -> Floats:
        return np.clip((quality - self.dropped) / (1.0 - self.dropped), 0.0, 1.0)


def solve_curve(
    budget: float, tokens: float, *, dropped: float = DROPPED, cap: float = CAP
) -> UpsamplingCurve:
    """Return the curve whose integral is budget / tokens (of the pool).

    Raises BudgetError where even `cap` copies of all that is kept are too few.
    """
    most = cap * (1.0 - dropped) * tokens
    if not 0 < budget <= most:
        raise BudgetError(
            f"a budget of {budget:,.0f} tokens is not in 0..{most:,.0f}, what the best {1 - dropped:.0%} of "
            f"{tokens:,.0f} tokens with a score give in at most {cap:g} copies; lower the budget or add "
            "documents"
        )
    return UpsamplingCurve(power=most / budget - 1.0, dropped=dropped, cap=cap)


def upsampled_copies(
    table: Annotations, normalised: NDArray[np.float32], budget: float, *, seed: int
) -> Copies:
    """Repeat documents by the percentile of their mean normalised score until the budget is met.

    normalised: (D, N), 0 = best. Documents without any score are not part of the pool here. A document
    expects the mean of f over the tokens that it covers, ties together, so the expected tokens
    are the budget.
    """
    score = mean_score(normalised)
    rows = np.flatnonzero(~np.isnan(score) & ~table.held_out)
    pool = float(table.tokens[rows].sum(dtype=np.int64))
    curve = solve_curve(budget, pool)
    ranks = rank_within_domain(score[rows], table.tokens[rows], np.zeros(len(rows), dtype=np.int16))
    given = curve.tokens_below(1.0 - ranks.low) - curve.tokens_below(1.0 - ranks.high)
    expected = np.zeros(len(table))
    mean = np.clip(given / (ranks.high - ranks.low), 0.0, curve.cap)
    expected[rows] = np.where(mean < _NEVER, 0.0, mean)
    return settle_together(expected, table, seed=seed)
