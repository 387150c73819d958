"""What travels between the parts: a question, a task in several languages, what a model chose.

Option order is the same in every language, so options are compared by index.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question in one language. label: index of the right option in choices.

    The prompt has no trailing space and a choice no leading one; `languages.separator` stands between.
    """

    id: str
    prompt: str
    choices: tuple[str, ...]
    label: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlignedTask:
    """A task in several languages. items[language][i] is the same question for every language; ids[i] its
    _id. Ids are sorted. Number of options and label are equal in all languages.

    task: "arc_easy", ... mode: "lighteval", "local_template", "en_template", "mix_2", "mix_lighteval_2".
    converted: languages without files of this mode, whose items were made from local_template.
    """

    task: str
    mode: str
    ids: tuple[str, ...]
    items: Mapping[str, tuple[Item, ...]]
    converted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What a model chose on the items `ids` of one task, by one estimator.

    estimator: "acc", "acc_norm", "acc_bytes", "acc_cal"; or a content-free null: "shortest", "longest",
    "unconditional", "random_init" (`nulls.NULLS`).
    chosen[language]: (I,) int16 option index, -1 = no answer. A choice whose text equals that of the right
    option is stored as the right option (`nulls.settled`).
    labels, options: (I,) int16, index of the right option and number of options, the same in every language.
    scores[language]: (I, K) float64 of the estimator, larger = chosen, NaN past the item's options; not
    stored in files. None: absent.
    Raises InputError where shapes, choices or labels do not fit.
    """

    task: str
    mode: str
    estimator: str
    ids: tuple[str, ...]
    chosen: Mapping[str, NDArray[np.int16]]
    labels: NDArray[np.int16]
    options: NDArray[np.int16]
    scores: Mapping[str, NDArray[np.float64]] | None = None

    def __post_init__(self) -> None:
        name = f"predictions of {self.task} ({self.mode}, {self.estimator})"
        shape = (len(self.ids),)
        if self.labels.shape != shape or self.options.shape != shape:
            raise InputError(
                f"{name}: labels {self.labels.shape} and options {self.options.shape}, expected {shape}"
            )
        if len(set(self.ids)) < len(self.ids):
            raise InputError(f"{name}: an id is there twice; each item must be there once")
        if (bad := np.flatnonzero((self.labels < 0) | (self.labels >= self.options))).size:
            raise InputError(
                f"{name}, id {self.ids[bad[0]]!r}: label {self.labels[bad[0]]} is outside its "
                f"{self.options[bad[0]]} options"
            )
        if (few := np.flatnonzero(self.options < 2)).size:
            raise InputError(
                f"{name}, id {self.ids[few[0]]!r}: {self.options[few[0]]} options, expected two or more"
            )
        for language, chosen in self.chosen.items():
            if chosen.shape != shape:
                raise InputError(f"{name}, {language}: {chosen.shape} choices, expected {shape}")
            if (bad := np.flatnonzero((chosen < -1) | (chosen >= self.options))).size:
                raise InputError(
                    f"{name}, {language}, id {self.ids[bad[0]]!r}: choice {chosen[bad[0]]} is outside "
                    f"-1 (no answer) to {self.options[bad[0]] - 1}"
                )
