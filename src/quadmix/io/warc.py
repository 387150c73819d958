"""WARC files (.warc, .wet, both also .gz): records that hold plain text, as rows.

In: a file. Out: objects with text, url, id, date and language (null where the record has none), one split per
file. Taken are `conversion` records (Common Crawl's WET), and `resource` and `response` records of plain
text. HTML must be turned into text by a tool for that: such a record goes to `bad`, and a file of nothing
else is an error. Requests, metadata and the like are no rows. The format has no end marker: a file that was
cut exactly between two records (of .gz: two gzip members) looks whole.
"""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from quadmix.errors import InputError, MissingExtraError
from quadmix.io.fs import open_input
from quadmix.io.pieces import BATCH_BYTES, BLOCK, MAX_BAD_BYTES, Bad, BadRow, RowBatch, corrupt, reading
from quadmix.types import Split

_DOCUMENTS = ("conversion", "resource", "response")
_NO_PAGES = ("dns:", "whois:", "ntp:", "metadata:", "filedesc:")
_HTML = ("text/html", "application/xhtml+xml")
_ENCODINGS = ("", "identity", "gzip", "deflate")
_HEADERS = {
    "url": "WARC-Target-URI",
    "id": "WARC-Record-ID",
    "date": "WARC-Date",
    "language": "WARC-Identified-Content-Language",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Body:
    """The content of a record: its bytes, or why it is no document (then at most its first bytes)."""

    data: bytes
    fault: str = ""


class _Source:
    """The uncompressed bytes of a file for warcio, which takes an EOFError for the regular end and whose own
    gzip reader stops silently in a cut member."""

    def __init__(self, file: BinaryIO, *, packed: bool) -> None:
        self.file = gzip.GzipFile(fileobj=file) if packed else file
        self.bytes = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes; OSError where a gzip member is cut."""
        try:
            data = self.file.read(size)
        except EOFError as error:
            raise OSError(str(error)) from error
        self.bytes += len(data)
        return data


def read_warc(split: Split, *, max_row_bytes: int, bad: Bad, batch_rows: int) -> Iterator[RowBatch]:
    """Yield the documents of a file; every other record that could be one goes to `bad`.

    Reasons: html_not_extracted, not_text (another media type), http_status (not 2xx), bad_http, segmented,
    invalid_utf8, row_too_long. InputError for a cut or corrupt file, and for one that holds HTML but no text.
    """
    batch, held, html, texts = RowBatch(), 0, 0, 0
    for row, (offset, record) in enumerate(_records(split)):
        body = _body(record, max_row_bytes)
        text = _text(body.data) if not body.fault else None
        fault = body.fault or ("invalid_utf8" if text is None else "")
        if fault:
            html += fault == "html_not_extracted"
            bad(BadRow(path=split.path, split=split.index, row=row, offset=offset, reason=fault,
                       data=body.data[:MAX_BAD_BYTES]))  # fmt: skip
        else:
            texts += 1
            held += len(body.data)
            batch.add(row, offset, body.data[:MAX_BAD_BYTES], {"text": text, **_facts(record)})
        if len(batch.rows) >= batch_rows or held >= BATCH_BYTES:
            yield batch
            batch, held = RowBatch(), 0
    if html and not texts:
        raise InputError(
            f"file {split.path!r} holds {html:,} HTML pages and no plain text; HTML is not extracted here. "
            "Give the WET file of the crawl, or extract the text first (trafilatura, resiliparse) to JSONL"
        )
    if batch.rows:
        yield batch


def _records(split: Split) -> Iterator[tuple[int, Any]]:
    """Yield (offset in the uncompressed stream, record) of the records that can be documents."""
    iterate, broken = _warcio(split.path)
    with reading(split.path), open_input(split.path) as file:
        source = _Source(file, packed=split.format == "warc.gz")
        archive, seen = iterate(source), False
        try:
            for record in archive:
                seen = True
                _check(split.path, record, archive.offset)
                if _is_document(record):
                    yield archive.offset, record
                while record.raw_stream.read(BLOCK):
                    pass
                if record.raw_stream.limit:
                    raise corrupt(split.path, f"the record at byte {archive.offset} ends early")
        except broken as error:
            raise corrupt(split.path, error) from error
        if archive.err_count:
            raise corrupt(split.path, "a record is longer than its Content-Length says")
        if source.read(1) or (source.bytes and not seen):
            raise corrupt(split.path, "there are bytes that are no record")


def _warcio(path: str) -> tuple[Callable[[_Source], Any], tuple[type[Exception], ...]]:
    try:
        from warcio.archiveiterator import WARCIterator
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError as error:
        raise MissingExtraError("warcio", "warc", f"reading {path!r}") from error
    return lambda source: WARCIterator(source, no_record_parse=True, block_size=1 << 16), (ArchiveLoadFailed,)


def _check(path: str, record: Any, offset: int) -> None:
    for name in ("WARC-Type", "Content-Length"):
        value = str(record.rec_headers.get_header(name) or "")
        if not value or (name == "Content-Length" and not value.isdecimal()):
            raise corrupt(path, f"the record at byte {offset} has the {name} {value!r}")


def _is_document(record: Any) -> bool:
    uri = record.rec_headers.get_header("WARC-Target-URI") or ""
    return record.rec_type in _DOCUMENTS and not uri.startswith(_NO_PAGES)


def _body(record: Any, limit: int) -> _Body:
    kind, stream = record.content_type or "text/plain", record.raw_stream
    if record.length > limit:
        return _Body(data=stream.read(MAX_BAD_BYTES), fault="row_too_long")
    if record.rec_headers.get_header("WARC-Segment-Number"):
        return _Body(data=stream.read(MAX_BAD_BYTES), fault="segmented")
    if _media(kind) == "application/http":
        if fault := _read_http(record):
            return _Body(data=_read(stream, MAX_BAD_BYTES), fault=fault)
        kind, stream = record.http_headers.get_header("Content-Type") or "", record.content_stream()
    if fault := _kind_fault(kind):
        return _Body(data=_read(stream, MAX_BAD_BYTES), fault=fault)
    data = _read(stream, limit + 1)
    return _Body(data=data, fault="row_too_long" if len(data) > limit else "")


def _media(kind: str) -> str:
    return kind.split(";")[0].strip().lower()


def _kind_fault(kind: str) -> str:
    media = _media(kind)
    if media in _HTML:
        return "html_not_extracted"
    if media != "text/plain":
        return "not_text"
    wide = "charset=utf-16" in kind.lower() or "charset=utf-32" in kind.lower()
    return "invalid_utf8" if wide else ""  # such bytes may happen to be valid UTF-8, full of NULs


def _read_http(record: Any) -> str:
    """Read the HTTP headers of a response into the record; return why its content cannot be used."""
    from warcio.statusandheaders import StatusAndHeadersParser

    try:
        headers = StatusAndHeadersParser([], verify=False).parse(record.raw_stream)
    except EOFError:
        return "bad_http"
    encoding = (headers.get_header("Content-Encoding") or "").strip().lower()
    if not headers.protocol.startswith("HTTP/") or encoding not in _ENCODINGS:
        return "bad_http"
    record.http_headers = headers
    return "" if str(headers.statusline).startswith("2") else "http_status"


def _read(stream: Any, most: int) -> bytes:
    """Return at most so many bytes (a chunked stream may give fewer per call than it has)."""
    pieces: list[bytes] = []
    while most > 0 and (piece := stream.read(most)):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _facts(record: Any) -> dict[str, str | None]:
    return {name: record.rec_headers.get_header(header) for name, header in _HEADERS.items()}
