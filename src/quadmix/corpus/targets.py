"""Targets: the text or question sets whose loss the mixture should lower, as (prompt, answer) pairs.

In: a `TargetSection` of the recipe. Out: a `TargetText`. Test splits are refused unless forced, because a
mixture tuned on them says nothing about them any more.
"""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from quadmix.errors import InputError
from quadmix.io.rows import read_records
from quadmix.recipe import TargetSection, TextSet
from quadmix.rng import keyed_uniform

_TEST = re.compile(r"tests?(ing|set)?([_-]?(split|set|data))?", re.IGNORECASE)  # a whole name or value
_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
_HUMP = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # arcTest -> arc, Test; ARCTest_2 -> ARC, Test
_TEST_WORDS = {"test", "tests", "testing", "testset", "testsplit", "testdata", "devtest", "testdev"}
_SPLIT_COLUMNS = ("split", "subset", "partition", "fold")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetText:
    """One target: `prompts[i]` is followed by `answers[i]`; plain text has empty prompts.

    score_prompt: is the prompt scored too (`loss: all`)? rows_in: rows of the file before `limit`.
    """

    name: str
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    score_prompt: bool
    weight: float
    rows_in: int

    def take(self, rows: Sequence[int]) -> "TargetText":
        """Return the target with these rows alone."""
        return replace(
            self,
            prompts=tuple(self.prompts[i] for i in rows),
            answers=tuple(self.answers[i] for i in rows),
        )

    def texts(self) -> list[str]:
        """Return prompt and answer of every row as one text (for the overlap check)."""
        return [f"{p} {a}".strip() for p, a in zip(self.prompts, self.answers, strict=True)]


def read_target(section: TargetSection, *, seed: int, accept_test: bool = False) -> TargetText:
    """Read, check and (by a hash of the row number) thin a target to `limit` rows.

    Raises InputError for a missing column, an answer that is not text, a gold index outside the
    choices, a target with no text, or a test split that was not forced.
    """
    rows = _read_rows(section, accept_test)
    chosen = _thin(len(rows), section.limit, seed, section.name)
    pairs = [_pair(section, rows[i], i) for i in chosen]
    if not any(answer.strip() for _, answer in pairs):
        raise InputError(
            f"target {section.name!r}: no row of {section.path} has text to score; check the columns"
        )
    return _target(section, pairs, len(rows))


def read_all_rows(section: TargetSection, *, accept_test: bool = False) -> TargetText:
    """Read every row of a target's file and split, whatever its `limit`.

    Rows that the columns do not fit are left out (nothing is scored on them, and `read_target` may never
    have met them); `rows_in` counts them. Raises InputError for no rows, or a test split that was not forced.
    """
    rows = _read_rows(section, accept_test)
    pairs: list[tuple[str, str]] = []
    for index, row in enumerate(rows):
        with contextlib.suppress(InputError):
            pairs.append(_pair(section, row, index))
    return _target(section, pairs, len(rows))


def _read_rows(section: TargetSection, accept_test: bool) -> list[dict[str, Any]]:
    rows = read_records(section.path)
    if section.split is not None:
        rows = [r for r in rows if r.get("split") == section.split]
    if not rows:
        part = f" with split {section.split!r}" if section.split is not None else ""
        raise InputError(
            f"target {section.name!r}: {section.path} has no rows{part}; check `split` and `path`"
        )
    if not accept_test:
        _refuse_test_split(section, rows)
    return rows


def _target(section: TargetSection, pairs: Sequence[tuple[str, str]], rows_in: int) -> TargetText:
    return TargetText(
        name=section.name,
        prompts=tuple(p for p, _ in pairs),
        answers=tuple(a for _, a in pairs),
        score_prompt=section.loss == "all",
        weight=section.weight,
        rows_in=rows_in,
    )


def read_text_set(section: TextSet) -> list[str]:
    """Return the texts of a set that the pool is held against; InputError for no rows or another column."""
    rows = read_records(section.path)
    if not rows:
        raise InputError(f"annotate.overlap_with {section.name!r}: {section.path} has no rows; check `path`")
    where = f"annotate.overlap_with {section.name!r}: {section.path}"
    return [_string(row, section.text, f"{where}, row {i}") for i, row in enumerate(rows)]


def halve_target(target: TargetText, seed: int) -> tuple[TargetText, TargetText]:
    """Return two targets of about half the rows each, drawn by a hash of the row; one row stays in both."""
    size = len(target.answers)
    if size < 2:
        return target, target
    order = np.argsort(
        keyed_uniform(seed, [f"{target.name}:{i}" for i in range(size)], "half"), kind="stable"
    )
    first, second = (sorted(part.tolist()) for part in np.array_split(order, 2))
    return target.take(first), target.take(second)


def _thin(rows: int, limit: int, seed: int, name: str) -> list[int]:
    if rows <= limit:
        return list(range(rows))
    order = np.argsort(keyed_uniform(seed, [f"{name}:{i}" for i in range(rows)], "target"), kind="stable")
    return sorted(order[:limit].tolist())


def _refuse_test_split(section: TargetSection, rows: Sequence[dict[str, Any]]) -> None:
    *folders, file = section.path.split("/")
    names = [f for f in folders if _TEST.fullmatch(f)]
    names += [name for name in (file, section.name) if _says_test(name)]
    signs = [_test_value(row) for row in rows] if not names else [f"the name {names[0]!r}"]
    sign = next(filter(None, signs), "")
    if not sign:
        return
    raise InputError(
        f"target {section.name!r} looks like a test split ({sign}): a mixture tuned on a test set makes the "
        "test worthless. Use a train split (`split: train`), or force it: --set run.accept_test_targets=true"
    )


def _says_test(name: str) -> bool:
    """Is one of the words of a name "test" or the like? Not of "latest", "contest" or "testimony"."""
    return not _TEST_WORDS.isdisjoint(word.lower() for word in _WORD.findall(name) + _HUMP.findall(name))


def _test_value(row: dict[str, Any]) -> str:
    """Return "rows with subset 'test'" where a column says that the row is of a test split, else "".

    Of a `split` any word counts; a `subset`, `partition` or `fold` may be named for a topic (a driving test).
    """
    for column, value in row.items():
        kind = column.lower()
        if kind not in _SPLIT_COLUMNS or not isinstance(value, str):
            continue
        if _TEST.fullmatch(value.strip()) or (kind == "split" and _says_test(value)):
            return f"rows with {column} {value!r}"
    return ""


def _pair(section: TargetSection, row: dict[str, Any], index: int) -> tuple[str, str]:
    where = f"target {section.name!r}: {section.path}, row {index}"
    if section.text is not None:
        return "", _string(row, section.text, where)
    prompt = _string(row, cast(str, section.prompt), where)
    if section.answer is not None:
        return prompt, _string(row, section.answer, where)
    choices, gold = (
        _field(row, cast(str, section.choices), where),
        _field(row, cast(str, section.gold), where),
    )
    if (
        not isinstance(choices, list)
        or not isinstance(gold, int)
        or not 0 <= gold < len(cast(list[Any], choices))
    ):
        raise InputError(f"{where}: gold is {gold!r}, expected an index into {section.choices!r}")
    return prompt, str(cast(list[Any], choices)[gold])


def _string(row: dict[str, Any], column: str, where: str) -> str:
    value = _field(row, column, where)
    if isinstance(value, list) and value:
        value = cast(list[Any], value)[0]
    if not isinstance(value, str):
        raise InputError(f"{where}: column {column!r} holds {type(value).__name__}, expected text")
    return value


def _field(row: dict[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise InputError(f"{where}: no column {column!r}; the row has {', '.join(sorted(row))}")
    return row[column]
