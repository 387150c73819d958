"""Multilingual consistency (MLC) of one table of choices: how often languages choose the same option.

    MLC(l, l') = 1/N sum_i 1[a_l(i) = a_l'(i)]        MLC(S) = mean over the pairs of S
    MLC+ = both right, MLC- = the same wrong option   MLC = MLC+ + MLC-

Agreement says nothing about knowledge: it is high for a model that is always right, that always takes one
place, or that likes short answers. It is a reading beside accuracy and nulls, never an aim.

Shapes: L languages, I items. chosen: (L, I) int16, -1 = no answer, which agrees with nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.types.arrays import Floats

Chosen = NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Of every pair of languages, (L, L) each and symmetric; the diagonals are the language with itself.

    mlc, both_right: shares of the items; the same wrong option is their difference. chance: agreement of
    answers dealt out at random among items with as many options. by_accuracy: agreement of two independent
    models of these accuracies. accuracy: (L,).
    """

    mlc: Floats
    both_right: Floats
    chance: Floats
    by_accuracy: Floats
    accuracy: Floats

    @property
    def kappa(self) -> Floats:
        """(MLC - chance) / (1 - chance); NaN where chance agreement is 1."""
        return beyond(self.mlc, self.chance)

    @property
    def beyond_accuracy(self) -> Floats:
        """(MLC - e) / (1 - e), e = `by_accuracy`; NaN where e is 1."""
        return beyond(self.mlc, self.by_accuracy)

    @property
    def transfer(self) -> Floats:
        """MLC+ / the smaller accuracy: how much of what the weaker language knows the other knows too."""
        least = np.minimum(self.accuracy[:, None], self.accuracy[None, :])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(least > 0, self.both_right / least, np.nan)

    def mean(self, values: Floats, members: NDArray[np.intp]) -> float:
        """Return the mean of a matrix over the unordered pairs of `members` (two or more places)."""
        block = values[np.ix_(members, members)]
        return float(block[np.triu_indices(len(members), 1)].mean())


def beyond(observed: Floats, expected: Floats) -> Floats:
    """Return (observed - expected) / (1 - expected); NaN where expected is 1 (within rounding)."""
    room = 1 - expected
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(room > 1e-12, (observed - expected) / room, np.nan)


def pairs(chosen: Chosen, labels: NDArray[np.int16], options: NDArray[np.int16]) -> Pairs:
    """Return the pair matrices. labels, options: (I,)."""
    items = chosen.shape[1]
    right = (chosen == labels).astype(np.float32)
    agree = sum((_outer(chosen == k) for k in range(int(options.max()))), np.zeros((len(chosen),) * 2))
    accuracy = right.mean(axis=1, dtype=np.float64)
    wrong = np.outer(1 - accuracy, 1 - accuracy) * float(np.mean(1 / (options - 1)))
    return Pairs(
        mlc=agree / items,
        both_right=_outer(right) / items,
        chance=_chance(chosen, options),
        by_accuracy=np.outer(accuracy, accuracy) + wrong,
        accuracy=accuracy,
    )


def _outer(marks: NDArray[np.bool_] | NDArray[np.float32]) -> Floats:
    """Return (L, L) how many items are marked in both; exact, since counts are below 2^24."""
    table = marks.astype(np.float32)
    return (table @ table.T).astype(np.float64)


def _chance(chosen: Chosen, options: NDArray[np.int16]) -> Floats:
    """Return (L, L) sum over numbers of options of their share of the items x sum_k P_l(k) P_l'(k)."""
    expected = np.zeros((len(chosen), len(chosen)))
    for arity in np.unique(options):
        own = chosen[:, options == arity]
        share = np.stack([(own == k).mean(axis=1) for k in range(int(arity))], axis=1)
        expected += own.shape[1] / len(options) * (share @ share.T)
    return expected


def agreement(chosen: Chosen, labels: NDArray[np.int16], options: NDArray[np.int16]) -> tuple[Floats, Floats]:
    """Return (I,) of each item: the share of the pairs of languages that agree, and that are both right.

    The fast form: with c_k languages choosing option k, sum_k c_k (c_k - 1) / (L (L - 1)). Its mean over the
    items is MLC of the set, in O(I L K) instead of O(I L^2).
    """
    languages = len(chosen)
    same = np.zeros(chosen.shape[1])
    for k in range(int(options.max())):
        count = np.count_nonzero(chosen == k, axis=0).astype(np.float64)
        same += count * (count - 1)
    right = np.count_nonzero(chosen == labels, axis=0).astype(np.float64)
    ordered = languages * (languages - 1)
    return same / ordered, right * (right - 1) / ordered


def with_others(chosen: Chosen, options: NDArray[np.int16]) -> Floats:
    """Return (L, I): the share of the other languages that choose as this one does; its mean over the items
    is the language's profile MLC(l)."""
    shared = np.zeros(chosen.shape)
    for k in range(int(options.max())):
        mine = chosen == k
        shared += mine * (np.count_nonzero(mine, axis=0) - 1.0)
    return shared / (len(chosen) - 1)
