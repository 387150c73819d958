"""open_corpus: what is frozen, what is refused, what lies in quarantine."""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from quadmix.corpus import scan
from quadmix.corpus.read import read_documents
from quadmix.corpus.scan import open_corpus
from quadmix.errors import InputError, QuarantineError
from quadmix.recipe import Recipe
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


def write(path: Path, rows: Iterable[Any]) -> Path:
    """Write rows (bytes as they are, all else as JSON) in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in rows)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    path.write_bytes(zstandard.compress(data) if path.suffix == ".zst" else data)
    return path


def freeze(tmp_path: Path, **settings: Any) -> Corpus:
    section = CorpusSection(**{"paths": [str(tmp_path / "in")], **settings})
    return open_corpus(section, str(tmp_path / "run"), mapper=mapper)


def documents(corpus: Corpus) -> list[tuple[str, str]]:
    batches = [b for s in corpus.splits for b in read_documents(corpus, s, columns=())]
    return [pair for b in batches for pair in zip(b.doc_id, b.text, strict=True)]


def quarantine(tmp_path: Path) -> list[dict[str, Any]]:
    parts = sorted((tmp_path / "run" / "quarantine").glob("*"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def doc(i: int) -> dict[str, Any]:
    return {"id": f"d{i:04d}", "text": f"text number {i} \u00e9"}


BAD = [
    (b'{"id":"x","text":"\xff"}', "invalid_utf8"),
    (b'{"id":"x","text":"\\ud800"}', "invalid_utf8"),
    (b'{"id":"x","text":', "invalid_json"),
    (b"[]", "not_an_object"),
    (b'{"id":"x"}', "missing_text"),
    (b'{"id":"x","text":null}', "missing_text"),
    (b'{"id":"x","text":7}', "text_not_string"),
    (b'{"id":"x","text":""}', "empty_text"),
    (b'{"id":"x","text":" \\n\\t"}', "empty_text"),
    (b'{"id":null,"text":"t"}', "null_id"),
    (b'{"text":"t"}', "null_id"),
    (b'{"id":"","text":"t"}', "null_id"),
    (b'{"id":["x"],"text":"t"}', "null_id"),
    (b'{"id":true,"text":"t"}', "null_id"),
    (b'{"id":"x","text":"' + b"y" * 3000 + b'"}', "row_too_long"),
]


@pytest.mark.parametrize("split_bytes", [10**9, 200])
def test_rows_conserve_and_bad_ones_are_named(tmp_path: Path, split_bytes: int) -> None:
    """rows = documents + quarantined; bad rows lie in quarantine with file, row, offset, reason."""
    rows: list[Any] = [doc(0)]
    for i, (line, _) in enumerate(BAD):
        rows += [line, b"", doc(i + 1)]
    path = write(tmp_path / "in" / "a.jsonl", rows)
    corpus = freeze(tmp_path, split_bytes=split_bytes, max_row_bytes=2000)
    assert [d for d, _ in documents(corpus)] == [f"d{i:04d}" for i in range(len(BAD) + 1)]
    assert sum(c.rows for c in corpus.counts) == 2 * len(BAD) + 1
    for count in corpus.counts:
        assert count.rows == count.documents + sum(count.quarantined.values())
    data = path.read_bytes()
    found = quarantine(tmp_path)
    assert [(r["row"], r["reason"]) for r in found] == [(2 * i + 1, b[1]) for i, b in enumerate(BAD)]
    for row, (line, _) in zip(found, BAD, strict=True):
        assert row["path"] == str(path)
        assert row["data"] == line[:2000]
        assert data[row["offset"] :].startswith(line)


def test_text_bytes_are_utf8_bytes_of_the_documents(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", [doc(i) for i in range(30)])
    corpus = freeze(tmp_path)
    assert corpus.counts[0].text_bytes == sum(len(t.encode()) for _, t in documents(corpus))


def test_split_size_and_compression_change_nothing(tmp_path: Path) -> None:
    rows = [doc(i) for i in range(300)]
    expected = [(r["id"], r["text"]) for r in rows]
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst"):
        for size in (10**9, 1000, 37):
            folder = tmp_path / f"{name}-{size}"
            write(folder / "in" / name, rows)
            assert documents(freeze(folder, split_bytes=size)) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'"00012"', "00012"), (b"12", "12"), (b"1.10", "1.10"), (b"1e5", "1e5"),
        (b"18446744073709551615", "18446744073709551615"),
        (b"123456789012345678901234567890", "123456789012345678901234567890"), (b'"\\u0000"', "\x00"),
    ],
)  # fmt: skip
def test_ids_are_strings_and_numbers_keep_their_text(tmp_path: Path, raw: bytes, expected: str) -> None:
    write(tmp_path / "in" / "a.jsonl", [b'{"meta":{"key":' + raw + b'},"text":"t"}'])
    corpus = freeze(tmp_path, columns={"id": "meta.key"})
    assert documents(corpus) == [(expected, "t")]


def test_documents_without_ids_get_stable_ones(tmp_path: Path) -> None:
    """Made-up ids count rows in the file, whatever the splits, and survive a move of the files."""
    rows = [{"text": f"t{i}"} if i % 7 else b"bad" for i in range(1, 60)]
    ids: list[list[str]] = []
    for name, size in (("x", 10**9), ("y", 50)):
        write(tmp_path / name / "in" / "a.jsonl", rows)
        ids.append([d for d, _ in documents(freeze(tmp_path / name, split_bytes=size))])
    assert ids[0] == ids[1]
    assert [int(i.split(":")[1]) for i in ids[0]] == [i for i in range(59) if (i + 1) % 7]


@pytest.mark.parametrize("split_bytes", [10**9, 100])
def test_duplicate_ids_are_refused_with_both_places(tmp_path: Path, split_bytes: int) -> None:
    write(tmp_path / "in" / "a.jsonl", [*(doc(i) for i in range(20)), b"bad"])
    write(tmp_path / "in" / "b.jsonl.gz", [doc(i) for i in range(100, 105)] + [doc(13)])
    with pytest.raises(
        InputError, match=r"'d0013' occurs twice: .*/a\.jsonl, row 13, and .*/b\.jsonl\.gz, row 5;"
    ):
        freeze(tmp_path, split_bytes=split_bytes)
    assert not (tmp_path / "run" / "corpus" / "manifest.json").exists()


def test_number_and_string_of_one_text_are_one_id(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", [{"id": 7, "text": "a"}, {"id": "7", "text": "b"}])
    with pytest.raises(InputError, match="'7' occurs twice"):
        freeze(tmp_path)


def test_colliding_hashes_are_no_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    write(tmp_path / "in" / "a.jsonl", [doc(i) for i in range(5)])
    monkeypatch.setattr(scan, "doc_keys", lambda ids: np.zeros(len(ids), dtype=np.uint64))
    assert freeze(tmp_path).documents == 5


def test_the_same_file_twice_without_ids_is_refused(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        write(tmp_path / "in" / folder / "a.jsonl", [{"text": "t"}])
        write(tmp_path / "in" / folder / "empty.jsonl", [])
    with pytest.raises(InputError, match=r"x/a\.jsonl' and '.*y/a\.jsonl' are the same"):
        freeze(tmp_path)


def test_an_empty_file_is_allowed_and_an_empty_corpus_refused(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", [])
    pq.write_table(pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}),
                   tmp_path / "in" / "b.parquet")  # fmt: skip
    with pytest.raises(InputError, match="the corpus holds no document"):
        freeze(tmp_path)
    write(tmp_path / "in" / "c.jsonl", [doc(1)])
    assert freeze(tmp_path).documents == 1
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    write(tmp_path / "in" / "a.jsonl", [b"", b"", b"rubbish"])
    with pytest.raises(InputError, match="holds no row that can be read"):
        freeze(tmp_path)


@pytest.mark.parametrize(
    ("rows", "share", "fails"), [(9, 0.09, True), (10, 0.09, False), (9, 0.1, False), (0, 0.0, True)]
)
def test_quarantine_fails_only_above_both_limits(
    tmp_path: Path, rows: int, share: float, fails: bool
) -> None:
    """10 bad rows of 100."""
    write(tmp_path / "in" / "a.jsonl", [doc(i) if i % 10 else b"bad" for i in range(100)])
    if not fails:
        assert freeze(tmp_path, quarantine_rows=rows, quarantine_share=share).documents == 90
        return
    with pytest.raises(
        QuarantineError, match=r"10 of 100 rows are bad.*a\.jsonl, row 0: invalid_json; .*row 10"
    ):
        freeze(tmp_path, quarantine_rows=rows, quarantine_share=share)
    assert len(quarantine(tmp_path)) == 10


def test_a_frozen_corpus_is_read_back_without_a_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "in" / "a.jsonl", [doc(1), b"bad"])
    corpus = freeze(tmp_path)
    calls: list[int] = []
    original = scan.scan_split
    monkeypatch.setattr(scan, "scan_split", lambda task: calls.append(1) or original(task))
    assert freeze(tmp_path) == corpus
    assert calls == []
    write(path, [doc(2)])
    assert freeze(tmp_path).digest != corpus.digest
    assert calls == [1]
    assert quarantine(tmp_path) == []


def test_a_scan_that_was_killed_goes_on(tmp_path: Path) -> None:
    """Splits scanned before the kill are not read again, and the manifest is the same byte for byte."""
    write(tmp_path / "in" / "a.jsonl", [doc(i) if i % 9 else b"bad" for i in range(200)])
    section = CorpusSection(paths=[str(tmp_path / "in")], split_bytes=1000)
    whole = open_corpus(section, str(tmp_path / "whole"), mapper=mapper)

    def killed(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        mapper(function, tasks[:3])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_corpus(section, str(tmp_path / "run"), mapper=killed)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run/corpus/scan").glob("*.json")}
    assert len(before) == 3

    def unchanged(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        out = mapper(function, tasks)
        assert all(p.stat().st_mtime_ns == t for p, t in before.items())
        return out

    assert open_corpus(section, str(tmp_path / "run"), mapper=unchanged) == whole
    first, second = (tmp_path / n / "corpus" / "manifest.json" for n in ("whole", "run"))
    assert first.read_bytes() == second.read_bytes()
    assert not list((tmp_path / "run/corpus/scan").iterdir())


def test_a_truncated_file_fails_the_scan_by_name(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl.gz", [doc(1)])
    path = write(tmp_path / "in" / "b.jsonl.zst", [doc(i) for i in range(2, 900)])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"b\.jsonl\.zst' is truncated or corrupt"):
        freeze(tmp_path)


def test_a_missing_column_is_named_with_those_present(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", [{"body": "t", "meta": {"lang": "en"}}])
    with pytest.raises(
        InputError, match=r"no text column found: looked for text, .*have 'body', 'meta'; name it"
    ):
        freeze(tmp_path)
    for role, name in (("text", "txt"), ("tokens", "meta.topic"), ("id", "body.x")):
        with pytest.raises(
            InputError, match=rf"columns\.{role} is '{name}', but the files have 'body', 'meta'"
        ):
            freeze(tmp_path, columns={"text": "body", role: name})
    corpus = freeze(tmp_path, columns={"text": "body", "tokens": "meta.lang"})
    assert (corpus.columns.text, corpus.columns.id) == ("body", None)


def test_text_and_id_are_detected_in_order(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", [{"content": "c", "raw_content": "r", "uuid": "u", "doc_id": "i"}])
    columns = freeze(tmp_path).columns
    assert (columns.text, columns.id, columns.tokens) == ("raw_content", "doc_id", None)


def test_the_default_limits_come_from_the_recipe() -> None:
    fields = Recipe.model_fields["corpus"].annotation.model_fields  # pyright: ignore
    assert fields["max_row_bytes"].default == Corpus.__dataclass_fields__["max_row_bytes"].default
