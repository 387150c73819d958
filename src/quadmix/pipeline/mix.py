"""What the stages after annotation share: the selectable table, normalised scores, prior, budget, parts.

A `Part` is a hash-chosen share of the selectable documents with the same share of the budget. Proxies
train on a part (repetition-matched pools, paper §3.8 reading A8), the final run on the whole.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import BudgetError
from quadmix.mixing.limits import Limits
from quadmix.mixing.normalise import Normaliser, normalise
from quadmix.mixing.prior import Prior
from quadmix.mixing.quota import fit_budget
from quadmix.mixing.rank import Grouped
from quadmix.mixing.select import group, select
from quadmix.recipe import Recipe
from quadmix.rng import derived_seed, keyed_uniform
from quadmix.types import Annotations, Copies, Ints, Selection, Theta


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Some of the selectable documents and their share of the budget.

    rows: (D',) indices into the selectable table. budget: tokens to select here, copies counted.
    """

    rows: Ints
    table: Annotations
    normalised: NDArray[np.float32]
    grouped: Grouped
    budget: float
    limits: Limits | None
    rank_mode: Literal["interval", "paper", "hash-tiebreak"]
    method: Literal["cutoff", "thin"]
    seed: int

    def calibrate(self, theta: Theta) -> Theta:
        """Scale the cutoffs of θ so that this part's budget is met; any earlier thinning is undone first."""
        return fit_budget(
            replace(theta, scale=np.ones(theta.num_domains)), self.table, self.budget,
            method=self.method, rank_mode=self.rank_mode, limits=self.limits,
            normalised=self.normalised, grouped=self.grouped,
        )  # fmt: skip

    def select(self, theta: Theta, draw: int = 0) -> Selection:
        """Apply a calibrated θ; `draw` numbers independent draws (0 is the run's own)."""
        return select(
            theta, self.normalised, self.table,
            seed=self.draw_seed(draw), rank_mode=self.rank_mode, grouped=self.grouped,
        )  # fmt: skip

    def draw_seed(self, draw: int) -> int:
        """Return the seed of one draw of copies."""
        return draw_seed(self.seed, draw)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mix:
    """The method's inputs for one run.

    full: all D documents of the corpus in order. excluded: (D,) int8, 0 = may be chosen, k = may not
    for reasons[k - 1].
    """

    full: Annotations
    excluded: NDArray[np.int8]
    reasons: tuple[str, ...]
    whole: Part
    normaliser: Normaliser
    prior: Prior
    train_tokens: int
    seed: int

    @property
    def budget(self) -> int:
        return round(self.whole.budget)

    def part(self, share: float) -> Part:
        """Return the hash-chosen part with `share` of the documents; smaller parts lie inside larger."""
        if share >= 1:
            return self.whole
        chosen = keyed_uniform(self.seed, self.whole.table.keys, "pool") < share
        table = self.whole.table.take(chosen)
        if not len(table):
            raise BudgetError(
                f"a pool of {share:.2%} of the documents is empty; train proxies on more tokens"
            )
        fraction = table.tokens.sum(dtype=np.float64) / self.whole.table.tokens.sum(dtype=np.float64)
        return Part(
            rows=np.flatnonzero(chosen),
            table=table,
            normalised=self.whole.normalised[chosen],
            grouped=group(table),
            budget=self.whole.budget * float(fraction),
            limits=self.whole.limits,
            rank_mode=self.whole.rank_mode,
            method=self.whole.method,
            seed=self.seed,
        )

    def proxy_share(self, tokens: int, pool: str) -> float:
        """Return the share of the documents on which a model of `tokens` training tokens is trained.

        repetition-matched: as many epochs as the final run; fresh: the whole pool, one epoch.
        Raises BudgetError if a mixture of the whole pool is too small for that.
        """
        if pool == "fresh" and tokens > self.budget:
            raise BudgetError(
                f"proxy.pool is fresh (one epoch), but a mixture selects {self.budget:,} tokens of "
                f"this pool and a model trains on {tokens:,}: add documents, raise the budget, lower "
                f"training.tokens to {self.budget:,}, or set proxy.pool to repetition-matched"
            )
        return 1.0 if pool == "fresh" else min(1.0, tokens / self.train_tokens)


def draw_seed(seed: int, draw: int = 0) -> int:
    """Return the seed of one draw of copies; 0 is the run's own."""
    return derived_seed(seed, "draw", draw)


def scatter(part: Part, copies: Copies, size: int) -> Copies:
    """Return (size,) copies over the selectable table from (D',) copies of a part."""
    out = np.zeros(size, dtype=np.int32)
    out[part.rows] = copies
    return out


def whole_part(
    recipe: Recipe, table: Annotations, normaliser: Normaliser, budget: float, limits: Limits | None
) -> Part:
    """Return the part that holds every selectable document."""
    return Part(
        rows=np.arange(len(table), dtype=np.int64),
        table=table,
        normalised=normalise(normaliser, table.scores, table.domain),
        grouped=group(table),
        budget=budget,
        limits=limits,
        rank_mode=recipe.mixing.rank_mode,
        method=recipe.budget.method,
        seed=recipe.seed,
    )
