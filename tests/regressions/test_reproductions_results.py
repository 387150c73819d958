"""R7 to R10 of thirteen failures that were reproduced in other tools; here each must not happen.

Every test runs the real pipeline on files; its docstring says what the other tool did with the same input.
"""

import shutil
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from regression_world import (
    DOMAINS,
    SUFFIXES,
    Begun,
    Reference,
    dataset_rows,
    documents,
    files_of,
    home,
    pages,
    put,
    quiet,
    recipe,
)

from quadmix.annotate.run import part_path
from quadmix.annotate.table import survey
from quadmix.errors import (
    InputError,
    IntegrityError,
)
from quadmix.io.atomic import read_value
from quadmix.materialise.verify import verify_run
from quadmix.types import Corpus


def shorter(table: pa.Table) -> pa.Table:
    return table.slice(0, table.num_rows // 2)


def reversed_rows(table: pa.Table) -> pa.Table:
    return table.take(pa.array(range(table.num_rows - 1, -1, -1)))


def swapped_ids(table: pa.Table) -> pa.Table:
    ids = table["doc_id"].to_pylist()
    ids[3], ids[4] = ids[4], ids[3]
    return table.set_column(0, table.schema.field("doc_id"), pa.array(ids))


CHANGES = [shorter, reversed_rows, swapped_ids]


@pytest.mark.parametrize("change", CHANGES)
def test_r7_annotations_that_do_not_fit_their_documents_are_refused_and_made_again(
    reference: Reference, tmp_path: Path, change: Any
) -> None:
    """Dolma: attributes of 50 of 100 rows: 50 documents that should go are kept, exit 0."""
    folder = reference.copy(tmp_path)
    part = part_path(home(folder), 1)
    pq.write_table(change(pq.read_table(part)), part)  # with the metadata that names work and counts
    corpus = read_value(home(folder) / "corpus" / "manifest.json", Corpus)
    with pytest.raises(IntegrityError, match=r"part-00001\.parquet is absent or differs"):
        survey(home(folder), corpus, recipe(folder).annotate, holdout=0.0, seed=0)
    assert reference.again(folder) == reference.manifest
    assert part.read_bytes() == reference.files["annotations/part-00001.parquet"]


@pytest.mark.parametrize("change", CHANGES)
def test_r7_wrong_annotations_without_a_manifest_never_become_a_dataset(
    reference: Reference, tmp_path: Path, change: Any
) -> None:
    """Dolma: as above; here the run had been killed before the manifest of the annotations was written."""
    folder = reference.copy(tmp_path)
    part = part_path(home(folder), 1)
    pq.write_table(change(pq.read_table(part)), part)
    (home(folder) / "annotations" / "manifest.json").unlink()
    for stage in ("selection", "dataset"):
        shutil.rmtree(home(folder) / stage)
    if change is shorter:  # its rows are not those that it says it has
        assert reference.again(folder) == reference.manifest
        return
    with pytest.raises(IntegrityError, match=r"document \d+ of split 1 .* but the selection has"):
        reference.again(folder)
    assert not (home(folder) / "dataset" / "manifest.json").exists()


def test_r8_a_gzip_file_cut_in_half_fails_and_fails_again(tmp_path: Path) -> None:
    """Dolma: a .gz cut in half gives 2,497 of 5,000 rows; the rerun skips it, because output exists."""
    path = put(tmp_path, "a.jsonl.gz", pages(300))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for _ in range(2):
        with pytest.raises(InputError, match=r"a\.jsonl\.gz' is truncated or corrupt"):
            quiet(recipe(tmp_path), "annotate")


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    middle = len(data) // 3
    path.write_bytes(
        data[:middle] if how == "cut" else data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    )


@pytest.mark.parametrize("how", ["cut", "flip"])
def test_r8_damaged_annotations_are_made_again_although_they_exist(
    reference: Reference, tmp_path: Path, how: str
) -> None:
    """Dolma: as above; what a manifest names is used only with the digest that it names."""
    folder = reference.copy(tmp_path)
    shutil.rmtree(home(folder) / "dataset")
    damage(part_path(home(folder), 1), how)
    assert reference.again(folder) == reference.manifest
    assert files_of(home(folder) / "annotations") == files_of(home(reference.folder) / "annotations")


@pytest.mark.parametrize("how", ["cut", "flip"])
def test_r8_a_damaged_selection_is_refused_although_it_exists(
    reference: Reference, tmp_path: Path, how: str
) -> None:
    """Dolma: as above."""
    folder = reference.copy(tmp_path)
    shutil.rmtree(home(folder) / "dataset")
    damage(home(folder) / "selection" / "part-00000.parquet", how)
    with pytest.raises(
        IntegrityError, match=r"selection/part-00000\.parquet (has digest|is cut or damaged).*remove"
    ):
        reference.again(folder)
    assert not (home(folder) / "dataset" / "manifest.json").exists()


@pytest.mark.parametrize("how", ["cut", "flip"])
def test_r8_shards_of_a_killed_run_are_written_again_when_damaged(
    killed: Begun, reference: Reference, tmp_path: Path, how: str
) -> None:
    """Dolma: as above; a shard is skipped only if its bytes have the digest of its record."""
    folder = killed.copy(tmp_path)
    for path in (home(folder) / "dataset").glob("part-*"):
        damage(path, how)
    assert killed.again(folder) == reference.manifest
    assert all(c.ok for c in verify_run(home(folder)).checks)


def test_r8_a_committed_shard_that_was_damaged_is_refused_or_found(
    reference: Reference, tmp_path: Path
) -> None:
    """Dolma: as above; a cut shard stops the rerun, a changed byte of the same size is found by `verify`."""
    folder = reference.copy(tmp_path)
    shard = home(folder) / "dataset" / reference.manifest.shards[0].name
    whole = shard.read_bytes()
    damage(shard, "cut")
    with pytest.raises(IntegrityError, match=shard.name):
        reference.again(folder)
    shard.write_bytes(whole)
    damage(shard, "flip")
    assert [c.name for c in verify_run(home(folder)).checks if not c.ok] == [f"shard {shard.name}"]


def labels(count: int, key: str) -> list[dict[str, Any]]:
    """Documents whose strings all look like numbers or dates."""
    return [
        {
            "id": f"{i:05d}" if key == "0" else f"{key}2345678901234567890{i:03d}",
            "text": f"{i:03d}",
            "domain": DOMAINS[i % 3],
            "edu": float(i % 7),
            "zip": f"0{i:04d}",
            "when": f"2024-05-{i % 28 + 1:02d}T00:00:00Z",
            "e": "1e5",
            "truth": "true",
        }
        for i in range(1, count + 1)
    ]


@pytest.mark.parametrize("output", ["parquet", "jsonl.zst"])
def test_r9_strings_stay_strings_from_every_format_to_the_dataset(
    tmp_path: Path, source: Path, output: str
) -> None:
    """pandas (NeMo): id "00012" becomes 12, 23 digits 1.2345e22, text "007" 7, an ISO date a timestamp."""
    rows = {s: labels(60, str(k)) for k, s in enumerate(SUFFIXES)}
    for suffix, some in rows.items():
        put(tmp_path, f"x.{suffix}", some)
    given = {r["id"]: r for some in rows.values() for r in some}
    quiet(recipe(tmp_path, source, materialise__format=output, budget__share=0.9), "materialise")
    if output == "parquet":
        found = dataset_rows(home(tmp_path))
    else:
        shards = sorted((home(tmp_path) / "dataset").glob("part-*"))
        found = [r for s in shards for r in jsonl_rows(s)]
    seen = {r["id"]: {k: v for k, v in r.items() if k != "quadmix"} for r in found}
    assert len(seen) > 150
    assert {i[:1] for i in seen} == {"0", "1", "2", "3", "4"}
    assert seen == {i: given[i] for i in seen}
    assert all(r["quadmix"]["doc_id"] == r["id"] for r in found)
    assert sorted(d["doc_id"] for d in documents(home(tmp_path))) == sorted(given)


def jsonl_rows(path: Path) -> list[dict[str, Any]]:
    import io
    import json

    import zstandard

    data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes())).read()
    return [json.loads(line) for line in data.splitlines()]


def test_r10_a_killed_writer_leaves_nothing_that_is_visible_as_data(killed: Begun) -> None:
    """datatrove: SIGKILL in a writer: half a file sits under its final name, and no marker tells readers."""
    dataset = {n: b for n, b in killed.files.items() if n.startswith("dataset/")}
    assert "dataset/manifest.json" not in dataset
    for name, content in dataset.items():
        if not Path(name).name.startswith(".tmp-"):
            if name.endswith(".json"):
                assert orjson.loads(content)["digest"]  # facts about the dataset, whole
                continue
            assert name == "dataset/README.md" or pq.read_table(pa.BufferReader(content)).num_rows > 0
    assert any(n.startswith("spills/") for n in killed.files)
    with pytest.raises(InputError, match="there is no finished dataset"):
        verify_run(home(killed.folder))


def test_r10_the_relaunch_leaves_no_trace_of_the_kill(
    killed: Begun, reference: Reference, tmp_path: Path
) -> None:
    """datatrove: as above; what the killed writer had begun is removed, and nothing is stray."""
    folder = killed.copy(tmp_path)
    killed.again(folder)
    expected, found = (
        {n: b for n, b in files_of(home(f)).items() if n.startswith(("dataset/", "selection/"))}
        for f in (reference.folder, folder)
    )
    assert found == expected
    assert not any("/.tmp-" in n or n.startswith("spills/") for n in files_of(home(folder)))
    assert verify_run(home(folder)).stray == ()
