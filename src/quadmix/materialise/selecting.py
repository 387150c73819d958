"""θ and the annotations of a corpus of any size -> selection/: ranks, expected copies, copies per document.

In: the surveyed annotation parts, a frozen normaliser, a θ that meets the budget. Out: in selection/ the
`part-*.parquet`, `ranks.parquet` and, last, `manifest.json`. Every step is a pass over parts (`passes.py`)
that an executor maps, and a small reduction here, so memory is that of a few parts and of the bins:

1. merge: normalised and merged scores (Eq. 1), counted by score; domains that are too large for one bin per
   score are counted once or twice more in bins (`mixing.tally`);
2. expect: ranks and expected copies (Eq. 2, 3), what fractions are to be drawn; and the few documents among
   which the last one to be drawn is found (`mixing.settle`);
3. select: copies, written.

On a table that fits into memory the result is that of `mixing.select` to the last bit, which proxies use.
"""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from quadmix.annotate.survey import frame_facts
from quadmix.annotate.table import Surveyed
from quadmix.errors import BudgetError
from quadmix.io.atomic import map_array, sweep, value_digest, write_array, write_json
from quadmix.io.faults import fault_point
from quadmix.materialise.passes import (
    PLAN,
    Merged,
    SelectPlan,
    SelectTask,
    count_split,
    edges_file,
    expect_split,
    gather_split,
    merge_split,
    select_split,
    sketch_split,
)
from quadmix.materialise.ranks import write_ranks
from quadmix.materialise.table import (
    MANIFEST,
    SELECTION,
    SelectionInfo,
    SelectionManifest,
    read_manifest,
    write_manifest,
)
from quadmix.mixing.normalise import Kind, Normaliser, freeze
from quadmix.mixing.rank import RankMode, rank_within_domain
from quadmix.mixing.settle import BINS, Fractions, Window, factor_of, window
from quadmix.mixing.sketch import Sketch, merge_sketches
from quadmix.mixing.tally import (
    DomainTally,
    add_bins,
    closed_bins,
    finer_edges,
    first_edges,
    merge_tallies,
    open_bins,
    rank_table,
)
from quadmix.types import Floats, Ints, Theta

EXACT_DOCUMENTS = 4_000_000
VERSION = 1
_WORK = ".work"
_MOST_DIVISIONS = 60
_SKETCHES = 16  # merged at once: often enough to bound memory, seldom enough to bound sorting
_TALLIES = 16  # the same, of one domain


class Runner(Protocol):
    """Where passes run: results in task order, or each to `fold(index, result)` and none kept."""

    def __call__(
        self,
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        /,
        *,
        fold: Callable[[int, Any], None] | None = None,
    ) -> list[Any]: ...


def run_here(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    /,
    *,
    fold: Callable[[int, Any], None] | None = None,
) -> list[Any]:
    """Run all tasks here, one after the other."""
    if fold is None:
        return [function(task) for task in tasks]
    for index, task in enumerate(tasks):
        fold(index, function(task))
    return []


def fit_corpus_normaliser(
    surveyed: Surveyed,
    kind: Kind = "rank-global",
    *,
    exact_documents: int = EXACT_DOCUMENTS,
    runner: Runner = run_here,
) -> Normaliser:
    """Fit σ on all selectable documents, part by part; in a coarse sketch above `exact_documents`."""
    held: list[Sketch] = []

    def take(_index: int, counted: Sketch) -> None:
        held.append(counted)
        if len(held) == _SKETCHES:
            held[:] = [merge_sketches(held)]

    coarse = float(surveyed.open_documents.sum()) > exact_documents
    runner(partial(sketch_split, coarse=coarse), surveyed.tasks, fold=take)
    return freeze(merge_sketches(held), kind)


def select_corpus(
    run_folder: str | Path,
    surveyed: Surveyed,
    theta: Theta,
    normaliser: Normaliser,
    *,
    seed: int,
    rank_mode: RankMode = "interval",
    exact_documents: int = EXACT_DOCUMENTS,
    runner: Runner = run_here,
) -> SelectionManifest:
    """Select from all annotated documents; the same call after a crash goes on, a finished one is read.

    theta: calibrated to the budget. exact_documents: so many documents, in the smallest domains first, are
    ranked by their exact scores (24 bytes of memory each); the others with an error of at most 1e-4.
    Raises BudgetError if no document may be selected, or rank mode "hash-tiebreak" meets larger domains.
    """
    folder = Path(run_folder)
    if not surveyed.open_documents.sum():
        raise BudgetError(
            "no document may be selected (all are held out, lack scores, or overlap a target or benchmark); "
            "see annotate.missing, annotate.exclude_overlap and evaluate.holdout"
        )
    plan = _plan(surveyed, theta, normaliser, seed, rank_mode, exact_documents)
    if (folder / SELECTION / MANIFEST).is_file() and read_manifest(folder).info.key == plan.key:
        shutil.rmtree(folder / SELECTION / _WORK, ignore_errors=True)
        return read_manifest(folder)
    work = folder / SELECTION / _WORK / plan.key[:16]
    _clear(folder / SELECTION, work)
    write_json(work / PLAN, plan)
    tasks = [
        SelectTask(part=task, run_folder=str(folder), work=str(work), key=plan.key) for task in surveyed.tasks
    ]
    info = _settled(plan, surveyed, tasks, runner)
    parts = runner(partial(select_split, info=info), tasks)
    sweep(folder / SELECTION)  # of workers that were killed in the middle of a part
    fault_point("select.before_manifest")
    manifest = write_manifest(folder, info, parts)
    shutil.rmtree(folder / SELECTION / _WORK, ignore_errors=True)
    return manifest


def _plan(
    surveyed: Surveyed,
    theta: Theta,
    normaliser: Normaliser,
    seed: int,
    rank_mode: RankMode,
    exact_documents: int,
) -> SelectPlan:
    rough = rough_domains(surveyed.open_documents, exact_documents)
    if rough and rank_mode == "hash-tiebreak":
        raise BudgetError(
            f"mixing.rank_mode is hash-tiebreak, which sorts all documents of a domain; "
            f"{int(surveyed.open_documents.sum()):,} are more than mixing.exact_documents = "
            f"{exact_documents:,}: use rank_mode interval, or raise exact_documents (24 bytes each)"
        )
    asked = [VERSION, theta, frame_facts(surveyed.frame), surveyed.digest, normaliser, seed, rank_mode, rough]
    return SelectPlan(
        key=value_digest(asked),
        theta=theta,
        normaliser=normaliser,
        seed=seed,
        rank_mode=rank_mode,
        rough=rough,
    )


def rough_domains(documents: Floats, exact_documents: int) -> tuple[int, ...]:
    """Return the domains counted in bins: all but the smallest that hold `exact_documents` in sum."""
    order = np.argsort(documents, kind="stable")
    over = np.cumsum(documents[order]) > exact_documents
    return tuple(sorted(int(m) for m in order[over] if documents[m] > 0))


def _clear(selection: Path, work: Path) -> None:
    """Remove the work of another selection, and its manifest, which must not stand over new parts."""
    (selection / MANIFEST).unlink(missing_ok=True)
    for other in (selection / _WORK).glob("*"):
        if other != work:
            shutil.rmtree(other)


def _settled(
    plan: SelectPlan, surveyed: Surveyed, tasks: Sequence[SelectTask], runner: Runner
) -> SelectionInfo:
    """Return what all parts have in common, with the factor of each domain.

    It is found anew after a crash: the files between the passes are not synced to disk, and not trusted.
    """
    tallies = _count(plan, surveyed, tasks, runner)
    write_ranks(tasks[0].run_folder, rank_table(tallies), surveyed.frame.domains)
    if plan.rank_mode == "hash-tiebreak":
        _rank_by_hash(tasks)
    return SelectionInfo(
        criteria=surveyed.frame.criteria,
        domains=surveyed.frame.domains,
        seed=plan.seed,
        rank_mode=plan.rank_mode,
        key=plan.key,
        factors=_factors(len(surveyed.frame.domains), tasks, runner),
    )


def _count(
    plan: SelectPlan, surveyed: Surveyed, tasks: Sequence[SelectTask], runner: Runner
) -> list[DomainTally]:
    """Return the tally of every domain."""
    found: list[list[DomainTally]] = [[] for _ in surveyed.frame.domains]
    low: dict[int, float] = {}
    high: dict[int, float] = {}

    def take(_index: int, merged: Merged) -> None:
        for m, counted in merged.tallies.items():
            found[m].append(counted)
            if len(found[m]) == _TALLIES:
                found[m] = [merge_tallies(found[m])]
        for m, (least, most) in merged.ranges.items():
            low[m], high[m] = min(low.get(m, least), least), max(high.get(m, most), most)

    runner(merge_split, tasks, fold=take)
    tallies = [merge_tallies(parts) for parts in found]
    edges = {m: first_edges(low[m], high[m]) for m in low}
    for _ in range(_MOST_DIVISIONS):
        if not edges:
            break
        finer: dict[int, Floats] = {}
        for m, counted in _count_bins(edges, tasks, runner).items():
            tallies[m] = counted
            if (more := finer_edges(counted, edges[m])) is not None:
                finer[m] = more
        edges = finer
    return tallies


def _count_bins(
    edges: dict[int, Floats], tasks: Sequence[SelectTask], runner: Runner
) -> dict[int, DomainTally]:
    totals = {m: open_bins(e) for m, e in edges.items()}
    for m, cuts in edges.items():
        write_array(edges_file(tasks[0].work, m), cuts, durable=False)

    def take(_index: int, counted: dict[int, Any]) -> None:
        for m, part in counted.items():
            add_bins(totals[m], part)

    runner(partial(count_split, domains=tuple(edges)), tasks, fold=take)
    return {m: closed_bins(total) for m, total in totals.items()}


def _factors(domains: int, tasks: Sequence[SelectTask], runner: Runner) -> tuple[float, ...]:
    """Return (M,) the factors by which the drawn tokens meet the expected ones."""
    total = np.zeros((domains, BINS), dtype=np.int64)
    wanted = [0] * domains

    def take(_index: int, fractions: list[Fractions]) -> None:
        for m, part in enumerate(fractions):
            total[m, part.bins] += part.tokens
            wanted[m] += part.wanted

    runner(expect_split, tasks, fold=take)
    windows = [window(total[m], wanted[m]) for m in range(domains)]
    found: list[dict[int, tuple[Floats, Ints]]] = [{} for _ in range(domains)]

    def gather(index: int, parts: list[tuple[Floats, Ints]]) -> None:
        for m, part in enumerate(parts):
            if len(part[0]):
                found[m][index] = part

    runner(partial(gather_split, windows=tuple(windows)), tasks, fold=gather)
    return tuple(_factor(here, found[m]) for m, here in enumerate(windows))


def _factor(here: Window | None, found: dict[int, tuple[Floats, Ints]]) -> float:
    parts = [found[index] for index in sorted(found)]
    if not parts:
        return factor_of(here, np.empty(0), np.empty(0, dtype=np.int64))
    return factor_of(here, np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))


def _rank_by_hash(tasks: Sequence[SelectTask]) -> None:
    """Rank all documents in memory, ties by hash, and keep the ranks beside each part."""
    rows = [np.asarray(map_array(task.file("merged"))) for task in tasks]
    whole = np.concatenate([r[["key", "merged", "tokens", "domain"]] for r in rows])
    ranks = rank_within_domain(
        np.ascontiguousarray(whole["merged"]),
        np.ascontiguousarray(whole["tokens"]),
        np.ascontiguousarray(whole["domain"]),
        mode="hash-tiebreak",
        keys=np.ascontiguousarray(whole["key"]),
    )
    ends = np.cumsum([len(r) for r in rows])
    for task, high in zip(tasks, np.split(ranks.high, ends[:-1]), strict=True):
        write_array(task.file("ranks"), high, durable=False)
