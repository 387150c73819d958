"""From features to losses: one regressor per target.

In: a `FeatureTable` of K trials and their losses on one target. Out: a `Surrogate` with
`predict(table) -> (mean, standard deviation)`, and out-of-fold predictions that say how far it can
be trusted.

Kinds: `gp` (structured Gaussian process) and `ridge` on realised features, `lightgbm` (small-data
settings) on realised features, `paper` (RegMix's notebook settings on raw θ, arXiv 2407.01492, but
without its early stopping on the validation set), and `auto`: the mean of gp, lightgbm and ridge
weighted by 1/MSE² of 5-fold cross-validation, which is never far from the best of them.
Everything runs on one thread: these fits are small, and thread pools make them slower and their
sums order-dependent.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import MissingExtraError
from quadmix.search.features import FeatureTable
from quadmix.search.gp import GaussianProcess, fit_gp
from quadmix.types import Floats

MEMBERS = ("gp", "lightgbm", "ridge")
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


class Surrogate(Protocol):
    """A fitted regressor of one target."""

    @property
    def name(self) -> str: ...

    def predict(self, table: FeatureTable) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of a new measurement, (K,) each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutOfFold:
    """Predictions of each trial by a fit that did not see it: mean and standard deviation, (K,)."""

    mean: Floats
    stderr: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Gp:
    process: GaussianProcess
    columns: NDArray[np.int64]
    name: str = "gp"

    def predict(self, table: FeatureTable) -> tuple[Floats, Floats]:
        return self.process.predict(table.values[:, self.columns])


@dataclass(frozen=True, slots=True, eq=False)
class _Ridge:
    centre: Floats
    spread: Floats
    slope: Floats
    level: float
    residual: float
    columns: NDArray[np.int64]
    name: str = "ridge"

    def predict(self, table: FeatureTable) -> tuple[Floats, Floats]:
        z = (table.values[:, self.columns] - self.centre) / self.spread
        mean = self.level + z @ self.slope
        return mean, np.full(len(mean), self.residual)


@dataclass(frozen=True, slots=True, eq=False)
class _Trees:
    booster: Any
    raw: bool
    residual: float
    name: str

    def predict(self, table: FeatureTable) -> tuple[Floats, Floats]:
        values = table.columns(raw=self.raw).values
        mean = np.asarray(self.booster.predict(values, num_threads=1), dtype=np.float64)
        return mean, np.full(len(mean), self.residual)


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Weighted mean of surrogates; its variance adds their disagreement to their own."""

    members: tuple[Surrogate, ...]
    weights: Floats
    name: str = "auto"

    def predict(self, table: FeatureTable) -> tuple[Floats, Floats]:
        parts = [member.predict(table) for member in self.members]
        return blend(np.stack([p[0] for p in parts]), np.stack([p[1] for p in parts]), self.weights)


def kinds_needed(kind: str) -> tuple[str, ...]:
    """Return the plain kinds that must be cross-validated to use and judge `kind`; `paper` always,
    because it is what every other kind is compared with."""
    wanted = MEMBERS if kind == "auto" else (kind,)
    return (*wanted, "paper") if "paper" not in wanted else wanted


def fit_plain(kind: str, table: FeatureTable, y: Floats) -> Surrogate:
    """Fit one surrogate of a plain kind (`gp`, `ridge`, `lightgbm` or `paper`). y: (K,) losses."""
    with one_thread():
        if kind == "gp":
            columns, types, domains = _realised_columns(table)
            return _Gp(fit_gp(table.values[:, columns], y, types, domains), columns)
        if kind == "ridge":
            return _fit_ridge(table, y)
        return _fit_trees(table, y, paper=kind == "paper")


def fit_surrogate(
    kind: str, table: FeatureTable, y: Floats, out_of_fold: Mapping[str, OutOfFold]
) -> Surrogate:
    """Fit `kind` on all trials; `auto` takes its weights from `out_of_fold` of its members."""
    if kind != "auto":
        return fit_plain(kind, table, y)
    weights = member_weights(np.stack([out_of_fold[k].mean for k in MEMBERS]), y)
    return Ensemble(tuple(fit_plain(k, table, y) for k in MEMBERS), weights)


def cross_predict(kind: str, table: FeatureTable, y: Floats, folds: NDArray[np.int64]) -> OutOfFold:
    """Predict every trial by a fit on the other folds. folds: (K,) fold index of each trial."""
    mean, stderr = np.empty(len(y)), np.empty(len(y))
    for fold in np.unique(folds):
        inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        model = fit_plain(kind, table.rows(outside), y[outside])
        mean[inside], stderr[inside] = model.predict(table.rows(inside))
    return OutOfFold(mean=mean, stderr=stderr)


def cross_blend(out_of_fold: Mapping[str, OutOfFold], y: Floats, folds: NDArray[np.int64]) -> OutOfFold:
    """Return out-of-fold predictions of `auto`; the weights for a fold come from the other folds."""
    means = np.stack([out_of_fold[k].mean for k in MEMBERS])
    errors = np.stack([out_of_fold[k].stderr for k in MEMBERS])
    mean, stderr = np.empty(len(y)), np.empty(len(y))
    for fold in np.unique(folds):
        inside, outside = folds == fold, folds != fold
        weights = member_weights(means[:, outside], y[outside])
        mean[inside], stderr[inside] = blend(means[:, inside], errors[:, inside], weights)
    return OutOfFold(mean=mean, stderr=stderr)


def member_weights(predicted: Floats, y: Floats) -> Floats:
    """Return weights ∝ 1/MSE² that sum to 1. predicted: (members, K) out-of-fold means."""
    error = ((predicted - y) ** 2).mean(axis=1)
    floor = 1e-12 * max(float(y.var()), 1e-300)
    relative = error.min() + floor
    weights = (relative / (error + floor)) ** 2
    return weights / weights.sum()


def blend(means: Floats, errors: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of the mixture of predictions. means, errors: (members, K)."""
    mean = weights @ means
    return mean, np.sqrt(weights @ (errors**2 + (means - mean) ** 2))


def split_folds(count: int, rng: np.random.Generator, folds: int = 5) -> NDArray[np.int64]:
    """Return (count,) fold indices of equal size, in random order."""
    return rng.permutation(np.arange(count) % min(folds, count)).astype(np.int64)


@contextmanager
def one_thread() -> Generator[None]:
    """Run BLAS on one thread inside the block."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingExtraError("threadpoolctl", "search", "the surrogate") from error
    with threadpool_limits(limits=1):
        yield


def _realised_columns(
    table: FeatureTable,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return index, type code and domain of the realised columns that vary over the trials."""
    kinds = np.array(table.types)
    varies = np.ptp(table.values, axis=0) > 1e-9
    columns = np.flatnonzero((kinds != "raw") & varies)
    if not len(columns):
        columns = np.flatnonzero(kinds != "raw")[:1]
    codes = np.unique(kinds[columns], return_inverse=True)[1]
    return columns, codes.astype(np.int64), np.array(table.domains, dtype=np.int64)[columns]


def _fit_ridge(table: FeatureTable, y: Floats) -> _Ridge:
    """Fit linear least squares with the penalty of least leave-one-out error (closed form)."""
    columns = _realised_columns(table)[0]
    values = table.values[:, columns]
    centre, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    left, size, right = np.linalg.svd((values - centre) / spread, full_matrices=False)
    level, projected = float(y.mean()), left.T @ (y - y.mean())
    best: tuple[float, Floats] = (np.inf, np.zeros(len(columns)))
    for penalty in _RIDGES:
        shrink = size**2 / (size**2 + penalty)
        leverage = (left * left) @ shrink + 1.0 / len(y)
        loo = (y - level - left @ (shrink * projected)) / np.maximum(1.0 - leverage, 1e-9)
        error = float((loo**2).mean())
        if error < best[0]:
            best = (error, right.T @ (size / (size**2 + penalty) * projected))
    return _Ridge(centre, spread, best[1], level, best[0] ** 0.5, columns)


def _fit_trees(table: FeatureTable, y: Floats, *, paper: bool) -> _Trees:
    """Fit LightGBM; `residual` is the training error, a lower bound used for weighting plots only."""
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtraError(
            "lightgbm", "search", f"surrogate {'paper' if paper else 'lightgbm'!r}"
        ) from error
    values = table.columns(raw=paper).values
    settings = {**_FIXED, **(PAPER if paper else ROBUST)}
    data = lightgbm.Dataset(values, y, params=settings)
    booster = lightgbm.train(settings, data, num_boost_round=PAPER_ROUNDS if paper else ROBUST_ROUNDS)
    fitted = np.asarray(booster.predict(values, num_threads=1), dtype=np.float64)
    residual = float(np.sqrt(((fitted - y) ** 2).mean()))
    return _Trees(booster, paper, residual, "paper" if paper else "lightgbm")
