"""Raters judge texts: any criterion of a run (column, trained, model) gives one number per text.

In: texts, and the user's rows for raters that read columns. Out: `Ratings`, larger = better, NaN where a
rater abstains, with the reasons counted.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from quadmix.annotate.annotator import Annotator
from quadmix.raters.table import Ratings, Texts

BATCH = 256
Progress = Callable[[int, int], None]
Records = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rated:
    """missing: rater -> reason -> texts that it did not rate."""

    ratings: Ratings
    missing: dict[str, dict[str, int]]


def rate(
    texts: Texts, raters: Sequence[Annotator], records: Records, progress: Progress | None = None
) -> Rated:
    """Return the ratings of the texts.

    records: source of a text -> the user's row of that document, for raters that read columns; what a
    column says of a document counts for all excerpts of it.
    """
    values = np.full((len(texts), len(raters)), np.nan, np.float32)
    missing = [Counter[str]() for _ in raters]
    columns = sorted({name for row in records.values() for name in row})
    # texts of one length together: a model pads a batch to its longest
    order = sorted(range(len(texts)), key=lambda i: (len(texts.text[i]), texts.ids[i]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        batch = [texts.text[i] for i in rows]
        table = _rows([records.get(texts.source[i], {}) for i in rows], columns)
        for number, rater in enumerate(raters):
            scored = rater.score(batch, table)
            values[rows, number] = -scored.values if rater.card.direction == "lower" else scored.values
            missing[number].update(scored.missing)
        if progress is not None:
            progress(start + len(rows), len(order))
    names = tuple(r.card.name for r in raters)
    return Rated(
        ratings=Ratings(names=names, values=values),
        missing={n: dict(sorted(m.items())) for n, m in zip(names, missing, strict=True)},
    )


def _rows(records: Sequence[Mapping[str, object]], columns: Sequence[str]) -> pa.RecordBatch:
    if not columns:
        return pa.RecordBatch.from_arrays([pa.nulls(len(records))], names=[""])
    arrays = [_array([r.get(name) for r in records]) for name in columns]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _array(values: Sequence[object]) -> pa.Array:
    """Return a column; values of several kinds become text, which a rater reads as the number it spells."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if v is None else str(v) for v in values], pa.string())
