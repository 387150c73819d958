"""selection.parquet: one row per document in corpus order, with every number that decided its copies.

In: the full annotations (held-out documents too), who was excluded and why, and the selection among the
rest. Out: the table, and its reader. Scores, normalised scores, merged scores and ranks: smaller = better.
Excluded documents have 0 copies, 0 expected copies, and NaN for what was never computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.codec import from_json, to_json
from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import read_table, write_table
from quadmix.mixing.rank import RankMode
from quadmix.rng import doc_keys
from quadmix.types import Annotations, Copies, CriterionInfo, Floats, Ranks, Selection

SELECTION = "selection.parquet"
VERSION = 1
_KEY = b"quadmix.selection"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionInfo:
    """What the table's numbers mean; stored in the file's schema."""

    criteria: tuple[CriterionInfo, ...]
    domains: tuple[str, ...]
    seed: int
    rank_mode: RankMode
    version: int = VERSION


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SelectionTable:
    """selection.parquet in memory, rows in corpus order.

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


def write_selection(
    run_folder: str | Path,
    annotations: Annotations,
    *,
    excluded: NDArray[np.int8],
    reasons: Sequence[str],
    selection: Selection,
    seed: int,
    rank_mode: RankMode = "interval",
) -> Path:
    """Write selection.parquet and return its path.

    annotations: all documents in corpus order. excluded: (D,) int8, 0 = selectable, k = reasons[k - 1].
    selection: of the selectable rows, in the same order (S = number of zeros in `excluded`).
    """
    open_rows = np.flatnonzero(excluded == 0)
    _check_lengths(annotations, excluded, reasons, len(open_rows), selection)
    info = SelectionInfo(
        criteria=annotations.criteria, domains=annotations.domains, seed=seed, rank_mode=rank_mode
    )
    size = len(annotations)
    columns: dict[str, Any] = {
        "doc_id": annotations.doc_id,
        "split": pa.array(annotations.split, pa.int32()),
        "row_in_split": pa.array(_row_in_split(annotations.split), pa.int32()),
        "domain": pa.array(np.asarray(annotations.domains, dtype=object)[annotations.domain], pa.string()),
        "tokens": pa.array(annotations.tokens, pa.int32()),
        "held_out": pa.array(annotations.held_out),
    }
    for n, criterion in enumerate(annotations.criteria):
        columns[f"score:{criterion.name}"] = pa.array(annotations.scores[:, n])
    for n, criterion in enumerate(annotations.criteria):
        columns[f"norm:{criterion.name}"] = _spread(selection.normalised[:, n], open_rows, size, np.nan)
    columns["merged"] = _spread(selection.merged, open_rows, size, np.nan)
    columns["rank_low"] = _spread(selection.ranks.low, open_rows, size, np.nan)
    columns["rank_high"] = _spread(selection.ranks.high, open_rows, size, np.nan)
    columns["expected"] = _spread(selection.expected, open_rows, size, 0.0)
    columns["copies"] = _spread(selection.copies, open_rows, size, 0)
    names = np.asarray([None, *reasons], dtype=object)
    columns["excluded"] = pa.array(names[excluded], pa.string())
    path = Path(run_folder) / SELECTION
    table = pa.table(columns).replace_schema_metadata({_KEY: orjson.dumps(to_json(info))})
    write_table(path, table)
    return path


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
    if (np.diff(annotations.split) < 0).any():
        raise IntegrityError("annotations are not in corpus order: split numbers must not decrease")


def _row_in_split(split: NDArray[np.int32]) -> NDArray[np.int32]:
    starts = np.flatnonzero(np.diff(split, prepend=-1))
    lengths = np.diff(starts, append=len(split))
    return (np.arange(len(split)) - np.repeat(starts, lengths)).astype(np.int32)


def _spread(values: NDArray[Any], rows: NDArray[np.int64], size: int, fill: float) -> pa.Array:
    full = np.full(size, fill, dtype=values.dtype)
    full[rows] = values
    return pa.array(full)


def read_info(table: pa.Table, path: str | Path) -> SelectionInfo:
    """Return what the schema of a selection table says about its numbers."""
    raw = (table.schema.metadata or {}).get(_KEY)
    if raw is None:
        raise InputError(f"{path} is not a selection table of quadmix; expected one written by `quadmix run`")
    data = orjson.loads(raw)
    if data.get("version") != VERSION:
        raise InputError(
            f"{path} has version {data.get('version')}, expected {VERSION}; run the selection again"
        )
    return from_json(SelectionInfo, data, where=str(path))


def read_selection(run_folder: str | Path) -> SelectionTable:
    """Read selection.parquet of a run folder whole."""
    path = Path(run_folder) / SELECTION
    if not path.is_file():
        raise InputError(f"{path} does not exist; run `quadmix run` up to the selection first")
    table = read_table(path)
    info = read_info(table, path)
    names = [c.name for c in info.criteria]
    doc_id = table["doc_id"]
    return SelectionTable(
        info=info,
        doc_id=doc_id,
        keys=doc_keys(doc_id.to_pylist()),
        split=_numpy(table, "split"),
        row_in_split=_numpy(table, "row_in_split"),
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
    return index[encoded.indices.to_numpy()]
