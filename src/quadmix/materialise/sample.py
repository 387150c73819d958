"""Sample documents for the report: who is at the top, at the edge, dropped, and where criteria disagree.

In: the parts of the selection, one in memory at a time. Out: which documents, and later the table
samples.parquet with the numbers and the text that the materialisation met on its way. Every stratum takes
its best document of each domain before any second best, so that small domains are seen too; ties fall by a
hash of (seed, stratum, document).

The choice is mergeable: a document among the first n of all parts is among the first n of its own part, since
every document that goes before it there, or a better one of the same domain, goes before it everywhere.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from quadmix.io.atomic import read_table
from quadmix.materialise.table import SELECTION, SelectionManifest, part_name
from quadmix.rng import keyed_uniform
from quadmix.types import Floats, Ints

STRATA = ("top", "kept", "borderline", "dropped", "dropped_high", "disagree")
TEXT_CHARACTERS = 2000
SAMPLES = 30  # of each stratum
DRAW = ("uniform", "factor")  # a document has one copy more where uniform < frac(expected) · factor
_TASKS = 64
_HELD = 16  # samples of parts that are held before they are merged

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTask:
    """Some neighbouring parts. criteria, domains: of the selection. cutoffs: (M,) ω, empty if not known.

    seed: of the choice of samples. draw_seed, factors: (M,) of the draw of the copies, which samples show.
    """

    run_folder: str
    splits: tuple[int, ...]
    criteria: tuple[str, ...]
    domains: tuple[str, ...]
    cutoffs: tuple[float, ...]
    seed: int
    draw_seed: int
    factors: tuple[float, ...]
    n: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Numbers:
    """What a part says about its documents (D), sorted by domain. rows: (D,) where they stand in the part.

    ends: (M + 1,) domain m has the places ends[m]..ends[m + 1]. norms: (N, D), NaN = missing.
    """

    rows: Ints
    ends: Ints
    keys: NDArray[np.uint64]
    norms: NDArray[np.float32]
    rank: Floats
    selectable: NDArray[np.bool_]
    copied: NDArray[np.bool_]


def choose_samples(
    run_folder: str,
    selection: SelectionManifest,
    cutoffs: Floats | None,
    *,
    seed: int,
    mapper: Mapper,
    n: int = SAMPLES,
) -> pa.Table:
    """Return up to `n` documents of each stratum, in the order of STRATA: stratum, split, row (in the split),
    and what their copies were drawn with (DRAW).

    Excluded documents are never shown. cutoffs: (M,) the rank at which the selection of each domain ends;
    without it nobody is borderline.
    """
    splits = [p.split for p in selection.parts if p.documents]
    step = max(1, -(-len(splits) // _TASKS))
    tasks = [
        SampleTask(
            run_folder=run_folder,
            splits=tuple(splits[i : i + step]),
            criteria=tuple(c.name for c in selection.info.criteria),
            domains=selection.info.domains,
            cutoffs=() if cutoffs is None else tuple(cutoffs.tolist()),
            seed=seed,
            draw_seed=selection.info.seed,
            factors=selection.info.factors,
            n=n,
        )
        for i in range(0, len(splits), step)
    ]
    chosen = _merge(mapper(sample_parts, tasks), n)
    names = pa.array([stratum for stratum, _ in _sizes(n)])
    shown = {name: chosen[name] for name in ("split", "row", *DRAW)}
    return pa.table({"stratum": names.take(chosen["group"]), **shown}).combine_chunks()


def sample_parts(task: SampleTask) -> pa.Table:
    """Return the samples of some parts alone, with all that it takes to compare them with others."""
    chosen: list[pa.Table] = []
    for split in task.splits:
        chosen.append(_sample_part(task, split))
        if len(chosen) == _HELD:
            chosen = [_merge(chosen, task.n)]
    return _merge(chosen, task.n)


def _sample_part(task: SampleTask, split: int) -> pa.Table:
    numbers = _read(task, split)
    chosen: list[pa.Table] = []
    for group, ((stratum, n), (mask, value)) in enumerate(
        zip(_sizes(task.n), _groups(numbers, task), strict=True)
    ):
        if value is None:
            value = keyed_uniform(task.seed, numbers.keys, f"sample:{stratum}")
        places = _best(np.where(mask, value, np.inf), mask, numbers.ends, n)
        domain = np.searchsorted(numbers.ends, places, side="right").astype(np.int16) - np.int16(1)
        keys = numbers.keys[places]
        columns = {
            "group": np.full(len(places), group, dtype=np.int8),
            "split": np.full(len(places), split, dtype=np.int32),
            "row": numbers.rows[places],
            "domain": domain,
            "value": value[places],
            "luck": keyed_uniform(task.seed, keys, f"sample:{stratum}"),
            "uniform": keyed_uniform(task.draw_seed, keys, "copies"),
            "factor": np.array(task.factors or (np.nan,) * len(task.domains))[domain],
        }
        chosen.append(pa.table({name: pa.array(column) for name, column in columns.items()}))
    return _merge(chosen, task.n)


def _best(value: Floats, mask: NDArray[np.bool_], ends: Ints, n: int) -> Ints:
    """Return the places of the n smallest values of each domain, and of those that are equal to the last."""
    good = mask.copy()
    for start, stop in itertools.pairwise(ends.tolist()):
        if stop - start > n:
            values = value[start:stop]
            good[start:stop] &= values <= np.partition(values, n - 1)[n - 1]
    return np.flatnonzero(good).astype(np.int64)


def _read(task: SampleTask, split: int) -> _Numbers:
    norms = [f"norm:{name}" for name in task.criteria]
    path = Path(task.run_folder) / SELECTION / part_name(split)
    columns = ["key", "domain", "rank_low", "rank_high", "copies", "excluded", *norms]
    table = read_table(path, columns=columns)
    labels = pc.call_function("index_in", [table["domain"]], pc.SetLookupOptions(pa.array(task.domains)))
    domain = labels.to_numpy().astype(np.int16)
    order = np.argsort(domain, kind="stable").astype(np.int64)
    return _Numbers(
        rows=order,
        ends=np.cumsum([0, *np.bincount(domain, minlength=len(task.domains))]),
        keys=table["key"].to_numpy()[order],
        norms=np.stack([table[name].to_numpy()[order] for name in norms]),
        rank=((table["rank_low"].to_numpy() + table["rank_high"].to_numpy()) / 2)[order],
        selectable=table["excluded"].is_null().to_numpy()[order],
        copied=table["copies"].to_numpy()[order] > 0,
    )


def _merge(tables: Sequence[pa.Table], n: int) -> pa.Table:
    """Return the samples of all documents, from those of some of them each."""
    table = pa.concat_tables(tables).combine_chunks()
    group, domain, value, luck = (table[name].to_numpy() for name in ("group", "domain", "value", "luck"))
    rows = [np.empty(0, dtype=np.int64)]
    for number, (_, size) in enumerate(_sizes(n)):
        mine = np.flatnonzero(group == number)
        rows.append(mine[_first(domain[mine], value[mine], luck[mine], size)])
    return table.take(pa.array(np.concatenate(rows)))


def _sizes(n: int) -> tuple[tuple[str, int], ...]:
    """Return the groups in order, with how many of each are wanted: half of the borderline on each side."""
    half = (n + 1) // 2
    return (
        ("top", n), ("kept", n), ("borderline", half), ("borderline", n - half), ("dropped", n),
        ("dropped_high", n), ("disagree", n),
    )  # fmt: skip


def _groups(numbers: _Numbers, task: SampleTask) -> tuple[tuple[NDArray[np.bool_], Floats | None], ...]:
    """Return for the groups of `_sizes` who may be in it (D,), and (D,) the value that is to be small (any:
    None)."""
    rank, copied = numbers.rank, numbers.selectable & numbers.copied
    dropped = numbers.selectable & ~numbers.copied
    edges = np.array(task.cutoffs) if task.cutoffs else np.full(len(task.domains), np.nan)
    edge = np.repeat(edges, np.diff(numbers.ends))
    distance = np.abs(rank - edge)
    lowest, spread = _extremes(numbers.norms)
    return (
        (copied, rank),
        (copied, None),
        (numbers.selectable & (rank <= edge), distance),
        (numbers.selectable & (rank > edge), distance),
        (dropped, None),
        (dropped, lowest),
        (numbers.selectable & (spread > 0), -spread),
    )


def _extremes(norms: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return (D,) the best normalised score of each document, and best-to-worst spread of its criteria."""
    low = np.fmin.reduce(norms, axis=0).astype(np.float64)
    high = np.fmax.reduce(norms, axis=0).astype(np.float64)
    return np.where(np.isnan(low), np.inf, low), np.where(np.isnan(low), 0.0, high - low)


def _first(domain: NDArray[np.int16], value: Floats, luck: Floats, n: int) -> Ints:
    """Return up to n places with the smallest `value`, one of each domain before any second."""
    order = np.lexsort((luck, value, domain))
    turn = np.arange(len(order))
    starts = np.flatnonzero(np.concatenate(([True], np.diff(domain[order]) != 0))[: len(order)])
    turn -= np.repeat(starts, np.diff(np.append(starts, len(order))))
    return order[np.lexsort((luck[order], value[order], turn))][:n].astype(np.int64)


def wanted_rows(chosen: pa.Table) -> dict[int, tuple[int, ...]]:
    """Return which documents of which split are samples: split -> rows, ascending."""
    found: dict[int, set[int]] = {}
    for split, row in zip(chosen["split"].to_pylist(), chosen["row"].to_pylist(), strict=True):
        found.setdefault(split, set()).add(row)
    return {split: tuple(sorted(rows)) for split, rows in found.items()}


def shown_columns(criteria: Sequence[str]) -> list[tuple[str, pa.DataType]]:
    """Return the columns of a part of the selection that samples show. NaN becomes null."""
    scores = [(f"{kind}:{name}", pa.float32()) for kind in ("score", "norm") for name in criteria]
    ends = [(name, pa.float64()) for name in ("merged", "rank_low", "rank_high", "expected")]
    return [
        ("doc_id", pa.string()), ("domain", pa.string()), ("tokens", pa.int32()), *scores, *ends,
        ("copies", pa.int32()),
    ]  # fmt: skip


def samples_table(
    chosen: pa.Table, documents: Mapping[tuple[int, int], Mapping[str, Any]], criteria: Sequence[str]
) -> pa.Table:
    """Return samples.parquet: one row per stratum and document.

    documents: (split, row) -> `shown_columns`, and `text` unless nothing was read. A choice that an earlier
    version has kept has no DRAW, and neither has its table.
    """
    places = zip(chosen["split"].to_pylist(), chosen["row"].to_pylist(), strict=True)
    rows = [documents[place] for place in places]
    columns = {"stratum": chosen["stratum"]}
    for name, kind in (*shown_columns(criteria), ("text", pa.string())):
        columns[name] = pa.array([row.get(name) for row in rows], kind)
    columns |= {name: chosen[name] for name in DRAW if name in chosen.column_names}
    return pa.table(columns)
