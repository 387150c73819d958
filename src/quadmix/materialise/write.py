"""θ* -> dataset on disk: shuffled shards, samples, data card, and last of all the manifest.

In: the frozen corpus, selection.parquet, the recipe's `materialise` section. Out: dataset/ and a
`DatasetManifest`. The order is the clock of `order.py`: a global shuffle by seed and document id, so the
files are the same for any number of workers and any order of the input files (promise P7).

Two phases, both resumable: `spill` reads the text once, `parts` merges and sorts one shard at a time.
Compute is at-least-once, committed output exactly-once (promise P13): every spill, split record, shard
and shard record is whole or absent, and the dataset counts only once the manifest is there (P3).
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    spills = folder / SPILLS / plan.key[:16]
    if (done := _finished(folder, plan)) is not None:
        shutil.rmtree(folder / SPILLS, ignore_errors=True)
        return done
    chosen = choose_samples(table, seed=seed)
    with disk_room(folder, 2 * plan.text_bytes):
        _sweep(folder, spills)
        positions = output_order(table.keys, table.copies, seed=seed).position
        write_array(spills / POSITIONS, positions)
        tasks = _spill_tasks(corpus, folder, spills, plan, (table, chosen))
        spilled: list[SpilledSplit] = mapper(spill_split, tasks)
        shards: list[ShardInfo] = mapper(write_part, _part_tasks(folder, spills, plan, spilled))
        texts = {int(row): text for split in spilled for row, text in split.samples.items()}
        write_table(folder / SAMPLES, samples_table(table, chosen, texts))
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
        check_written(manifest, spilled)
        write_card(folder, manifest, table)
        fault_point("materialise.before_manifest")
        write_json(folder / DATASET / MANIFEST, manifest)
    fault_point("materialise.after_manifest")
    shutil.rmtree(folder / SPILLS, ignore_errors=True)
    return manifest
