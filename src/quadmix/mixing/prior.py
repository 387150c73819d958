"""Algorithm 1: the distribution of random θ, its mean, and the unit coordinates of the search.

In: a `Prior` and a generator. Out: θ.

    a_n ~ U(0,1); ã_n = a_n / Σ_i a_i                                   once per θ
    b_{n,m} ~ U(0,1); α_{n,m} = ã_n b_{n,m} / Σ_i ã_i b_{i,m}           per domain
    λ̃ = 10^{3λ}, ω̃ = 0.1 ω, η̃ = η, ε̃ = ε / 1000 with λ, ω, η, ε ~ U(0,1)  per domain

The paper's λ̃ can also be read as 1000 λ: `steepness="linear"`. The factors 0.1, 1 and 1/1000 are
fields. Differs from the paper if asked to: in a share `sparse` of the draws some (never all) ã_n are
0, so that the surrogate has seen what leaving a criterion out does.
θ are averaged in unit coordinates (λ by exponent, the rest arithmetically); the arithmetic mean of
ten λ is 137 where the mean of their exponents gives 32.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from quadmix.errors import RecipeError
from quadmix.recipe import PriorSection
from quadmix.rng import stream
from quadmix.types import Floats, Theta

_CONTROL_DRAWS = 10  # θ behind random_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Ranges of Algorithm 1 for M domains and N criteria; see `recipe.PriorSection`.

    multipliers: factor on the cutoff of each domain, M of them or none (all 1). They stand here and
    not in the budget fit, because a θ is fitted more than once and must not be multiplied again.
    """

    num_domains: int
    num_criteria: int
    steepness: Literal["log", "linear"] = "log"
    cutoff_max: float = 0.1
    exponent_max: float = 1.0
    floor_max: float = 0.001
    sparse: float = 0.0
    multipliers: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.num_domains < 1 or self.num_criteria < 1:
            raise RecipeError(
                f"prior needs at least one domain and one criterion, got {self.num_domains} and "
                f"{self.num_criteria}"
            )
        if not 0 < self.cutoff_max <= 1 or self.exponent_max <= 0 or self.floor_max < 0:
            raise RecipeError(
                f"prior ranges are cutoff_max {self.cutoff_max}, exponent_max {self.exponent_max}, floor_max "
                f"{self.floor_max}; expected 0 < cutoff_max <= 1, exponent_max > 0, floor_max >= 0"
            )

    @property
    def num_parameters(self) -> int:
        """P = M (N + 4)."""
        return self.num_domains * (self.num_criteria + 4)


def prior_from(
    section: PriorSection, num_domains: int, num_criteria: int, multipliers: tuple[float, ...] = ()
) -> Prior:
    """Return the prior that the recipe's `prior` section describes, with factors on domains' cutoffs."""
    return Prior(
        num_domains=num_domains, num_criteria=num_criteria, multipliers=multipliers, **section.model_dump()
    )


def draw_theta(rng: np.random.Generator, prior: Prior, n: int) -> list[Theta]:
    """Draw n θ (Algorithm 1). Each takes the same number of uniforms, so 5 and 5 draws equal 10."""
    return [_draw(rng, prior) for _ in range(n)]


def _draw(rng: np.random.Generator, prior: Prior) -> Theta:
    domains, criteria = prior.num_domains, prior.num_criteria
    # 1 - random() lies in (0, 1]: no division by 0, no λ = 0.
    extra = 1.0 - rng.random(criteria + 2)
    a = 1.0 - rng.random(criteria)
    u = 1.0 - rng.random((domains, criteria + 4))
    if criteria > 1 and extra[0] <= prior.sparse:
        kept = min(1 + int((1.0 - extra[1]) * (criteria - 1)), criteria - 1)
        a[np.argsort(extra[2:])[kept:]] = 0.0
    weights = (a / a.sum()) * u[:, :criteria]
    weights /= weights.sum(axis=1, keepdims=True)
    return _favour(from_unit(np.concatenate([weights.ravel(), u[:, criteria:].T.ravel()]), prior), prior)


def _favour(theta: Theta, prior: Prior) -> Theta:
    """Apply the prior's multipliers to the cutoffs, which stay within [0, 1]."""
    if not prior.multipliers:
        return theta
    return replace(theta, cutoff=np.minimum(1.0, theta.cutoff * np.asarray(prior.multipliers)))


def prior_mean(prior: Prior) -> Theta:
    """Return the centre of the prior: equal weights, every unit coordinate 1/2."""
    domains, criteria = prior.num_domains, prior.num_criteria
    weights = np.full(domains * criteria, 1.0 / criteria)
    return _favour(from_unit(np.concatenate([weights, np.full(4 * domains, 0.5)]), prior), prior)


def to_unit(theta: Theta, prior: Prior) -> Floats:
    """Return (P,) θ as [α row by row, λ, ω, η, ε], each on the scale on which the prior is uniform.

    Draws lie in [0, 1]; a θ fitted to a large budget may exceed 1. `scale` is not a coordinate.
    """
    if theta.weights.shape != (prior.num_domains, prior.num_criteria):
        raise RecipeError(
            f"theta has weights of shape {theta.weights.shape}, expected "
            f"({prior.num_domains}, {prior.num_criteria}) as in the prior"
        )
    steepness = np.log10(theta.steepness) / 3.0 if prior.steepness == "log" else theta.steepness / 1000.0
    floor = theta.floor / prior.floor_max if prior.floor_max else np.zeros(prior.num_domains)
    shape = [steepness, theta.cutoff / prior.cutoff_max, theta.exponent / prior.exponent_max, floor]
    return np.concatenate([theta.weights.ravel(), *shape])


def from_unit(unit: Floats, prior: Prior) -> Theta:
    """Return the θ at unit coordinates (P,); weights are put back on the simplex, the rest into range."""
    if unit.shape != (prior.num_parameters,):
        raise RecipeError(f"unit coordinates have shape {unit.shape}, expected ({prior.num_parameters},)")
    domains, criteria = prior.num_domains, prior.num_criteria
    weights = np.maximum(unit[: domains * criteria].reshape(domains, criteria), 0.0)
    total = weights.sum(axis=1, keepdims=True)
    weights = np.where(total > 0, weights / np.where(total > 0, total, 1.0), 1.0 / criteria)
    steepness, cutoff, exponent, floor = unit[domains * criteria :].reshape(4, domains)
    if prior.steepness == "log":
        steepness = 10.0 ** (3.0 * steepness)
    else:
        steepness = np.maximum(1000.0 * steepness, 1e-9)
    return Theta(
        weights=weights,
        steepness=steepness,
        cutoff=np.clip(prior.cutoff_max * cutoff, 0.0, 1.0),
        exponent=np.maximum(prior.exponent_max * exponent, 0.0),
        floor=np.maximum(prior.floor_max * floor, 0.0),
    )


def mean_theta(thetas: Sequence[Theta], prior: Prior) -> Theta:
    """Return the mean of several θ in unit coordinates (their scales are averaged geometrically)."""
    if not thetas:
        raise RecipeError("mean_theta got no theta, expected at least one")
    mean = from_unit(np.mean([to_unit(theta, prior) for theta in thetas], axis=0), prior)
    with np.errstate(divide="ignore"):
        scale = np.exp(np.mean([np.log(theta.scale) for theta in thetas], axis=0))
    return Theta(
        weights=mean.weights,
        steepness=mean.steepness,
        cutoff=mean.cutoff,
        exponent=mean.exponent,
        floor=mean.floor,
        scale=scale,
    )


def random_mean(prior: Prior, seed: int) -> Theta:
    """Return the mean of ten random θ in unit coordinates: what averaging alone gives, without any proxy."""
    return mean_theta(draw_theta(stream(seed, "random-mean"), prior, _CONTROL_DRAWS), prior)
