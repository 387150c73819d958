"""What the search has left on disk, in the words and the order that the page and report.json need.

In: the loaded run. Out: numbers per trial, sentences, plain JSON values. Nothing is fitted or predicted here.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from quadmix.report.load import RunFiles
from quadmix.report.text import count, num
from quadmix.report.verdict import OBJECTIVE, shown_surrogates
from quadmix.types import Candidate, LearningCurve, Measured, Optimism, Proposal, SurrogateReport, to_json

STAR, PUBLISHED, CONTROL = "theta-star", "paper", "prior-mean"
STOPPED = "the search stopped early"
EFFECTS_STORED = 30
EVERY = "*"
REUSED = "reused-"  # how the ids of trials of earlier runs begin
_SYMBOLS = {"cutoff": "ω", "steepness": "λ", "exponent": "η", "floor": "ε"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One trial of the search: its place in the order of training, which batch it belongs to, its label, and
    the objective that was measured."""

    place: int
    trial_id: str
    batch: str
    label: str
    measured: float


def shots(files: RunFiles) -> list[Shot]:
    """Return the trials that the search used, reused ones first, then in order of training.

    The objective is the one stored with the out-of-fold predictions; without those there is nothing to show.
    """
    if files.proposal is None:
        return []
    report = shown_surrogates(files.proposal.diagnostics).get(OBJECTIVE)
    labels = {t.trial_id: t.label for t in files.trials}
    points = sorted(report.parity if report else (), key=lambda p: not p.trial_id.startswith(REUSED))
    return [
        Shot(
            place=place, trial_id=p.trial_id, label=labels.get(p.trial_id, "prior"),
            batch=_batch(p.trial_id, labels.get(p.trial_id, "prior")), measured=p.measured,
        )
        for place, p in enumerate(points, 1)
    ]  # fmt: skip


def _batch(trial_id: str, label: str) -> str:
    """Return the batch of a label: design, recipe, prior, batch-2, ... or reused."""
    if trial_id.startswith(REUSED):
        return "reused"
    if label.startswith("recipe:") or label == "current":
        return "recipe"
    return "design" if label.startswith("design") else label


def group_name(group: str, domain: str) -> str:
    """Return `cutoff ω of web`; a star is every group or all domains."""
    kind = "all" if group == EVERY else kind_name(group)
    return f"{kind}, all domains" if domain == EVERY else f"{kind} of {domain}"


def kind_name(group: str) -> str:
    """Return the name of a kind of parameters with its symbol."""
    if group == EVERY:
        return "everything"
    return "weights α" if group == "weight" else f"{group} {_SYMBOLS[group]}" if group in _SYMBOLS else group


def candidate(proposal: Proposal | None, name: str) -> Candidate | None:
    """Return a candidate by name, None if it was not proposed."""
    return next((c for c in proposal.candidates if c.name == name), None) if proposal else None


def measured_of(files: RunFiles, name: str) -> tuple[Measured | None, str]:
    """Return what the confirmation measured for a candidate, and as whom, if its θ is another's."""
    facts = next((s.facts for s in files.stages if s.stage == "confirm"), {})
    same = facts.get("same") or {}
    twin = str(same.get(name, name))
    found = files.confirmation.measured if files.confirmation else ()
    return next((m for m in found if m.label == twin), None), "" if twin == name else twin


def other_size(files: RunFiles) -> bool:
    """Were the candidates confirmed by models or trainings of another kind than the search's proxies?"""
    if files.recipe is None:
        return False
    own, proxy = files.recipe.confirm, files.recipe.proxy
    model = own.model is not None and replace_context(own.model, proxy.model) != proxy.model
    return model or (own.training is not None and own.training != proxy.training)


def replace_context(model: Any, other: Any) -> Any:
    """Return a model section with the context of the other: the confirmation always takes the proxies'."""
    return model.model_copy(update={"context": other.context})


# --------------------------------------------------------------------------- sentences
def stop_sentence(files: RunFiles) -> str:
    """Say whether the search trained all the trials it was given."""
    swarm = next((s for s in files.stages if s.stage == "swarm"), None)
    if swarm is None or not files.planned:
        return ""
    said = next((w for w in swarm.warnings if w.startswith(STOPPED)), "")
    if said:
        return f"{said[:1].upper()}{said[1:]}."
    left = swarm.facts.get("not_trained")
    if isinstance(left, int) and left > 0:
        return f"The search stopped early; {count(left)} trials were not trained."
    return "All planned trials were trained; the search did not stop early."


def optimism_sentence(optimism: Optimism | None) -> str:
    """Say how far proposals promised too much when only half of the trials was known."""
    if optimism is None:
        return "How far the prediction of a proposal falls short is not known: too few trials to halve them."
    numbers = f"promised {num(optimism.promised)}, judged {num(optimism.judged)}"
    if optimism.optimism > 0:
        return (
            f"Proposals made on half of the trials promised {num(optimism.optimism)} bits per byte better "
            f"than the surrogate of the other half confirmed ({numbers}). θ* rests on all of them and may "
            "fall short by less."
        )
    return (
        "Proposals made on half of the trials were judged no worse by the surrogate of the other half "
        f"({numbers})."
    )


def learning_sentence(learning: LearningCurve | None, noise_sd: float) -> str:
    """Say what more trials are forecast to buy; an error below the noise of one trial cannot be measured."""
    if learning is None or not learning.points:
        return ""
    last, then = learning.points[-1], learning.forecast
    if then is None:
        return "Too few trials to forecast what more of them would buy."
    more = f"{count(then.trials - last.trials)} more trials are forecast"
    if last.rmse - then.rmse < 0.005 * last.rmse:
        return f"{more} to leave the out-of-fold error where it is, {num(last.rmse)} bits per byte."
    text = f"{more} to lower the out-of-fold error from {num(last.rmse)} to {num(then.rmse)} bits per byte."
    if then.rmse < noise_sd:
        text += f" That is below the noise of one trial, {num(noise_sd)}: read it as down to the noise."
    return text


def objective_sentence(proposal: Proposal) -> str:
    """Say how the targets become one number."""
    weights = sorted(proposal.objective.weights.items(), key=lambda w: -w[1])
    shown = ", ".join(f"{name} {num(w, 2)}" for name, w in weights[:8]) + (", …" if len(weights) > 8 else "")
    how = "the weighted mean of the losses" if proposal.objective.how == "mean" else "the target worst off"
    text = f"The objective is {how} ({shown}), bits per byte, lower is better."
    if proposal.objective.ceilings:
        limits = ", ".join(f"{name} {num(value)}" for name, value in proposal.objective.ceilings.items())
        text += f" Losses that may not be exceeded: {limits}."
    return text


# --------------------------------------------------------------------------- report.json
def numbers(files: RunFiles) -> dict[str, Any]:
    """Return the search's numbers for report.json; an empty mapping if there was no search."""
    proposal = files.proposal
    if proposal is None:
        return {}
    return {
        "objective": to_json(proposal.objective),
        "trials_used": proposal.trials_used,
        "noise_sd": to_json(proposal.noise_sd),
        "best_observed": to_json(proposal.best_observed),
        "batches": [{"trials": p.trials, "seen": to_json(p.seen)} for p in files.planned],
        "stopped": stop_sentence(files),
        "candidates": [_candidate_numbers(files, c) for c in proposal.candidates],
        "optimism": to_json(proposal.optimism),
        "learning": to_json(proposal.learning),
        "surrogates": [to_json(replace(r, parity=())) for r in steering(proposal)],
        "effects": to_json(proposal.effects[:EFFECTS_STORED]),
        "interactions": to_json(proposal.interactions[:EFFECTS_STORED]),
    }


def _candidate_numbers(files: RunFiles, found: Candidate) -> dict[str, Any]:
    measured, twin = measured_of(files, found.name)
    return {
        "name": found.name,
        "predicted": found.predicted, "low": found.predicted_low, "high": found.predicted_high,
        "measured": measured.mean if measured else None,
        "measured_low": measured.low if measured else None,
        "measured_high": measured.high if measured else None,
        "measured_as": twin or None,
        "shares": found.shares,
    }  # fmt: skip


def confirmation_numbers(files: RunFiles) -> dict[str, Any]:
    """Return what the confirmation tried and decided, without θ."""
    confirmation = files.confirmation
    if confirmation is None:
        return {}
    return {
        "winner": confirmation.winner,
        "confirmed": confirmation.confirmed,
        "reason": confirmation.reason,
        "needed": confirmation.needed,
        "rounds": to_json(confirmation.rounds),
        "against": to_json(confirmation.against),
    }


def steering(proposal: Proposal) -> list[SurrogateReport]:
    """Return the report of the surrogate that steered the search per target, the objective first."""
    shown = shown_surrogates(proposal.diagnostics)
    return sorted(shown.values(), key=lambda r: r.target != OBJECTIVE)


def known(value: float) -> bool:
    """Is a number there and finite?"""
    return math.isfinite(value)
