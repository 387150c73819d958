"""The dataset in corpus order, and the index: right rows, a file per split, bounded memory, resumed alike."""

import dataclasses
import functools
import os
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from materialise_run import THETA, Run, build_run, documents, serial, write_inputs
from test_materialise_write import part_digests, rows_of

from quadmix.engine.tasks import Place, run_tasks
from quadmix.errors import IntegrityError
from quadmix.io.atomic import read_table
from quadmix.materialise.table import read_manifest, read_selection
from quadmix.materialise.verify import verify_run
from quadmix.recipe import MaterialiseSection

CORPUS = MaterialiseSection(order="corpus")
INDEX = MaterialiseSection(format="index")


def twin(run: Run, folder: Path) -> Run:
    return build_run(folder, [f.path for f in run.corpus.files], run.docs)


def parquet_inputs(folder: Path, docs: list[dict[str, Any]], codec: str = "zstd") -> list[str]:
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(docs)
    pq.write_table(table, folder / "a.parquet", compression=codec, row_group_size=max(1, len(docs) // 5))
    return [str(folder / "a.parquet")]


@pytest.mark.parametrize("format", ["parquet", "jsonl.zst"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_stand_in_corpus_order_with_copies_as_neighbours(tmp_path: Path, format: Any, kind: str):
    docs = documents(150)
    write = write_inputs if kind == "jsonl" else parquet_inputs
    run = build_run(tmp_path / "run", write(tmp_path / "in", docs), docs)
    manifest = run.write(section=MaterialiseSection(order="corpus", format=format))
    table = read_selection(run.folder)
    rows = rows_of(run.folder)
    ids = table.doc_id.to_pylist()
    expected = [(i, j) for i, c in zip(ids, table.copies.tolist(), strict=True) for j in range(c)]
    assert [(r["id"], r["quadmix"]["copy_index"]) for r in rows] == expected
    assert max(Counter(r["id"] for r in rows).values()) > 1
    by_id = {d["id"]: d for d in run.docs}
    for row in rows:
        assert {k: v for k, v in row.items() if k != "quadmix"} == by_id[row["id"]]
    kept = sorted({int(s) for s in table.split[table.copies > 0]})
    assert [s.name for s in manifest.shards] == [f"part-{s:05d}.{format}" for s in kept]
    assert (manifest.order, manifest.format, manifest.codec) == ("corpus", format, "zstd")
    assert verify_run(run.folder).ok


def test_both_orders_hold_the_same_rows_and_numbers(run: Run, tmp_path: Path):
    other = twin(run, tmp_path / "other")
    one, two = run.write(), other.write(section=CORPUS)
    assert (one.ledger, one.domains) == (two.ledger, two.domains)
    pack = functools.partial(orjson.dumps, option=orjson.OPT_SORT_KEYS)
    assert sorted(map(pack, rows_of(run.folder))) == sorted(map(pack, rows_of(other.folder)))
    samples = [read_table(r.folder / "samples.parquet") for r in (run, other)]
    assert samples[0].equals(samples[1])


def test_the_index_has_ids_and_copies_and_reads_no_text(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("quadmix.materialise.chosen.read_arrow_documents", None)
    manifest = run.write(section=INDEX)
    table = read_selection(run.folder)
    rows = rows_of(run.folder)
    chosen = np.flatnonzero(table.copies)
    expected = zip(table.doc_id.take(pa.array(chosen)).to_pylist(), table.copies[chosen], strict=True)
    assert [(r["doc_id"], r["copies"]) for r in rows] == list(expected)
    assert set(rows[0]) == {"doc_id", "copies"}
    assert (manifest.order, manifest.ledger.selected) == ("corpus", len(rows))
    assert sum(s.tokens for s in manifest.shards) == manifest.ledger.tokens_out
    samples = read_table(run.folder / "samples.parquet")
    assert samples["text"].null_count == samples.num_rows == 180
    card = (run.folder / "dataset" / "README.md").read_text()
    assert "index without text" in card
    assert "    path: part-*.parquet\n" in card
    assert verify_run(run.folder).ok


def test_splits_with_nothing_selected_give_no_file(tmp_path: Path):
    docs = [d | {"label": "arts" if i < 75 else "law"} for i, d in enumerate(documents(150))]
    theta = dataclasses.replace(THETA, scale=np.array([0.0, 1.0, 1.0]))
    run = build_run(tmp_path / "run", write_inputs(tmp_path / "in", docs), docs, theta=theta)
    empty = [p for p in read_manifest(run.folder).parts if not p.copies]
    assert len(empty) > 2
    for section in (CORPUS, INDEX):
        manifest = run.write(section=section)
        assert len(manifest.shards) == len(read_manifest(run.folder).parts) - len(empty)
        assert not {s.name for s in manifest.shards} & {p.name for p in empty}
        (run.folder / "dataset" / "manifest.json").unlink()
    samples = read_table(run.folder / "samples.parquet")
    assert "arts" in samples["domain"].to_pylist(), "dropped documents are shown, wherever they are"


@pytest.mark.parametrize(("codec", "expected"), [("snappy", "SNAPPY"), ("gzip", "GZIP"), ("none", "ZSTD")])
def test_the_codec_is_that_of_the_input(tmp_path: Path, codec: str, expected: str):
    docs = documents(60)
    run = build_run(tmp_path / "run", parquet_inputs(tmp_path / "in", docs, codec), docs)
    for order in ("corpus", "shuffled"):
        manifest = run.write(section=MaterialiseSection(order=order))
        path = run.folder / "dataset" / manifest.shards[0].name
        assert pq.ParquetFile(path).metadata.row_group(0).column(1).compression == expected
        assert manifest.codec == expected.lower()
        assert f"compressed with {manifest.codec}" in (path.parent / "README.md").read_text()
        (run.folder / "dataset" / "manifest.json").unlink()


def shuffled(function: Any, tasks: Any) -> list[Any]:
    places = list(range(len(tasks)))
    random.Random(3).shuffle(places)
    results: dict[int, Any] = {}
    for i in places + places[:2]:
        results[i] = function(tasks[i])
    return [results[i] for i in range(len(tasks))]


def threads(function: Any, tasks: Any) -> list[Any]:
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(function, tasks))


@pytest.mark.parametrize(
    ("section", "mapper"),
    [
        (CORPUS, shuffled),
        (INDEX, shuffled),
        (CORPUS, threads),
        (INDEX, threads),
        (MaterialiseSection(shard_bytes=3000), threads),
        (CORPUS, functools.partial(run_tasks, place=Place("processes", 2))),
    ],
)
def test_no_executor_changes_a_byte(run: Run, tmp_path: Path, section: MaterialiseSection, mapper: Any):
    first = run.write(section=section)
    other = twin(run, tmp_path / "other")
    second = other.write(section=section, mapper=mapper)
    assert part_digests(run.folder) == part_digests(other.folder)
    assert first == second


def test_tasks_and_results_are_small(run: Run):
    sizes: list[int] = []

    def weighing(function: Any, tasks: Any) -> list[Any]:
        assert all(run.corpus.digest in repr(t) or "SampleTask" in repr(t) for t in tasks)
        sizes.extend(len(repr(t)) for t in tasks)
        return serial(function, tasks)

    run.write(mapper=weighing)
    assert max(sizes) < 2000 < len(repr(run.corpus))


def test_row_groups_are_cut_by_rows_and_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    docs = documents(4600)
    run = build_run(tmp_path / "run", parquet_inputs(tmp_path / "in", docs), docs, split_bytes=10**9)

    def groups() -> list[int]:
        manifest = run.write(section=CORPUS)
        assert len(manifest.shards) == 1
        path = run.folder / "dataset" / manifest.shards[0].name
        (run.folder / "dataset" / "manifest.json").unlink()
        meta = pq.ParquetFile(path).metadata
        return [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]

    whole = groups()
    assert len(whole) == 1
    monkeypatch.setattr("quadmix.materialise.straight.GROUP_ROWS", 1000)
    cut = groups()
    assert sum(cut) == whole[0]
    assert len(cut) > 2
    assert min(cut[:-1]) >= 1000
    monkeypatch.setattr("quadmix.materialise.straight.GROUP_ROWS", 10**6)
    monkeypatch.setattr("quadmix.materialise.straight.GROUP_BYTES", 1)
    assert groups() == cut


def test_a_document_with_more_than_half_of_all_rows(tmp_path: Path):
    docs = documents(40)
    theta = dataclasses.replace(THETA, cutoff=np.full(3, 1e-9), floor=np.full(3, 0.3))
    run = build_run(tmp_path / "run", write_inputs(tmp_path / "in", docs), docs, theta=theta)
    table = read_selection(run.folder)
    big = int(np.flatnonzero(table.copies)[0])
    give_copies(run, big, 90)
    for section in (CORPUS, MaterialiseSection(shard_bytes=2000)):
        manifest = run.write(section=section)
        rows = [r["id"] for r in rows_of(run.folder)]
        name = table.doc_id[big].as_py()
        assert rows.count(name) == 90 > len(rows) / 2
        assert len(rows) == manifest.ledger.copies
        for shard in manifest.shards if section is not CORPUS else ():
            ids = read_table(run.folder / "dataset" / shard.name, ["id"])["id"].to_pylist()
            most = ids.count(name)
            assert sum(a == b for a, b in pairwise(ids)) == max(0, 2 * most - len(ids) - 1)
        (run.folder / "dataset" / "manifest.json").unlink()


def give_copies(run: Run, row: int, copies: int) -> None:
    """Write the selection again with other copies of one document."""
    from materialise_run import write_parts

    from quadmix.types import Selection

    table = read_selection(run.folder)
    open_ = table.selectable
    new = table.copies.copy()
    new[row] = copies
    excluded = np.where(open_, 0, 1).astype(np.int8)
    selection = Selection(
        normalised=table.norms[open_],
        merged=table.merged[open_],
        ranks=dataclasses.replace(table.ranks, low=table.ranks.low[open_], high=table.ranks.high[open_]),
        expected=new[open_].astype(np.float64),
        copies=new[open_],
    )
    write_parts(run.folder, run.annotations, excluded, selection)


def test_changed_inputs_stop_the_commit(tmp_path: Path):
    docs = documents(60)
    inputs = parquet_inputs(tmp_path / "in", docs)
    run = build_run(tmp_path / "run", inputs, docs)
    kept = read_selection(run.folder).copies > 0
    good = pq.read_table(inputs[0])
    for column, value, what in (
        ("id", "doc-999", "is 'doc-999', but the selection has"),
        ("text", None, "a row is no document, the scan found all to be"),
        ("text", " \u2028 ", "a row is no document, the scan found all to be"),
    ):
        values = good[column].to_pylist()
        values[int(np.flatnonzero(kept)[3])] = value
        place = good.schema.get_field_index(column)
        bad = good.set_column(
            place, good.schema.field(column), pa.array(values, good.schema.field(column).type)
        )
        pq.write_table(bad, inputs[0], compression="zstd", row_group_size=12)
        for section in (CORPUS, MaterialiseSection(shard_bytes=2000)):
            with pytest.raises(IntegrityError, match=what):
                run.write(section=section)
            assert not (run.folder / "dataset" / "manifest.json").exists()


def test_a_damaged_file_is_written_again_and_finished_ones_are_not(run: Run, tmp_path: Path):
    def damaging(function: Any, tasks: Any) -> list[Any]:
        results = serial(function, tasks)
        if "write_split" in repr(function):
            (run.folder / "dataset" / "part-00001.parquet").write_bytes(b"damaged")
            raise KeyboardInterrupt
        return results

    with pytest.raises(KeyboardInterrupt):
        run.write(mapper=damaging, section=CORPUS)
    whole = run.folder / "dataset" / "part-00000.parquet"
    stamp = whole.stat().st_mtime_ns
    run.write(section=CORPUS)
    assert whole.stat().st_mtime_ns == stamp
    other = twin(run, tmp_path / "other")
    other.write(section=CORPUS)
    assert part_digests(run.folder) == part_digests(other.folder)
    assert read_table(run.folder / "samples.parquet").equals(read_table(other.folder / "samples.parquet"))


CHILD = """
import sys
from pathlib import Path
import pyarrow as pa
from quadmix.io.atomic import read_value
from quadmix.materialise.write import materialise
from quadmix.recipe import MaterialiseSection
from quadmix.types import Corpus
pa.set_memory_pool(pa.system_memory_pool())
folder, order = sys.argv[1:]
manifest = materialise(
    read_value(folder + "/corpus/manifest.json", Corpus), folder,
    section=MaterialiseSection(order=order, shard_bytes=2_000_000), seed=7, budget=4000, identity="i",
    theta_label="t", mapper=lambda function, tasks: [function(t) for t in tasks],
)
# ru_maxrss would be that of the parent, if that is larger
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(manifest.ledger.copies, int(status["VmHWM"].split()[0]) // 1024)
"""


def large_run(folder: Path, size: int) -> Run:
    noise = "".join(random.Random(1).choices("abcdefghij klmnop", k=20_000))
    docs = [
        d | {"text": f"Text of {i} {noise[i % 9000 : i % 9000 + 8000]}"}
        for i, d in enumerate(documents(size))
    ]
    (folder / "in").mkdir(parents=True)
    for start in range(0, size, 100):
        table = pa.Table.from_pylist(docs[start : start + 100])
        pq.write_table(table, folder / "in" / f"{start:06d}.parquet", compression="zstd")
    return build_run(folder / "run", [str(folder / "in")], docs, split_bytes=500_000)


@pytest.mark.parametrize("order", ["corpus", "shuffled"])
def test_memory_does_not_grow_with_the_corpus(large: dict[int, Run], order: str):
    peaks: dict[int, int] = {}
    for size, run in large.items():
        child = [sys.executable, "-c", CHILD, str(run.folder), order]
        out = subprocess.run(child, capture_output=True, check=True, timeout=120, env=os.environ)
        rows, peaks[size] = map(int, out.stdout.split())
        assert rows * 8000 > size * 3000, "much of the text must be written for this to say anything"
        (run.folder / "dataset" / "manifest.json").unlink()
    assert peaks[6000] - peaks[600] < 25, f"MB at the peak: {peaks}; 48 MB of text came in"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    return {size: large_run(tmp_path_factory.mktemp("large"), size) for size in (600, 6000)}
