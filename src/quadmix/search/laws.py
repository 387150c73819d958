"""Parametric laws from token shares to a loss: few numbers, so they extrapolate where a process cannot.

    transfer    L(w) = c + k (ε + Σ_j T_j w_j)^-γ,  T_j = e^{t_j}         the transfer power law
    mixing      L(w) = c + k exp(Σ_j t_j w_j)                            Data Mixing Laws, arXiv 2403.16952

In: shares w (K, M), losses (K,). Out: a fitted `Law`. c and k >= 0 are linear given the rest and are
solved for in every step (variable projection), so that only the shape is searched; t has a weak ridge, which
also fixes the scale that T, ε and k could trade among themselves.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize

from quadmix.types import Floats

Shape = Literal["transfer", "mixing"]
_RIDGE = 1e-4
_CENTRE = {"transfer": -3.0, "mixing": 0.0}
_STARTS = {"transfer": ((-1.0, -1.0), (-3.0, -2.0), (0.0, -3.0)), "mixing": ((), (), ())}
_SPREAD = {"transfer": (0.0, 0.5, 1.0), "mixing": (0.0, 0.3, 1.0)}
_BOUNDS = {"transfer": ((-8.0, 4.0), (-5.0, 1.5)), "mixing": ()}  # log ε, log γ


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Law:
    """A fitted law. shape parameters: (log ε, log γ, t) or (t,). residual: standard deviation of the fit."""

    shape: Shape
    parameters: Floats
    level: float
    factor: float
    residual: float

    def predict(self, shares: Floats) -> Floats:
        """Return (K,) losses of shares (K, M)."""
        return self.level + self.factor * _curve(self.shape, self.parameters, shares)[0]


def fit_law(shape: Shape, shares: Floats, y: Floats) -> Law:
    """Fit the law by penalised least squares from three starts. shares: (K, M), y: (K,)."""
    unit = float(y.std()) or 1.0
    target = (y - y.mean()) / unit
    slope = np.array([np.polyfit(w, target, 1)[0] if np.ptp(w) > 0 else 0.0 for w in shares.T])
    slope = slope / (np.abs(slope).max() or 1.0)
    best: tuple[float, Floats] = (np.inf, np.empty(0))
    for head, size in zip(_STARTS[shape], _SPREAD[shape], strict=True):
        tail = _CENTRE[shape] + size * (-slope if shape == "transfer" else slope)
        bounds = [*_BOUNDS[shape], *[(-14.0, 6.0)] * len(tail)]
        found = minimize(
            _loss, np.array([*head, *tail]), (shape, shares, target), jac=True, method="L-BFGS-B",
            bounds=bounds, options={"maxiter": 300},
        )  # fmt: skip
        if float(found.fun) < best[0]:
            best = (float(found.fun), np.asarray(found.x, dtype=np.float64))
    curve = _curve(shape, best[1], shares)[0]
    level, factor = _linear(curve, target)
    error = target - level - factor * curve
    freedom = max(1, len(y) - shares.shape[1] - 3)
    return Law(
        shape=shape, parameters=best[1], level=float(y.mean()) + unit * level, factor=unit * factor,
        residual=unit * float(np.sqrt((error @ error) / freedom)),
    )  # fmt: skip


def _curve(shape: Shape, parameters: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """Return the curve (K,) and its derivative with respect to every parameter (K, parameters)."""
    if shape == "mixing":
        curve = np.exp(np.clip(shares @ parameters, -30.0, 30.0))
        return curve, curve[:, None] * shares
    floor, power = np.exp(parameters[:2])
    transfer = np.exp(parameters[2:])
    inside = floor + shares @ transfer
    curve = inside**-power
    pull = -power * curve / inside
    columns = [pull * floor, -power * np.log(inside) * curve]
    return curve, np.concatenate([np.stack(columns, axis=1), pull[:, None] * shares * transfer], axis=1)


def _linear(curve: Floats, y: Floats) -> tuple[float, float]:
    """Return (c, k) of least squares y ~ c + k curve with k >= 0."""
    centred = curve - curve.mean()
    variance = float(centred @ centred)
    factor = max(float(centred @ y) / variance, 0.0) if variance > 0 else 0.0
    return float(y.mean()) - factor * float(curve.mean()), factor


def _loss(parameters: Floats, shape: Shape, shares: Floats, y: Floats) -> tuple[float, Floats]:
    """Mean squared error with c and k solved for (their derivative vanishes there), plus the ridge on t."""
    curve, slope = _curve(shape, parameters, shares)
    level, factor = _linear(curve, y)
    error = level + factor * curve - y
    t = parameters[-shares.shape[1] :] - _CENTRE[shape]
    gradient = 2.0 * factor * (error @ slope) / len(y)
    gradient[-len(t) :] += _RIDGE * t
    return float(error @ error) / len(y) + 0.5 * _RIDGE * float(t @ t), gradient
