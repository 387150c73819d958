"""Pairs of texts before they are labelled: drawn among documents, cut, translated, rated.

In: documents, raters, the direction. Out: `Compared`. In direction M the raters read the
translations of native documents into their language.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.annotator import Annotator
from quadmix.errors import InputError
from quadmix.raters.asking import translator_of
from quadmix.raters.documents import Documents
from quadmix.raters.fidelity import Route, check_fidelity
from quadmix.raters.pairs import DrawnPairs, draw_pairs
from quadmix.raters.rating import rate
from quadmix.raters.table import Ratings, Rows, Texts
from quadmix.raters.transfer import Sides, cut, native, stored_translations
from quadmix.raters.translate import Count, join_texts, translate_texts
from quadmix.recipe import RaterRecipe

TRANSLATIONS = "translations"
Tell = Callable[[str, int, int], None]  # what is done, how much of it, of how much


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawing:
    """Pairs of the documents of `pool`, and their excerpts."""

    pool: Texts
    drawn: DrawnPairs
    sides: Sides


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """Pairs of one direction before they are labelled. judged: texts that the raters read, all of `texts`.
    a, b: (K,) rows of `judged`. held: (K,)."""

    pool: Texts
    drawn: DrawnPairs
    sides: Sides
    texts: Texts
    judged: Texts
    ratings: Ratings
    missing: dict[str, dict[str, int]]
    a: Rows
    b: Rows
    held: NDArray[np.bool_]
    lost: int
    translated: dict[str, Count]
    routes: tuple[Route, ...]


def draw_sides(
    recipe: RaterRecipe,
    documents: Documents,
    raters: Sequence[Annotator],
    languages: Sequence[str],
    direction: str,
    tell: Tell | None,
) -> Drawing:
    """Draw and cut the pairs of one direction, "E" or "M"; InputError where there is nothing to compare."""
    source, forward = recipe.transfer.source, direction == "E"
    pool = native(documents.texts, [source] if forward else [c for c in languages if c != source])
    if not len(pool):
        raise InputError(f"direction {direction}: there are no documents outside language {source!r}")
    whole = pool if forward else _english(pool, documents.texts, source)
    first = rate(whole, raters, documents.records, telling(tell, f"rate documents ({direction})"))
    pairs = recipe.pairs
    drawn = draw_pairs(
        pool.ids, [documents.groups[s] for s in pool.source], first.ratings.values, pairs.count,
        seed=recipe.seed, max_uses=pairs.max_uses, stratified=pairs.stratified, held_share=pairs.holdout,
    )  # fmt: skip
    sides = cut(pool, drawn.a, drawn.b, pairs, seed=recipe.seed, progress=telling(tell, "cut excerpts"))
    return Drawing(pool=pool, drawn=drawn, sides=sides)


def targets_of(recipe: RaterRecipe, languages: Sequence[str], direction: str) -> list[str]:
    """Return the languages that the excerpts of a direction are translated into."""
    source = recipe.transfer.source
    return [c for c in languages if c != source] if direction == "E" else [source]


def compared(
    recipe: RaterRecipe,
    folder: Path,
    documents: Documents,
    raters: Sequence[Annotator],
    languages: Sequence[str],
    direction: str,
    tell: Tell | None,
) -> Compared:
    """Draw, cut, translate and rate the pairs of one direction, "E" or "M".

    Raises InputError where there are no documents to compare, and what translator and raters raise.
    """
    drawing = draw_sides(recipe, documents, raters, languages, direction, tell)
    drawn, sides = drawing.drawn, drawing.sides
    targets = targets_of(recipe, languages, direction)
    translations, counts = _translations(recipe, folder, sides, documents.texts, targets, tell)
    texts = join_texts(sides.texts, translations)
    routes: tuple[Route, ...] = ()
    if recipe.transfer.fidelity and len(translations):
        checked = check_fidelity(texts)
        texts, routes = texts.take(np.flatnonzero(checked.kept).tolist()), checked.routes
    judged, rows = _judged_texts(sides, texts, forward=direction == "E")
    second = rate(judged, raters, documents.records, telling(tell, f"rate texts ({direction})"))
    a, b, kept = _sides(sides, rows)
    return Compared(
        pool=drawing.pool, drawn=drawn, sides=sides, texts=texts, judged=judged, ratings=second.ratings,
        missing=second.missing, a=a, b=b, held=drawn.held[sides.kept][kept], lost=int((~kept).sum()),
        translated=counts, routes=routes,
    )  # fmt: skip


def _english(pool: Texts, documents: Texts, source: str) -> Texts:
    """Return for each native document its version in the raters' language, itself where there is none: such a
    rating only helps to find strata."""
    versions = {
        s: t
        for s, t, code in zip(documents.source, documents.text, documents.language, strict=True)
        if code == source
    }
    text = tuple(versions.get(s, t) for s, t in zip(pool.source, pool.text, strict=True))
    return Texts(ids=pool.ids, source=pool.source, origin=pool.origin, language=pool.language, text=text)


def _translations(
    recipe: RaterRecipe,
    folder: Path,
    sides: Sides,
    documents: Texts,
    targets: Sequence[str],
    tell: Tell | None,
) -> tuple[Texts, dict[str, Count]]:
    kind = recipe.transfer.translator.kind
    if kind == "none" or not targets:
        return sides.texts.take([]), {}
    if kind == "parallel":
        return stored_translations(sides, documents, targets), {}
    translator = translator_of(recipe, folder)
    made = translate_texts(
        sides.texts, translator, targets, folder / TRANSLATIONS, progress=telling(tell, "translate")
    )
    return made.texts, made.counts


def _judged_texts(sides: Sides, texts: Texts, *, forward: bool) -> tuple[Texts, NDArray[np.int64]]:
    """Return what the raters read, and for each excerpt its row there, -1 where it has no translation."""
    there = set(texts.ids)
    if forward:
        return sides.texts, np.arange(len(sides.texts))
    english = {o: i for i, o in enumerate(texts.origin) if o}
    found = [english.get(i, -1) if i in there else -1 for i in sides.texts.ids]
    kept = [row for row in found if row >= 0]
    place = np.full(len(found), -1, np.int64)
    place[np.array(found) >= 0] = np.arange(len(kept))
    return texts.take(kept), place


def _sides(sides: Sides, rows: NDArray[np.int64]) -> tuple[Rows, Rows, NDArray[np.bool_]]:
    """Return the rows of both sides among the texts that are judged, and which of the pairs have both."""
    a, b = rows[sides.a], rows[sides.b]
    kept = (a >= 0) & (b >= 0)
    return a[kept].astype(np.int32), b[kept].astype(np.int32), kept


def telling(tell: Tell | None, what: str) -> Callable[[int, int], None] | None:
    """Return the progress of one step, None where nobody listens."""
    return None if tell is None else lambda done, total: tell(what, done, total)
