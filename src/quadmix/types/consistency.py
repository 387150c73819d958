"""Values of `quadmix mubench mlc`: accuracy and consistency of one model over languages, with what
predictors without knowledge reach beside each of them.

Shares are 0 to 1. Intervals are of the items' bootstrap; all languages of an item are drawn together.
"""

from dataclasses import dataclass

from quadmix.types.arrays import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """A share or difference with its interval; NaN where there are too few items for one."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SetConsistency:
    """A set of languages: means over its pairs. name: "all", a class of resources or a group of the user's.

    rel: MLC / mean accuracy; better models have smaller values, so it ranks nothing. kappa and
    beyond_accuracy: of the means, NaN where undefined. transfer: MLC+ / smaller accuracy.
    nulls: content-free predictor -> its MLC. over_null: MLC minus the largest of them.
    """

    name: str
    languages: tuple[str, ...]
    mlc: Bounds
    both_right: Bounds
    same_wrong: Bounds
    accuracy: Bounds
    rel: float
    chance: float
    kappa: float
    by_accuracy: float
    beyond_accuracy: float
    transfer: float
    nulls: dict[str, float]
    over_null: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageConsistency:
    """One language. accuracy_null: accuracy of its answers dealt out to random items. entropy: of the
    answers' places, bits. unanswered: items without an answer. settled: choices that count as right because
    their text is that of the right option (-1: the texts were not at hand).

    mlc: mean with the other languages. anchor: with the anchor language, None for itself or without one;
    anchor_right: both right, anchor_transfer: that / the smaller accuracy.
    nulls, anchor_nulls: content-free predictor -> its value of the same.
    """

    language: str
    accuracy: Bounds
    chance: float
    accuracy_null: float
    accuracy_nulls: dict[str, float]
    entropy: float
    unanswered: int
    settled: int
    mlc: Bounds
    nulls: dict[str, float]
    anchor: Bounds | None
    anchor_right: float
    anchor_transfer: float
    anchor_nulls: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairMatrices:
    """(L, L) each, in the order of the languages; nulls: content-free predictor -> its MLC."""

    mlc: Floats
    both_right: Floats
    same_wrong: Floats
    kappa: Floats
    beyond_accuracy: Floats
    nulls: dict[str, Floats]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskConsistency:
    """One task in one mode by one estimator. sets: "all" first. part: of the split, or "" for all items."""

    task: str
    mode: str
    estimator: str
    ability: str
    items: int
    part: str
    languages: tuple[str, ...]
    anchor: str | None
    sets: tuple[SetConsistency, ...]
    by_language: tuple[LanguageConsistency, ...]
    pairs: PairMatrices


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanConsistency:
    """Mean over tasks of one mode and estimator, the NLI family counted once, items never pooled.

    name: an ability, "tasks" (mean of the tasks) or "abilities" (mean of the abilities). nulls: those that
    every task has.
    """

    name: str
    mode: str
    estimator: str
    tasks: tuple[str, ...]
    mlc: Bounds
    both_right: Bounds
    accuracy: Bounds
    nulls: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedAnswers:
    """Code-switched items against the same ones in the base language: accuracies, their difference, and how
    often the model keeps its answer. nulls: how often content-free predictors keep theirs."""

    task: str
    mode: str
    estimator: str
    language: str
    items: int
    mixed: float
    plain: float
    difference: Bounds
    kept: Bounds
    nulls: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConsistencyReport:
    """All that was measured, and notes on what was left out or counted."""

    tasks: tuple[TaskConsistency, ...]
    means: tuple[MeanConsistency, ...]
    mixes: tuple[MixedAnswers, ...]
    notes: tuple[str, ...]
    confidence: float
    draws: int
    seed: int
