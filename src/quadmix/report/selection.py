"""selection/ -> the rows that figures are drawn from: all of them, or of a large run a sample by hash.

In: `selection/manifest.json` and its parts, one in memory at a time. Out: a `Table`, for shapes; counts come
from the manifests. Scores and ranks: smaller = better. D documents, N criteria, M domains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.io.atomic import read_json, read_table
from quadmix.rng import keyed_uniform
from quadmix.types import Floats

pc: Any = pyarrow.compute  # its functions are made at import time, unknown to type checkers
SAMPLE = 1_000_000
NOT_DRAWN = "not_drawn"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """D selectable documents (not held out, not excluded) of the selection, without strings.

    domain: (D,) index into `domains`. tokens, copies: (D,). scores: (D, N), NaN = missing. low, high,
    expected: (D,) rank interval and expected copies. coverage: (N,) share of *all* documents that have the
    score. declared: direction of each criterion as delivered. documents: how many are selectable, D or more
    if these are a sample. longest: (M,) tokens of the longest selectable document, sampled or not.
    """

    domains: tuple[str, ...]
    criteria: tuple[str, ...]
    domain: NDArray[np.int64]
    tokens: Floats
    copies: Floats
    scores: NDArray[np.float32]
    low: Floats
    high: Floats
    expected: Floats
    coverage: Floats
    declared: dict[str, str]
    documents: int
    longest: Floats

    @property
    def rank(self) -> Floats:
        return (self.low + self.high) / 2

    @property
    def sampled(self) -> bool:
        return len(self.tokens) < self.documents


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    """What selection/manifest.json says of the parts. documents: selectable ones."""

    domains: tuple[str, ...]
    declared: dict[str, str]
    parts: tuple[str, ...]
    documents: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """The rows taken from one part, and counts over all of its rows. known: (N,) documents with the score."""

    rows: pa.Table
    domain: NDArray[np.int64]
    documents: int
    known: Floats
    longest: Floats


def load_table(folder: Path, *, sample: int = SAMPLE) -> Table | None:
    """Read selection/ of a run folder, None if there is none. sample: about so many rows at most."""
    path = folder / "selection" / "manifest.json"
    if not path.is_file():
        return None
    manifest = _manifest(path)
    share = min(1.0, sample / max(1, manifest.documents))
    parts = [_part(path.parent / name, manifest, share) for name in manifest.parts]
    criteria = tuple(manifest.declared)
    total = sum(p.documents for p in parts)

    def column(name: str) -> Floats:
        return np.concatenate([np.empty(0), *(_array(p.rows[name]) for p in parts)])

    scores = [column(f"score:{c}").astype(np.float32) for c in criteria]
    tokens = column("tokens")
    return Table(
        domains=manifest.domains,
        criteria=criteria,
        domain=np.concatenate([np.empty(0, dtype=np.int64), *(p.domain for p in parts)]),
        tokens=tokens,
        copies=column("copies"),
        scores=np.stack(scores, axis=1) if scores else np.empty((len(tokens), 0), dtype=np.float32),
        low=column("rank_low"),
        high=column("rank_high"),
        expected=column("expected"),
        coverage=sum((p.known for p in parts), np.zeros(len(criteria))) / max(1, total),
        declared=manifest.declared,
        documents=manifest.documents,
        longest=np.max([np.zeros(len(manifest.domains)), *(p.longest for p in parts)], axis=0),
    )


def _manifest(path: Path) -> _Manifest:
    data = read_json(path)
    try:
        return _Manifest(
            domains=tuple(data["info"]["domains"]),
            declared={c["name"]: c["declared"] for c in data["info"]["criteria"]},
            parts=tuple(p["name"] for p in data["parts"]),
            documents=sum(p["selected"] + p["dropped"].get(NOT_DRAWN, 0) for p in data["parts"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a manifest of a selection ({error!r}); expected one written by `quadmix run`"
        ) from error


def _part(path: Path, manifest: _Manifest, share: float) -> _Part:
    names = [f"score:{c}" for c in manifest.declared]
    numbers = ["tokens", "rank_low", "rank_high", "expected", "copies"]
    full = read_table(path, columns=["key", "domain", "excluded", *numbers, *names])
    known = [float((~np.isnan(_array(full[name]))).sum()) for name in names]
    rows = full.filter(pc.is_null(full["excluded"]))
    domain = _domain(rows["domain"], manifest.domains, path)
    longest = np.zeros(len(manifest.domains))
    np.maximum.at(longest, domain, _array(rows["tokens"]))
    taken = np.ones(len(rows), dtype=np.bool_)
    if share < 1.0:
        # A stream of its own: the sample must not follow the draw of the copies.
        taken = keyed_uniform(0, rows["key"].to_numpy(), "report") < share
    return _Part(
        rows=rows.select([*numbers, *names]).filter(pa.array(taken)),
        domain=domain[taken],
        documents=len(full),
        known=np.array(known),
        longest=longest,
    )


def _domain(labels: pa.ChunkedArray, domains: Sequence[str], path: Path) -> NDArray[np.int64]:
    index = pc.index_in(labels, value_set=pa.array(domains, type=labels.type))
    if index.null_count:
        unknown = labels.filter(pc.is_null(index))[0].as_py()
        raise InputError(f"{path}: domain {unknown!r} is not among those of its manifest, {list(domains)}")
    return index.to_numpy().astype(np.int64)


def _array(column: Any) -> Floats:
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(), dtype=np.float64)
