"""What more trials would buy, and how much a proposal promises too much.

Learning curve: the folds of the cross-validation again, trained on a quarter, half and three quarters of what
they had; rmse² = floor + b n^-c through the points forecasts 100 more trials. Optimism: propose on one half
of the trials, judge by the other, both ways; a surrogate that was searched hard promises more than a fresh
one confirms.
"""

from dataclasses import replace

import numpy as np

from quadmix.engine.threads import run_threads
from quadmix.rng import derived_seed, stream
from quadmix.search.adaptive import Known, barred
from quadmix.search.model import CrossFit, Model, fit_model, whole
from quadmix.search.optimise import Effort, minimise
from quadmix.search.surrogate import LEAST, LEAST_ANY, Predicted, fit_plain
from quadmix.search.swarm import Swarm, combined
from quadmix.types import Floats, LearningCurve, LearningPoint, Objective, Optimism

MORE = 100
_SHARES = (0.25, 0.5, 0.75)
_QUICK = Effort(steps=60, population=16)
_POWERS = np.linspace(0.25, 2.0, 36)


def learning_curve(
    swarm: Swarm, cross: CrossFit, objective: Objective, seed: int, noise_sd: float = float("nan")
) -> LearningCurve:
    """Return out-of-fold error against the number of trials, by the member with the most weight.

    noise_sd: of one trial (NaN: unknown); no forecast goes below it. Sizes at which that member cannot be
    fitted are left out; below three points there is no forecast.
    """
    kind = strongest(swarm, cross)
    rng = stream(seed, "learning")
    place = rng.permutation(len(swarm))
    folds = np.unique(cross.folds)
    inside = len(swarm) * (len(folds) - 1) // len(folds)
    sizes = [int(share * inside) for share in _SHARES if share * inside >= LEAST.get(kind, LEAST_ANY)]
    tasks = [(size, int(fold), target) for size in sizes for fold in folds for target in swarm.losses]

    def one(task: tuple[int, int, str]) -> Floats:
        size, fold, target = task
        rows = place[cross.folds[place] != fold][:size]
        model = fit_plain(kind, swarm.table.rows(rows), swarm.losses[target][rows], cross.fit.features)
        return model.predict(swarm.table.rows(cross.folds == fold)).mean

    found = dict(zip(tasks, run_threads(one, tasks, cross.fit.workers), strict=True))
    truth = combined(objective, swarm.losses)
    points: list[LearningPoint] = []
    for size in sizes:
        parts: dict[str, Predicted] = {}
        for target, y in swarm.losses.items():
            mean = np.empty(len(y))
            for fold in folds:
                mean[cross.folds == fold] = found[size, int(fold), target]
            parts[target] = Predicted(mean=mean, stderr=np.zeros(len(y)))
        points.append(_point(size, whole(parts, objective).mean, truth))
    full = whole({t: cross.kinds[t][kind] for t in swarm.losses}, objective).mean
    points.append(_point(inside, full, truth))
    return LearningCurve(points=tuple(points), forecast=_forecast(points, float(truth.var()), noise_sd))


def strongest(swarm: Swarm, cross: CrossFit) -> str:
    """Return the member with the largest mean weight over the targets."""
    total = {k: 0.0 for k in cross.members}
    for target, y in swarm.losses.items():
        for kind, weight in cross.weights(target, y).items():
            total[kind] += weight
    return max(total, key=lambda kind: total[kind])


def optimism(known: Known, cross: CrossFit, objective: Objective, seed: int) -> Optimism | None:
    """Propose on half A and judge by half B, both ways; None where a half is too small for every
    member; those that need more are left out.

    The members' weights are those of all trials, so the halves differ in what they were fitted on alone.
    """
    count = len(known.swarm)
    able = tuple(kind for kind in cross.members if count // 2 >= LEAST.get(kind, LEAST_ANY))
    if not able:
        return None
    cross = replace(cross, members=able)
    order = stream(seed, "halves").permutation(count)
    halves = [np.sort(order[: count // 2]), np.sort(order[count // 2 :])]
    models = [fit_model(known.swarm.rows(half), _part(cross, half), objective) for half in halves]
    promised: list[float] = []
    judged: list[float] = []
    for own, other, half in zip(models, models[::-1], halves, strict=True):
        part = known.rows(half)
        point = best_points(part, own, 2, derived_seed(seed, "optimism", int(half[0])), _QUICK)[:1]
        table = known.space.table(point)
        promised.append(float(own.predict(table)[0].mean[0]))
        judged.append(float(other.predict(table)[0].mean[0]))
    gaps = np.array(judged) - np.array(promised)
    return Optimism(
        promised=float(np.mean(promised)), judged=float(np.mean(judged)),
        optimism=float(gaps.mean()), halves=tuple(map(float, gaps)),
    )  # fmt: skip


def best_points(known: Known, model: Model, runs: int, seed: int, effort: Effort) -> Floats:
    """Return (runs + 1, P): the mean of `runs` CMA-ES runs from the trials predicted best, then the runs,
    best predicted first. The mean leads unless the surrogate itself sees it clearly worse than the best."""
    predicted = model.predict(known.swarm.table)[0].mean
    starts = known.points[np.argsort(predicted, kind="stable")[:runs]]
    found, values = minimise(
        lambda points, _: barred(known.space, model, points), starts, seed=seed, effort=effort
    )
    found = found[np.argsort(values, kind="stable")]
    mean = found.mean(axis=0, keepdims=True)
    at_mean = float(barred(known.space, model, mean)[0])
    spread = float(model.predict(known.space.table(found[:1]))[0].stderr[0])
    order = [mean, found] if at_mean <= float(values.min()) + 0.5 * spread else [found, mean]
    return np.concatenate(order)


def _part(cross: CrossFit, rows: np.ndarray) -> CrossFit:
    def cut(found: dict[str, Predicted]) -> dict[str, Predicted]:
        return {name: p.at(rows) for name, p in found.items()}

    return replace(
        cross,
        folds=cross.folds[rows],
        kinds={t: cut(k) for t, k in cross.kinds.items()},
        chosen=cut(cross.chosen),
    )


def _point(trials: int, predicted: Floats, truth: Floats) -> LearningPoint:
    square = float(((predicted - truth) ** 2).mean())
    return LearningPoint(trials=trials, rmse=square**0.5, r2=1.0 - square / float(truth.var()))


def _forecast(points: list[LearningPoint], variance: float, noise_sd: float) -> LearningPoint | None:
    """Fit rmse² = floor + b n^-c (floor, b >= 0) over a grid of c; evaluate at 100 more trials."""
    if len(points) < 3:
        return None
    sizes = np.array([p.trials for p in points], dtype=np.float64)
    square = np.array([p.rmse for p in points]) ** 2
    later = sizes[-1] + MORE
    best: tuple[float, float] = (np.inf, square[-1])
    for power in _POWERS:
        curve = sizes**-power
        slope, floor = np.polyfit(curve, square, 1)
        if slope < 0:
            slope, floor = 0.0, float(square.mean())
        elif floor < 0:
            slope, floor = float(curve @ square) / float(curve @ curve), 0.0
        error = float(((floor + slope * curve - square) ** 2).sum())
        if error < best[0]:
            best = (error, float(floor + slope * later**-power))
    least = noise_sd**2 if np.isfinite(noise_sd) else 0.0
    value = min(max(best[1], least), float(square[-1]))  # more trials are never forecast to hurt
    return LearningPoint(trials=int(later), rmse=value**0.5, r2=1.0 - value / variance)
