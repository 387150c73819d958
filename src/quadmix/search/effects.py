"""What moves the objective around the proposal, what is a free choice, and what sets a candidate apart.

In: the trials, the candidates and a reference (the prior mean) as points of the space. Out: an `Effect` per
group of parameters and domain, largest first, the largest `Contrast`s of every candidate to the reference,
and the `Interaction`s of the domains.

range: the group alone moves through its box while everything else stays at the proposal (weights: each
criterion alone, and all equal), predicted objective largest minus smallest. difference: the candidate's
values of the group put into the reference. interaction of two domains: the difference of both together minus
the difference of each, of the proposal. All are means over refits of one surrogate on random 80 % of the
trials. The refits differ less than fits on fresh trials would: their variance times 0.8 / 0.2 is the delete-d
jackknife's estimate (Shao and Wu 1989), from which the intervals are made.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from quadmix.engine.threads import run_threads
from quadmix.rng import stream
from quadmix.search.adaptive import Known
from quadmix.search.model import Fit
from quadmix.search.surrogate import LEAST_ANY, Surrogate, fit_plain
from quadmix.search.swarm import combined
from quadmix.search.table import FeatureTable
from quadmix.types import Contrast, Effect, Floats, Interaction, Objective

REFITS = 12
SHOWN = 20
PAIRED = 24  # domains whose interactions are computed
_SHARE = 0.8
EVERY = "*"
_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    name: str
    domain: str
    coordinates: NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explained:
    """effects: around the proposal, largest range first. contrasts: per candidate, largest difference first.
    interactions: of pairs of domains, largest first."""

    effects: tuple[Effect, ...]
    contrasts: dict[str, tuple[Contrast, ...]]
    interactions: tuple[Interaction, ...]


def effects(
    known: Known,
    fit: Fit,
    objective: Objective,
    *,
    kind: str,
    candidates: Mapping[str, Floats],
    reference: Floats,
    noise_sd: float,
    seed: int,
) -> Explained:
    """Return the effects of every group in every domain, of every group over all domains and of every domain.

    candidates: points by name, the proposal first. kind: of the surrogate that is refitted.
    """
    groups, proposal = list(_groups(known.space.groups)), next(iter(candidates.values()))
    moved = [_moved(known.space.groups, g, proposal) for g in groups]
    swapped = [known.space.swap(reference, c, g.coordinates) for c in candidates.values() for g in groups]
    pairs = _pairs(groups, proposal - reference)
    both = [
        known.space.swap(reference, proposal, np.concatenate([groups[a].coordinates, groups[b].coordinates]))
        for a, b in pairs
    ]
    points = np.concatenate([reference[None], np.stack(swapped), *moved, *(p[None] for p in both)])
    table = known.space.table(points)
    values = _refits(known, fit, kind, objective, table, seed)
    noise = noise_sd if np.isfinite(noise_sd) else 0.0
    shifts = values[:, 1 : 1 + len(swapped)] - values[:, :1]
    contrasts: dict[str, list[Contrast]] = {}
    for number, name in enumerate(candidates):
        own = shifts[:, number * len(groups) : (number + 1) * len(groups)]
        contrasts[name] = [_contrast(g, own[:, i]) for i, g in enumerate(groups)]
    found: list[Effect] = []
    start = 1 + len(swapped)
    for group, block, contrast in zip(groups, moved, contrasts[next(iter(candidates))], strict=True):
        part = values[:, start : start + len(block)]
        start += len(block)
        ranges = part.max(axis=1) - part.min(axis=1)
        found.append(
            Effect(
                group=group.name, domain=group.domain, range=float(ranges.mean()),
                difference=contrast.difference, low=contrast.low, high=contrast.high,
                flat=bool(ranges.mean() + _half_width(ranges) < max(noise, 1e-12)),
            )
        )  # fmt: skip
    largest = {
        name: tuple(sorted(rows, key=lambda c: -abs(c.difference))[:SHOWN])
        for name, rows in contrasts.items()
    }
    first = [shifts[:, i] for i in range(len(groups))]  # of the proposal
    together = values[:, len(points) - len(both) :] - values[:, :1]
    interactions = [
        _interaction(groups[a], groups[b], together[:, i] - first[a] - first[b])
        for i, (a, b) in enumerate(pairs)
    ]
    return Explained(
        effects=tuple(sorted(found, key=lambda e: -e.range)),
        contrasts=largest,
        interactions=tuple(sorted(interactions, key=lambda i: -abs(i.difference))),
    )


def _pairs(groups: Sequence["_Group"], step: Floats) -> list[tuple[int, int]]:
    """Return the pairs of domains, as places in `groups`; of very many domains those that moved furthest.

    step: (P,) proposal minus reference.
    """
    whole = any(g.name == EVERY for g in groups)
    rows = [i for i, g in enumerate(groups) if g.domain != EVERY and (g.name == EVERY or not whole)]
    far = sorted(rows, key=lambda i: -float(np.square(step[groups[i].coordinates]).sum()))[:PAIRED]
    return list(itertools.combinations(sorted(far), 2))


def _interaction(group: "_Group", other: "_Group", shifts: Floats) -> Interaction:
    mean, half = float(shifts.mean()), _half_width(shifts)
    return Interaction(
        domain=group.domain, other=other.domain, difference=mean, low=mean - half, high=mean + half
    )


def _contrast(group: "_Group", shifts: Floats) -> Contrast:
    mean, half = float(shifts.mean()), _half_width(shifts)
    return Contrast(group=group.name, domain=group.domain, difference=mean, low=mean - half, high=mean + half)


def _half_width(values: Floats) -> float:
    """Return the half width of a 90 % interval from refits on a share of the trials (delete-d jackknife)."""
    scale = np.sqrt(_SHARE / (1.0 - _SHARE))
    return float(t.ppf(0.95, len(values) - 1) * scale * values.std(ddof=1))


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


def _moved(names: tuple[tuple[str, str], ...], group: _Group, proposal: Floats) -> Floats:
    """Return points: the proposal, and the proposal with the group moved through its box."""
    rows = [proposal]
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
    size = max(LEAST_ANY, int(_SHARE * len(swarm)))
    parts = [np.sort(rng.permutation(len(swarm))[:size]) for _ in range(REFITS)]
    tasks = [(i, target) for i in range(REFITS) for target in swarm.losses]

    def one(task: tuple[int, str]) -> Surrogate:
        rows = parts[task[0]]
        return fit_plain(kind, swarm.table.rows(rows), swarm.losses[task[1]][rows], fit.features)

    models = dict(zip(tasks, run_threads(one, tasks, fit.workers), strict=True))
    return np.stack(
        [
            combined(objective, {name: models[i, name].mean(table) for name in swarm.losses})
            for i in range(REFITS)
        ]
    )
