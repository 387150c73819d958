"""From the swarm to proposals: which θ to measure next, and which to confirm.

In: trials, the scored pool, the prior and the token budget. Out: θ of the next batch, or a `Proposal` whose
candidates still have to be confirmed by fresh proxies.

Each target has its own surrogate; they are added up only at prediction time, Σ_t w_t loss_t with w_t =
(user weight / spread of the target over the trials that no surrogate chose), normalised to sum 1.
Differs from the paper (§3.3 of arXiv 2504.16511): features of what θ selects, several surrogates weighted by
their error, a local search instead of the mean of the best random draws, batches that test it, and controls
among the candidates. The published proposal is a candidate too.

The intervals cover a fresh trial at a θ chosen beforehand. The *selected* θ is predicted too well
by construction; `Proposal.optimism` estimates by how much, only confirmation measures it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quadmix.engine.threads import one_thread
from quadmix.errors import BudgetError, SearchError
from quadmix.io.trials import is_dropped
from quadmix.mixing.limits import Limits
from quadmix.mixing.prior import Prior, random_mean
from quadmix.mixing.quota import Method
from quadmix.recipe import SearchSection
from quadmix.rng import stream
from quadmix.search.adaptive import Known, next_batch
from quadmix.search.diagnostics import OBJECTIVE, noise
from quadmix.search.find import Brief, Findings, as_proposal, candidate, find
from quadmix.search.model import Fit, cross_fit, fit_model
from quadmix.search.noisy import noisy_targets
from quadmix.search.swarm import Swarm, best_measured, check_swarm, combined, make_objective
from quadmix.search.theta_space import ThetaSpace, theta_space, trivial_recipes
from quadmix.types import Annotations, Batch, Candidate, Floats, Objective, Proposal, Theta, Trial

LEAST_TRIALS = 8
PRIOR_KIND, REPEAT_KIND = "prior", "repeat"
CONTROL, RANDOM_MEAN, CURRENT = "prior-mean", "random-mean", "current"
RECIPE, SEARCHED = "recipe:", "batch-"  # how labels of trials begin that were not drawn from the prior


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchContext:
    """What the search needs to know about the run.

    annotations, normalised (D, N): the documents that may be selected, and no others.
    fit: returns θ fitted to the token budget (and the limits, if any); may raise BudgetError. budget, method,
    limits: the same for the vectorised search. target_weights: the user's weight per target name. ceilings:
    loss that a target may not exceed, or NaN for "no worse than the control". planned: trials that were asked
    for. current: the user's present θ, if any.
    """

    annotations: Annotations
    normalised: NDArray[np.float32]
    prior: Prior
    fit: Callable[[Theta], Theta]
    budget: float
    seed: int
    target_weights: Mapping[str, float]
    planned: int
    method: Method = "cutoff"
    limits: Limits | None = None
    ceilings: Mapping[str, float] | None = None
    current: Theta | None = None
    workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NextThetas:
    """θ to train next, and what their batch looks like before it is trained."""

    thetas: tuple[Theta, ...]
    batch: Batch
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ready:
    known: Known
    space: ThetaSpace
    objective: Objective
    noises: dict[str, float]
    excluded: dict[str, str]
    warnings: list[str]


def make_space(context: SearchContext) -> ThetaSpace:
    """Return the space of θ of a run."""
    return theta_space(
        context.annotations, context.normalised, context.prior, budget=context.budget, exact=context.fit,
        seed=context.seed, method=context.method, limits=context.limits,
    )  # fmt: skip


def first_thetas(
    context: SearchContext, count: int, *, already: int = 0, without: Collection[str] | None = ()
) -> dict[str, Theta]:
    """Return the first batch by label: the trivial recipes, then a space-filling design ("design-0000", ...).

    already: trials of other runs that are known; another part of the design is then taken. without: labels of
    recipes that were trained there, None: no recipes at all.
    Raises SearchError when the prior cannot meet the budget.
    """
    space = make_space(context)
    named = {} if without is None else {f"{RECIPE}{n}": t for n, t in anyway(context, space).items()}
    wanted = [(label, theta) for label, theta in named.items() if label not in (without or ())]
    found = dict(wanted[: max(1, count // 2)])
    left = count - len(found)
    designed, why = space.thetas(space.design(stream(context.seed, "design", already), 2 * left))
    if len(designed) < left:
        raise SearchError(f"{len(designed)} of {2 * left} designed θ can meet the budget exactly: {why}")
    return {**found, **{f"design-{i:04d}": theta for i, theta in enumerate(designed[:left])}}


def anyway(context: SearchContext, space: ThetaSpace) -> dict[str, Theta]:
    """Return the θ that are tried whatever the surrogate says: trivial recipes and the user's present θ."""
    found = trivial_recipes(space, context.annotations, context.normalised)
    if context.current is not None:
        try:
            found = {CURRENT: context.fit(context.current), **found}
        except BudgetError as error:
            raise SearchError(f"the present θ (search.current) cannot meet the budget: {error}") from error
    return found


def next_thetas(
    trials: Sequence[Trial], context: SearchContext, section: SearchSection, count: int
) -> NextThetas:
    """Return the θ of the next batch, near what is predicted best and where it is least known."""
    ready = _prepare(trials, context, section, least=LEAST_TRIALS)
    swarm = ready.known.swarm
    with one_thread():
        cross = cross_fit(swarm, _fit(section, context), stream(context.seed, "folds"))
        model = fit_model(swarm, cross, ready.objective)
        found = next_batch(ready.known, model, count, seed=context.seed)
    batch = Batch(
        trials=len(swarm), best=_measured_best(ready),
        improvement=found.improvement, noise=ready.noises[OBJECTIVE],
    )  # fmt: skip
    thetas, why = ready.space.thetas(found.points)
    if len(thetas) < count:  # refused by the run's exact fit: drawn points take their place
        rng = stream(context.seed, "instead", len(swarm))
        thetas += ready.space.thetas(ready.space.design(rng, 4 * (count - len(thetas))))[0]
    if not thetas:
        raise SearchError(f"none of {count} θ of the next batch can meet the budget exactly: {why}")
    return NextThetas(thetas=tuple(thetas[:count]), batch=batch, rejected=found.rejected)


def propose(
    trials: Sequence[Trial], context: SearchContext, section: SearchSection, batches: Sequence[Batch] = ()
) -> Proposal:
    """Return the candidates to confirm, the proposal first, with out-of-fold evidence.

    `theta-star` (searched), `paper` (published recipe), `best-observed` (trial of least measured objective),
    `prior-mean` (the control), `equal-domains`, `uniform-weights`, `single:<criterion>`, `current` (if given)
    and `random-mean` (mean of ten random θ). Raises SearchError when the trials do not allow a fit.
    """
    dropped = sum(t.kind == PRIOR_KIND and is_dropped(t) for t in trials)  # the user's wish is no failure
    needed = max(LEAST_TRIALS, int(np.ceil(section.min_success * (context.planned - dropped) - 1e-9)))
    ready = _prepare(trials, context, section, least=needed)
    named = anyway(context, ready.space)
    try:
        named[RANDOM_MEAN] = context.fit(random_mean(context.prior, context.seed))
    except BudgetError as error:
        ready.warnings.append(f"the mean of ten random θ cannot meet the budget and is no candidate: {error}")
    brief = Brief(
        fit=_fit(section, context), draws=section.candidates, top_k=section.top_k, mode=section.mode,
        noises=ready.noises, seed=context.seed,
    )  # fmt: skip
    points = dict(zip(named, ready.space.points(list(named.values())), strict=True))
    with one_thread():
        found = find(ready.known, ready.objective, brief, points, CONTROL)
    exact = {**named, "best-observed": _best(trials, ready)}
    candidates = tuple(_with_thetas(ready, found, exact))
    if not candidates[0].predicted < next(c.predicted for c in candidates if c.name == CONTROL):
        ready.warnings.append(f"{candidates[0].name} is predicted no better than the prior mean")
    return replace(
        as_proposal(ready.known, found, candidates, ready.noises, ready.excluded, ready.warnings),
        batches=tuple(batches),
    )


def usable_trials(
    trials: Sequence[Trial], context: SearchContext, least: int
) -> tuple[tuple[Trial, ...], dict[str, str]]:
    """Return the trials that can be fitted and, by trial id, why others cannot.

    Repeats of one θ are set aside silently: they measure noise. Raises SearchError if too few remain.
    """
    used: list[Trial] = []
    excluded: dict[str, str] = {}
    for trial in sorted(trials, key=lambda t: t.trial_id):
        if trial.kind != PRIOR_KIND:
            continue
        reason = _why_not(trial, context.target_weights, context.prior)
        if reason:
            excluded[trial.trial_id] = reason
        else:
            used.append(trial)
    if len(used) < least:
        first = next((f"; {name}: {why}" for name, why in excluded.items()), "")
        raise SearchError(
            f"{len(used)} of {context.planned} planned trials can be used, expected at least {least}{first}"
            ". Resume the swarm to retry failed trials (`quadmix trials retry`), or lower search.min_success"
        )
    return tuple(used), excluded


def _why_not(trial: Trial, targets: Iterable[str], prior: Prior) -> str:
    if trial.status != "done":
        return trial.reason or "failed without a reason"
    if trial.theta is None:
        return "carries no θ"
    if trial.theta.weights.shape != (prior.num_domains, prior.num_criteria):
        m, n = trial.theta.weights.shape
        return (
            f"its θ has {m} domains and {n} criteria, this run has {prior.num_domains} and "
            f"{prior.num_criteria}: "
            "it belongs to another run"
        )
    for target in targets:
        if target not in trial.losses:
            return f"has no loss on target {target!r}"
        if not np.isfinite(trial.losses[target].bits_per_byte):
            return f"loss on target {target!r} is {trial.losses[target].bits_per_byte}"
    return ""


def _prepare(
    trials: Sequence[Trial], context: SearchContext, section: SearchSection, *, least: int
) -> _Ready:
    used, excluded = usable_trials(trials, context, least)
    space = make_space(context)
    thetas = [t.theta for t in used if t.theta is not None]
    losses = {t: np.array([trial.losses[t].bits_per_byte for trial in used]) for t in context.target_weights}
    swarm, warnings = check_swarm([t.trial_id for t in used], space.features(thetas), losses)
    if excluded:
        warnings.append(f"{len(excluded)} trials are left out: {_counted(excluded)}")
    # how much a target varies must not depend on how hard the search has already narrowed in on its best
    drawn = np.array([not t.label.startswith(SEARCHED) for t in used])
    basis = swarm.rows(drawn) if drawn.sum() >= LEAST_TRIALS else swarm
    if min(np.ptp(y) for y in basis.losses.values()) <= 1e-12:
        basis = swarm
    repeats = [t for t in trials if t.kind == REPEAT_KIND and not _why_not(t, swarm.losses, context.prior)]
    repeats.sort(key=lambda t: t.trial_id)
    again = {t: np.array([r.losses[t].bits_per_byte for r in repeats]) for t in swarm.losses}
    noise_alone = noisy_targets(basis.losses, again, keep=tuple(context.ceilings or ()))
    warnings += [f"target {name!r} is left out: {why}" for name, why in noise_alone.items()]
    swarm, basis = (_without(part, noise_alone) for part in (swarm, basis))
    again = {t: again[t] for t in swarm.losses}
    objective = make_objective(
        context.target_weights,
        basis.losses,
        how=section.objective,
        ceilings=_ceilings(context, again),
        relative=[t for t, c in (context.ceilings or {}).items() if not np.isfinite(c)],
    )
    noises = {t: noise(y) for t, y in again.items()}
    noises[OBJECTIVE] = noise(combined(objective, again)) if repeats else float("nan")
    return _Ready(
        known=Known(space=space, swarm=swarm, points=space.points(thetas)), space=space, objective=objective,
        noises=noises, excluded=excluded, warnings=warnings,
    )  # fmt: skip


def _without(swarm: Swarm, targets: Collection[str]) -> Swarm:
    return replace(swarm, losses={t: y for t, y in swarm.losses.items() if t not in targets})


def _ceilings(context: SearchContext, repeats: Mapping[str, Floats]) -> dict[str, float]:
    """Return the loss that each bounded target may not exceed; "no worse than the control" is its mean."""
    found: dict[str, float] = {}
    for target, ceiling in (context.ceilings or {}).items():
        if target not in repeats:
            continue  # constant over the swarm and left out
        if np.isfinite(ceiling):
            found[target] = ceiling
        elif len(repeats[target]):
            found[target] = float(repeats[target].mean())
        else:
            raise SearchError(
                f"target {target!r} may be no worse than the control, but there are no repeats of the "
                "control: set proxy.repeats to 3 or more, or give the loss as a number"
            )
    return found


def _measured_best(ready: _Ready) -> float:
    losses = ready.known.swarm.losses
    return float(combined(ready.objective, losses)[best_measured(ready.objective, losses)])


def _best(trials: Sequence[Trial], ready: _Ready) -> Theta:
    name = ready.known.swarm.ids[best_measured(ready.objective, ready.known.swarm.losses)]
    theta = next(t.theta for t in trials if t.trial_id == name)
    assert theta is not None  # usable_trials has dropped trials without θ
    return theta


def _with_thetas(ready: _Ready, found: Findings, exact: Mapping[str, Theta]) -> Iterable[Candidate]:
    """Yield the candidates with their θ; one whose θ the run's own fit refuses is left out with a warning."""
    for name, point in found.points.items():
        theta = exact.get(name)
        if theta is None:
            fitted, why = ready.space.thetas(point[None])
            if not fitted:
                ready.warnings.append(f"candidate {name} cannot meet the budget exactly: {why}")
                continue
            theta = fitted[0]
        yield replace(candidate(name, ready.known, found), theta=theta)


def _fit(section: SearchSection, context: SearchContext) -> Fit:
    return Fit(surrogate=section.surrogate, features=section.features, workers=context.workers)


def _counted(excluded: Mapping[str, str]) -> str:
    reasons = list(excluded.values())
    counts = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
    return "; ".join(f"{count} × {reason}" for reason, count in list(counts.items())[:5])
