"""The report card of a rater, language by language (MuRating, sections 4, 9.3 and 13.5).

In: texts, pairs, the rater's scores, what other raters and people say. Out: `ReportCard`. Judged are texts
that have a score and whose source is in no training pair. Larger score = better.

How the intervals are made stands in `measures`.
"""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.mixing.sampling import standardise
from quadmix.raters.measures import (
    Measured,
    bootstrap,
    calibration_error,
    deming,
    pair_accuracy,
    regression,
    spearman,
)
from quadmix.raters.offsets import ENGLISH, align, unseen_texts
from quadmix.raters.table import CROSS, MONO, Pairs, Ratings, Texts
from quadmix.rng import stream
from quadmix.types import Floats, Ints

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # |p - .5|, each level without its lower end
WIDE = 0.2  # an interval of accuracy that is wider says little
FEW = 10  # sources: below it no interval can be trusted
_NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Accuracy on the pairs with low < |p - .5| <= high."""

    low: float
    high: float
    pairs: int
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """Scores of a language against those of the same texts in the anchor. mse: n groups of parallel texts.

    mse: mean squared difference / variance of all judged scores. offset: mean of language - anchor.
    slope: of Deming's regression with equal noise in both, since one rater scored both; the same scale is 1.
    regression: by least squares on the anchor, as the paper has it; noise in the anchor's own scores pulls it
    towards 0 however well the scales agree, and the opposite direction likewise.
    """

    mse: Measured
    offset: Measured
    slope: Measured
    regression: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Spearman correlation with a rater on the texts that it rated, or whose original it rated."""

    rater: str
    texts: int
    spearman: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageCard:
    """accuracy: of held pairs within the language and p != .5; a score difference of 0 counts half.

    seen: a training pair has a text in it. texts: that are judged; unread: that would be, but have no score.
    cross: accuracy of pairs with one side in it. ece: expected
    calibration error of σ(difference) against p over its pairs, ties too, in 10 bins of σ(|difference|).
    parallel, human: None where there is nothing to compare with.
    """

    language: str
    seen: bool
    texts: int
    accuracy: Measured
    levels: tuple[Level, ...]
    cross: Measured
    ece: float
    parallel: Parallel | None
    raters: tuple[Agreement, ...]
    human: Measured | None
    warnings: tuple[str, ...]
    unread: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Whether there is one scale for all languages: Spearman correlation with a reference.

    within: mean over languages, weighted by texts. pooled: over all texts at once; where it is clearly below
    `within`, offsets stand between languages.
    """

    reference: str
    texts: int
    within: float
    pooled: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCard:
    """anchor: language of the parallel comparison. accuracy: of pairs within any language; cross: between."""

    anchor: str
    confidence: float
    accuracy: Measured
    cross: Measured
    scales: tuple[Scale, ...]
    languages: tuple[LanguageCard, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Judged:
    """language: (D,). source: (D,) number of the source. unseen: (D,), of no source in training; judged: (D,)
    those that have a score. held: the held pairs of two texts with a score. spread: variance of the judged
    scores. ratings: (D, R) of the text or its original. human: (D,) label or NaN."""

    texts: Texts
    language: NDArray[np.str_]
    source: Ints
    scores: Floats
    unseen: NDArray[np.bool_]
    judged: NDArray[np.bool_]
    held: Pairs
    spread: float
    names: tuple[str, ...]
    ratings: Floats
    human: Floats
    confidence: float
    seed: int


def report_card(
    texts: Texts,
    pairs: Pairs,
    scores: Floats,
    *,
    ratings: Ratings | None = None,
    human: Mapping[str, float] | None = None,
    trained: Collection[str] | None = None,
    anchor: str = ENGLISH,
    confidence: float = 0.95,
    seed: int = 0,
) -> ReportCard:
    """Return the report card of `scores`, (D,), larger = better; NaN: the text could not be read, and it and
    its pairs are left out and counted.

    human: id of a text -> label, larger = better. trained: languages that the rater saw; left out, those of
    the pairs that are not held. seed: of the resampling. Raises InputError for scores of another length,
    infinite or all NaN, for a source in training and in held pairs, and where nothing says which languages
    were seen.
    """
    known = np.isfinite(scores)
    if len(scores) != len(texts) or np.isinf(scores).any() or not known.any():
        raise InputError(
            f"report card: expected {len(texts)} finite scores, one for each text, or NaN where it has none"
        )
    training = np.concatenate([pairs.a[~pairs.held], pairs.b[~pairs.held]]).tolist()
    if trained is None and not training:
        raise InputError(
            "report card: no pair is a training pair; say in `trained` which languages were seen"
        )
    seen = {texts.language[row] for row in training} if trained is None else set(trained)
    rated, labels = _rated(texts, ratings), human or {}
    unseen, held = unseen_texts(texts, pairs), pairs.take(pairs.held)
    paired = known[held.a] & known[held.b]
    mine = unseen & known
    judged = _Judged(
        texts=texts, language=np.asarray(texts.language, np.str_), scores=scores, unseen=unseen, judged=mine,
        source=np.unique(np.asarray(texts.source, np.str_), return_inverse=True)[1].astype(np.int64),
        held=held.take(paired), spread=float(np.var(scores[mine])) if mine.any() else _NAN,
        names=ratings.names if ratings else (), ratings=rated, confidence=confidence, seed=seed,
        human=np.array([labels.get(i, _NAN) for i in texts.ids], np.float64),
    )  # fmt: skip
    held, warnings = judged.held, list[str]()
    if unread := int((~known).sum()):
        warnings.append(
            f"{unread} of {len(texts)} texts have no score; left out are {int((unseen & ~known).sum())} that "
            f"would be judged, and {int((~paired).sum())} held pairs"
        )
    if strangers := len(labels) - int((~np.isnan(judged.human)).sum()):
        warnings.append(f"{strangers} of {len(labels)} human labels name no text")
    if spoilt := int((~np.isnan(judged.human) & ~unseen).sum()):
        warnings.append(f"{spoilt} human labels are of texts in training pairs and were left out")
    consensus = _mean_known(np.stack([standardise(c) for c in rated.T], axis=1)) if rated.size else None
    scales = [] if consensus is None else [_scale(judged, "mean of the raters", consensus)]
    scales += [_scale(judged, "human", judged.human)] if human else []
    return ReportCard(
        anchor=anchor, confidence=confidence, scales=tuple(scales), warnings=tuple(warnings),
        accuracy=_accuracy(judged, held.kind == MONO), cross=_accuracy(judged, held.kind == CROSS),
        languages=tuple(_card(judged, n, n in seen, anchor) for n in sorted(set(texts.language))),
    )  # fmt: skip


def card_lines(card: ReportCard) -> list[str]:
    """Return the card as lines of text: a table of the languages, then everything that needs a warning."""
    lines = [
        f"pair accuracy within languages {_text(card.accuracy)}, between languages {_text(card.cross)}",
        *(
            f"rank correlation with {s.reference}: {s.within:.3f} within languages, {s.pooled:.3f} over all "
            f"({s.texts} texts)"
            for s in card.scales
        ),
        f"{'language':<10}{'accuracy':<28}{'ECE':<7}{'MSE/var':<9}{'slope':<7}{'offset':<9}raters",
    ]
    for one in card.languages:
        p = one.parallel
        parallel = f"{p.mse.value:<9.3f}{p.slope.value:<7.2f}{p.offset.value:<+9.3f}" if p else f"{'-':<25}"
        raters = " ".join(f"{a.rater} {a.spearman:.2f}" for a in one.raters)
        human = f" human {_text(one.human)}" if one.human else ""
        lines.append(f"{one.language:<10}{_text(one.accuracy):<28}{one.ece:<7.3f}{parallel}{raters}{human}")
    lines += [f"warning: {w}" for w in card.warnings]
    return lines + [f"warning: {one.language}: {w}" for one in card.languages for w in one.warnings]


def _card(judged: _Judged, name: str, seen: bool, anchor: str) -> LanguageCard:
    held = judged.held
    left, right = judged.language[held.a] == name, judged.language[held.b] == name
    inside = (held.kind == MONO) & left & right
    across = (held.kind == CROSS) & (left | right)
    accuracy = _accuracy(judged, inside)
    own = judged.unseen & (judged.language == name)
    mine = own & judged.judged
    labelled = np.flatnonzero(mine & ~np.isnan(judged.human))
    x, y = judged.scores[labelled], judged.human[labelled]
    human = None
    if len(labelled):
        rng = stream(judged.seed, "report-card", "human", name)
        (human,) = bootstrap(
            lambda r: [spearman(x[r], y[r])], judged.source[labelled], confidence=judged.confidence, rng=rng
        )
    warnings = [] if seen else ["no training pair has a text in it: its scores are transfer alone"]
    unread = int(own.sum()) - int(mine.sum())
    if unread:
        warnings.append(f"{unread} of its {int(own.sum())} texts have no score and are left out")
    decided = inside & (held.p != 0.5)
    sources = np.unique(judged.source[np.concatenate([held.a[decided], held.b[decided]])])
    if len(sources) < FEW or not accuracy.high - accuracy.low <= WIDE:
        warnings.append(
            f"{accuracy.n} held pairs of {len(sources)} sources: too few for its accuracy to say much"
        )
    if accuracy.low <= 0.5 <= accuracy.high:
        warnings.append(f"its accuracy {_text(accuracy)} may be that of guessing")
    parallel = _parallel(judged, name, anchor) if name != anchor else None
    if parallel is None and name != anchor:
        warnings.append(f"no unseen text of it is parallel to one in {anchor}: its offset is unknown")
    return LanguageCard(
        language=name, seen=seen, texts=int(mine.sum()), accuracy=accuracy, cross=_accuracy(judged, across),
        levels=_levels(judged, inside), ece=calibration_error(_difference(judged, inside), held.p[inside]),
        parallel=parallel, human=human, warnings=tuple(warnings), unread=unread,
        raters=tuple(_agreement(judged, mine, n) for n in range(len(judged.names))),
    )  # fmt: skip


def _difference(judged: _Judged, rows: NDArray[np.bool_]) -> Floats:
    return judged.scores[judged.held.a[rows]] - judged.scores[judged.held.b[rows]]


def _right(judged: _Judged, rows: NDArray[np.bool_]) -> Floats:
    """Return (P,) 1 where the difference has the sign of p - .5, 0 where not, .5 where one has none."""
    return (1 + np.sign(_difference(judged, rows)) * np.sign(judged.held.p[rows] - 0.5)) / 2


def _accuracy(judged: _Judged, rows: NDArray[np.bool_]) -> Measured:
    rows = rows & (judged.held.p != 0.5)
    a, b = judged.source[judged.held.a[rows]], judged.source[judged.held.b[rows]]
    return pair_accuracy(_right(judged, rows), a, b, confidence=judged.confidence)


def _levels(judged: _Judged, rows: NDArray[np.bool_]) -> tuple[Level, ...]:
    sure = np.round(np.abs(judged.held.p - 0.5), 9)  # votes such as 3 of 5 lie at a level's very end
    found: list[Level] = []
    for low, high in itertools.pairwise(LEVELS):
        at = rows & (sure > low) & (sure <= high)
        if at.any():
            value = float(_right(judged, at).mean())
            found.append(Level(low=low, high=high, pairs=int(at.sum()), accuracy=value))
    return tuple(found)


def _parallel(judged: _Judged, name: str, anchor: str) -> Parallel | None:
    aligned = align(judged.texts, judged.scores, judged.judged & np.isin(judged.language, [name, anchor]))
    if len(aligned.sources) < 3:
        return None
    x = aligned.scores[:, aligned.languages.index(anchor)]
    y = aligned.scores[:, aligned.languages.index(name)]
    source = np.unique(np.asarray(aligned.sources, np.str_), return_inverse=True)[1].astype(np.int64)

    def statistics(rows: Ints) -> list[float]:
        one, other = x[rows], y[rows]
        mse = float(np.mean((other - one) ** 2)) / judged.spread if judged.spread > 0 else _NAN
        return [mse, float(np.mean(other - one)), deming(one, other), regression(one, other)]

    rng = stream(judged.seed, "report-card", "parallel", name)
    mse, offset, slope, ordinary = bootstrap(statistics, source, confidence=judged.confidence, rng=rng)
    return Parallel(mse=mse, offset=offset, slope=slope, regression=ordinary)


def _agreement(judged: _Judged, mine: NDArray[np.bool_], rater: int) -> Agreement:
    rows = np.flatnonzero(mine & ~np.isnan(judged.ratings[:, rater]))
    value = spearman(judged.scores[rows], judged.ratings[rows, rater])
    return Agreement(rater=judged.names[rater], texts=len(rows), spearman=value)


def _scale(judged: _Judged, name: str, reference: Floats) -> Scale:
    rows = np.flatnonzero(judged.judged & ~np.isnan(reference))
    x, y, language = judged.scores[rows], reference[rows], judged.language[rows]
    parts = [(language == n, n) for n in np.unique(language)]
    each = np.array([[spearman(x[at], y[at]), at.sum()] for at, _ in parts]).reshape(-1, 2)
    each = each[~np.isnan(each[:, 0])]
    within = float(np.average(each[:, 0], weights=each[:, 1])) if len(each) else _NAN
    return Scale(reference=name, texts=len(rows), within=within, pooled=spearman(x, y))


def _rated(texts: Texts, ratings: Ratings | None) -> Floats:
    """Return (D, R) the ratings of each text, or of its original where it has none itself."""
    if ratings is None:
        return np.zeros((len(texts), 0))
    values = ratings.values.astype(np.float64)
    place = {id_: row for row, id_ in enumerate(texts.ids)}
    above = np.array([place.get(o, row) for row, o in enumerate(texts.origin)], np.int64)
    return np.where(np.isnan(values).all(axis=1, keepdims=True), values[above], values)


def _mean_known(columns: Floats) -> Floats:
    known = ~np.isnan(columns)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, columns, 0.0).sum(axis=1) / np.maximum(count, 1), _NAN)


def _text(m: Measured) -> str:
    return f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}] ({m.n})"
