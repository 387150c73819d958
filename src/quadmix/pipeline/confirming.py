"""The confirmation: fresh models of the candidates, by successive halving; what they measure decides.

In: the proposal. Out: a `Confirmation`, in search/confirm.json, or a refusal when nothing beats the control
beyond the noise. Candidates share seeds, so start, order and draw differ between seeds only. Everything
trained is a trial of its own, so a run that is killed trains only what is missing and decides the same.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from quadmix.errors import BudgetError, RefusalError, SearchError
from quadmix.io.atomic import value_digest, write_json
from quadmix.io.trials import apply_dropped
from quadmix.pipeline.folder import Job, StageNotes, stage
from quadmix.pipeline.mix import Mix, Part
from quadmix.pipeline.plan import confirm_kind, round_stage
from quadmix.pipeline.training import setting_for, theta_job, train_jobs
from quadmix.proxy.pool import TokenPool
from quadmix.search.confirm import CONTROL, decide
from quadmix.search.race import Rules, run_race
from quadmix.types import Candidate, Confirmation, Proposal, Theta, Trial

_FIRST_SEED = 100  # the swarm's repeats use those below, the comparison those from 1,000 on


def confirm(job: Job, mix: Mix, pool: TokenPool, proposal: Proposal) -> Confirmation:
    """Train candidates and control round by round; the best measured wins.

    Raises RefusalError when it does not beat the control beyond the noise (unless the recipe accepts that).
    """
    model, training = confirm_kind(job.recipe)
    with stage(job, "confirm") as notes:
        part = mix.part(mix.proxy_share(training.tokens, job.recipe.proxy.pool))
        thetas = _fitted(chosen_candidates(proposal, job.recipe.confirm.candidates), part, notes)
        setting, section = setting_for(job, mix, pool, model, training), job.recipe.confirm
        rules = Rules(
            candidates=tuple(name for name in thetas if name != CONTROL), control=CONTROL,
            seeds=section.seeds, rounds=section.rounds, finalists=section.finalists,
        )  # fmt: skip
        names, trials = file_names(thetas), list[Trial]()
        race = run_race(rules, trials, proposal.objective)
        while race.jobs:
            jobs = [
                theta_job(pool, mix, part, f"confirm-{names[label]}-{s}", "confirm", label, thetas[label],
                          _FIRST_SEED + s)
                for label, s in race.jobs
            ]  # fmt: skip
            done = train_jobs(job, round_stage(race.round), jobs, setting, notes)
            trials += apply_dropped(job.folder, done)
            race = run_race(rules, trials, proposal.objective)
        confirmation = decide(proposal, trials, control=CONTROL, rounds=race.standings)
        write_json(job.path("search", "confirm.json"), confirmation)
        notes.facts |= {"rounds": race.round, "models": len(trials)}
        if not confirmation.confirmed:
            notes.warnings.append(confirmation.reason)
    if not confirmation.confirmed and not job.recipe.run.accept_unconfirmed:
        raise RefusalError(
            f"{confirmation.reason} {confirmation.needed} Nothing was written. Train longer or more proxies, "
            f"or write the winner {confirmation.winner!r} all the same with --accept-unconfirmed"
        )
    return confirmation


def chosen_candidates(proposal: Proposal, kinds: Sequence[str]) -> list[Candidate]:
    """Return the candidates of these kinds that have a θ, in the proposal's order, with the control.

    Of the single criteria only the one predicted best is tried. Raises SearchError without control or rival.
    """
    usable = [c for c in proposal.candidates if c.theta is not None]
    single = min((c for c in usable if _kind(c) == "single"), key=lambda c: c.predicted, default=None)
    wanted = {*kinds, CONTROL}
    chosen = [c for c in usable if _kind(c) in wanted and (_kind(c) != "single" or c is single)]
    names = {c.name for c in chosen}
    if CONTROL not in names or len(names) < 2:
        offered = ", ".join(c.name for c in usable) or "none"
        raise SearchError(
            f"nothing to confirm: confirm.candidates asks for {', '.join(kinds)}, and the proposal's "
            f"candidates with a θ are {offered}; expected {CONTROL} and at least one other"
        )
    return chosen


def file_names(labels: Iterable[str]) -> dict[str, str]:
    """Return a name for every label that is safe in file names, distinct even where case is ignored."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", label)
        name, number = plain, 1
        while name.lower() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.lower())
        found[label] = name
    return found


def _kind(candidate: Candidate) -> str:
    return candidate.name.partition(":")[0]


def _fitted(candidates: Sequence[Candidate], part: Part, notes: StageNotes) -> Mapping[str, Theta]:
    """Return the θ by name, fitted to the part that the models see; the control must fit, others may fail.

    Two names of one θ (the best observed may be a trivial recipe) are trained once, the control's first.
    """
    found: dict[str, Theta] = {}
    seen: dict[str, str] = {}
    for candidate in sorted(candidates, key=lambda c: c.name != CONTROL):
        assert candidate.theta is not None  # chosen_candidates leaves out those without
        try:
            theta = part.calibrate(candidate.theta)
        except BudgetError as error:
            if candidate.name == CONTROL:
                raise
            notes.warnings.append(f"candidate {candidate.name} is not confirmed: {error}")
            continue
        same = seen.setdefault(value_digest(theta), candidate.name)
        if same == candidate.name:
            found[candidate.name] = theta
        else:
            notes.facts.setdefault("same", {})[candidate.name] = same
    if len(found) < 2:
        raise SearchError(
            f"nothing to confirm: every candidate is the control {CONTROL} itself or cannot meet the budget"
        )
    return found
