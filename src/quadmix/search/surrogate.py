"""From features to losses: one regressor per target.

In: a `FeatureTable` of K trials and their losses on one target. Out: a `Surrogate` with
`predict(table) -> Predicted`, and out-of-fold predictions that say how far it can be trusted.

    gp-ard, gp-structured, gp-isotropic                Gaussian processes (`gp.py`) on log shares
    gp-ard-cbrt                                        the same on their cube roots
    transfer, mixing                                   parametric laws of the shares alone (`laws.py`)
    ridge                                              linear; scale of the shares by leave-one-out error
    lightgbm                                           small-data settings
    paper (or regmix)                                  RegMix's notebook settings (arXiv 2407.01492) on θ
                                                       itself, or on the shares; without its early stopping
                                                       on the test set
    auto                                               the mean of the members that fit the problem, weighted
                                                       by 1/MSE² of 5-fold cross-validation

No single kind is safe: the best one changes with noise and number of trials; the weighted mean is never
far from the best and also chooses between scales of the shares. Everything runs on one thread: these fits
are small, and thread pools make them slower and their sums order-dependent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import MissingExtraError, SearchError
from quadmix.search.gp import GaussianProcess, Lengths, fit_gp
from quadmix.search.laws import Law, Shape, fit_law
from quadmix.search.table import TRANSFORMS, FeatureTable, Transform
from quadmix.types import Floats

Features = Literal["realised", "raw", "both"]
KINDS = (
    "gp-ard", "gp-ard-cbrt", "gp-structured", "gp-isotropic", "transfer", "mixing", "ridge", "lightgbm",
    "paper",
)  # fmt: skip
WIDE = 40  # features above which length scales are structured
MANY = 256
LEAST = {"paper": 40, "lightgbm": 20, "transfer": 12, "mixing": 12}
LEAST_ANY = 8
PAPER: Mapping[str, Any] = {"learning_rate": 0.01, "seed": 42}
PAPER_ROUNDS = 1000
ROBUST: Mapping[str, Any] = {
    "learning_rate": 0.02, "num_leaves": 7, "min_data_in_leaf": 5, "bagging_fraction": 0.7,
    "bagging_freq": 1, "feature_fraction": 0.7, "seed": 42,
}  # fmt: skip
ROBUST_ROUNDS = 1500
_FIXED: Mapping[str, Any] = {
    "objective": "regression", "num_threads": 1, "deterministic": True, "force_row_wise": True,
    "verbosity": -1, "feature_pre_filter": False,
}  # fmt: skip
_RIDGES = np.geomspace(1e-2, 1e6, 25)
_LONG, _TREES = 5_000, 50
_LIGHT = 0.02  # members with less weight cost a search more time than they add
_ROUNDING = 1e-9  # a column that varies less is constant, and must not be scaled up to count
_LEASH = 0.25  # a linear model may predict this share of the observed range beyond it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predicted:
    """Mean and standard deviation of a new measurement, (K,) each; NaN deviation where a kind has none."""

    mean: Floats
    stderr: Floats

    def at(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Predicted":
        return Predicted(mean=self.mean[rows], stderr=self.stderr[rows])


class Surrogate(Protocol):
    """A fitted regressor of one target."""

    def predict(self, table: FeatureTable) -> Predicted:
        """Return what a new trial of every row would measure."""
        ...

    def mean(self, table: FeatureTable) -> Floats:
        """Return its mean alone (K,): what a search asks for thousands of times."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Gp:
    process: GaussianProcess
    columns: NDArray[np.intp]
    how: Transform

    def predict(self, table: FeatureTable) -> Predicted:
        mean, stderr = self.process.predict(table.take(self.columns).transformed(self.how))
        return Predicted(mean=mean, stderr=stderr)

    def mean(self, table: FeatureTable) -> Floats:
        return self.process.mean(table.take(self.columns).transformed(self.how))


@dataclass(frozen=True, slots=True, eq=False)
class _Shares:
    law: Law

    def predict(self, table: FeatureTable) -> Predicted:
        return Predicted(mean=self.mean(table), stderr=np.full(len(table), self.law.residual))

    def mean(self, table: FeatureTable) -> Floats:
        return self.law.predict(table.values[:, table.is_share])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ridge:
    centre: Floats
    spread: Floats
    slope: Floats
    level: float
    residual: float
    low: float
    high: float
    columns: NDArray[np.intp]
    how: Transform

    def predict(self, table: FeatureTable) -> Predicted:
        return Predicted(mean=self.mean(table), stderr=np.full(len(table), self.residual))

    def mean(self, table: FeatureTable) -> Floats:
        z = (table.take(self.columns).transformed(self.how) - self.centre) / self.spread
        return np.clip(self.level + z @ self.slope, self.low, self.high)


@dataclass(frozen=True, slots=True, eq=False)
class _Trees:
    booster: Any
    columns: NDArray[np.intp]

    def predict(self, table: FeatureTable) -> Predicted:
        return Predicted(mean=self.mean(table), stderr=np.full(len(table), np.nan))

    def mean(self, table: FeatureTable) -> Floats:
        values = np.ascontiguousarray(table.values[:, self.columns])
        if len(values) < _LONG:
            return np.asarray(self.booster.predict(values, num_threads=1), dtype=np.float64)
        mean = np.zeros(len(values))  # a few trees at a time stay in the cache while all rows pass them
        for start in range(0, self.booster.num_trees(), _TREES):
            mean += self.booster.predict(values, start_iteration=start, num_iteration=_TREES, num_threads=1)
        return mean


@dataclass(frozen=True, slots=True, eq=False)
class _WithError:
    """A surrogate that has no standard deviation of its own takes the one of its out-of-fold errors."""

    inner: Surrogate
    error: float

    def predict(self, table: FeatureTable) -> Predicted:
        return _filled(self.inner.predict(table), self.error)

    def mean(self, table: FeatureTable) -> Floats:
        return self.inner.mean(table)


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Weighted mean of surrogates; its variance adds their disagreement to their own."""

    members: tuple[Surrogate, ...]
    weights: Floats

    def predict(self, table: FeatureTable) -> Predicted:
        return blend([member.predict(table) for member in self.members], self.weights)

    def mean(self, table: FeatureTable) -> Floats:
        return self.weights @ np.stack([member.mean(table) for member in self.members])


def members_of(kind: str, table: FeatureTable, trials: int, features: Features = "realised") -> list[str]:
    """Return the plain kinds that `kind` consists of, for a table and a number of trials.

    auto: gp-ard and the laws for few features (shares alone), structured scales for many; members that need
    more trials than there are in a fit on four fifths of them are left out.
    Raises SearchError if a kind that was asked for needs more trials.
    """
    if kind == "gp":
        kind = "gp-structured" if _width(table, features) > WIDE else "gp-ard"
    if kind == "regmix":
        kind = "paper"
    if kind != "auto":
        if trials < LEAST.get(kind, LEAST_ANY):
            raise SearchError(
                f"surrogate {kind!r} needs at least {LEAST.get(kind, LEAST_ANY)} trials, there are {trials}; "
                "run more or set search.surrogate: auto"
            )
        return [kind]
    if _width(table, features) > WIDE:
        wanted = ["gp-structured", "gp-isotropic", "ridge", "lightgbm"]
    else:
        wanted = ["gp-ard", "gp-ard-cbrt", "ridge", "lightgbm"]
        if table.is_share.sum() == (~table.is_raw).sum():
            wanted.insert(2, "transfer")
        if trials <= MANY:  # noisy losses of few trials do not tell length scales apart; many do
            wanted.append("gp-isotropic")
    return [k for k in wanted if 0.8 * trials >= LEAST.get(k, 0)]


def fit_plain(kind: str, table: FeatureTable, y: Floats, features: Features = "realised") -> Surrogate:
    """Fit one surrogate of a plain kind. y: (K,) losses. Call it inside `run_threads` or one BLAS thread."""
    columns = _columns(table, "paper" if kind == "paper" else features)
    varies = np.ptp(table.values[:, columns], axis=0) > _ROUNDING
    columns = columns[varies] if varies.any() else columns[:1]
    if kind.startswith("gp-"):
        return _fit_gp(kind, table, y, columns)
    if kind in ("transfer", "mixing"):
        shape: Shape = "transfer" if kind == "transfer" else "mixing"
        return _Shares(fit_law(shape, table.values[:, table.is_share], y))
    if kind == "ridge":
        return _fit_ridge(table, y, columns)
    if kind in ("lightgbm", "paper"):
        return _fit_trees(table, y, columns, paper=kind == "paper")
    raise SearchError(f"unknown surrogate {kind!r}; expected auto, gp or one of {', '.join(KINDS)}")


def cross_predict(
    kind: str, table: FeatureTable, y: Floats, folds: NDArray[np.int64], features: Features = "realised"
) -> Predicted:
    """Predict every trial by a fit on the other folds. folds: (K,) fold index of each trial."""
    mean, stderr = np.empty(len(y)), np.empty(len(y))
    for fold in np.unique(folds):
        inside, outside = folds == fold, folds != fold
        found = fit_plain(kind, table.rows(outside), y[outside], features).predict(table.rows(inside))
        mean[inside], stderr[inside] = found.mean, found.stderr
    return with_errors(Predicted(mean=mean, stderr=stderr), y, folds)


def with_errors(predicted: Predicted, y: Floats, folds: NDArray[np.int64]) -> Predicted:
    """Fill missing deviations of a fold with the root mean square error of the *other* folds."""
    if not np.isnan(predicted.stderr).any():
        return predicted
    stderr = predicted.stderr.copy()
    for fold in np.unique(folds):
        outside = folds != fold
        stderr[folds == fold] = np.sqrt(((predicted.mean - y)[outside] ** 2).mean())
    return replace(predicted, stderr=stderr)


def fit_members(
    fitted: Mapping[str, Surrogate], out_of_fold: Mapping[str, Predicted], y: Floats
) -> Surrogate:
    """Return the surrogate that consists of `fitted`: one alone, or those of them that carry weight."""
    errors = {k: float(np.sqrt(((out_of_fold[k].mean - y) ** 2).mean())) for k in fitted}
    parts = [_WithError(model, errors[kind]) for kind, model in fitted.items()]
    if len(parts) == 1:
        return parts[0]
    weights = member_weights([out_of_fold[k] for k in fitted], y)
    kept = np.flatnonzero(weights >= _LIGHT)
    return Ensemble(tuple(parts[i] for i in kept), weights[kept] / weights[kept].sum())


def cross_blend(parts: Sequence[Predicted], y: Floats, folds: NDArray[np.int64]) -> Predicted:
    """Return out-of-fold predictions of the ensemble; the weights for a fold come from the other folds."""
    mean, stderr = np.empty(len(y)), np.empty(len(y))
    for fold in np.unique(folds):
        inside, outside = folds == fold, folds != fold
        weights = member_weights([p.at(outside) for p in parts], y[outside])
        found = blend([p.at(inside) for p in parts], weights)
        mean[inside], stderr[inside] = found.mean, found.stderr
    return Predicted(mean=mean, stderr=stderr)


def member_weights(parts: Sequence[Predicted], y: Floats) -> Floats:
    """Return weights ∝ 1/MSE² that sum to 1. parts: out-of-fold predictions of every member."""
    error = np.array([((p.mean - y) ** 2).mean() for p in parts])
    floor = 1e-12 * max(float(y.var()), 1e-300)
    weights = ((error.min() + floor) / (error + floor)) ** 2
    return weights / weights.sum()


def blend(parts: Sequence[Predicted], weights: Floats) -> Predicted:
    """Return mean and standard deviation of the mixture of predictions."""
    means, errors = np.stack([p.mean for p in parts]), np.stack([p.stderr for p in parts])
    mean = weights @ means
    return Predicted(mean=mean, stderr=np.sqrt(weights @ (errors**2 + (means - mean) ** 2)))


def split_folds(count: int, rng: np.random.Generator, folds: int = 5) -> NDArray[np.int64]:
    """Return (count,) fold indices of equal size, in random order."""
    return rng.permutation(np.arange(count) % min(folds, count)).astype(np.int64)


def _filled(predicted: Predicted, error: float) -> Predicted:
    return replace(predicted, stderr=np.where(np.isnan(predicted.stderr), error, predicted.stderr))


def _width(table: FeatureTable, features: Features) -> int:
    return len(_columns(table, features))


def _columns(table: FeatureTable, features: Features | Literal["paper"]) -> NDArray[np.intp]:
    """Return the columns that a surrogate sees; the published recipe sees θ, or the shares without one."""
    raw = table.is_raw
    if features == "both":
        return np.arange(len(raw))
    if features == "realised" or not raw.any():
        return np.flatnonzero(~raw)
    return np.flatnonzero(raw)


def _fit_gp(kind: str, table: FeatureTable, y: Floats, columns: NDArray[np.intp]) -> _Gp:
    how: Transform = "cbrt" if kind.endswith("cbrt") else "log:1e-3"
    own = table.take(columns)
    lengths: Lengths = "ard" if "ard" in kind else "structured" if "structured" in kind else "isotropic"
    types = np.unique(own.types, return_inverse=True)[1].astype(np.int64)
    process = fit_gp(own.transformed(how), y, types, np.array(own.domains, dtype=np.int64), lengths)
    return _Gp(process, columns, how)


def _fit_ridge(table: FeatureTable, y: Floats, columns: NDArray[np.intp]) -> _Ridge:
    """Fit linear least squares; penalty and scale of the shares are those of least leave-one-out error."""
    own = table.take(columns)
    best: _Ridge | None = None
    for how in TRANSFORMS if own.is_share.any() else TRANSFORMS[:1]:
        found = _fit_ridge_on(own.transformed(how), y, columns, how)
        if best is None or found.residual < best.residual:
            best = found
    assert best is not None  # there is at least one transform
    return best


def _fit_ridge_on(values: Floats, y: Floats, columns: NDArray[np.intp], how: Transform) -> _Ridge:
    centre, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    left, size, right = np.linalg.svd((values - centre) / spread, full_matrices=False)
    level, projected = float(y.mean()), left.T @ (y - y.mean())
    best: tuple[float, Floats] = (np.inf, np.zeros(values.shape[1]))
    for penalty in _RIDGES:
        shrink = size**2 / (size**2 + penalty)
        leverage = (left * left) @ shrink + 1.0 / len(y)
        loo = (y - level - left @ (shrink * projected)) / np.maximum(1.0 - leverage, 1e-9)
        error = float((loo**2).mean())
        if error < best[0]:
            best = (error, right.T @ (size / (size**2 + penalty) * projected))
    reach = _LEASH * float(np.ptp(y))
    return _Ridge(
        centre=centre, spread=spread, slope=best[1], level=level, residual=best[0] ** 0.5,
        low=float(y.min()) - reach, high=float(y.max()) + reach, columns=columns, how=how,
    )  # fmt: skip


def _fit_trees(table: FeatureTable, y: Floats, columns: NDArray[np.intp], *, paper: bool) -> _Trees:
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtraError(
            "lightgbm", "search", f"surrogate {'paper' if paper else 'lightgbm'!r}"
        ) from error
    values = np.ascontiguousarray(table.values[:, columns])
    settings = {**_FIXED, **(PAPER if paper else ROBUST)}
    data = lightgbm.Dataset(values, y, params=settings)
    booster = lightgbm.train(settings, data, num_boost_round=PAPER_ROUNDS if paper else ROBUST_ROUNDS)
    return _Trees(booster, columns)
