"""One rung of the ladder: all selectors trained in one setting, compared by objective and by task.

In: the trials of the rung and their values per item. Out: a `Rung`, with flags that say in numbers what a
reader must know before believing it: unequal budgets, missing seeds, benchmarks that measure nothing here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from quadmix.errors import SearchError
from quadmix.evaluate.compare import verdict
from quadmix.evaluate.stats import detectable_difference
from quadmix.evaluate.tasks import AVERAGES, TaskValues, task_differences, task_scores
from quadmix.search.confirm import CONFIDENCE, Block, anchored, complete_block, measure, paired
from quadmix.types import Measured, Objective, Paired, Rung, TaskScore, Trial

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

    trials: all of this rung, failed ones too. objective: of the search; what it reckons from the control is
    taken from these models. The keywords up to `left_out` are fields of `Rung`, known before training.
    confidence: of the tasks' intervals (those of the objective hold at 95 %).
    A label that finished fewer than half of the seeds is measured, but its difference is NaN, so that it
    takes no seeds from the others. Raises SearchError when no trial of the rung finished.
    """
    own = anchored(objective, trials)
    measured, block = measure(trials, own), complete_block(trials, own)
    if not measured:
        reasons = "; ".join(f"{t.trial_id}: {t.reason or 'no finite loss'}" for t in trials) or "no trials"
        raise SearchError(
            f"no model of the rung {name!r} finished ({reasons}); see evaluate.training in the recipe"
        )
    against = tuple(_against(trials, own, block, m.label, chosen) for m in measured if m.label != chosen)
    scores = task_scores(tasks, confidence=confidence, seed=seed)
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
        verdict=verdict(against) if against else f"{chosen} was compared with nothing: no baseline finished",
        detectable=_detectable(against, block),
        promised=promised,
        scores=scores,
        differences=task_differences(tasks, chosen, confidence=confidence, seed=seed),
        left_out={**_failed(trials, measured), **(left_out or {})},
        flags=(
            *_budget_flags(measured),
            *_training_flags(trials, measured, train_tokens),
            *_seed_flags(trials, measured, block),
            *_chance_flags(scores),
        ),
    )


def _against(
    trials: Sequence[Trial], objective: Objective, block: Block, control: str, chosen: str
) -> Paired:
    """Return chosen minus control in the block of all labels; NaN where one of the two is not in it."""
    if control in block.labels and chosen in block.labels:
        return next(p for p in paired(trials, objective, control) if p.label == chosen)
    nan = float("nan")
    return Paired(label=chosen, control=control, difference=nan, low=nan, high=nan, stderr=nan, pairs=0)


def _detectable(against: Sequence[Paired], block: Block) -> float:
    """Return the difference that the block's residual shows with 80 % power; all pairs have the same one."""
    errors = [p.stderr for p in against if np.isfinite(p.stderr)]
    freedom = (len(block.labels) - 1) * (len(block.seeds) - 1)
    return detectable_difference(max(errors, default=float("nan")), freedom, confidence=CONFIDENCE)


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


def _seed_flags(trials: Sequence[Trial], measured: Sequence[Measured], block: Block) -> list[str]:
    """Say which labels lack seeds, and over how many seeds the differences are."""
    planned = len({t.seed for t in trials})
    flags = [
        f"{m.label} finished {len(m.values)} of {planned} seeds"
        + ("" if m.label in block.labels else " and is not compared with the others")
        for m in measured
        if len(m.values) < planned
    ]
    if len(block.seeds) < planned:
        flags.append(
            f"differences of the objective are over the {len(block.seeds)} of {planned} seeds that "
            f"{', '.join(block.labels)} all finished"
        )
    if planned < 2:
        flags.append("one seed: no interval, nothing is shown")
    return flags


def _chance_flags(scores: Sequence[TaskScore]) -> list[str]:
    """Name the benchmarks on which no selector's interval lies above chance."""
    tasks: dict[tuple[str, str], list[TaskScore]] = {}
    for score in scores:
        if score.kind == "benchmark" and score.chance is not None and score.task not in AVERAGES:
            tasks.setdefault((score.task, score.metric), []).append(score)
    return [
        f"benchmark {task} ({metric}): no selector is above chance ({own[0].chance:.3f}; best "
        f"{max(s.mean for s in own):.3f}), so it cannot tell them apart at this size"
        for (task, metric), own in tasks.items()
        if not any(s.low > (s.chance or 0.0) for s in own)
    ]
