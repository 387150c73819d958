"""How far the surrogate can be trusted: always out of fold, always beside the noise.

In: measured losses of K trials, predictions by fits that did not see them, losses of repeated
trials. Out: `SurrogateReport`s and plain-language warnings.

Regret@1 (what the trial predicted best costs over the trial that was best) separates surrogates
better than rank correlation does, so both are given. `interval_coverage` is the share of trials
inside a 90 % interval whose scale was set by the errors of the *other* folds.
A number that the swarm is too small for is NaN, with a warning, not a guess.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from quadmix.rng import stream
from quadmix.search.model import CrossFit, conformal_quantile, whole
from quadmix.search.surrogate import Predicted
from quadmix.search.swarm import Swarm, combined
from quadmix.types import Floats, Objective, Parity, SurrogateReport

OBJECTIVE = "objective"
_LEAST_FOR_RANKS = 10
_LEAST_REPEATS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One target: its name, measured losses (K,), and the noise of a single measurement (NaN = unknown)."""

    target: str
    measured: Floats
    noise_sd: float


def reports(
    swarm: Swarm, cross: CrossFit, objective: Objective, noises: Mapping[str, float], seed: int
) -> list[SurrogateReport]:
    """Return a report per target (the objective first) and kind; parity for the chosen one and `paper`.

    The chosen surrogate is called by its name in the recipe, its members by theirs. noises: per target and
    "objective".
    """
    name = cross.fit.surrogate
    predicted: dict[str, dict[str, Predicted]] = {
        t: {name: cross.chosen[t], **cross.kinds[t]} for t in swarm.losses
    }
    kinds = [name, *(k for k in next(iter(cross.kinds.values())) if k != name)]
    predicted = {OBJECTIVE: {k: whole({t: predicted[t][k] for t in swarm.losses}, objective) for k in kinds},
                 **predicted}  # fmt: skip
    measured = {OBJECTIVE: combined(objective, swarm.losses), **swarm.losses}
    out: list[SurrogateReport] = []
    for target, found in predicted.items():
        case = Case(target=target, measured=measured[target], noise_sd=noises.get(target, float("nan")))
        members = cross.weights(target, swarm.losses[target]) if target != OBJECTIVE else {}
        out += [
            assess(
                case, kind, found[kind], folds=cross.folds, rng=stream(seed, "bootstrap", target, kind),
                trial_ids=swarm.ids if kind in (name, "paper") else (),
                members=members if kind == name else {},
            )
            for kind in kinds
        ]  # fmt: skip
    return out


def assess(
    case: Case,
    surrogate: str,
    predicted: Predicted,
    *,
    folds: NDArray[np.int64],
    rng: np.random.Generator,
    trial_ids: Sequence[str] = (),
    members: Mapping[str, float] | None = None,
) -> SurrogateReport:
    """Compare out-of-fold predictions with measurements; with `trial_ids` also row by row and with an
    interval of the rank correlation (which costs more than the rest)."""
    y, mean = case.measured, predicted.mean
    error = mean - y
    # constant inside every fold: what varies is only the mean of the other folds, which ranks backwards
    ranks = any(np.ptp(mean[folds == f]) > 1e-12 for f in np.unique(folds))
    order = mean if ranks else np.full_like(mean, np.nan)
    low, high = spearman_interval(y, order, rng) if trial_ids else (float("nan"), float("nan"))
    variance = float(((y - y.mean()) ** 2).sum())
    best = np.argsort(mean, kind="stable")[: max(1, len(y) // 10)]
    return SurrogateReport(
        target=case.target,
        surrogate=surrogate,
        spearman=spearman(y, order),
        spearman_low=low,
        spearman_high=high,
        rmse=float(np.sqrt((error**2).mean())),
        r2=1.0 - float((error**2).sum()) / variance if variance > 0 else float("nan"),
        regret_at_1=regret(y, mean, 1) if ranks else float("nan"),
        regret_at_5=regret(y, mean, 5) if ranks else float("nan"),
        best_decile_bias=float(error[best].mean()) if ranks else float("nan"),
        pairwise_accuracy=pairwise_accuracy(y, order),
        interval_coverage=coverage(error / predicted.stderr, folds),
        noise_sd=case.noise_sd,
        spread_sd=spread(y),
        parity=tuple(
            Parity(trial_id=t, measured=float(a), predicted=float(b), stderr=float(s))
            for t, a, b, s in zip(trial_ids, y, mean, predicted.stderr, strict=False)
        ),
        members=dict(members or {}),
    )


def regret(y: Floats, predicted: Floats, k: int) -> float:
    """Return the least loss among the k predicted best, minus the least of all."""
    return float(y[np.argsort(predicted, kind="stable")[:k]].min() - y.min())


def spearman(y: Floats, predicted: Floats) -> float:
    """Return the rank correlation, NaN if either side is constant or not known."""
    if np.isnan(predicted).any():
        return float("nan")
    return float(_rank_correlation(y[None], predicted[None])[0])


def spearman_interval(
    y: Floats, predicted: Floats, rng: np.random.Generator, *, draws: int = 400
) -> tuple[float, float]:
    """Return the 95 % percentile interval of the rank correlation over bootstrap resamples of trials.

    NaN below 10 trials, or when the correlation itself is undefined.
    """
    if len(y) < _LEAST_FOR_RANKS or np.isnan(spearman(y, predicted)):
        return float("nan"), float("nan")
    rows = rng.integers(len(y), size=(draws, len(y)))
    values = _rank_correlation(y[rows], predicted[rows])
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def pairwise_accuracy(y: Floats, predicted: Floats) -> float:
    """Return the share of trial pairs put in the right order; a tied prediction counts half."""
    i, j = np.triu_indices(len(y), 1)
    truth, guess = np.sign(y[i] - y[j]), np.sign(predicted[i] - predicted[j])
    decided = truth != 0
    if not decided.any() or np.isnan(predicted).any():
        return float("nan")
    return float((0.5 + 0.5 * truth[decided] * guess[decided]).mean())


def coverage(scores: Floats, folds: NDArray[np.int64]) -> float:
    """Return the share of |error| / deviation within the 90 % quantile of the other folds, NaN if too few."""
    inside = np.zeros(len(scores), dtype=bool)
    for fold in np.unique(folds):
        width = conformal_quantile(scores[folds != fold])
        if np.isnan(width):
            return float("nan")
        inside[folds == fold] = np.abs(scores[folds == fold]) <= width
    return float(inside.mean())


def noise(repeats: Floats) -> float:
    """Return the standard deviation over repeated trials of one θ, NaN below 3 repeats."""
    return float(repeats.std(ddof=1)) if len(repeats) >= _LEAST_REPEATS else float("nan")


def spread(y: Floats) -> float:
    """Return the standard deviation of a target over the swarm, NaN below 2 trials."""
    return float(y.std(ddof=1)) if len(y) > 1 else float("nan")


def warnings_about(reports: Sequence[SurrogateReport], chosen: str, trials: int) -> list[str]:
    """Say in words what the numbers of the objective and of each target forbid to conclude."""
    found: list[str] = []
    if trials < _LEAST_FOR_RANKS:
        found.append(f"only {trials} trials: no interval of the rank correlation can be given")
    if trials < 50:
        found.append(
            f"only {trials} trials: out of fold the surrogate 'paper' has fewer than 40 and is constant"
        )
    for report in reports:
        if report.surrogate != chosen:
            continue
        if np.isnan(report.noise_sd):
            found.append(f"{report.target}: the noise is unknown; at least 3 repeated trials are needed")
        elif report.noise_sd >= report.spread_sd:
            found.append(
                f"{report.target}: the noise of one trial ({report.noise_sd:.4g}) is not below the spread of "
                f"the swarm ({report.spread_sd:.4g}); longer proxies or a larger target set are needed"
            )
        if report.target == OBJECTIVE:
            found.extend(_about_objective(report, reports))
    return found


def _about_objective(report: SurrogateReport, reports: Sequence[SurrogateReport]) -> list[str]:
    found: list[str] = []
    if not report.r2 > 0:
        found.append("objective: out of fold the surrogate predicts no better than the mean of the swarm")
    elif not report.spearman_low > 0:
        found.append(
            f"objective: the rank correlation {report.spearman:.2f} is not distinguishable from zero"
        )
    for other in reports:
        if (other.target, other.surrogate) == (OBJECTIVE, "paper") and other.rmse < report.rmse:
            found.append(
                f"objective: the surrogate 'paper' has a lower error ({other.rmse:.4g}) than "
                f"{report.surrogate!r} ({report.rmse:.4g})"
            )
    return found


def _rank_correlation(a: Floats, b: Floats) -> Floats:
    """Return the Spearman correlation of each row pair, NaN where a row is constant. a, b: (B, K)."""
    ra, rb = rankdata(a, axis=1), rankdata(b, axis=1)
    ra, rb = ra - ra.mean(axis=1, keepdims=True), rb - rb.mean(axis=1, keepdims=True)
    scale = np.sqrt((ra * ra).sum(axis=1) * (rb * rb).sum(axis=1))
    return np.where(scale > 0, (ra * rb).sum(axis=1) / np.where(scale > 0, scale, 1.0), np.nan)
