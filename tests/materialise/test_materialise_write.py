"""The dataset on disk: right rows, untouched columns, the same bytes for every way of working."""

import dataclasses
import errno
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from materialise_run import THETA, Run, build_run, documents, serial, write_inputs

from quadmix.codec import from_json
from quadmix.errors import BudgetError, IdentityError, InputError, IntegrityError, QuadmixError
from quadmix.io.atomic import file_digest, read_json, write_json
from quadmix.io.store import Stored
from quadmix.io.tables import write_batches
from quadmix.materialise import parts
from quadmix.materialise.facts import FACTS
from quadmix.materialise.spill import spill_split
from quadmix.materialise.straight import write_split
from quadmix.materialise.table import read_selection
from quadmix.recipe import MaterialiseSection
from quadmix.types import DatasetManifest


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Read the dataset without the library."""
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "dataset").glob("part-*")):
        if path.suffix == ".parquet":
            rows += pq.read_table(path).to_pylist()
        else:
            data = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
            rows += [orjson.loads(line) for line in data.split(b"\n") if line]
    return rows


def part_digests(folder: Path) -> dict[str, str]:
    return {p.name: file_digest(p) for p in sorted((folder / "dataset").glob("part-*"))}


@pytest.mark.parametrize("format", ["parquet", "jsonl.zst"])
def test_every_copy_is_there_with_the_users_columns_untouched(run: Run, format: str):
    manifest = run.write(section=MaterialiseSection(format=format, shard_bytes=3000))  # pyright: ignore[reportArgumentType]
    table = read_selection(run.folder)
    rows = rows_of(run.folder)
    by_id = {d["id"]: d for d in run.docs}
    for row in rows:
        user = {k: v for k, v in row.items() if k != "quadmix"}
        assert user == by_id[row["id"]]
    found = sorted((r["id"], r["quadmix"]["copy_index"]) for r in rows)
    ids = table.doc_id.to_pylist()
    assert found == sorted((i, j) for i, c in zip(ids, table.copies, strict=True) for j in range(c))
    assert len(manifest.shards) > 3
    assert sum(s.rows for s in manifest.shards) == len(rows)
    assert max(s.rows for s in manifest.shards) < 2 * min(s.rows for s in manifest.shards)


def test_the_struct_carries_the_numbers_of_the_selection(run: Run):
    run.write()
    table = read_selection(run.folder)
    place = {d: i for i, d in enumerate(table.doc_id.to_pylist())}
    missing = 0
    for row in rows_of(run.folder):
        q, i = row["quadmix"], place[row["id"]]
        assert (q["doc_id"], q["domain"], q["copies"]) == (row["id"], row["label"], table.copies[i])
        assert q["tokens"] == len(row["text"]) // 4
        assert q["merged"] == table.merged[i]
        assert q["rank"] == (table.ranks.low[i] + table.ranks.high[i]) / 2
        assert q["expected_copies"] == table.expected[i]
        assert q["scores"]["noise"] == table.norms[i, 1]
        missing += row["edu"] is None
        assert (q["scores"]["edu"] is None) == (row["edu"] is None)
    assert missing > 0, "the fixture must select a document without a score"


def test_no_held_out_or_excluded_document_is_written(run: Run):
    run.write()
    written = {r["id"] for r in rows_of(run.folder)}
    table = read_selection(run.folder)
    kept_back = set(table.doc_id.filter(pa.array(~table.selectable)).to_pylist())
    assert len(kept_back) == 16
    assert not written & kept_back


def test_ledger_counts_every_row_of_the_input(run: Run):
    manifest = run.write()
    ledger = manifest.ledger
    assert ledger.rows_in == 151
    assert ledger.quarantined == {"invalid_json": 1}
    assert (ledger.dropped["held_out"], ledger.dropped["missing_score"]) == (15, 1)
    assert ledger.selected + sum(ledger.dropped.values()) + 1 == 151
    rows = rows_of(run.folder)
    assert ledger.copies == len(rows)
    assert ledger.tokens_out == sum(r["quadmix"]["tokens"] for r in rows)
    assert ledger.unique_tokens == sum(
        r["quadmix"]["tokens"] for r in rows if r["quadmix"]["copy_index"] == 0
    )
    assert {d.domain: d.tokens_out for d in manifest.domains} == {
        name: sum(r["quadmix"]["tokens"] for r in rows if r["label"] == name)
        for name in ("arts", "code", "law")
    }


def test_manifest_reads_back_and_spills_are_gone(run: Run):
    manifest = run.write()
    assert from_json(DatasetManifest, read_json(run.folder / "dataset" / "manifest.json")) == manifest
    assert not (run.folder / "spills").exists()
    assert not list(run.folder.rglob(".tmp-*"))


def shuffled(function: Any, tasks: Any) -> list[Any]:
    """Run tasks in another order, as workers do, twice each, as retries do."""
    places = list(range(len(tasks)))
    random.Random(3).shuffle(places)
    results: dict[int, Any] = {}
    for i in places + places[:2]:
        results[i] = function(tasks[i])
    return [results[i] for i in range(len(tasks))]


def test_task_order_and_retries_change_no_byte(run: Run, tmp_path: Path):
    first = run.write()
    other = build_run(tmp_path / "other", [f.path for f in run.corpus.files], run.docs)
    second = other.write(mapper=shuffled)
    assert part_digests(run.folder) == part_digests(other.folder)
    assert first.digest == second.digest


def test_split_size_and_file_order_change_no_byte(run: Run, tmp_path: Path):
    run.write()
    swapped = run.docs[70:] + run.docs[:70]
    inputs = write_inputs(tmp_path / "swapped", swapped)
    other = build_run(tmp_path / "other", inputs, swapped, split_bytes=900_000)
    other.write()
    assert len(other.corpus.splits) < len(run.corpus.splits)
    assert part_digests(run.folder) == part_digests(other.folder)


def test_another_seed_shuffles_and_holds_the_same_rows(run: Run, tmp_path: Path):
    run.write()
    other = build_run(tmp_path / "other", [f.path for f in run.corpus.files], run.docs)
    other.write(seed=8)
    one = [(r["id"], r["quadmix"]["copy_index"]) for r in rows_of(run.folder)]
    two = [(r["id"], r["quadmix"]["copy_index"]) for r in rows_of(other.folder)]
    assert one != two
    assert sorted(one) == sorted(two)


def test_small_spill_buffers_change_no_byte(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run.write()
    monkeypatch.setattr("quadmix.materialise.spill.SPILL_BYTES", 2000)
    monkeypatch.setattr("quadmix.materialise.chosen.MAX_PIECE_BYTES", 1)
    monkeypatch.setattr("quadmix.materialise.parts.CHUNK_BYTES", 1000)
    other = build_run(tmp_path / "other", [f.path for f in run.corpus.files], run.docs)
    other.write()
    assert part_digests(run.folder) == part_digests(other.folder)


def test_a_second_call_returns_the_manifest_and_another_request_is_refused(run: Run):
    first = run.write()
    stamp = (run.folder / "dataset" / "part-00000.parquet").stat().st_mtime_ns
    assert run.write() == first
    assert (run.folder / "dataset" / "part-00000.parquet").stat().st_mtime_ns == stamp
    with pytest.raises(IdentityError, match="remove that folder or name another run"):
        run.write(seed=99)


def test_a_shard_missing_behind_the_manifest_is_an_error(run: Run):
    run.write()
    (run.folder / "dataset" / "part-00001.parquet").unlink()
    with pytest.raises(IntegrityError, match=r"part-00001.parquet is missing or was changed"):
        run.write()


def test_one_document_one_shard(tmp_path: Path):
    theta = dataclasses.replace(THETA, cutoff=np.ones(3), floor=np.full(3, 2.0))
    docs = documents(12)
    run = build_run(tmp_path / "run", write_inputs(tmp_path / "in", docs), docs, theta=theta)
    manifest = run.write(section=MaterialiseSection())
    assert [s.name for s in manifest.shards] == ["part-00000.parquet"]
    assert manifest.ledger.copies == manifest.shards[0].rows > 20


def test_empty_selection_is_an_error(tmp_path: Path):
    theta = dataclasses.replace(THETA, scale=np.zeros(3))
    docs = documents(20)
    run = build_run(tmp_path / "run", write_inputs(tmp_path / "in", docs), docs, theta=theta)
    with pytest.raises(BudgetError, match="no document at all"):
        run.write()
    assert not (run.folder / "dataset").exists()


def test_a_column_named_quadmix_is_refused(tmp_path: Path):
    docs = [d | {"quadmix": 1} for d in documents(20)]
    run = build_run(tmp_path / "run", write_inputs(tmp_path / "in", docs), docs)
    with pytest.raises(InputError, match="already has a column 'quadmix'"):
        run.write()


def test_changed_input_stops_the_commit(run: Run):
    path = Path(run.corpus.files[1].path)
    path.write_bytes(path.read_bytes().replace(b"doc-149", b"doc-999"))
    with pytest.raises(IntegrityError, match=r"is 'doc-999', but the selection has 'doc-149'"):
        run.write()
    assert not (run.folder / "dataset" / "manifest.json").exists()


def test_a_lost_row_breaks_conservation(run: Run):
    counts = (dataclasses.replace(run.corpus.counts[0], rows=run.corpus.counts[0].rows + 1),)
    broken = dataclasses.replace(run.corpus, counts=counts + run.corpus.counts[1:])
    with pytest.raises(IntegrityError, match="rows are not conserved: 152 came in"):
        dataclasses.replace(run, corpus=broken).write()
    assert not (run.folder / "dataset").exists()


@pytest.mark.parametrize("damage", ["lost", "doubled", "swapped"])
def test_a_spill_that_holds_other_copies_stops_its_shard(run: Run, damage: str):
    def damaging(function: Any, tasks: Any) -> list[Any]:
        if function is parts.write_part:
            spill = sorted(run.folder.glob("spills/*/split-*.arrow"))[0]
            file = pa.ipc.open_file(spill.read_bytes())
            batches = [file.get_batch(i) for i in range(file.num_record_batches)]
            big = max(range(len(batches)), key=lambda i: batches[i].num_rows)
            rows = list(range(batches[big].num_rows))
            assert len(rows) > 1
            if damage == "swapped":
                batches = [*batches[1:], batches[0]]
            else:
                kept = rows[1:] if damage == "lost" else [0, 0, *rows[2:]]
                batches[big] = batches[big].take(pa.array(kept))
            write_batches(spill, file.schema, batches)
        return serial(function, tasks)

    with pytest.raises(IntegrityError, match=r"with checksum .* nothing was committed"):
        run.write(mapper=damaging)
    assert not (run.folder / "dataset" / "manifest.json").exists()


@pytest.mark.parametrize("point", ["spill", "part"])
def test_a_full_disk_is_named_and_the_same_call_continues(
    run: Run, monkeypatch: pytest.MonkeyPatch, point: str
):
    real = os.fsync
    calls = {"left": 3 if point == "spill" else 10_000}

    def full(handle: int) -> None:
        name = os.readlink(f"/proc/self/fd/{handle}")
        if ("spills" in name if point == "spill" else "-part-00002.parquet" in name) and ".tmp-" in name:
            calls["left"] -= 1
            if calls["left"] < 0 or point == "part":
                raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(QuadmixError, match=r"disk is full at .* needs about [\d,]+ bytes more and"):
            run.write()
    assert not (run.folder / "dataset" / "manifest.json").exists()
    assert not list(run.folder.rglob(".tmp-*"))
    manifest = run.write()
    assert sum(s.rows for s in manifest.shards) == manifest.ledger.copies


def test_a_split_of_several_batches_keeps_texts_with_their_documents(tmp_path: Path):
    docs = documents(2300)
    run = build_run(tmp_path / "run", write_inputs(tmp_path / "in", docs), docs, split_bytes=10**9)
    run.write(section=MaterialiseSection(shard_bytes=50_000))
    assert [c.documents for c in run.corpus.counts] == [1150, 1150]
    text = {d["id"]: d["text"] for d in docs}
    rows = rows_of(run.folder)
    assert sum(int(r["id"][4:]) % 1150 >= 1000 for r in rows) > 100
    for row in rows:
        assert row["text"] == text[row["id"]]
        assert row["quadmix"]["doc_id"] == row["id"]


def test_a_shard_damaged_before_the_manifest_is_written_again(run: Run, tmp_path: Path):
    def damaging(function: Any, tasks: Any) -> list[Any]:
        results = serial(function, tasks)
        if function is parts.write_part:
            (run.folder / "dataset" / "part-00001.parquet").write_bytes(b"damaged")
            raise KeyboardInterrupt
        return results

    with pytest.raises(KeyboardInterrupt):
        run.write(mapper=damaging)
    run.write()
    other = build_run(tmp_path / "other", [f.path for f in run.corpus.files], run.docs)
    other.write()
    assert part_digests(run.folder) == part_digests(other.folder)


@pytest.mark.parametrize(
    ("order", "target", "field", "what"),
    [
        ("shuffled", parts.write_part, "tokens", "tokens written"),
        ("shuffled", parts.write_part, "rows", "rows written"),
        ("shuffled", spill_split, "selected", "documents taken"),
        ("shuffled", spill_split, "tokens", "tokens taken"),
        ("corpus", write_split, "copies", "copies taken"),
        ("corpus", write_split, "shard", "rows written"),
    ],
)
def test_counts_that_do_not_add_up_leave_no_manifest(
    run: Run, order: Any, target: Any, field: str, what: str
):
    def lying(function: Any, tasks: Any) -> list[Any]:
        first, *rest = serial(function, tasks)
        if function is target:
            true = getattr(first, field)
            first = dataclasses.replace(first, **{field: None if field == "shard" else true + 1})
        return [first, *rest]

    with pytest.raises(IntegrityError, match=f"{what}: .* the manifest was not written"):
        run.write(mapper=lying, section=MaterialiseSection(order=order, shard_bytes=3000))
    assert not (run.folder / "dataset" / "manifest.json").exists()


def test_another_selection_under_the_tasks_is_found(run: Run):
    def replacing(function: Any, tasks: Any) -> list[Any]:
        if function is spill_split:
            part = run.folder / "selection" / "part-00001.parquet"
            part.write_bytes((run.folder / "selection" / "part-00000.parquet").read_bytes())
        return serial(function, tasks)

    with pytest.raises(IntegrityError, match=r"part-00001.parquet has digest .*, expected"):
        run.write(mapper=replacing)


def test_parts_of_a_plan_that_was_given_up_are_removed_before_the_manifest(run: Run):
    def stopping(function: Any, tasks: Any) -> list[Any]:
        results = serial(function, tasks)
        if function is parts.write_part:
            raise KeyboardInterrupt
        return results

    with pytest.raises(KeyboardInterrupt):
        run.write(mapper=stopping)
    (run.folder / "dataset" / "notes.txt").write_text("mine")
    assert (run.folder / "dataset" / "part-00005.parquet").exists()
    manifest = run.write(section=MaterialiseSection(shard_bytes=8000))
    found = {p.name for p in (run.folder / "dataset").iterdir()}
    beside = {"manifest.json", "README.md", *FACTS, "notes.txt"}
    assert found == {s.name for s in manifest.shards} | beside
    assert len(manifest.shards) < 5


def test_a_shard_that_was_published_need_not_be_here(run: Run) -> None:
    first = run.write()
    shard = first.shards[0]
    (run.folder / "dataset" / shard.name).unlink()
    with pytest.raises(IntegrityError, match="is missing or was changed"):
        run.write()
    stored = Stored(url="s3://x/y", bytes=shard.bytes, digest=shard.digest, etag="", proof="read")
    write_json(run.folder / "published" / f"{shard.name}.json", stored)
    assert run.write() == first
