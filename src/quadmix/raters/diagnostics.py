"""How far raters agree, and how much each of them decides.

In: the votes on P pairs and the ratings of D texts. Out: `RaterDiagnostics`: agreement and rank correlation
of every two raters, counts of votes and labels, shares of abstention, and for each rater what changes without
it: labels that turn round, and texts that leave the best tenth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.trained import spearman
from quadmix.errors import ScoreError
from quadmix.raters.pairs import mean_z
from quadmix.raters.table import Ratings
from quadmix.raters.votes import Votes, combine_votes
from quadmix.rng import doc_keys
from quadmix.types import Floats, Ints

TOP = 0.1  # share of the texts that counts as the best
JUDGE = "judge"  # name of the column that has votes and no ratings
LABEL_STEPS = 20  # bins of the labels' histogram are centred at 0, 1/20, ..., 1: a tie has its own


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What changes without one rater.

    labelled: pairs with a label both with and without it; lost: pairs that have too few voters without it.
    flipped: share of `labelled` whose direction turns round (from p above 0.5 to below, or back). change:
    mean |Δp| of `labelled`. top: share of the best texts by mean z-score that others replace, NaN for a judge
    (it rates no text) and where no other rater is left. Shares of nothing are NaN.
    """

    name: str
    labelled: int
    lost: int
    flipped: float
    change: float
    top: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RaterDiagnostics:
    """C voters: the raters, then the judge if it votes.

    agreement: (C, C) share of `compared` (C, C), the pairs on which both vote and neither ties, on which both
    prefer the same side; NaN where nothing compares. correlation: (C, C) Spearman of the ratings of `rated`
    (C, C) texts that have both, NaN below two texts, where one side is constant, and for the judge.
    votes: (C, 4) pairs with a better, tie, b better, abstains. abstention: (C,) share of pairs. labels: (21,)
    labelled pairs by p, in bins centred at 0, 0.05, ..., 1; before min_confidence and temperature.
    """

    names: tuple[str, ...]
    pairs: int
    agreement: Floats
    compared: Ints
    correlation: Floats
    rated: Ints
    votes: Ints
    abstention: Floats
    labels: Ints
    without: tuple[LeftOut, ...]


def diagnose_raters(
    votes: Votes, ratings: Ratings, ids: Sequence[str], *, top: float = TOP
) -> RaterDiagnostics:
    """Diagnose raters by their votes on P pairs and their ratings of D texts with ids (D,).

    votes: its columns are those of `ratings`, and a judge's if there is one more. A judge's probability
    counts as its direction in agreement and votes. Raises ScoreError where columns or ids do not match.
    """
    names = _names(votes, ratings)
    if len(ids) != len(ratings.values):
        raise ScoreError(f"{len(ids)} ids for {len(ratings.values)} rated texts, expected one each")
    direction = np.sign(votes.votes - 0.5)
    agreement, compared = _agreement(direction)
    correlation, rated = _correlation(ratings.values, len(names))
    counts = np.stack([(direction == side).sum(axis=0) for side in (1, 0, -1)], axis=1)
    abstains = np.isnan(direction).sum(axis=0)
    p = combine_votes(votes.votes, votes.weights, votes.least)
    bins = np.rint(p[~np.isnan(p)] * LABEL_STEPS).astype(np.int64)
    return RaterDiagnostics(
        names=names,
        pairs=len(votes),
        agreement=agreement,
        compared=compared,
        correlation=correlation,
        rated=rated,
        votes=np.column_stack([counts, abstains]),
        abstention=abstains / len(votes) if len(votes) else np.full(len(names), np.nan),
        labels=np.bincount(bins, minlength=LABEL_STEPS + 1),
        without=tuple(
            _without(column, name, votes, p, _top_change(ratings.values, column, doc_keys(ids), top))
            for column, name in enumerate(names)
        ),
    )


def _names(votes: Votes, ratings: Ratings) -> tuple[str, ...]:
    columns, raters = votes.votes.shape[1], len(ratings.names)
    if columns not in (raters, raters + 1):
        raise ScoreError(
            f"votes have {columns} columns for the raters {', '.join(ratings.names)}; "
            f"expected {raters}, or {raters + 1} with a judge"
        )
    return (*ratings.names, JUDGE)[:columns]


def _agreement(direction: Floats) -> tuple[Floats, Ints]:
    """Return the (C, C) share of pairs with one direction, and the (C, C) pairs that it is a share of."""
    ahead, behind = (direction == 1).astype(np.float64), (direction == -1).astype(np.float64)
    decided = ahead + behind
    compared = decided.T @ decided
    same = ahead.T @ ahead + behind.T @ behind
    share = np.divide(same, compared, out=np.full(same.shape, np.nan), where=compared > 0)
    return share, compared.astype(np.int64)


def _correlation(values: NDArray[np.float32], voters: int) -> tuple[Floats, Ints]:
    correlation, rated = np.full((voters, voters), np.nan), np.zeros((voters, voters), np.int64)
    raters, known = values.shape[1], ~np.isnan(values)
    for i in range(raters):
        for j in range(i, raters):
            both = known[:, i] & known[:, j]
            rated[i, j] = rated[j, i] = int(both.sum())
            one, other = values[both, i], values[both, j]
            if len(one) > 1 and one.min() < one.max() and other.min() < other.max():
                correlation[i, j] = correlation[j, i] = spearman(one, other)
    return correlation, rated


def _without(column: int, name: str, votes: Votes, p: Floats, top: float) -> LeftOut:
    rest = np.arange(votes.votes.shape[1]) != column
    other = combine_votes(votes.votes[:, rest], votes.weights[rest], votes.least)
    both = ~np.isnan(p) & ~np.isnan(other)
    before, after = p[both] - 0.5, other[both] - 0.5
    return LeftOut(
        name=name,
        labelled=int(both.sum()),
        lost=int((~np.isnan(p) & np.isnan(other)).sum()),
        flipped=float((before * after < 0).mean()) if len(before) else float("nan"),
        change=float(np.abs(before - after).mean()) if len(before) else float("nan"),
        top=top,
    )


def _top_change(values: NDArray[np.float32], column: int, keys: NDArray[np.uint64], share: float) -> float:
    """Return which share of the best texts is not among them without a rater; ids' hashes order ties."""
    raters = values.shape[1]
    if column >= raters or raters < 2:
        return float("nan")
    quality = mean_z(values)
    size = max(1, round(share * int((~np.isnan(quality)).sum())))
    before = _best(quality, keys, size)
    after = _best(mean_z(values[:, np.arange(raters) != column]), keys, size)
    return 1 - len(np.intersect1d(before, after)) / len(before) if len(before) else float("nan")


def _best(quality: Floats, keys: NDArray[np.uint64], size: int) -> Ints:
    """Return the rows of the `size` best texts, of those that are rated."""
    order = np.lexsort((keys, -quality))  # NaN comes last
    return order[: min(size, int((~np.isnan(quality)).sum()))]
