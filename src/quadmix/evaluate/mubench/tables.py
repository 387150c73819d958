"""Predictions of many tasks as one Parquet file, one row per task, mode, estimator, language and item."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.evaluate.mubench.items import Predictions
from quadmix.io.atomic import read_table, write_table

COLUMNS = ("task", "mode", "language", "estimator", "id", "chosen", "label", "options")
_WORDS = ("task", "mode", "language", "estimator", "id")
_SCHEMA = pa.schema([(n, pa.string() if n in _WORDS else pa.int16()) for n in COLUMNS])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What was chosen in one language: ids (I,), and int16 (I,) of each. chosen: -1 = no answer."""

    ids: tuple[str, ...]
    chosen: NDArray[np.int16]
    labels: NDArray[np.int16]
    options: NDArray[np.int16]


def write_predictions(path: str | Path, predictions: Sequence[Predictions]) -> None:
    """Write predictions as one Parquet file with `COLUMNS`, atomically.

    Raises InputError where task, mode, estimator and language are there twice.
    """
    parts: list[pa.Table] = []
    seen: set[tuple[str, str, str, str]] = set()
    for one in predictions:
        for language, chosen in one.chosen.items():
            key = (one.task, one.mode, one.estimator, language)
            if key in seen:
                raise InputError(f"predictions {' '.join(key)} are there twice; expected each once")
            seen.add(key)
            words = {"task": one.task, "mode": one.mode, "language": language, "estimator": one.estimator}
            columns = {name: pa.array([word] * len(one.ids)) for name, word in words.items()}
            columns |= {"id": pa.array(one.ids, pa.string()), "chosen": pa.array(chosen)}
            columns |= {"label": pa.array(one.labels), "options": pa.array(one.options)}
            parts.append(pa.table([columns[name] for name in COLUMNS], schema=_SCHEMA))
    table = pa.concat_tables(parts) if parts else _SCHEMA.empty_table()
    write_table(path, table, dictionary=_WORDS[:-1])


def read_predictions(path: str | Path) -> list[Predictions]:
    """Read predictions back, one per task, mode and estimator, in the order of the file.

    Rows of a language may stand in any order. Raises InputError naming file, language and id where columns
    are missing, or ids, labels or numbers of options differ between the languages of one task.
    """
    table = read_table(path)
    if lacking := [name for name in COLUMNS if name not in table.column_names]:
        raise InputError(
            f"{path}: no column {lacking[0]!r}; predictions have {', '.join(COLUMNS)}: write them with "
            "`quadmix mubench evaluate`"
        )
    try:
        table = table.select(COLUMNS).cast(_SCHEMA)
    except pa.ArrowException as error:
        raise InputError(f"{path}: a column has another type ({error}); expected {_SCHEMA}") from error
    if any(table[name].null_count for name in COLUMNS):
        raise InputError(f"{path}: a cell is empty; expected all columns filled, chosen -1 for no answer")
    groups: dict[tuple[str, str, str], dict[str, Answers]] = {}
    for key, part in _grouped(table):
        task, mode, estimator, language = key
        numbers = (part[name].to_numpy() for name in ("chosen", "label", "options"))
        chosen, labels, options = (np.asarray(n, dtype=np.int16) for n in numbers)
        ids = tuple(cast(list[str], part["id"].to_pylist()))
        groups.setdefault((task, mode, estimator), {})[language] = Answers(
            ids=ids, chosen=chosen, labels=labels, options=options
        )
    return [join_answers(str(path), key, languages) for key, languages in groups.items()]


def _grouped(table: pa.Table) -> Iterable[tuple[tuple[str, str, str, str], pa.Table]]:
    """Yield the rows of each task, mode, estimator and language."""
    keys = [
        table[name].combine_chunks().dictionary_encode() for name in ("task", "mode", "estimator", "language")
    ]
    codes = np.zeros(table.num_rows, dtype=np.int64)
    for key in keys:
        codes = codes * max(len(key.dictionary), 1) + key.indices.to_numpy()
    _, first, group, sizes = np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
    rows = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    for place in np.argsort(first) if table.num_rows else ():
        key = cast(tuple[str, str, str, str], tuple(k[int(first[place])].as_py() for k in keys))
        yield key, table.take(pa.array(rows[place]))


def join_answers(source: str, key: tuple[str, str, str], languages: Mapping[str, Answers]) -> Predictions:
    """Return the answers of several languages joined by id, in the order of the first language.

    key: task, mode, estimator. Raises InputError naming source, language and id; see `read_predictions`.
    """
    task, mode, estimator = key
    name = f"{source}, {task} {mode} {estimator}"
    first, base = next(iter(languages.items()))
    place = {i: n for n, i in enumerate(base.ids)}
    chosen: dict[str, NDArray[np.int16]] = {}
    for language, own in languages.items():
        if len(set(own.ids)) < len(own.ids):
            twice = next(i for i, n in Counter(own.ids).items() if n > 1)
            raise InputError(f"{name}: id {twice!r} is there twice in {language}; expected each item once")
        if odd := sorted(set(own.ids) ^ place.keys()):
            raise InputError(
                f"{name}: the ids of {language} are not those of {first}, as {odd[0]!r}; expected the same "
                "items, each once, in every language. Evaluate them on one subset of ids"
            )
        order = np.argsort([place[i] for i in own.ids])
        chosen[language] = own.chosen[order]
        for what, mine, theirs in (
            ("label", own.labels[order], base.labels),
            ("number of options", own.options[order], base.options),
        ):
            if (bad := np.flatnonzero(mine != theirs)).size:
                raise InputError(
                    f"{name}: the {what} of {language} differs from {first} on {bad.size} ids, as "
                    f"{base.ids[bad[0]]!r}; the rows are not aligned. Join by id, not by row number"
                )
    try:
        return Predictions(
            task=task, mode=mode, estimator=estimator, ids=base.ids, chosen=chosen, labels=base.labels,
            options=base.options,
        )  # fmt: skip
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
