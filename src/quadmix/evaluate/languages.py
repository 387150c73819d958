"""Selectors that work language by language, as multilingual raters are used (docs/baselines.md).

In: the language of every document, scores (smaller = better, NaN = none), a budget in tokens, a seed. Out:
copies (D,) int32, 0 or 1. Documents of different languages are never compared by their scores.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.evaluate.cuts import Groups, grouped_copies
from quadmix.evaluate.mixtures import cap_shares
from quadmix.evaluate.sampling import best_first, check_supply, fill_quota
from quadmix.mixing.sampling import gumbel_keys, standardise
from quadmix.types import Annotations, Copies, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Languages:
    """The language of every document. code: (D,) 0..L-1. names: (L,), "" for documents that have none."""

    code: NDArray[np.int32]
    names: tuple[str, ...]

    def take(self, rows: Ints) -> "Languages":
        """Return the languages of some rows; names without a document stay."""
        return Languages(code=self.code[rows], names=self.names)

    def groups(self) -> Groups:
        """Return the languages as the groups of a cut."""
        named = (f"language {n!r}" if n else "the group of documents without a language" for n in self.names)
        return Groups(code=self.code, names=tuple(named))


def language_parts(languages: Languages, table: Annotations, budget: float, alpha: float) -> Floats:
    """Return (L,) the budget in proportion to the tokens of the languages ** alpha.

    A language that has fewer tokens than its part gives all; the others share the rest by the same rule.
    Raises BudgetError for a budget that is not within 0 and the pool's tokens.
    """
    counted = np.where(table.held_out, 0, table.tokens).astype(np.float64)
    tokens = np.bincount(languages.code, counted, len(languages.names))
    check_supply(budget, float(tokens.sum()))
    shares = np.where(tokens > 0, (tokens / tokens.max()) ** alpha, 0.0)
    shares = cap_shares((shares / shares.sum())[None], np.minimum(tokens / budget, 1.0))[0]
    return np.minimum(budget * shares, tokens)


def top_language_copies(
    score: Floats, languages: Languages, table: Annotations, budget: float, *,
    alpha: float, seed: int, needs: str,
) -> Copies:  # fmt: skip
    """Take the best documents of every language until its part of the budget is met (MuRating's selection).

    Parts as in `language_parts`, met as in `grouped_copies`.
    """
    parts = language_parts(languages, table, budget, alpha)
    return grouped_copies(score, languages.groups(), parts, table, seed=seed, needs=needs)


def sampled_language_copies(
    score: Floats, languages: Languages, table: Annotations, budget: float, *,
    alpha: float, temperature: float, seed: int,
) -> Copies:  # fmt: skip
    """Sample documents of every language, the next with probability ∝ exp(z / τ) among those left (QuRating).

    z: minus the score's distance from the mean of its language, in standard deviations. temperature: τ > 0.
    """
    logits = np.full(len(score), np.nan)
    for code in range(len(languages.names)):
        rows = np.flatnonzero(languages.code == code)
        logits[rows] = standardise(-score[rows])
    keyed = gumbel_keys(logits, table.keys, temperature=temperature, seed=seed)
    return top_language_copies(-keyed, languages, table, budget, alpha=alpha, seed=seed, needs="a score")


def quantile_copies(
    score: Floats, languages: Languages, table: Annotations, budget: float, *, seed: int
) -> Copies:
    """Take the documents above the quantile of their language, the same quantile in all (FineWeb2-HQ).

    The i-th best of a language's n documents with a score (i from 0) is at or above the (1 - q) quantile for
    q >= i / (n - 1); documents enter in this order, which finds the q that meets the budget. Equal scores of
    a language are ordered by a hash of the document, or many equal ones would all enter at once.
    """
    order = best_first(score, table, seed=seed)
    order = order[~table.held_out[order]]
    order = order[np.argsort(languages.code[order], kind="stable")]
    count = np.bincount(languages.code[order], minlength=len(languages.names))
    place = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    enters = np.full(len(table), np.nan)
    enters[order] = place / np.maximum(np.repeat(count, count) - 1, 1)
    return fill_quota(best_first(enters, table, seed=seed), table, budget, seed=seed, needs="a score")
