"""What moves the objective around the proposal, and what is a free choice.

In: the trials, the proposal and a reference (the prior mean) as points of the space. Out: an `Effect` per
group of parameters and domain, largest first.

range: the group alone moves through its box while everything else stays at the proposal (weights: each
criterion alone, and all equal), predicted objective largest minus smallest. difference: the proposal's values
of the group put into the reference. Both are means over refits of one surrogate on random 80 % of the
trials; the interval of the difference is theirs. A group whose range stays below the noise of one trial is
flat: any value of it does.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.engine.threads import run_threads
from quadmix.rng import stream
from quadmix.search.adaptive import Known
from quadmix.search.model import Fit, whole
from quadmix.search.space import Space
from quadmix.search.surrogate import LEAST_ANY, Surrogate, fit_plain
from quadmix.search.table import FeatureTable
from quadmix.types import Effect, Floats, Objective

REFITS = 8
EVERY = "*"
_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    name: str
    domain: str
    coordinates: NDArray[np.intp]


def effects(
    known: Known,
    fit: Fit,
    objective: Objective,
    *,
    kind: str,
    proposal: Floats,
    reference: Floats,
    noise_sd: float,
    seed: int,
) -> tuple[Effect, ...]:
    """Return the effects of every group in every domain, of every group over all domains and of every
    domain."""
    groups = list(_groups(known.space.groups))
    blocks = [_variants(known.space, g, proposal, reference) for g in groups]
    table = known.space.table(np.concatenate([reference[None], *blocks]))
    values = _refits(known, fit, kind, objective, table, seed)
    noise = noise_sd if np.isfinite(noise_sd) else 0.0
    found: list[Effect] = []
    start = 1
    for group, block in zip(groups, blocks, strict=True):
        swapped = values[:, start] - values[:, 0]
        moved = values[:, start + 1 : start + len(block)]
        start += len(block)
        ranges = moved.max(axis=1) - moved.min(axis=1)
        low, high = np.quantile(swapped, [0.05, 0.95])
        found.append(
            Effect(
                group=group.name, domain=group.domain, range=float(ranges.mean()),
                difference=float(swapped.mean()), low=float(low), high=float(high),
                flat=bool(np.quantile(ranges, 0.95) < max(noise, 1e-12)),
            )
        )  # fmt: skip
    return tuple(sorted(found, key=lambda e: -e.range))


def _groups(names: tuple[tuple[str, str], ...]) -> Iterable[_Group]:
    """Yield (group, domain), (group, every domain) and (every group, domain); weights count as one group."""
    kinds = [kind.split("[")[0] for kind, _ in names]
    domains = [domain for _, domain in names]
    for kind in dict.fromkeys(kinds):
        own = [k == kind for k in kinds]
        if len(set(kinds)) > 1:
            yield _Group(name=kind, domain=EVERY, coordinates=np.flatnonzero(own))
        for domain in dict.fromkeys(domains):
            rows = np.flatnonzero([k and d == domain for k, d in zip(own, domains, strict=True)])
            yield _Group(name=kind, domain=domain, coordinates=rows)
    if len(set(kinds)) > 1:
        for domain in dict.fromkeys(domains):
            yield _Group(
                name=EVERY, domain=domain, coordinates=np.flatnonzero([d == domain for d in domains])
            )


def _variants(space: Space, group: _Group, proposal: Floats, reference: Floats) -> Floats:
    """Return points: the reference with the proposal's group, the proposal, and the proposal with the group
    moved."""
    names = space.groups
    rows = [space.swap(reference, proposal, group.coordinates), proposal]
    weights = np.array([names[i][0].startswith("weight") for i in group.coordinates])
    criteria = [names[i][0] for i in group.coordinates[weights]]
    for level in _LEVELS if not weights.all() else ():
        moved = proposal.copy()
        moved[group.coordinates[~weights]] = level
        rows.append(moved)
    for criterion in [*dict.fromkeys(criteria), None] if len(set(criteria)) > 1 else []:
        moved = proposal.copy()
        moved[group.coordinates[weights]] = [float(criterion in (None, c)) for c in criteria]
        rows.append(moved)
    return np.stack(rows)


def _refits(
    known: Known, fit: Fit, kind: str, objective: Objective, table: FeatureTable, seed: int
) -> Floats:
    """Return (REFITS, K) objectives of one kind of surrogate, each fitted on random 80 % of the trials."""
    swarm = known.swarm
    rng = stream(seed, "effects")
    size = max(LEAST_ANY, int(0.8 * len(swarm)))
    parts = [np.sort(rng.permutation(len(swarm))[:size]) for _ in range(REFITS)]
    tasks = [(i, target) for i in range(REFITS) for target in swarm.losses]

    def one(task: tuple[int, str]) -> Surrogate:
        rows = parts[task[0]]
        return fit_plain(kind, swarm.table.rows(rows), swarm.losses[task[1]][rows], fit.features)

    models = dict(zip(tasks, run_threads(one, tasks, fit.workers), strict=True))
    return np.stack(
        [whole({t: models[i, t].predict(table) for t in swarm.losses}, objective).mean for i in range(REFITS)]
    )
