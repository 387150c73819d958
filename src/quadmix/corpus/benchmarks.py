"""Benchmarks: question sets on which models are scored by likelihood, as pairs of context and continuation.

In: a `BenchmarkSection` of the recipe. Out: `BenchmarkItems`. Three forms: answer options after a question
(ARC, HellaSwag, MMLU), options put in place of a blank with the rest of the sentence scored (WinoGrande;
Trinh and Le 2018), and one right continuation that greedy decoding must give (LAMBADA).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from quadmix.corpus.scripts import gap
from quadmix.errors import InputError
from quadmix.io.rows import read_records
from quadmix.recipe import BenchmarkSection
from quadmix.rng import keyed_uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkItems:
    """One benchmark; item i has contexts[i][c] followed by continuations[i][c] for each of its choices c.

    contexts and continuations join to the exact text: a space between them stands in the continuation.
    choices: the options themselves, without it. Only continuations are scored.
    gold: index of the right choice per item. kind: "greedy" has one, right if greedy decoding gives it.
    blank: the choices stand in the contexts, and all choices of an item have one continuation.
    rows_in: rows of the file (and split) before `limit`.
    """

    name: str
    contexts: tuple[tuple[str, ...], ...]
    continuations: tuple[tuple[str, ...], ...]
    choices: tuple[tuple[str, ...], ...]
    gold: tuple[int, ...]
    kind: Literal["choices", "greedy"]
    rows_in: int
    blank: bool = False

    def texts(self) -> list[str]:
        """Return question and right answer of every item as one text (for the overlap check)."""
        return [
            contexts[gold] + continuations[gold]
            for contexts, continuations, gold in zip(
                self.contexts, self.continuations, self.gold, strict=True
            )
        ]

    @property
    def chance(self) -> float | None:
        """Return the expected accuracy of guessing, the mean of 1 / choices; None for "greedy"."""
        if self.kind == "greedy":
            return None
        return float(np.mean([1 / len(choices) for choices in self.choices]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    choices: tuple[str, ...]
    gold: int


def read_benchmark(section: BenchmarkSection, *, seed: int) -> BenchmarkItems:
    """Read, check and (by a hash of the row number) thin a benchmark to `limit` items, in file order.

    Raises InputError naming benchmark, file, row (from 0) and column for a file without rows of the split, a
    missing column, a prompt or choice that is not text, fewer than two choices, a gold index outside them, a
    prompt without the blank or with nothing after it.
    """
    rows = list(enumerate(read_records(section.path)))
    if section.split is not None:
        rows = [(number, row) for number, row in rows if row.get("split") == section.split]
    if not rows:
        part = f" with split {section.split!r}" if section.split is not None else ""
        raise InputError(
            f"benchmark {section.name!r}: {section.path} has no rows{part}; check `split` and `path`"
        )
    items = [_item(section, row, number) for number, row in _thin(rows, section, seed)]
    return BenchmarkItems(
        name=section.name,
        contexts=tuple(i.contexts for i in items),
        continuations=tuple(i.continuations for i in items),
        choices=tuple(i.choices for i in items),
        gold=tuple(i.gold for i in items),
        kind="choices" if section.choices is not None else "greedy",
        rows_in=len(rows),
        blank=section.blank is not None,
    )


def _thin(
    rows: Sequence[tuple[int, dict[str, Any]]], section: BenchmarkSection, seed: int
) -> list[tuple[int, dict[str, Any]]]:
    if len(rows) <= section.limit:
        return list(rows)
    keys = [f"{section.name}:{number}" for number, _ in rows]
    order = np.argsort(keyed_uniform(seed, keys, "benchmark"), kind="stable")
    return [rows[i] for i in sorted(order[: section.limit].tolist())]


def _item(section: BenchmarkSection, row: dict[str, Any], number: int) -> _Item:
    where = f"benchmark {section.name!r}: {section.path}, row {number}"
    prompt = _field(row, section.prompt, "prompt", where)
    if not isinstance(prompt, str):
        raise InputError(
            f"{where}: column {section.prompt!r} holds {type(prompt).__name__}, expected the text of the "
            "question; set `prompt` to the column that has it"
        )
    if section.answer is not None:
        answer = _answer(section.answer, row, where)
        return _Item(contexts=(prompt,), continuations=(_joined(prompt, answer),), choices=(answer,), gold=0)
    choices = _choices(cast(str, section.choices), row, where)
    gold = _gold(cast(str, section.gold), row, len(choices), where)
    if section.blank is None:
        continuations = tuple(_joined(prompt, choice) for choice in choices)
        return _Item(
            contexts=(prompt,) * len(choices), continuations=continuations, choices=choices, gold=gold
        )
    before, found, rest = prompt.partition(section.blank)
    if not found or not rest.strip():
        raise InputError(
            f"{where}: column {section.prompt!r} has {'nothing after' if found else 'no'} {section.blank!r}, "
            "expected it in the text, followed by the words to score; set `blank` to what marks the place, "
            "or remove the row"
        )
    return _Item(
        contexts=tuple(before + choice for choice in choices),
        continuations=(rest,) * len(choices),
        choices=choices,
        gold=gold,
    )


def _choices(column: str, row: dict[str, Any], where: str) -> tuple[str, ...]:
    value = _field(row, column, "choices", where)
    texts = cast(list[Any], value) if isinstance(value, list) else []
    if len(texts) < 2 or not all(isinstance(t, str) and t.strip() for t in texts):
        raise InputError(
            f"{where}: column {column!r} holds {_short(value)}, expected a list of two or more texts that "
            "are not empty; set `choices` to the column that has them, or mend the row"
        )
    return tuple(t.strip() for t in texts)


def _gold(column: str, row: dict[str, Any], choices: int, where: str) -> int:
    value = _field(row, column, "gold", where)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < choices:
        raise InputError(
            f"{where}: column {column!r} holds {_short(value)}, expected the index of the right choice, "
            f"0 to {choices - 1}; set `gold` to the column that has it, or turn letters into numbers"
        )
    return value


def _answer(column: str, row: dict[str, Any], where: str) -> str:
    value = _field(row, column, "answer", where)
    if isinstance(value, list) and value:
        value = cast(list[Any], value)[0]
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f"{where}: column {column!r} holds {_short(value)}, expected the text that continues the prompt "
            "(or a list that begins with it); set `answer` to the column that has it, or remove the row"
        )
    return value.strip()


def _joined(prompt: str, choice: str) -> str:
    """The choice as it stands after its prompt: one space between, unless white space is there already, or
    the prompt's script has none between words."""
    return gap(prompt) + choice


def _field(row: dict[str, Any], column: str, key: str, where: str) -> Any:
    if column not in row:
        raise InputError(
            f"{where}: no column {column!r}; the row has {', '.join(sorted(row)) or 'none'}; set `{key}` to "
            "one of them"
        )
    return row[column]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
