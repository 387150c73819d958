"""Scores of every selector on every task, and differences to the chosen one, with intervals.

In: `TaskValues`, one number per selector, seed and item. Out: `TaskScore`s and `TaskDifference`s, also for
"macro" (mean of the tasks of one kind and metric) and "micro" (over all their items). All statistics of a
task come from the same resamples of its items (`stats.item_sums`), so differences are paired.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from quadmix.errors import ScoreError
from quadmix.evaluate.stats import Sums, estimate, holm, item_sums, macro, micro
from quadmix.types import Floats, TaskDifference, TaskScore
from quadmix.types.comparing import Metric

Kind = Literal["target", "benchmark", "heldout"]
AVERAGES = ("macro", "micro")


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
class _Table:
    """One task or average. ratios: (1 + draws, R), row 0 the items as they are; columns: where a model is."""

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


def task_scores(tasks: Sequence[TaskValues], *, confidence: float = 0.95, seed: int) -> tuple[TaskScore, ...]:
    """Return the score of every label on every task, then on the averages; over the seeds it finished.

    An average holds the seeds that a label finished on all its tasks. `items` of an average: of all its tasks
    together. With one seed the interval is NaN; a label without a finished seed is left out.
    """
    found: list[TaskScore] = []
    for table in _tables(tasks, seed):
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
    family (they sum it up), their p_holm is their p. With fewer than two common seeds interval and p are NaN,
    and such a task does not count in the correction.
    """
    found = [
        _difference(table, chosen, control, confidence)
        for table in _tables(tasks, seed)
        if chosen in table.labels
        for control in table.labels
        if control != chosen and table.seeds(chosen, control)
    ]
    return tuple(_corrected(found))


def _difference(table: _Table, chosen: str, control: str, confidence: float) -> TaskDifference:
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


def _tables(tasks: Sequence[TaskValues], seed: int) -> list[_Table]:
    """Return a table per task in their order, then the macro and micro average of each kind and metric."""
    _refuse_repeated(tasks)
    groups: dict[tuple[Kind, Metric], list[tuple[TaskValues, Sums]]] = {}
    tables: list[_Table] = []
    for task in tasks:
        columns = _columns(task.finished)
        rows = [task.values[task.labels.index(label), task.seeds.index(s)] for label, s in columns]
        if not rows:
            continue
        # the metric is no part of the stream: two metrics of one task see the same resamples of its items
        sums = item_sums(np.array(rows), task.weights, seed=seed, names=[task.kind, task.task])
        groups.setdefault((task.kind, task.metric), []).append((task, sums))
        tables.append(_table(task.task, [task], sums.ratios, columns, task.chance))
    for group in groups.values():
        tables += _averages(group)
    return tables


def _averages(group: Sequence[tuple[TaskValues, Sums]]) -> list[_Table]:
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
    chances = [task.chance for task in tasks if task.chance is not None]
    known = len(chances) == len(tasks)
    items = [len(task.weights) for task in tasks]
    return [
        _table("macro", tasks, macro(cut), columns, float(np.mean(chances)) if known else None),
        _table(
            "micro", tasks, micro(cut), columns, float(np.average(chances, weights=items)) if known else None
        ),
    ]


def _table(
    name: str,
    tasks: Sequence[TaskValues],
    ratios: Floats,
    columns: dict[tuple[str, int], int],
    chance: float | None,
) -> _Table:
    return _Table(
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
