"""Predictions of many tasks as one Parquet file, one row per task, mode, estimator, language and item."""

from collections.abc import Iterable, Sequence
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
    table = table.select(COLUMNS)
    if any(table[name].null_count for name in COLUMNS):
        raise InputError(
            f"{path}: a cell is empty; expected all of {', '.join(COLUMNS)}, chosen -1 for no answer"
        )
    groups: dict[tuple[str, str, str], dict[str, pa.Table]] = {}
    for key, part in _grouped(table):
        task, mode, estimator, language = key
        groups.setdefault((task, mode, estimator), {})[language] = part
    return [_joined(path, key, languages) for key, languages in groups.items()]


def _grouped(table: pa.Table) -> Iterable[tuple[tuple[str, str, str, str], pa.Table]]:
    """Yield the rows of each task, mode, estimator and language."""
    keys = [
        table[name].combine_chunks().dictionary_encode() for name in ("task", "mode", "estimator", "language")
    ]
    codes = np.zeros(table.num_rows, dtype=np.int64)
    for key in keys:
        codes = codes * max(len(key.dictionary), 1) + key.indices.to_numpy()
    _, first, group = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group, minlength=len(first)))
    for start in np.sort(first):
        place = group[start]
        rows = order[ends[place] - np.count_nonzero(group == place) : ends[place]]
        key = cast(tuple[str, str, str, str], tuple(k[int(start)].as_py() for k in keys))
        yield key, table.take(pa.array(rows))


def _joined(path: str | Path, key: tuple[str, str, str], languages: dict[str, pa.Table]) -> Predictions:
    task, mode, estimator = key
    name = f"{path}, {task} {mode} {estimator}"
    first, ids = (
        next(iter(languages)),
        tuple(cast(list[str], next(iter(languages.values()))["id"].to_pylist())),
    )
    place = {i: n for n, i in enumerate(ids)}
    chosen: dict[str, NDArray[np.int16]] = {}
    facts: dict[str, list[NDArray[np.int16]]] = {}
    for language, part in languages.items():
        own = cast(list[str], part["id"].to_pylist())
        if len(own) != len(ids) or len(set(own)) != len(own) or set(own) != place.keys():
            odd = sorted(set(own) ^ place.keys()) or [i for i in own if own.count(i) > 1]
            raise InputError(
                f"{name}: the ids of {language} are not those of {first}, as {odd[0]!r}; expected the same "
                "items, each once, in every language. Evaluate them on one subset of ids"
            )
        order = np.argsort([place[i] for i in own])
        chosen[language], *facts[language] = (
            np.asarray(part[column].to_numpy(), dtype=np.int16)[order]
            for column in ("chosen", "label", "options")
        )
        for what, mine, theirs in zip(("label", "options"), facts[language], facts[first], strict=True):
            if (bad := np.flatnonzero(mine != theirs)).size:
                raise InputError(
                    f"{name}: {what} of {language} differs from {first} on {bad.size} ids, as "
                    f"{ids[bad[0]]!r}; the rows are not aligned. Join by id, not by row number"
                )
    labels, options = facts[first]
    return Predictions(
        task=task, mode=mode, estimator=estimator, ids=ids, chosen=chosen, labels=labels, options=options
    )
