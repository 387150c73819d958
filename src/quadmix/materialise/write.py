"""θ* -> dataset on disk: shuffled shards, samples, data card, and last of all the manifest.

In: the frozen corpus, selection.parquet, the recipe's `materialise` section. Out: dataset/ and a
`DatasetManifest`. The order is the clock of `order.py`: a global shuffle by seed and document id, so the
files are the same for any number of workers and any order of the input files (promise P7).

Two phases, both resumable: `spill` reads the text once, `parts` merges and sorts one shard at a time.
Compute is at-least-once, committed output exactly-once (promise P13): every spill, split record, shard
and shard record is whole or absent, and the dataset counts only once the manifest is there (P3).
"""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quadmix.corpus.read import schema_of
from quadmix.errors import IdentityError, IntegrityError
from quadmix.io.atomic import read_value, write_array, write_json, write_table
from quadmix.io.faults import fault_point
from quadmix.materialise.card import write_card
from quadmix.materialise.ledger import check_ledger, domain_tokens, make_ledger, manifest_digest
from quadmix.materialise.order import output_order
from quadmix.materialise.parts import PartTask, SpillGroup, write_part
from quadmix.materialise.plan import DatasetPlan, disk_room, make_plan, output_schema
from quadmix.materialise.sample import choose_samples, samples_table
from quadmix.materialise.spill import POSITIONS, SpilledSplit, SpillTask, spill_split
from quadmix.materialise.table import SelectionTable, read_selection
from quadmix.recipe import MaterialiseSection
from quadmix.types import Corpus, DatasetManifest, Ints, ShardInfo

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
DATASET = "dataset"
MANIFEST = "manifest.json"
SPILLS = "spills"
SAMPLES = "samples.parquet"


def materialise(
    corpus: Corpus,
    run_folder: str | Path,
    *,
    section: MaterialiseSection,
    seed: int,
    budget: int,
    identity: str,
    theta_label: str,
    mapper: Mapper,
) -> DatasetManifest:
    """Write the dataset that selection.parquet of `run_folder` describes and return its manifest.

    mapper: (function, tasks) -> results in task order; it decides where the work runs. budget: tokens
    asked for, copies counted. The same call after a crash, at whatever moment, gives the same bytes.
    """
    folder = Path(run_folder)
    table = read_selection(folder)
    ledger = make_ledger(corpus, table)
    output_schema(schema_of(corpus), [c.name for c in table.info.criteria])
    plan = make_plan(corpus, folder, table, section, seed)
    if (done := _finished(folder, plan)) is not None:
        shutil.rmtree(folder / SPILLS, ignore_errors=True)
        return done
    with disk_room(folder, 2 * plan.text_bytes):
        spilled, shards = _phases(corpus, folder, plan, (table, seed), mapper)
        manifest = DatasetManifest(
            format=plan.format,
            shards=tuple(shards),
            ledger=ledger,
            domains=domain_tokens(table),
            token_budget=budget,
            identity=identity,
            theta_label=theta_label,
            seed=seed,
            digest="",
            plan=plan.key,
        )
        manifest = dataclasses.replace(manifest, digest=manifest_digest(manifest))
        _check_written(manifest, spilled)
        write_card(folder, manifest, table)
        fault_point("materialise.before_manifest")
        write_json(folder / DATASET / MANIFEST, manifest)
    fault_point("materialise.after_manifest")
    shutil.rmtree(folder / SPILLS, ignore_errors=True)
    return manifest


def _finished(folder: Path, plan: DatasetPlan) -> DatasetManifest | None:
    """Return the manifest if this very dataset is complete already; refuse to replace another one."""
    path = folder / DATASET / MANIFEST
    if not path.is_file():
        return None
    manifest = read_value(path, DatasetManifest)
    if manifest.plan != plan.key:
        raise IdentityError(
            f"{path.parent} holds a dataset of another selection, format, shard size or seed "
            f"(plan {manifest.plan[:12]}, expected {plan.key[:12]}); remove that folder or name another run"
        )
    for shard in manifest.shards:
        file = path.parent / shard.name
        if not file.is_file() or file.stat().st_size != shard.bytes:
            raise IntegrityError(
                f"{file} is missing or was changed after it was committed (expected {shard.bytes:,} bytes); "
                f"remove {path} and run the same command again"
            )
    return manifest


def _phases(
    corpus: Corpus, folder: Path, plan: DatasetPlan, chosen: tuple[SelectionTable, int], mapper: Mapper
) -> tuple[list[SpilledSplit], list[ShardInfo]]:
    """Spill every split, write every shard, and the samples met on the way."""
    table, seed = chosen
    spills = folder / SPILLS / plan.key[:16]
    _sweep(folder, spills)
    samples = choose_samples(table, seed=seed)
    write_array(spills / POSITIONS, output_order(table.keys, table.copies, seed=seed).position)
    spilled: list[SpilledSplit] = mapper(spill_split, _spill_tasks(corpus, spills, plan, table, samples))
    shards: list[ShardInfo] = mapper(write_part, _part_tasks(folder, spills, plan, spilled))
    texts = {int(row): text for split in spilled for row, text in split.samples.items()}
    write_table(folder / SAMPLES, samples_table(table, samples, texts))
    return spilled, shards


def _sweep(folder: Path, spills: Path) -> None:
    """Remove what a killed process of this tool left: its temporary files, and spills of another plan."""
    for stale in (folder / DATASET).glob(".tmp-*"):
        stale.unlink()
    for other in (folder / SPILLS).glob("*"):
        if other != spills:
            shutil.rmtree(other)
    for stale in spills.glob(".tmp-*"):
        stale.unlink()


def _spill_tasks(
    corpus: Corpus, spills: Path, plan: DatasetPlan, table: SelectionTable, samples: dict[str, Ints]
) -> list[SpillTask]:
    shown = np.unique(np.concatenate(list(samples.values())))
    first_copy = np.concatenate(([0], np.cumsum(table.copies, dtype=np.int64)))
    starts = np.searchsorted(table.split, [s.index for s in corpus.splits], side="left").tolist()
    stops = np.searchsorted(table.split, [s.index for s in corpus.splits], side="right").tolist()
    return [
        SpillTask(
            corpus=corpus,
            split=split,
            run_folder=str(spills.parent.parent),
            folder=str(spills),
            plan=plan,
            start=start,
            stop=stop,
            first_copy=int(first_copy[start]),
            samples=tuple(shown[(shown >= start) & (shown < stop)].tolist()),
        )
        for split, start, stop in zip(corpus.splits, starts, stops, strict=True)
    ]


def _part_tasks(folder: Path, spills: Path, plan: DatasetPlan, spilled: list[SpilledSplit]) -> list[PartTask]:
    sources: list[list[SpillGroup]] = [[] for _ in range(plan.shards)]
    for split in spilled:
        for file in split.files:
            for group, shard in enumerate(file.shards):
                sources[shard].append(SpillGroup(name=file.name, group=group))
    return [
        PartTask(
            plan=plan, shard=k, folder=str(spills), dataset=str(folder / DATASET), sources=tuple(sources[k])
        )
        for k in range(plan.shards)
    ]


def _check_written(manifest: DatasetManifest, spilled: Sequence[SpilledSplit]) -> None:
    """Compare three counts that were made independently: the table's, the spills', the shards' (P4)."""
    ledger = manifest.ledger
    check_ledger(ledger)
    found = {
        "documents spilled": (sum(s.selected for s in spilled), ledger.selected),
        "copies spilled": (sum(s.copies for s in spilled), ledger.copies),
        "tokens spilled": (sum(s.tokens for s in spilled), ledger.tokens_out),
        "rows written": (sum(s.rows for s in manifest.shards), ledger.copies),
        "tokens written": (sum(s.tokens for s in manifest.shards), ledger.tokens_out),
        "tokens of the domains": (sum(d.tokens_out for d in manifest.domains), ledger.tokens_out),
    }
    for what, (got, expected) in found.items():
        if got != expected:
            raise IntegrityError(
                f"{what}: {got}, expected {expected} by the selection; the manifest was not written"
            )
