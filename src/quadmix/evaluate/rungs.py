"""One rung of the ladder: all selectors trained in one setting, compared by objective and by task.

In: the trials of the rung and their values per item. Out: a `Rung`, with flags that say in numbers what a
reader must know before believing it: unequal budgets, missing seeds, benchmarks that measure nothing here.

Every difference of the objective is taken over the seeds that both labels finished, with that pair's own
variance: a selector that draws its documents anew for every seed is noisier than a cut at the top, and one
variance for all pairs gave intervals of random selection that held 74-84 % of the time instead of 95 %
(2-3 times the noise, 12 labels, 5 seeds). Items and seeds enter as for tasks (`stats.estimate`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from quadmix.errors import SearchError
from quadmix.evaluate.stats import detectable_beyond, estimate
from quadmix.evaluate.tasks import (
    AVERAGES,
    Table,
    TaskValues,
    resampled,
    table_differences,
    table_scores,
    with_accuracy,
)
from quadmix.search.confirm import CONFIDENCE, CONTROL, anchored, measure
from quadmix.search.swarm import combined
from quadmix.types import Floats, Measured, Objective, Paired, Rung, TaskScore, Trial

_SELECTED_APART = 0.01  # relative difference of selected tokens that is no longer the same budget
_UNIQUE_APART = 0.02


def build_rung(  # noqa: PLR0913 - what a rung is, said once, field by field of `Rung`
    trials: Sequence[Trial], tasks: Sequence[TaskValues], objective: Objective, *, name: str,
    parameters: int, train_tokens: int, learning_rate: float, budget: float = 1.0,
    match: Literal["tokens", "epochs"] = "tokens", promised: float = float("nan"),
    left_out: Mapping[str, str] | None = None, chosen: str = "quadmix", confidence: float = CONFIDENCE,
    seed: int,
) -> Rung:  # fmt: skip
    """Return the comparison of one rung; differences are `chosen` minus a baseline.

    trials: all of this rung, failed ones too. tasks: their values per item; the accuracy of every benchmark
    is added. objective: of the search; what it reckons from the control is taken from these models. The
    keywords up to `left_out` are fields of `Rung`, known before training. confidence: of all intervals.
    Intervals of the objective are over items and seeds where all its targets are among the tasks, else over
    seeds. Raises SearchError when no trial of the rung finished.
    """
    own = anchored(objective, trials)
    measured = measure(trials, own)
    if not measured:
        reasons = "; ".join(f"{t.trial_id}: {t.reason or 'no finite loss'}" for t in trials) or "no trials"
        raise SearchError(
            f"no model of the rung {name!r} finished ({reasons}); see evaluate.training in the recipe"
        )
    tables = resampled(with_accuracy(tasks), seed=seed)
    table, seeds_alone = _objectives(tables, own, measured)
    measured = tuple(_with_interval(m, table, confidence) for m in measured)
    against = tuple(_pair(table, chosen, m.label, confidence) for m in measured if m.label != chosen)
    scores = table_scores(tables, confidence=confidence)
    nothing = f"{chosen} was compared with nothing: no baseline finished"
    return Rung(
        name=name,
        parameters=parameters,
        train_tokens=train_tokens,
        learning_rate=learning_rate,
        budget=budget,
        match=match,
        seeds=len({t.seed for t in trials}),
        measured=measured,
        against=against,
        verdict=verdict(against, confidence) if against else nothing,
        detectable=_detectable(against),
        promised=promised,
        scores=scores,
        differences=table_differences(tables, chosen, confidence=confidence),
        left_out={**_failed(trials, measured), **(left_out or {})},
        flags=(
            *_budget_flags(measured),
            *_training_flags(trials, measured, train_tokens),
            *_seed_flags(trials, measured, against, chosen),
            *_control_flags(objective, measured),
            *seeds_alone,
            *_single_flags(tasks),
            *_chance_flags(scores),
        ),
        confidence=confidence,
    )


def verdict(against: Sequence[Paired], confidence: float = CONFIDENCE) -> str:
    """Return one sentence: which baselines θ* beats beyond the interval, ties with, or loses to."""
    wins = [p.control for p in against if p.high < 0]
    losses = [p.control for p in against if p.low > 0]
    ties = [p.control for p in against if p.low <= 0 <= p.high]
    unknown = [p.control for p in against if p.control not in (*wins, *losses, *ties)]
    if len(wins) == len(against) and wins:
        return f"θ* beats every baseline ({', '.join(wins)}) beyond its {100 * confidence:g} % interval"
    parts = [
        f"is worse than {', '.join(losses)}" if losses else "",
        f"cannot be told from {', '.join(ties)}" if ties else "",
        f"beats {', '.join(wins)}" if wins else "",
        f"cannot be judged against {', '.join(unknown)} (too few common seeds)" if unknown else "",
    ]
    return "θ* did NOT beat every baseline: it " + "; it ".join(p for p in parts if p)


# --------------------------------------------------------------------------- the objective
def _objectives(
    tables: Sequence[Table], objective: Objective, measured: Sequence[Measured]
) -> tuple[Table, list[str]]:
    """Return the objective of every measured model over resampled items, and why it is over seeds alone."""
    targets = {t.task: t for t in tables if t.kind == "target" and t.task not in AVERAGES}
    models = [(m.label, seed) for m in measured for seed in m.seeds]
    used = [targets[name] for name in objective.weights if name in targets]
    lacking = [
        name
        for name in objective.weights
        if name not in targets or targets[name].items < 2 or not targets[name].columns.keys() >= set(models)
    ]
    flags: list[str] = []
    if lacking:
        values = np.concatenate([m.values for m in measured])
        ratios = np.stack([values, values])  # a resample that changes nothing: no noise of items
        if targets:
            flags = [
                "intervals of the objective are over seeds alone: not every model has two or more scored "
                f"items of {', '.join(lacking)}"
            ]
    else:
        losses = {t.task: t.ratios[:, [t.columns[model] for model in models]] for t in used}
        ratios = _combined(objective, losses, [label == CONTROL for label, _ in models])
    table = Table(
        task="objective", kind="target", metric="bits_per_byte", items=sum(t.items for t in used),
        chance=None, ratios=ratios, columns={model: place for place, model in enumerate(models)},
    )  # fmt: skip
    return table, flags


def _combined(objective: Objective, losses: Mapping[str, Floats], control: Sequence[bool]) -> Floats:
    """Return the objective of losses per target, each (1 + draws, R). control: which R are its models.

    The levels from which "worst" is reckoned are the control's losses on the items as they are; on other
    items they are other levels, so its losses there are moved to them first.
    """
    if objective.how == "mean" or not any(control):
        return combined(objective, losses)
    means = {t: own[:, np.array(control)].mean(axis=1, keepdims=True) for t, own in losses.items()}
    moved = {t: mean - mean[0] for t, mean in means.items()}
    level = np.sum([w * moved[t] for t, w in objective.weights.items()], axis=0)
    return level + combined(objective, {t: own - moved[t] for t, own in losses.items()})


def _with_interval(measured: Measured, table: Table, confidence: float) -> Measured:
    own = estimate(table.of(measured.label, measured.seeds), confidence=confidence)
    return replace(measured, low=own.low, high=own.high)


def _pair(table: Table, chosen: str, control: str, confidence: float) -> Paired:
    """Return chosen minus control over the seeds that both finished; NaN where there are none, and intervals
    of NaN where there is one."""
    both = chosen in table.labels and control in table.labels
    seeds = table.seeds(chosen, control) if both else ()
    ratios = table.of(chosen, seeds) - table.of(control, seeds) if seeds else table.ratios[:, :0]
    own = estimate(ratios, confidence=confidence)
    return Paired(
        label=chosen, control=control, difference=own.value, low=own.low, high=own.high, stderr=own.stderr,
        pairs=len(seeds),
    )  # fmt: skip


def _detectable(against: Sequence[Paired]) -> float:
    """Return the median over the pairs of the difference that each shows with 80 % power: half its interval
    and t_0.8 of its own standard error, S - 1 degrees of freedom (a few seeds guess that error badly, and
    selectors are not equally noisy, so no pair speaks for all)."""
    known = [p for p in against if np.isfinite(p.stderr)]
    shown = [detectable_beyond((p.high - p.low) / 2, p.stderr, p.pairs - 1) for p in known]
    return float(np.median(shown)) if shown else float("nan")


# --------------------------------------------------------------------------- what a reader must know
def _failed(trials: Sequence[Trial], measured: Sequence[Measured]) -> dict[str, str]:
    """Return the labels of which no model finished, with the first reason."""
    done = {m.label for m in measured}
    found: dict[str, str] = {}
    for trial in trials:
        if trial.label not in done:
            found.setdefault(trial.label, trial.reason or "no model has a finite loss on every target")
    return found


def _budget_flags(measured: Sequence[Measured]) -> list[str]:
    """Say where selected tokens (copies counted) or unique tokens are not equal."""
    flags: list[str] = []
    if apart := _apart(measured, lambda m: m.selected_tokens, _SELECTED_APART):
        flags.append(
            f"unequal budgets: selected tokens, copies counted, differ by {apart}; a difference of scores "
            "may be one of budgets"
        )
    if apart := _apart(measured, lambda m: m.unique_tokens, _UNIQUE_APART):
        epochs = [m.epochs for m in measured]
        flags.append(
            f"note on repeats: unique tokens differ by {apart}; training passes over the unique tokens "
            f"{min(epochs):.2f} to {max(epochs):.2f} times"
        )
    return flags


def _apart(measured: Sequence[Measured], tokens: Callable[[Measured], int], limit: float) -> str:
    """Return "3.2 % (least: a with 1,000; most: b with 1,032)", "" within the limit."""
    least, most = min(measured, key=tokens), max(measured, key=tokens)
    apart, base = tokens(most) - tokens(least), max(tokens(least), 1)
    if apart <= limit * base:
        return ""
    ends = f"least: {least.label} with {tokens(least):,}; most: {most.label} with {tokens(most):,}"
    return f"{100 * apart / base:.1f} % ({ends})"


def _training_flags(trials: Sequence[Trial], measured: Sequence[Measured], train_tokens: int) -> list[str]:
    """Say which models were not trained on the rung's tokens."""
    done = {m.label for m in measured}
    other = {
        t.label: t.train_tokens
        for t in trials
        if t.status == "done" and t.label in done and t.train_tokens != train_tokens
    }
    if not other:
        return []
    listed = ", ".join(f"{label} {tokens:,}" for label, tokens in other.items())
    return [f"unequal training: the rung trains on {train_tokens:,} tokens, but {listed}"]


def _seed_flags(
    trials: Sequence[Trial], measured: Sequence[Measured], against: Sequence[Paired], chosen: str
) -> list[str]:
    """Say which labels lack seeds, and over how many seeds the differences to them are."""
    planned = len({t.seed for t in trials})
    pairs = {p.control: p.pairs for p in against}
    flags: list[str] = []
    for m in (m for m in measured if len(m.values) < planned):
        flag = f"{m.label} finished {len(m.values)} of {planned} seeds"
        if m.label == chosen:
            flag += ", so no difference is over more"
        elif m.label in pairs:
            flag += f"; the difference to it is over {pairs[m.label]}"
            flag += "" if pairs[m.label] > 1 else " and has no interval"
        flags.append(flag)
    if planned < 2:
        flags.append("one seed: no interval, nothing is shown")
    return flags


def _control_flags(objective: Objective, measured: Sequence[Measured]) -> list[str]:
    """Say from what levels the objective is reckoned where the control that would give them is missing."""
    if CONTROL in {m.label for m in measured} or not (objective.how == "worst" or objective.relative):
        return []
    flags: list[str] = []
    if objective.how == "worst":
        levels = ", ".join(f"{t} {objective.levels[t]:.4f}" for t in objective.weights)
        flags.append(
            f'no model of {CONTROL} finished, so "worst" is reckoned from the mean losses of the search\'s '
            f"proxies ({levels}), not from losses of this rung"
        )
    if objective.relative:
        known = [f"{t} {objective.ceilings[t]:.4f}" for t in objective.relative if t in objective.ceilings]
        flags.append(
            f"no model of {CONTROL} finished, so ceilings that are its losses are those of the search's "
            f"proxies ({', '.join(known) or 'none'}), not of this rung"
        )
    return flags


def _single_flags(tasks: Sequence[TaskValues]) -> list[str]:
    """Name the tasks of one item: no interval, and no part of an average."""
    names = dict.fromkeys(f"{t.kind} {t.task}" for t in tasks if len(t.weights) == 1)
    return [f"one item only, so no interval and no part in averages: {', '.join(names)}"] if names else []


def _chance_flags(scores: Sequence[TaskScore]) -> list[str]:
    """Name the benchmarks on whose accuracy no selector's interval lies above chance."""
    tasks: dict[str, list[TaskScore]] = {}
    for score in scores:
        if score.metric == "accuracy" and score.chance is not None and score.task not in AVERAGES:
            tasks.setdefault(score.task, []).append(score)
    return [
        f"benchmark {task}: no selector is above chance ({own[0].chance:.3f}; best "
        f"{max(s.mean for s in own):.3f}), so it cannot tell them apart at this size"
        for task, own in tasks.items()
        if any(np.isfinite(s.low) for s in own) and not any(s.low > (s.chance or 0.0) for s in own)
    ]
