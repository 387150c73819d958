"""Inputs of every kind: Parquet types, mixed types, documents without ids, several processes."""

import base64
import datetime
import decimal
import functools
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from materialise_run import Run, build_run, documents, write_inputs
from test_materialise_write import part_digests, rows_of

from quadmix.engine.tasks import Place, run_tasks
from quadmix.materialise.explain import explain
from quadmix.materialise.verify import verify_run
from quadmix.recipe import MaterialiseSection

JSONL = MaterialiseSection(format="jsonl.zst", shard_bytes=3000)
WHEN = datetime.datetime(2024, 2, 29, 12, 0, 0, 123456)


def parquet_run(tmp_path: Path) -> tuple[Run, pa.Table]:
    docs = documents(120)
    table = pa.table(
        {
            "id": [d["id"] for d in docs],
            "text": pa.array([d["text"] for d in docs], pa.large_string()),
            "label": pa.array([d["label"] for d in docs]).dictionary_encode(),
            "edu": [d["edu"] for d in docs],
            "noise": [d["noise"] for d in docs],
            "when": pa.array([WHEN] * 120, pa.timestamp("us")),
            "raw": pa.array([b"\x00\xff"] * 120, pa.binary()),
            "price": pa.array([decimal.Decimal("1.50")] * 120, pa.decimal128(10, 2)),
            "nested": pa.array([{"a": [{"b": i}], "c": "x"} for i in range(120)]),
            "large": pa.array([2**63 + i for i in range(120)], pa.uint64()),
        }
    ).replace_schema_metadata({"huggingface": "{}"})
    path = tmp_path / "in" / "a.parquet"
    path.parent.mkdir()
    pq.write_table(table, path, row_group_size=50)
    return build_run(tmp_path / "run", [str(path)], docs, split_bytes=2000), table


def test_parquet_columns_keep_their_values_and_their_types(tmp_path: Path):
    run, table = parquet_run(tmp_path)
    run.write()
    by_id = {r["id"]: r for r in table.to_pylist()}
    rows = rows_of(run.folder)
    assert len(rows) > 20
    for row in rows:
        assert {k: v for k, v in row.items() if k != "quadmix"} == by_id[row["id"]]
    schema = pq.read_schema(run.folder / "dataset" / "part-00000.parquet")
    for name in ("when", "raw", "price", "nested", "large"):
        assert schema.field(name).type == table.schema.field(name).type
    assert b"huggingface" not in schema.metadata
    assert verify_run(run.folder).ok


def test_parquet_types_that_json_lacks_are_written_as_text(tmp_path: Path):
    run, _ = parquet_run(tmp_path)
    run.write(section=JSONL)
    row = rows_of(run.folder)[0]
    assert row["when"] == WHEN.isoformat()
    assert base64.b64decode(row["raw"]) == b"\x00\xff"
    assert row["price"] == "1.50"
    assert row["large"] >= 2**63
    assert verify_run(run.folder).ok


def test_values_of_mixed_types_come_back_as_they_were_in_jsonl(tmp_path: Path):
    mixed: list[Any] = [1, "one", {"k": [1]}, None, 10**30]
    docs = [d | {"mixed": mixed[i % 5]} for i, d in enumerate(documents(60))]
    inputs = write_inputs(tmp_path / "in", [d | {"mixed": 0} for d in docs])
    lines = [orjson.dumps(d | {"mixed": "@"}).replace(b'"@"', _json(d["mixed"])) for d in docs]
    Path(inputs[0]).write_bytes(b"\n".join(lines[:30]) + b"\n")
    Path(inputs[1]).write_bytes(b"\n".join(lines[30:]))
    run = build_run(tmp_path / "run", inputs, docs)
    run.write(section=JSONL)
    by_id = {d["id"]: d["mixed"] for d in docs}
    rows = rows_of_exact(run.folder)
    assert {str(r["mixed"]) for r in rows} == {str(m) for m in mixed}
    for row in rows:
        assert row["mixed"] == by_id[row["id"]]


def _json(value: Any) -> bytes:
    return str(value).encode() if isinstance(value, int) else orjson.dumps(value)


def rows_of_exact(folder: Path) -> list[dict[str, Any]]:
    import json

    import zstandard

    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "dataset").glob("part-*")):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
        rows += [json.loads(line) for line in data.split(b"\n") if line]
    return rows


def test_documents_without_ids_are_traced_by_the_made_ones(tmp_path: Path):
    docs = [{k: v for k, v in d.items() if k != "id"} for d in documents(60)]
    run = build_run(tmp_path / "run", write_inputs(tmp_path / "in", docs), docs)
    run.write()
    assert verify_run(run.folder).ok
    row = rows_of(run.folder)[0]
    assert "id" not in row
    assert explain(run.folder, row["quadmix"]["doc_id"]).tokens == row["quadmix"]["tokens"]


def test_two_processes_write_the_bytes_of_one(run: Run, tmp_path: Path):
    first = run.write()
    other = build_run(tmp_path / "other", [f.path for f in run.corpus.files], run.docs)
    second = other.write(mapper=functools.partial(run_tasks, place=Place("processes", 2)))
    assert part_digests(run.folder) == part_digests(other.folder)
    assert first.digest == second.digest


@pytest.mark.parametrize("section", [MaterialiseSection(), JSONL])
def test_plain_tools_read_the_dataset(run: Run, section: MaterialiseSection):
    manifest = run.write(section=section)
    assert len(rows_of(run.folder)) == manifest.ledger.copies
