"""Select by score inside the cells (language, topic) of a language: equal shares, or a floor under each cell.

In: scores, units, languages and topics of documents; a budget per language. Out: `Cell` after `Cell`, then
which documents are taken. Two rules (MuRating, section 7 and 13.6): without a floor a cell gets the same
share of its units as its language; with one it gets that share of its units for certain, and the rest of the
language's budget goes to its best documents of whatever cell. Draws and ties are hashes of the document's id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import BudgetError, RecipeError
from quadmix.raters.budgets import check_temperature, language_rows, ranked, take_until
from quadmix.types import Floats, Ints

LEAST = 10_000.0  # units; a tenth of it is two or three documents


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cell:
    """Documents that share a budget. rows: (d,) ascending. units: of those that have a score.

    name: "" for what is left of a language: its small cells (`merged` of them) and its documents without a
    name (`unnamed`), which are selected together.
    """

    language: str
    name: str
    rows: Ints
    units: int
    merged: int = 0
    unnamed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CellChoice:
    """What was taken of one cell. pool_units: of documents that have a score, the others (`unscored`
    documents) are never taken. share: kept_units / pool_units, NaN without any.

    cell, merged, unnamed: as in `Cell`. budget: units that the cell was to get at least, NaN where the rule
    is a threshold. threshold: the least score taken, NaN where nothing was.
    """

    language: str
    cell: str
    merged: int
    unnamed: int
    pool_documents: int
    pool_units: int
    unscored: int
    documents: int
    kept_units: int
    share: float
    budget: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellsTaken:
    """taken: (D,) bool. budgets: (G,) units that every cell was to get at least."""

    taken: NDArray[np.bool_]
    budgets: Floats


def find_cells(
    scores: Floats, units: NDArray[np.integer], language: Sequence[str], names: Sequence[str], least: float
) -> tuple[Cell, ...]:
    """Return the cells by language and name, those below `least` units of a language as one, named "".

    scores: (D,), NaN = none. units: (D,) > 0. names: (D,), "" = none.
    """
    column = np.asarray(names, dtype=np.str_)
    counted = np.where(np.isnan(scores), 0, units)
    found: list[Cell] = []
    for code, rows in language_rows(language).items():
        small: list[Ints] = []
        own: list[Cell] = []
        unnamed = 0
        for name, places in language_rows(column[rows].tolist()).items():
            mine = rows[places]
            total = int(counted[mine].sum(dtype=np.int64))
            if name and total >= least:
                own.append(Cell(language=code, name=name, rows=mine, units=total))
                continue
            small.append(mine)
            unnamed += 0 if name else len(mine)
        if small:
            rest = np.sort(np.concatenate(small))
            total = int(counted[rest].sum(dtype=np.int64))
            merged = len(small) - (unnamed > 0)
            own.insert(
                0, Cell(language=code, name="", rows=rest, units=total, merged=merged, unnamed=unnamed)
            )
        found += own
    return tuple(found)


def take_per_cell(
    scores: Floats,
    units: NDArray[np.integer],
    keys: NDArray[np.uint64],
    cells: Sequence[Cell],
    budgets: Mapping[str, float],
    *,
    floor: float | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> CellsTaken:
    """Take the best documents of every cell until its part is reached, the crossing document included.

    The part of a cell is the share of its language's budget that it has of the language's units, or `floor`
    times its units; then what is left of the language's budget goes to the best documents not taken yet.
    keys: (D,) `doc_keys`. budgets: language -> units; a language of 0 is left out, floor or not. The rest as
    in `top_per_language`; a score is standardised within the language.
    Raises BudgetError for a floor above the budget of a language, with the numbers.
    """
    check_temperature(temperature)
    if floor is not None:
        _check_floor(cells, budgets, floor)
    taken, parts = np.zeros(len(scores), np.bool_), np.zeros(len(cells))
    place = np.zeros(len(scores), np.int64)
    for i, cell in enumerate(cells):
        place[cell.rows] = i
    for code in dict.fromkeys(cell.language for cell in cells):
        own = [(i, cell) for i, cell in enumerate(cells) if cell.language == code]
        rows = np.sort(np.concatenate([cell.rows for _, cell in own]))
        order = rows[ranked(scores[rows], keys[rows], temperature=temperature, seed=seed)]
        budget, pool = budgets[code], sum(cell.units for _, cell in own)
        for i, cell in own:
            share = budget / max(pool, 1) if floor is None or budget == 0 else floor
            parts[i] = share * cell.units
            mine = order[place[order] == i]
            taken[take_until(mine, units, float(parts[i]), f"cell {cell.name!r} of {code!r}")] = True
        if floor is not None:
            left = max(budget - int(units[rows[taken[rows]]].sum(dtype=np.int64)), 0.0)
            taken[take_until(order[~taken[order]], units, left, f"language {code!r}")] = True
    return CellsTaken(taken=taken, budgets=parts)


def cell_choices(
    cells: Sequence[Cell],
    taken: NDArray[np.bool_],
    scores: Floats,
    units: NDArray[np.integer],
    budgets: Floats,
) -> tuple[CellChoice, ...]:
    """Return what was taken of every cell. taken, scores, units: (D,). budgets: (G,), NaN where none was."""
    found: list[CellChoice] = []
    for cell, budget in zip(cells, budgets.tolist(), strict=True):
        mine = cell.rows[taken[cell.rows]]
        kept = int(units[mine].sum(dtype=np.int64))
        found.append(
            CellChoice(
                language=cell.language, cell=cell.name, merged=cell.merged, unnamed=cell.unnamed,
                pool_documents=len(cell.rows), pool_units=cell.units,
                unscored=int(np.isnan(scores[cell.rows]).sum()), documents=len(mine), kept_units=kept,
                share=kept / cell.units if cell.units else float("nan"), budget=budget,
                threshold=float(scores[mine].min()) if len(mine) else float("nan"),
            )
        )  # fmt: skip
    return tuple(found)


def _check_floor(cells: Sequence[Cell], budgets: Mapping[str, float], floor: float) -> None:
    """Refuse a floor that is no share, or that asks for more than a language's budget."""
    if not 0 < floor <= 1:
        raise RecipeError(f"the floor is {floor}, expected above 0 and at most 1")
    pool: dict[str, int] = {}
    for cell in cells:
        pool[cell.language] = pool.get(cell.language, 0) + cell.units
    short = {n: floor * t for n, t in pool.items() if 0 < budgets[n] < floor * t * (1 - 1e-12)}
    if short:
        least = min(budgets[n] / pool[n] for n in short)
        shown = ", ".join(f"{n!r} {t:,.0f} of {budgets[n]:,.0f}" for n, t in list(short.items())[:12])
        raise BudgetError(
            f"a floor of {floor:.3g} under every cell asks for more units than the budget in {len(short)} of "
            f"{len(pool)} languages: {shown}; expected a floor of at most {least:.3g}. Lower the floor, or "
            "raise the budget"
        )
