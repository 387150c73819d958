"""Select documents by their scores alone, language by language: the published selectors.

In: a table of `quadmix rater score` (several, joined), a budget. Out: the documents that are taken, as
Parquet (id, language, units, score), and what that was of every language. `quadmix run` does better where it
may: it ranks inside domains and has its parameters searched; this is what it is compared with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from quadmix.errors import InputError, RecipeError
from quadmix.io.atomic import read_table, write_table
from quadmix.raters.budgets import (
    Choice,
    LanguageChoice,
    language_budgets,
    pool_by_language,
    threshold_per_language,
    top_per_language,
)

How = Literal["top", "sample", "threshold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """languages: what was taken of each. units: words and signs, as `score` counts them, in all."""

    how: How
    documents: int
    units: int
    languages: tuple[LanguageChoice, ...]


def select_scored(
    paths: Sequence[Path],
    out: Path,
    *,
    share: float = 0.1,
    units: float | None = None,
    how: How = "top",
    alpha: float | None = None,
    explicit: Mapping[str, float] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> Taken:
    """Select from tables of scores and write what was taken.

    share: of the units of every language (MuRating's 10 %), unless `units` is the total, which languages
    share in proportion to their own ** alpha (1 where left out) or to `explicit`. how: top = best first;
    sample = drawn by score / temperature, without replacement (QuRating); threshold = FineWeb2-HQ's quantile
    of documents, at `share`.
    Raises InputError for a file that is no such table or a document that stands twice, BudgetError for a
    budget that the pool does not have.
    """
    _check(share, units, how, alpha, explicit, temperature)
    table = _read(paths)
    ids, language = table["id"].to_pylist(), [c or "" for c in table["language"].to_pylist()]
    size = np.maximum(table["units"].to_numpy().astype(np.int64), 1)
    scores = table["score"].to_numpy(zero_copy_only=False).astype(np.float64)
    if how == "threshold":
        choice: Choice = threshold_per_language(scores, size, language, ids, keep=share, seed=seed)
    else:
        pool = pool_by_language(size, language, scores)
        if units is None and explicit is None and alpha is None:
            budgets: Mapping[str, float] = {name: share * n for name, n in pool.items()}
        else:
            total = units if units is not None else share * sum(pool.values())
            rule = "explicit" if explicit else "proportional"
            budgets = language_budgets(
                pool, total, rule=rule, alpha=1.0 if alpha is None else alpha, explicit=explicit
            ).tokens
        choice = top_per_language(
            scores, size, language, ids, budgets, temperature=temperature if how == "sample" else 0.0,
            seed=seed,
        )  # fmt: skip
    kept = table.filter(pa.array(choice.taken)).select(["id", "language", "units", "score"])
    write_table(out, kept)
    return Taken(
        how=how, documents=int(choice.taken.sum()), units=int(size[choice.taken].sum()),
        languages=choice.languages,
    )  # fmt: skip


def _check(
    share: float,
    units: float | None,
    how: How,
    alpha: float | None,
    explicit: Mapping[str, float] | None,
    temperature: float,
) -> None:
    """Refuse what would do nothing, or nothing sensible."""
    if not 0 < share <= 1:
        raise RecipeError(f"--share is {share}, expected above 0 and at most 1")
    if how == "threshold" and (units is not None or alpha is not None or explicit):
        raise RecipeError("--how threshold keeps a share of documents; it reads no --units, --alpha, --part")
    if alpha is not None and explicit:
        raise RecipeError("--alpha and --part both say how languages share the budget; give one")
    if how != "sample" and temperature != 1.0:
        raise RecipeError(f"--temperature is for --how sample; --how {how} does not read it")


def _read(paths: Sequence[Path]) -> pa.Table:
    wanted = ["id", "language", "units", "score"]
    tables: list[pa.Table] = []
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} does not exist; `quadmix rater score` writes such tables")
        table = read_table(path)
        if lacking := [name for name in wanted if name not in table.column_names]:
            raise InputError(
                f"{path}: there is no column {lacking[0]!r}, found {', '.join(table.column_names)}; expected "
                "a table of `quadmix rater score`"
            )
        tables.append(table.select(wanted))
    whole = pa.concat_tables(tables).combine_chunks()
    ids = whole["id"].to_pylist()
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))
        raise InputError(f"document {twice!r} stands in the tables twice; expected every document once")
    return whole
