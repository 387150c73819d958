"""read_arrow_documents gives what read_documents gives, whatever the files hold, and judges rows alike."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from quadmix.corpus.arrow import Rule, is_plain, sound_places
from quadmix.corpus.read import read_arrow_documents, read_documents
from quadmix.corpus.scan import open_corpus
from quadmix.errors import IntegrityError
from quadmix.recipe.sections import CorpusSection
from quadmix.types import ColumnMap, Corpus

BAD_UTF8 = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())


def mapper(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return [function(task) for task in tasks]


def freeze(folder: Path, table: pa.Table | list[dict[str, Any]], **settings: Any) -> Corpus:
    (folder / "in").mkdir(parents=True)
    if isinstance(table, pa.Table):
        pq.write_table(table, folder / "in" / "a.parquet", row_group_size=2)
    else:
        (folder / "in" / "a.jsonl").write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in table))
    section = CorpusSection(paths=[str(folder / "in")], **settings)
    return open_corpus(section, str(folder / "run"), mapper=mapper)


TEXTS = pa.array(["one", None, "", " \t\u2028", "two", "x" * 3000, "\u00a0é", "four"])
NUMBERS = pa.array(range(8))
KINDS: dict[str, pa.Table | list[dict[str, Any]]] = {
    "strings": pa.table({"id": [f"d{i}" for i in range(8)], "text": TEXTS, "n": NUMBERS}),
    "null and empty ids": pa.table({"id": ["a", "b", "c", "d", None, "f", "", "h"], "text": TEXTS}),
    "whole ids": pa.table({"id": pa.array([*range(-3, 4), None], pa.int64()), "text": TEXTS}),
    "large ids": pa.table({"id": pa.array(range(2**64 - 8, 2**64), pa.uint64()), "text": TEXTS}),
    "float ids": pa.table({"id": [0.5, 1e22, float("nan"), 3.0, 4.0, 5.0, 6.0, 7.25], "text": TEXTS}),
    "no ids": pa.table({"text": TEXTS.cast(pa.large_string()), "n": NUMBERS}),
    "all sound, no ids": pa.table({"text": ["a", "b", "c", "d", "e"]}),
    "all sound": pa.table({"id": list("vwxyz"), "text": ["a", "b", "c", "d", "e"]}),
    "dictionaries": pa.table({"id": list("abcdefgh"), "text": TEXTS.dictionary_encode()}),
    "bytes": pa.table({"id": list("abc"), "text": pa.array([b"ok", b"\xff", b"\xc3\xa9"], pa.binary())}),
    "broken text": pa.table({"id": list("abc"), "text": BAD_UTF8}),
    "broken elsewhere": pa.table({"id": list("abc"), "text": ["x", "y", "z"], "url": BAD_UTF8}),
    "nested": pa.table({"meta": [{"id": f"m{i}", "text": t} for i, t in enumerate(TEXTS.to_pylist())]}),
    "lines": [{"id": i, "text": t, "k": {"a": i}} for i, t in enumerate(TEXTS.to_pylist())],
    "lines without ids": [{"text": t} for t in TEXTS.to_pylist()],
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_the_documents_are_those_of_the_slow_way(tmp_path: Path, name: str):
    columns = {"columns": {"text": "meta.text", "id": "meta.id"}} if name == "nested" else {}
    corpus = freeze(tmp_path, KINDS[name], split_bytes=60, max_row_bytes=2000, **columns)
    found = 0
    for split in corpus.splits:
        slow = [(b.doc_id, b.rows) for b in read_documents(corpus, split)]
        fast = list(read_arrow_documents(corpus, split))
        assert [b.doc_id.to_pylist() for b in fast] == [ids for ids, _ in slow]
        for batch, (ids, rows) in zip(fast, slow, strict=True):
            assert batch.doc_id.type == pa.string()
            everyone = np.arange(len(ids), dtype=np.int64)
            assert batch.take(everyone).equals(rows)
            twice = np.repeat(everyone, 2)
            assert batch.take(twice).equals(rows.take(pa.array(twice)))
            assert batch.bytes > 0
            found += len(ids)
    assert found == corpus.documents > 0


def test_texts_of_samples_come_as_they_are_in_the_file(tmp_path: Path):
    corpus = freeze(tmp_path / "a", KINDS["strings"], max_row_bytes=2000)
    batch = next(read_arrow_documents(corpus, corpus.splits[0]))
    assert [batch.value(i, "text") for i in range(2)] == ["one", "two"]
    lines = freeze(tmp_path / "b", KINDS["lines"], max_row_bytes=2000)
    batch = next(read_arrow_documents(lines, lines.splits[0]))
    assert (batch.value(1, "text"), batch.value(1, "k.a")) == ("two", 4)


def test_arrow_and_python_agree_on_what_space_is():
    every = [chr(i) for i in range(sys.maxunicode + 1) if not 0xD800 <= i <= 0xDFFF]
    found = pc.call_function("utf8_is_space", [pa.array(every)]).to_pylist()
    assert found == [c.isspace() for c in every]


def test_rows_are_counted_among_all_rows():
    rule = Rule(path="a", columns=ColumnMap(text="text", id="id"), limit=10)
    table = pa.record_batch({"id": ["a", "b", None, "d"], "text": ["x", "y" * 11, "z", "w"]})
    places = sound_places(table, rule)
    assert places is not None
    assert places.tolist() == [0, 3]
    assert sound_places(table.slice(3), rule) is None
    broken = pa.record_batch({"id": list("abc"), "text": BAD_UTF8})
    places = sound_places(broken, rule)
    assert places is not None
    assert places.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("kind", "plain"),
    [(pa.string(), True), (pa.large_string(), True), (pa.binary(), False), (pa.int64(), False)],
)
def test_only_strings_and_whole_numbers_are_plain(kind: pa.DataType, plain: bool):
    columns = ColumnMap(text="text", id="id")
    assert is_plain(pa.schema([("text", kind), ("id", pa.string())]), columns) == plain
    assert is_plain(pa.schema([("text", pa.string()), ("id", pa.int16())]), columns)
    assert not is_plain(pa.schema([("text", pa.string()), ("id", pa.float64())]), columns)
    assert not is_plain(pa.schema([("text", pa.string())]), columns)


@pytest.mark.parametrize("text", [None, "", " ", "x" * 3000])
def test_a_row_that_became_none_is_found_when_it_is_taken(tmp_path: Path, text: str | None):
    corpus = freeze(tmp_path, KINDS["all sound"], max_row_bytes=2000)
    changed = pa.table({"id": list("vwxyz"), "text": ["a", "b", text, "d", "e"]})
    pq.write_table(changed, tmp_path / "in" / "a.parquet", row_group_size=2)
    batch = next(read_arrow_documents(corpus, corpus.splits[0]))
    assert batch.take(np.array([0, 1])).num_rows == 2
    with pytest.raises(IntegrityError, match="a row is no document, the scan found all to be"):
        batch.take(np.array([0, 2]))


def test_lost_rows_are_found_at_the_end(tmp_path: Path):
    corpus = freeze(tmp_path, KINDS["all sound"])
    shorter = pa.table({"id": list("vwx"), "text": ["a", "b", "c"]})
    pq.write_table(shorter, tmp_path / "in" / "a.parquet", row_group_size=1)
    with pytest.raises(IntegrityError, match="the scan counted 5"):
        list(read_arrow_documents(corpus, corpus.splits[0]))
