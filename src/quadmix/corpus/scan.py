"""The first reading of the files: count, check, unite the columns, and freeze the result as a `Corpus`.

In: the recipe's corpus section. Out: corpus/manifest.json, and quarantine/part-*.parquet with every row
that is no document. Each split is scanned by itself and leaves its result on disk, so a scan that was killed
goes on; rows = documents + quarantined holds for every split (promise P4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from quadmix.corpus.columns import counted_columns, detect_columns
from quadmix.corpus.quarantine import bad_table, check_limits, collect, publish
from quadmix.corpus.read import first_row
from quadmix.corpus.rows import sound_rows
from quadmix.corpus.schema import (
    Columns,
    final_schema,
    observe_all,
    observe_rows,
    observe_table,
    pack,
    pack_schema,
    unpack,
    unpack_schema,
)
from quadmix.errors import InputError
from quadmix.io.atomic import map_array, read_value, value_digest, write_array, write_json, write_table
from quadmix.io.formats import is_columnar
from quadmix.io.fs import expand, file_info
from quadmix.io.pieces import BadRow
from quadmix.io.readers import arrow_schema, plan_splits, read_rows
from quadmix.recipe.sections import CorpusSection
from quadmix.rng import doc_keys
from quadmix.types import ColumnMap, Corpus, FileInfo, Split, SplitCount

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]

_DECIDING = ("text", "id", "tokens")  # columns on which documents depend; others are only counted
_PEEK_FILES = 64
_PEEK_ROWS = 200
_BUCKET_KEYS = 1 << 24  # hashes of ids compared at once: 128 MB, and as much for their order


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanTask:
    """One split to scan. folder: where its result goes. source: digest of all that determines the result."""

    split: Split
    columns: ColumnMap
    max_row_bytes: int
    folder: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """What a split held. columns: its part of the schema, packed. Keys and bad rows lie beside it on disk."""

    source: str
    count: SplitCount
    columns: str


def open_corpus(section: CorpusSection, folder: str, *, mapper: Mapper) -> Corpus:
    """Return the frozen corpus of a run folder; scan the files if that has not been done yet.

    `mapper(function, tasks)` returns results in task order. InputError for an unreadable file, a missing
    column, no documents or duplicate ids; QuarantineError if more rows are bad than the recipe allows.
    """
    files = tuple(file_info(path) for path in expand(section.paths))
    settings = section.model_dump(mode="json", include={"columns", "split_bytes", "max_row_bytes"})
    settings["columns"] = {role: settings["columns"][role] for role in _DECIDING}
    digest = value_digest([[(_name(f), f.bytes, f.digest) for f in files], settings])
    manifest = Path(folder, "corpus", "manifest.json")
    if manifest.exists():
        frozen = read_value(manifest, Corpus)
        if frozen.digest == digest and frozen.files == files:
            return _renamed(frozen, section, manifest)
    splits = plan_splits([f.path for f in files], section.split_bytes)
    columns = detect_columns(_peek(splits, section.max_row_bytes), section.columns)
    tasks = _tasks(files, splits, columns, section.max_row_bytes, folder)
    results: list[ScanResult] = mapper(scan_split, tasks)
    seen: Columns = {}
    for result in results:
        observe_all(seen, unpack(result.columns))
    schema, warnings = final_schema(seen)
    corpus = Corpus(
        files=files, splits=splits, columns=counted_columns(columns, schema, section.columns),
        counts=tuple(r.count for r in results),
        schema=pack_schema(schema), digest=digest, max_row_bytes=section.max_row_bytes, warnings=warnings,
    )  # fmt: skip
    publish(corpus, folder, {t.split.index: _bad_file(t) for t in tasks})
    check_limits(corpus, section, folder)
    _check_documents(corpus, tasks)
    write_json(manifest, corpus)
    for task in tasks:
        for file in (_result_file(task), _key_file(task), _bad_file(task)):
            file.unlink(missing_ok=True)
    return corpus


def _renamed(frozen: Corpus, section: CorpusSection, manifest: Path) -> Corpus:
    """Return the corpus with the columns that are only counted as the recipe names them now."""
    columns = counted_columns(frozen.columns, unpack_schema(frozen.schema), section.columns)
    if columns == frozen.columns:
        return frozen
    corpus = replace(frozen, columns=columns)
    write_json(manifest, corpus)
    return corpus


def _name(file: FileInfo) -> str:
    return file.path.rsplit("/", 1)[-1]


def _peek(splits: Sequence[Split], max_row_bytes: int) -> pa.Schema:
    """Return the columns at the beginning of the files, of at most 64 files spread evenly."""
    firsts = list({s.path: s for s in reversed(splits)}.values())[::-1]
    step = max(1, -(-len(firsts) // _PEEK_FILES))
    seen: Columns = {}
    for split in firsts[::step]:
        if is_columnar(split.format):
            observe_table(seen, pa.RecordBatch.from_pylist([], schema=arrow_schema(split)))
        else:
            rows = read_rows(split, max_row_bytes=max_row_bytes, bad=_ignore, batch_rows=_PEEK_ROWS)
            observe_rows(seen, next((batch.values for batch in rows), []))
    if not seen:
        raise InputError(
            f"the corpus holds no row that can be read ({len(firsts)} files, first {firsts[0].path!r}); "
            "expected JSON lines, Parquet, Arrow or WARC with text in it. Check corpus.paths"
        )
    return final_schema(seen)[0]


def _ignore(row: BadRow) -> None:
    """A first look puts nothing into quarantine."""


def _tasks(
    files: Sequence[FileInfo], splits: Sequence[Split], columns: ColumnMap, max_row_bytes: int, folder: str
) -> list[ScanTask]:
    digests, scan = {f.path: f.digest for f in files}, str(Path(folder, "corpus", "scan"))
    columns = replace(columns, source=None, language=None)
    return [
        ScanTask(
            split=split, columns=columns, max_row_bytes=max_row_bytes, folder=scan,
            source=value_digest([split, digests[split.path], columns, max_row_bytes]),
        )
        for split in splits
    ]  # fmt: skip


def _result_file(task: ScanTask) -> Path:
    return Path(task.folder, f"part-{task.split.index:05d}.json")


def _key_file(task: ScanTask) -> Path:
    return _result_file(task).with_suffix(".npy")


def _bad_file(task: ScanTask) -> Path:
    return _result_file(task).with_suffix(".parquet")


def scan_split(task: ScanTask) -> ScanResult:
    """Read one split once; a result of the same source on disk is returned as it is."""
    done = _result_file(task)
    if done.exists():
        stored = read_value(done, ScanResult)
        if stored.source == task.source:
            return stored
    seen: Columns = {}
    bad: list[BadRow] = []
    keys = [np.empty(0, dtype=np.uint64)]
    documents = text_bytes = 0
    for batch in sound_rows(
        task.split, task.columns, max_row_bytes=task.max_row_bytes, bad=lambda row: collect(bad, row)
    ):
        documents += len(batch.text)
        text_bytes += _utf8_bytes(batch.text)
        keys.append(doc_keys(batch.doc_id))
        if isinstance(batch.content, list):
            observe_rows(seen, batch.content)
        else:
            observe_table(seen, batch.content)
    count = SplitCount(
        split=task.split.index, rows=documents + len(bad), documents=documents, text_bytes=text_bytes,
        quarantined={r: sum(b.reason == r for b in bad) for r in sorted({b.reason for b in bad})},
    )  # fmt: skip
    write_array(_key_file(task), np.concatenate(keys))
    if bad:
        write_table(_bad_file(task), bad_table(bad))
    result = ScanResult(source=task.source, count=count, columns=pack(seen))
    write_json(done, result)
    return result


def _utf8_bytes(texts: list[str]) -> int:
    lengths = pc.call_function("binary_length", [pa.array(texts, pa.large_string())])
    return pc.call_function("sum", [lengths]).as_py() or 0


def _check_documents(corpus: Corpus, tasks: Sequence[ScanTask]) -> None:
    """Refuse a corpus without documents, and two documents of one id, with both places."""
    if not corpus.documents:
        bad = sum(sum(c.quarantined.values()) for c in corpus.counts)
        raise InputError(
            f"the corpus holds no document: {len(corpus.files)} files, {bad} rows, all of them bad; "
            "see quarantine/ and check corpus.paths and corpus.columns"
        )
    if corpus.columns.id is None:
        _check_files(corpus)
        return
    for key in _repeated(tasks)[:1000]:  # a few may be chance collisions of the hash
        first, second = (_place(corpus, tasks, *place) for place in _places(tasks, key)[:2])
        if first[0] == second[0]:
            raise InputError(
                f"document id {first[0]!r} occurs twice: {first[1]}, and {second[1]}; ids must be distinct. "
                "Remove the duplicates, or name another column in corpus.columns.id"
            )


def _repeated(tasks: Sequence[ScanTask]) -> list[int]:
    """Return the hashes that occur more than once, ascending; one bucket of hashes is in memory at a time."""
    files = [map_array(_key_file(task)) for task in tasks]
    bits = max(0, (sum(map(len, files)) // _BUCKET_KEYS).bit_length())
    found: list[int] = []
    for bucket in range(1 << bits):
        keys = np.sort(np.concatenate([_in_bucket(file, bucket, bits) for file in files]))
        found += np.unique(keys[1:][keys[1:] == keys[:-1]]).tolist()
    return found


def _in_bucket(keys: NDArray[np.uint64], bucket: int, bits: int) -> NDArray[np.uint64]:
    if not bits:
        return np.asarray(keys)
    return keys[(keys >> np.uint64(64 - bits)) == np.uint64(bucket)]


def _places(tasks: Sequence[ScanTask], key: int) -> list[tuple[int, int]]:
    """Return (task, document of its split) wherever a hash occurs."""
    found: list[tuple[int, int]] = []
    for number, task in enumerate(tasks):
        found += [(number, int(p)) for p in np.flatnonzero(map_array(_key_file(task)) == np.uint64(key))]
    return found


def _check_files(corpus: Corpus) -> None:
    """Made-up ids are distinct unless two files agree in name and content."""
    filled = {s.path for s, c in zip(corpus.splits, corpus.counts, strict=True) if c.documents}
    seen: dict[tuple[str, str], str] = {}
    for file in (f for f in corpus.files if f.path in filled):
        other = seen.setdefault((_name(file), file.digest), file.path)
        if other != file.path:
            raise InputError(
                f"files {other!r} and {file.path!r} are the same (name and content) and their documents "
                "have no ids; take one out of corpus.paths, or name an id column in corpus.columns.id"
            )


def _place(corpus: Corpus, tasks: Sequence[ScanTask], number: int, wanted: int) -> tuple[str, str]:
    """Return id and place in words of document `wanted` of one split."""
    task = tasks[number]
    for batch in sound_rows(task.split, task.columns, max_row_bytes=task.max_row_bytes, bad=_ignore):
        if wanted < len(batch.doc_id):
            row = first_row(corpus, task.split) + batch.rows[wanted]
            return batch.doc_id[wanted], f"{task.split.path}, row {row}"
        wanted -= len(batch.doc_id)
    raise InputError(f"file {task.split.path!r} changed while it was read; leave it alone and run again")
