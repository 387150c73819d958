"""Row files of scored models -> one number per selector, seed and item, task by task.

In: the trials of one rung, the folder that `proxy.scoring` filled, the folder of its benchmarks. Out:
`TaskValues`: bits per row of every target and held-out domain; per benchmark whether each item was answered
right, and the bits of its right answer, which tell mixtures apart long before accuracy does (DataDecide,
Magnusson et al. 2025).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.errors import InputError, IntegrityError
from quadmix.evaluate.tasks import Kind, TaskValues
from quadmix.io.atomic import read_table
from quadmix.proxy.choices import ChoiceTable, read_choices
from quadmix.proxy.scoring import refused_path, rows_path
from quadmix.types import Floats, Ints, Loss, Trial
from quadmix.types.comparing import Metric

_LN2 = math.log(2)
_Cell = tuple[str, int]  # label and seed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """All row files. nll: (L, S, R) nats, NaN without a file. greedy: (L, S, R). bytes: (R,).
    tasks: which of the R rows each (kind, name) has."""

    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    nll: Floats
    greedy: NDArray[np.bool_]
    bytes: Ints
    tasks: dict[tuple[str, str], slice]

    def task(self, name: str, kind: str, metric: Metric, values: Floats, weights: Floats,
             chance: float | None = None) -> TaskValues:  # fmt: skip
        return TaskValues(
            task=name, kind=cast(Kind, kind), metric=metric, labels=self.labels, seeds=self.seeds,
            values=values, weights=weights, chance=chance,
        )  # fmt: skip


def read_tasks(
    trials: Sequence[Trial], rows_folder: str | Path, benchmarks_folder: str | Path | None
) -> list[TaskValues]:
    """Return all tasks of the row files in their order.

    Labels and seeds come in the order of the trials; NaN where a trial failed, its weights were refused, or a
    label has no trial of a seed. A benchmark of choices gives "acc" and (but for a blank, where lengths say
    nothing) "acc_norm", a greedy one "greedy", both also "bits_per_byte" of the right answer.
    Raises InputError for a finished trial that was not scored, two trials of one label and seed, no scored
    trial at all, or a benchmark that `benchmarks_folder` does not describe; IntegrityError for files whose
    rows differ.
    """
    choices = read_choices(benchmarks_folder) if benchmarks_folder is not None else {}
    rows = _read_rows(_cells(trials), Path(rows_folder))
    out: list[TaskValues] = []
    for (kind, name), part in rows.tasks.items():
        weights = rows.bytes[part].astype(np.float64)
        if kind != "benchmark":
            out.append(rows.task(name, kind, "bits_per_byte", rows.nll[..., part] / _LN2, weights))
        elif name not in choices or len(choices[name].item) != len(weights):
            raise InputError(
                f"benchmark {name!r} has {len(weights):,} rows in {str(rows_folder)!r}, but "
                f"{str(benchmarks_folder)!r} does not describe them; expected the folder that was scored"
            )
        else:
            out += _benchmark(rows, choices[name], part)
    return out


def with_losses(trials: Sequence[Trial], tasks: Sequence[TaskValues]) -> list[Trial]:
    """Return the finished trials with the losses of their rows: what the weights score as they were saved."""
    scored = [t for t in tasks if t.metric == "bits_per_byte" and t.kind != "benchmark"]
    out: list[Trial] = []
    for trial in trials:
        losses: dict[str, dict[str, Loss]] = {"target": {}, "heldout": {}}
        for task in scored if trial.status == "done" else ():
            bits = task.values[task.labels.index(trial.label), task.seeds.index(trial.seed)]
            losses[task.kind][task.task] = _loss(bits, task.weights)
        done = replace(trial, losses=losses["target"], heldout=losses["heldout"])
        out.append(done if trial.status == "done" else trial)
    return out


def _loss(bits: Floats, sizes: Floats) -> Loss:
    """Return the ratio estimate of rows of `bits` (R,) over `sizes` (R,) bytes; see proxy.losses.ratio."""
    rows, total = len(bits), float(sizes.sum())
    mean = float(bits.sum()) / total
    spread = float(np.square(bits - mean * sizes).sum())
    stderr = math.sqrt(rows / (rows - 1) * spread) / total if rows > 1 else math.nan
    return Loss(bits_per_byte=mean, stderr=stderr, rows=rows, tokens=0, bytes=int(total))


def choice_accuracy(nll: Floats, table: ChoiceTable, *, normalised: bool) -> Floats:
    """Return (..., I), 1 where the likeliest choice of an item is the right one, NaN where nll (..., R) is.

    normalised: by the characters of the choice, as acc_norm of lm-evaluation-harness is. Of equal choices the
    first one counts, as there.
    """
    item, choice = np.asarray(table.item), np.asarray(table.choice)
    score = -nll / np.asarray(table.characters) if normalised else -nll
    filled = np.full((*nll.shape[:-1], len(table.gold), int(choice.max()) + 1), -np.inf)
    filled[..., item, choice] = score
    right = (filled.argmax(axis=-1) == np.asarray(table.gold)).astype(np.float64)
    return np.where(np.isnan(filled).any(axis=-1), np.nan, right)


def _benchmark(rows: _Rows, table: ChoiceTable, part: slice) -> list[TaskValues]:
    nll, greedy, items = rows.nll[..., part], rows.greedy[..., part], len(table.gold)
    gold = np.flatnonzero(np.asarray(table.choice) == np.asarray(table.gold)[np.asarray(table.item)])
    found: list[tuple[Metric, Floats]] = []
    if table.kind == "greedy":
        found.append(("greedy", np.where(np.isnan(nll), np.nan, greedy.astype(np.float64))[..., gold]))
    else:
        found.append(("acc", choice_accuracy(nll, table, normalised=False)))
        if not table.blank:
            found.append(("acc_norm", choice_accuracy(nll, table, normalised=True)))
    out = [
        rows.task(table.name, "benchmark", metric, values, np.ones(items), table.chance)
        for metric, values in found
    ]
    weights = rows.bytes[part][gold].astype(np.float64)
    return [*out, rows.task(table.name, "benchmark", "bits_per_byte", nll[..., gold] / _LN2, weights)]


def _cells(trials: Sequence[Trial]) -> dict[_Cell, Trial]:
    cells: dict[_Cell, Trial] = {}
    for trial in trials:
        other = cells.setdefault((trial.label, trial.seed), trial)
        if other is not trial:
            raise InputError(
                f"trials {other.trial_id!r} and {trial.trial_id!r} both have label {trial.label!r} and seed "
                f"{trial.seed}; expected the trials of one rung"
            )
    return cells


def _file(trial: Trial, folder: Path) -> Path | None:
    """Return the trial's row file; None if it failed or was refused."""
    path = rows_path(folder, trial.trial_id)
    if trial.status == "failed" or refused_path(folder, trial.trial_id).exists():
        return None
    if not path.exists():
        raise InputError(
            f"trial {trial.trial_id!r} is done but has no {path.name} in {str(folder)!r}; run the evaluate "
            "stage again: it is scored then, and trained anew where its weights are gone"
        )
    return path


def _read_rows(cells: Mapping[_Cell, Trial], folder: Path) -> _Rows:
    labels = tuple(dict.fromkeys(label for label, _ in cells))
    seeds = tuple(dict.fromkeys(seed for _, seed in cells))
    files = {cell: path for cell, trial in cells.items() if (path := _file(trial, folder)) is not None}
    if not files:
        why = "; ".join(sorted({t.reason for t in cells.values() if t.reason})) or "see *.refused.json there"
        raise InputError(f"none of {len(cells)} trials has rows in {str(folder)!r}: {why}")
    tables = {cell: read_table(path) for cell, path in files.items()}
    first, layout = next(iter(files.values())), _layout(next(iter(tables.values())))
    shape = (len(labels), len(seeds), layout.num_rows)
    nll, greedy = np.full(shape, np.nan), np.zeros(shape, dtype=np.bool_)
    for (label, seed), table in tables.items():
        if not _layout(table).equals(layout):
            raise IntegrityError(
                f"{files[label, seed]} has other rows than {first}; they were scored on different sets: "
                "remove the folder and run the same command again"
            )
        place = labels.index(label), seeds.index(seed)
        nll[place] = table["nll"].to_numpy()
        greedy[place] = table["greedy"].to_numpy()
    return _Rows(
        labels=labels, seeds=seeds, nll=nll, greedy=greedy,
        bytes=layout["bytes"].to_numpy().astype(np.int64), tasks=_parts(layout),
    )  # fmt: skip


def _layout(table: pa.Table) -> pa.Table:
    """What all models have in common: the rows, their bytes and tokens."""
    plain = [table[name].cast(pa.string()) for name in ("kind", "task")]
    columns = [*plain, *(table[name] for name in ("row", "bytes", "tokens"))]
    return pa.table(columns, names=["kind", "task", "row", "bytes", "tokens"])


def _parts(layout: pa.Table) -> dict[tuple[str, str], slice]:
    """Every task's stretch of rows; row 0 begins a task."""
    starts = np.flatnonzero(layout["row"].to_numpy() == 0).tolist()
    ends = [*starts[1:], layout.num_rows]
    kinds, tasks = layout["kind"], layout["task"]
    return {
        (kinds[start].as_py(), tasks[start].as_py()): slice(start, end)
        for start, end in zip(starts, ends, strict=True)
    }
