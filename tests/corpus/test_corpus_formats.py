"""Whatever the format, the same documents: ids, texts, columns, quarantine and errors agree."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from quadmix.corpus.read import read_documents
from quadmix.corpus.scan import open_corpus
from quadmix.errors import InputError, QuarantineError
from quadmix.io.atomic import value_digest
from quadmix.recipe.sections import CorpusSection
from quadmix.types import Corpus

Rows = Sequence[dict[str, Any]]


def jsonl(rows: Rows) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in rows)


def parquet(rows: Rows) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows)), out, row_group_size=7)
    return out.getvalue().to_pybytes()


def arrow(table: pa.Table, layout: str = "file") -> bytes:
    out = pa.BufferOutputStream()
    with (pa.ipc.new_file if layout == "file" else pa.ipc.new_stream)(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return out.getvalue().to_pybytes()


def ipc(layout: str) -> Callable[[Rows], bytes]:
    return lambda rows: arrow(pa.Table.from_pylist(list(rows)), layout)


def wet(rows: Rows) -> bytes:
    out: list[bytes] = []
    for row in rows:
        body = row["text"].encode()
        head = (
            f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {row['url']}\r\n"
            f"WARC-Date: {row['date']}\r\n"
            f"WARC-Record-ID: {row['id']}\r\nWARC-Identified-Content-Language: {row['language']}\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        out.append(head.encode() + body + b"\r\n\r\n")
    return b"".join(out)


FORMATS: dict[str, Callable[[Rows], bytes]] = {
    "a.jsonl": jsonl,
    "a.jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
    "a.jsonl.zst": lambda rows: zstandard.compress(jsonl(rows)),
    "a.parquet": parquet,
    "a.arrow": ipc("file"),
    "a.feather": ipc("stream"),
    "a.wet": wet,
    "a.warc.wet.gz": lambda rows: b"".join(gzip.compress(wet([r])) for r in rows),
}
COLUMNAR = ["a.parquet", "a.arrow", "a.feather"]


def put(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "in" / name).write_bytes(data)


def freeze(tmp_path: Path, **settings: Any) -> Corpus:
    section = CorpusSection(**{"paths": [str(tmp_path / "in")], **settings})
    return open_corpus(section, str(tmp_path / "run"), mapper=lambda f, tasks: [f(t) for t in tasks])


def documents(corpus: Corpus) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for batch in (b for s in corpus.splits for b in read_documents(corpus, s)):
        for identity, text, row in zip(batch.doc_id, batch.text, batch.rows.to_pylist(), strict=True):
            out.append({"doc_id": identity, "doc_text": text, **row})
    return out


def quarantine(tmp_path: Path) -> list[dict[str, Any]]:
    parts = sorted((tmp_path / "run" / "quarantine").glob("*"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def pages(count: int) -> list[dict[str, Any]]:
    ids = ["00012", "12345678901234567890123", "<urn:uuid:a-b>", *(f"{i:05d}" for i in range(20, 17 + count))]
    return [
        {"text": "007" if i == 1 else f"page {i} \u00e9", "url": f"https://a.org/{i}", "id": ids[i],
         "date": "2024-05-01T00:00:00Z", "language": "eng"}
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    """Ids, texts, all columns and their digest; ids and texts that look like numbers stay strings."""
    rows = pages(30)
    put(tmp_path, name, FORMATS[name](rows))
    corpus = freeze(tmp_path, split_bytes=500)
    expected = [{"doc_id": r["id"], "doc_text": r["text"], **r} for r in rows]
    assert value_digest(documents(corpus)) == value_digest(expected)
    assert documents(corpus)[1]["doc_text"] == "007"
    assert sum(c.text_bytes for c in corpus.counts) == sum(len(r["text"].encode()) for r in rows)
    splits = len(corpus.splits)
    assert splits > 1 if name in ("a.jsonl", "a.parquet", "a.arrow") else splits == 1


@pytest.mark.parametrize("name", [n for n in FORMATS if "w" not in n.removeprefix("a.arrow")])
def test_ids_that_are_numbers_become_the_text_of_the_number(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, FORMATS[name]([{"id": 10**17 + i, "text": "t"} for i in range(3)]))
    assert [d["doc_id"] for d in documents(freeze(tmp_path))] == [str(10**17 + i) for i in range(3)]


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_without_rows_beside_others_changes_nothing_and_alone_is_an_error(
    tmp_path: Path, name: str
) -> None:
    schema = pa.schema([(n, pa.string()) for n in ("text", "url", "id", "date", "language")])
    empty = {
        "a.parquet": lambda: parquet([]),
        "a.arrow": lambda: arrow(schema.empty_table()),
        "a.feather": lambda: arrow(schema.empty_table(), "stream"),
    }.get(name, lambda: b"")()
    put(tmp_path, name, empty)
    with pytest.raises(InputError, match=r"holds no row that can be read|holds no document"):
        freeze(tmp_path)
    put(tmp_path, "b.jsonl", jsonl(pages(5)))
    assert [d["doc_id"] for d in documents(freeze(tmp_path))] == [r["id"] for r in pages(5)]


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "a.jsonl"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_cut_short_fails_the_scan_by_name(tmp_path: Path, name: str, share: float) -> None:
    """No half of a file is ever taken for the whole one (a plain WARC file: unless cut between records)."""
    data = FORMATS[name](pages(200))
    put(tmp_path, "0.jsonl", jsonl([{**p, "id": f"x{p['id']}"} for p in pages(9)]))
    put(tmp_path, name, data[: int(len(data) * share)])
    with pytest.raises(InputError, match=rf"{name}' is truncated or corrupt"):
        freeze(tmp_path)


def strings(values: Sequence[bytes]) -> pa.Array:
    """Return strings without the check that they are UTF-8."""
    offsets = pa.array([0, *(sum(map(len, values[: i + 1])) for i in range(len(values)))], pa.int32())
    return pa.StringArray.from_buffers(len(values), offsets.buffers()[1], pa.py_buffer(b"".join(values)))


@pytest.mark.parametrize("name", COLUMNAR)
@pytest.mark.parametrize("column", ["text", "note"])
def test_one_bad_byte_costs_one_row(tmp_path: Path, name: str, column: str) -> None:
    """In the text or in any other column; what is in quarantine says which bytes they were."""
    values = [f"t{i}".encode() for i in range(20)]
    values[11] = b"caf\xe9"
    good = pa.array([f"u{i}" for i in range(20)])
    other = {"text": "note", "note": "text"}[column]
    table = pa.table({"id": [f"{i:03d}" for i in range(20)], column: strings(values), other: good})
    if name == "a.parquet":
        (tmp_path / "in").mkdir()
        pq.write_table(table, tmp_path / "in" / name)
    else:
        put(tmp_path, name, arrow(table, {"a.arrow": "file", "a.feather": "stream"}[name]))
    corpus = freeze(tmp_path)
    assert [d["doc_id"] for d in documents(corpus)] == [f"{i:03d}" for i in range(20) if i != 11]
    (bad,) = quarantine(tmp_path)
    assert (bad["row"], bad["reason"]) == (11, "invalid_utf8")
    assert bad["data"] == (b"caf\xe9" if column == "text" else b"u11")
    ids = [i for s in corpus.splits for b in read_documents(corpus, s, columns=["id"]) for i in b.doc_id]
    assert len(ids) == 19


def test_offsets_and_codes_that_point_outside_their_data_fail_the_file(tmp_path: Path) -> None:
    """Not one row in quarantine: nothing of such a batch can be trusted, and reading it may crash."""
    offsets = pa.array([0, 900, 6], pa.int32()).buffers()[1]
    wild = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"abcdef"))
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 7]), ["a"], safe=False)
    for array in (wild, codes):
        put(tmp_path, "a.arrow", arrow(pa.table({"text": ["t", "u"], "x": array})))
        with pytest.raises(InputError, match=r"a\.arrow' is truncated or corrupt"):
            freeze(tmp_path)


def test_bad_rows_of_arrow_have_the_reasons_of_json(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b", None, "d"], "text": ["t", None, "t", " "]})
    put(tmp_path, "a.arrow", arrow(table))
    assert [d["doc_id"] for d in documents(freeze(tmp_path))] == ["a"]
    assert [r["reason"] for r in quarantine(tmp_path)] == ["missing_text", "null_id", "empty_text"]


def test_rows_of_html_are_counted_and_over_the_limit_they_stop_the_run(tmp_path: Path) -> None:
    page = wet([{**pages(1)[0], "id": "h"}]).replace(b"text/plain", b"text/html")
    put(tmp_path, "a.warc", wet(pages(3)) + page)
    corpus = freeze(tmp_path)
    assert (corpus.counts[0].rows, corpus.counts[0].quarantined) == (4, {"html_not_extracted": 1})
    assert [(r["row"], r["reason"]) for r in quarantine(tmp_path)] == [(3, "html_not_extracted")]
    with pytest.raises(QuarantineError, match=r"row 3: html_not_extracted"):
        freeze(tmp_path, quarantine_rows=0, max_row_bytes=1000)


def test_a_file_of_html_alone_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "a.warc", wet(pages(3)).replace(b"text/plain", b"text/html"))
    put(tmp_path, "b.jsonl", jsonl(pages(2)))
    with pytest.raises(InputError, match=r"a\.warc' holds 3 HTML pages and no plain text"):
        freeze(tmp_path)


def test_formats_mix_in_one_corpus_and_their_columns_unite(tmp_path: Path) -> None:
    for i, name in enumerate(FORMATS):
        put(tmp_path, name, FORMATS[name]([{**p, "id": f"{i}-{p['id']}"} for p in pages(3)]))
    found = documents(freeze(tmp_path))
    assert len(found) == 3 * len(FORMATS)
    assert all(set(d) == {"doc_id", "doc_text", "text", "url", "id", "date", "language"} for d in found)


def test_views_and_dictionaries_of_text_are_text(tmp_path: Path) -> None:
    table = pa.table({
        "id": pa.array(["a", "b", "c"], pa.string_view()),
        "text": pa.array(["t", None, "t"]).dictionary_encode(),
    })  # fmt: skip
    put(tmp_path, "a.arrow", arrow(table))
    put(tmp_path, "b.jsonl", jsonl([{"id": "d", "text": "u"}]))
    assert [(d["id"], d["text"]) for d in documents(freeze(tmp_path))] == [("a", "t"), ("c", "t"), ("d", "u")]
