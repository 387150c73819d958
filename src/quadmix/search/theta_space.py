"""The parameters of QuaDMix as a space to search: unit coordinates -> θ -> fitted to the budget -> features.

Coordinates are those of `mixing.prior` ([α row by row, λ, ω, η, ε]). A fit scales all cutoffs by one factor,
so only ratios of ω matter: θ whose cutoffs were scaled beyond the box are brought back by dividing them by
the largest. The prior's multipliers act on the cutoffs of a point, so that the box is centred on them too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv
from scipy.stats import qmc

from quadmix.errors import BudgetError, SearchError
from quadmix.mixing.batch import FittedBatch, batch_from_unit, batch_to_unit, fit_budgets, stack_thetas
from quadmix.mixing.curve import curve_mass
from quadmix.mixing.limits import Limits
from quadmix.mixing.prior import Prior, draw_theta, mean_theta, prior_mean
from quadmix.search.features import FeatureSample, batch_features, raw_features, sample_documents
from quadmix.search.table import FeatureTable
from quadmix.types import Annotations, Floats, Theta

_BLOCK = 5_000  # draws at once: a θ is an object, a hundred thousand are a gigabyte
_AMPLE = 1.05  # thinning only goes down, so recipes ask for a little more than the budget
_WIDE = (0.3, 3.0)  # strengths of the Dirichlet that the cutoffs of one design point follow


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ThetaSpace:
    """sample: documents behind the features. budget, method, limits: what every θ is fitted to.
    exact: fits one θ as the run does (with its rank mode); may raise BudgetError."""

    sample: FeatureSample
    prior: Prior
    budget: float
    exact: Callable[[Theta], Theta]
    method: Literal["cutoff", "thin"] = "cutoff"
    limits: Limits | None = None

    @property
    def size(self) -> int:
        return self.prior.num_parameters

    @property
    def groups(self) -> tuple[tuple[str, str], ...]:
        """(P,) what a coordinate is and its domain: ("weight[criterion]", domain), ("cutoff", domain), ..."""
        domains, criteria = self.sample.domain_names, self.sample.criterion_names
        weights = [(f"weight[{c}]", d) for d in domains for c in criteria]
        return (*weights, *((k, d) for k in ("steepness", "cutoff", "exponent", "floor") for d in domains))

    def fitted(self, points: Floats) -> FittedBatch:
        """Return the θ of points (B, P), each fitted to the budget and the limits."""
        batch = batch_from_unit(points, self.prior)
        batch = replace(batch, cutoff=np.minimum(1.0, batch.cutoff * self._favour))
        return fit_budgets(batch, self.sample.tokens, self.budget, method=self.method, limits=self.limits)

    def select(self, points: Floats) -> tuple[FeatureTable, NDArray[np.bool_]]:
        found = self.fitted(points)
        return batch_features(self.sample, found.batch, self.prior), found.ok

    def table(self, points: Floats) -> FeatureTable:
        return self.select(points)[0]

    def published_table(self, points: Floats) -> FeatureTable:
        return raw_features(self.sample, self.fitted(points).batch, self.prior)

    def features(self, thetas: Sequence[Theta]) -> FeatureTable:
        """Return the features of θ that are fitted already (trials)."""
        return batch_features(self.sample, stack_thetas(thetas), self.prior)

    def points(self, thetas: Sequence[Theta]) -> Floats:
        """Return the points (K, P) in the box that stand for θ."""
        batch = stack_thetas(thetas)
        batch = replace(batch, cutoff=batch.cutoff / self._favour)
        units = batch_to_unit(batch, self.prior)
        cutoffs = self._cutoffs
        top = units[:, cutoffs].max(axis=1, keepdims=True)
        units[:, cutoffs] /= np.maximum(top, 1.0)
        return np.clip(units, 0.0, 1.0)

    def theta(self, point: Floats) -> Theta:
        """Return the θ of one point, fitted exactly as the run does."""
        return self.exact(self.fitted(point[None]).batch.theta(0))

    def thetas(self, points: Floats) -> tuple[list[Theta], str]:
        """Return the θ of points, fitted exactly; those that cannot be are left out, with the last reason."""
        found, why = list[Theta](), ""
        for point in points:
            try:
                found.append(self.theta(point))
            except BudgetError as error:
                why = str(error)
        return found, why

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Return Algorithm-1 draws that can meet the budget; raises SearchError if hardly any can."""
        kept: list[Floats] = []
        missed = 0
        while sum(map(len, kept)) < count:
            points = self.points(draw_theta(rng, self.prior, min(count, _BLOCK)))
            ok = self.fitted(points).ok
            kept.append(points[ok])
            missed += int((~ok).sum())
            if missed > 20 * min(count, _BLOCK) and missed > 20 * sum(map(len, kept)):
                tried = missed + sum(map(len, kept))
                raise SearchError(
                    f"{missed} of {tried} random θ cannot meet the budget of {self.budget:,.0f} tokens; "
                    f"{self._why(points[~ok][0])}"
                )
        return np.concatenate(kept)[:count]

    def design(self, rng: np.random.Generator, count: int) -> Floats:
        """Return (count, P) space-filling points of a wide prior: a scrambled Sobol sequence.

        Weights are uniform on the simplex. Cutoffs follow a Dirichlet whose strength goes from a few
        domains that hold nearly all to nearly equal ones; the others are uniform in the box.
        """
        size = 2 ** max(
            1, int(np.ceil(np.log2(max(count, 2))))
        )  # a Sobol sequence is balanced at powers of 2
        sobol = qmc.Sobol(self.size + 1, rng=rng)
        kept, tried = np.empty((0, self.size)), 0
        while len(kept) < count:
            points = self._widened(np.clip(sobol.random(size), 1e-9, 1 - 1e-9))
            kept = np.concatenate([kept, points[self.fitted(points).ok]])
            tried += size
            if tried >= 20 * size and len(kept) < count:
                raise SearchError(
                    f"{tried - len(kept)} of {tried} designed θ cannot meet the budget of {self.budget:,.0f} "
                    f"tokens; {self._why(points[0])}"
                )
        return kept[:count]

    def average(self, points: Floats) -> Floats:
        return self.points([mean_theta([self.fitted(p[None]).batch.theta(0) for p in points], self.prior)])[0]

    def swap(self, into: Floats, source: Floats, coordinates: NDArray[np.integer]) -> Floats:
        """Return point `into` with some coordinates of `source`."""
        mixed = into.copy()
        mixed[coordinates] = source[coordinates]
        return mixed

    def _widened(self, raw: Floats) -> Floats:
        domains, criteria = self.prior.num_domains, self.prior.num_criteria
        points = raw[:, :-1].copy()
        weights = -np.log1p(-points[:, : domains * criteria]).reshape(-1, domains, criteria)
        points[:, : domains * criteria] = (weights / weights.sum(axis=2, keepdims=True)).reshape(len(raw), -1)
        low, high = np.log(_WIDE)
        strength = np.exp(low + raw[:, -1:] * (high - low))
        cutoff = gammaincinv(np.broadcast_to(strength, (len(raw), domains)), points[:, self._cutoffs])
        points[:, self._cutoffs] = cutoff / cutoff.max(axis=1, keepdims=True)
        return points

    @property
    def _cutoffs(self) -> slice:
        start = self.prior.num_domains * (self.prior.num_criteria + 1)
        return slice(start, start + self.prior.num_domains)

    @property
    def _favour(self) -> Floats:
        return np.array(self.prior.multipliers or (1.0,) * self.prior.num_domains)

    def _why(self, point: Floats) -> str:
        try:
            self.exact(batch_from_unit(point[None], self.prior).theta(0))
        except BudgetError as error:
            return str(error)
        return "widen the limits or lower the budget"


def theta_space(
    annotations: Annotations,
    normalised: NDArray[np.float32],
    prior: Prior,
    *,
    budget: float,
    exact: Callable[[Theta], Theta],
    seed: int,
    method: Literal["cutoff", "thin"] = "cutoff",
    limits: Limits | None = None,
    per_domain: int = 256,
) -> ThetaSpace:
    """Return the space of θ over scored documents (those that may be selected, and no others)."""
    sample = sample_documents(annotations, normalised, seed=seed, per_domain=per_domain)
    return ThetaSpace(sample=sample, prior=prior, budget=budget, exact=exact, method=method, limits=limits)


def trivial_recipes(
    space: ThetaSpace, annotations: Annotations, normalised: NDArray[np.float32]
) -> dict[str, Theta]:
    """Return the mixtures that anybody would try first, fitted to the budget, by name.

    prior-mean: equal weights, every domain cut at the same rank (shares as in the pool). equal-domains: the
    same with equal token shares. uniform-weights: equal weights and one cut over the whole pool.
    single:<criterion>: that criterion alone, one cut over the whole pool. A recipe that the limits do not
    allow is left out.
    """
    centre = prior_mean(space.prior)
    flat = replace(centre, exponent=np.zeros_like(centre.exponent), floor=np.zeros_like(centre.floor))
    tokens = space.sample.tokens
    ample = space.budget * (1.0 if space.method == "cutoff" else _AMPLE)
    wanted: dict[str, Theta] = {"prior-mean": centre, "equal-domains": _equal(centre, tokens, ample)}
    names, count = space.sample.criterion_names, space.prior.num_criteria
    weights: Mapping[str, Floats] = {
        "uniform-weights": np.full(count, 1.0 / count),
        **{f"single:{name}": np.eye(count)[n] for n, name in enumerate(names)},
    }
    for name, row in weights.items():
        if count == 1 and name == "uniform-weights":
            continue
        cut = _global_cut(annotations, normalised, row, ample)
        every = np.broadcast_to(row, centre.weights.shape).copy()
        wanted[name] = replace(flat, weights=every, cutoff=np.where(tokens > 0, cut, 0.0))
    found: dict[str, Theta] = {}
    for name, theta in wanted.items():
        try:
            found[name] = space.exact(theta)
        except BudgetError:
            continue
    if "prior-mean" not in found:
        raise SearchError(f"the prior mean cannot meet the budget: {space._why(space.points([centre])[0])}")  # pyright: ignore[reportPrivateUsage]
    return found


def _equal(theta: Theta, tokens: Floats, budget: float) -> Theta:
    """Return θ with cutoffs that give every domain the same tokens, or all it has."""

    def supply(cutoff: Floats) -> Floats:
        return tokens * curve_mass(replace(theta, cutoff=cutoff))

    most = supply(np.ones(len(tokens)))
    low, high = 0.0, float(most.max())
    for _ in range(80):
        level = 0.5 * (low + high)
        low, high = (low, level) if np.minimum(level, most).sum() >= budget else (level, high)
    left, right = np.zeros(len(tokens)), np.ones(len(tokens))
    for _ in range(60):
        cutoff = 0.5 * (left + right)
        enough = supply(cutoff) >= np.minimum(high, most)
        left, right = np.where(enough, left, cutoff), np.where(enough, cutoff, right)
    return replace(theta, cutoff=np.where(tokens > 0, right, 0.0))


def _global_cut(
    annotations: Annotations, normalised: NDArray[np.float32], weights: Floats, budget: float
) -> Floats:
    """Return (M,) the share of each domain's tokens among the best `budget` tokens of the whole pool."""
    scores = normalised.astype(np.float64)
    present = np.isfinite(scores)
    mass = present @ weights
    merged = np.where(mass > 0, np.nan_to_num(scores) @ weights / np.where(mass > 0, mass, 1.0), 1.0)
    order = np.argsort(merged, kind="stable")
    tokens = annotations.tokens[order].astype(np.float64)
    inside = np.cumsum(tokens) <= max(budget, tokens[0])
    domain = annotations.domain[order]
    size = len(annotations.domains)
    taken = np.bincount(domain[inside], tokens[inside], size)
    return taken / np.maximum(np.bincount(domain, tokens, size), 1.0)
