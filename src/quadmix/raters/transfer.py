"""Originals in one language, their translations in others: the texts of both directions.

In: whole documents (with the translations that the user has), and pairs of the documents that are compared.
Out: `Sides`: excerpts as originals, with a translation of each excerpt for every language that has one. A
translation that the user has is cut at the same shares of its length; a translator gets the excerpt.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quadmix.raters.excerpts import Excerpts, pair_excerpts, proportional_excerpt
from quadmix.raters.table import Rows, Texts
from quadmix.recipe.rating import PairsSection
from quadmix.types import Floats

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sides:
    """texts: T excerpts, all originals. document: (T,) rows of the documents. start, stop: (T,) shares of
    their units. a, b: (K,) rows of `texts`. kept: (P,) bool. refused: reason -> pairs."""

    texts: Texts
    document: Rows
    start: Floats
    stop: Floats
    a: Rows
    b: Rows
    kept: np.ndarray[tuple[int], np.dtype[np.bool_]]
    refused: Mapping[str, int]


def native(documents: Texts, languages: Sequence[str]) -> Texts:
    """Return the documents of some languages as originals: what they translate is forgotten."""
    wanted = set(languages)
    found = documents.take([i for i, code in enumerate(documents.language) if code in wanted])
    return Texts(
        ids=found.ids, source=found.source, origin=("",) * len(found), language=found.language,
        text=found.text,
    )  # fmt: skip


def cut(
    documents: Texts, a: Rows, b: Rows, section: PairsSection, *, seed: int, progress: Progress | None = None
) -> Sides:
    """Return equally long excerpts of both sides of pairs of documents, or the whole documents."""
    if not section.whole:
        found: Excerpts = pair_excerpts(
            documents, a, b, seed=seed, longest=section.longest, shortest=section.shortest, progress=progress
        )
        return Sides(
            texts=found.texts, document=found.document, start=found.start, stop=found.stop, a=found.a,
            b=found.b, kept=found.kept, refused=found.refused,
        )  # fmt: skip
    used, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    place = place.astype(np.int32)
    return Sides(
        texts=documents.take(used.tolist()), document=used.astype(np.int32), start=np.zeros(len(used)),
        stop=np.ones(len(used)), a=place[: len(a)], b=place[len(a) :], kept=np.ones(len(a), np.bool_),
        refused={},
    )  # fmt: skip


def stored_translations(sides: Sides, documents: Texts, languages: Sequence[str]) -> Texts:
    """Return the translations of the excerpts that the user's parallel corpus holds, in those languages.

    documents: all of them; those of equal source translate each other. A version that has no unit is left
    out, as is the language of the excerpt itself.
    """
    wanted = set(languages)
    versions: dict[str, list[int]] = {}
    for row, (source, code) in enumerate(zip(documents.source, documents.language, strict=True)):
        if code in wanted:
            versions.setdefault(source, []).append(row)
    columns: list[list[str]] = [[], [], [], [], []]
    originals = sides.texts
    for t in range(len(originals)):
        start, stop = float(sides.start[t]), float(sides.stop[t])
        for row in versions.get(originals.source[t], ()):
            code = documents.language[row]
            if code == originals.language[t]:
                continue
            whole = start == 0.0 and stop == 1.0
            text = documents.text[row] if whole else proportional_excerpt(documents.text[row], start, stop)
            if text.strip():
                values = (f"{originals.ids[t]}>{code}", originals.source[t], originals.ids[t], code, text)
                for column, value in zip(columns, values, strict=True):
                    column.append(value)
    ids, source, origin, language, text = map(tuple, columns)
    return Texts(ids=ids, source=source, origin=origin, language=language, text=text)
