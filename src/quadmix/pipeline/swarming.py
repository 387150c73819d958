"""The swarm and the search: batches of proxies, each aimed by what the earlier ones measured.

What a batch trains is decided once and written to search/batches.json before it is trained, so that a run
that was killed goes on with the same θ. With search.mode `paper` there is one batch of Algorithm-1 draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from quadmix.errors import BudgetError, RecipeError, SearchError
from quadmix.io.atomic import read_json, read_value, value_digest, write_json
from quadmix.io.trials import apply_dropped
from quadmix.mixing.prior import draw_theta, prior_mean
from quadmix.pipeline.folder import Job, StageNotes, library_versions, stage
from quadmix.pipeline.mix import Mix, Part
from quadmix.pipeline.plan import batch_stage, swarm_batches
from quadmix.pipeline.reuse import reused_trials
from quadmix.pipeline.training import proxy_setting, repeat_jobs, swarm_job, train_jobs
from quadmix.proxy.pool import TokenPool
from quadmix.rng import stream
from quadmix.search.propose import (
    LEAST_TRIALS,
    RECIPE,
    SEARCHED,
    SearchContext,
    first_thetas,
    next_thetas,
    propose,
    usable_trials,
)
from quadmix.search.surrogate import LEAST, LEAST_ANY
from quadmix.types import Batch, Proposal, Theta, Trial


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedBatch:
    """θ of one batch by label, in the order of their trials; `seen` is what was known when it was planned
    (None for the first). Without θ the search stopped there."""

    labels: tuple[str, ...]
    thetas: tuple[Theta, ...]
    seen: Batch | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Swarmed:
    """All trials of the swarm (random, searched, repeated, reused) and what was known before each later
    batch."""

    trials: tuple[Trial, ...]
    batches: tuple[Batch, ...]
    planned: int


def train_swarm(job: Job, mix: Mix, pool: TokenPool) -> Swarmed:
    """Train the proxies of all batches and repeats of the prior mean, all on equal tokens."""
    section, setting = job.recipe.proxy, proxy_setting(job, mix, pool)
    with stage(job, "swarm") as notes:
        part = mix.part(mix.proxy_share(section.training.tokens, section.pool))
        reused, said = reused_trials(job, mix, setting)
        notes.warnings += said.warnings
        centre = part.calibrate(prior_mean(mix.prior))
        repeats = repeat_jobs(pool, mix, part, centre, section.repeats)
        planned = _read_plan(job)
        own: list[Trial] = []
        for number, size in enumerate(swarm_batches(job.recipe)):
            if number == len(planned):
                known = apply_dropped(job.folder, [*own, *without_twins(own, reused)])
                planned.append(_plan(job, mix, part, known, number, size, notes))
                write_json(job.path("search", "batches.json"), planned)
            batch = planned[number]
            start = sum(len(b.thetas) for b in planned[:number])
            jobs = [
                replace(swarm_job(pool, mix, part, theta, start + i, section.common), label=label)
                for i, (theta, label) in enumerate(zip(batch.thetas, batch.labels, strict=True))
            ]
            if number == 0:
                jobs += repeats
            if not jobs:
                break
            own += train_jobs(job, batch_stage(number), jobs, setting, notes)
        batches = tuple(b.seen for b in planned if b.seen is not None)
        count = sum(len(b.thetas) for b in planned)
        notes.facts = {
            "trials": len(own), "batches": [len(b.thetas) for b in planned],
            "not_trained": section.trials - count,
            "train_tokens": section.training.tokens, "reused": said.facts,
            "counted": len(without_twins(own, reused)),
        }  # fmt: skip
        if count < section.trials:
            notes.warnings.append(_stopped(batches[-1], section.trials - count, job.recipe.confirm.seeds))
    kept = without_twins(own, reused)
    trials = apply_dropped(job.folder, [*own, *kept])
    return Swarmed(trials=tuple(trials), batches=batches, planned=count + len(kept))


def without_twins(own: Sequence[Trial], reused: Sequence[Trial]) -> list[Trial]:
    """Return the reused trials whose θ no trial of this run has: twins in different folds of a
    cross-validation would make it see what it is asked for. Repeats do not count: they are not fitted."""
    taken = {value_digest(t.theta) for t in own if t.kind == "prior"}
    return [t for t in reused if value_digest(t.theta) not in taken]


def search(job: Job, mix: Mix, swarm: Swarmed) -> Proposal:
    """Learn how θ moves the target losses and propose candidates.

    A proposal that was made from the same trials, settings and libraries is loaded.
    """
    section = job.recipe.search
    ceilings = [(t.name, t.at_most) for t in job.recipe.targets]
    key = value_digest(
        [list(swarm.trials), section.model_dump(mode="json"), ceilings, swarm.planned, library_versions()]
    )
    file, key_file = job.path("search", "proposal.json"), job.path("search", "key.json")
    with stage(job, "search") as notes:
        if file.exists() and key_file.exists() and read_json(key_file) == key:
            proposal = read_value(file, Proposal)
        else:
            context = search_context(job, mix, planned=swarm.planned)
            with job.progress.stage("search", 1, "proposal"):
                proposal = propose(swarm.trials, context, section, swarm.batches)
            write_json(file, proposal)
            write_json(key_file, key)  # after it: a key may never vouch for an older proposal
        notes.warnings += list(proposal.warnings)
        notes.facts = {"trials_used": proposal.trials_used, "excluded": proposal.trials_excluded}
    return proposal


def search_context(job: Job, mix: Mix, *, planned: int) -> SearchContext:
    """Return what the search needs to know about this run."""
    proxy, targets = job.recipe.proxy, job.recipe.targets
    part = mix.part(mix.proxy_share(proxy.training.tokens, proxy.pool))
    bounded = {
        t.name: np.nan if t.at_most == "control" else float(t.at_most)
        for t in targets
        if t.at_most is not None
    }
    return SearchContext(
        annotations=part.table,
        normalised=part.normalised,
        prior=mix.prior,
        fit=part.calibrate,
        budget=part.budget,
        method=part.method,
        limits=part.limits,
        seed=job.recipe.seed,
        target_weights={t.name: t.weight for t in targets},
        ceilings=bounded,
        planned=planned,
        current=_current(job, mix),
        workers=1 if job.recipe.run.executor == "serial" else job.workers,
    )


def _current(job: Job, mix: Mix) -> Theta | None:
    path = job.recipe.search.current
    if path is None:
        return None
    theta = read_value(path, Theta)
    want = (mix.prior.num_domains, mix.prior.num_criteria)
    if theta.weights.shape != want:
        raise RecipeError(
            f"search.current ({path}) is a θ of {theta.weights.shape[0]} domains and "
            f"{theta.weights.shape[1]} criteria, this run has {want[0]} and {want[1]}; give a theta.json "
            "over the same ones, or leave it out"
        )
    return theta


def _read_plan(job: Job) -> list[PlannedBatch]:
    file = job.path("search", "batches.json")
    return list(read_value(file, tuple[PlannedBatch, ...])) if file.exists() else []


def _plan(
    job: Job, mix: Mix, part: Part, known: Sequence[Trial], number: int, size: int, notes: StageNotes
) -> PlannedBatch:
    """Decide what the next batch trains."""
    section = job.recipe.search
    context = search_context(job, mix, planned=job.recipe.proxy.trials)
    if number == 0:
        _check_surrogate(job, len(known))
    if section.mode == "paper":
        drawn = _draw_fitted(job, mix, part, size, notes, already=len(known))
        return PlannedBatch(labels=("prior",) * size, thetas=tuple(drawn))
    if number == 0:
        there = {t.label for t in known if t.label.startswith(RECIPE)}
        first = first_thetas(context, size, already=len(known), without=there)
        return PlannedBatch(labels=tuple(first), thetas=tuple(first.values()))
    if len(usable_trials(known, context, 0)[0]) < LEAST_TRIALS:
        notes.warnings.append(
            f"batch {number + 1} was not aimed: fewer than {LEAST_TRIALS} trials of the first one can be used"
        )
        more = first_thetas(context, size, already=len(known), without=None)
        return PlannedBatch(labels=tuple(more), thetas=tuple(more.values()))
    with job.progress.stage(f"aim {number + 1}", 1, "batch"):
        found = next_thetas(known, context, section, size)
    if section.stop and found.batch.improvement < resolution(found.batch.noise, job.recipe.confirm.seeds):
        return PlannedBatch(labels=(), thetas=(), seen=found.batch)
    label = f"{SEARCHED}{number + 1}"
    return PlannedBatch(labels=(label,) * len(found.thetas), thetas=found.thetas, seen=found.batch)


def _check_surrogate(job: Job, known: int) -> None:
    """Refuse, before anything is trained, a surrogate that the first batches are too small for."""
    kind, sizes = job.recipe.search.surrogate, swarm_batches(job.recipe)
    first, least = known + sizes[0], LEAST.get({"regmix": "paper"}.get(kind, kind), LEAST_ANY)
    if first < least:
        raise SearchError(
            f"search.surrogate {kind!r} needs {least} trials and the first batch has {first}: set "
            f"search.batches to 1 (then all {job.recipe.proxy.trials} are one batch), raise proxy.trials, or "
            "choose 'auto'"
        )


def resolution(noise: float, seeds: int) -> float:
    """Return the noise of the mean over the confirmation's seeds; 0 where the noise is unknown."""
    return noise / seeds**0.5 if np.isfinite(noise) else 0.0


def _stopped(seen: Batch, left: int, seeds: int) -> str:
    return (
        f"the search stopped early: the next batch was expected to gain at most {seen.improvement:.5f} over "
        f"the best predicted trial, less than the confirmation can see "
        f"({resolution(seen.noise, seeds):.5f}, the noise of a mean of {seeds} seeds); {left} "
        "trials were not trained. search.stop: false trains them all the same"
    )


def _draw_fitted(
    job: Job, mix: Mix, part: Part, count: int, notes: StageNotes, *, already: int
) -> list[Theta]:
    """Return `count` random θ fitted to the budget; draws that cannot meet it are drawn again and counted.

    already: trials of other runs that are known; they may stem from the same stream.
    """
    names = ("prior", already) if already else ("prior",)
    rng, fitted, missed, reason = stream(job.recipe.seed, *names), list[Theta](), 0, ""
    while len(fitted) < count:
        try:
            fitted.append(part.calibrate(draw_theta(rng, mix.prior, 1)[0]))
        except BudgetError as error:
            missed, reason = missed + 1, str(error)
            if missed > 20 * count:
                raise BudgetError(
                    f"{missed} of {missed + len(fitted)} random θ cannot meet it: {reason}"
                ) from error
    if missed:
        notes.warnings.append(f"{missed} random θ could not meet the budget and were drawn again: {reason}")
    return fitted
