"""Equally long excerpts for the two sides of a pair, so that length cannot decide which one is better.

In: whole documents and pairs of them. Out: `Excerpts`: the excerpts as `Texts`, and the pairs that both
documents are long enough for. The rule is QuRating's: with probability one half the length
is `longest`, else uniform in [shortest, longest]; the start is random. Lengths are counted in units that need
no tokenizer: a run of letters and digits, or one other character that is no space; in scripts written without
spaces (Han, kana, Thai, Lao, Khmer, Myanmar) every character is a unit. Hangul is written with spaces.
Combining marks belong to the character before them and are never cut off.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from quadmix.corpus.scripts import UNSPACED
from quadmix.errors import InputError, RecipeError
from quadmix.raters.table import Rows, Texts
from quadmix.rng import doc_keys, keyed_uniform
from quadmix.types import Floats, Ints

LONGEST, SHORTEST, LEAST = 512, 256, 32  # units
_JOINERS = "\u200c\u200d"  # inside words of Persian and of Indic scripts, and inside emoji
Progress = Callable[[int, int], None]
Cut = tuple[int, int, int]  # document, first unit, units


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Excerpts:
    """T distinct excerpts of D documents for K of P pairs.

    texts: T texts; an id names its document, first unit and number of units; `source` and `language` are the
    document's. document: (T,) row of the document. start, stop: (T,) float64 in [0, 1], where the excerpt
    lies in its document, as shares of its units. a, b: (K,) rows of `texts`. kept: (P,) bool, K of them.
    refused: pairs by reason; with those kept they add up to P.
    """

    texts: Texts
    document: Rows
    start: Floats
    stop: Floats
    a: Rows
    b: Rows
    kept: NDArray[np.bool_]
    refused: Mapping[str, int]


def unit_spans(text: str) -> Ints:
    """Return (U, 2): where each unit of the text starts and ends, in characters."""
    spans = [found.span() for found in _unit().finditer(text)]
    return np.array(spans, np.int64).reshape(-1, 2)


def pair_excerpts(
    documents: Texts,
    a: Rows,
    b: Rows,
    *,
    seed: int,
    longest: int = LONGEST,
    shortest: int = SHORTEST,
    least: int | None = None,
    progress: Progress | None = None,
) -> Excerpts:
    """Cut an excerpt of each side of P pairs of documents, both sides equally long.

    a, b: (P,) rows of `documents`. longest, shortest: units; the shorter document limits both. least: units
    below which a pair is refused; left out, the smaller of 32 and `shortest`. The draws are a function of the
    seed and the two ids alone, the same for (a, b) and (b, a). Excerpts are slices of the text, unchanged.

    Raises RecipeError for lengths out of order, InputError for a document that is a translation.
    """
    least = min(LEAST, shortest) if least is None else least
    if not 1 <= least <= shortest <= longest:
        raise RecipeError(
            f"excerpts of at least {least}, shortest {shortest}, longest {longest} units; "
            "expected 1 <= least <= shortest <= longest"
        )
    sides = np.stack([a, b], axis=1).astype(np.int64)
    used = np.unique(sides).tolist()
    units = np.zeros(len(documents), np.int64)
    for done, row in enumerate(used, start=1):
        units[row] = _count(documents, row)
        if progress is not None:
            progress(done, 2 * len(used))
    names = [sorted((documents.ids[i], documents.ids[j])) for i, j in sides.tolist()]
    length = np.minimum(_lengths(names, seed, shortest, longest), units[sides].min(axis=1))
    kept = length >= least
    starts = _starts(documents, sides, names, units[sides] - length[:, None], seed)
    place: dict[Cut, int] = {}  # documents may be in several pairs, and give the same excerpt twice
    for pair in np.flatnonzero(kept).tolist():
        for row, start in zip(sides[pair].tolist(), starts[pair].tolist(), strict=True):
            place.setdefault((row, start, int(length[pair])), len(place))
    cuts = np.array(list(place), np.int64).reshape(-1, 3)
    rows = [
        np.array(
            [place[cut] for cut in zip(sides[kept, s], starts[kept, s], length[kept], strict=True)], np.int32
        )
        for s in range(2)
    ]
    return Excerpts(
        texts=_cut(documents, cuts, used, progress),
        document=cuts[:, 0].astype(np.int32),
        start=cuts[:, 1] / units[cuts[:, 0]],
        stop=(cuts[:, 1] + cuts[:, 2]) / units[cuts[:, 0]],
        a=rows[0],
        b=rows[1],
        kept=kept,
        refused={} if kept.all() else {f"shorter than {least} units": int((~kept).sum())},
    )


def proportional_excerpt(text: str, start: float, stop: float) -> str:
    """Return the part of a text between two shares of its units, at least one unit; "" if it has none.

    For the translation of a whole document, of which the encoder reads an excerpt. With the shares of
    `Excerpts` the document itself gives the excerpt again. Raises InputError unless 0 <= start < stop <= 1.
    """
    if not 0 <= start < stop <= 1:
        raise InputError(f"an excerpt from {start} to {stop} of a text; expected 0 <= start < stop <= 1")
    spans = unit_spans(text)
    if not len(spans):
        return ""
    first = min(round(start * len(spans)), len(spans) - 1)
    last = max(round(stop * len(spans)), first + 1) - 1
    return text[spans[first, 0] : spans[last, 1]]


@cache
def _unit() -> re.Pattern[str]:
    """Compile the split. Quantifiers are possessive, so that it is linear in the text; marks beyond the basic
    plane stand in a class of their own, since one class of both is not compiled to a table."""
    ranges = (range(0x300, 0x1FFFF), range(0xE0100, 0xE01F0))  # where Unicode has combining marks
    marks = [chr(c) for part in ranges for c in part if unicodedata.category(chr(c)).startswith("M")]
    basic = "".join(c for c in marks if c <= "\uffff") + _JOINERS
    others = "".join(c for c in marks if c > "\uffff")
    mark = rf"(?:[{basic}]|(?=[\U00010000-\U0010ffff])[{others}])"
    return re.compile(rf"(?:[^\W_{UNSPACED}]++{mark}*+)++|\S{mark}*+")


def _lengths(names: Sequence[Sequence[str]], seed: int, shortest: int, longest: int) -> Ints:
    keys = doc_keys("\x1f".join(n) for n in names)
    drawn = shortest + (keyed_uniform(seed, keys, "excerpt-length") * (longest - shortest + 1)).astype(
        np.int64
    )
    return np.where(keyed_uniform(seed, keys, "excerpt-longest") < 0.5, longest, drawn)


def _starts(documents: Texts, sides: Ints, names: Sequence[Sequence[str]], spare: Ints, seed: int) -> Ints:
    """Return (P, 2) first units, uniform over the `spare` + 1 possible ones."""
    columns: list[Ints] = []
    for side in range(2):
        rows = sides[:, side].tolist()
        keys = doc_keys("\x1f".join((*n, documents.ids[i])) for n, i in zip(names, rows, strict=True))
        place = keyed_uniform(seed, keys, "excerpt-start") * (spare[:, side] + 1)
        columns.append(place.astype(np.int64))
    return np.stack(columns, axis=1)


def _cut(documents: Texts, cuts: Ints, used: Sequence[int], progress: Progress | None) -> Texts:
    """Return the texts of (T, 3) cuts (document, first unit, units); each document is split once."""
    texts = [""] * len(cuts)
    of_document: dict[int, list[int]] = {row: [] for row in used}
    for t, row in enumerate(cuts[:, 0].tolist()):
        of_document[row].append(t)
    for done, (row, places) in enumerate(of_document.items(), start=1):
        text, spans = documents.text[row], unit_spans(documents.text[row]) if places else np.empty((0, 2))
        for t in places:
            _, first, units = cuts[t].tolist()
            texts[t] = text[spans[first, 0] : spans[first + units - 1, 1]]
        if progress is not None:
            progress(len(used) + done, 2 * len(used))
    rows = cuts[:, 0].tolist()
    return Texts(
        ids=tuple(f"{documents.ids[i]}@{first}+{units}" for i, first, units in cuts.tolist()),
        source=tuple(documents.source[i] for i in rows),
        origin=("",) * len(rows),
        language=tuple(documents.language[i] for i in rows),
        text=tuple(texts),
    )


def _count(documents: Texts, row: int) -> int:
    if documents.origin[row]:
        raise InputError(
            f"document {documents.ids[row]!r} is a translation of {documents.origin[row]!r}; cut the "
            "original, and its translation with proportional_excerpt"
        )
    return len(_unit().findall(documents.text[row]))
