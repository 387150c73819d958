"""Trials of earlier runs that still say something about this one (`proxy.reuse`).

In: the run folders that the recipe names. Out: their random θ as trials over this run's domains and
criteria, with losses on this run's targets. A trial is what was selected and what was lost; it applies here
as long as the same θ still selects about the same documents and the loss is measured in the same way:

- another proxy, training, tokenizer, pool mode, budget or domain labeller: no trial of the folder applies;
- a target that is new or was changed: scored again from the saved weights, if there are any;
- a new criterion had weight 0, a new domain cutoff 0: the same selection, kept;
- a criterion or domain that is gone: kept where it did not matter;
- other files: kept as long as no domain changed much.

Every decision has its reason: in reused.json by trial, in the stage's facts as counts.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quadmix.codec import to_json
from quadmix.errors import InputError, QuadmixError
from quadmix.io.atomic import read_value, value_digest, write_json
from quadmix.io.trials import TRIALS, apply_dropped, trial_files
from quadmix.pipeline.comparable import (
    Axes,
    RunFacts,
    facts_here,
    facts_there,
    incomparable,
    match_axes,
    projected,
)
from quadmix.pipeline.folder import Job, StageNotes
from quadmix.pipeline.mix import Mix
from quadmix.pipeline.place import training_place, wanted_group
from quadmix.proxy.rescore import rescore, weights_path
from quadmix.proxy.setting import ProxySetting
from quadmix.types import Trial


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Decision:
    """What becomes of one earlier trial; `trial` is None where it is left out."""

    trial_id: str
    reason: str
    trial: Trial | None = None


def reused_trials(
    job: Job, mix: Mix, setting: ProxySetting, own: Sequence[Trial] = ()
) -> tuple[list[Trial], StageNotes]:
    """Return the trials of the folders in `proxy.reuse` that apply here, and what to say about them.

    They are committed to trials/reused-<k>-<id>.json, as if they were this run's. own: trials of this run;
    a reused one with the same θ and seed is left out, so that no pair of twins misleads the search.
    """
    notes, kept, record = StageNotes(), list[Trial](), dict[str, dict[str, str]]()
    if not job.recipe.proxy.reuse:
        return kept, notes
    here, counts, lines = facts_here(job, mix), Counter[str](), list[str]()
    taken = {_identity(t) for t in own if t.theta is not None}
    for number, name in enumerate(job.recipe.proxy.reuse):
        decisions = list(_without_twins(_folder(number, Path(name), here, job, mix, setting), taken))
        record[f"{number}: {Path(name).name}"] = {d.trial_id: d.reason for d in decisions}
        counts.update(d.reason for d in decisions)
        kept += [d.trial for d in decisions if d.trial is not None]
        lines += _lines(Path(name), decisions, wanted=True)
        notes.warnings += _lines(Path(name), decisions, wanted=False)
    for trial in kept:
        write_json(job.path(TRIALS, f"{trial.trial_id}.json"), trial)
    write_json(job.path("reused.json"), record)
    notes.facts = {"kept": len(kept), "reasons": dict(counts), "lines": lines}
    return kept, notes


def _lines(folder: Path, decisions: Sequence[_Decision], *, wanted: bool) -> list[str]:
    """Return one line per reason, with the first trials it is about."""
    by_reason: dict[str, list[str]] = {}
    for decision in decisions:
        if (decision.trial is not None) == wanted:
            by_reason.setdefault(decision.reason, []).append(decision.trial_id)
    lines: list[str] = []
    for reason, names in by_reason.items():
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        lines.append(f"proxy.reuse {folder}: {len(names)} of {len(decisions)} trials {reason} ({shown})")
    if not decisions and not wanted:
        lines.append(f"proxy.reuse {folder}: there is no trial of a random θ yet, so nothing is reused")
    return lines


def _identity(trial: Trial) -> str:
    return value_digest([trial.theta, trial.seed])


def _without_twins(decisions: Sequence[_Decision], taken: set[str]) -> Iterator[_Decision]:
    """Leave out trials whose θ and seed are in `taken`, and take those of the others."""
    for decision in decisions:
        if decision.trial is None:
            yield decision
        elif (twin := _identity(decision.trial)) in taken:
            yield _Decision(
                trial_id=decision.trial_id, reason="left out: the same θ and seed are here already"
            )
        else:
            taken.add(twin)
            yield decision


def _folder(
    number: int, folder: Path, here: RunFacts, job: Job, mix: Mix, setting: ProxySetting
) -> list[_Decision]:
    """Decide about every random θ of one earlier run, in the order of their names."""
    trials, decisions = _prior_trials(folder)
    try:
        there = facts_there(folder)
        problems = incomparable(here, there)
    except (QuadmixError, OSError) as error:  # files of an earlier version, say: no error of this run
        there, problems = None, [str(error)]
    if there is None or problems:
        reason = f"left out: {'; '.join(problems)}"
        return [_Decision(trial_id=i, reason=reason) for i in [*(t.trial_id for t in trials), *decisions]]
    axes, common = match_axes(here, there, mix.prior), _common(here, there)
    fitting: list[Trial] = []
    for trial in trials:
        made = projected(trial, axes)
        if isinstance(made, str):
            decisions[trial.trial_id] = _Decision(trial_id=trial.trial_id, reason=f"left out: {made}")
        else:
            fitting.append(made)
    said = common + _new_axes(here, axes)
    for trial, why in _scored(fitting, here, there, job, setting, f"reused-{number}-"):
        if trial.status == "failed":
            decisions[trial.trial_id] = _Decision(trial_id=trial.trial_id, reason=f"left out: {trial.reason}")
            continue
        reason = "kept" + "".join(f"; {s}" for s in [*said, *why])
        named = replace(
            trial, trial_id=f"reused-{number}-{trial.trial_id}", reason=f"of {folder.name}: {reason}"
        )
        decisions[trial.trial_id] = _Decision(trial_id=trial.trial_id, reason=reason, trial=named)
    return [decisions[name] for name in sorted(decisions)]


def _prior_trials(folder: Path) -> tuple[list[Trial], dict[str, _Decision]]:
    """Return the random θ of a run (repeats measure the noise of one setting) and what cannot be read."""
    trials: list[Trial] = []
    broken: dict[str, _Decision] = {}
    for path in trial_files(folder):
        try:
            trials.append(read_value(path, Trial))
        except InputError as error:
            broken[path.stem] = _Decision(trial_id=path.stem, reason=f"left out: {error}")
    return [t for t in apply_dropped(folder, trials) if t.kind == "prior"], broken


def _common(here: RunFacts, there: RunFacts) -> list[str]:
    """Return what holds for all kept trials of a folder."""
    said: list[str] = []
    if here.corpus != there.corpus:
        said.append("the pool's files or their reading changed: features are those of the new pool")
    if here.recipe.seed != there.recipe.seed:
        said.append("another seed: initial weights, order and part of the pool are not those of this run")
    if here.software != there.software:
        said.append(f"made by {there.software}, this run by {here.software}")
    return said


def _new_axes(here: RunFacts, axes: Axes) -> list[str]:
    new = [f"criterion {c.name!r} is new: weight 0"
           for c, j in zip(here.table.criteria, axes.criteria, strict=True) if j is None]  # fmt: skip
    return new + [f"domain {name!r} is new: nothing was selected there"
                  for name, i in zip(here.table.domains, axes.domains, strict=True) if i is None]  # fmt: skip


def _scored(
    trials: Sequence[Trial], here: RunFacts, there: RunFacts, job: Job, setting: ProxySetting, prefix: str
) -> list[tuple[Trial, list[str]]]:
    """Return the trials with a loss on every target of this run and what was done for it, failed ones
    where that cannot be had. What an earlier pass scored again is read from this run's trials."""
    same = {name for name, digest in here.targets.items() if there.targets.get(name) == digest}
    out: list[tuple[Trial, list[str]]] = []
    todo: dict[tuple[str, ...], list[int]] = {}
    for trial in trials:
        losses = {name: loss for name, loss in trial.losses.items() if name in same}
        lacking = tuple(name for name in here.targets if name not in losses)
        key = value_digest(["reuse", trial.job, to_json(trial.theta), here.targets, trial.losses])
        trial = replace(trial, losses=losses, job=key)
        why = [f"scored again on {', '.join(map(repr, lacking))}"] if lacking else []
        if lacking and (stored := _stored(job.path(TRIALS, f"{prefix}{trial.trial_id}.json"), key)):
            trial = replace(trial, losses=stored.losses)
        elif lacking and not weights_path(there.folder / TRIALS / "weights", trial.trial_id).is_file():
            names = ", ".join(map(repr, lacking))
            reason = (
                f"it has no loss on target {names} as it is here, and no saved weights (proxy.save_weights)"
            )
            trial = replace(trial, status="failed", reason=reason)
        elif lacking:
            todo.setdefault(lacking, []).append(len(out))
        out.append((trial, why))
    for lacking, places in todo.items():
        found = _rescored([out[p][0] for p in places], lacking, there, job, setting)
        for place, trial in zip(places, found, strict=True):
            out[place] = (trial, out[place][1])
    return out


def _stored(path: Path, key: str) -> Trial | None:
    trial = read_value(path, Trial) if path.is_file() else None
    return trial if trial is not None and trial.job == key and trial.status == "done" else None


def _rescored(
    trials: Sequence[Trial], targets: Sequence[str], there: RunFacts, job: Job, setting: ProxySetting
) -> list[Trial]:
    run = job.recipe.run
    with job.progress.stage("score again", len(trials), "models") as step:
        return rescore(
            trials, there.folder / TRIALS / "weights", setting, targets=targets,
            group=wanted_group(job.recipe.proxy.group, run), place=training_place(run), on_done=step.advance,
        )  # fmt: skip
