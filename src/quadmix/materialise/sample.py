"""Sample documents for the report: who is at the top, at the edge, dropped, and where criteria disagree.

In: the selection table. Out: rows per stratum, and later the table samples.parquet with the text that the
materialisation met on its way. Every stratum takes its best document of each domain before any second best,
so that small domains are seen too; ties fall by a hash of (seed, stratum, document).
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from quadmix.materialise.table import SelectionTable
from quadmix.rng import keyed_uniform
from quadmix.types import Floats, Ints

STRATA = ("top", "kept", "borderline", "dropped", "dropped_high", "disagree")
TEXT_CHARACTERS = 2000


def choose_samples(table: SelectionTable, *, seed: int, n: int = 30) -> dict[str, Ints]:
    """Return up to `n` rows of the table for each stratum; excluded documents are never shown."""
    rank = (table.ranks.low + table.ranks.high) / 2
    kept = table.selectable & (table.copies > 0)
    dropped = table.selectable & (table.copies == 0)
    distance = np.abs(rank - cutoffs(table)[table.domain])
    inside = rank <= cutoffs(table)[table.domain]
    flat = np.zeros(len(table))
    lowest, spread = _extremes(table)
    half = (n + 1) // 2
    chosen = {
        "top": _pick(table, kept, rank, "top", seed, n),
        "kept": _pick(table, kept, flat, "kept", seed, n),
        "borderline": np.concatenate(
            [
                _pick(table, table.selectable & inside, distance, "borderline", seed, half),
                _pick(table, table.selectable & ~inside, distance, "borderline", seed, n - half),
            ]
        ),
        "dropped": _pick(table, dropped, flat, "dropped", seed, n),
        "dropped_high": _pick(table, dropped, lowest, "dropped_high", seed, n),
        "disagree": _pick(table, table.selectable & (spread > 0), -spread, "disagree", seed, n),
    }
    return chosen


def cutoffs(table: SelectionTable) -> Floats:
    """Return (M,) the rank at which expected copies fall most between neighbours, 1 where they never fall."""
    rank = (table.ranks.low + table.ranks.high) / 2
    edges = np.ones(len(table.info.domains))
    for m in range(len(edges)):
        rows = np.flatnonzero(table.selectable & (table.domain == m))
        rows = rows[np.argsort(rank[rows], kind="stable")]
        drop = -np.diff(table.expected[rows])
        if len(drop) and drop.max() > 0:
            edges[m] = rank[rows[int(drop.argmax())]]
    return edges


def _extremes(table: SelectionTable) -> tuple[Floats, Floats]:
    """Return (D,) the best normalised score of each document, and best-to-worst spread of its criteria."""
    missing = np.isnan(table.norms)
    low = np.where(missing, np.inf, table.norms).min(axis=1).astype(np.float64)
    high = np.where(missing, -np.inf, table.norms).max(axis=1).astype(np.float64)
    bare = missing.all(axis=1)
    return low, np.where(bare, 0.0, np.where(bare, 0.0, high) - np.where(bare, 0.0, low))


def _pick(table: SelectionTable, mask: np.ndarray, value: Floats, stratum: str, seed: int, n: int) -> Ints:
    """Return up to n rows of `mask` with the smallest `value`, one of each domain before any second."""
    rows = np.flatnonzero(mask)
    luck = keyed_uniform(seed, table.keys[rows], f"sample:{stratum}")
    rows = rows[np.lexsort((luck, value[rows]))]
    turn = np.empty(len(rows), dtype=np.int64)
    for m in range(len(table.info.domains)):
        mine = table.domain[rows] == m
        turn[mine] = np.arange(int(mine.sum()))
    return rows[np.argsort(turn, kind="stable")][:n].astype(np.int64)


def samples_table(table: SelectionTable, chosen: Mapping[str, Ints], texts: Mapping[int, str]) -> pa.Table:
    """Return samples.parquet: one row per stratum and document. texts: row of the table -> text."""
    rows = np.concatenate(list(chosen.values()))
    names = [c.name for c in table.info.criteria]
    columns = {
        "stratum": pa.array([s for s, r in chosen.items() for _ in range(len(r))], pa.string()),
        "doc_id": table.doc_id.take(pa.array(rows)),
        "domain": pa.array([table.info.domains[m] for m in table.domain[rows]], pa.string()),
        "tokens": pa.array(table.tokens[rows]),
    }
    columns |= {f"score:{n}": pa.array(table.scores[rows, i]) for i, n in enumerate(names)}
    columns |= {f"norm:{n}": pa.array(table.norms[rows, i]) for i, n in enumerate(names)}
    columns |= {
        "merged": pa.array(table.merged[rows]),
        "rank_low": pa.array(table.ranks.low[rows]),
        "rank_high": pa.array(table.ranks.high[rows]),
        "expected": pa.array(table.expected[rows]),
        "copies": pa.array(table.copies[rows]),
        "text": pa.array([texts[int(r)] for r in rows], pa.string()),
    }
    return pa.table(columns)
