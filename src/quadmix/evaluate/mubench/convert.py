"""One file of rows in many languages -> a task in the layout of the release (bring your own benchmark).

A row is one question in one language. Its id names the question, equal in every language; the right option
is an index, a letter, or the text itself. Without a column of choices the options are either the labels that
occur (classification), or answers to other questions, drawn alike in every language.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, cast

import orjson

from quadmix.errors import InputError
from quadmix.evaluate.mubench.items import AlignedTask, Item
from quadmix.evaluate.mubench.load import align
from quadmix.evaluate.mubench.read import plain
from quadmix.evaluate.mubench.sources import SOURCES, file_name, is_language, source_of
from quadmix.io.door import check_address
from quadmix.io.folders import new_folder
from quadmix.io.rows import read_records
from quadmix.rng import stream

_FIELD = re.compile(r"\{([^{}]+)\}")
_MOST_LABELS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which column is what. prompt: a text with {column} in it. choices: a column with a list; None takes the
    labels that occur, or with `distractors` = n the answers of n other questions."""

    id: str = "_id"
    language: str = "language"
    prompt: str = "{prompt}"
    label: str = "label"
    choices: str | None = "choices"
    distractors: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Converted:
    """The task, and how many questions were dropped because a language lacks them (only with `common`)."""

    task: AlignedTask
    dropped: int


def convert_file(
    path: str,
    task: str,
    columns: Columns,
    *,
    languages: Sequence[str] | None = None,
    common: bool = False,
    seed: int = 0,
) -> Converted:
    """Read a JSONL or Parquet file (.gz, .zst) as an aligned task of mode lighteval.

    languages: None takes all. common: keep the questions that all of these languages have, and count the
    others; without it they are an error. seed: of the draw of distractors.
    Raises InputError naming file, row and column for a missing column, an empty text, a label that is none of
    the options, a question that is there twice in a language, and what `load.align` refuses.
    """
    if task in SOURCES:
        raise InputError(f"task {task!r} is one of MuBench; give your own another name")
    source_of(task)
    check_address(path)
    rows = _by_language(path, columns, languages)
    shared = set.intersection(*(set(own) for own in rows.values()))
    every = set[str]().union(*rows.values())
    if not shared or (every != shared and not common):
        counts = ", ".join(f"{language} {len(own)}" for language, own in list(rows.items())[:5])
        raise InputError(
            f"{path}: {len(shared)} of {len(every)} ids in column {columns.id!r} are in all of {len(rows)} "
            f"languages ({counts}, ...), expected all. Name a column that is equal across languages, leave "
            "languages out, or keep the shared questions with --common"
        )
    kept = {language: {i: own[i] for i in own if i in shared} for language, own in rows.items()}
    items = _items(path, kept, columns, seed)
    names = {language: f"{path} ({language})" for language in items}
    return Converted(task=align(task, "lighteval", items, names), dropped=len(every - shared))


def write_task(folder: str | Path, task: AlignedTask) -> int:
    """Write a task in the layout of the release, all items as its test split; return the number of files.

    InputError where the task's folder has content already.
    """
    with new_folder(Path(folder) / source_of(task.task).folder) as home:
        for language, items in task.items.items():
            rows = ({"_id": i.id, "prompt": i.prompt, "choices": i.choices, "label": i.label} for i in items)
            path = home / file_name(task.mode, language, "test")
            path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return len(task.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A row before its options are known. where: file and number, for messages."""

    where: str
    prompt: str
    label: Any
    choices: tuple[str, ...] | None


def _by_language(path: str, columns: Columns, languages: Sequence[str] | None) -> dict[str, dict[str, _Row]]:
    """Return language -> id -> row, languages in the order of the file."""
    found: dict[str, dict[str, _Row]] = {}
    for number, row in enumerate(read_records(path), start=1):
        where = f"{path}, row {number}"
        language = str(_cell(row, columns.language, where)).replace("_", "-")
        if not is_language(language):
            raise InputError(
                f"{where}: column {columns.language!r} holds {language!r}, expected a code of a language as "
                "de, zho or zho-Hans"
            )
        if languages is not None and language not in languages:
            continue
        name = str(_cell(row, columns.id, where))
        own = found.setdefault(language, {})
        if name in own:
            raise InputError(f"{where}: id {name!r} is there twice in {language}; first in {own[name].where}")
        own[name] = _Row(
            where=f"{where} (id {name!r})",
            prompt=_prompt(row, columns.prompt, where),
            label=_cell(row, columns.label, where),
            choices=None if columns.choices is None else _choices(row, columns.choices, where),
        )
    if lacking := [language for language in languages or () if language not in found]:
        raise InputError(f"{path}: no rows in {lacking[0]!r}; its languages are {', '.join(found) or 'none'}")
    if not found:
        raise InputError(f"{path} has no rows; expected one question in one language per row")
    return found


def _items(
    path: str, rows: Mapping[str, Mapping[str, _Row]], columns: Columns, seed: int
) -> dict[str, list[Item]]:
    if columns.choices is not None:
        return {
            language: [_item(i, row, cast(tuple[str, ...], row.choices)) for i, row in own.items()]
            for language, own in rows.items()
        }
    if columns.distractors is None:
        # as texts, so that a numbered class is itself and never a place in their order
        rows = {
            language: {i: replace(row, label=str(row.label).strip()) for i, row in own.items()}
            for language, own in rows.items()
        }
        labels = sorted({row.label for own in rows.values() for row in own.values()})
        if not 2 <= len(labels) <= _MOST_LABELS:
            raise InputError(
                f"{path}: column {columns.label!r} has {len(labels)} different labels, expected 2 to "
                f"{_MOST_LABELS} to take them as options; name a column of choices, or ask for distractors"
            )
        return {
            language: [_item(i, row, tuple(labels)) for i, row in own.items()]
            for language, own in rows.items()
        }
    return _with_distractors(path, rows, columns.distractors, seed)


def _with_distractors(
    path: str, rows: Mapping[str, Mapping[str, _Row]], count: int, seed: int
) -> dict[str, list[Item]]:
    """Return items whose wrong options are right answers of other questions, the same ones in every language.

    Options of an item differ from each other in every language.
    """
    ids = sorted(next(iter(rows.values())))
    answers = {i: tuple(plain(_answer(own[i])) for own in rows.values()) for i in ids}
    items: dict[str, list[Item]] = {language: [] for language in rows}
    for name in ids:
        rng = stream(seed, "distractors", name)
        taken = [name]
        for place in rng.permutation(len(ids)).tolist():
            if len(taken) > count:
                break
            other = answers[ids[place]]
            if all(a != b for t in taken for a, b in zip(answers[t], other, strict=True)):
                taken.append(ids[place])
        if len(taken) <= count:
            raise InputError(
                f"{path}: {len(taken) - 1} different answers beside that of id {name!r}, expected {count}; "
                "ask for fewer distractors"
            )
        label = int(rng.integers(count + 1))
        placed = [*taken[1 : label + 1], name, *taken[label + 1 :]]
        for language, own in rows.items():
            choices = tuple(_answer(own[t]).strip() for t in placed)
            items[language].append(Item(id=name, prompt=own[name].prompt, choices=choices, label=label))
    return items


def _item(name: str, row: _Row, choices: tuple[str, ...]) -> Item:
    return Item(id=name, prompt=row.prompt, choices=choices, label=_label(row, choices))


def _label(row: _Row, choices: tuple[str, ...]) -> int:
    """Return the index that a label means: the option's own text, else a letter, else an index."""
    value, letters = row.label, ascii_uppercase[: len(choices)]
    if isinstance(value, str) and value.strip() in choices:
        return choices.index(value.strip())
    if isinstance(value, str) and len(value.strip()) == 1 and value.strip() in letters:
        return letters.index(value.strip())
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(choices):
        return value
    raise InputError(
        f"{row.where}: label {value!r} is none of the {len(choices)} options; expected an index from 0 to "
        f"{len(choices) - 1}, a letter {letters[:1]} to {letters[-1:]}, or an option's text"
    )


def _answer(row: _Row) -> str:
    """Return the answer that stands for a question; of a list the first one."""
    value = cast(list[Any], row.label)[0] if isinstance(row.label, list) and row.label else row.label
    if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value).strip():
        raise InputError(f"{row.where}: answer {value!r}, expected a text or number that is not empty")
    return str(value)


def _choices(row: Mapping[str, Any], column: str, where: str) -> tuple[str, ...]:
    value = _cell(row, column, where)
    texts = cast(list[Any], value) if isinstance(value, list) else []
    if len(texts) < 2 or not all(isinstance(t, str) and t.strip() for t in texts):
        raise InputError(
            f"{where}: column {column!r} holds {value!r}, expected a list of two or more texts that are not "
            "empty"
        )
    return tuple(t.strip() for t in texts)


def _prompt(row: Mapping[str, Any], template: str, where: str) -> str:
    text = _FIELD.sub(lambda m: str(_cell(row, m[1], where)), template).strip()
    if not text:
        raise InputError(f"{where}: the prompt {template!r} is empty; expected a text")
    return text


def _cell(row: Mapping[str, Any], column: str, where: str) -> Any:
    if row.get(column) is None:
        raise InputError(
            f"{where}: {'no' if column not in row else 'nothing in'} column {column!r}; the row has "
            f"{', '.join(row) or 'no column'}"
        )
    return row[column]
