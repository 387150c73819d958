"""Where a search moves: the unit box, and what a point of it selects.

A `Space` turns points of the box (B, P) into features, and obeys every constraint while doing so: two points
may then select the same. Two are here: `ShareSpace` (mixtures of domains, as in RegMix and Olmix) and, in
`theta_space.py`, the parameters of QuaDMix.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import RecipeError
from quadmix.search.table import SHARE, FeatureTable
from quadmix.types import Floats

LEAST_SHARE = 1e-4  # the share ratio between the low and the high end of a coordinate


class Space(Protocol):
    """P coordinates in [0, 1]. groups: (P,) what a coordinate is and the domain it belongs to."""

    @property
    def size(self) -> int: ...

    @property
    def groups(self) -> tuple[tuple[str, str], ...]: ...

    def select(self, points: Floats) -> tuple[FeatureTable, NDArray[np.bool_]]:
        """Return what points (B, P) select after all constraints, and (B,) whether those can be met there."""
        ...

    def table(self, points: Floats) -> FeatureTable:
        """Return what points select."""
        ...

    def published_table(self, points: Floats) -> FeatureTable:
        """Return as much of the table as the published recipe looks at; the rest may be NaN."""
        ...

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Return random points (count, P) as the published recipe draws them."""
        ...

    def design(self, rng: np.random.Generator, count: int) -> Floats:
        """Return space-filling points (count, P) of a wide prior."""
        ...

    def average(self, points: Floats) -> Floats:
        """Return the mean (P,) of points as the published recipe averages them."""
        ...

    def swap(self, into: Floats, source: Floats, coordinates: NDArray[np.integer]) -> Floats:
        """Return point `into` (P,) with what `source` has in some coordinates."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareBounds:
    """Constraints on shares by name: low <= share <= high; a fixed domain has low == high. (M,) each."""

    domains: tuple[str, ...]
    low: Floats
    high: Floats

    def __post_init__(self) -> None:
        for m, name in enumerate(self.domains):
            if not 0 <= self.low[m] <= self.high[m] <= 1:
                raise RecipeError(
                    f"domain {name!r}: least share {self.low[m]:g} and largest share {self.high[m]:g} "
                    "contradict; expected 0 <= least <= largest <= 1"
                )
        if self.low.sum() > 1 + 1e-9:
            most = sorted(zip(self.low, self.domains, strict=True), reverse=True)[:5]
            named = ", ".join(f"{name} {share:g}" for share, name in most if share > 0)
            raise RecipeError(f"least shares add up to {self.low.sum():g} ({named}), expected at most 1")
        if self.high.sum() < 1 - 1e-9:
            raise RecipeError(
                f"largest shares add up to {self.high.sum():g}, expected at least 1: no mixture can meet "
                "them; raise a cap, the repetition allowed, or lower the budget"
            )

    def project(self, shares: Floats) -> Floats:
        """Return shares clip(k · share, low, high) with the one k per row that makes them sum to 1.

        shares: (B, M) >= 0. Ratios of domains that touch no bound are kept (water-filling).
        """
        shares = np.maximum(shares, 1e-12)
        left, right = np.full(len(shares), -30.0), np.full(len(shares), 30.0)
        for _ in range(60):  # bisection on log k to 1e-16
            middle = 0.5 * (left + right)
            enough = np.clip(np.exp(middle)[:, None] * shares, self.low, self.high).sum(axis=1) >= 1.0
            left, right = np.where(enough, left, middle), np.where(enough, middle, right)
        found = np.clip(np.exp(right)[:, None] * shares, self.low, self.high)
        return found / found.sum(axis=1, keepdims=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareSpace:
    """Mixtures of M domains. Coordinate u of a domain is its log share: share ∝ LEAST_SHARE^(1 - u).

    natural: (M,) the shares of the pool; random mixtures are Dirichlet around their square root, as RegMix's
    (arXiv 2407.01492, temperature 0.5), with strengths from 0.1 to 5.
    """

    bounds: ShareBounds
    natural: Floats

    @property
    def size(self) -> int:
        return len(self.natural)

    @property
    def domains(self) -> tuple[str, ...]:
        return self.bounds.domains

    @property
    def groups(self) -> tuple[tuple[str, str], ...]:
        return tuple(("share", domain) for domain in self.domains)

    def select(self, points: Floats) -> tuple[FeatureTable, NDArray[np.bool_]]:
        return self.table(points), np.ones(len(points), dtype=bool)  # ShareBounds has refused the rest

    def design(self, rng: np.random.Generator, count: int) -> Floats:
        return self.draw(rng, count)

    def shares(self, points: Floats) -> Floats:
        """Return the shares (B, M) of points, all constraints met. A coordinate at 0 is no share."""
        weights = LEAST_SHARE ** (1.0 - points)
        weights = np.where(points > 1e-3, weights / weights.sum(axis=1, keepdims=True), 0.0)
        return self.bounds.project(weights)

    def points(self, shares: Floats) -> Floats:
        """Return points whose shares are these, as far as the box reaches; the largest share is at 1."""
        relative = shares / shares.max(axis=1, keepdims=True)
        return np.clip(1.0 - np.log(np.maximum(relative, LEAST_SHARE)) / np.log(LEAST_SHARE), 0.0, 1.0)

    def table(self, points: Floats) -> FeatureTable:
        return share_table(self.shares(points), self.domains)

    def published_table(self, points: Floats) -> FeatureTable:
        return self.table(points)

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        return self.points(self.bounds.project(draw_shares(rng, self.natural, count)))

    def average(self, points: Floats) -> Floats:
        return self.points(self.shares(points).mean(axis=0, keepdims=True))[0]

    def swap(self, into: Floats, source: Floats, coordinates: NDArray[np.integer]) -> Floats:
        """Give those domains the shares of `source`; the others keep their ratios."""
        old, new = self.shares(np.stack([into, source]))
        mixed = old.copy()
        mixed[coordinates] = new[coordinates]
        rest = np.delete(np.arange(self.size), coordinates)
        if len(rest) and old[rest].sum() > 0:
            mixed[rest] *= (1.0 - mixed[coordinates].sum()) / old[rest].sum()
        return self.points(mixed[None])[0]


def share_table(shares: Floats, domains: tuple[str, ...]) -> FeatureTable:
    """Return the features of mixtures that are given by shares (K, M) alone."""
    return FeatureTable(
        values=shares,
        names=tuple(f"share[{d}]" for d in domains),
        types=(SHARE,) * len(domains),
        domains=tuple(range(len(domains))),
    )


def draw_shares(rng: np.random.Generator, natural: Floats, count: int) -> Floats:
    """Return (count, M) Dirichlet mixtures around √natural with strengths log-uniform in 0.1 to 5."""
    centre = np.sqrt(natural) / np.sqrt(natural).sum()
    strength = np.exp(rng.uniform(np.log(0.1), np.log(5.0), (count, 1)))
    shares = rng.gamma(np.maximum(strength * len(natural) * centre, 1e-2)) + 1e-300
    shares /= shares.sum(axis=1, keepdims=True)
    return np.where(shares < 2e-4, 0.0, shares)
