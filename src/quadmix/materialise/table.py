"""selection/: one Parquet part per corpus split, one row per document, with all that decided its copies.

In: the annotations of a split (held-out documents too), who was excluded and why, and the selection among the
rest. Out: `selection/part-*.parquet` and, last of all, `selection/manifest.json`, without which the selection
does not exist. Scores, normalised scores, merged scores and ranks: smaller = better. Excluded documents have
0 copies, 0 expected copies, and NaN for what was never computed. Rows keep the order of the corpus.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.codec import from_json, to_json
from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import file_digest, read_table, read_value, value_digest, write_json, write_table
from quadmix.mixing.rank import RankMode
from quadmix.types import Annotations, Copies, CriterionInfo, DomainTokens, Floats, Ranks, Selection

SELECTION = "selection"
MANIFEST = "manifest.json"
VERSION = 2
NOT_DRAWN = "not_drawn"
_KEY = b"quadmix.selection"
_REPEATED = ("domain", "tokens", "held_out", "copies", "excluded")


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionInfo:
    """What the numbers of all parts mean; stored in each part's schema and in the manifest.

    key: digest of all that the selection depends on (θ, annotations, normaliser, seed, settings).
    factors: (M,) what the drawn fractions of each domain were multiplied with, see `mixing.draw`.
    """

    criteria: tuple[CriterionInfo, ...]
    domains: tuple[str, ...]
    seed: int
    rank_mode: RankMode
    key: str = ""
    factors: tuple[float, ...] = ()
    version: int = VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedSplit:
    """What one part holds. documents = selected + Σ dropped; domains: one entry per domain of the run."""

    split: int
    name: str
    digest: str
    documents: int
    selected: int
    dropped: dict[str, int]
    copies: int
    domains: tuple[DomainTokens, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionManifest:
    """selection/manifest.json: the parts in corpus order. digest: over info and parts."""

    info: SelectionInfo
    parts: tuple[SelectedSplit, ...]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SelectionTable:
    """Some rows of the selection in memory: one split, or all of them in corpus order.

    doc_id: (D,) strings. keys: (D,) uint64. split, row_in_split: (D,) int32. domain: (D,) int16.
    scores, norms: (D, N) float32. merged, expected: (D,) float64. excluded: (D,) strings, null = selectable.
    """

    info: SelectionInfo
    doc_id: pa.ChunkedArray
    keys: NDArray[np.uint64]
    split: NDArray[np.int32]
    row_in_split: NDArray[np.int32]
    domain: NDArray[np.int16]
    tokens: NDArray[np.int32]
    scores: NDArray[np.float32]
    norms: NDArray[np.float32]
    merged: Floats
    ranks: Ranks
    expected: Floats
    copies: Copies
    excluded: pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def selectable(self) -> NDArray[np.bool_]:
        return self.excluded.is_null().to_numpy()

    @property
    def tokens_out(self) -> int:
        return int(self.tokens.astype(np.int64) @ self.copies.astype(np.int64))


def part_name(split: int) -> str:
    """Return the file name of a split's part."""
    return f"part-{split:05d}.parquet"


def write_part(
    run_folder: str | Path,
    annotations: Annotations,
    *,
    info: SelectionInfo,
    split: int,
    excluded: NDArray[np.int8],
    reasons: Sequence[str],
    selection: Selection,
) -> SelectedSplit:
    """Write the part of one split and return what it holds.

    annotations: all documents of the split in order. excluded: (D,) int8, 0 = selectable, k = reasons[k - 1].
    selection: of the selectable rows, in the same order (S = number of zeros in `excluded`).
    """
    open_rows = np.flatnonzero(excluded == 0)
    _check_lengths(annotations, excluded, reasons, len(open_rows), selection)
    size = len(annotations)
    copies = _spread(selection.copies, open_rows, size, 0)
    expected = _spread(selection.expected, open_rows, size, 0.0)
    columns: dict[str, Any] = {
        "doc_id": annotations.doc_id,
        "key": pa.array(annotations.keys, pa.uint64()),
        "domain": _labels(annotations.domain, annotations.domains),
        "tokens": pa.array(annotations.tokens, pa.int32()),
        "held_out": pa.array(annotations.held_out),
    }
    for n, criterion in enumerate(annotations.criteria):
        columns[f"score:{criterion.name}"] = pa.array(annotations.scores[:, n])
    for n, criterion in enumerate(annotations.criteria):
        columns[f"norm:{criterion.name}"] = pa.array(
            _spread(selection.normalised[:, n], open_rows, size, np.nan)
        )
    columns["merged"] = pa.array(_spread(selection.merged, open_rows, size, np.nan))
    columns["rank_low"] = pa.array(_spread(selection.ranks.low, open_rows, size, np.nan))
    columns["rank_high"] = pa.array(_spread(selection.ranks.high, open_rows, size, np.nan))
    columns["expected"] = pa.array(expected)
    columns["copies"] = pa.array(copies, pa.int32())
    columns["excluded"] = _labels(excluded, (None, *reasons))
    path = Path(run_folder) / SELECTION / part_name(split)
    table = pa.table(columns).replace_schema_metadata({_KEY: orjson.dumps(to_json(info))})
    write_table(path, table, dictionary=_REPEATED)
    dropped = {NOT_DRAWN: int(((excluded == 0) & (copies == 0)).sum())}
    for number, reason in enumerate(reasons, start=1):
        dropped[reason] = int((excluded == number).sum())
    return SelectedSplit(
        split=split,
        name=path.name,
        digest=file_digest(path),
        documents=len(annotations),
        selected=int((copies > 0).sum()),
        dropped={reason: count for reason, count in sorted(dropped.items()) if count},
        copies=int(copies.sum(dtype=np.int64)),
        domains=_domain_tokens(annotations, copies, expected),
    )


def _domain_tokens(annotations: Annotations, copies: Copies, expected: Floats) -> tuple[DomainTokens, ...]:
    size = len(annotations.domains)

    def total(weights: NDArray[Any]) -> list[float]:
        return np.bincount(annotations.domain, weights=weights, minlength=size).tolist()

    tokens = annotations.tokens.astype(np.float64)
    taken = (copies > 0).astype(np.float64)
    columns = zip(
        annotations.domains,
        total(np.ones(len(annotations))),
        total(tokens),
        total(taken),
        total(tokens * taken),
        total(tokens * copies),
        total(tokens * expected),
        strict=True,
    )
    return tuple(
        DomainTokens(
            domain=name,
            documents_in=int(documents_in),
            tokens_in=int(tokens_in),
            documents_out=int(documents_out),
            unique_tokens=int(unique),
            tokens_out=int(tokens_out),
            expected_tokens=float(mean),
        )
        for name, documents_in, tokens_in, documents_out, unique, tokens_out, mean in columns
    )


def write_manifest(
    run_folder: str | Path, info: SelectionInfo, parts: Sequence[SelectedSplit]
) -> SelectionManifest:
    """Commit the selection: write selection/manifest.json over the finished parts."""
    manifest = SelectionManifest(info=info, parts=tuple(parts), digest=value_digest([info, list(parts)]))
    write_json(Path(run_folder) / SELECTION / MANIFEST, manifest)
    return manifest


def read_manifest(run_folder: str | Path) -> SelectionManifest:
    """Read selection/manifest.json."""
    path = Path(run_folder) / SELECTION / MANIFEST
    if not path.is_file():
        raise InputError(f"{path} does not exist; run `quadmix run` up to the selection first")
    return read_value(path, SelectionManifest)


def _check_lengths(
    annotations: Annotations,
    excluded: NDArray[np.int8],
    reasons: Sequence[str],
    selectable: int,
    selection: Selection,
) -> None:
    if len(excluded) != len(annotations):
        raise IntegrityError(
            f"excluded has {len(excluded)} rows, expected {len(annotations)} (one per document)"
        )
    if len(excluded) and not (excluded.min() >= 0 and excluded.max() <= len(reasons)):
        raise IntegrityError(
            f"excluded spans {excluded.min()}..{excluded.max()}, expected 0..{len(reasons)} for {reasons}"
        )
    if len(selection.copies) != selectable:
        raise IntegrityError(
            f"the selection covers {len(selection.copies)} documents, expected the {selectable} not excluded"
        )


def _spread(values: NDArray[Any], rows: NDArray[np.int64], size: int, fill: float) -> NDArray[Any]:
    full = np.full(size, fill, dtype=values.dtype)
    full[rows] = values
    return full


def _labels(index: NDArray[np.integer], names: Sequence[str | None]) -> pa.Array:
    """Return names[index] as Arrow strings."""
    return pa.array(names, pa.string()).take(pa.array(index))


def read_info(table: pa.Table | pa.Schema, path: str | Path) -> SelectionInfo:
    """Return what the schema of a part says about its numbers."""
    schema = table.schema if isinstance(table, pa.Table) else table
    raw = (schema.metadata or {}).get(_KEY)
    if raw is None:
        raise InputError(f"{path} is not a selection table of quadmix; expected one written by `quadmix run`")
    data = orjson.loads(raw)
    if data.get("version") != VERSION:
        raise InputError(
            f"{path} has version {data.get('version')}, expected {VERSION}; run the selection again"
        )
    return from_json(SelectionInfo, data, where=str(path))


def read_part(run_folder: str | Path, split: int) -> SelectionTable:
    """Read the part of one split."""
    path = Path(run_folder) / SELECTION / part_name(split)
    if not path.is_file():
        raise InputError(f"{path} does not exist; run `quadmix run` up to the selection first")
    return _to_table(read_table(path), path, split)


def stream_selection(run_folder: str | Path) -> Iterator[SelectionTable]:
    """Yield the parts in corpus order, one in memory at a time."""
    for part in read_manifest(run_folder).parts:
        yield read_part(run_folder, part.split)


def read_selection(run_folder: str | Path) -> SelectionTable:
    """Read the whole selection into memory (about 100 bytes per document)."""
    tables = list(stream_selection(run_folder))
    if not tables:
        raise InputError(f"{Path(run_folder) / SELECTION} has no part; the corpus holds no document")
    return SelectionTable(
        info=tables[0].info,
        doc_id=pa.chunked_array([c for t in tables for c in t.doc_id.chunks], pa.string()),
        keys=np.concatenate([t.keys for t in tables]),
        split=np.concatenate([t.split for t in tables]),
        row_in_split=np.concatenate([t.row_in_split for t in tables]),
        domain=np.concatenate([t.domain for t in tables]),
        tokens=np.concatenate([t.tokens for t in tables]),
        scores=np.concatenate([t.scores for t in tables]),
        norms=np.concatenate([t.norms for t in tables]),
        merged=np.concatenate([t.merged for t in tables]),
        ranks=Ranks(
            low=np.concatenate([t.ranks.low for t in tables]),
            high=np.concatenate([t.ranks.high for t in tables]),
        ),
        expected=np.concatenate([t.expected for t in tables]),
        copies=np.concatenate([t.copies for t in tables]),
        excluded=pa.chunked_array([c for t in tables for c in t.excluded.chunks], pa.string()),
    )


def _to_table(table: pa.Table, path: Path, split: int) -> SelectionTable:
    info = read_info(table, path)
    names = [c.name for c in info.criteria]
    size = table.num_rows
    return SelectionTable(
        info=info,
        doc_id=table["doc_id"],
        keys=_numpy(table, "key"),
        split=np.full(size, split, dtype=np.int32),
        row_in_split=np.arange(size, dtype=np.int32),
        domain=_domain_index(table["domain"], info.domains, path),
        tokens=_numpy(table, "tokens"),
        scores=np.column_stack([_numpy(table, f"score:{n}") for n in names]),
        norms=np.column_stack([_numpy(table, f"norm:{n}") for n in names]),
        merged=_numpy(table, "merged"),
        ranks=Ranks(low=_numpy(table, "rank_low"), high=_numpy(table, "rank_high")),
        expected=_numpy(table, "expected"),
        copies=_numpy(table, "copies"),
        excluded=table["excluded"],
    )


def _numpy(table: pa.Table, name: str) -> NDArray[Any]:
    return table[name].to_numpy()


def _domain_index(labels: pa.ChunkedArray, domains: tuple[str, ...], path: Path) -> NDArray[np.int16]:
    encoded = labels.combine_chunks().dictionary_encode()
    place = {name: i for i, name in enumerate(domains)}
    names: list[str] = encoded.dictionary.to_pylist()
    if unknown := sorted(set(names) - set(place)):
        raise IntegrityError(f"{path}: domain {unknown[0]!r} is not among the run's domains {list(domains)}")
    index = np.array([place[n] for n in names], dtype=np.int16)
    return index[encoded.indices.to_numpy()] if len(names) else np.empty(0, dtype=np.int16)
