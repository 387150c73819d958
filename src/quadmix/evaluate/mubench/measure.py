"""Predictions of one task -> its consistency with intervals, and the same of content-free predictors.

All intervals come from one set of resamples of the items, in which all languages of an item move together:
were pairs of languages taken as independent, intervals would be several times too short.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.evaluate.mubench.consistency import Chosen, Pairs, agreement, beyond, pairs, with_others
from quadmix.evaluate.mubench.items import Predictions
from quadmix.evaluate.mubench.nulls import accuracy_null, entropy
from quadmix.evaluate.mubench.sources import source_of
from quadmix.evaluate.stats import item_sums
from quadmix.types.arrays import Floats
from quadmix.types.consistency import (
    Bounds,
    LanguageConsistency,
    PairMatrices,
    SetConsistency,
    TaskConsistency,
)

DRAWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How intervals are made: resamples, seed and confidence."""

    draws: int = DRAWS
    seed: int = 0
    confidence: float = 0.95


class Resampled:
    """Rows of values per item, resampled together; a statistic is a row or a sum of rows with signs."""

    def __init__(self, rows: Mapping[str, Floats], name: str, sampling: Sampling) -> None:
        """rows: name -> (I,) shares from 0 to 1; resamples, which `item_sums` stretches, stay in that range.
        name: of the task, so that all its measures see the same resamples."""
        table = np.stack(list(rows.values()))
        sums = item_sums(
            table, np.ones(table.shape[1]), seed=sampling.seed, names=["mubench", name], draws=sampling.draws
        )
        self._columns = dict(zip(rows, np.clip(sums.ratios.T, 0, 1), strict=True))
        self._confidence = sampling.confidence

    def draws(self, name: str, minus: str | None = None) -> Floats:
        """Return (1 + draws,): the statistic on the items as they are, then on resamples."""
        return self._columns[name] - (self._columns[minus] if minus is not None else 0.0)

    def bounds(self, name: str, minus: str | None = None) -> Bounds:
        """Return the statistic with its interval."""
        return bounds(self.draws(name, minus), self._confidence)


def bounds(draws: Floats, confidence: float) -> Bounds:
    """Return the first value with the percentile interval of the others; NaN where they are."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws[1:], [tail, 1 - tail]) if np.isfinite(draws).all() else (np.nan, np.nan)
    return Bounds(value=float(draws[0]), low=float(low), high=float(high))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """A task's consistency, and (1 + draws,) of its means over all pairs, for means over tasks."""

    result: TaskConsistency
    mlc: Floats
    both_right: Floats
    accuracy: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tables:
    """One model and its nulls on the same items. chosen: (L, I)."""

    languages: tuple[str, ...]
    chosen: Chosen
    nulls: dict[str, Chosen]
    labels: NDArray[np.int16]
    options: NDArray[np.int16]
    anchor: int | None

    def places(self, members: Sequence[str]) -> NDArray[np.intp]:
        return np.array([self.languages.index(m) for m in members], dtype=np.intp)


def measure(
    found: Predictions,
    nulls: Sequence[Predictions],
    *,
    anchor: str | None,
    groups: Mapping[str, Sequence[str]],
    settled: Mapping[str, int] | None = None,
    part: str = "",
    sampling: Sampling,
) -> Measured:
    """Return the consistency of a model's choices, with every null of the same items beside it.

    nulls: one at least; each with all languages of `found` and the same ids in any order. groups: name ->
    languages, of which those that `found` has count. settled: language -> choices that count as right by
    their text. Raises InputError for fewer than two languages, without nulls, or with nulls of other items.
    """
    tables = _tables(found, nulls, anchor)
    everything = pairs(tables.chosen, tables.labels, tables.options)
    null_pairs = {name: pairs(own, tables.labels, tables.options) for name, own in tables.nulls.items()}
    sets = {"all": tables.languages, **_present(groups, tables.languages)}
    rows = _rows(tables, sets)
    resampled = Resampled(rows, found.task, sampling)
    result = TaskConsistency(
        task=found.task,
        mode=found.mode,
        estimator=found.estimator,
        ability=source_of(found.task).ability,
        items=len(found.ids),
        part=part,
        languages=tables.languages,
        anchor=None if tables.anchor is None else tables.languages[tables.anchor],
        sets=tuple(
            _set(name, tuple(members), tables.places(members), everything, list(tables.nulls), resampled)
            for name, members in sets.items()
        ),
        by_language=tuple(
            _language(place, tables, everything, null_pairs, resampled, settled)
            for place in range(len(tables.languages))
        ),
        pairs=PairMatrices(
            mlc=everything.mlc,
            both_right=everything.both_right,
            same_wrong=everything.mlc - everything.both_right,
            kappa=everything.kappa,
            beyond_accuracy=everything.beyond_accuracy,
            nulls={name: own.mlc for name, own in null_pairs.items()},
        ),
    )
    return Measured(
        result=result,
        mlc=resampled.draws("all mlc"),
        both_right=resampled.draws("all right"),
        accuracy=resampled.draws("all accuracy"),
    )


def _tables(found: Predictions, nulls: Sequence[Predictions], anchor: str | None) -> _Tables:
    name = f"{found.task} ({found.mode}, {found.estimator})"
    languages = tuple(sorted(found.chosen))
    if len(languages) < 2:
        raise InputError(f"{name}: {len(languages)} language; expected two or more, to compare them")
    if not nulls:
        raise InputError(f"{name}: no content-free predictor beside it; give the items with --data FOLDER")
    return _Tables(
        languages=languages,
        chosen=np.stack([found.chosen[language] for language in languages]),
        nulls={null.estimator: _matched(null, found, languages, name) for null in nulls},
        labels=found.labels,
        options=found.options,
        anchor=languages.index(anchor) if anchor in languages else None,
    )


def _matched(null: Predictions, found: Predictions, languages: Sequence[str], name: str) -> Chosen:
    place = {i: n for n, i in enumerate(null.ids)}
    lacking = [language for language in languages if language not in null.chosen]
    lost = [i for i in found.ids if i not in place]
    if lacking or lost:
        what = f"language {lacking[0]!r}" if lacking else f"id {lost[0]!r}"
        raise InputError(
            f"{name}: the null {null.estimator!r} lacks {what}; expected it on the same items and languages: "
            "predict it again, or leave it out and give the items with --data FOLDER"
        )
    order = [place[i] for i in found.ids]
    return np.stack([null.chosen[language][order] for language in languages])


def _present(groups: Mapping[str, Sequence[str]], languages: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the groups with two or more of the languages, and not all of them."""
    own = {name: tuple(m for m in languages if m in members) for name, members in groups.items()}
    return {name: members for name, members in own.items() if 2 <= len(members) < len(languages)}


def _rows(tables: _Tables, sets: Mapping[str, Sequence[str]]) -> dict[str, Floats]:
    """Return what is resampled: name -> (I,)."""
    right = (tables.chosen == tables.labels).astype(np.float64)
    rows: dict[str, Floats] = {}
    for name, members in sets.items():
        places = tables.places(members)
        rows[f"{name} mlc"], rows[f"{name} right"] = agreement(
            tables.chosen[places], tables.labels, tables.options
        )
        rows[f"{name} wrong"] = rows[f"{name} mlc"] - rows[f"{name} right"]
        rows[f"{name} accuracy"] = right[places].mean(axis=0)
        for null, own in tables.nulls.items():
            rows[f"{name} null {null}"] = agreement(own[places], tables.labels, tables.options)[0]
    shared = with_others(tables.chosen, tables.options)
    for place in range(len(tables.languages)):
        rows[f"accuracy {place}"] = right[place]
        rows[f"mlc {place}"] = shared[place]
        if tables.anchor is not None:
            same = (tables.chosen[place] == tables.chosen[tables.anchor]) & (tables.chosen[place] >= 0)
            rows[f"anchor {place}"] = same.astype(np.float64)
    return rows


def _set(
    name: str,
    members: tuple[str, ...],
    places: NDArray[np.intp],
    everything: Pairs,
    nulls: Sequence[str],
    resampled: Resampled,
) -> SetConsistency:
    mlc, accuracy = resampled.bounds(f"{name} mlc"), resampled.bounds(f"{name} accuracy")
    chance, by_accuracy = (everything.mean(m, places) for m in (everything.chance, everything.by_accuracy))
    values = {null: resampled.bounds(f"{name} null {null}").value for null in nulls}
    highest = max(values, key=lambda null: values[null])
    return SetConsistency(
        name=name,
        languages=members,
        mlc=mlc,
        both_right=resampled.bounds(f"{name} right"),
        same_wrong=resampled.bounds(f"{name} wrong"),
        accuracy=accuracy,
        rel=mlc.value / accuracy.value if accuracy.value else np.nan,
        chance=chance,
        kappa=_beyond(mlc.value, chance),
        by_accuracy=by_accuracy,
        beyond_accuracy=_beyond(mlc.value, by_accuracy),
        transfer=everything.mean(everything.transfer, places),
        nulls=values,
        over_null=resampled.bounds(f"{name} mlc", minus=f"{name} null {highest}"),
    )


def _language(
    place: int,
    tables: _Tables,
    everything: Pairs,
    null_pairs: Mapping[str, Pairs],
    resampled: Resampled,
    settled: Mapping[str, int] | None,
) -> LanguageConsistency:
    own, anchor = tables.chosen[place], tables.anchor
    others = np.array([p for p in range(len(tables.languages)) if p != place])
    anchored = anchor is not None and anchor != place
    return LanguageConsistency(
        language=tables.languages[place],
        accuracy=resampled.bounds(f"accuracy {place}"),
        chance=float(np.mean(1 / tables.options)),
        accuracy_null=accuracy_null(own, tables.labels),
        accuracy_nulls={name: float(p.accuracy[place]) for name, p in null_pairs.items()},
        entropy=entropy(own),
        unanswered=int((own < 0).sum()),
        settled=-1 if settled is None else settled.get(tables.languages[place], 0),
        mlc=resampled.bounds(f"mlc {place}"),
        nulls={name: float(p.mlc[place, others].mean()) for name, p in null_pairs.items()},
        anchor=resampled.bounds(f"anchor {place}") if anchored else None,
        anchor_right=float(everything.both_right[place, anchor]) if anchored else np.nan,
        anchor_transfer=float(everything.transfer[place, anchor]) if anchored else np.nan,
        anchor_nulls={n: float(p.mlc[place, anchor]) for n, p in null_pairs.items()} if anchored else {},
    )


def _beyond(observed: float, expected: float) -> float:
    return float(beyond(np.array(observed), np.array(expected)))
