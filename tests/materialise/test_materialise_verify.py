"""verify finds every kind of damage to the selection and to the dataset, and names it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from materialise_run import Run, serial

from quadmix.errors import InputError
from quadmix.io.atomic import file_digest, read_table, read_value, write_json, write_table
from quadmix.io.tables import stream_tables
from quadmix.materialise.checksum import BUCKETS, bucket_of, checksum
from quadmix.materialise.ledger import manifest_digest
from quadmix.materialise.publish import publish_dataset
from quadmix.materialise.ranks import read_ranks, write_ranks
from quadmix.materialise.table import read_manifest, read_selection, write_manifest
from quadmix.materialise.verify import verify_run
from quadmix.recipe import MaterialiseSection
from quadmix.rng import doc_keys
from quadmix.types import DatasetManifest

KINDS = [
    ("parquet", "shuffled"), ("jsonl.zst", "shuffled"), ("parquet", "corpus"), ("jsonl.zst", "corpus"),
    ("index", "corpus"),
]  # fmt: skip


def section(format: str = "parquet", order: str = "shuffled") -> MaterialiseSection:
    return MaterialiseSection(format=format, order=order, shard_bytes=3000)  # pyright: ignore[reportArgumentType]


def failed(run: Run) -> set[str]:
    return {c.name for c in verify_run(run.folder).checks if not c.ok}


def detail(run: Run, name: str) -> str:
    return next(c.detail for c in verify_run(run.folder).checks if c.name == name)


@pytest.mark.parametrize(("format", "order"), KINDS)
def test_a_sound_dataset_passes_every_check(run: Run, format: str, order: str):
    run.write(section=section(format, order))
    report = verify_run(run.folder)
    assert report.ok, [c for c in report.checks if not c.ok]
    names = {c.name for c in report.checks}
    assert {
        "rows and tokens recounted", "copies per document", "numbers in the rows", "order", "conservation",
        "inputs unchanged", "selection digest", "selection parts", "ranks", "draw", "tokens as expected",
    } <= names  # fmt: skip
    assert ("copies apart" in names) == (order == "shuffled")
    assert report.stray == ()


def test_without_a_manifest_there_is_nothing_to_verify(run: Run):
    with pytest.raises(InputError, match=r"manifest.json does not exist"):
        verify_run(run.folder)


def test_it_says_how_far_it_is_in_bytes_of_all_files(run: Run):
    manifest = run.write()
    seen: list[tuple[int, int]] = []
    verify_run(run.folder, watch=lambda done, total: seen.append((done, total)))
    parts = sum((run.folder / "selection" / p.name).stat().st_size for p in read_manifest(run.folder).parts)
    total = parts + sum(s.bytes for s in manifest.shards)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (total, total)


def test_a_flipped_byte_and_a_missing_shard_are_named(run: Run):
    run.write()
    path = run.folder / "dataset" / "part-00001.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    (run.folder / "dataset" / "part-00002.parquet").unlink()
    assert failed(run) == {"shard part-00001.parquet", "shard part-00002.parquet"}


def test_a_changed_manifest_changed_input_and_stray_files_are_found(run: Run):
    run.write()
    path = run.folder / "dataset" / "manifest.json"
    path.write_text(path.read_text().replace('"selected": ', '"selected": 1'))
    (run.folder / "dataset" / "part-00099.parquet").write_bytes(b"old")
    (run.folder / "selection" / "part-00099.parquet").write_bytes(b"old")
    Path(run.corpus.files[0].path).write_text("gone\n")
    assert failed(run) == {"manifest digest", "conservation", "inputs unchanged"}
    assert verify_run(run.folder).stray == ("dataset/part-00099.parquet", "selection/part-00099.parquet")


def test_a_shard_that_lies_in_the_store_alone_is_not_missing_but_its_rows_are_not_counted(
    run: Run, tmp_path: Path
):
    manifest = run.write()
    publish_dataset(run.folder, f"file://{tmp_path}/store", serial)
    first = manifest.shards[0].name
    (run.folder / "dataset" / first).unlink()
    report = verify_run(run.folder, published=True)
    names = {c.name for c in report.checks}
    assert report.ok
    assert {f"published {s.name}" for s in manifest.shards} < names
    assert not names & {"rows and tokens recounted", "copies per document", "order"}
    assert "published and not kept here" in detail(run, f"shard {first}")
    (run.folder / "published" / f"{first}.json").unlink()
    assert failed(run) == {f"shard {first}"}


def forge(run: Run, table: pa.Table, shard: int = -1) -> None:
    """Replace a shard and make its manifest agree, so that only the content tells."""
    path = run.folder / "dataset" / "manifest.json"
    manifest = read_value(path, DatasetManifest)
    shards = list(manifest.shards)
    file = run.folder / "dataset" / shards[shard].name
    write_table(file, table)
    shards[shard] = dataclasses.replace(
        shards[shard], bytes=file.stat().st_size, digest=file_digest(file), rows=table.num_rows
    )
    manifest = dataclasses.replace(manifest, shards=tuple(shards))
    write_json(path, dataclasses.replace(manifest, digest=manifest_digest(manifest)))


def last_shard(run: Run, manifest: DatasetManifest) -> pa.Table:
    return read_table(run.folder / "dataset" / manifest.shards[-1].name)


@pytest.mark.parametrize("order", ["shuffled", "corpus"])
def test_swapped_rows_fail_the_order_alone(run: Run, order: str):
    manifest = run.write(section=section("parquet", order))
    table = last_shard(run, manifest)
    ids = pc.struct_field(table["quadmix"], "doc_id").to_pylist()
    other = next(i for i, doc in enumerate(ids) if doc != ids[0])
    places = np.arange(table.num_rows)
    places[[0, other]] = places[[other, 0]]
    forge(run, table.take(places))
    assert "order" in failed(run) <= {"order", "copies apart"}
    assert manifest.shards[-1].name in detail(run, "order")


@pytest.mark.parametrize("order", ["shuffled", "corpus"])
def test_a_row_in_place_of_another_is_named_with_its_document(run: Run, order: str):
    manifest = run.write(section=section("parquet", order))
    table = last_shard(run, manifest)
    ids = pc.struct_field(table["quadmix"], "doc_id").to_pylist()
    lost = next(i for i, doc in enumerate(ids) if doc != ids[0])
    places = np.arange(table.num_rows)
    places[lost] = 0
    forge(run, table.take(places))
    assert {"copies per document", "numbers in the rows", "order"} <= failed(run)
    copies = dict(
        zip(*(read_selection(run.folder).doc_id.to_pylist(), read_selection(run.folder).copies), strict=True)
    )
    text = detail(run, "copies per document")
    assert text.startswith("2 documents differ from the selection, 0 rows are of documents that it does not")
    assert f"{ids[0]!r} ({copies[ids[0]] + 1} rows, expected {copies[ids[0]]})" in text
    assert f"{ids[lost]!r} ({copies[ids[lost]] - 1} rows, expected {copies[ids[lost]]})" in text


def with_field(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    """Return the table with one field of one row's struct replaced."""
    rows = table["quadmix"].to_pylist()
    rows[row][name] = value
    struct = pa.array(rows, table.schema.field("quadmix").type)
    return table.set_column(table.schema.get_field_index("quadmix"), table.schema.field("quadmix"), struct)


def test_a_document_that_was_not_selected_is_named(run: Run):
    manifest = run.write()
    forge(run, with_field(last_shard(run, manifest), "doc_id", 0, "doc-strange"))
    assert "copies per document" in failed(run)
    text = detail(run, "copies per document")
    assert "1 rows are of documents that it does not select" in text
    assert "'doc-strange' (1 rows, expected 0)" in text


def test_other_numbers_in_a_row_fail_although_every_copy_is_there(run: Run):
    manifest = run.write()
    table = last_shard(run, manifest)
    row = table["quadmix"][0].as_py()
    forge(run, with_field(table, "tokens", 0, row["tokens"] + 1))
    assert failed(run) == {"numbers in the rows", "rows and tokens recounted"}
    text = detail(run, "numbers in the rows")
    assert f"{row['doc_id']!r} (copy_index, copies or tokens differ)" in text


def test_another_number_of_copies_in_an_index_is_named(run: Run):
    manifest = run.write(section=section("index"))
    table = last_shard(run, manifest)
    copies = table["copies"].to_numpy().copy()
    copies[0] += 1
    forge(run, table.set_column(1, "copies", pa.array(copies)))
    assert failed(run) == {"numbers in the rows"}
    assert repr(table["doc_id"][0].as_py()) in detail(run, "numbers in the rows")


# --------------------------------------------------------------------------- the selection itself
def forge_part(run: Run, split: int, column: str, change: Any) -> None:
    """Change a column of a part and make the manifest's digests agree."""
    path = run.folder / "selection" / f"part-{split:05d}.parquet"
    table = read_table(path)
    place = table.schema.get_field_index(column)
    write_table(path, table.set_column(place, table.schema.field(place), change(table[column])))
    manifest = read_manifest(run.folder)
    parts = [
        dataclasses.replace(p, digest=file_digest(path)) if p.split == split else p for p in manifest.parts
    ]
    write_manifest(run.folder, manifest.info, parts)


def test_a_changed_part_of_the_selection_is_named_and_rows_are_not_compared_with_it(run: Run):
    run.write()
    path = run.folder / "selection" / "part-00002.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    (run.folder / "selection" / "part-00004.parquet").unlink()
    assert failed(run) == {"selection parts"}
    assert "part-00002.parquet has digest" in detail(run, "selection parts")
    assert "part-00004.parquet is missing" in detail(run, "selection parts")
    assert "copies per document" not in {c.name for c in verify_run(run.folder).checks}


def test_a_part_whose_counts_are_not_those_of_the_manifest_is_named(run: Run):
    run.write()
    forge_part(run, 1, "tokens", lambda c: pc.add(c, pa.scalar(1, pa.int32())))
    assert failed(run) == {"selection parts"}
    assert "part-00001.parquet: tokens_in of arts" in detail(run, "selection parts")


def test_an_unknown_domain_in_a_part_is_named(run: Run):
    run.write()
    forge_part(run, 1, "domain", lambda c: pa.array(["nowhere"] * len(c)))
    assert failed(run) == {"selection parts"}
    assert "domain 'nowhere' is not among" in detail(run, "selection parts")


def test_other_ranks_and_other_bins_are_found(run: Run):
    run.write()
    forge_part(run, 1, "rank_low", lambda c: pc.multiply(c, 0.5))
    assert failed(run) == {"ranks"}
    table = read_ranks(run.folder)
    through = (np.concatenate([table.through[0][:-1], table.through[0][-1:] + 5]), *table.through[1:])
    write_ranks(run.folder, dataclasses.replace(table, through=through), run.annotations.domains)
    assert "tokens per bin differ in ['arts']" in detail(run, "ranks")
    (run.folder / "selection" / "ranks.parquet").unlink()
    assert "ranks.parquet does not exist" in detail(run, "ranks")


def test_copies_that_do_not_follow_from_the_draw_are_found(run: Run):
    run.write()
    manifest = read_manifest(run.folder)
    info = dataclasses.replace(manifest.info, factors=(0.0, 0.0, 0.0))
    for part in manifest.parts:
        path = run.folder / "selection" / part.name
        table = read_table(path)
        text = table.schema.metadata[b"quadmix.selection"]
        old, new = (repr(list(i.factors)).replace(" ", "").encode() for i in (manifest.info, info))
        assert old in text
        write_table(path, table.replace_schema_metadata({b"quadmix.selection": text.replace(old, new)}))
    parts = [
        dataclasses.replace(p, digest=file_digest(run.folder / "selection" / p.name)) for p in manifest.parts
    ]
    write_manifest(run.folder, info, parts)
    table = read_selection(run.folder)
    drawn = int((table.copies > np.floor(table.expected)).sum())
    assert failed(run) == {"draw"}
    assert detail(run, "draw").startswith(f"{drawn} documents")


# --------------------------------------------------------------------------- checksums
def test_checksums_depend_on_the_rows_and_not_on_their_order():
    rng = np.random.default_rng(0)
    keys = doc_keys([f"d{i}" for i in range(5000)])
    numbers = rng.integers(0, 9, (2, 5000))
    whole = checksum(keys, *numbers)
    order = rng.permutation(5000)
    assert np.array_equal(whole, checksum(keys[order], *(n[order] for n in numbers)))
    halves = checksum(keys[:2000], *(n[:2000] for n in numbers)) + checksum(
        keys[2000:], *(n[2000:] for n in numbers)
    )
    assert np.array_equal(whole, halves)
    numbers[1, 17] += 1
    differ = np.flatnonzero((whole != checksum(keys, *numbers)).any(axis=0))
    assert differ.tolist() == bucket_of(keys[17:18]).tolist()
    assert np.bincount(bucket_of(keys), minlength=BUCKETS).max() < 25


def test_swapped_numbers_of_two_documents_change_both_sums():
    keys = doc_keys(["a", "b"])
    first, second = (checksum(keys, np.array(n)) for n in ([1, 2], [2, 1]))
    assert (first != second).any(axis=1).all()


def test_only_the_numbers_of_the_struct_are_read(run: Run):
    manifest = run.write()
    columns = [f"quadmix.{name}" for name in ("doc_id", "copy_index", "copies", "tokens")]
    table = next(stream_tables(run.folder / "dataset" / manifest.shards[0].name, columns))
    assert table.column_names == ["quadmix"]
    assert [f.name for f in table.schema.field("quadmix").type] == [
        "doc_id",
        "tokens",
        "copies",
        "copy_index",
    ]
