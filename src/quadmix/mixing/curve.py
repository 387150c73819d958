"""Equation 3: rank -> expected copies, at a point, over an interval and over a whole domain.

    S(r̄) = (2 / (1 + e^{-λ(ω-r̄)}))^η + ε   for r̄ <= ω,   ε otherwise                    (Eq. 3)

In: ranks (0 = best) and θ. Out: expected copies, times θ's `scale` (1 in the paper).

Differs from the paper: documents get the mean of S over the interval of tokens they cover instead
of S at its worst end. Then Σ tokens · copies = T_m · (G + ε) whatever the ties and the document
lengths, so the tokens of a domain are known before any document is looked at.

With u = λ(ω - r̄) the window is u >= 0 and the integrand h(u) = (2 / (1 + e^-u))^η has its nearest
singularity at u = ±πi. Gauss-Legendre with 10 nodes on a panel of width <= 1 is therefore exact to
rounding (error ~ 12.6^-20), and for u > 40 the integrand is 2^η to rounding. Narrow intervals are
averaged directly, which never divides a small difference by a small width; wide ones by
Φ(u) = ∫_0^u h, from a table at whole u plus one panel.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quadmix.errors import ScoreError
from quadmix.types import Floats, Ranks, Theta

_FLAT = 40
_X, _W = np.polynomial.legendre.leggauss(10)
_NODES, _WEIGHTS = (_X + 1) / 2, _W / 2


def expected_copies(rank: ArrayLike, theta: Theta, domain: ArrayLike) -> Floats:
    """Return S at a point (Eq. 3), times the domain's scale.

    rank: (D,) or a number, 0 = best. domain: (D,) or one index. Result: their broadcast shape.
    """
    r, m = np.broadcast_arrays(np.asarray(rank, dtype=np.float64), np.asarray(domain))
    _check_domain(m, theta)
    cutoff = theta.cutoff[m]
    u = theta.steepness[m] * np.maximum(cutoff - r, 0.0)
    inside = np.where(r <= cutoff, _height(u, theta.exponent[m]), 0.0)
    return theta.scale[m] * (inside + theta.floor[m])


def mean_copies(ranks: Ranks, theta: Theta, domain: NDArray[np.integer]) -> Floats:
    """Return (D,) the mean of S over each document's interval, times the domain's scale.

    ranks: intervals of (D,), 0 = best; where low == high this is Eq. 3 at the point.
    """
    if np.array_equal(ranks.low, ranks.high):
        return expected_copies(ranks.high, theta, domain)
    _check_domain(domain, theta)
    inside = np.flatnonzero(ranks.low <= theta.cutoff[domain])
    m, low, high = domain[inside], ranks.low[inside], ranks.high[inside]
    cutoff, steepness = theta.cutoff[m], theta.steepness[m]
    top = np.minimum(high, cutoff)
    width = high - low
    covered = np.where(width > 0, (top - low) / np.where(width > 0, width, 1.0), 1.0)
    mean = _window_mean(steepness * (cutoff - top), steepness * (cutoff - low), theta.exponent, m)
    copies = theta.floor[domain]
    copies[inside] += covered * mean
    return theta.scale[domain] * copies


def curve_mass(theta: Theta) -> Floats:
    """Return (M,) scale · (G + ε): expected copies per token of each domain, G = ∫_0^ω S̃ dr.

    For η = 1 this is scale · ((2/λ) ln((1 + e^{λω})/2) + ε).
    """
    return theta.scale * (window_mass(theta.cutoff, theta, window_table(theta.exponent)) + theta.floor)


def window_table(exponent: Floats) -> Floats:
    """Return (M, 41), Φ(u) = ∫_0^u h at u = 0, 1, ..., 40 for every exponent."""
    left = np.arange(_FLAT, dtype=np.float64)
    panels = _panel_mean(left[None, :], left[None, :] + 1.0, exponent[:, None])
    return np.concatenate([np.zeros((len(exponent), 1)), np.cumsum(panels, axis=1)], axis=1)


def window_mass(cutoff: Floats, theta: Theta, table: Floats) -> Floats:
    """Return (M,) G at other cutoffs than θ's own; `table` is `window_table(theta.exponent)`."""
    rows = np.arange(theta.num_domains)
    return _integral(theta.steepness * cutoff, theta.exponent, table, rows) / theta.steepness


def _height(u: Floats, exponent: Floats) -> Floats:
    # u >= 0 inside the window, so e^-u cannot overflow, whatever λ.
    return np.power(2.0 / (1.0 + np.exp(-u)), exponent)


def _panel_mean(left: Floats, right: Floats, exponent: Floats) -> Floats:
    """Mean of h over [left, right] by Gauss-Legendre, node by node so that it is elementwise."""
    width = right - left
    mean = np.zeros(np.broadcast_shapes(left.shape, exponent.shape))
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        mean += weight * _height(left + node * width, exponent)
    return mean


def _integral(u: Floats, exponent: Floats, table: Floats, rows: NDArray[np.integer]) -> Floats:
    """Φ(u) = ∫_0^u h; `exponent` is aligned with u, `table` is looked up by `rows`."""
    whole = np.minimum(np.floor(u), float(_FLAT))
    rest = u - whole
    return table[rows, whole.astype(np.int64)] + rest * _panel_mean(whole, u, exponent)


def _window_mean(left: Floats, right: Floats, exponents: Floats, m: NDArray[np.integer]) -> Floats:
    """Mean of h over [left, right] for documents of domains m."""
    wide = np.flatnonzero(right - left > 1.0)
    exponent = exponents[m]
    if not len(wide):
        return _panel_mean(left, right, exponent)
    mean = _panel_mean(left, np.minimum(right, left + 1.0), exponent)
    table, a, b = window_table(exponents), left[wide], right[wide]
    upper = _integral(b, exponent[wide], table, m[wide])
    mean[wide] = (upper - _integral(a, exponent[wide], table, m[wide])) / (b - a)
    return mean


def _check_domain(domain: NDArray[np.integer], theta: Theta) -> None:
    if domain.size and not 0 <= int(domain.min()) <= int(domain.max()) < theta.num_domains:
        raise ScoreError(
            f"domain spans {domain.min()}..{domain.max()}, expected 0..{theta.num_domains - 1} as in theta"
        )
