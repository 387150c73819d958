"""What travels between the steps of a rater's training: texts, pairs of texts, ratings; and their files.

A text is exactly what the encoder sees: an excerpt of a document, or a translation of an excerpt. Raters
judge these texts and not the documents that they were cut from, so that labels never refer to what the
encoder cannot read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.io.atomic import read_table, write_table
from quadmix.types import Floats

KINDS = ("mono", "cross", "parallel")
MONO, CROSS, PARALLEL = range(3)
TEXTS, PAIRS, RATINGS = "texts.parquet", "pairs.parquet", "ratings.parquet"
_RATING = "rating:"
Rows = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texts:
    """D texts.

    ids: distinct. source: the document that a text was cut from, or translated from in the end: the unit of
    the split into training and validation, equal across translations. origin: id of the text that it
    translates, "" where it is no translation. language: code of its language.
    """

    ids: tuple[str, ...]
    source: tuple[str, ...]
    origin: tuple[str, ...]
    language: tuple[str, ...]
    text: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> "Texts":
        """Return some of the texts, in the order of `rows`."""
        return Texts(
            ids=tuple(self.ids[i] for i in rows),
            source=tuple(self.source[i] for i in rows),
            origin=tuple(self.origin[i] for i in rows),
            language=tuple(self.language[i] for i in rows),
            text=tuple(self.text[i] for i in rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """P pairs of texts.

    a, b: (P,) int32 rows of `Texts`. p: (P,) float64 in [0, 1], the probability that a is better (spec
    section 2.2); 0.5 exactly for parallel pairs. weight: (P,) float64 > 0, its share in the loss. kind: (P,)
    int8, a place in KINDS. held: (P,) bool, a pair of the validation part.
    """

    a: Rows
    b: Rows
    p: Floats
    weight: Floats
    kind: NDArray[np.int8]
    held: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.a)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "Pairs":
        """Return the pairs at a mask (P,) or at places."""
        return Pairs(
            a=self.a[rows], b=self.b[rows], p=self.p[rows], weight=self.weight[rows], kind=self.kind[rows],
            held=self.held[rows],
        )  # fmt: skip


def join_pairs(*parts: Pairs) -> Pairs:
    """Put pairs of the same texts one after another."""
    return Pairs(
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("a", "b", "p", "weight", "kind", "held")
        }
    )


def used_alone(texts: Texts, pairs: Pairs, rated: NDArray[np.bool_]) -> tuple[Rows, Pairs]:
    """Return the rows of the texts that a pair names, with their originals and the translations of them that
    were rated, and the pairs of the texts at these rows. rated: (D,)."""
    place = {id_: row for row, id_ in enumerate(texts.ids)}
    used = set(np.unique(np.concatenate([pairs.a, pairs.b])).tolist())
    used |= {place[texts.origin[row]] for row in used if texts.origin[row]}
    judged = {row for row in np.flatnonzero(rated).tolist() if place.get(texts.origin[row]) in used}
    rows = np.array(sorted(used | judged), np.int32)
    new = np.full(len(texts), -1, np.int32)
    new[rows] = np.arange(len(rows), dtype=np.int32)
    return rows, replace(pairs, a=new[pairs.a], b=new[pairs.b])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ratings:
    """names: (R,) raters. values: (D, R) float32, larger = better, NaN = the rater abstains."""

    names: tuple[str, ...]
    values: NDArray[np.float32]


def write_texts(path: Path, texts: Texts) -> None:
    """Write texts.parquet, atomically."""
    columns = {name: list(getattr(texts, name)) for name in ("ids", "source", "origin", "language", "text")}
    write_table(path, pa.table({k: pa.array(v, pa.string()) for k, v in columns.items()}))


def read_texts(path: Path) -> Texts:
    """Read texts.parquet; InputError if it is not one, or names an id twice."""
    table = _columns(path, ("ids", "source", "origin", "language", "text"))
    found = Texts(**{name: tuple(table[name].to_pylist()) for name in table.column_names})
    if len(set(found.ids)) != len(found):
        twice = next(i for i in found.ids if found.ids.count(i) > 1)
        raise InputError(
            f"{path}: id {twice!r} stands there twice, expected distinct ids; make the pairs anew"
        )
    return found


def write_pairs(path: Path, pairs: Pairs, texts: Texts) -> None:
    """Write pairs.parquet, which names its texts by id, atomically."""
    ids = np.array(texts.ids, dtype=object)
    table = pa.table(
        {
            "a": pa.array(ids[pairs.a], pa.string()),
            "b": pa.array(ids[pairs.b], pa.string()),
            "p": pa.array(pairs.p, pa.float64()),
            "weight": pa.array(pairs.weight, pa.float64()),
            "kind": pa.array([KINDS[k] for k in pairs.kind.tolist()], pa.string()),
            "held": pa.array(pairs.held, pa.bool_()),
        }
    )
    write_table(path, table)


def read_pairs(path: Path, texts: Texts) -> Pairs:
    """Read pairs.parquet; InputError names a row whose text, kind or label is not one."""
    table = _columns(path, ("a", "b", "p", "weight", "kind", "held"))
    place = {id_: row for row, id_ in enumerate(texts.ids)}
    kinds = {name: number for number, name in enumerate(KINDS)}
    sides: dict[str, list[int]] = {"a": [], "b": []}
    for side, rows in sides.items():
        for row, id_ in enumerate(table[side].to_pylist()):
            if id_ not in place:
                raise InputError(
                    f"{path}, row {row}: column {side!r} names text {id_!r}, which is not in {TEXTS}"
                )
            rows.append(place[id_])
    for row, (kind, p, weight) in enumerate(
        zip(table["kind"].to_pylist(), table["p"].to_pylist(), table["weight"].to_pylist(), strict=True)
    ):
        if kind not in kinds:
            raise InputError(f"{path}, row {row}: kind is {kind!r}, expected one of {', '.join(KINDS)}")
        if p is None or not 0 <= p <= 1 or weight is None or not 0 < weight < float("inf"):
            raise InputError(
                f"{path}, row {row}: p is {p}, weight {weight}; expected p in [0, 1] and a weight above 0"
            )
    return Pairs(
        a=np.array(sides["a"], np.int32),
        b=np.array(sides["b"], np.int32),
        p=np.array(table["p"].to_pylist(), np.float64),
        weight=np.array(table["weight"].to_pylist(), np.float64),
        kind=np.array([kinds[k] for k in table["kind"].to_pylist()], np.int8),
        held=np.array(table["held"].to_pylist(), np.bool_),
    )


def write_ratings(path: Path, ratings: Ratings, texts: Texts) -> None:
    """Write ratings.parquet: the ids of the texts and a column per rater, atomically. NaN becomes null."""
    columns: dict[str, pa.Array] = {"ids": pa.array(list(texts.ids), pa.string())}
    for number, name in enumerate(ratings.names):
        columns[_RATING + name] = pa.array(ratings.values[:, number], pa.float32(), from_pandas=True)
    write_table(path, pa.table(columns))


def read_ratings(path: Path, texts: Texts) -> Ratings:
    """Read ratings.parquet in the order of `texts`; a text without a row has no rating."""
    table = read_table(path)
    names = tuple(c.removeprefix(_RATING) for c in table.column_names if c.startswith(_RATING))
    if "ids" not in table.column_names or not names:
        raise InputError(
            f"{path}: expected a column `ids` and columns `{_RATING}NAME`, found {table.column_names}"
        )
    place = {id_: row for row, id_ in enumerate(table["ids"].to_pylist())}
    rows = np.array([place.get(i, -1) for i in texts.ids], np.int64)
    values = np.stack([table[_RATING + n].to_numpy().astype(np.float32) for n in names], axis=1)
    found = np.full((len(texts), len(names)), np.nan, np.float32)
    found[rows >= 0] = values[rows[rows >= 0]]
    return Ratings(names=names, values=found)


def _columns(path: Path, names: Sequence[str]) -> pa.Table:
    table = read_table(path)
    lacking = [n for n in names if n not in table.column_names]
    if lacking:
        raise InputError(
            f"{path}: column {lacking[0]!r} is missing, found {table.column_names}; make it anew"
        )
    return table.select(list(names))
