"""CMA-ES in the unit box on what the surrogate says.

In: an acquisition function over points, starts. Out: one point per start. Several searches run in lockstep,
so that the surrogate sees one large table per step instead of many small ones. Above 40 coordinates the
covariance is diagonal (`cmaes.SepCMA`). Points are evaluated where they are clipped to the box and pay a
small price for the distance; a trust region narrows the box around each start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from quadmix.errors import MissingExtraError
from quadmix.types import Floats

_DIAGONAL = 40
_OUTSIDE = 1.0  # price of a squared unit outside the box, in spreads of a run's first step


_STALL, _PATIENCE = 1e-3, 30  # a run stops after 30 steps in which it gains less than this share of a spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """steps: generations. population: points per generation. sigma: first step size. reach: half width of the
    trust region around the start, in units of the box (1 is the whole box)."""

    steps: int = 200
    population: int = 20
    sigma: float = 0.25
    reach: float = 1.0


THOROUGH = Effort()
# Half the box around a trial did no worse in the simulator than the whole box, and stays near what is known.
BATCH = Effort(steps=40, population=12, sigma=0.2, reach=0.5)


def minimise(
    acquisition: Callable[[Floats, Sequence[int]], Floats],
    starts: Floats,
    *,
    seed: int,
    effort: Effort = THOROUGH,
) -> tuple[Floats, Floats]:
    """Return the best points (S, P) and their values (S,) of one CMA-ES run per start (S, P).

    acquisition(points (B, P), run of each point (B,)) -> (B,): runs may minimise different functions.
    """
    try:
        from cmaes import CMA, SepCMA
    except ImportError as error:
        raise MissingExtraError("cmaes", "search", "the search") from error
    kind = SepCMA if starts.shape[1] > _DIAGONAL else CMA
    low = np.maximum(starts - effort.reach, 0.0)
    high = np.minimum(starts + effort.reach, 1.0)
    runs = [
        kind(
            mean=start.copy(), sigma=effort.sigma, population_size=effort.population, seed=(seed + i) % 2**31
        )
        for i, start in enumerate(starts)
    ]
    active = list(range(len(runs)))
    best, value = starts.copy(), acquisition(starts, active)
    spread, improved, last = np.zeros(len(runs)), np.zeros(len(runs), dtype=int), value.copy()
    for step in range(effort.steps):
        which = np.repeat(active, effort.population)
        asked = np.concatenate([[runs[i].ask() for _ in range(effort.population)] for i in active])
        inside = np.clip(asked, low[which], high[which])
        values = acquisition(inside, which.tolist())
        outside = ((asked - inside) ** 2).sum(axis=1)
        for i in active:
            rows = np.flatnonzero(which == i)
            if step == 0:  # the best quarter: points where constraints are broken lie far above the others
                spread[i] = 2.0 * (np.quantile(values[rows], 0.25) - values[rows].min())
            fitness = values[rows] + _OUTSIDE * spread[i] * outside[rows]
            runs[i].tell([(asked[row], float(f)) for row, f in zip(rows, fitness, strict=True)])
            row = rows[int(np.argmin(values[rows]))]
            if values[row] < value[i]:
                best[i], value[i] = inside[row], values[row]
            if last[i] - value[i] > _STALL * spread[i]:
                improved[i], last[i] = step, value[i]
        active = [i for i in active if step - improved[i] < _PATIENCE]
        if not active:
            break
    return best, value
