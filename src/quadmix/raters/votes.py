"""Ratings of two texts -> votes -> the label of their pair: how likely the first is the better one.

In: what R raters say of both texts of P pairs, larger = better, and a judge's answers where there are any.
Out: `Votes`. The label is the vote fraction P(a > b) = (1/N) sum_n 1[S_a^n > S_b^n] (MuRating, arXiv
2507.01785), as a mean over those who vote, by weight. Differs from the paper: a tie
is half a vote, so that P(a > b) + P(b > a) = 1; a rater without a rating of both texts abstains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from quadmix.errors import RecipeError, ScoreError
from quadmix.recipe import RaterRecipe
from quadmix.types import Floats, Ints

LEAST = 2  # voters that a label needs: one rater's taste alone is no agreement
ALL_ABSTAIN, ONE_VOTER, UNSURE = "all abstain", "one voter", "below min_confidence"
_ROUNDING = 1e-12  # of a mean of a few votes: weights .1 + .2 against .2 + .1 are a tie


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgeVotes:
    """p: (P,) in [0, 1], the judge's probability that a is better, NaN = not asked or no valid answer.

    weight: > 0, beside those of the raters. vote: "soft" puts p itself into the mean, "hard" its direction.
    """

    p: Floats
    weight: float = 1.0
    vote: Literal["soft", "hard"] = "soft"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Votes:
    """Labels of P pairs and the votes of C voters (the raters, then the judge if there is one).

    p: (P,) float64 in [0, 1], probability that a is better; NaN where the pair is dropped. voters: (P,) how
    many did not abstain. votes: (P, C) in [0, 1], 1 = a is better, 0.5 = tie, NaN = abstains. weights: (C,).
    least: voters that a label needs. kept: (P,) bool. dropped: pairs by reason; with those kept they add
    up to P.
    """

    p: Floats
    voters: Ints
    votes: Floats
    weights: Floats
    least: int
    kept: NDArray[np.bool_]
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])

    def __len__(self) -> int:
        return len(self.p)


def voting_settings(recipe: RaterRecipe, raters: Sequence[str]) -> tuple[Floats, Floats]:
    """Return (R,) the weight of each rater, and how far apart two of its ratings may be and still tie."""
    pairs = recipe.pairs
    weights = np.array([pairs.weights.get(name, 1.0) for name in raters])
    return weights, np.array([pairs.tie.get(name, 0.0) for name in raters])


def vote(a: ArrayLike, b: ArrayLike, tie_eps: ArrayLike = 0.0) -> Floats:
    """Return 1 where a > b, 0 where a < b, 0.5 where they are at most `tie_eps` apart, NaN where one is NaN.

    The arguments broadcast. vote(a, b) + vote(b, a) = 1 exactly. Equal infinities are a tie.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, which neither comparison below calls apart
        apart = first - second
    eps = np.asarray(tie_eps, np.float64)
    votes = np.where(apart > eps, 1.0, np.where(apart < -eps, 0.0, 0.5))
    return np.where(np.isnan(first) | np.isnan(second), np.nan, votes)


def combine_votes(votes: Floats, weights: Floats, least: int) -> Floats:
    """Return (P,), the mean of votes (P, C) by weight (C,) over those who vote; NaN below `least` voters."""
    voting = ~np.isnan(votes)
    enough = voting.sum(axis=1) >= least
    total = (voting * weights).sum(axis=1)
    p = np.full(len(votes), np.nan)
    np.divide((np.where(voting, votes, 0.0) * weights).sum(axis=1), total, out=p, where=enough)
    p[np.abs(p - 0.5) < _ROUNDING] = 0.5
    return p


def label_pairs(
    ratings_a: NDArray[Any],
    ratings_b: NDArray[Any],
    *,
    weights: ArrayLike = 1.0,
    tie_eps: ArrayLike = 0.0,
    least: int = LEAST,
    judge: JudgeVotes | None = None,
    min_confidence: float = 0.0,
    temperature: float = 1.0,
) -> Votes:
    """Return the labels of P pairs.

    ratings_a, ratings_b: (P, R) ratings of the two texts, larger = better, NaN = abstains. weights,
    tie_eps: (R,) or one number for all raters, > 0 and >= 0. least: voters that a label needs, >= 1.
    min_confidence: c in [0, 1], keeps the pairs with |p - 0.5| >= c / 2 (QuRating's mask; 0 keeps all).
    temperature: T > 0, p' = sigmoid(logit(p) / T), after the mask (1 changes nothing).

    Raises RecipeError for a setting outside its range, ScoreError for ratings or answers that do not fit.
    """
    if ratings_a.ndim != 2 or ratings_a.shape != ratings_b.shape:
        raise ScoreError(
            f"ratings of the sides have shapes {ratings_a.shape} and {ratings_b.shape}, expected (P, R) twice"
        )
    raters = ratings_a.shape[1]
    _check_settings(least, min_confidence, temperature)
    each = _per_rater("weights", weights, raters)
    if (each <= 0).any():
        raise RecipeError(f"weights are {each.tolist()}, expected numbers above 0; leave such a rater out")
    votes = vote(ratings_a, ratings_b, _per_rater("tie_eps", tie_eps, raters))
    if judge is not None:
        votes = np.concatenate([votes, _judged(judge, len(votes))[:, None]], axis=1)
        each = np.append(each, judge.weight)
    p, voters = combine_votes(votes, each, least), (~np.isnan(votes)).sum(axis=1)
    dropped = {_reason(n): int((voters == n).sum()) for n in range(least)}
    unsure = np.abs(p - 0.5) < min_confidence / 2 - _ROUNDING  # p = 0.7 is not below a confidence of 0.4
    dropped[UNSURE] = int(unsure.sum())
    p[unsure] = np.nan
    return Votes(
        p=p if temperature == 1.0 else expit(logit(p) / temperature),
        voters=voters,
        votes=votes,
        weights=each,
        least=least,
        kept=~np.isnan(p),
        dropped={reason: count for reason, count in dropped.items() if count},
    )


def _reason(voters: int) -> str:
    return {0: ALL_ABSTAIN, 1: ONE_VOTER}.get(voters, f"{voters} voters")


def _judged(judge: JudgeVotes, pairs: int) -> Floats:
    """Return the judge's votes (P,), checked."""
    p = np.asarray(judge.p, np.float64)
    if p.shape != (pairs,):
        raise ScoreError(f"the judge answers have shape {p.shape}, expected one for each of {pairs} pairs")
    wrong = np.flatnonzero((p < 0) | (p > 1))
    if len(wrong):
        raise ScoreError(
            f"the judge's answer to pair {wrong[0]} is {p[wrong[0]]}, expected a probability in [0, 1] or NaN"
        )
    if not 0 < judge.weight < np.inf:
        raise RecipeError(f"the judge's weight is {judge.weight}, expected above 0; leave the judge out")
    return vote(p, 0.5) if judge.vote == "hard" else p


def _per_rater(name: str, given: ArrayLike, raters: int) -> Floats:
    values = np.asarray(given, np.float64)
    if values.shape not in ((), (raters,)):
        raise RecipeError(
            f"{name} has shape {values.shape}, expected one number or one for each of {raters} raters"
        )
    if not np.isfinite(values).all() or (values < 0).any():
        raise RecipeError(f"{name} is {values.tolist()}, expected finite numbers, none below 0")
    return np.broadcast_to(values, (raters,)).copy()


def _check_settings(least: int, min_confidence: float, temperature: float) -> None:
    if least < 1:
        raise RecipeError(f"least is {least}, expected at least 1 voter per pair")
    if not 0 <= min_confidence <= 1:
        raise RecipeError(
            f"min_confidence is {min_confidence}, expected a number in [0, 1]; 0 keeps all pairs"
        )
    if not 0 < temperature < np.inf:
        raise RecipeError(f"temperature is {temperature}, expected above 0; 1 leaves the labels as they are")
