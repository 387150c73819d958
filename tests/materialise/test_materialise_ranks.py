"""ranks.parquet gives back the table it was written from, and says what is wrong with a foreign one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import read_table, write_table
from quadmix.materialise.ranks import read_ranks, write_ranks
from quadmix.mixing.tally import RankTable, rank_table, tally

DOMAINS = ("b", "empty", "a", "none")


def made() -> RankTable:
    rng = np.random.default_rng(1)
    empty = tally(np.empty(0), np.empty(0, dtype=np.int32))
    full = [tally(rng.normal(size=n).round(1), rng.integers(1, 99, n)) for n in (50, 7)]
    return rank_table([full[0], empty, full[1], empty])


def test_what_was_written_is_read_again_domains_without_documents_too(tmp_path: Path):
    table = made()
    path = write_ranks(tmp_path, table, DOMAINS)
    again = read_ranks(tmp_path)
    for name in ("values", "through"):
        for old, new in zip(getattr(table, name), getattr(again, name), strict=True):
            assert np.array_equal(old, new)
    assert [len(v) for v in again.values][1::2] == [0, 0]
    stored = read_table(path)
    assert {f.name: str(f.type) for f in stored.schema} == {
        "domain": "string", "value": "double", "tokens": "int64",
    }  # fmt: skip
    assert stored["domain"].unique().to_pylist() == ["b", "a"]


def test_a_missing_a_foreign_and_a_changed_file_are_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"ranks.parquet does not exist"):
        read_ranks(tmp_path)
    path = write_ranks(tmp_path, made(), DOMAINS)
    table = read_table(path)
    write_table(path, table.replace_schema_metadata(None))
    with pytest.raises(InputError, match="is not a rank table of quadmix"):
        read_ranks(tmp_path)
    write_table(
        path, table.take(pa.array(np.arange(len(table))[::-1])).replace_schema_metadata(table.schema.metadata)
    )
    with pytest.raises(IntegrityError, match="do not ascend"):
        read_ranks(tmp_path)
    write_table(path, table.set_column(0, "domain", pa.array(["x"] * len(table))))
    with pytest.raises(IntegrityError, match="domain 'x' is not among the run's domains"):
        read_ranks(tmp_path)
    with pytest.raises(IntegrityError, match=r"has 4 domains, expected \['a'\]"):
        write_ranks(tmp_path, made(), ["a"])
