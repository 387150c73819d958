"""What predictors that know nothing score: the shortest and the longest option, and what is printed beside
every accuracy. A consistency is read against these, never alone: across languages the shortest option is
often the same one, so a model that prefers short answers is consistent without knowing anything.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.evaluate.mubench.items import AlignedTask, Item, Predictions
from quadmix.evaluate.mubench.load import subset
from quadmix.evaluate.mubench.options import option_texts
from quadmix.evaluate.mubench.read import plain

FROM_TEXT = ("shortest", "longest")
NULLS = (*FROM_TEXT, "unconditional", "random_init")
"""Estimators that are content-free predictors. The last two need a model: likelihood of the options without
the prompt, and the cloze score of random weights; they count where they are among the predictions."""


def text_nulls(task: AlignedTask) -> list[Predictions]:
    """Return what `FROM_TEXT` choose: the option of fewest and of most UTF-8 bytes, the first of equal ones.

    For letters the options' texts in the prompt count.
    """
    sizes = {
        language: [[len(t.encode()) for t in option_texts(item)] for item in items]
        for language, items in task.items.items()
    }
    return [
        predictions(
            task,
            name,
            {
                language: np.array([s.index(pick(s)) for s in own], dtype=np.int16)
                for language, own in sizes.items()
            },
        )
        for name, pick in (("shortest", min), ("longest", max))
    ]


def predictions(task: AlignedTask, estimator: str, chosen: Mapping[str, NDArray[np.int16]]) -> Predictions:
    """Return choices on a whole task as predictions, ties settled (`settled`)."""
    items = next(iter(task.items.values()))
    raw = Predictions(
        task=task.task,
        mode=task.mode,
        estimator=estimator,
        ids=task.ids,
        chosen=chosen,
        labels=np.array([i.label for i in items], dtype=np.int16),
        options=np.array([len(i.choices) for i in items], dtype=np.int16),
    )
    return settled(task, raw)[0]


def settled(task: AlignedTask, found: Predictions) -> tuple[Predictions, dict[str, int]]:
    """Return predictions where a choice whose text is that of the right option counts as the right option,
    and how many choices that changed per language.

    Translation makes two options equal on a few items; they cannot be told apart. task: with the items of
    `found` in their order (`items_of`).
    """
    chosen: dict[str, NDArray[np.int16]] = {}
    changed: dict[str, int] = {}
    for language, own in found.chosen.items():
        same = np.array(
            [_same(item, int(c)) for item, c in zip(task.items[language], own, strict=True)], dtype=np.bool_
        )
        chosen[language] = np.where(same, found.labels, own).astype(np.int16)
        changed[language] = int(same.sum())
    return replace(found, chosen=chosen), changed


def items_of(task: AlignedTask, found: Predictions) -> AlignedTask:
    """Return the items that were predicted, in the order of the predictions.

    Raises InputError naming an id that the task lacks, or whose label or number of options is another one.
    """
    place = {i: n for n, i in enumerate(task.ids)}
    name = f"{found.task} ({found.mode}, {found.estimator})"
    if lacking := [language for language in found.chosen if language not in task.items]:
        raise InputError(f"{name}: predicted in {lacking[0]!r}, which the data lack; give its files too")
    if unknown := [i for i in found.ids if i not in place]:
        raise InputError(
            f"{name}: {len(unknown)} predicted ids are not among the {len(place)} of the data, as "
            f"{unknown[0]!r}; expected predictions on these items: give the folder that was evaluated"
        )
    own = subset(task, [place[i] for i in found.ids])
    for i, item, label, options in zip(
        own.ids, next(iter(own.items.values())), found.labels, found.options, strict=True
    ):
        if (item.label, len(item.choices)) != (label, options):
            raise InputError(
                f"{name}, id {i!r}: predicted with label {label} of {options} options, the data say "
                f"{item.label} of {len(item.choices)}; give the folder that was evaluated"
            )
    return own


def accuracy_null(chosen: NDArray[np.int16], labels: NDArray[np.int16]) -> float:
    """Return sum_c P(predicted c) P(right c): the accuracy of these answers dealt out to random items."""
    top = int(max(chosen.max(initial=0), labels.max(initial=0))) + 1
    guessed = np.bincount(chosen[chosen >= 0], minlength=top) / len(labels)
    return float(guessed @ (np.bincount(labels, minlength=top) / len(labels)))


def entropy(chosen: NDArray[np.int16]) -> float:
    """Return the entropy of the answers' indices in bits; 0 for a model that always takes one place."""
    share = np.bincount(chosen[chosen >= 0]) / max(int((chosen >= 0).sum()), 1)
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum()) + 0.0


def _same(item: Item, choice: int) -> bool:
    if choice < 0 or choice == item.label:
        return False
    texts = option_texts(item)  # of letters: what they stand for
    return plain(texts[choice]) == plain(texts[item.label])
