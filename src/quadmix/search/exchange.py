"""Swarms that other tools trained: CSV files of mixtures and metrics <-> a checked table.

In: `ratios.csv` and `metrics.csv` as Olmix reads them (id `run_id` or `run`, every other column a domain or a
metric), or RegMix's pair (id `index`, columns `train_*` and `metric/*`); or a run folder of this tool. Out:
`MixtureTable`, what a search by shares needs; and both pairs of files again. Rows and columns are matched by
id and name, never by place. A file that is malformed is refused; a run that cannot be used is left out by
name, with the reason. Letters: K runs, M domains. Metrics: smaller = better.
"""

import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError, RecipeError, SearchError
from quadmix.io.atomic import read_value
from quadmix.io.csv import read_csv, write_csv
from quadmix.io.trials import read_trials
from quadmix.mixing.normalise import Normaliser
from quadmix.search.space import ShareBounds
from quadmix.types import Floats, Trial

TOLERANCE = 0.01  # shares of a run may sum to 1 within this; RegMix's have three decimals
_IDS = ("run_id", "run", "index")
_LABELS = {"run_id", "run", "index", "name"}
_LOSS_WORDS = ("loss", "bpb", "ppl", "nll", "perplexity", "entropy")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixtureTable:
    """K runs. shares: (K, M), rows sum to 1. metrics: name -> (K,), finite, smaller = better.

    excluded: id -> why a run is left out. notes: what a user should know about the files. Runs of one mixture
    are replicates: they show the noise. beside: metrics of the file that were not asked for, as far as
    finite.
    """

    ids: tuple[str, ...]
    domains: tuple[str, ...]
    shares: Floats
    metrics: dict[str, Floats]
    excluded: dict[str, str]
    notes: tuple[str, ...] = ()
    beside: dict[str, Floats] = field(default_factory=dict[str, Floats])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """(M,) domains that no run has, so that nothing is known about them."""
        return self.shares.max(axis=0) <= 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShareWishes:
    """What is wanted of a mixture. weights: metric -> weight, empty = all alike. ceilings: metric -> loss
    that may not be exceeded. natural: (M,) shares of the pool. current: (M,) the mixture in use, a
    candidate."""

    weights: Mapping[str, float]
    how: Literal["mean", "worst"] = "mean"
    ceilings: Mapping[str, float]
    bounds: ShareBounds
    natural: Floats
    current: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """A file with its id column told apart. columns: names without prefix. cells: one row per id."""

    path: str
    ids: tuple[str, ...]
    lines: tuple[int, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    ignored: tuple[str, ...]


def read_mixtures(
    ratios: str, metrics: str, *, only: Collection[str] = (), higher: Collection[str] = ()
) -> MixtureTable:
    """Read a swarm from two CSV files in Olmix's or RegMix's format.

    only: the metrics that are needed (a run is not left out for lack of another); empty: all. higher: metrics
    of which larger is better; they are negated. Raises InputError for a malformed file, RecipeError for a
    metric that is not there, SearchError when no run can be used.
    """
    left, right = _sheet(ratios, "train_", "domain"), _sheet(metrics, "metric/", "metric")
    shares, reasons, notes = _shares(left)
    check_known([*only, *higher], right.columns, "metric", metrics)
    values, unusable, more = _metrics(right, only)
    check_known([*only, *higher], values, "metric with numbers", metrics)
    reasons = _absent(left, right) | unusable | reasons
    used = [i for i in left.ids if i not in reasons]
    if not used:
        first = "; ".join(f"run {i!r}: {why}" for i, why in list(reasons.items())[:3])
        raise SearchError(f"none of {len(reasons)} runs can be used ({first}); check {ratios} and {metrics}")
    rows, places = _places(left.ids, used), _places(right.ids, used)
    found = {name: -y[places] if name in higher else y[places] for name, y in values.items()}
    table = MixtureTable(
        ids=tuple(used), domains=left.columns, shares=shares[rows], metrics=found, excluded=reasons
    )
    notes += [*more, *_direction_notes(found, higher), *_unseen_notes(table)]
    notes += [f"column {c!r} of {s.path} is ignored" for s in (left, right) for c in s.ignored]
    return MixtureTable(
        ids=table.ids, domains=table.domains, shares=table.shares, metrics=found, excluded=reasons,
        notes=tuple(notes), beside=_others(right, values, places),
    )  # fmt: skip


def _others(sheet: _Sheet, taken: Collection[str], places: NDArray[np.intp]) -> dict[str, Floats]:
    """Return the metric columns that were not asked for and are finite wherever a run is used."""
    found: dict[str, Floats] = {}
    for m, name in enumerate(sheet.columns):
        if name not in taken:
            column = np.array([number_in(sheet.cells[k][m]) for k in places])
            if np.isfinite(column).all():
                found[name] = column
    return found


def run_mixtures(run_folder: str | Path) -> MixtureTable:
    """Return the random trials of a run of this tool: token shares selected, bits per byte per target.

    What θ did inside the domains is not in it. Raises InputError where the folder is no run with trials.
    """
    folder = Path(run_folder)
    if not (folder / "normaliser.json").is_file():
        raise InputError(
            f"{str(folder)!r} has no normaliser.json: it is no run folder, or its mixing stage has not "
            "ended; `quadmix search RECIPE` trains the trials"
        )
    domains = read_value(folder / "normaliser.json", Normaliser).domains
    trials = [t for t in read_trials(folder) if t.kind == "prior"]
    targets = sorted({name for t in trials for name in t.losses})
    excluded = {t.trial_id: why for t in trials if (why := _why_not(t, targets, len(domains)))}
    used = [t for t in trials if t.trial_id not in excluded]
    if not used:
        first = "".join(f"; {i}: {why}" for i, why in list(excluded.items())[:1])
        raise InputError(
            f"{str(folder)!r} has no finished random trial of {len(trials)}{first}; run `quadmix "
            "search RECIPE`"
        )
    shares = np.array([t.shares for t in used], dtype=np.float64)
    return MixtureTable(
        ids=tuple(t.trial_id for t in used),
        domains=domains,
        shares=shares / shares.sum(axis=1, keepdims=True),
        metrics={n: np.array([t.losses[n].bits_per_byte for t in used]) for n in targets},
        excluded=excluded,
    )


def write_olmix(folder: str | Path, table: MixtureTable) -> tuple[Path, Path]:
    """Write ratios.csv and metrics.csv with the id column `run_id`, as `olmix fit` reads them."""
    if clash := sorted(_LABELS & {*table.domains, *table.metrics}):
        raise InputError(
            f"a domain or metric is named {clash[0]!r}, which Olmix's files take for a label; "
            "write --format regmix"
        )
    return _write(folder, table, ("ratios.csv", "metrics.csv"), "run_id", ("", ""))


def write_regmix(folder: str | Path, table: MixtureTable) -> tuple[Path, Path]:
    """Write train_mixture.csv and train_loss.csv with RegMix's column names."""
    return _write(folder, table, ("train_mixture.csv", "train_loss.csv"), "index", ("train_", "metric/"))


def check_known(
    names: Iterable[str], known: Collection[str], what: str, where: str,
    error: type[InputError] | type[RecipeError] = RecipeError,
) -> None:  # fmt: skip
    """Refuse a name that is not known, with the nearest that is."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
            some = ", ".join(list(known)[:8]) + (", ..." if len(known) > 8 else "")
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {some}"
            raise error(f"there is no {what} {name!r} in {where}; {hint}")


def _sheet(path: str, prefix: str, what: str) -> _Sheet:
    table = read_csv(path)
    key = next((n for n in _IDS if n in table.header), None)
    if key is None:
        raise InputError(
            f"{path} has no id column (columns: {', '.join(table.header[:6])}, ...); expected 'run_id' or "
            "'run' as in Olmix's files, or 'index' as in RegMix's"
        )
    regmix = key == "index"
    wanted = [n.startswith(prefix) if regmix else n not in _LABELS for n in table.header]
    places = [i for i, yes in enumerate(wanted) if yes]
    if not places:
        form = f"named {prefix}NAME beside 'index' (RegMix); or call the id column 'run_id'" if regmix else (
            f"one column per {what} beside {key!r}")  # fmt: skip
        raise InputError(
            f"{path} has no {what} columns (columns: {', '.join(table.header[:6])}); expected {form}"
        )
    at = table.header.index(key)
    ids = tuple(row[at] for row in table.rows)
    _check_ids(path, key, ids, table.lines)
    return _Sheet(
        path=path,
        ids=ids,
        lines=table.lines,
        columns=tuple(table.header[i].removeprefix(prefix if regmix else "") for i in places),
        cells=tuple(tuple(row[i] for i in places) for row in table.rows),
        ignored=tuple(n for i, n in enumerate(table.header) if i not in places and n not in _LABELS),
    )


def _check_ids(path: str, key: str, ids: tuple[str, ...], lines: tuple[int, ...]) -> None:
    first: dict[str, int] = {}
    twice: list[str] = []
    for name, line in zip(ids, lines, strict=True):
        if not name:
            raise InputError(f"{path}, line {line}: column {key!r} is empty, expected the id of the run")
        if name in first:
            twice.append(f"{name!r} (lines {first[name]} and {line})")
        first.setdefault(name, line)
    if twice:
        raise InputError(
            f"{path}: {len(twice)} ids appear more than once: {', '.join(twice[:5])}; expected each once. "
            "Remove the repeats, or give replicates of a mixture ids of their own"
        )


def _shares(sheet: _Sheet) -> tuple[Floats, dict[str, str], list[str]]:
    """Return (K, M) shares scaled to sum 1, why runs cannot be used, and notes."""
    raw = np.array([[number_in(cell) for cell in row] for row in sheet.cells])
    total = raw.sum(axis=1)
    if 50.0 < np.nanmedian(total) < 150.0:
        raise InputError(
            f"{sheet.path}: shares of a run sum to about {np.nanmedian(total):.4g}, so they are percentages; "
            "expected fractions that sum to 1: divide them by 100"
        )
    bad = ~((raw >= -1e-9) & (raw <= 1 + TOLERANCE))
    for k, m in np.argwhere(bad):
        raise InputError(
            f"{sheet.path}, line {sheet.lines[k]}, column {sheet.columns[m]!r}: share {sheet.cells[k][m]!r}, "
            "expected a number from 0 to 1 (0 where the run does not have the domain; a point, no comma)"
        )
    off = np.abs(total - 1.0) > TOLERANCE + 1e-9
    reasons = {
        sheet.ids[k]: f"shares sum to {total[k]:.4g}, expected 1 within {TOLERANCE}"
        for k in np.flatnonzero(off)
    }
    scaled = ~off & (np.abs(total - 1.0) > 1e-9)
    notes = (
        [f"{scaled.sum()} runs had shares that sum to {total[scaled].min():.4f} to {total[scaled].max():.4f};"
         " they were scaled to 1"]
        if (np.abs(total[scaled] - 1.0) > 1e-6).any() else []
    )  # fmt: skip
    shares = np.maximum(raw, 0.0)
    return shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-300), reasons, notes


def _metrics(sheet: _Sheet, only: Collection[str]) -> tuple[dict[str, Floats], dict[str, str], list[str]]:
    """Return metric -> (K,), why runs cannot be used, and a note per column without any number."""
    values: dict[str, Floats] = {}
    reasons: dict[str, str] = {}
    notes: list[str] = []
    for m, name in enumerate(sheet.columns):
        if only and name not in only:
            continue
        column = np.array([number_in(row[m]) for row in sheet.cells])
        finite = np.isfinite(column)
        if not finite.any():
            notes.append(f"column {name!r} of {sheet.path} holds no number and is left out")
            continue
        values[name] = column
        for k in np.flatnonzero(~finite):
            got = sheet.cells[k][m] or "empty"
            reasons.setdefault(
                sheet.ids[k], f"metric {name!r} is {got} (line {sheet.lines[k]}), expected a number"
            )
    if not values:
        raise InputError(
            f"{sheet.path}: no metric column holds a number; expected losses, one column per metric"
        )
    return values, reasons, notes


def _absent(left: _Sheet, right: _Sheet) -> dict[str, str]:
    """Return why runs that are in one file only cannot be used."""
    both = set(left.ids) & set(right.ids)
    if not both:
        raise InputError(
            f"no id of {left.path} ({left.ids[0]!r}, ...) is in {right.path} ({right.ids[0]!r}, ...); "
            "expected the same ids in both files: are they of one swarm?"
        )
    return {i: f"is not in {right.path}" for i in left.ids if i not in both} | {
        i: f"is not in {left.path}" for i in right.ids if i not in both
    }


def _direction_notes(metrics: Mapping[str, Floats], higher: Collection[str]) -> list[str]:
    notes = [f"metric {name!r} is negated, so that smaller is better" for name in metrics if name in higher]
    for name, y in metrics.items():
        if name in higher or any(word in name.lower() for word in _LOSS_WORDS):
            continue
        if "acc" in name.lower() or bool(((y >= 0) & (y <= 1)).all()):
            notes.append(
                f"metric {name!r} looks like an accuracy, but lower is assumed better; if higher is better, "
                f"say --higher-is-better {name}"
            )
    return notes


def _unseen_notes(table: MixtureTable) -> list[str]:
    return [
        f"domain {table.domains[m]!r} is 0 in all runs: nothing is known about it, its share is fixed at 0"
        for m in np.flatnonzero(table.unseen)
    ]


def _why_not(trial: Trial, targets: Sequence[str], domains: int) -> str:
    if trial.status != "done":
        return trial.reason or "failed without a reason"
    if len(trial.shares) != domains or not sum(trial.shares) > 0:
        return f"has shares of {len(trial.shares)} domains, expected {domains}"
    lacking = [
        t for t in targets if t not in trial.losses or not math.isfinite(trial.losses[t].bits_per_byte)
    ]
    return f"has no loss on target {lacking[0]!r}" if lacking else ""


def _write(
    folder: str | Path, table: MixtureTable, names: tuple[str, str], key: str, prefixes: tuple[str, str]
) -> tuple[Path, Path]:
    mixtures, losses = Path(folder, names[0]), Path(folder, names[1])
    columns = np.stack(list(table.metrics.values()), axis=1)
    for path, prefix, header, values in (
        (mixtures, prefixes[0], table.domains, table.shares), 
        (losses, prefixes[1], tuple(table.metrics), columns),
    ):  # fmt: skip
        rows = ([i, *row] for i, row in zip(table.ids, values.tolist(), strict=True))
        write_csv(path, [key, *(prefix + name for name in header)], rows)
    return mixtures, losses


def _places(ids: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    place = {name: k for k, name in enumerate(ids)}
    return np.array([place[name] for name in wanted], dtype=np.int64)


def number_in(cell: str) -> float:
    """Return the number in a cell, NaN where there is none."""
    try:
        return float(cell) if "_" not in cell else math.nan
    except ValueError:
        return math.nan
