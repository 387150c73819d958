"""What is done with one shard on the way from annotations to copies; every function is a pass over one part.

In: an annotation part and the small files of `work/` that all passes share. Out: counts that add up over
parts (returned), numbers per document (in `work/`, one file per part), and at last the part of the selection.
A pass holds one part in memory; the text of documents is never read.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.survey import EXCLUDED_REASONS, SELECTABLE, PartTask, load_part
from quadmix.io.atomic import file_digest, map_array, read_value, write_array, write_json
from quadmix.io.faults import fault_point
from quadmix.materialise.ranks import read_ranks
from quadmix.materialise.table import (
    SELECTION,
    SelectedSplit,
    SelectionInfo,
    part_name,
    write_part,
)
from quadmix.mixing.curve import mean_copies
from quadmix.mixing.merge import merge_scores
from quadmix.mixing.normalise import Normaliser, normalise
from quadmix.mixing.rank import RankMode
from quadmix.mixing.settle import Fractions, Window, count_fractions, drawn, inside, ratios
from quadmix.mixing.sketch import Sketch, sketch
from quadmix.mixing.tally import (
    BinTally,
    DomainTally,
    RankTable,
    by_domain,
    lookup_bins,
    ranks_at,
    tally,
    tally_bins,
)
from quadmix.types import Floats, Ints, Ranks, Selection, Theta

PLAN = "plan.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SelectPlan:
    """What all passes share. rough: domains with too many documents for one bin per score. key: digest of all
    that the selection depends on."""

    key: str
    theta: Theta
    normaliser: Normaliser
    seed: int
    rank_mode: RankMode
    rough: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SelectTask:
    """One part, and where the shared files lie. key: of the plan, so that no other plan is taken for it."""

    part: PartTask
    run_folder: str
    work: str
    key: str

    def file(self, name: str) -> Path:
        """Return the file of one kind of number for this part."""
        return Path(self.work) / f"{name}-{self.part.split:05d}.npy"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Merged:
    """What merging one part gave. tallies: of domains with a bin per score. ranges: (least, greatest) merged
    score of each rough domain."""

    tallies: dict[int, DomainTally]
    ranges: dict[int, tuple[float, float]]


def row_type(criteria: int) -> np.dtype[Any]:
    """Return the layout of what is kept of every selectable document between the passes."""
    return np.dtype(
        [("key", "u8"), ("merged", "f8"), ("tokens", "i4"), ("domain", "i2"), ("norms", "f4", (criteria,))]
    )


def merge_split(task: SelectTask) -> Merged:
    """Normalise and merge the scores of one part (Eq. 1), keep the numbers, and count them."""
    plan, part = read_plan(task.work, task.key), load_part(task.part, ids=False)
    table = part.table.take(part.excluded == SELECTABLE)
    rows = np.empty(len(table), dtype=row_type(len(table.criteria)))
    rows["norms"] = normalise(plan.normaliser, table.scores, table.domain)
    rows["merged"] = merge_scores(rows["norms"], plan.theta.weights, table.domain)
    rows["key"], rows["tokens"], rows["domain"] = table.keys, table.tokens, table.domain
    write_array(task.file("merged"), rows, durable=False)
    fault_point("select.merged")
    tallies: dict[int, DomainTally] = {}
    ranges: dict[int, tuple[float, float]] = {}
    for m, mine in by_domain(table.domain):
        merged = rows["merged"][mine]
        if m in plan.rough:
            ranges[m] = (float(merged.min()), float(merged.max()))
        else:
            tallies[m] = tally(merged, table.tokens[mine])
    return Merged(tallies=tallies, ranges=ranges)


def sketch_split(task: PartTask, coarse: bool) -> Sketch:
    """Count the scores of one part's selectable documents, for the normaliser."""
    part = load_part(task, ids=False)
    return sketch(part.table.take(part.excluded == SELECTABLE), coarse=coarse)


def edges_file(work: str, domain: int) -> Path:
    """Return where the edges of a domain's bins lie: larger than what should travel with every task."""
    return Path(work) / f"edges-{domain:05d}.npy"


def count_split(task: SelectTask, domains: tuple[int, ...]) -> dict[int, BinTally]:
    """Count the merged scores of one part in the bins of some domains."""
    rows = map_array(task.file("merged"))
    return {
        m: tally_bins(rows["merged"][mine], rows["tokens"][mine], map_array(edges_file(task.work, m)))
        for m, mine in by_domain(np.asarray(rows["domain"]))
        if m in domains
    }


def expect_split(task: SelectTask) -> list[Fractions]:
    """Give every document of one part its rank and expected copies (Eq. 2, 3); return what is to be drawn."""
    plan, rows = read_plan(task.work, task.key), map_array(task.file("merged"))
    domain = np.asarray(rows["domain"])
    bins = np.zeros(len(rows), dtype=np.int32)
    if plan.rank_mode != "hash-tiebreak":
        bins = lookup_bins(_read_ranks(task.run_folder, task.key), np.asarray(rows["merged"]), domain)
    expected = mean_copies(ranks_of(task, plan, bins, domain), plan.theta, domain)
    found = np.empty(len(rows), dtype=[("expected", "f8"), ("bin", "i4")])
    found["expected"], found["bin"] = expected, bins
    write_array(task.file("expected"), found, durable=False)
    return count_fractions(
        expected,
        np.asarray(rows["key"]),
        np.asarray(rows["tokens"]),
        domain,
        num_domains=plan.theta.num_domains,
        seed=plan.seed,
    )


def ranks_of(task: SelectTask, plan: SelectPlan, bins: NDArray[np.int32], domain: NDArray[np.int16]) -> Ranks:
    """Return the ranks of one part; they lie in files of their own where ties were ordered by hash."""
    if plan.rank_mode == "hash-tiebreak":
        high = np.asarray(map_array(task.file("ranks")))
        return Ranks(low=high, high=high)
    table = _read_ranks(task.run_folder, task.key)
    return ranks_at(table, bins, domain, literal=plan.rank_mode == "paper")


def gather_split(task: SelectTask, windows: tuple[Window | None, ...]) -> list[tuple[Floats, Ints]]:
    """Return the documents of one part in the window of each domain, as (ratio, tokens)."""
    plan, rows = read_plan(task.work, task.key), map_array(task.file("merged"))
    expected = np.asarray(map_array(task.file("expected"))["expected"])
    _, ratio = ratios(expected, np.asarray(rows["key"]), seed=plan.seed)
    empty = (np.empty(0), np.empty(0, dtype=np.int64))
    found = [empty] * len(windows)
    for m, mine in by_domain(np.asarray(rows["domain"])):
        if (here := windows[m]) is not None:
            found[m] = inside(here, ratio[mine], rows["tokens"][mine])
    return found


def select_split(task: SelectTask, info: SelectionInfo) -> SelectedSplit:
    """Draw the copies of one part and commit its part of the selection; a part that is done is left."""
    path = Path(task.run_folder) / SELECTION / part_name(task.part.split)
    record = Path(task.work) / f"selected-{task.part.split:05d}.json"
    if record.is_file() and path.is_file():
        done = read_value(record, SelectedSplit)
        if file_digest(path) == done.digest:
            return done
    plan, part = read_plan(task.work, task.key), load_part(task.part)
    rows, found = map_array(task.file("merged")), map_array(task.file("expected"))
    domain, expected = np.asarray(rows["domain"]), np.ascontiguousarray(found["expected"])
    factor = np.array(info.factors)[domain]
    selection = Selection(
        normalised=np.asarray(rows["norms"]),
        merged=np.asarray(rows["merged"]),
        ranks=ranks_of(task, plan, np.asarray(found["bin"]), domain),
        expected=expected,
        copies=drawn(expected, np.asarray(rows["key"]), factor, seed=plan.seed),
    )
    selected = write_part(
        task.run_folder,
        part.table,
        info=info,
        split=task.part.split,
        excluded=part.excluded,
        reasons=EXCLUDED_REASONS[1:],
        selection=selection,
    )
    fault_point("select.part")
    write_json(record, selected)
    return selected


@lru_cache(maxsize=2)
def read_plan(work: str, key: str) -> SelectPlan:
    """Return the plan of the passes; `key` makes another plan in the same folder another entry."""
    return read_value(Path(work) / PLAN, SelectPlan)


@lru_cache(maxsize=2)
def _read_ranks(run_folder: str, key: str) -> RankTable:
    return read_ranks(run_folder)
