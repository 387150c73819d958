"""Is the dataset on disk what the manifest says? Everything is re-hashed and recounted from the files.

In: a run folder. Out: a `VerifyReport`: one `Check` per claim, and files that no manifest knows (they are
ignored by readers of the manifest, promise P3). Nothing is changed, and a failed check is not an exception.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import file_digest, read_value
from quadmix.io.fs import file_info
from quadmix.io.readers import BadRow, plan_splits, read_rows
from quadmix.io.tables import stream_tables
from quadmix.materialise.ledger import domain_tokens, make_ledger, manifest_digest
from quadmix.materialise.order import output_order
from quadmix.materialise.plan import STRUCT
from quadmix.materialise.table import SelectionTable, read_selection
from quadmix.rng import doc_keys
from quadmix.types import Corpus, DatasetManifest, ShardInfo

MAX_ROW_BYTES = 1 << 40  # the rows are ours: none is too long


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One claim about the dataset and whether it holds."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """All checks; `stray` lists files in dataset/ that the manifest does not know."""

    checks: tuple[Check, ...]
    stray: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return all(c.ok for c in self.checks)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """What the files hold, in order: (C,) keys of documents, copy indices, copies and tokens as written."""

    keys: NDArray[np.uint64]
    copy_index: NDArray[np.int64]
    copies: NDArray[np.int64]
    tokens: NDArray[np.int64]


def verify_run(run_folder: str | Path) -> VerifyReport:
    """Check manifest, shards, rows, copies, order, conservation and inputs of a finished run."""
    folder = Path(run_folder)
    path = folder / "dataset" / "manifest.json"
    if not path.is_file():
        raise InputError(
            f"{path} does not exist, so there is no finished dataset; run `quadmix run` to its end"
        )
    manifest = read_value(path, DatasetManifest)
    table = read_selection(folder)
    corpus = read_value(folder / "corpus" / "manifest.json", Corpus)
    checks = [_check_manifest(manifest), *_check_shards(path.parent, manifest)]
    if all(c.ok for c in checks):
        shards = [_read_rows(path.parent / s.name) for s in manifest.shards]
        checks += [_check_counts(manifest, shards), *_check_rows(manifest, table, _join(shards))]
    checks += [_check_ledger(manifest, corpus, table), _check_draw(manifest, table), _check_inputs(corpus)]
    return VerifyReport(checks=tuple(checks), stray=_stray(folder, manifest))


def _check_manifest(manifest: DatasetManifest) -> Check:
    digest = manifest_digest(manifest)
    return Check(
        name="manifest digest", ok=digest == manifest.digest, detail=f"{digest}, recorded {manifest.digest}"
    )


def _check_shards(dataset: Path, manifest: DatasetManifest) -> Iterator[Check]:
    for shard in manifest.shards:
        file = dataset / shard.name
        if not file.is_file():
            yield Check(name=f"shard {shard.name}", ok=False, detail="the file is missing")
            continue
        digest = file_digest(file)
        yield Check(
            name=f"shard {shard.name}",
            ok=digest == shard.digest and file.stat().st_size == shard.bytes,
            detail=f"{file.stat().st_size:,} bytes, digest {digest}, recorded {shard.digest}",
        )


def _read_rows(path: Path) -> _Rows:
    ids: list[str] = []
    numbers: list[tuple[int, int, int]] = []
    for struct in _structs(path):
        ids.append(struct["doc_id"])
        numbers.append((struct["copy_index"], struct["copies"], struct["tokens"]))
    array = np.array(numbers, dtype=np.int64).reshape(-1, 3)
    return _Rows(keys=doc_keys(ids), copy_index=array[:, 0], copies=array[:, 1], tokens=array[:, 2])


def _structs(path: Path) -> Iterator[dict]:  # pyright: ignore[reportMissingTypeArgument]
    if path.suffix == ".parquet":
        for table in stream_tables(path, [STRUCT]):
            yield from table[STRUCT].to_pylist()
    else:
        for split in plan_splits([str(path)], MAX_ROW_BYTES):
            for batch in read_rows(split, max_row_bytes=MAX_ROW_BYTES, bad=_refuse):
                for row in batch.values:
                    yield row[STRUCT]


def _refuse(row: BadRow) -> None:
    raise IntegrityError(f"{row.path}: row {row.row} cannot be read back ({row.reason}); is the disk sound?")


def _join(shards: list[_Rows]) -> _Rows:
    return _Rows(
        keys=np.concatenate([s.keys for s in shards]),
        copy_index=np.concatenate([s.copy_index for s in shards]),
        copies=np.concatenate([s.copies for s in shards]),
        tokens=np.concatenate([s.tokens for s in shards]),
    )


def _check_counts(manifest: DatasetManifest, shards: list[_Rows]) -> Check:
    wrong = [
        s.name
        for s, rows in zip(manifest.shards, shards, strict=True)
        if _counts(s) != (len(rows.keys), int(rows.tokens.sum()))
    ]
    rows, tokens = sum(len(s.keys) for s in shards), sum(int(s.tokens.sum()) for s in shards)
    same = not wrong and (rows, tokens) == (manifest.ledger.copies, manifest.ledger.tokens_out)
    detail = f"{rows:,} rows and {tokens:,} tokens in {len(shards)} shards"
    return Check(
        name="rows and tokens recounted", ok=same, detail=detail + (f"; wrong: {wrong}" if wrong else "")
    )


def _counts(shard: ShardInfo) -> tuple[int, int]:
    return shard.rows, shard.tokens


def _check_rows(manifest: DatasetManifest, table: SelectionTable, rows: _Rows) -> Iterator[Check]:
    """Compare every row with the selection: how often each document occurs, and in which place."""
    sort = np.argsort(table.keys)
    place = np.searchsorted(table.keys[sort], rows.keys).clip(max=len(sort) - 1)
    row = sort[place]
    known = table.keys[row] == rows.keys
    found = np.bincount(row[known], minlength=len(table))
    wrong = np.flatnonzero(found != table.copies)
    example = f", first {table.doc_id[int(wrong[0])].as_py()!r}" if len(wrong) else ""
    yield Check(
        name="copies per document",
        ok=bool(known.all()) and not len(wrong),
        detail=f"{len(wrong):,} documents differ from selection.parquet{example}; "
        f"{int((~known).sum()):,} rows of unknown documents",
    )
    same = known & (table.copies[row] == rows.copies) & (table.tokens[row] == rows.tokens)
    yield Check(
        name="numbers in the rows",
        ok=bool(same.all()),
        detail=f"{int((~same).sum()):,} rows state other copies or tokens than selection.parquet",
    )
    touching = int((rows.keys[1:] == rows.keys[:-1]).sum())
    most = int(table.copies.max(initial=0))
    allowed = max(0, most - (len(rows.keys) - most) - 1)
    yield Check(
        name="copies apart",
        ok=touching == allowed,
        detail=f"{touching} neighbours are equal, expected {allowed}",
    )
    order = output_order(table.keys, table.copies, seed=manifest.seed)
    line = np.argsort(order.position)
    in_place = np.array_equal(table.keys[order.row[line]], rows.keys)
    in_place &= np.array_equal(order.copy_index[line], rows.copy_index)
    yield Check(name="order", ok=bool(in_place), detail=f"the shuffle of seed {manifest.seed}, recomputed")


def _check_ledger(manifest: DatasetManifest, corpus: Corpus, table: SelectionTable) -> Check:
    try:
        ledger = make_ledger(corpus, table)
    except IntegrityError as error:
        return Check(name="conservation", ok=False, detail=str(error))
    same = ledger == manifest.ledger and domain_tokens(table) == manifest.domains
    detail = (
        f"{ledger.rows_in:,} rows = {ledger.selected:,} selected + {ledger.dropped} + {ledger.quarantined}"
    )
    return Check(
        name="conservation", ok=same, detail=detail if same else f"{detail}; the manifest says otherwise"
    )


def _check_draw(manifest: DatasetManifest, table: SelectionTable) -> Check:
    """Promise P10: in every domain, the drawn tokens are within one document of the expected ones."""
    size = len(table.info.domains)
    tokens = table.tokens.astype(np.float64)
    gap = np.bincount(table.domain, weights=tokens * (table.copies - table.expected), minlength=size)
    longest = np.zeros(size)
    np.maximum.at(longest, table.domain, tokens)
    over = np.abs(gap) > longest + 1e-6
    worst = table.info.domains[int(np.argmax(np.abs(gap)))] if size else ""
    return Check(
        name="tokens as expected",
        ok=not over.any(),
        detail=f"{manifest.ledger.tokens_out:,} tokens, asked for {manifest.token_budget:,}; the widest gap "
        f"of a domain is {np.abs(gap).max(initial=0):,.0f} tokens ({worst}), at most one document each",
    )


def _check_inputs(corpus: Corpus) -> Check:
    changed: list[str] = []
    for file in corpus.files:
        try:
            same = file_info(file.path) == file
        except (InputError, FileNotFoundError):
            same = False
        if not same:
            changed.append(file.path)
    detail = f"{len(corpus.files)} input files" + (f"; changed or gone: {changed[:3]}" if changed else "")
    return Check(name="inputs unchanged", ok=not changed, detail=detail)


def _stray(folder: Path, manifest: DatasetManifest) -> tuple[str, ...]:
    known = {s.name for s in manifest.shards} | {"manifest.json", "README.md"}
    strays = [p for p in (folder / "dataset").rglob("*") if p.is_file() and p.name not in known]
    strays += [p for p in (folder / "spills").rglob("*") if p.is_file()]
    return tuple(sorted(p.relative_to(folder).as_posix() for p in strays))
