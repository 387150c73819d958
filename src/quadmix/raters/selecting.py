"""Select documents by their scores alone, language by language or cell by cell: the published selectors.

In: a table of `quadmix rater score` (several, joined), a budget. Out: the documents that are taken, as
Parquet (id, language, units, score, the cells' column), and what that was of every language and cell.
`quadmix run` does better where it may: it ranks inside domains and has its parameters searched; this is what
it is compared with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.errors import InputError, RecipeError
from quadmix.io.atomic import read_table, write_table
from quadmix.raters.budgets import (
    LanguageChoice,
    document_hashes,
    language_budgets,
    language_choice,
    language_rows,
    pool_by_language,
    threshold_per_language,
    top_per_language,
)
from quadmix.raters.cells import LEAST, Cell, CellChoice, CellsTaken, cell_choices, find_cells, take_per_cell
from quadmix.types import Floats

How = Literal["top", "sample", "threshold"]
_NEEDED = ("id", "language", "units", "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much, and how languages share it. share: of the units of every language (MuRating's 10 %), unless
    `units` is the total. It is shared in proportion to the languages' units ** alpha (1 where left out) or to
    `explicit`, where any of the three is given. With how = threshold, share is of the documents."""

    share: float = 0.1
    units: float | None = None
    alpha: float | None = None
    explicit: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ByCell:
    """Cells inside the languages. column: of the tables. least: units below which a cell of a language is
    selected together with the others of that size. floor: share of every cell's units that is kept at least;
    None: every cell gets the same share as its language."""

    column: str
    least: float = LEAST
    floor: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """languages, cells: what was taken of each; no cells where none were asked for. units: words and signs,
    as `score` counts them, in all. by: how cells were made."""

    how: How
    documents: int
    units: int
    languages: tuple[LanguageChoice, ...]
    by: ByCell | None = None
    cells: tuple[CellChoice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scored:
    """The tables, joined. units: (D,) >= 1. scores: (D,), NaN = none. cells: () where none were asked for."""

    table: pa.Table
    ids: list[str]
    language: list[str]
    units: NDArray[np.int64]
    scores: Floats
    cells: tuple[Cell, ...]


def select_scored(
    paths: Sequence[Path],
    out: Path,
    *,
    budget: Budget,
    how: How = "top",
    by: ByCell | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> Taken:
    """Select from tables of scores and write what was taken.

    how: top = best first; sample = drawn by score / temperature, without replacement (QuRating); threshold =
    FineWeb2-HQ's quantile of documents. by: cells inside the languages; see `take_per_cell`.
    Raises InputError for a file that is no such table, a column of cells that it lacks or that is empty, or a
    document that stands twice; BudgetError for a budget that the pool does not have, or a floor above it.
    """
    _check(budget, how, temperature)
    _check_cells(by, how)
    found = _read(paths, by)
    budgets: Mapping[str, float] = {}
    if how == "threshold":
        got = _above_quantile(found, budget.share, seed)
    else:
        budgets = _budgets(found, budget)
        heat = temperature if how == "sample" else 0.0
        got = _until_met(found, budgets, by and by.floor, heat, seed)
    languages = tuple(
        language_choice(name, rows, got.taken, found.scores, found.units, budgets.get(name, float("nan")))
        for name, rows in language_rows(found.language).items()
    )
    write_table(out, found.table.filter(pa.array(got.taken)))
    return Taken(
        how=how, documents=int(got.taken.sum()), units=int(found.units[got.taken].sum()),
        languages=languages, by=by,
        cells=cell_choices(found.cells, got.taken, found.scores, found.units, got.budgets),
    )  # fmt: skip


def _budgets(found: _Scored, budget: Budget) -> Mapping[str, float]:
    """Return language -> units to take."""
    pool = pool_by_language(found.units, found.language, found.scores)
    if budget.units is None and budget.explicit is None and budget.alpha is None:
        return {name: budget.share * n for name, n in pool.items()}
    total = budget.units if budget.units is not None else budget.share * sum(pool.values())
    return language_budgets(
        pool, total, rule="explicit" if budget.explicit else "proportional",
        alpha=1.0 if budget.alpha is None else budget.alpha, explicit=budget.explicit,
    ).tokens  # fmt: skip


def _until_met(
    found: _Scored, budgets: Mapping[str, float], floor: float | None, temperature: float, seed: int
) -> CellsTaken:
    """Take the best of every language, or of every cell, until its budget is reached."""
    scores, units, language, ids = found.scores, found.units, found.language, found.ids
    if found.cells:
        keys = document_hashes(scores, units, language, ids)
        return take_per_cell(
            scores, units, keys, found.cells, budgets, floor=floor, temperature=temperature, seed=seed
        )
    choice = top_per_language(scores, units, language, ids, budgets, temperature=temperature, seed=seed)
    return CellsTaken(taken=choice.taken, budgets=np.empty(0))


def _above_quantile(found: _Scored, keep: float, seed: int) -> CellsTaken:
    """Keep the documents above the quantile of their language, or of their cell."""
    groups = found.language
    if found.cells:
        place = np.zeros(len(groups), np.int64)
        for number, cell in enumerate(found.cells):
            place[cell.rows] = number
        groups = place.astype(np.str_).tolist()
    choice = threshold_per_language(found.scores, found.units, groups, found.ids, keep=keep, seed=seed)
    return CellsTaken(taken=choice.taken, budgets=np.full(len(found.cells), np.nan))


def _check(budget: Budget, how: How, temperature: float) -> None:
    """Refuse what would do nothing, or nothing sensible."""
    if not 0 < budget.share <= 1:
        raise RecipeError(f"--share is {budget.share}, expected above 0 and at most 1")
    told = budget.units is not None or budget.alpha is not None or budget.explicit
    if how == "threshold" and told:
        raise RecipeError("--how threshold keeps a share of documents; it reads no --units, --alpha, --part")
    if how == "threshold" and budget.share == 1:
        raise RecipeError(
            "--share is 1, but --how threshold needs a share below 1, of which a quantile is made; to keep "
            "every document that has a score, leave --how out"
        )
    if budget.alpha is not None and budget.explicit:
        raise RecipeError("--alpha and --part both say how languages share the budget; give one")
    if how != "sample" and temperature != 1.0:
        raise RecipeError(f"--temperature is for --how sample; --how {how} does not read it")


def _check_cells(by: ByCell | None, how: How) -> None:
    if by is None:
        return
    if by.column in _NEEDED:
        raise RecipeError(
            f"--cell {by.column}: expected a column that says what a document is about, such as a topic or a "
            "domain; languages are kept apart in any case"
        )
    if not 0 <= by.least < float("inf"):
        raise RecipeError(f"--cell-min is {by.least}, expected a number of units >= 0")
    if by.floor is None:
        return
    if how == "threshold":
        raise RecipeError("--how threshold keeps the same share of every cell; it reads no --floor")
    if not 0 < by.floor <= 1:
        raise RecipeError(f"--floor is {by.floor}, expected above 0 and at most 1")


def _read(paths: Sequence[Path], by: ByCell | None) -> _Scored:
    """Return the tables joined, with their cells."""
    wanted = [*_NEEDED, *([by.column] if by else [])]
    whole = pa.concat_tables([_read_one(path, wanted, by) for path in paths]).combine_chunks()
    ids = whole["id"].to_pylist()
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))
        raise InputError(f"document {twice!r} stands in the tables twice; expected every document once")
    language = [c or "" for c in whole["language"].to_pylist()]
    units = np.maximum(whole["units"].to_numpy().astype(np.int64), 1)
    scores = whole["score"].to_numpy(zero_copy_only=False).astype(np.float64)
    cells: tuple[Cell, ...] = ()
    if by is not None:
        names = [(n or "").strip() for n in whole[by.column].to_pylist()]
        if names and not any(names):
            raise InputError(
                f"column {by.column!r} is empty in all {len(names):,} documents; expected the cell (a topic, "
                "a domain) of each: `quadmix rater score --carry COLUMN` brings it along"
            )
        cells = find_cells(scores, units, language, names, by.least)
    return _Scored(table=whole, ids=ids, language=language, units=units, scores=scores, cells=cells)


def _read_one(path: Path, wanted: list[str], by: ByCell | None) -> pa.Table:
    if not path.is_file():
        raise InputError(f"{path} does not exist; `quadmix rater score` writes such tables")
    table = read_table(path)
    if lacking := [name for name in wanted if name not in table.column_names]:
        remedy = "expected a table of `quadmix rater score`"
        if by is not None and lacking == [by.column]:
            remedy = f"`quadmix rater score --carry {by.column}` brings a column of the documents along"
        raise InputError(
            f"{path}: there is no column {lacking[0]!r}, found {', '.join(table.column_names)}; {remedy}"
        )
    table = table.select(wanted)
    if by is None:
        return table
    try:
        names = table[by.column].cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{path}: column {by.column!r} holds {table[by.column].type}, expected text or whole numbers "
            "that name the cell of a document"
        ) from error
    return table.set_column(table.column_names.index(by.column), by.column, names)
