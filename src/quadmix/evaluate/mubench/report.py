"""All predictions of a model -> `ConsistencyReport`: every task, means over tasks, code-switched items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quadmix.errors import InputError
from quadmix.evaluate.mubench.consistency import Chosen
from quadmix.evaluate.mubench.items import AlignedTask, Predictions
from quadmix.evaluate.mubench.languages import resource_groups
from quadmix.evaluate.mubench.measure import Measured, Resampled, Sampling, bounds, measure
from quadmix.evaluate.mubench.nulls import FROM_TEXT, NULLS, items_of, settled, text_nulls
from quadmix.evaluate.mubench.sources import source_of
from quadmix.evaluate.mubench.splits import parts_of
from quadmix.types.arrays import Floats
from quadmix.types.consistency import ConsistencyReport, MeanConsistency, MixedAnswers

ENGLISH = "en"
EACH = "each task's"
"""Estimator of a mean over tasks that have different ones."""
_PLAIN_OF = {"mix_lighteval": "lighteval", "mix": "local_template"}
Key = tuple[str, str]
"""(task, mode)"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A model's predictions by one estimator with the nulls of the same items. settled: language -> choices
    that count as right by their text; None where the texts were not at hand."""

    found: Predictions
    nulls: tuple[Predictions, ...]
    settled: Mapping[str, int] | None


def consistency_report(
    found: Sequence[Predictions],
    items: Mapping[Key, AlignedTask],
    *,
    anchor: str | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    part: str = "",
    sampling: Sampling | None = None,
) -> ConsistencyReport:
    """Return accuracy and consistency of a model, with content-free predictors beside each.

    found: of one model; estimators named in `NULLS` are content-free predictors. items: (task, mode) -> the
    items that were predicted, where they are at hand; shortest and longest option are then taken from them.
    anchor: None takes "en" where it is there. groups: name -> languages; None takes classes of resources.
    part: "target", "select" or "report" restricts to it; "" takes all items.
    Raises InputError where nothing was predicted, or a task has no content-free predictor.
    """
    sampling = sampling or Sampling()
    models = [m for key in dict.fromkeys((p.task, p.mode) for p in found) for m in _models(key, found, items)]
    if part:
        models = [_restricted(m, part) for m in models]
    if not models:
        raise InputError(
            "no predictions of a model; expected one estimator that is no content-free predictor"
        )
    measured = [_measured(m, anchor, groups, part, sampling) for m in models if _comparable(m)]
    return ConsistencyReport(
        tasks=tuple(m.result for m in measured),
        means=tuple(_means(measured, sampling.confidence)),
        mixes=tuple(_mixes(models, sampling)),
        notes=tuple(_notes(models)),
        confidence=sampling.confidence,
        draws=sampling.draws,
        seed=sampling.seed,
    )


def _models(key: Key, found: Sequence[Predictions], items: Mapping[Key, AlignedTask]) -> list[Model]:
    """Return the estimators of a task and mode, each with its nulls; ties settled where texts are there."""
    own = [p for p in found if (p.task, p.mode) == key]
    given = [p for p in own if p.estimator in NULLS]
    models: list[Model] = []
    for one in own:
        if one.estimator in NULLS:
            continue
        if key not in items:
            if not given:
                raise InputError(
                    f"{key[0]} ({key[1]}): no content-free predictor beside {one.estimator!r}, and a "
                    "consistency without one says nothing; give the items with --data FOLDER, or predictions "
                    f"by one of {', '.join(NULLS)}"
                )
            models.append(Model(found=one, nulls=tuple(given), settled=None))
            continue
        task = items_of(items[key], one)
        done, changed = settled(task, one)
        kept = [p for p in given if p.estimator not in FROM_TEXT]
        nulls = [*text_nulls(task), *(settled(items_of(items[key], p), p)[0] for p in kept)]
        models.append(Model(found=done, nulls=tuple(nulls), settled=changed))
    return models


def _restricted(model: Model, part: str) -> Model:
    return replace(
        model, found=_take(model.found, part), nulls=tuple(_take(null, part) for null in model.nulls)
    )


def _take(found: Predictions, part: str) -> Predictions:
    keep = parts_of(found.task, found.ids) == part
    if not keep.any():
        raise InputError(
            f"{found.task} ({found.mode}): none of {len(keep)} predicted items is in part {part!r}"
        )
    return replace(
        found,
        ids=tuple(i for i, k in zip(found.ids, keep, strict=True) if k),
        chosen={language: own[keep] for language, own in found.chosen.items()},
        labels=found.labels[keep],
        options=found.options[keep],
        scores=None,
    )


def _comparable(model: Model) -> bool:
    """Is it in two or more languages, so that they can be compared?"""
    return len(model.found.chosen) >= 2


def _measured(
    model: Model,
    anchor: str | None,
    groups: Mapping[str, Sequence[str]] | None,
    part: str,
    sampling: Sampling,
) -> Measured:
    languages = model.found.chosen
    if anchor is not None and anchor not in languages:
        raise InputError(
            f"{model.found.task} ({model.found.mode}): no predictions in the anchor {anchor!r}; "
            f"its languages are {', '.join(languages)}"
        )
    return measure(
        model.found,
        model.nulls,
        anchor=anchor or (ENGLISH if ENGLISH in languages else None),
        groups=resource_groups(sorted(languages)) if groups is None else groups,
        settled=model.settled,
        part=part,
        sampling=sampling,
    )


# --------------------------------------------------------------------------- means over tasks
def _means(measured: Sequence[Measured], confidence: float) -> list[MeanConsistency]:
    """Return the means of each ability, of the tasks, of the abilities: per mode where each task has one
    estimator, else per mode and estimator."""
    found: list[MeanConsistency] = []
    single = len({(m.result.task, m.result.mode) for m in measured}) == len(measured)
    keys = [(m.result.mode, "" if single else m.result.estimator) for m in measured]
    for key in dict.fromkeys(keys):
        own = [m for m, its in zip(measured, keys, strict=True) if its == key]
        if len({source_of(m.result.task).family for m in own}) < 2:
            continue
        by_ability = {
            ability: [m for m in own if m.result.ability == ability]
            for ability in dict.fromkeys(m.result.ability for m in own)
        }
        weights = {ability: _weights(tasks) for ability, tasks in by_ability.items()}
        found += [
            _mean(ability, tasks, weights[ability], confidence) for ability, tasks in by_ability.items()
        ]
        found.append(_mean("tasks", own, _weights(own), confidence))
        grouped = [m for tasks in by_ability.values() for m in tasks]
        equal = [w / len(weights) for ability in by_ability for w in weights[ability]]
        found.append(_mean("abilities", grouped, equal, confidence))
    return found


def _weights(tasks: Sequence[Measured]) -> list[float]:
    """Return the weight of each task in a mean: equal per family, equal inside it; they sum to 1."""
    families = [source_of(m.result.task).family for m in tasks]
    return [1 / len(set(families)) / families.count(family) for family in families]


def _mean(
    name: str, tasks: Sequence[Measured], weights: Sequence[float], confidence: float
) -> MeanConsistency:
    """Return weighted means; the items of each task were resampled alone."""

    def mean(draws: Sequence[Floats]) -> Floats:
        return np.average(np.stack(draws), axis=0, weights=weights)

    nulls = [dict(m.result.sets[0].nulls) for m in tasks]
    common = [null for null in nulls[0] if all(null in own for own in nulls)]
    first = tasks[0].result
    return MeanConsistency(
        name=name,
        mode=first.mode,
        estimator=first.estimator if len({m.result.estimator for m in tasks}) == 1 else EACH,
        tasks=tuple(m.result.task for m in tasks),
        mlc=bounds(mean([m.mlc for m in tasks]), confidence),
        both_right=bounds(mean([m.both_right for m in tasks]), confidence),
        accuracy=bounds(mean([m.accuracy for m in tasks]), confidence),
        nulls={null: float(np.average([own[null] for own in nulls], weights=weights)) for null in common},
    )


# --------------------------------------------------------------------------- code-switched items
def _mixes(models: Sequence[Model], sampling: Sampling) -> list[MixedAnswers]:
    """Return every code-switched task against the same items in the base language, where both are there."""
    plain = {(m.found.task, m.found.mode, m.found.estimator): m for m in models}
    found: list[MixedAnswers] = []
    for model in models:
        stem = model.found.mode.rpartition("_")[0]
        base = plain.get((model.found.task, _PLAIN_OF.get(stem, ""), model.found.estimator))
        if base is None:
            continue
        found += [
            _against(model, base, language, sampling)
            for language in model.found.chosen
            if language in base.found.chosen
        ]
    return found


def _against(model: Model, base: Model, language: str, sampling: Sampling) -> MixedAnswers:
    found, labels = model.found, model.found.labels
    mine, theirs = found.chosen[language], _answers(base.found, found, language)
    rows = {
        "mixed": (mine == labels).astype(np.float64),
        "plain": (theirs == labels).astype(np.float64),
        "kept": ((mine == theirs) & (mine >= 0)).astype(np.float64),
    }
    resampled = Resampled(rows, found.task, sampling)
    pairs = [(n, p) for n in model.nulls for p in base.nulls if n.estimator == p.estimator]
    return MixedAnswers(
        task=found.task,
        mode=found.mode,
        estimator=found.estimator,
        language=language,
        items=len(labels),
        mixed=resampled.bounds("mixed").value,
        plain=resampled.bounds("plain").value,
        difference=resampled.bounds("mixed", minus="plain"),
        kept=resampled.bounds("kept"),
        nulls={
            n.estimator: float(np.mean(_answers(n, found, language) == _answers(p, found, language)))
            for n, p in pairs
            if language in n.chosen and language in p.chosen
        },
    )


def _answers(source: Predictions, of: Predictions, language: str) -> Chosen:
    """Return the choices of `source` on the items of `of`, in their order."""
    place = {i: n for n, i in enumerate(source.ids)}
    if lost := [i for i in of.ids if i not in place]:
        raise InputError(
            f"{of.task} ({of.mode}): {len(lost)} of its ids, as {lost[0]!r}, are not predicted in mode "
            f"{source.mode}; expected both modes on the same items"
        )
    return source.chosen[language][[place[i] for i in of.ids]]


def _notes(models: Sequence[Model]) -> list[str]:
    """Return what was left out or counted, in words."""
    notes: list[str] = []
    for mode in dict.fromkeys(m.found.mode for m in models):
        own = {m.found.task: frozenset(m.found.chosen) for m in models if m.found.mode == mode}
        every = frozenset[str]().union(*own.values())
        if lacking := {task: every - spoken for task, spoken in own.items() if spoken != every}:
            said = "; ".join(f"{task} lacks {_some(sorted(codes))}" for task, codes in lacking.items())
            notes.append(f"{mode}: tasks are in different languages, so means over them mix sets: {said}")
    for m in models:
        name = f"{m.found.task} ({m.found.mode}, {m.found.estimator})"
        if not _comparable(m):
            notes.append(f"{name}: predictions in {', '.join(m.found.chosen)} alone, so nothing to compare")
        if m.settled is None:
            notes.append(f"{name}: option texts not at hand, so equal options were not looked for")
        elif total := sum(m.settled.values()):
            notes.append(
                f"{name}: {total} choices count as right because their text is that of the right option"
            )
        if unanswered := sum(int((own < 0).sum()) for own in m.found.chosen.values()):
            notes.append(
                f"{name}: {unanswered} items without an answer; they are wrong and agree with nothing"
            )
    return notes


def _some(names: Sequence[str], most: int = 5) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
