"""From the swarm to proposals: fit one surrogate per target, search the prior, average the best.

In: trials, the scored pool, the prior and a way to fit a θ to the token budget. Out: a `Proposal`
whose candidates still have to be confirmed by fresh proxies.

Each target has its own surrogate; they are added up only at prediction time, Σ_t w_t loss_t with
w_t = (user weight / spread of the target over the swarm), normalised to sum 1. Fitting a
pre-averaged score instead costs much of the accuracy, because every target depends on other domains.
Candidates are drawn from the prior (Algorithm 1), each fitted to the budget, and the `top_k` best
predicted are averaged in unit coordinates (§3.3 of arXiv 2504.16511) and fitted again.
Differs from the paper: one surrogate per target, features of what θ selects, and the prior mean as
a control among the candidates, because averaging draws alone already moves towards it.

The intervals cover a fresh trial at a θ chosen beforehand. The *selected* θ is predicted too well
by construction; only confirmation measures it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import BudgetError, SearchError
from quadmix.mixing.prior import Prior, draw_theta, mean_theta, prior_mean
from quadmix.recipe import SearchSection
from quadmix.rng import stream
from quadmix.search.diagnostics import OBJECTIVE, Case, assess, conformal_width, noise, spread, warnings_about
from quadmix.search.features import FeatureSample, FeatureTable, features, sample_documents
from quadmix.search.surrogate import (
    OutOfFold,
    Surrogate,
    cross_blend,
    cross_predict,
    fit_surrogate,
    kinds_needed,
    one_thread,
    split_folds,
)
from quadmix.types import Annotations, Candidate, Floats, Proposal, SurrogateReport, Theta, Trial

LEAST_TRIALS = 8
PRIOR_KIND, REPEAT_KIND = "prior", "repeat"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchContext:
    """What the search needs to know about the run.

    annotations, normalised (D, N): the documents that may be selected, and no others.
    fit: returns θ fitted to the token budget (and the limits, if any); may raise BudgetError.
    target_weights: the user's weight per target name. planned: trials the recipe asked for.
    """

    annotations: Annotations
    normalised: NDArray[np.float32]
    prior: Prior
    fit: Callable[[Theta], Theta]
    seed: int
    target_weights: Mapping[str, float]
    planned: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Swarm:
    """Usable trials: features of K trials and their losses per target, (K,) each."""

    trials: tuple[Trial, ...]
    table: FeatureTable
    losses: dict[str, Floats]
    folds: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Model:
    """One kind of surrogate fitted to every target. residuals: (K,) of the objective, out of fold."""

    surrogates: dict[str, Surrogate]
    weights: dict[str, float]
    width: float

    def predict(self, table: FeatureTable) -> tuple[Floats, dict[str, Floats]]:
        """Return the objective (K,) and the loss per target, (K,) each."""
        losses = {target: model.predict(table)[0] for target, model in self.surrogates.items()}
        return weighted(losses, self.weights), losses


def propose(trials: Sequence[Trial], context: SearchContext, section: SearchSection) -> Proposal:
    """Return the candidates to confirm, best first, with out-of-fold evidence.

    candidates[0] is `theta-star`; then `top-1` (best single draw), `best-observed` (trial of least
    measured objective), `prior-mean` (the control) and `paper` (the published recipe).
    Raises SearchError when the trials do not allow a fit.
    """
    used, excluded = usable_trials(trials, context, section.min_success)
    losses, warnings = _losses(used, list(context.target_weights))
    weights = effective_weights(context.target_weights, losses)
    sample = sample_documents(context.annotations, context.normalised, seed=context.seed)
    table = features(sample, [t.theta for t in used if t.theta is not None], context.prior)
    if not (np.ptp(table.values, axis=0) > 1e-12).any():
        raise SearchError(f"all {len(used)} trials have the same θ; expected different draws of the prior")
    folds = split_folds(len(used), stream(context.seed, "folds"))
    swarm = _Swarm(trials=used, table=table, losses=losses, folds=folds)
    with one_thread():
        out_of_fold = _cross_predict_all(section.surrogate, swarm)
        noises = _noises(trials, weights)
        reports = _reports(swarm, out_of_fold, weights, noises, section.surrogate, context.seed)
        candidates, more = _search(swarm, out_of_fold, weights, context, section, sample)
    objective = weighted(losses, weights)
    warnings += warnings_about(reports, section.surrogate, len(used)) + more
    return Proposal(
        candidates=candidates,
        target_weights=weights,
        diagnostics=tuple(reports),
        trials_used=len(used),
        trials_excluded=excluded,
        noise_sd=noises[OBJECTIVE],
        spread_sd=spread(objective),
        feature_names=table.columns(raw=False).names,
        warnings=tuple(warnings),
    )


def usable_trials(
    trials: Sequence[Trial], context: SearchContext, min_success: float
) -> tuple[tuple[Trial, ...], dict[str, str]]:
    """Return the trials of the prior that can be fitted and, by trial id, why others cannot.

    Repeats of one θ are set aside silently: they measure noise. Raises SearchError if too few remain.
    """
    used: list[Trial] = []
    excluded: dict[str, str] = {}
    for trial in sorted(trials, key=lambda t: t.trial_id):
        if trial.kind != PRIOR_KIND:
            continue
        reason = _why_not(trial, context.target_weights)
        if reason:
            excluded[trial.trial_id] = reason
        else:
            used.append(trial)
    needed = max(LEAST_TRIALS, int(np.ceil(min_success * context.planned - 1e-9)))
    if len(used) < needed:
        first = next((f"; {name}: {why}" for name, why in excluded.items()), "")
        raise SearchError(
            f"{len(used)} of {context.planned} planned trials can be used, expected at least {needed}{first}"
            ". Resume the swarm to retry failed trials, or lower search.min_success"
        )
    return tuple(used), excluded


def effective_weights(user: Mapping[str, float], losses: Mapping[str, Floats]) -> dict[str, float]:
    """Return user weight over the swarm's spread per target, normalised to sum 1."""
    raw = {target: user[target] / spread(y) for target, y in losses.items()}
    total = sum(raw.values())
    return {target: value / total for target, value in raw.items()}


def weighted(losses: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """Return Σ_t w_t loss_t, (K,)."""
    return np.sum([weights[target] * losses[target] for target in weights], axis=0)


def _why_not(trial: Trial, targets: Mapping[str, float]) -> str:
    if trial.status != "done":
        return trial.reason or "failed without a reason"
    if trial.theta is None:
        return "carries no θ"
    for target in targets:
        if target not in trial.losses:
            return f"has no loss on target {target!r}"
        if not np.isfinite(trial.losses[target].bits_per_byte):
            return f"loss on target {target!r} is {trial.losses[target].bits_per_byte}"
    return ""


def _losses(used: Sequence[Trial], targets: Sequence[str]) -> tuple[dict[str, Floats], list[str]]:
    """Return (K,) losses of every target that varies; constant targets are left out with a warning."""
    losses = {t: np.array([trial.losses[t].bits_per_byte for trial in used]) for t in targets}
    varying = {t: y for t, y in losses.items() if np.ptp(y) > 1e-12}
    if not varying:
        raise SearchError(
            f"all {len(used)} trials have the same loss on every target; did the proxies train at all?"
        )
    constant = [t for t in targets if t not in varying]
    return varying, [f"target {t!r} is constant over the swarm and is left out" for t in constant]


def _cross_predict_all(kind: str, swarm: _Swarm) -> dict[str, dict[str, OutOfFold]]:
    """Return out-of-fold predictions by target and kind."""
    found: dict[str, dict[str, OutOfFold]] = {}
    for target, y in swarm.losses.items():
        kinds = {k: cross_predict(k, swarm.table, y, swarm.folds) for k in kinds_needed(kind)}
        found[target] = {"auto": cross_blend(kinds, y, swarm.folds), **kinds} if kind == "auto" else kinds
    return found


def _objective_out_of_fold(
    out_of_fold: Mapping[str, Mapping[str, OutOfFold]], weights: Mapping[str, float], kind: str
) -> OutOfFold:
    """Add the targets' predictions up; their errors are taken as independent."""
    mean = weighted({t: found[kind].mean for t, found in out_of_fold.items()}, weights)
    variance = np.sum([(weights[t] * found[kind].stderr) ** 2 for t, found in out_of_fold.items()], axis=0)
    return OutOfFold(mean=mean, stderr=np.sqrt(variance))


def _noises(trials: Sequence[Trial], weights: Mapping[str, float]) -> dict[str, float]:
    """Return the noise of one trial per target and of the objective, from repeats of one θ."""
    done = [t for t in trials if t.kind == REPEAT_KIND and not _why_not(t, weights)]
    values = {target: np.array([t.losses[target].bits_per_byte for t in done]) for target in weights}
    return {OBJECTIVE: noise(weighted(values, weights)), **{t: noise(v) for t, v in values.items()}}


def _reports(
    swarm: _Swarm,
    out_of_fold: Mapping[str, Mapping[str, OutOfFold]],
    weights: Mapping[str, float],
    noises: Mapping[str, float],
    chosen: str,
    seed: int,
) -> list[SurrogateReport]:
    """Return a report per target (the objective first) and kind; parity for the chosen and `paper`."""
    kinds = list(next(iter(out_of_fold.values())))
    whole = {kind: _objective_out_of_fold(out_of_fold, weights, kind) for kind in kinds}
    measured = {OBJECTIVE: weighted(swarm.losses, weights), **swarm.losses}
    ids = [t.trial_id for t in swarm.trials]
    reports: list[SurrogateReport] = []
    for target, found in {OBJECTIVE: whole, **out_of_fold}.items():
        case = Case(target=target, measured=measured[target], noise_sd=noises[target])
        for kind, predicted in found.items():
            reports.append(
                assess(
                    case, kind, predicted, folds=swarm.folds, rng=stream(seed, "bootstrap", target, kind),
                    trial_ids=ids if kind in (chosen, "paper") else (),
                )
            )  # fmt: skip
    return reports


def _fit_model(
    kind: str,
    swarm: _Swarm,
    out_of_fold: Mapping[str, Mapping[str, OutOfFold]],
    weights: Mapping[str, float],
) -> _Model:
    surrogates = {t: fit_surrogate(kind, swarm.table, y, out_of_fold[t]) for t, y in swarm.losses.items()}
    predicted = _objective_out_of_fold(out_of_fold, weights, kind).mean
    residuals = weighted(swarm.losses, weights) - predicted
    return _Model(surrogates=surrogates, weights=dict(weights), width=conformal_width(residuals))


def _search(
    swarm: _Swarm,
    out_of_fold: Mapping[str, Mapping[str, OutOfFold]],
    weights: Mapping[str, float],
    context: SearchContext,
    section: SearchSection,
    sample: FeatureSample,
) -> tuple[tuple[Candidate, ...], list[str]]:
    """Draw, fit to the budget, predict, average; return the candidates and warnings."""
    drawn, warnings = _draw_fitted(context, section.candidates)
    table = features(sample, drawn, context.prior)
    model = _fit_model(section.surrogate, swarm, out_of_fold, weights)
    predicted = model.predict(table)[0]
    if not np.ptp(predicted) > 1e-12:
        raise SearchError(
            f"surrogate {section.surrogate!r} predicts the same for every candidate after "
            f"{len(swarm.trials)} trials ('paper' needs at least 40); run more or set search.surrogate: auto"
        )
    best = np.argsort(predicted, kind="stable")
    objective = weighted(swarm.losses, weights)
    observed = swarm.trials[int(np.argmin(objective))].theta
    assert observed is not None  # usable_trials has dropped trials without θ
    named = {
        "theta-star": _averaged(drawn, best[: section.top_k], context),
        "top-1": drawn[int(best[0])],
        "best-observed": observed,
        "prior-mean": context.fit(prior_mean(context.prior)),
    }
    if section.surrogate != "paper":
        predicted = _fit_model("paper", swarm, out_of_fold, weights).predict(table)[0]
        if np.ptp(predicted) > 1e-12:
            order = np.argsort(predicted, kind="stable")
            named["paper"] = _averaged(drawn, order[: section.top_k], context)
        else:
            warnings.append(
                "the published recipe predicts a constant from so few trials; no candidate 'paper'"
            )
    candidates = _candidates(named, model, sample, context.prior)
    expected = {c.name: c.predicted for c in candidates}
    if not expected["theta-star"] < expected["prior-mean"]:
        warnings.append("theta-star is predicted no better than the prior mean")
    return candidates, warnings


def _draw_fitted(context: SearchContext, count: int) -> tuple[list[Theta], list[str]]:
    """Return draws of the prior fitted to the budget; draws that cannot meet it are counted."""
    fitted: list[Theta] = []
    reason = ""
    for theta in draw_theta(stream(context.seed, "candidates"), context.prior, count):
        try:
            fitted.append(context.fit(theta))
        except BudgetError as error:
            reason = str(error)
    if not fitted:
        raise SearchError(f"none of {count} candidate θ can meet the token budget: {reason}")
    missed = count - len(fitted)
    return fitted, [f"{missed} of {count} candidate θ cannot meet the budget: {reason}"] if missed else []


def _averaged(drawn: Sequence[Theta], rows: NDArray[np.intp], context: SearchContext) -> Theta:
    return context.fit(mean_theta([drawn[i] for i in rows], context.prior))


def _candidates(
    named: Mapping[str, Theta], model: _Model, sample: FeatureSample, prior: Prior
) -> tuple[Candidate, ...]:
    objective, losses = model.predict(features(sample, list(named.values()), prior))
    return tuple(
        Candidate(
            name=name,
            theta=theta,
            predicted=float(objective[i]),
            predicted_low=float(objective[i] - model.width),
            predicted_high=float(objective[i] + model.width),
            losses={target: float(values[i]) for target, values in losses.items()},
        )
        for i, (name, theta) in enumerate(named.items())
    )
