"""The parameters θ of a mixture, ranks, and what a θ selects. Smaller = better; rank 0 = best."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import RecipeError
from quadmix.types.arrays import Copies, Floats

CURVE_FIELDS = ("steepness", "cutoff", "exponent", "floor", "scale")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Theta:
    """The parameters of a mixture (QuaDMix, arXiv 2504.16511, §3; Algorithm 1).

    weights: (M, N) rows on the simplex, α. steepness: (M,) λ > 0. cutoff: (M,) ω in [0, 1],
    the worst rank kept. exponent: (M,) η >= 0. floor: (M,) ε >= 0, the rate outside the window.
    scale: (M,) factor on all expected copies of a domain, 1 unless thinning or an explicit share
    asks for more than the cutoff can give. Differs from the paper, which has no such factor.
    """

    weights: Floats
    steepness: Floats
    cutoff: Floats
    exponent: Floats
    floor: Floats
    scale: Floats = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        if not len(self.scale):
            object.__setattr__(self, "scale", np.ones(len(self.weights)))
        for name in ("weights", *CURVE_FIELDS):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if not np.isfinite(array).all():
                raise RecipeError(f"theta.{name} holds a value that is not finite")
            object.__setattr__(self, name, array)
        if self.weights.ndim != 2:
            raise RecipeError(f"theta.weights has {self.weights.ndim} axes, expected (M, N)")
        for name in CURVE_FIELDS:
            if getattr(self, name).shape != (len(self.weights),):
                got = getattr(self, name).shape
                raise RecipeError(f"theta.{name} has shape {got}, expected ({len(self.weights)},)")
        self._check_ranges()

    def _check_ranges(self) -> None:
        if (self.weights < 0).any() or not np.allclose(self.weights.sum(axis=1), 1.0, atol=1e-9):
            raise RecipeError("theta.weights: every row must be >= 0 and sum to 1")
        if (self.steepness <= 0).any():
            raise RecipeError(f"theta.steepness must be > 0, got {self.steepness.min()}")
        if (self.cutoff < 0).any() or (self.cutoff > 1).any():
            low, high = self.cutoff.min(), self.cutoff.max()
            raise RecipeError(f"theta.cutoff must lie in [0, 1], got {low}..{high}")
        if (self.exponent < 0).any() or (self.floor < 0).any() or (self.scale < 0).any():
            raise RecipeError("theta.exponent, theta.floor and theta.scale must be >= 0")

    @property
    def num_domains(self) -> int:
        return self.weights.shape[0]

    @property
    def num_criteria(self) -> int:
        return self.weights.shape[1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranks:
    """The interval [low, high] of its domain's tokens that each document covers; 0 = best, 1 = worst.

    `paper` and `hash-tiebreak` ranks are points: there low == high.
    """

    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """What a θ makes of a table, per document: normalised (D, N), merged, rank, expected, copies."""

    normalised: NDArray[np.float32]
    merged: Floats
    ranks: Ranks
    expected: Floats
    copies: Copies
