"""Offsets of a rater's scores between languages, from parallel texts (MuRating, section 13.8).

In: texts of which some are translations of each other, and their scores. Out: `Offsets`, which `scoring`
takes off. The model is

    s(text) = quality(group) + b(language) + noise,

least squares over all groups of parallel texts; b(reference) = 0, or Σ b = 0. Fit it on texts that the rater
was not trained on (`unseen_texts`): it learned to score the others alike.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from quadmix.errors import InputError, ScoreError
from quadmix.raters.table import Pairs, Texts
from quadmix.types import Floats, Ints

ENGLISH = "en"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aligned:
    """G groups of parallel texts. languages: (L,) by name. sources: (G,) the document of each group.

    scores: (G, L), NaN = the group has no text in the language; at least two of each row are numbers.
    """

    languages: tuple[str, ...]
    sources: tuple[str, ...]
    scores: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageOffset:
    """value: added to every score of the language; stderr: over sources, 0 of the reference itself.
    sources: documents that speak for it."""

    language: str
    value: float
    stderr: float
    sources: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offsets:
    """reference: the language of offset 0; "" = they add up to 0. left_out: language -> why it has none."""

    reference: str
    languages: tuple[LanguageOffset, ...]
    left_out: dict[str, str]


def unseen_texts(texts: Texts, pairs: Pairs) -> NDArray[np.bool_]:
    """Return (D,) whether no training pair has a text of the same source.

    Raises InputError if a held pair has a text of a source in training: the split is by source.
    """
    source = np.asarray(texts.source, np.str_)
    training = np.unique(source[np.concatenate([pairs.a[~pairs.held], pairs.b[~pairs.held]])])
    unseen = ~np.isin(source, training)
    held = np.concatenate([pairs.a[pairs.held], pairs.b[pairs.held]])
    if len(held) and not unseen[held].all():
        row = int(held[~unseen[held]][0])
        raise InputError(
            f"source {texts.source[row]!r} (text {texts.ids[row]!r}) is in training pairs and in held ones; "
            "expected a split by source: make the pairs anew"
        )
    return unseen


def align(texts: Texts, scores: Floats, rows: NDArray[np.bool_] | None = None) -> Aligned:
    """Return the groups of parallel texts and their scores, ordered by source.

    Parallel are an original and the translations of it; where no text of a source names an origin, all texts
    of the source, unless a language stands among them twice (then nothing says which belong together). Two
    translations into one language count as their mean. rows: (D,) which texts may take part.
    Raises ScoreError for a score that is not finite.
    """
    use = np.arange(len(texts)) if rows is None else np.flatnonzero(rows)
    if not np.isfinite(scores[use]).all():
        row = int(use[~np.isfinite(scores[use])][0])
        raise ScoreError(f"the score of text {texts.ids[row]!r} is {scores[row]}, expected a number")
    translated = {s for s, origin in zip(texts.source, texts.origin, strict=True) if origin}
    times: dict[tuple[str, str], int] = {}
    for place in zip(texts.source, texts.language, strict=True):
        times[place] = times.get(place, 0) + 1
    several = {source for (source, _), count in times.items() if count > 1}
    untold = set(texts.source) - translated - several
    groups: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in sorted(use.tolist(), key=lambda r: texts.ids[r]):
        source = texts.source[row]
        key = (source, "" if source in untold else texts.origin[row] or texts.ids[row])
        groups.setdefault(key, {}).setdefault(texts.language[row], []).append(float(scores[row]))
    kept = [key for key in sorted(groups) if len(groups[key]) > 1]
    languages = sorted({language for key in kept for language in groups[key]})
    table = np.full((len(kept), len(languages)), np.nan)
    for g, key in enumerate(kept):
        for language, values in groups[key].items():
            table[g, languages.index(language)] = sum(values) / len(values)
    return Aligned(languages=tuple(languages), sources=tuple(s for s, _ in kept), scores=table)


def fit_offsets(aligned: Aligned, *, reference: str = ENGLISH, least: int = 10) -> Offsets:
    """Return b of every language by least squares, with standard errors.

    reference: b = 0 there; "" makes the offsets add up to 0. Standard errors are clustered by source
    (sandwich with the factor C / (C - 1) for C sources), so that groups may share a document and languages
    differ in noise; where every source has one text in each language, they are those of paired differences.
    A language in fewer than `least` sources, or with no chain of shared groups to the reference, gets none
    and is named in `left_out`. Raises InputError where the reference itself has too few.
    """
    sources = np.asarray(aligned.sources, np.str_)
    counts = [len(np.unique(sources[~np.isnan(column)])) for column in aligned.scores.T]
    left_out = {
        n: f"{c} parallel sources, expected at least {least}"
        for n, c in zip(aligned.languages, counts, strict=True)
        if c < least
    }
    names = [n for n in aligned.languages if n not in left_out]
    apart = _apart(aligned, names, reference)
    left_out |= {n: f"no groups link it with {reference or names[0]}" for n in apart}
    names = [n for n in names if n not in apart]
    if len(names) < 2 or (reference and reference not in names):
        why = left_out.get(reference, f"of {len(aligned.languages)} languages {len(names)} can be compared")
        raise InputError(
            f"offsets against {reference or 'the mean'!r} cannot be fitted ({why}); give more parallel text, "
            "or another reference"
        )
    column = [aligned.languages.index(n) for n in names]
    scores = aligned.scores[:, column]
    rows = (~np.isnan(scores)).sum(axis=1) > 1
    home = names.index(reference) if reference else None
    value, covariance = _solve(scores[rows], sources[rows], home)
    error = np.sqrt(np.maximum(np.diag(covariance), 0.0)).tolist()
    found = zip(names, value.tolist(), error, [counts[c] for c in column], strict=True)
    return Offsets(
        reference=reference, left_out=left_out,
        languages=tuple(LanguageOffset(language=n, value=v, stderr=e, sources=c) for n, v, e, c in found),
    )  # fmt: skip


def _apart(aligned: Aligned, names: list[str], reference: str) -> list[str]:
    """Return the languages that no chain of shared groups links with the reference (or the first one)."""
    there = ~np.isnan(aligned.scores[:, [aligned.languages.index(n) for n in names]])
    shared = there.T.astype(np.int64) @ there.astype(np.int64)
    label: Ints = (
        connected_components(coo_array(shared), directed=False)[1] if names else np.zeros(0, np.int64)
    )
    home = names.index(reference) if reference in names else 0
    return [n for i, n in enumerate(names) if label[i] != label[home]]


def _solve(scores: Floats, sources: NDArray[np.str_], reference: int | None) -> tuple[Floats, Floats]:
    """Return b (L,) and its covariance (L, L) under the constraint.

    The qualities of the groups are taken out by centring each group (Frisch-Waugh-Lovell), which leaves an
    L x L system; the pseudo-inverse solves it with Σ b = 0, and a shift gives any other reference.
    """
    there = (~np.isnan(scores)).astype(np.float64)
    count = np.maximum(there.sum(axis=1, keepdims=True), 1.0)
    values = np.where(there > 0, scores, 0.0)
    centred = there * (values - values.sum(axis=1, keepdims=True) / count)
    laplacian = np.diag(there.sum(axis=0)) - (there / count).T @ there
    inverse = np.linalg.pinv(laplacian, hermitian=True)
    free = inverse @ centred.sum(axis=0)
    residual = there * (centred - free + (there @ free)[:, None] / count)
    cluster = np.unique(sources, return_inverse=True)[1]
    by_source = np.zeros((int(cluster.max()) + 1, scores.shape[1]))
    np.add.at(by_source, cluster, residual)  # X' e of a source: residuals of centred dummies are centred
    spread = by_source.T @ by_source * (len(by_source) / max(len(by_source) - 1, 1))
    covariance = inverse @ spread @ inverse
    shift = np.eye(len(free))
    if reference is not None:
        shift[:, reference] -= 1.0
    return shift @ free, shift @ covariance @ shift.T
