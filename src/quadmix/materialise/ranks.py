"""selection/ranks.parquet: where the tokens of each domain lie on its scale of merged scores.

In: the `RankTable` from which the ranks of all parts were looked up. Out: one row per bin, by domain, then by
value ascending: `domain` string, `value` float64 (least merged score of the bin, smaller = better), `tokens`
int64. The schema names all domains in the order of the run, those without a document too.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import read_table, write_table
from quadmix.materialise.table import SELECTION
from quadmix.mixing.tally import RankTable

RANKS = "ranks.parquet"
_KEY = b"quadmix.ranks"


def write_ranks(run_folder: str | Path, table: RankTable, domains: Sequence[str]) -> Path:
    """Write selection/ranks.parquet and return its path. domains: (M,) names, in the order of `table`."""
    if len(domains) != len(table.values):
        raise IntegrityError(f"the rank table has {len(table.values)} domains, expected {list(domains)}")
    sizes = np.array([len(v) for v in table.values], dtype=np.int64)
    index = pa.array(np.repeat(np.arange(len(sizes)), sizes))
    columns = {
        "domain": pa.array(domains, pa.string()).take(index),
        "value": pa.array(np.concatenate([np.empty(0), *table.values]), pa.float64()),
        "tokens": pa.array(
            np.concatenate([np.empty(0, np.int64), *(np.diff(t) for t in table.through)]), pa.int64()
        ),
    }
    path = Path(run_folder) / SELECTION / RANKS
    write_table(path, pa.table(columns).replace_schema_metadata({_KEY: orjson.dumps(list(domains))}))
    return path


def read_ranks(run_folder: str | Path) -> RankTable:
    """Read selection/ranks.parquet; one entry per domain of the run, empty where it has no document."""
    path = Path(run_folder) / SELECTION / RANKS
    if not path.is_file():
        raise InputError(f"{path} does not exist; run `quadmix run` up to the selection first")
    table = read_table(path)
    raw = (table.schema.metadata or {}).get(_KEY)
    if raw is None:
        raise InputError(f"{path} is not a rank table of quadmix; expected one written by `quadmix run`")
    domains: list[str] = orjson.loads(raw)
    labels = table["domain"].combine_chunks()
    place = pc.call_function("index_in", [labels], pc.SetLookupOptions(pa.array(domains, pa.string())))
    if place.null_count:
        unknown = labels.filter(place.is_null())[0].as_py()
        raise IntegrityError(f"{path}: domain {unknown!r} is not among the run's domains {domains}")
    edges = np.searchsorted(place.to_numpy(), np.arange(len(domains) + 1))
    values = np.split(table["value"].to_numpy(), edges[1:-1])
    tokens = np.split(table["tokens"].to_numpy(), edges[1:-1])
    for name, value in zip(domains, values, strict=True):
        if (np.diff(value) <= 0).any():
            raise IntegrityError(
                f"{path}: the values of domain {name!r} do not ascend; was the file changed?"
            )
    return RankTable(
        values=tuple(values),
        through=tuple(np.concatenate([[0], np.cumsum(t, dtype=np.int64)]) for t in tokens),
    )
