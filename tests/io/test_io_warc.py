"""WARC and WET: text records become rows, HTML is refused aloud, a cut file never looks whole."""

import gzip
import sys
import tracemalloc
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from quadmix.errors import InputError, MissingExtraError
from quadmix.io.pieces import BadRow
from quadmix.io.readers import plan_splits, read_rows

DATE = "2024-05-01T00:00:00Z"


def record(
    number: int, body: bytes, *, kind: str = "conversion", media: str | None = "text/plain", **headers: str
) -> bytes:
    fields = {
        "WARC-Type": kind, "WARC-Target-URI": f"https://a.org/{number}", "WARC-Date": DATE,
        "WARC-Record-ID": f"<urn:uuid:{number:04d}>", **{k.replace("_", "-"): v for k, v in headers.items()},
        **({"Content-Type": media} if media else {}), "Content-Length": str(len(body)),
    }  # fmt: skip
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return b"WARC/1.0\r\n" + head.encode() + b"\r\n" + body + b"\r\n\r\n"


def response(
    number: int, body: bytes, *, media: str = "text/plain", status: str = "200 OK", more: str = ""
) -> bytes:
    http = f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\n{more}\r\n".encode() + body
    return record(number, http, kind="response", media="application/http; msgtype=response")


def write(path: Path, records: Sequence[bytes]) -> Path:
    packed = [gzip.compress(r, mtime=0) for r in records] if path.suffix == ".gz" else records
    path.write_bytes(b"".join(packed))
    return path


def read(path: Path, *, limit: int = 1_000_000, rows: int = 3) -> tuple[list[dict[str, Any]], list[BadRow]]:
    bad: list[BadRow] = []
    values: list[dict[str, Any]] = []
    for split in plan_splits([str(path)], 1):
        for batch in read_rows(split, max_row_bytes=limit, bad=bad.append, batch_rows=rows):
            assert len(batch.rows) == len(batch.offsets) == len(batch.lines) == len(batch.values)
            values += batch.values
    return values, bad


def row(number: int, text: str, language: str | None = None) -> dict[str, Any]:
    return {
        "text": text, "url": f"https://a.org/{number}", "id": f"<urn:uuid:{number:04d}>", "date": DATE,
        "language": language,
    }  # fmt: skip


INFO = record(0, b"software: x\r\n", kind="warcinfo", media="application/warc-fields")


@pytest.mark.parametrize("name", ["a.wet", "a.wet.gz", "a.warc", "a.warc.gz", "a.warc.wet.gz"])
def test_conversion_records_are_documents_and_the_rest_no_rows(tmp_path: Path, name: str) -> None:
    request = record(8, b"GET / HTTP/1.1\r\n\r\n", kind="request", media="application/http; msgtype=request")
    records = [
        INFO,
        record(1, "caf\u00e9\n\n".encode(), WARC_Identified_Content_Language="fra,eng"),
        request,
        record(2, b"007"),
        record(9, b"fetchTimeMs: 7", kind="metadata", media="application/warc-fields"),
        record(3, b"", kind="revisit"),
        record(4, b"a.org. 300 IN A 10.0.0.1", kind="response", media="text/dns").replace(b"https", b"dns"),
        *(record(i, b"more") for i in range(5, 10)),
    ]
    path = write(tmp_path / name, records)
    expected = [row(1, "caf\u00e9\n\n", "fra,eng"), row(2, "007"), *(row(i, "more") for i in range(5, 10))]
    assert read(path) == (expected, [])
    assert [(s.start, s.stop) for s in plan_splits([str(path)], 1)] == [(0, None)]


def test_offsets_are_those_of_the_uncompressed_stream(tmp_path: Path) -> None:
    records = [INFO, record(1, b"one"), record(2, b"\xff"), record(3, b"three")]
    for name in ("a.warc", "a.warc.gz"):
        (split,) = plan_splits([str(write(tmp_path / name, records))], 1)
        bad: list[BadRow] = []
        (batch,) = read_rows(split, max_row_bytes=1000, bad=bad.append)
        starts = [sum(map(len, records[:i])) for i in (1, 3)]
        assert (batch.rows, batch.offsets) == ([0, 2], starts)
        assert (bad[0].row, bad[0].offset) == (1, sum(map(len, records[:2])))


def test_responses_of_plain_text_are_taken_decoded(tmp_path: Path) -> None:
    chunked = b"3\r\nab\n\r\n4\r\ncdef\r\n0\r\n\r\n"
    records = [
        response(1, b"plain", media="text/plain; charset=utf-8"),
        response(2, chunked, more="Transfer-Encoding: chunked\r\n"),
        response(3, gzip.compress(b"packed"), more="Content-Encoding: gzip\r\n"),
        record(4, b"a file", kind="resource"),
        record(5, b"no type", media=None),
    ]
    expected = [row(1, "plain"), row(2, "ab\ncdef"), row(3, "packed"), row(4, "a file"), row(5, "no type")]
    assert read(write(tmp_path / "a.warc.gz", records)) == (expected, [])


def test_what_warcio_writes_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.warc.gz").open("wb") as out:
        writer = WARCWriter(out, gzip=True)
        writer._create_temp_file = BytesIO  # its temporary files are never closed, which is a warning here
        headers = StatusAndHeaders("200 OK", [("Content-Type", "text/plain")], protocol="HTTP/1.0")
        writer.write_record(writer.create_warcinfo_record("a", {"software": "x"}))
        writer.write_record(
            writer.create_warc_record(
                "http://a.org/", "response", payload=BytesIO(b"hi"), http_headers=headers
            )
        )
    values, bad = read(tmp_path / "a.warc.gz")
    assert ([v["text"] for v in values], [v["url"] for v in values], bad) == (["hi"], ["http://a.org/"], [])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (response(2, b"<p>x", media="text/html; charset=utf-8"), "html_not_extracted"),
        (record(2, b"<p>x", kind="resource", media="application/xhtml+xml"), "html_not_extracted"),
        (response(2, b"\x89PNG", media="image/png"), "not_text"),
        (record(2, b"{}", media="application/json"), "not_text"),
        (response(2, b"x", media=""), "not_text"),
        (response(2, b"gone", status="404 Not Found"), "http_status"),
        (response(2, b"x", more="Content-Encoding: br\r\n"), "bad_http"),
        (record(2, b"", kind="response", media="application/http"), "bad_http"),
        (record(2, b"\0\1\2", kind="response", media="application/http"), "bad_http"),
        (record(2, b"part", WARC_Segment_Number="1"), "segmented"),
        (record(2, b"caf\xe9"), "invalid_utf8"),
        (record(2, "x".encode("utf-16-le"), media="text/plain; charset=UTF-16LE"), "invalid_utf8"),
        (record(2, b"x" * 5000), "row_too_long"),
        (response(2, gzip.compress(b"x" * 10**6), more="Content-Encoding: gzip\r\n"), "row_too_long"),
    ],
)
def test_a_record_that_is_no_document_costs_itself_alone(tmp_path: Path, data: bytes, reason: str) -> None:
    path = write(tmp_path / "a.warc.gz", [INFO, record(1, b"one"), data, record(3, b"three")])
    values, bad = read(path, limit=4000)
    assert values == [row(1, "one"), row(3, "three")]
    assert [(b.path, b.row, b.offset, b.reason) for b in bad] == [
        (str(path), 1, len(INFO) + len(record(1, b"one")), reason)
    ]
    assert len(bad[0].data) <= 2000


def test_a_file_of_html_alone_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    pages = [response(i, b"<p>x", media="text/html") for i in range(5)]
    path = write(tmp_path / "a.warc.gz", [INFO, *pages, response(6, b"", status="301 Moved")])
    with pytest.raises(InputError, match=r"a\.warc\.gz' holds 5 HTML pages and no plain text.* WET .*JSONL"):
        read(path)


@pytest.mark.parametrize("name", ["a.wet", "a.wet.gz"])
def test_an_empty_file_and_one_without_documents_have_no_rows(tmp_path: Path, name: str) -> None:
    assert read(write(tmp_path / name, [])) == ([], [])
    assert read(write(tmp_path / name, [INFO])) == ([], [])


def test_a_cut_of_a_plain_file_fails_or_leaves_whole_records(tmp_path: Path) -> None:
    records = [INFO, record(1, b"one"), record(2, b"two")]
    data, path = b"".join(records), tmp_path / "a.wet"
    # all bytes of a record and any part of the newlines behind it: nothing of it is lost
    ends = [sum(map(len, records[: i + 1])) for i in range(3)]
    harmless = {0, *(end - newline for end in ends for newline in range(5))}
    for size in range(len(data)):
        path.write_bytes(data[:size])
        if size in harmless:
            assert len(read(path)[0]) == max(0, sum(size >= end - 4 for end in ends) - 1)
        else:
            with pytest.raises(InputError, match=r"a\.wet' is truncated or corrupt"):
                read(path)


def test_a_cut_of_a_gzip_file_fails_except_between_members(tmp_path: Path) -> None:
    records = [INFO, record(1, b"one"), record(2, b"two")]
    path = write(tmp_path / "a.wet.gz", records)
    data = path.read_bytes()
    ends = [sum(len(gzip.compress(r, mtime=0)) for r in records[:i]) for i in range(4)]
    for size in range(len(data)):
        path.write_bytes(data[:size])
        if size in ends:
            assert len(read(path)[0]) == max(0, ends.index(size) - 1)
        else:
            with pytest.raises(InputError, match=r"a\.wet\.gz' is truncated or corrupt"):
                read(path)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"this is no WARC file\r\n" * 5, "Invalid WARC record"),
        (INFO.replace(b"Content-Length: 13", b"Content-Length: x"), "Content-Length 'x'"),
        (INFO.replace(b"Content-Length: 13\r\n", b""), "Content-Length ''"),
        (INFO.replace(b"WARC-Type: warcinfo\r\n", b""), "WARC-Type ''"),
        (record(1, b"longer than said").replace(b"Length: 16", b"Length: 4") + INFO, "longer than its"),
        (record(1, b"shorter").replace(b"Length: 7", b"Length: 700"), "ends early"),
    ],
)
def test_a_corrupt_file_fails_by_name(tmp_path: Path, data: bytes, why: str) -> None:
    for name, body in (("a.warc", data), ("a.warc.gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(body)
        with pytest.raises(InputError, match=rf"{name}' is truncated or corrupt \(.*{why}"):
            read(tmp_path / name)


def test_a_gzip_file_that_is_plain_fails_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.warc.gz").write_bytes(INFO)
    with pytest.raises(InputError, match=r"a\.warc\.gz' is truncated or corrupt"):
        read(tmp_path / "a.warc.gz")


@pytest.mark.parametrize("split_members", [True, False])
def test_one_gzip_member_for_all_records_is_read_too(tmp_path: Path, split_members: bool) -> None:
    """The standard wants a member per record; `gzip file.warc` makes one of all."""
    records = [record(i, b"t") for i in range(4)]
    data = b"".join(map(gzip.compress, records)) if split_members else gzip.compress(b"".join(records))
    (tmp_path / "a.warc.gz").write_bytes(data)
    assert len(read(tmp_path / "a.warc.gz")[0]) == 4


def test_a_huge_record_is_skipped_in_bounded_memory(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.wet.gz", [record(1, b"one"), record(2, b"x" * 60_000_000), record(3, b"three")]
    )
    tracemalloc.start()
    values, bad = read(path, limit=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ([v["text"] for v in values], [b.reason for b in bad]) == (["one", "three"], ["row_too_long"])
    assert peak < 10_000_000


def test_without_warcio_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "warcio.archiveiterator", None)
    with pytest.raises(MissingExtraError, match=r"a\.warc' needs .*quadmix\[warc\]"):
        read(write(tmp_path / "a.warc", [INFO]))
