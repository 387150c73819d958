"""From a table of mixtures and losses to a proposal: no corpus, no GPU, no account.

In: a `MixtureTable` (one row per run: token shares of domains, metrics) and wishes. Out: a `Proposal` whose
candidates are shares.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from quadmix.engine.threads import one_thread
from quadmix.errors import SearchError
from quadmix.recipe import SearchSection
from quadmix.search.adaptive import Known
from quadmix.search.diagnostics import OBJECTIVE
from quadmix.search.exchange import MixtureTable, ShareWishes
from quadmix.search.find import BEST, Brief, Findings, as_proposal, candidate, find
from quadmix.search.model import Fit
from quadmix.search.space import ShareSpace
from quadmix.search.surrogate import LEAST_ANY
from quadmix.search.swarm import best_measured, check_swarm, combined, make_objective
from quadmix.types import Candidate, Floats, Objective, Proposal

NATURAL, CURRENT, EQUAL = "natural", "current", "equal-domains"


def propose_shares(
    mixtures: MixtureTable, wishes: ShareWishes, section: SearchSection, *, seed: int
) -> Proposal:
    """Return candidates for the next model's mixture, the proposal first, with out-of-fold evidence.

    `theta-star` (searched), `paper` (RegMix's procedure), `best-observed`, `natural`, `equal-domains`,
    `current`. Rows with the same mixture are repeats: they measure the noise, and their mean stands for them
    in the fit. Raises SearchError when there are too few rows or nothing varies.
    """
    targets = dict(wishes.weights) or dict.fromkeys(mixtures.metrics, 1.0)
    merged, repeats = _merge_repeats(mixtures, list(targets))
    if len(merged.ids) < LEAST_ANY:
        raise SearchError(
            f"{len(merged.ids)} different mixtures can be used, expected at least {LEAST_ANY} "
            f"({len(mixtures.excluded)} rows are excluded); add runs"
        )
    space = ShareSpace(bounds=wishes.bounds, natural=wishes.natural)
    points = space.points(merged.shares)
    # as measured, whatever the constraints are now
    table = replace(space.table(points), values=merged.shares)
    losses = {t: merged.metrics[t] for t in targets}
    swarm, warnings = check_swarm(merged.ids, table, losses, merged.beside)
    objective = make_objective(targets, swarm.losses, how=wishes.how, ceilings=wishes.ceilings)
    noises = _noises(repeats, objective)
    known = Known(space=space, swarm=swarm, points=points)
    brief = Brief(
        fit=Fit(surrogate=section.surrogate), draws=section.candidates, top_k=section.top_k,
        mode=section.mode, noises=noises, seed=seed,
    )  # fmt: skip
    count = len(mixtures.domains)
    named = {NATURAL: wishes.natural, EQUAL: np.full(count, 1.0 / count)}
    if wishes.current is not None:
        named[CURRENT] = wishes.current
    inside = {name: space.points(wishes.bounds.project(shares[None]))[0] for name, shares in named.items()}
    with one_thread():
        found = find(known, objective, brief, inside, NATURAL)
    candidates = tuple(candidate(name, known, found) for name in found.points)
    row = best_measured(objective, swarm.losses)
    candidates = tuple(
        _as_measured(c, known, found, row, space.domains) if c.name == BEST else c for c in candidates
    )
    if np.abs(wishes.bounds.project(merged.shares[row][None])[0] - merged.shares[row]).max() > 1e-3:
        warnings.append(f"the best observed run ({merged.ids[row]}) breaks the bounds that are asked for")
    if mixtures.excluded:
        warnings.append(f"{len(mixtures.excluded)} rows are left out; `trials_excluded` names them")
    return as_proposal(known, found, candidates, noises, mixtures.excluded, warnings)


def _as_measured(
    found: Candidate, known: Known, findings: Findings, row: int, domains: tuple[str, ...]
) -> Candidate:
    """Return the best observed candidate with the shares that were trained, whatever the bounds are now."""
    table = known.swarm.table.rows(np.array([row]))
    predicted, losses = findings.model.predict(table)
    mean, half = float(predicted.mean[0]), findings.model.quantile * float(predicted.stderr[0])
    return replace(
        found, predicted=mean, predicted_low=mean - half, predicted_high=mean + half,
        losses={t: float(v[0]) for t, v in losses.items()},
        shares=dict(zip(domains, map(float, table.values[0]), strict=True)),
    )  # fmt: skip


def _merge_repeats(
    mixtures: MixtureTable, targets: list[str]
) -> tuple[MixtureTable, list[dict[str, Floats]]]:
    """Return the table with one row per mixture, and the losses of every mixture that was measured again."""
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, shares in enumerate(np.round(mixtures.shares, 9)):
        groups[shares.tobytes()].append(row)
    rows = list(groups.values())
    metrics = {t: np.array([mixtures.metrics[t][r].mean() for r in rows]) for t in targets}
    others = {**mixtures.beside, **{t: y for t, y in mixtures.metrics.items() if t not in targets}}
    again = [{t: mixtures.metrics[t][r] for t in targets} for r in rows if len(r) > 1]
    first = [r[0] for r in rows]
    merged = replace(
        mixtures, ids=tuple(mixtures.ids[i] for i in first), shares=mixtures.shares[first], metrics=metrics,
        beside={name: np.array([y[r].mean() for r in rows]) for name, y in others.items()},
    )  # fmt: skip
    return merged, again


def _noises(repeats: list[dict[str, Floats]], objective: Objective) -> dict[str, float]:
    """Return the standard deviation of one run, pooled over all repeated mixtures (NaN without any)."""

    def pooled(groups: list[Floats]) -> float:
        freedom = sum(len(g) - 1 for g in groups)
        squares = sum(float(((g - g.mean()) ** 2).sum()) for g in groups)
        return (squares / freedom) ** 0.5 if freedom else float("nan")

    found: Mapping[str, float] = {t: pooled([g[t] for g in repeats]) for t in objective.weights}
    return {**found, OBJECTIVE: pooled([combined(objective, g) for g in repeats])}
