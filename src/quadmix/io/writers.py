"""JSON lines out: atomic, the same bytes for the same lines, counted again before they become visible."""

from collections.abc import Iterable
from pathlib import Path

import zstandard

from quadmix.errors import IntegrityError
from quadmix.io.atomic import replacing

_LEVEL = 6


def write_jsonl_zst(path: str | Path, lines: Iterable[bytes]) -> int:
    """Write `lines` (without newlines) as one .jsonl.zst file and return how many there were.

    The frame carries a checksum; the file is read back and counted before it is committed.
    """
    rows = 0
    with replacing(path) as temporary:
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        with temporary.open("wb") as raw, compressor.stream_writer(raw, closefd=False) as out:
            for line in lines:
                assert b"\n" not in line, "a JSON line holds a newline"
                out.write(line + b"\n")
                rows += 1
        if (found := _count_lines(temporary)) != rows:
            raise IntegrityError(
                f"{path}: {found} lines came back, expected the {rows} written; is the disk sound?"
            )
    return rows


def _count_lines(path: Path) -> int:
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as reader:
        count = 0
        while block := reader.read(1 << 20):
            count += block.count(b"\n")
    return count
