"""Trials as a table for the surrogates: inputs, losses per target, and how the losses become one objective.

In: features of K mixtures and their measured losses. Out: a checked `Swarm` and an `Objective`.
Each target is regressed by itself; targets are added up only at prediction time. Fitting a pre-averaged score
instead costs much of the accuracy (Spearman 0.94 instead of 0.99 with 128 of RegMix's trials), because
every target depends on other domains; so a target that is the average of others is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from quadmix.errors import SearchError
from quadmix.search.table import FeatureTable
from quadmix.types import Floats, Objective

How = Literal["mean", "worst"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Swarm:
    """K usable trials. ids: their names. table: what they selected. losses: target -> (K,), all finite."""

    ids: tuple[str, ...]
    table: FeatureTable
    losses: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> "Swarm":
        """Return the trials of `index` alone."""
        places = np.arange(len(self))[index]
        return Swarm(
            ids=tuple(self.ids[i] for i in places),
            table=self.table.rows(places),
            losses={target: y[places] for target, y in self.losses.items()},
        )


def check_swarm(
    ids: Sequence[str],
    table: FeatureTable,
    losses: Mapping[str, Floats],
    beside: Mapping[str, Floats] | None = None,
) -> tuple[Swarm, list[str]]:
    """Return the swarm with the targets that vary, and a warning for each that does not.

    beside: other metrics of the same trials that are no targets; a target may not be an average of them
    either. Raises SearchError when ids repeat, all mixtures are the same, no target varies, or a target is
    the average of others.
    """
    _refuse_repeated(ids)
    if not (np.ptp(table.values, axis=0) > 1e-12).any():
        raise SearchError(
            f"all {len(ids)} trials have the same mixture; expected different θ or shares, since nothing "
            "can be learned from one"
        )
    varying = {target: y for target, y in losses.items() if np.ptp(y) > 1e-12}
    if not varying:
        raise SearchError(
            f"all {len(ids)} trials have the same loss on every target; did the proxies train at all?"
        )
    _refuse_averages(varying, {**losses, **(beside or {})})
    warnings = [
        f"target {t!r} is constant over the swarm and is left out" for t in losses if t not in varying
    ]
    return Swarm(ids=tuple(ids), table=table, losses=varying), warnings


def make_objective(
    user: Mapping[str, float],
    losses: Mapping[str, Floats],
    *,
    how: How = "mean",
    ceilings: Mapping[str, float] | None = None,
    relative: Iterable[str] = (),
) -> Objective:
    """Return the objective over the targets of `losses`: user weight over the spread, normalised to sum 1."""
    raw = {target: user[target] / float(y.std(ddof=1)) for target, y in losses.items()}
    total = sum(raw.values())
    return Objective(
        weights={target: value / total for target, value in raw.items()},
        how=how,
        levels={target: float(y.mean()) for target, y in losses.items()},
        ceilings={t: c for t, c in (ceilings or {}).items() if t in losses},
        relative=tuple(t for t in relative if t in losses),
    )


def combined(objective: Objective, losses: Mapping[str, Floats]) -> Floats:
    """Return the objective (K,) of losses per target, (K,) each."""
    weights = objective.weights
    if objective.how == "mean":
        return np.sum([w * losses[t] for t, w in weights.items()], axis=0)
    level = sum(w * objective.levels[t] for t, w in weights.items())
    worst = np.max([w * (losses[t] - objective.levels[t]) for t, w in weights.items()], axis=0)
    return level + len(weights) * worst


def excess(objective: Objective, losses: Mapping[str, Floats]) -> Floats:
    """Return (K,) by how much the ceilings are exceeded, in units of the objective; 0 where none is."""
    over = [
        objective.weights[t] * np.maximum(losses[t] - ceiling, 0.0)
        for t, ceiling in objective.ceilings.items()
    ]
    return np.sum(over, axis=0) if over else np.zeros(len(next(iter(losses.values()))))


def best_measured(objective: Objective, losses: Mapping[str, Floats]) -> int:
    """Return the row of least objective among those that break no ceiling, or break them least."""
    over = excess(objective, losses)
    return int(np.lexsort((combined(objective, losses), np.maximum(over, 0.0)))[0])


def _refuse_repeated(ids: Sequence[str]) -> None:
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = sorted({i for i in ids if i in seen or seen.add(i)})
        raise SearchError(
            f"{len(twice)} trial ids appear more than once ({', '.join(map(repr, twice[:5]))}); expected "
            "each once: remove the repeats, or give replicates of a mixture ids of their own"
        )


def _refuse_averages(targets: Iterable[str], losses: Mapping[str, Floats]) -> None:
    """Refuse a target that is a convex combination of two or more others, up to rounding."""
    if not 3 <= len(losses) <= len(next(iter(losses.values()))) - 2:  # fewer trials can be fitted by chance
        return
    for target in targets:
        y = losses[target]
        others = [name for name in losses if name != target]
        parts = np.stack([losses[name] for name in others], axis=1)
        weights = nnls(parts, y)[0]
        error = float(np.abs(parts @ weights - y).max())
        whole = abs(float(weights.sum()) - 1.0) < 1e-3
        used = [name for name, w in zip(others, weights, strict=True) if w > 5e-3]
        rounded = 2e-4 * float(np.ptp(y))  # averages are often written with four digits
        if whole and len(used) > 1 and error < rounded:
            raise SearchError(
                f"target {target!r} is the average of {', '.join(map(repr, used[:6]))}, which are targets "
                "too: leave it out and weigh its parts; each target gets a surrogate of its own, and "
                "the average of their predictions is far more accurate than a prediction of the average"
            )
