"""A Gaussian process for few trials and many features.

In: features (K, P) with a type and a domain per column, targets (K,). Out: posterior mean and
standard deviation at new rows.

k(z, z') = s² Matern52(r) + v z·z'/P + σ² δ on standardised inputs, r² = Σ_i (z_i - z'_i)² / l_i²,
with *structured* length scales log l_i = log √P + 0.3 + a[type of i] + b[domain of i]: a domain and a
kind of feature matter more or less as a whole, so M + 5 numbers are fitted instead of P. Fitted by
maximum a posteriori from one start with analytic gradients; far from the trials the Matern part
falls back to the mean, so hard search cannot exploit it the way it exploits a linear model.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from quadmix.types import Floats

_START = (0.0, -2.0, float(np.log(0.1)))  # log s², log v, log σ²
_CENTRE = np.array([0.0, 0.0, np.log(0.1)])
_SPREAD = np.array([1.5, 2.0, 2.0])
_BOUNDS = ((-7.0, 5.0), (-12.0, 5.0), (float(np.log(1e-6)), float(np.log(2.0))))
_ROOT5 = 5.0**0.5


@dataclass(frozen=True, slots=True, eq=False)
class GaussianProcess:
    """A fitted process. inputs: (K, P) standardised; scales: (P,) length scales; alpha: K⁻¹y."""

    centre: Floats
    spread: Floats
    inputs: Floats
    scales: Floats
    signal: float
    linear: float
    noise: float
    cholesky: Floats
    alpha: Floats
    level: float
    unit: float

    def predict(self, values: Floats) -> tuple[Floats, Floats]:
        """Return posterior mean and standard deviation of a new measurement, (K',) each."""
        z = (values - self.centre) / self.spread
        cross = _kernel(z, self.inputs, self.scales, self.signal, self.linear)[0]
        mean = cross @ self.alpha
        half = solve_triangular(self.cholesky, cross.T, lower=True)
        own = self.signal + self.linear * (z * z).mean(axis=1) + self.noise
        variance = np.maximum(own - (half * half).sum(axis=0), self.noise)
        return self.level + self.unit * mean, self.unit * np.sqrt(variance)


def fit_gp(
    values: Floats, y: Floats, types: NDArray[np.int64], domains: NDArray[np.int64]
) -> GaussianProcess:
    """Fit the process. values: (K, P); y: (K,); types and domains: (P,) small integers from 0."""
    centre, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    z = (values - centre) / spread
    level, unit = float(y.mean()), float(y.std()) or 1.0
    target = (y - level) / unit
    groups = _membership(types, domains)
    start = np.concatenate([_START, np.zeros(groups.shape[1])])
    bounds = [*_BOUNDS, *[(-4.0, 4.0)] * groups.shape[1]]
    found = minimize(
        _loss, start, (z, target, groups), jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": 80},
    )  # fmt: skip
    signal, linear, noise = (float(v) for v in np.exp(found.x[:3]))
    scales = _scales(found.x, groups)
    kernel = _kernel(z, z, scales, signal, linear)[0] + noise * np.eye(len(y))
    lower = np.asarray(np.linalg.cholesky(kernel), dtype=np.float64)
    return GaussianProcess(
        centre, spread, z, scales, signal, linear, noise, lower,
        np.asarray(cho_solve((lower, True), target)), level, unit,
    )  # fmt: skip


def _membership(types: NDArray[np.int64], domains: NDArray[np.int64]) -> Floats:
    """Return (P, types + domains) 0/1: which offsets enter the log length scale of a feature."""
    return np.concatenate(
        [types[:, None] == np.unique(types), domains[:, None] == np.unique(domains)], axis=1
    ).astype(np.float64)


def _scales(parameters: Floats, groups: Floats) -> Floats:
    return np.exp(0.5 * np.log(len(groups)) + 0.3 + groups @ parameters[3:])


def _kernel(
    left: Floats, right: Floats, scales: Floats, signal: float, linear: float
) -> tuple[Floats, Floats, Floats]:
    """Return the kernel matrix without noise, its Matern part over s², and √5 r."""
    a, b = left / scales, right / scales
    square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2.0 * a @ b.T
    root = _ROOT5 * np.sqrt(np.maximum(square, 0.0))
    matern = (1.0 + root + root * root / 3.0) * np.exp(-root)
    return signal * matern + linear * (left @ right.T) / left.shape[1], matern, root


def _loss(parameters: Floats, z: Floats, y: Floats, groups: Floats) -> tuple[float, Floats]:
    """Return the negative log posterior of the hyper-parameters and its gradient."""
    signal, linear, noise = np.exp(parameters[:3])
    scales = _scales(parameters, groups)
    kernel, matern, root = _kernel(z, z, scales, signal, linear)
    count = len(y)
    # the jitter keeps the factor defined when two trials have equal features
    factor = cho_factor(kernel + (noise + 1e-9) * np.eye(count), lower=True)
    alpha = np.asarray(cho_solve(factor, y))
    inverse = np.asarray(cho_solve(factor, np.eye(count)))
    offset = np.concatenate([(parameters[:3] - _CENTRE) / _SPREAD, parameters[3:]])
    value = 0.5 * float(y @ alpha) + float(np.log(np.diag(factor[0])).sum()) + 0.5 * float(offset @ offset)
    # d value / d kernel entry
    pull = 0.5 * (inverse - np.outer(alpha, alpha))
    slope = pull * signal * (5.0 / 3.0) * (1.0 + root) * np.exp(-root)
    # Σ_jk slope_jk (z_ji - z_ki)² for every feature i, without a (K, K, P) array
    per_feature = 2.0 * (slope.sum(axis=1) @ (z * z) - (z * (slope @ z)).sum(axis=0)) / scales**2
    gradient = np.concatenate(
        [
            [
                float((pull * matern).sum()) * signal,
                float((pull * (z @ z.T)).sum()) * linear / z.shape[1],
                float(np.trace(pull)) * noise,
            ],
            per_feature @ groups,
        ]
    )
    return value, gradient + offset / np.concatenate([_SPREAD, np.ones(groups.shape[1])])
