"""read_documents: the user's values come back as they were, in one schema, the same at every pass."""

import datetime as dt
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadmix.corpus.columns import column_values
from quadmix.corpus.read import read_documents, schema_of, user_rows
from quadmix.corpus.scan import open_corpus
from quadmix.errors import InputError, IntegrityError
from quadmix.recipe.sections import CorpusSection
from quadmix.types import Corpus


@pytest.fixture(scope="module", autouse=True)
def no_fsync() -> Iterator[None]:
    """These tests write thousands of small files; waiting for the disk proves nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


def mapper(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return [function(task) for task in tasks]


def freeze(tmp_path: Path, files: dict[str, Any], **settings: Any) -> Corpus:
    """Write the files (lists of rows as JSONL, tables as Parquet) and open them."""
    folder = tmp_path / "in"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, pa.Table):
            pq.write_table(content, folder / name, row_group_size=2)
        else:
            lines = (json.dumps(r, ensure_ascii=False).encode() + b"\n" for r in content)
            (folder / name).write_bytes(b"".join(lines))
    section = CorpusSection(paths=[str(folder)], **settings)
    return open_corpus(section, str(tmp_path / "run"), mapper=mapper)


def rows_of(corpus: Corpus, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    return [
        r
        for s in corpus.splits
        for b in read_documents(corpus, s, columns=columns)
        for r in user_rows(b.rows)
    ]


def ids_of(corpus: Corpus, columns: Sequence[str] | None = None) -> list[str]:
    return [i for s in corpus.splits for b in read_documents(corpus, s, columns=columns) for i in b.doc_id]


def without_nulls(value: Any) -> Any:
    """Drop null fields: to a table absent and null are the same, and nothing else is."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def kinds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: kinds(v) for k, v in value.items()}
    return [kinds(v) for v in value] if isinstance(value, list) else type(value).__name__


scalar = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5) | st.dates().map(str)
keys = st.text(max_size=3)
anything = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)


@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(["a", "b", "", "a.b", "\u00e9"]), anything), min_size=1, max_size=8
    ),
    size=st.sampled_from([40, 10**9]),
)
@settings(max_examples=120, deadline=None)
def test_json_values_survive_whatever_the_columns_hold(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], size: int
) -> None:
    """Conflicting types, nesting, nulls, columns that come and go: values and their types come back."""
    full = [{"id": f"{i:03d}", "text": "t", **row} for i, row in enumerate(rows)]
    corpus = freeze(tmp_path_factory.mktemp("any"), {"a.jsonl": full}, split_bytes=size)
    back = without_nulls(rows_of(corpus))
    expected = without_nulls(full)
    assert back == expected
    assert kinds(back) == kinds(expected)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (1, 2.5, "double"), (1, 2, "int64"), (None, 1, "int64"), ([1], [2.5], "list<item: double>"),
        ({"x": 1}, {"y": "s"}, "struct<x: int64, y: string>"), (None, None, "string"),
        (1, "s", "json"), (True, 1, "json"), (1.5, True, "json"), ([1.5], [True], "json"), ({}, {}, "json"),
        (2**53 + 1, 0.5, "json"), (2**64, 1, "json"), ("s", ["s"], "json"), ({"x": 1}, {"x": "s"}, "json"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("apart", [False, True])
def test_columns_unite_without_changing_a_value(
    tmp_path: Path, first: Any, second: Any, kind: str, apart: bool
) -> None:
    """The same type comes out whether two values meet in one file or in two."""
    rows = [{"id": "1", "text": "t", "c": first}, {"id": "2", "text": "t", "c": second}]
    files = {"a.jsonl": rows[:1], "b.jsonl": rows[1:]} if apart else {"a.jsonl": rows}
    corpus = freeze(tmp_path, files)
    field = schema_of(corpus).field("c")
    assert ("json" if field.metadata else str(field.type)) == kind
    assert [without_nulls(r.get("c")) for r in rows_of(corpus)] == [first, second]
    assert bool(corpus.warnings) == (kind == "json")
    if corpus.warnings:
        assert corpus.warnings[0].startswith("column 'c' holds conflicting types (")
    mixed = [column_values(b.rows, "c") for s in corpus.splits for b in read_documents(corpus, s)]
    assert [without_nulls(v) for vs in mixed for v in vs] == [first, second]


def test_objects_used_as_maps_stay_json_text(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": "t", "m": {f"k{i}-{j}": j for j in range(3)}} for i in range(400)]
    corpus = freeze(tmp_path, {"a.jsonl": rows}, split_bytes=1500)
    assert "more than 512 different keys" in corpus.warnings[0]
    assert rows_of(corpus) == rows


def test_columns_choose_what_rows_hold(tmp_path: Path) -> None:
    rows = [{"id": "1", "text": "t", "meta": {"score": 0.5, "n": 1}, "x.y": 3, "z": None}]
    corpus = freeze(tmp_path, {"a.jsonl": rows})
    assert rows_of(corpus, ["meta.score", "x.y"]) == [{"meta": {"score": 0.5, "n": 1}, "x.y": 3}]
    (batch,) = read_documents(corpus, corpus.splits[0], columns=())
    assert (batch.doc_id, batch.text, batch.rows.num_rows, batch.rows.num_columns) == (["1"], ["t"], 1, 0)
    (batch,) = read_documents(corpus, corpus.splits[0], columns=["meta.score", "x.y"])
    assert column_values(batch.rows, "meta.score") == [0.5]
    assert column_values(batch.rows, "x.y") == [3]
    for name in ("nosuch", "meta.nosuch", "text.deep"):
        with pytest.raises(InputError, match="have no column"):
            list(read_documents(corpus, corpus.splits[0], columns=[name]))
    with pytest.raises(InputError, match=r"no column 'nosuch'; the files have 'meta', 'x\.y'"):
        column_values(batch.rows, "nosuch")


def test_batches_are_bounded(tmp_path: Path) -> None:
    corpus = freeze(tmp_path, {"a.jsonl": [{"id": str(i), "text": "t"} for i in range(2500)]})
    assert [len(b.text) for b in read_documents(corpus, corpus.splits[0])] == [1000, 1000, 500]


PARQUET = pa.table(
    {
        "id": pa.array([3, 1, 2, 9007199254740993], pa.int64()),
        "text": pa.array(["a", "b", "c", "d"]).dictionary_encode(),
        "when": pa.array([dt.datetime(2024, 1, 2, tzinfo=dt.UTC)] * 4, pa.timestamp("us", "UTC")),
        "price": pa.array([Decimal("1.10")] * 4),
        "tags": pa.array([["x"], [], None, ["y", "z"]]),
        "meta": pa.array([{"lang": "en", "n": 1}] * 4),
        "small": pa.array([1, 2, 3, 4], pa.int8()),
    }
)


def test_parquet_values_and_types_survive(tmp_path: Path) -> None:
    corpus = freeze(tmp_path, {"a.parquet": PARQUET}, split_bytes=1)
    assert len(corpus.splits) == 2
    assert rows_of(corpus) == PARQUET.to_pylist()
    assert ids_of(corpus) == ["3", "1", "2", "9007199254740993"]
    assert schema_of(corpus).field("small").type == pa.int8()
    assert corpus.warnings == ()


def test_parquet_and_jsonl_unite(tmp_path: Path) -> None:
    """A column may be missing, nested deeper or float in one of the files."""
    other = [{"id": "x", "text": "t", "meta": {"lang": "de", "more": [1]}, "small": 0.5, "new": "n"}]
    corpus = freeze(tmp_path, {"a.parquet": PARQUET.drop_columns(["id"]).append_column("id", [list("abcd")]),
                               "b.jsonl": other})  # fmt: skip
    rows = rows_of(corpus)
    assert rows[0]["meta"] == {"lang": "en", "n": 1, "more": None}
    assert (rows[0]["small"], rows[0]["new"], rows[4]["small"], rows[4]["new"]) == (1.0, None, 0.5, "n")
    assert without_nulls(rows[4]) == other[0]


def bad_utf8(values: list[bytes]) -> Any:
    binary = pa.array(values, pa.binary())
    return pa.StringArray.from_buffers(len(values), *binary.buffers()[1:], binary.buffers()[0])


@pytest.mark.parametrize("column", ["text", "note"])
def test_one_bad_byte_in_parquet_costs_one_row_at_every_pass(tmp_path: Path, column: str) -> None:
    """Also when the bad byte is in a column that the later pass does not ask for."""
    columns: dict[str, Any] = {"id": list("abc"), "text": ["x", "y", "z"], "note": ["1", "2", "3"]}
    columns[column] = bad_utf8([b"fine", b"caf\xe9", b"good"])
    corpus = freeze(tmp_path, {"a.parquet": pa.table(columns)})
    assert ids_of(corpus) == ids_of(corpus, ()) == ids_of(corpus, ["id"]) == ["a", "c"]
    assert [c.quarantined for c in corpus.counts] == [{"invalid_utf8": 1}]
    found = pq.read_table(tmp_path / "run/quarantine/part-00000.parquet").to_pylist()
    assert [(r["row"], r["offset"], r["reason"]) for r in found] == [(1, None, "invalid_utf8")]
    assert found[0]["data"] == (b"caf\xe9" if column == "text" else b"y")


def test_parquet_rows_are_checked_like_json_rows(tmp_path: Path) -> None:
    nan = float("nan")
    table = pa.table(
        {
            "id": pa.array([1.5, None, nan, 4.0, 5.0, 6.0]),
            "text": pa.array([b"ok", b"a", b"b", b" ", None, b"x" * 60], pa.binary()),
        }
    )
    corpus = freeze(tmp_path, {"a.parquet": table}, max_row_bytes=50)
    assert ids_of(corpus) == ["1.5"]
    found = pq.read_table(tmp_path / "run/quarantine/part-00000.parquet").to_pylist()
    assert [(r["row"], r["reason"]) for r in found] == [
        (1, "null_id"), (2, "null_id"), (3, "empty_text"), (4, "missing_text"), (5, "row_too_long"),
    ]  # fmt: skip


def test_nested_text_and_id_are_reached_in_both_formats(tmp_path: Path) -> None:
    rows = [{"doc": {"body": {"text": f"t{i}"}}, "meta": {"id": i}} for i in range(3)]
    names = {"text": "doc.body.text", "id": "meta.id"}
    for folder, content in (("j", rows), ("p", pa.Table.from_pylist(rows))):
        suffix = "parquet" if folder == "p" else "jsonl"
        corpus = freeze(tmp_path / folder, {f"a.{suffix}": content}, columns=names)
        assert ids_of(corpus, ()) == ["0", "1", "2"]
        texts = [t for s in corpus.splits for b in read_documents(corpus, s, columns=()) for t in b.text]
        assert texts == ["t0", "t1", "t2"]


def test_a_file_changed_since_the_scan_is_noticed(tmp_path: Path) -> None:
    corpus = freeze(tmp_path, {"a.jsonl": [{"id": "1", "text": "t"}, {"id": "2", "text": "t"}]})
    (count,) = corpus.counts
    with pytest.raises(IntegrityError, match=r"2 documents, the scan counted 3; the file changed since"):
        list(read_documents(replace(corpus, counts=(replace(count, documents=3),)), corpus.splits[0]))
