"""θ* -> dataset on disk: its files, samples, data card, and last of all the manifest.

In: the frozen corpus, selection/, the recipe's `materialise` section. Out: dataset/ and a `DatasetManifest`.

Shuffled (`spill`, then `parts`): a copy's place is a function of seed and document id, so the files are the
same for any number of workers and any order of the input files (promise P7). In the order of the corpus
(`straight`): one pass, one file per split. Nothing here holds more than counts: memory is that of one
batch, row group or shard per worker, whatever the size of the corpus.

Compute is at-least-once, committed output exactly-once (promise P13): every spill, split record, shard
and shard record is whole or absent, and the dataset counts only once the manifest is there (P3).
"""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from quadmix.corpus.read import schema_of
from quadmix.errors import IdentityError, IntegrityError
from quadmix.io.atomic import read_table, read_value, sweep, write_json, write_table
from quadmix.io.faults import fault_point
from quadmix.materialise.card import read_theta, write_card
from quadmix.materialise.chosen import SplitTask, WrittenSplit
from quadmix.materialise.facts import WITH_FACTS, write_facts
from quadmix.materialise.ledger import check_ledger, domain_tokens, make_ledger, manifest_digest
from quadmix.materialise.parts import PartTask, write_part
from quadmix.materialise.plan import DatasetPlan, disk_room, make_plan, output_schema
from quadmix.materialise.publish import is_published
from quadmix.materialise.sample import SAMPLES as SAMPLES_EACH
from quadmix.materialise.sample import choose_samples, samples_table, wanted_rows
from quadmix.materialise.spill import spill_split
from quadmix.materialise.straight import write_index, write_split
from quadmix.materialise.table import SelectionManifest, read_manifest
from quadmix.recipe import MaterialiseSection
from quadmix.types import Corpus, DatasetManifest, ShardInfo

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
    samples: int = SAMPLES_EACH,
) -> DatasetManifest:
    """Write the dataset that selection/ of `run_folder` describes and return its manifest.

    corpus: the one in `run_folder`. mapper: (function, tasks) -> results in task order; it decides where the
    work runs. budget: tokens asked for, copies counted. samples: documents kept of each stratum for the
    report. The same call after a crash, at whatever moment, gives the same bytes.
    """
    folder = Path(run_folder)
    selection = read_manifest(folder)
    ledger = make_ledger(corpus, selection)
    if section.format != "index":
        output_schema(schema_of(corpus), [c.name for c in selection.info.criteria])
    plan = make_plan(corpus, selection, section, seed)
    if (done := _finished(folder, plan)) is not None:
        shutil.rmtree(folder / SPILLS, ignore_errors=True)
        return done
    with disk_room(folder, (2 if plan.order == "shuffled" else 1) * plan.text_bytes):
        written, shards = _write(corpus, folder, plan, selection, samples=samples, mapper=mapper)
        manifest = DatasetManifest(
            format=plan.format,
            shards=tuple(shards),
            ledger=ledger,
            domains=domain_tokens(selection),
            token_budget=budget,
            identity=identity,
            theta_label=theta_label,
            seed=seed,
            digest="",
            plan=plan.key,
            order=plan.order,
            codec=plan.codec,
            version=WITH_FACTS,
        )
        manifest = dataclasses.replace(manifest, digest=manifest_digest(manifest))
        _check_written(manifest, written)
        _drop_strays(folder, manifest)
        write_facts(folder, _work(folder, plan), corpus, selection, manifest, mapper)
        write_card(folder, manifest, selection.info)
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
            f"{path.parent} holds a dataset of another selection, format, order, shard size or seed "
            f"(plan {manifest.plan[:12]}, expected {plan.key[:12]}); remove that folder or name another run"
        )
    for shard in manifest.shards:
        file = path.parent / shard.name
        if not file.is_file() and is_published(folder, shard):
            continue  # materialise.keep_local: false
        if not file.is_file() or file.stat().st_size != shard.bytes:
            raise IntegrityError(
                f"{file} is missing or was changed after it was committed (expected {shard.bytes:,} bytes); "
                f"remove {path} and run the same command again"
            )
    return manifest


def _write(
    corpus: Corpus,
    folder: Path,
    plan: DatasetPlan,
    selection: SelectionManifest,
    *,
    samples: int,
    mapper: Mapper,
) -> tuple[list[WrittenSplit], list[ShardInfo]]:
    """Write every file of the dataset, and the samples met on the way."""
    work = _work(folder, plan)
    _sweep(folder, work)
    chosen = _samples(folder, work, plan, selection, samples=samples, mapper=mapper)
    tasks = _split_tasks(corpus, folder, work, plan, selection, chosen)
    if plan.order == "shuffled":
        written: list[WrittenSplit] = mapper(spill_split, tasks)
        shards: list[ShardInfo] = mapper(
            write_part, _part_tasks(corpus, folder, work, plan, selection, len(tasks))
        )
    else:
        written = mapper(write_index if plan.format == "index" else write_split, tasks)
        shards = [w.shard for w in written if w.shard is not None]
    shown = {(w.split, int(row)): sample for w in written for row, sample in w.samples.items()}
    criteria = [c.name for c in selection.info.criteria]
    write_table(folder / SAMPLES, samples_table(chosen, shown, criteria))
    return written, shards


def _work(folder: Path, plan: DatasetPlan) -> Path:
    return folder / SPILLS / plan.key[:16]


def _sweep(folder: Path, work: Path) -> None:
    """Remove what a killed process of this tool left: its temporary files, and the work of another plan."""
    sweep(folder / DATASET)
    sweep(folder, SAMPLES)
    for other in (folder / SPILLS).glob("*"):
        if other != work:
            shutil.rmtree(other)
    sweep(work)


def _drop_strays(folder: Path, manifest: DatasetManifest) -> None:
    """Remove parts of another plan that was never finished (readers may take all of part-*), and what workers
    left that were killed in the middle of a part."""
    sweep(folder / DATASET)
    known = {s.name for s in manifest.shards}
    for path in (folder / DATASET).glob("part-[0-9]*.*"):
        if path.name not in known:
            path.unlink()


def _samples(
    folder: Path,
    work: Path,
    plan: DatasetPlan,
    selection: SelectionManifest,
    *,
    samples: int,
    mapper: Mapper,
) -> pa.Table:
    """Return which documents are samples; they are chosen once, and kept with the work."""
    path = work / f"{samples}-{SAMPLES}"
    if not path.is_file():
        theta = read_theta(folder)
        fits = theta is not None and len(theta.cutoff) == len(selection.info.domains)
        cutoffs = theta.cutoff if theta is not None and fits else None
        chosen = choose_samples(str(folder), selection, cutoffs, seed=plan.seed, mapper=mapper, n=samples)
        write_table(path, chosen)
    return read_table(path)


def _split_tasks(
    corpus: Corpus,
    folder: Path,
    work: Path,
    plan: DatasetPlan,
    selection: SelectionManifest,
    chosen: pa.Table,
) -> list[SplitTask]:
    """Return a task for every split that gives a row or a sample, or has sources or languages to count."""
    shown = wanted_rows(chosen)
    columns = corpus.columns
    counted = plan.format != "index" and (columns.source or columns.language)
    return [
        SplitTask(
            run_folder=str(folder),
            work=str(work),
            plan=plan,
            corpus=corpus.digest,
            split=part.split,
            part=part.digest,
            columns=columns,
            samples=shown.get(part.split, ()),
        )
        for part in selection.parts
        if part.copies or part.split in shown or (counted and part.documents)
    ]


def _part_tasks(
    corpus: Corpus, folder: Path, work: Path, plan: DatasetPlan, selection: SelectionManifest, splits: int
) -> list[PartTask]:
    return [
        PartTask(
            run_folder=str(folder),
            work=str(work),
            plan=plan,
            corpus=corpus.digest,
            criteria=tuple(c.name for c in selection.info.criteria),
            splits=splits,
            shard=shard,
        )
        for shard in range(plan.shards)
    ]


def _check_written(manifest: DatasetManifest, written: Sequence[WrittenSplit]) -> None:
    """Compare three counts that were made independently: the selection's, the splits', the shards' (P4)."""
    ledger = manifest.ledger
    check_ledger(ledger)
    rows = ledger.selected if manifest.format == "index" else ledger.copies
    found = {
        "documents taken": (sum(w.selected for w in written), ledger.selected),
        "copies taken": (sum(w.copies for w in written), ledger.copies),
        "tokens taken": (sum(w.tokens for w in written), ledger.tokens_out),
        "rows written": (sum(s.rows for s in manifest.shards), rows),
        "tokens written": (sum(s.tokens for s in manifest.shards), ledger.tokens_out),
        "tokens of the domains": (sum(d.tokens_out for d in manifest.domains), ledger.tokens_out),
    }
    for what, (got, expected) in found.items():
        if got != expected:
            raise IntegrityError(
                f"{what}: {got}, expected {expected} by the selection; the manifest was not written"
            )
