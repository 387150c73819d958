"""All targets' surrogates together: cross-validated, fitted, and added up to the objective.

In: a `Swarm` and an `Objective`. Out: `CrossFit` (what fits said of trials they had not seen) and `Model`
(fits on all trials). Fits run side by side in threads, one per (target, kind, fold).

Intervals are conformal: the 90 % quantile of |error| / deviation out of fold scales the predicted
deviation, so that coverage does not rest on the deviations being right, only on their being
proportional.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.engine.threads import run_threads
from quadmix.search.surrogate import (
    Features,
    Predicted,
    Surrogate,
    cross_blend,
    fit_members,
    fit_plain,
    member_weights,
    members_of,
    split_folds,
    with_errors,
)
from quadmix.search.swarm import Swarm, combined, excess
from quadmix.search.table import FeatureTable
from quadmix.types import Floats, Objective

LEVEL = 0.9
_PENALTY = 50.0  # of exceeding a ceiling, per unit of the objective: the search must not trade it for a gain


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """Which surrogate, on which features, with how many threads (0: one per core)."""

    surrogate: str = "auto"
    features: Features = "realised"
    workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CrossFit:
    """Out-of-fold predictions: target -> kind -> `Predicted`, and of the chosen surrogate per target."""

    fit: Fit
    folds: NDArray[np.int64]
    kinds: dict[str, dict[str, Predicted]]
    chosen: dict[str, Predicted]
    members: tuple[str, ...]

    def weights(self, target: str, y: Floats) -> dict[str, float]:
        """Return the weight of every member on one target."""
        parts = [self.kinds[target][k] for k in self.members]
        return dict(zip(self.members, map(float, member_weights(parts, y)), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """Surrogates fitted on all trials, added up to the objective. quantile: of |error| / deviation of the
    objective out of fold; it turns a deviation into the half width of a 90 % interval."""

    surrogates: dict[str, Surrogate]
    objective: Objective
    quantile: float

    def predict(self, table: FeatureTable) -> tuple[Predicted, dict[str, Floats]]:
        """Return the objective with its deviation, and the loss per target, (K,) each."""
        found = {target: model.predict(table) for target, model in self.surrogates.items()}
        return whole(found, self.objective), {target: p.mean for target, p in found.items()}

    def acquisition(self, table: FeatureTable, caution: Floats | float) -> Floats:
        """Return mean - caution · deviation plus a penalty for broken ceilings: what a search minimises."""
        if np.any(np.asarray(caution) > 0):
            predicted, losses = self.predict(table)
            value = predicted.mean - caution * predicted.stderr
        else:
            losses = {target: model.mean(table) for target, model in self.surrogates.items()}
            value = combined(self.objective, losses)
        return value + _PENALTY * excess(self.objective, losses)


def whole(parts: Mapping[str, Predicted], objective: Objective) -> Predicted:
    """Return the objective of predictions per target; their errors are taken as independent."""
    variance = np.sum([(w * parts[t].stderr) ** 2 for t, w in objective.weights.items()], axis=0)
    return Predicted(
        mean=combined(objective, {t: p.mean for t, p in parts.items()}), stderr=np.sqrt(variance)
    )


def cross_fit(swarm: Swarm, fit: Fit, rng: np.random.Generator, *, beside: Sequence[str] = ()) -> CrossFit:
    """Predict every trial by fits on the other four fifths, for every member and the kinds `beside`."""
    members = members_of(fit.surrogate, swarm.table, len(swarm), fit.features)
    kinds = [*members, *(k for k in beside if k not in members)]
    folds = split_folds(len(swarm), rng)
    tasks = [(t, k, int(f)) for t in swarm.losses for k in kinds for f in np.unique(folds)]

    def one(task: tuple[str, str, int]) -> Predicted:
        target, kind, fold = task
        outside = folds != fold
        model = fit_plain(kind, swarm.table.rows(outside), swarm.losses[target][outside], fit.features)
        return model.predict(swarm.table.rows(~outside))

    found = dict(zip(tasks, run_threads(one, tasks, fit.workers), strict=True))
    by_kind: dict[str, dict[str, Predicted]] = {}
    for target, y in swarm.losses.items():
        by_kind[target] = {}
        for kind in kinds:
            mean, stderr = np.empty(len(y)), np.empty(len(y))
            for fold in np.unique(folds):
                part = found[target, kind, int(fold)]
                mean[folds == fold], stderr[folds == fold] = part.mean, part.stderr
            by_kind[target][kind] = with_errors(Predicted(mean=mean, stderr=stderr), y, folds)
    chosen = {t: _chosen([by_kind[t][k] for k in members], y, folds) for t, y in swarm.losses.items()}
    return CrossFit(fit=fit, folds=folds, kinds=by_kind, chosen=chosen, members=tuple(members))


def fit_model(swarm: Swarm, cross: CrossFit, objective: Objective) -> Model:
    """Fit every member of every target on all trials; member weights come from `cross`."""
    tasks = [(t, k) for t in swarm.losses for k in cross.members]

    def one(task: tuple[str, str]) -> Surrogate:
        return fit_plain(task[1], swarm.table, swarm.losses[task[0]], cross.fit.features)

    found = dict(zip(tasks, run_threads(one, tasks, cross.fit.workers), strict=True))
    surrogates = {
        t: fit_members({k: found[t, k] for k in cross.members}, cross.kinds[t], y)
        for t, y in swarm.losses.items()
    }
    predicted = whole(cross.chosen, objective)
    quantile = conformal_quantile((predicted.mean - combined(objective, swarm.losses)) / predicted.stderr)
    return Model(surrogates=surrogates, objective=objective, quantile=quantile)


def conformal_quantile(scores: Floats) -> float:
    """Return the ⌈0.9 (n + 1)⌉-th smallest |score|; NaN when n < 9, where no finite one has that coverage."""
    place = int(np.ceil(LEVEL * (len(scores) + 1)))
    if place > len(scores):
        return float("nan")
    return float(np.sort(np.abs(scores))[place - 1])


def _chosen(parts: list[Predicted], y: Floats, folds: NDArray[np.int64]) -> Predicted:
    return parts[0] if len(parts) == 1 else cross_blend(parts, y, folds)
