"""Scores of every selector on every task, and differences to the chosen one, with intervals.

In: `TaskValues`, one number per selector, seed and item. Out: `TaskScore`s and `TaskDifference`s, also for
"macro" (mean of the tasks of one kind and metric) and "micro" (over all their items). All statistics of a
task come from the same resamples of its items (`stats.item_sums`), so differences are paired.

A task with one item has no interval; it is in no average, which would have none either.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from quadmix.errors import RecipeError, ScoreError
from quadmix.evaluate.stats import DRAWS, Sums, estimate, holm, item_sums, macro, micro
from quadmix.types import Floats, TaskDifference, TaskScore
from quadmix.types.comparing import Metric

Kind = Literal["target", "benchmark", "heldout"]
AVERAGES = ("macro", "micro")
FORMS: tuple[Metric, ...] = ("acc_norm", "acc", "greedy")  # the first that a benchmark has is its accuracy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskValues:
    """One task of one rung, by one metric.

    values: (L, S, I) per label, seed and item: bits for bits_per_byte, 0 or 1 for accuracies; NaN for all
    items of a model that failed. weights: (I,) > 0: bytes for bits_per_byte, 1 for accuracies.
    Raises ScoreError when shapes do not fit, a name repeats or is that of an average, or only some items of a
    model are not finite.
    """

    task: str
    kind: Kind
    metric: Metric
    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Floats
    weights: Floats
    chance: float | None = None

    def __post_init__(self) -> None:
        name = f"task {self.task!r} ({self.metric})"
        expected = (len(self.labels), len(self.seeds), len(self.weights))
        if self.values.shape != expected or not len(self.weights):
            raise ScoreError(
                f"{name}: values have the shape {self.values.shape}, expected labels x seeds x items = "
                f"{expected} with at least one item"
            )
        if self.task in AVERAGES:
            raise ScoreError(f"{name}: the names {' and '.join(AVERAGES)} are kept for averages; rename it")
        if len(set(self.labels)) < len(self.labels) or len(set(self.seeds)) < len(self.seeds):
            raise ScoreError(f"{name}: labels {self.labels} and seeds {self.seeds} must each be there once")
        if not (np.isfinite(self.weights).all() and (self.weights > 0).all()):
            raise ScoreError(f"{name}: weights (bytes of each item) must be above 0 and finite")
        finite = np.isfinite(self.values)
        if (partial := finite.any(axis=2) & ~finite.all(axis=2)).any():
            label, seed = np.argwhere(partial)[0]
            raise ScoreError(
                f"{name}: label {self.labels[label]!r}, seed {self.seeds[seed]} has "
                f"{int((~finite[label, seed]).sum())} of {len(self.weights)} items without a finite value; "
                "score them again, or set the whole model to NaN"
            )

    @property
    def finished(self) -> Mapping[str, tuple[int, ...]]:
        """Label -> the seeds that have values."""
        has = np.isfinite(self.values[:, :, 0])
        return {
            label: tuple(seed for seed, ok in zip(self.seeds, row, strict=True) if ok)
            for label, row in zip(self.labels, has, strict=True)
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """One task or average. ratios: (1 + draws, R), row 0 the items as they are; columns: where a model
    (label, seed) is among the R."""

    task: str
    kind: Kind
    metric: Metric
    items: int
    chance: float | None
    ratios: Floats
    columns: dict[tuple[str, int], int]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels with at least one finished seed, in order."""
        return tuple(dict.fromkeys(label for label, _ in self.columns))

    def seeds(self, *labels: str) -> tuple[int, ...]:
        """Return the seeds that all of these labels finished."""
        own = [{seed for name, seed in self.columns if name == label} for label in labels]
        return tuple(sorted(set.intersection(*own)))

    def of(self, label: str, seeds: Sequence[int]) -> Floats:
        """Return the columns (1 + draws, S) of one label."""
        return self.ratios[:, [self.columns[label, seed] for seed in seeds]]


def check_task_names(names: Iterable[str]) -> None:
    """Raise RecipeError where a target, benchmark or domain has the name of an average; before training."""
    if kept := [name for name in names if name in AVERAGES]:
        raise RecipeError(
            f"a target, benchmark or domain is named {kept[0]!r}, but {' and '.join(AVERAGES)} are kept for "
            "averages over tasks; rename it"
        )


def with_accuracy(tasks: Sequence[TaskValues]) -> list[TaskValues]:
    """Return the tasks, then one "accuracy" of every benchmark: acc_norm, else acc, else greedy."""
    found: dict[str, TaskValues] = {}
    for metric in reversed(FORMS):
        found |= {t.task: t for t in tasks if t.kind == "benchmark" and t.metric == metric}
    names = dict.fromkeys(t.task for t in tasks if t.task in found and t.kind == "benchmark")
    return [*tasks, *(replace(found[name], metric="accuracy") for name in names)]


def task_scores(tasks: Sequence[TaskValues], *, confidence: float = 0.95, seed: int) -> tuple[TaskScore, ...]:
    """Return the score of every label on every task, then on the averages; over the seeds it finished.

    An average holds the seeds that a label finished on all its tasks. `items` of an average: of all its tasks
    together. With one seed or one item the interval is NaN; a label without a finished seed is left out.
    """
    return table_scores(resampled(tasks, seed=seed), confidence=confidence)


def table_scores(tables: Sequence[Table], *, confidence: float = 0.95) -> tuple[TaskScore, ...]:
    """Return the scores of resampled tasks; see `task_scores`."""
    found: list[TaskScore] = []
    for table in tables:
        for label in table.labels:
            ratios = table.of(label, table.seeds(label))
            own = estimate(ratios, confidence=confidence)
            found.append(
                TaskScore(
                    task=table.task,
                    kind=table.kind,
                    metric=table.metric,
                    label=label,
                    mean=own.value,
                    low=own.low,
                    high=own.high,
                    values=tuple(map(float, ratios[0])),
                    items=table.items,
                    chance=table.chance,
                )
            )
    return tuple(found)


def task_differences(
    tasks: Sequence[TaskValues], chosen: str, *, confidence: float = 0.95, seed: int
) -> tuple[TaskDifference, ...]:
    """Return `chosen` minus every other label on every task and average, paired over items and common seeds.

    p_holm is corrected over the tasks of one control, metric and kind; the averages are no tasks of that
    family (they sum it up), their p_holm is their p. With fewer than two common seeds, or one item, interval
    and p are NaN, and such a task does not count in the correction.
    """
    return table_differences(resampled(tasks, seed=seed), chosen, confidence=confidence)


def table_differences(
    tables: Sequence[Table], chosen: str, *, confidence: float = 0.95
) -> tuple[TaskDifference, ...]:
    """Return the differences on resampled tasks; see `task_differences`."""
    found = [
        _difference(table, chosen, control, confidence)
        for table in tables
        if chosen in table.labels
        for control in table.labels
        if control != chosen and table.seeds(chosen, control)
    ]
    return tuple(_corrected(found))


def _difference(table: Table, chosen: str, control: str, confidence: float) -> TaskDifference:
    seeds = table.seeds(chosen, control)
    own = estimate(table.of(chosen, seeds) - table.of(control, seeds), confidence=confidence)
    below, above = own.high < 0, own.low > 0
    lower_is_better = table.metric == "bits_per_byte"
    return TaskDifference(
        task=table.task,
        kind=table.kind,
        metric=table.metric,
        control=control,
        difference=own.value,
        low=own.low,
        high=own.high,
        p=own.p,
        p_holm=own.p,
        items=table.items,
        seeds=len(seeds),
        better=below if lower_is_better else above,
        worse=above if lower_is_better else below,
    )


def _corrected(differences: Sequence[TaskDifference]) -> list[TaskDifference]:
    """Return them with p_holm, within (control, metric, kind); order is kept."""
    families: dict[tuple[str, str, str], list[int]] = {}
    for place, one in enumerate(differences):
        if one.task not in AVERAGES:
            families.setdefault((one.control, one.metric, one.kind), []).append(place)
    found = list(differences)
    for places in families.values():
        corrected = holm(np.array([differences[place].p for place in places]))
        for place, p in zip(places, corrected, strict=True):
            found[place] = replace(differences[place], p_holm=float(p))
    return found


def resampled(tasks: Sequence[TaskValues], *, seed: int, draws: int = DRAWS) -> list[Table]:
    """Return a table per task in their order, then the macro and micro average of each kind and metric."""
    _refuse_repeated(tasks)
    groups: dict[tuple[Kind, Metric], list[tuple[TaskValues, Sums]]] = {}
    tables: list[Table] = []
    for task in tasks:
        columns = _columns(task.finished)
        rows = [task.values[task.labels.index(label), task.seeds.index(s)] for label, s in columns]
        if not rows:
            continue
        # the metric is no part of the stream: two metrics of one task see the same resamples of its items
        sums = item_sums(np.array(rows), task.weights, seed=seed, names=[task.kind, task.task], draws=draws)
        if len(task.weights) > 1:
            groups.setdefault((task.kind, task.metric), []).append((task, sums))
        tables.append(_table(task.task, [task], sums.ratios, columns, task.chance))
    for group in groups.values():
        tables += _averages(group)
    return tables


def _averages(group: Sequence[tuple[TaskValues, Sums]]) -> list[Table]:
    """Return the macro and the micro average over the models that finished every task of the group."""
    tasks = [task for task, _ in group]
    own = [_columns(task.finished) for task in tasks]
    common = [key for key in own[0] if all(key in columns for columns in own)]
    if not common:
        return []
    cut = [
        replace(sums, numerators=sums.numerators[:, [columns[key] for key in common]])
        for (_, sums), columns in zip(group, own, strict=True)
    ]
    columns = {key: place for place, key in enumerate(common)}
    # words that are to be found, not chosen, are guessed never
    guess = 0.0 if tasks[0].metric == "accuracy" else None
    chances = [guess if task.chance is None else task.chance for task in tasks]
    known = [chance for chance in chances if chance is not None]
    items = [len(task.weights) for task in tasks]
    whole = len(known) == len(tasks)
    plain, weighed = (float(np.average(known, weights=w)) if whole else None for w in (None, items))
    return [
        _table("macro", tasks, macro(cut), columns, plain),
        _table("micro", tasks, micro(cut), columns, weighed),
    ]


def _table(
    name: str,
    tasks: Sequence[TaskValues],
    ratios: Floats,
    columns: dict[tuple[str, int], int],
    chance: float | None,
) -> Table:
    return Table(
        task=name,
        kind=tasks[0].kind,
        metric=tasks[0].metric,
        items=sum(len(task.weights) for task in tasks),
        chance=chance,
        ratios=ratios,
        columns=columns,
    )


def _columns(finished: Mapping[str, Iterable[int]]) -> dict[tuple[str, int], int]:
    """Return the place of each finished model among all of them."""
    models = [(label, seed) for label, seeds in finished.items() for seed in seeds]
    return {model: place for place, model in enumerate(models)}


def _refuse_repeated(tasks: Sequence[TaskValues]) -> None:
    seen: set[tuple[str, str, str]] = set()
    for task in tasks:
        key = (task.kind, task.task, task.metric)
        if key in seen:
            raise ScoreError(f"task {task.task!r} of kind {task.kind} is there twice with {task.metric}")
        seen.add(key)
