"""Raters against each other on the same held-out pairs: who orders them better, who has one scale.

In: folders of raters. Out: `Against`. The pairs are the held-out ones of the first folder; those with a
source that another of the raters was trained on are left out for all, and counted. Differences are paired:
each pair is ordered by both raters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.models.rater import ModelAnnotator
from quadmix.errors import InputError
from quadmix.raters.audit import bias_audit, describe
from quadmix.raters.compared import Tell
from quadmix.raters.domains import text_domains
from quadmix.raters.measures import Measured, mean_difference, pair_accuracy, spearman
from quadmix.raters.offsets import align
from quadmix.raters.scored import score_texts
from quadmix.raters.table import CROSS, MONO, PAIRS, TEXTS, Pairs, Texts, read_pairs, read_texts
from quadmix.types import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One rater. within, cross: accuracy on pairs in one language, and between two. difference, cross_gain:
    of these to the first rater, 0 for itself. parallel: mean squared difference of parallel texts over the
    variance of scores. least, most: share of a language that one cut over all keeps at the best tenth.
    scale: rank correlation with the first rater's scores over all texts."""

    name: str
    digest: str
    within: Measured
    cross: Measured
    difference: Measured
    cross_gain: Measured
    parallel: float
    least: float
    most: float
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """pairs: monolingual and cross-lingual pairs that prefer a side and that no rater was trained on;
    left_out: the others that the first folder holds. texts: in these."""

    pairs: int
    left_out: int
    texts: int
    raters: tuple[Contender, ...]


def compare_raters(
    folders: Sequence[Path], raters: Sequence[ModelAnnotator], tell: Tell | None = None
) -> Against:
    """Return the comparison. folders: of `quadmix rater train`. raters: their models, in the same order.

    Raises InputError for fewer than two, or where no pair is unseen by all of them.
    """
    if len(folders) < 2:
        raise InputError(f"{len(folders)} raters were named, expected at least two folders")
    texts = read_texts(folders[0] / TEXTS)
    pairs = read_pairs(folders[0] / PAIRS, texts)
    judged = pairs.take(pairs.held & (pairs.kind <= CROSS) & (pairs.p != 0.5))
    seen = _trained_sources(folders)
    known = np.array([source in seen for source in texts.source])
    unseen = ~(known[judged.a] | known[judged.b])
    if not unseen.any():
        raise InputError(
            f"none of {len(judged):,} held-out pairs of {folders[0]} is of documents that no other rater was "
            "trained on; train them from the same documents with the same seed, so that they share the split"
        )
    held = judged.take(unseen)
    rows = np.unique(np.concatenate([held.a, held.b]))
    part = texts.take(rows.tolist())
    place = np.full(len(texts), -1, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    inner = Pairs(
        a=place[held.a], b=place[held.b], p=held.p, weight=held.weight, kind=held.kind, held=held.held
    )
    domains = text_domains(folders[0], part)
    scores = [score_texts(rater, part, tell, domains) for rater in raters]
    for folder, values in zip(folders, scores, strict=True):
        if not np.isfinite(values).all():
            raise InputError(
                f"{folder}: the rater gives {int((~np.isfinite(values)).sum()):,} of {len(part):,} texts no "
                "score; leave it out, or the languages that it does not read"
            )
    sources = np.unique(np.array(part.source, dtype=str), return_inverse=True)[1].astype(np.int64)
    return Against(
        pairs=len(held), left_out=len(judged) - len(held), texts=len(part),
        raters=tuple(
            _contender(_name(folder, folders), rater.card.digest, part, inner, sources, values, scores[0])
            for folder, rater, values in zip(folders, raters, scores, strict=True)
        ),
    )  # fmt: skip


def _name(folder: Path, folders: Sequence[Path]) -> str:
    """Return the folder's own name, its path where that repeats."""
    return folder.name if [f.name for f in folders].count(folder.name) == 1 else str(folder)


def _trained_sources(folders: Sequence[Path]) -> set[str]:
    found: set[str] = set()
    for folder in folders:
        texts = read_texts(folder / TEXTS)
        pairs = read_pairs(folder / PAIRS, texts)
        train = pairs.take(~pairs.held)
        found |= {texts.source[row] for row in np.unique(np.concatenate([train.a, train.b])).tolist()}
    return found


def _contender(
    name: str, digest: str, texts: Texts, pairs: Pairs, sources: Ints, scores: Floats, first: Floats
) -> Contender:
    right, base = _right(scores, pairs), _right(first, pairs)
    a, b = sources[pairs.a], sources[pairs.b]
    found: dict[str, Measured] = {}
    for kind, key in ((MONO, "within"), (CROSS, "cross")):
        at = pairs.kind == kind
        found[key] = pair_accuracy(right[at], a[at], b[at])
        found[f"{key} gain"] = mean_difference(right[at] - base[at], a[at], b[at])
    audit = bias_audit(scores, np.ones(len(texts), np.int64), texts.language, texts.ids, describe(texts.text))
    return Contender(
        name=name, digest=digest, within=found["within"], cross=found["cross"],
        difference=found["within gain"], cross_gain=found["cross gain"], parallel=_parallel(texts, scores),
        least=audit.least, most=audit.most, scale=spearman(scores, first),
    )  # fmt: skip


def _right(scores: Floats, pairs: Pairs) -> Floats:
    difference = scores[pairs.a] - scores[pairs.b]
    return (1 + np.sign(difference) * np.sign(pairs.p - 0.5)) / 2


def _parallel(texts: Texts, scores: Floats) -> float:
    """Return the mean squared difference of two versions of a text, drawn at random, over the variance."""
    everything: NDArray[np.bool_] = np.ones(len(texts), np.bool_)
    groups = align(texts, scores, everything).scores
    own = ~np.isnan(groups)
    several = own.sum(axis=1) > 1
    spread = float(scores.var())
    if not several.any() or spread == 0:
        return float("nan")
    return 2 * float(np.nanvar(groups[several], axis=1, ddof=1).mean()) / spread
