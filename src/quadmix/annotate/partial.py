"""What a slow rater has done of a piece is kept while it is still in work, so that a kill costs little.

In: the batches of a piece. Out: their annotations in order, and annotations/.work/part-*.parquet, which is
written every so often, read by the next attempt and removed once the part is there. It is trusted only for
the same work (digest) and the same documents.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import orjson
import pyarrow as pa

from quadmix.corpus.read import DocBatch
from quadmix.errors import IntegrityError
from quadmix.io.atomic import read_table, write_table
from quadmix.io.faults import fault_point

WORK = ".work"
Missing = dict[str, Counter[str]]
_META = b"quadmix.partial"


def annotate_batches(
    documents: Iterable[DocBatch],
    annotate: Callable[[DocBatch, Missing], pa.RecordBatch],
    path: Path | None,
    *,
    digest: str,
    seconds: float,
) -> tuple[list[pa.RecordBatch], Missing]:
    """Return the annotations of all batches and what is missing in them: criterion -> reason -> documents.

    path: where unfinished work is kept, written again after `seconds` of work; None keeps none.
    """
    done, counts = _read(path, digest) if path else ([], [])
    found: list[pa.RecordBatch] = []
    missing: list[dict[str, dict[str, int]]] = []
    saved = time.monotonic()
    for index, batch in enumerate(documents):
        if index < len(done) and done[index]["doc_id"].to_pylist() == list(batch.doc_id):
            found.append(done[index])
            missing.append(counts[index])
            continue
        done = done[:index]
        here: Missing = {}
        found.append(annotate(batch, here))
        missing.append({name: dict(reasons) for name, reasons in here.items()})
        if path and time.monotonic() - saved >= seconds:
            _write(path, digest, found, missing)
            fault_point("annotate.partial")
            saved = time.monotonic()
    total: Missing = {}
    for one in missing:
        for name, reasons in one.items():
            total.setdefault(name, Counter()).update(reasons)
    return found, total


def partial_path(part: Path) -> Path:
    """Return where the unfinished work of a part is kept."""
    return part.parent / WORK / part.name


def _write(
    path: Path, digest: str, batches: list[pa.RecordBatch], missing: list[dict[str, dict[str, int]]]
) -> None:
    facts = {"digest": digest, "rows": [b.num_rows for b in batches], "missing": missing}
    table = pa.Table.from_batches(batches).replace_schema_metadata({_META: orjson.dumps(facts)})
    write_table(path, table)


def _read(path: Path, digest: str) -> tuple[list[pa.RecordBatch], list[dict[str, dict[str, int]]]]:
    """Return the batches that an earlier attempt at this work finished, and what is missing in each."""
    if not path.is_file():
        return [], []
    try:
        table = read_table(path).combine_chunks()
    except IntegrityError:
        return [], []
    facts = orjson.loads((table.schema.metadata or {}).get(_META, b"{}"))
    if facts.get("digest") != digest or sum(facts["rows"]) != table.num_rows:
        return [], []
    plain, batches, first = table.replace_schema_metadata(None), list[pa.RecordBatch](), 0
    for rows in facts["rows"]:
        whole = plain.slice(first, rows).combine_chunks().to_batches()
        batches.append(whole[0] if whole else pa.RecordBatch.from_pylist([], plain.schema))
        first += rows
    return batches, facts["missing"]
