"""Bad input of every kind: refused by name, or quarantined row by row and counted; never lost silently."""

import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from regression_world import (
    SUFFIXES,
    dataset_rows,
    documents,
    encode,
    encode_table,
    home,
    pages,
    put,
    quarantine,
    quiet,
    recipe,
    write,
)

from quadmix.annotate.table import load_annotations
from quadmix.corpus import scan
from quadmix.corpus.scan import open_corpus
from quadmix.errors import InputError, QuadmixError, QuarantineError
from quadmix.io.atomic import read_json, read_value
from quadmix.materialise.table import read_selection
from quadmix.materialise.verify import verify_run
from quadmix.recipe import CorpusSection
from quadmix.types import Corpus

JSON = SUFFIXES[:3]


def freeze(folder: Path, **changes: Any) -> Corpus:
    section = CorpusSection(**{"paths": [str(folder / "in")], **changes})
    return open_corpus(section, str(home(folder)), mapper=lambda f, tasks: [f(t) for t in tasks])


def put_bytes(folder: Path, name: str, data: bytes) -> Path:
    path = folder / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def reasons(folder: Path) -> list[tuple[int, str]]:
    return [(r["row"], r["reason"]) for r in quarantine(home(folder))]


CALLED = [
    (called, really)
    for called in (*SUFFIXES, "feather", "warc", "warc.gz")
    for really in (*SUFFIXES, "utf-16")
    if called != really and (called, really) != ("feather", "arrow")
]


@pytest.mark.parametrize(("called", "really"), CALLED)
def test_a_file_of_another_format_than_its_suffix_says_is_refused_by_name(
    tmp_path: Path, called: str, really: str
) -> None:
    """Also beside good files, and also if its pieces were few enough to be tolerated as bad rows."""
    put(tmp_path, "good.jsonl", pages(30))
    rows = pages(3, first=100)
    data = encode(rows, "jsonl").decode().encode("utf-16") if really == "utf-16" else encode(rows, really)
    put_bytes(tmp_path, f"wrong.{called}", data)
    with pytest.raises(InputError, match=rf"wrong\.{called}' is "):
        freeze(tmp_path)
    assert not (home(tmp_path) / "corpus" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a", "a.jsonl.bz2", "a.jsonl.xz", "a.pdf"])
def test_an_unknown_suffix_is_refused_where_it_is_named(tmp_path: Path, name: str) -> None:
    path = put_bytes(tmp_path, name, encode(pages(3), "jsonl"))
    with pytest.raises(InputError, match=r"has no known suffix; expected one of .*\.jsonl"):
        freeze(tmp_path, paths=[str(path)])
    with pytest.raises(InputError, match=r"in' matches no file; expected a file, glob or folder with"):
        freeze(tmp_path)


def test_folders_and_globs_without_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    for pattern in ("in", "in/*.jsonl", "nowhere", "nowhere.jsonl"):
        with pytest.raises(InputError, match=rf"{tmp_path}/{pattern}' matches no file".replace("*", r"\*")):
            freeze(tmp_path, paths=[str(tmp_path / pattern)])


@pytest.mark.parametrize("suffix", JSON)
def test_byte_order_marks_and_line_ends_of_windows_change_nothing(tmp_path: Path, suffix: str) -> None:
    """A BOM before the first line, CRLF, blank lines, no newline at the end: the same documents."""
    rows = pages(20)
    lines = [json.dumps(r, ensure_ascii=False).encode() for r in rows]
    data = b"\xef\xbb\xbf" + b"\r\n".join(lines[:10]) + b"\r\n\r\n  \r\n" + b"\r\n".join(lines[10:])
    packed = {"jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}.get(suffix, bytes)(data)
    put_bytes(tmp_path, f"a.{suffix}", packed)
    for size in (10**9, 300):
        freeze(tmp_path, split_bytes=size)
        found = documents(home(tmp_path))
        assert [(d["doc_id"], d["doc_text"]) for d in found] == [(r["id"], r["text"]) for r in rows]
        assert reasons(tmp_path) == []


def test_nul_bytes_in_text_stay_and_raw_ones_cost_their_row(tmp_path: Path, source: Path) -> None:
    """An escaped NUL is text like any other; a raw one, or a torn page of zeros, is no JSON."""
    rows: list[Any] = pages(60)
    for row in rows:
        row["text"] = f"a\0b {row['text']}"
    lines = [json.dumps(r).encode() for r in rows]
    lines[7] = lines[7].replace(b"\\u0000", b"\0")
    lines.append(b"\0" * 4096)
    put(tmp_path, "a.jsonl", lines)
    put(tmp_path, "b.parquet", [r | {"id": f"p-{r['id']}"} for r in rows])
    manifest = write(tmp_path, source)
    assert manifest.ledger.quarantined == {"invalid_json": 2}
    assert reasons(tmp_path) == [(7, "invalid_json"), (60, "invalid_json")]
    written = dataset_rows(home(tmp_path))
    assert all(r["text"].startswith("a\0b ") for r in written)
    assert all(c.ok for c in verify_run(home(tmp_path)).checks)


SURROGATES = [
    b'"\\ud800"', b'"\\udfff x"', b'"x \\ud800\\u0041"', b'"\\udc00\\ud800"', b'"\xed\xa0\x80"',
    b'"\xed\xb0\x80"', b'"\xed\xa0\xbd\xed\xb8\x80"',
]  # fmt: skip


@pytest.mark.parametrize("column", ["text", "id", "note"])
def test_lone_surrogates_cost_their_row_wherever_they_stand(tmp_path: Path, column: str) -> None:
    """Escaped or raw, in the text, the id or another column: not UTF-8; a pair of escapes is a character."""
    lines: list[bytes] = []
    for i, value in enumerate(SURROGATES):
        cells = {"id": b'"s%d"' % i, "text": b'"fine"', "note": b'"fine"'} | {column: value}
        lines.append(b'{"id":%b,"text":%b,"note":%b}' % (cells["id"], cells["text"], cells["note"]))
    lines.append(b'{"id":"pair","text":"\\ud83d\\ude00","note":"fine"}')
    put(tmp_path, "a.jsonl", lines)
    freeze(tmp_path)
    assert [(d["doc_id"], d["doc_text"]) for d in documents(home(tmp_path))] == [("pair", "\U0001f600")]
    assert reasons(tmp_path) == [(i, "invalid_utf8") for i in range(len(SURROGATES))]


PEAK = """
import resource, sys
from quadmix.corpus.scan import open_corpus
from quadmix.recipe import CorpusSection
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
section = CorpusSection(paths=sys.argv[2:])
corpus = open_corpus(section, sys.argv[1], mapper=lambda f, tasks: [f(t) for t in tasks])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
print([[c.rows, c.documents, c.quarantined] for c in corpus.counts])
"""


def peak_of(folder: Path, *paths: Path) -> tuple[int, str]:
    """Scan files in a process of its own; return the MB it took and its counts."""
    child = [sys.executable, "-c", PEAK, str(folder / "peak"), *map(str, paths)]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak, counts = done.stdout.splitlines()
    return int(peak), counts


HEAD, TAIL = b'{"id":"1","text":"one"}\n{"text":"', b'"}\n{"id":"2","text":"two"}\n'


def test_a_line_of_200_mb_costs_one_row_and_bounded_memory(tmp_path: Path) -> None:
    path = put_bytes(tmp_path, "a.jsonl", HEAD)
    with path.open("ab") as out:
        out.truncate(200_000_000)  # a hole: 200 MB of NUL, and hardly a block on the disk
        out.seek(0, 2)
        out.write(TAIL)
    peak, counts = peak_of(tmp_path, path)
    found = json.loads(counts.replace("'", '"'))
    assert sum(c[0] for c in found) == 3
    assert sum(c[1] for c in found) == 2
    assert [c[2] for c in found if c[2]] == [{"row_too_long": 1}]
    assert peak < 150


@pytest.mark.parametrize("suffix", JSON[1:])
def test_a_decompression_bomb_costs_one_row_and_bounded_memory(tmp_path: Path, suffix: str) -> None:
    """300 MB of zeros on one line, of 30 to 300 kB compressed."""
    pack = {"jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}[suffix]
    zeros = pack(bytes(10_000_000))
    path = put_bytes(tmp_path, f"a.{suffix}", pack(HEAD) + zeros * 30 + pack(TAIL))
    assert path.stat().st_size < 400_000
    peak, counts = peak_of(tmp_path, path)
    assert counts == "[[3, 2, {'row_too_long': 1}]]"
    assert peak < 150


def test_a_bomb_of_a_single_zstd_frame_costs_bounded_memory(tmp_path: Path) -> None:
    """As above, where one block of the compressor is not the end of a frame."""
    packer = zstandard.ZstdCompressor().compressobj()
    data = [packer.compress(HEAD)] + [packer.compress(bytes(10_000_000)) for _ in range(30)]
    path = put_bytes(tmp_path, "a.jsonl.zst", b"".join([*data, packer.compress(TAIL), packer.flush()]))
    peak, counts = peak_of(tmp_path, path)
    assert counts == "[[3, 2, {'row_too_long': 1}]]"
    assert peak < 150


@pytest.mark.parametrize("second", ["a.jsonl", "b.jsonl", "b.parquet", "b.arrow", "b.jsonl.gz"])
@pytest.mark.parametrize("text", ["the same", "another"])
def test_two_documents_of_one_id_are_refused_with_both_places(tmp_path: Path, second: str, text: str) -> None:
    """In one file or in two, with equal or different texts: which of them is meant cannot be known."""
    rows = pages(30)
    twin = rows[11] | ({} if text == "the same" else {"text": "another"})
    if second == "a.jsonl":
        put(tmp_path, "a.jsonl", [*rows, twin])
        places = r"a\.jsonl, row 11, and .*a\.jsonl, row 30"
    else:
        put(tmp_path, "a.jsonl", rows)
        put(tmp_path, second, [*pages(4, first=500), twin])
        places = rf"a\.jsonl, row 11, and .*{second}, row 4"
    with pytest.raises(InputError, match=rf"'page-00011' occurs twice: .*{places}; ids must be distinct"):
        quiet(recipe(tmp_path), "annotate")
    assert not (home(tmp_path) / "corpus" / "manifest.json").exists()


def test_documents_of_one_key_stay_apart_to_the_end(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were two ids to share their 64-bit hash, the rows would stay separate documents with the same draw."""
    rows = pages(90)
    put(tmp_path, "a.jsonl", rows)
    put(tmp_path, "b.jsonl", [r | {"text": r["text"] + " again"} for r in rows])
    monkeypatch.setattr(
        scan, "_check_documents", lambda corpus, tasks: None
    )  # equal ids are the plainest case
    manifest = write(tmp_path, source)
    assert manifest.ledger.rows_in == 180
    assert manifest.ledger.selected + sum(manifest.ledger.dropped.values()) == 180
    table = read_selection(home(tmp_path))
    assert table.keys[:90].tolist() == table.keys[90:].tolist()
    assert table.expected[:90].tolist() != table.expected[90:].tolist()
    texts = {r["text"] for r in dataset_rows(home(tmp_path))}
    assert any(t.endswith(" again") for t in texts)
    assert not all(t.endswith(" again") for t in texts)
    assert len(texts) == manifest.ledger.selected
    assert [c.name for c in verify_run(home(tmp_path)).checks if not c.ok] == []


IDS: list[tuple[Any, str]] = [
    ("x", "x"), ("00012", "00012"), (7, "7"), (-3, "-3"), (1.5, "1.5"), (10**22, str(10**22)),
    (" ", " "), ("\n", "\n"), (None, ""), (True, ""), (False, ""), ([], ""), ({}, ""), ("", ""),
]  # fmt: skip


@pytest.mark.parametrize("suffix", JSON)
def test_ids_that_are_none_cost_their_row_and_numbers_keep_their_text(tmp_path: Path, suffix: str) -> None:
    rows: list[Any] = [{"id": value, "text": f"t{i}"} for i, (value, _) in enumerate(IDS)]
    rows += [{"text": "no id"}, b'{"id":NaN,"text":"nan"}', b'{"id":1e400,"text":"inf"}']
    put(tmp_path, f"a.{suffix}", rows)
    freeze(tmp_path)
    kept = [(i, name) for i, (_, name) in enumerate(IDS) if name]
    found = documents(home(tmp_path))
    assert [(d["doc_id"], d["doc_text"]) for d in found if d["doc_text"] != "inf"] == [
        (name, f"t{i}") for i, name in kept
    ]
    bad = dict(reasons(tmp_path))
    assert {i: r for i, r in bad.items() if i < len(IDS)} == {
        i: "null_id" for i, (_, name) in enumerate(IDS) if not name
    }
    assert (bad[len(IDS)], bad[len(IDS) + 1]) == ("null_id", "invalid_json")


@pytest.mark.parametrize("suffix", SUFFIXES[3:])
@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([3, None, 2**62], pa.int64()), ["3", None, str(2**62)]),
        (pa.array([2.5, float("nan"), None], pa.float64()), ["2.5", None, None]),
        (pa.array([True, False, None]), [None, None, None]),
        (pa.array(["007", "", None]), ["007", None, None]),
        (pa.array([b"ab", b"\xff", None], pa.binary()), ["ab", "\\xff", None]),
        (pa.nulls(3), [None, None, None]),
    ],
    ids=["integers", "floats", "booleans", "strings", "bytes", "nulls"],
)
def test_ids_of_columnar_files_follow_the_same_rule(
    tmp_path: Path, suffix: str, ids: Any, expected: Sequence[str | None]
) -> None:
    put(tmp_path, "good.jsonl", pages(3))
    put_bytes(tmp_path, f"z.{suffix}", encode_table(pa.table({"id": ids, "text": list("abc")}), suffix))
    freeze(tmp_path)
    assert [d["doc_id"] for d in documents(home(tmp_path))[3:]] == [e for e in expected if e is not None]
    assert reasons(tmp_path) == [(i, "null_id") for i, e in enumerate(expected) if e is None]


def test_a_text_or_id_column_that_some_files_lack_costs_their_rows_and_says_so(tmp_path: Path) -> None:
    """Under the limit their rows are in quarantine, above it the run stops with the reason."""
    put(tmp_path, "a.jsonl", pages(30))
    put(tmp_path, "b.jsonl", [{"id": f"n{i}", "body": "t"} for i in range(5)])
    put(tmp_path, "c.parquet", [{"text": "t", "x": 1}] * 4)
    corpus = freeze(tmp_path)
    assert corpus.documents == 30
    assert [r for _, r in reasons(tmp_path)] == ["missing_text"] * 5 + ["null_id"] * 4
    with pytest.raises(QuarantineError, match=r"9 of 39 rows are bad.*b\.jsonl, row 0: missing_text"):
        freeze(tmp_path, quarantine_rows=8, max_row_bytes=10**7)


def test_a_score_or_domain_that_some_files_lack_is_missing_and_below_coverage_the_run_stops(
    tmp_path: Path,
) -> None:
    put(tmp_path, "a.jsonl", pages(60))
    put(tmp_path, "b.parquet", [{"id": f"n{i}", "text": f"text {i}"} for i in range(20)])
    with pytest.raises(QuadmixError, match=r"'edu' covers 75.0000% .*\(null: 20\)"):
        quiet(recipe(tmp_path), "annotate")
    lenient = recipe(tmp_path, name="lenient", annotate__min_coverage=0.7)
    folder = quiet(lenient, "annotate").folder
    facts = read_json(folder / "stages" / "annotate.json")["facts"]
    assert facts["missing"] == {"domain": {"no_label": 20}, "score:edu": {"null": 20}}
    corpus = read_value(folder / "corpus" / "manifest.json", Corpus)
    loaded = load_annotations(folder, corpus, lenient.annotate, holdout=0.0, seed=0)
    assert loaded.surveyed.coverage["edu"] == {"arts": 1.0, "code": 1.0, "law": 1.0, "unknown": 0.0}


BIG = 2**70 + 1


def test_columns_that_change_their_type_reach_the_dataset_unchanged(tmp_path: Path, source: Path) -> None:
    """Mixed schemas, a nested field that changes, integers beyond 64 bits, deep nesting: values come back."""
    deep: Any = "bottom"
    for _ in range(40):
        deep = {"d": deep}
    odd = [
        {"k": 1, "meta": {"n": 1, "v": "s"}}, {"k": "one", "meta": {"n": "1", "v": ["s"]}},
        {"k": 2.5, "meta": {"n": BIG}}, {"k": [1, "x"], "meta": None}, {"k": {"a": {}}},
        {"k": deep, "meta": {"n": {"m": -BIG}}}, {"k": True, "meta": []}, {"huge": 2**63}, {"k": 2**53 + 1},
    ]  # fmt: skip
    plain = [{k: v for k, v in p.items() if k != "meta"} for p in pages(180)]
    rows = [p | odd[i % len(odd)] for i, p in enumerate(plain)]
    for number, suffix in enumerate(JSON):
        put(tmp_path, f"x.{suffix}", rows[number::3])
    quiet(recipe(tmp_path, source, budget__share=0.9), "materialise")
    facts = read_json(home(tmp_path) / "stages" / "corpus.json")
    assert [w.split()[1] for w in facts["warnings"]] == ["'k'", "'meta'", "'huge'"]
    given = {r["id"]: r for r in rows}
    corpus = read_value(home(tmp_path) / "corpus" / "manifest.json", Corpus)
    found = dataset_rows(home(tmp_path))
    assert len({r["id"] for r in found}) > 60
    for row in found:
        shown = {k: v for k, v in row.items() if k != "quadmix" and v is not None}
        for name in ("k", "meta", "huge"):
            if name in shown:
                shown[name] = json.loads(shown[name])
        assert shown == {k: v for k, v in given[row["id"]].items() if v is not None}
    assert corpus.documents == 180


def test_empty_texts_and_deep_json_cost_their_row(tmp_path: Path) -> None:
    """Empty, blank or no text; JSON nested 100,000 deep must neither crash nor count as a document."""
    deep = b"[" * 100_000 + b"]" * 100_000
    lines: list[Any] = [
        *pages(3), {"id": "e", "text": ""}, {"id": "b", "text": " \t\u3000\n"}, {"id": "n", "text": None},
        b'{"id":"d","text":"t","x":' + deep + b"}", deep, b'{"a":' * 50_000, b'{"id":"l","text":"cut',
    ]  # fmt: skip
    put(tmp_path, "a.jsonl", lines)
    freeze(tmp_path)
    assert len(documents(home(tmp_path))) == 3
    found = [r for _, r in reasons(tmp_path)]
    assert found == ["empty_text", "empty_text", "missing_text"] + ["invalid_json"] * 4


@pytest.mark.parametrize("suffix", SUFFIXES[3:])
def test_empty_texts_of_columnar_files_cost_their_row(tmp_path: Path, suffix: str) -> None:
    put(
        tmp_path, f"a.{suffix}", [{"id": str(i), "text": t} for i, t in enumerate(["t", "", " \u3000", None])]
    )
    freeze(tmp_path)
    assert [d["doc_id"] for d in documents(home(tmp_path))] == ["0"]
    assert [r for _, r in reasons(tmp_path)] == ["empty_text", "empty_text", "missing_text"]


def test_empty_files_of_every_format_beside_others_change_nothing(tmp_path: Path, source: Path) -> None:
    put(tmp_path, "a.jsonl", pages(60))
    for suffix in JSON:
        put(tmp_path, f"empty.{suffix}", [])
    empty = pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())})
    for suffix in SUFFIXES[3:]:
        put_bytes(tmp_path, f"empty.{suffix}", encode_table(empty, suffix))
    manifest = write(tmp_path, source)
    assert manifest.ledger.rows_in == 60
    assert all(c.ok for c in verify_run(home(tmp_path)).checks)
    for suffix in SUFFIXES[3:]:
        put_bytes(tmp_path, f"zero.{suffix}", b"")  # no bytes at all: not even an empty table
        with pytest.raises(InputError, match=rf"zero\.{suffix}' is truncated or corrupt"):
            freeze(tmp_path)
        (tmp_path / "in" / f"zero.{suffix}").unlink()
