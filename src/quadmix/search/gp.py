"""A Gaussian process for few trials and many features.

In: features (K, P), targets (K,), and which features share a length scale. Out: posterior mean and
standard deviation at new rows.

k(z, z') = s² Matern52(r) + v z·z'/P + σ² δ on standardised inputs, r² = Σ_i (z_i - z'_i)² / l_i², with
log l_i = log √P + 0.4 + Σ_g member[i, g] a_g and a_g ~ N(0, sd_g²). Three memberships:

    ard         every feature its own a (P numbers)
    structured  a[type of i] + a[domain of i]: a domain and a kind of feature matter more or less as a
                whole, so M + 5 numbers are fitted instead of P
    isotropic   one a for all

Fitted by maximum a posteriori from one start with analytic gradients; far from the trials the Matern
part falls back to the mean, so that hard search cannot exploit it the way it exploits a linear model.
With more than 500 trials the hyper-parameters are fitted to an even part of them, and all (at most 4,096)
are conditioned on. Own code because scikit-learn's process has neither priors on its hyper-parameters nor
shared length scales, and without them a hundred length scales cannot be fitted to a hundred trials.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri  # pyright: ignore[reportAttributeAccessIssue]
from scipy.optimize import minimize

from quadmix.types import Floats

Lengths = Literal["ard", "structured", "isotropic"]
_START = (0.0, -2.0, float(np.log(0.1)))  # log s², log v, log σ²
_SPREAD = np.array([1.5, 2.0, 2.0])
_BOUNDS = ((-7.0, 5.0), (-12.0, 5.0), (float(np.log(1e-6)), float(np.log(2.0))))
_BASE = 0.4
_ROOT5 = 5.0**0.5
_HYPER, _MOST = 500, 4096  # trials that hyper-parameters are fitted to, and that a process is conditioned on
_JITTER = 1e-9  # keeps the factor defined when two trials have equal features


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
        cross = self._cross(z)
        half = solve_triangular(self.cholesky, cross.T, lower=True)
        own = self.signal + self.linear * (z * z).mean(axis=1) + self.noise
        variance = np.maximum(own - (half * half).sum(axis=0), self.noise)
        return self.level + self.unit * (cross @ self.alpha), self.unit * np.sqrt(variance)

    def mean(self, values: Floats) -> Floats:
        """Return the posterior mean alone (K',), at a fraction of the cost."""
        return self.level + self.unit * (self._cross((values - self.centre) / self.spread) @ self.alpha)

    def _cross(self, z: Floats) -> Floats:
        root = _distance(z / self.scales, self.inputs / self.scales)
        return self.signal * _matern(root, np.exp(-root)) + self.linear * (z @ self.inputs.T) / z.shape[1]

    @property
    def noise_sd(self) -> float:
        """The fitted standard deviation of a single measurement around the mean of its mixture."""
        return self.unit * self.noise**0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Data:
    """Standardised inputs z (K, P), their inner products (K, K), targets (K,), memberships, prior, and five
    (K, K) buffers: allocating them anew in every step costs as much as the arithmetic."""

    z: Floats
    products: Floats
    y: Floats
    members: Floats
    deviation: Floats
    centre: Floats
    buffers: tuple[Floats, ...]

    def scales(self, parameters: Floats) -> Floats:
        return np.exp(0.5 * np.log(self.z.shape[1]) + _BASE + self.members @ parameters[3:])


def fit_gp(
    values: Floats,
    y: Floats,
    types: NDArray[np.int64],
    domains: NDArray[np.int64],
    lengths: Lengths = "structured",
) -> GaussianProcess:
    """Fit the process. values: (K, P); y: (K,); types and domains: (P,) small integers from 0."""
    centre, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    z = (values - centre) / spread
    level, unit = float(y.mean()), float(y.std()) or 1.0
    members = _members(types, domains, lengths)
    tall = 1.0 if lengths == "structured" else 1.2
    target = (y - level) / unit
    few = np.unique(np.linspace(0, len(y) - 1, min(len(y), _HYPER)).astype(int))
    data = _Data(
        z=z[few], products=z[few] @ z[few].T, y=target[few], members=members,
        deviation=np.concatenate([_SPREAD, np.full(members.shape[1], tall)]),
        centre=np.array([0.0, 0.0, np.log(0.1 if lengths == "structured" else 0.01)]),
        buffers=tuple(np.empty((len(few), len(few))) for _ in range(5)),
    )  # fmt: skip
    found = minimize(
        _loss, np.array([*_START, *np.zeros(members.shape[1])]), (data,), jac=True, method="L-BFGS-B",
        bounds=[*_BOUNDS, *[(-4.0, 4.0)] * members.shape[1]], options={"maxiter": 80, "ftol": 5e-5},
    )  # fmt: skip
    signal, linear, noise = (float(v) for v in np.exp(found.x[:3]))
    scales = data.scales(found.x)
    if len(y) > _MOST:
        kept = np.unique(np.linspace(0, len(y) - 1, _MOST).astype(int))
        z, target = z[kept], target[kept]
    root = _distance(z / scales, z / scales)
    kernel = signal * _matern(root, np.exp(-root)) + linear * (z @ z.T) / z.shape[1]
    kernel.flat[:: len(z) + 1] += noise + _JITTER
    lower = np.asarray(np.linalg.cholesky(kernel), dtype=np.float64)
    return GaussianProcess(
        centre, spread, z, scales, signal, linear, noise, lower,
        np.asarray(cho_solve((lower, True), target)), level, unit,
    )  # fmt: skip


def _members(types: NDArray[np.int64], domains: NDArray[np.int64], lengths: Lengths) -> Floats:
    """Return (P, G) 0/1: which offsets enter the log length scale of a feature."""
    if lengths == "ard":
        return np.eye(len(types))
    if lengths == "isotropic":
        return np.ones((len(types), 1))
    return np.concatenate(
        [types[:, None] == np.unique(types), domains[:, None] == np.unique(domains)], axis=1
    ).astype(np.float64)


def _distance(a: Floats, b: Floats, out: Floats | None = None) -> Floats:
    """Return √5 times the Euclidean distances between the rows of a and b."""
    square = np.matmul(a, b.T, out=out)
    square *= -2.0
    square += (a * a).sum(axis=1)[:, None]
    square += (b * b).sum(axis=1)
    np.sqrt(np.maximum(square, 0.0, out=square), out=square)
    square *= _ROOT5
    return square


def _matern(root: Floats, decay: Floats) -> Floats:
    """Matern 5/2 at √5 r; decay = exp(-root)."""
    return (1.0 + root * (1.0 + root / 3.0)) * decay


def _loss(parameters: Floats, data: _Data) -> tuple[float, Floats]:
    """Return the negative log posterior of the hyper-parameters and its gradient."""
    signal, linear, noise = np.exp(parameters[:3])
    scales = data.scales(parameters)
    z, width = data.z, data.z.shape[1]
    root, decay, matern, kernel, spare = data.buffers
    scaled = z / scales
    _distance(scaled, scaled, out=root)
    np.exp(np.negative(root, out=decay), out=decay)
    np.multiply(root, 1.0 / 3.0, out=matern)
    for step in (1.0, root, 1.0, decay):  # (1 + root (1 + root / 3)) exp(-root)
        (np.add if isinstance(step, float) else np.multiply)(matern, step, out=matern)
    np.multiply(matern, signal, out=kernel)
    kernel += np.multiply(data.products, linear / width, out=spare)
    kernel.flat[:: len(z) + 1] += noise + _JITTER
    # LAPACK works on columns: the transpose of a symmetric matrix is itself, and needs no copy
    factor, failed = dpotrf(kernel.T, lower=1, clean=1, overwrite_a=1)
    if failed:
        return 1e10, np.zeros_like(parameters)
    alpha = np.asarray(cho_solve((factor, True), data.y))
    volume = float(np.log(np.diag(factor)).sum())
    pull = np.asarray(dpotri(factor, lower=1, overwrite_c=1)[0])  # its lower triangle
    pull += np.tril(pull, -1).T
    pull -= np.multiply.outer(alpha, alpha, out=spare)
    pull *= 0.5  # d value / d kernel entry
    slope = np.multiply(np.add(root, 1.0, out=spare), decay, out=spare)
    slope *= pull
    slope *= signal * 5.0 / 3.0
    # Σ_jk slope_jk (z_ji - z_ki)² for every feature i, without a (K, K, P) array
    per_feature = 2.0 * (slope.sum(axis=1) @ (z * z) - (z * (slope @ z)).sum(axis=0)) / scales**2
    offset = np.concatenate([parameters[:3] - data.centre, parameters[3:]]) / data.deviation
    gradient = np.concatenate(
        [
            [
                float(np.vdot(pull, matern)) * signal,
                float(np.vdot(pull, data.products)) * linear / width,
                float(np.trace(pull)) * noise,
            ],
            per_feature @ data.members,
        ]
    )
    value = 0.5 * float(data.y @ alpha) + volume + 0.5 * float(offset @ offset)
    return value, gradient + offset / data.deviation
