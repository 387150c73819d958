"""From measured trials to candidates worth confirming, with the evidence: the same for θ and for shares.

In: trials in a space, the objective, points that are candidates anyway. Out: `Findings`.
theta-star is searched by CMA-ES on all targets' surrogates (`adaptive`); `paper` is the published search:
many random draws, the `paper` surrogate, the mean of the best (arXiv 2504.16511 §3.3). Both are always
reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quadmix.engine.threads import run_threads
from quadmix.rng import derived_seed, stream
from quadmix.search.adaptive import Known
from quadmix.search.diagnostics import OBJECTIVE, reports, warnings_about
from quadmix.search.effects import effects
from quadmix.search.learning import best_points, learning_curve, optimism, strongest
from quadmix.search.model import CrossFit, Fit, Model, cross_fit, fit_model
from quadmix.search.optimise import THOROUGH
from quadmix.search.surrogate import LEAST, LEAST_ANY, fit_plain
from quadmix.search.swarm import best_measured, combined
from quadmix.types import (
    Candidate,
    Contrast,
    Effect,
    Floats,
    Interaction,
    LearningCurve,
    Objective,
    Optimism,
    Proposal,
    SurrogateReport,
)

RUNS = 4
STAR, PAPER, BEST = "theta-star", "paper", "best-observed"
_CHUNK = 10_000
_WIDEST_EXPLAINED = 200  # trials beyond which the effects are taken from a part of them


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """points: name -> (P,), the proposal first. model and cross: what predicts them. The rest is evidence."""

    points: dict[str, Floats]
    model: Model
    cross: CrossFit
    diagnostics: tuple[SurrogateReport, ...]
    learning: LearningCurve
    optimism: Optimism | None
    effects: tuple[Effect, ...]
    contrasts: dict[str, tuple[Contrast, ...]]
    interactions: tuple[Interaction, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Brief:
    """fit: surrogate and features. draws, top_k: of the published search. mode: which proposal comes first.
    noises: of one trial, per target and "objective" (NaN: unknown)."""

    fit: Fit
    draws: int
    top_k: int
    mode: str
    noises: Mapping[str, float]
    seed: int


def find(
    known: Known, objective: Objective, brief: Brief, named: Mapping[str, Floats], reference: str
) -> Findings:
    """Return proposals and evidence. named: candidates that are there anyway; `reference` is one of them."""
    swarm, seed = known.swarm, brief.seed
    beside = ["paper"] if len(swarm) * 4 // 5 >= LEAST_ANY else []
    cross = cross_fit(swarm, brief.fit, stream(seed, "folds"), beside=beside)
    model = fit_model(swarm, cross, objective)
    found = reports(swarm, cross, objective, brief.noises, seed)
    warnings = warnings_about(found, brief.fit.surrogate, len(swarm))
    star = best_points(known, model, RUNS, derived_seed(seed, "final"), THOROUGH)
    points = {STAR: star[0]}
    paper = published(known, objective, brief)
    if paper is None:
        warnings.append(f"the published recipe needs {LEAST['paper']} trials; no candidate 'paper'")
    else:
        points = {PAPER: paper, **points} if brief.mode == "paper" else {**points, PAPER: paper}
    best = best_measured(objective, swarm.losses)
    points = {**points, BEST: known.points[best], **named}
    noise_sd = brief.noises.get(OBJECTIVE, float("nan"))
    explained = effects(
        _part(known, seed), brief.fit, objective, kind=strongest(swarm, cross),
        candidates=points, reference=points[reference], noise_sd=noise_sd, seed=seed,
    )  # fmt: skip
    return Findings(
        points=points, model=model, cross=cross, diagnostics=tuple(found),
        learning=learning_curve(swarm, cross, objective, seed, noise_sd),
        optimism=optimism(known, cross, objective, seed),
        effects=explained.effects,
        contrasts=explained.contrasts,
        interactions=explained.interactions,
        warnings=tuple(warnings),
    )  # fmt: skip


def published(known: Known, objective: Objective, brief: Brief) -> Floats | None:
    """Return the mean of the best of many random draws under the `paper` surrogate, None below 40 trials."""
    if len(known.swarm) < LEAST["paper"]:
        return None
    targets = list(known.swarm.losses)
    table, losses = known.swarm.table, known.swarm.losses
    fitted = run_threads(lambda t: fit_plain("paper", table, losses[t]), targets, brief.fit.workers)
    models = dict(zip(targets, fitted, strict=True))
    points = known.space.draw(stream(brief.seed, "candidates"), brief.draws)
    tables = [known.space.published_table(points[i : i + _CHUNK]) for i in range(0, len(points), _CHUNK)]
    tasks = [(t, i) for t in targets for i in range(len(tables))]
    means = run_threads(lambda a: models[a[0]].mean(tables[a[1]]), tasks, brief.fit.workers)
    by_target = {
        t: np.concatenate([m for (name, _), m in zip(tasks, means, strict=True) if name == t])
        for t in targets
    }
    predicted = combined(objective, by_target)
    if not np.ptp(predicted) > 1e-12:
        return None
    return known.space.average(points[np.argsort(predicted, kind="stable")[: brief.top_k]])


def candidate(name: str, known: Known, findings: Findings) -> Candidate:
    """Return the candidate of one of the findings' points, without θ; its shares are those of the table."""
    table = known.space.table(findings.points[name][None])
    predicted, losses = findings.model.predict(table)
    half = findings.model.quantile * float(predicted.stderr[0])
    shares = {table.names[i][6:-1]: float(table.values[0, i]) for i in np.flatnonzero(table.is_share)}
    mean = float(predicted.mean[0])
    return Candidate(
        name=name, theta=None, predicted=mean, predicted_low=mean - half, predicted_high=mean + half,
        losses={target: float(v[0]) for target, v in losses.items()}, shares=shares,
    )  # fmt: skip


def as_proposal(
    known: Known, findings: Findings, candidates: tuple[Candidate, ...], noises: Mapping[str, float],
    excluded: Mapping[str, str], warnings: list[str],
) -> Proposal:  # fmt: skip
    """Return the proposal that travels: candidates with all evidence."""
    truth = combined(findings.model.objective, known.swarm.losses)
    table = known.swarm.table
    return Proposal(
        candidates=candidates,
        objective=findings.model.objective,
        diagnostics=findings.diagnostics,
        trials_used=len(known.swarm),
        trials_excluded=dict(excluded),
        noise_sd=noises.get(OBJECTIVE, float("nan")),
        spread_sd=float(truth.std(ddof=1)),
        feature_names=tuple(name for name, raw in zip(table.names, table.is_raw, strict=True) if not raw),
        warnings=(*warnings, *findings.warnings),
        surrogate=findings.cross.fit.surrogate,
        learning=findings.learning,
        optimism=findings.optimism,
        effects=findings.effects,
        contrasts=findings.contrasts,
        interactions=findings.interactions,
        best_observed=float(truth.min()),
    )


def _part(known: Known, seed: int) -> Known:
    count = len(known.swarm)
    if count <= _WIDEST_EXPLAINED:
        return known
    return known.rows(np.sort(stream(seed, "explained").permutation(count)[:_WIDEST_EXPLAINED]))
