"""A saved rater read back, and its scores of texts.

In: card.yaml, texts. Out: (D,) scores, as a criterion of kind model gives them in a run, and what they are
made of: the scores of the windows in which the model reads a text.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from quadmix.annotate.models.base import Device, Placed, Settings, WindowModel
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.load import forget_models, load_model
from quadmix.annotate.models.prepare import is_pinned
from quadmix.annotate.models.rated import read_rater
from quadmix.annotate.models.rater import Asked, ModelAnnotator, readable, to_numbers
from quadmix.io.atomic import read_value, write_json
from quadmix.io.door import is_offline
from quadmix.raters.compared import Tell, telling
from quadmix.raters.offsets import Offsets
from quadmix.raters.table import Texts
from quadmix.recipe import load_card
from quadmix.recipe.cards import card_folder
from quadmix.types import Floats, Ints

REFERENCE, OFFSETS = "reference.json", "offsets.json"
_BATCH = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """reference.json beside a rater's card: mean and standard deviation of its scores of the texts in one
    language that it was trained with, so that scores of later raters can be compared. texts: how many."""

    language: str
    mean: float
    sd: float
    texts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRule:
    """The windows of a text that a model reads. size: of each, in `unit`; None: the longest that the model
    can read. most: of a text."""

    size: int | None
    unit: str
    most: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowScores:
    """score: (D,) float64, NaN where a text has none. first, least, spread: (D,) score of its first window,
    the least, and the standard deviation of all, NaN without a score. windows: (D,) how many were read, 0:
    the text was not. missing: reason -> texts without a score."""

    score: Floats
    first: Floats
    least: Floats
    spread: Floats
    windows: Ints
    missing: dict[str, int]


def load_rater_model(path: str | Path, device: Device = "auto") -> ModelAnnotator:
    """Return the rater of a card.yaml, as a criterion of kind model would be; columns of language are called
    `language`, of domains `domain`."""
    card = load_card(str(path))
    placed = place(card, path=None, offline=is_offline(), beside=card_folder(str(path)))
    forget_models()
    settings = Settings(device=device)
    asked = Asked(
        placed=placed, settings=settings, language="language",
        domain="domain" if card.reads_domains else None, pinned=is_pinned(card),
    )  # fmt: skip
    return ModelAnnotator.make(card.name, asked)


def code_rows(languages: Sequence[str | None], domains: Sequence[str | None]) -> pa.RecordBatch:
    """Return the columns that `load_rater_model` reads: (D,) `language` and `domain`."""
    columns = {"language": languages, "domain": domains}
    return pa.RecordBatch.from_arrays(
        [pa.array(list(values), pa.string()) for values in columns.values()], names=list(columns)
    )


def score_texts(
    rater: ModelAnnotator, texts: Texts, tell: Tell | None = None, domains: Sequence[str] | None = None
) -> Floats:
    """Return (D,) float64 scores, NaN where a text has none. domains: (D,), None = all unknown, read by a
    rater that reads them."""
    values = np.full(len(texts), np.nan)
    order = sorted(range(len(texts)), key=lambda i: (len(texts.text[i]), texts.ids[i]))
    progress = telling(tell, "score texts")
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        told = [domains[i] if domains else "" for i in rows]
        table = code_rows([texts.language[i] for i in rows], told)
        values[rows] = rater.score([texts.text[i] for i in rows], table).values
        if progress is not None:
            progress(start + len(rows), len(order))
    return values


def window_rule(placed: Placed) -> WindowRule:
    """Return the windows of a card's texts; most is 1 for a model that reads a text as one."""
    card, base = placed.card, placed.base
    if card.family == "rater":
        facts = read_rater(placed.folder)[0]
        if facts.kind == "hashed" or base is None:
            return WindowRule(size=facts.window, unit="characters", most=facts.max_windows)
        return WindowRule(size=base.card.input.window, unit="tokens", most=facts.max_windows)
    how = base.card.input if card.family == "frozen-head" and base is not None else card.input
    return WindowRule(size=how.window, unit="tokens", most=1 if how.aggregate == "first" else how.max_windows)


def score_windows(rater: ModelAnnotator, texts: Sequence[str], rows: pa.RecordBatch) -> WindowScores:
    """Return the scores of texts as `rater.score` does, and those of their windows, all read once.

    A model that reads a text as one has one window per text.
    """
    many = len(texts)
    score, first, least, spread = np.full((4, many), np.nan)
    count = np.zeros(many, np.int64)
    model = load_model(rater.asked.placed, rater.asked.settings)
    if not isinstance(model, WindowModel):
        found = rater.score(texts, rows)
        score = found.values.astype(np.float64)
        known = ~np.isnan(score)
        return WindowScores(
            score=score, first=score, least=score, spread=np.where(known, 0.0, np.nan),
            windows=known.astype(np.int64), missing=found.missing,
        )  # fmt: skip
    missing, card, at = Counter[str](), rater.asked.placed.card, 0
    usable, inputs = readable(rater.asked, texts, rows, missing)
    for chunk in model.windows(inputs):
        own = usable[at : at + len(chunk.counts)].tolist()
        at += len(own)
        with np.errstate(all="ignore"):  # what is not finite is counted below
            whole, each = (
                to_numbers(card, v, rater.output).astype(float) for v in (chunk.rows, chunk.values)
            )
        ends = np.cumsum(chunk.counts).tolist()
        count[own] = chunk.counts
        for row, value, reason, end in zip(own, whole.tolist(), chunk.reasons, ends, strict=True):
            if reason or not np.isfinite(value):
                missing[reason or "not_finite"] += 1
                continue
            mine = each[end - count[row] : end]
            known = mine[np.isfinite(mine)]
            score[row], first[row], least[row], spread[row] = value, mine[0], known.min(), known.std()
    return WindowScores(
        score=score, first=first, least=least, spread=spread, windows=count,
        missing={reason: n for reason, n in sorted(missing.items()) if n},
    )  # fmt: skip


def write_reference(folder: Path, language: str, texts: Texts, scores: Floats) -> None:
    """Write mean and standard deviation of the scores of the originals in one language beside the card."""
    own = [i for i, code in enumerate(texts.language) if code == language and np.isfinite(scores[i])]
    values = scores[own]
    if len(own) < 2 or not values.std() > 0:
        return  # nothing to compare with
    found = Reference(language=language, mean=float(values.mean()), sd=float(values.std()), texts=len(own))
    write_json(folder / REFERENCE, found)


def read_reference(card: str) -> Reference | None:
    """Return the reference beside a rater's card, None where there is none."""
    path = Path(card).parent / REFERENCE
    return read_value(path, Reference) if path.is_file() else None


def read_offsets(card: str) -> Offsets | None:
    """Return the offsets beside a rater's card, None where there are none."""
    path = Path(card).parent / OFFSETS
    return read_value(path, Offsets) if path.is_file() else None
