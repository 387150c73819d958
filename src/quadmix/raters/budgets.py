"""How many tokens each language gives, and which documents: selectors per language (MuRating).

In: tokens per language and a total; then scores (larger = better), tokens, languages and ids of documents.
Out: `Budgets`, then a `Choice`. Languages are never compared with each other here, so offsets between their
scores do not matter. Draws and ties are hashes of the document's id: neither order nor workers change them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import BudgetError, RecipeError, ScoreError
from quadmix.mixing.sampling import gumbel_keys, standardise
from quadmix.rng import doc_keys, keyed_uniform
from quadmix.types import Floats, Ints

Rule = Literal["proportional", "uniform", "explicit"]
Overflow = Literal["redistribute", "report"]
_NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageBudget:
    """pool: tokens that the language has. wanted: what the rule asks for. granted: at most `pool`."""

    language: str
    pool: int
    wanted: float
    granted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Budgets of all languages of the pool, by name. total: tokens asked for, over all of them."""

    rule: Rule
    overflow: Overflow
    total: float
    languages: tuple[LanguageBudget, ...]

    @property
    def shortfall(self) -> float:
        """Tokens that no language gives; 0 where they were redistributed."""
        return max(0.0, self.total - sum(b.granted for b in self.languages))

    @property
    def tokens(self) -> dict[str, float]:
        """Return language -> tokens to take."""
        return {b.language: b.granted for b in self.languages}


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageChoice:
    """What was taken of one language. unscored: documents without a score, which are never taken.

    budget: tokens asked for, NaN where the rule is a threshold. threshold: the least score taken (with a
    temperature some better ones are not taken), NaN where nothing was.
    """

    language: str
    pool_documents: int
    pool_tokens: int
    unscored: int
    documents: int
    tokens: int
    budget: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """taken: (D,) bool. languages: by name."""

    taken: NDArray[np.bool_]
    languages: tuple[LanguageChoice, ...]


def pool_by_language(
    tokens: NDArray[np.integer], language: Sequence[str], scores: Floats | None = None
) -> dict[str, int]:
    """Return language -> tokens; with `scores`, of documents that have one (the others cannot be taken)."""
    names, code = np.unique(np.asarray(language, dtype=np.str_), return_inverse=True)
    usable = np.ones(len(tokens), np.bool_) if scores is None else ~np.isnan(scores)
    total = np.zeros(len(names), np.int64)
    np.add.at(total, code, np.where(usable, tokens, 0))  # whole numbers: exact above 2^53 too
    return dict(zip(names.tolist(), total.tolist(), strict=True))


def language_budgets(
    pool: Mapping[str, int],
    total: float,
    *,
    rule: Rule = "proportional",
    alpha: float = 1.0,
    explicit: Mapping[str, float] | None = None,
    overflow: Overflow = "redistribute",
) -> Budgets:
    """Share `total` tokens out to the languages of `pool` (language -> tokens; MuRating, section 7).

    rule: proportional to tokens ** alpha (1 keeps the pool's shares, 0 is uniform); uniform; explicit: in
    proportion to `explicit`, 0 for a language that it does not name. overflow: a language that has less than
    its part gives all it has; the rest goes to the others by the same rule, or is reported as `shortfall`.
    Raises BudgetError where the languages with a part have fewer tokens than `total` together and nothing
    may be short, RecipeError for a language that the pool lacks or weights that are none.
    """
    if not 0 < total < float("inf"):
        raise BudgetError(f"the budget is {total} tokens, expected a number above 0")
    names = sorted(pool)
    room = np.array([pool[n] for n in names], np.float64)
    weights = _weights(names, room, rule, alpha, explicit)
    if not weights.sum() > 0:
        raise BudgetError("no language of the pool gets a part of the budget; name one that has tokens")
    wanted = total * (weights / weights.sum())
    if overflow == "report":
        granted = np.minimum(wanted, room)
    else:
        available = float(room[weights > 0].sum())
        if total > available * (1 + 1e-12):
            raise BudgetError(
                f"a budget of {total:,.0f} tokens needs that many in the languages that take part; they have "
                f"{available:,.0f}. Lower the budget, add languages, or let the shortfall be reported"
            )
        granted = _fill(weights, room, total)
    rows = zip(names, room.tolist(), wanted.tolist(), granted.tolist(), strict=True)
    return Budgets(
        rule=rule, overflow=overflow, total=total,
        languages=tuple(
            LanguageBudget(language=n, pool=int(r), wanted=w, granted=g) for n, r, w, g in rows
        ),
    )  # fmt: skip


def top_per_language(
    scores: Floats,
    tokens: NDArray[np.integer],
    language: Sequence[str],
    ids: Sequence[str] | NDArray[np.uint64],
    budgets: Mapping[str, float],
    *,
    temperature: float = 0.0,
    seed: int = 0,
) -> Choice:
    """Take the best documents of every language until their tokens reach its budget (MuRating, section 7).

    The document that crosses a budget is taken. temperature: 0 takes the best (equal scores in the order of a
    hash of the id, whatever the seed); above it documents are drawn without replacement by the score
    standardised within the language / τ (QuRating: 1 or 2).
    scores: (D,), larger = better, NaN = never taken. tokens: (D,) > 0. ids: (D,), or their `doc_keys`.
    Raises BudgetError for a language without a budget, or with one above the tokens of its scored documents.
    """
    keys = document_hashes(scores, tokens, language, ids)
    check_temperature(temperature)
    taken = np.zeros(len(scores), np.bool_)
    found: list[LanguageChoice] = []
    for name, rows in language_rows(language).items():
        if name not in budgets:
            raise BudgetError(
                f"language {name!r} has {len(rows)} documents and no budget; give it one (0 leaves it out)"
            )
        order = rows[ranked(scores[rows], keys[rows], temperature=temperature, seed=seed)]
        taken[take_until(order, tokens, budgets[name], f"language {name!r}")] = True
        found.append(language_choice(name, rows, taken, scores, tokens, budgets[name]))
    return Choice(taken=taken, languages=tuple(found))


def ranked(scores: Floats, keys: NDArray[np.uint64], *, temperature: float, seed: int) -> Ints:
    """Return the places of the documents that have a score, in the order in which they are taken.

    scores, keys: (D,); the rest as in `top_per_language`.
    """
    if temperature > 0:
        scores = gumbel_keys(standardise(scores), keys, temperature=temperature, seed=seed)
    order = np.lexsort((keyed_uniform(0, keys, "ties"), -scores))  # NaN is sorted last
    return order[~np.isnan(scores[order])]


def check_temperature(temperature: float) -> None:
    """Raise RecipeError for a temperature that is none."""
    if not 0 <= temperature < float("inf"):
        raise RecipeError(f"temperature is {temperature}, expected a number >= 0")


def take_until(order: Ints, tokens: NDArray[np.integer], budget: float, whose: str) -> Ints:
    """Return the first rows of `order` whose tokens reach the budget, the crossing document included.

    Raises BudgetError, which names `whose` documents they are, where all of them do not reach it.
    """
    if not 0 <= budget < float("inf"):
        raise BudgetError(f"the budget of {whose} is {budget}, expected a number of tokens >= 0")
    end = np.cumsum(tokens[order], dtype=np.int64)
    available = int(end[-1]) if len(end) else 0
    if budget > available * (1 + 1e-12):
        raise BudgetError(
            f"the budget of {whose} is {budget:,.0f} tokens; its documents with a score have {available:,}. "
            "Lower it, or score more documents"
        )
    return order[end - tokens[order] < min(budget, available)]


def threshold_per_language(
    scores: Floats,
    tokens: NDArray[np.integer],
    language: Sequence[str],
    ids: Sequence[str] | NDArray[np.uint64],
    *,
    keep: float = 0.1,
    sample: int = 1_000_000,
    seed: int = 0,
) -> Choice:
    """Keep the documents at or above a language's threshold, the (1 - keep) quantile of a sample of it.

    As FineWeb2-HQ does (epfml/fineweb2-hq): by documents, not tokens; equal scores at the threshold are all
    kept. The sample of a language is its `sample` scored documents with the least hashes of (seed, id).
    Parameters as in `top_per_language`.
    """
    keys = document_hashes(scores, tokens, language, ids)
    if not 0 < keep < 1 or sample < 1:
        raise RecipeError(f"keep is {keep} and sample {sample}, expected 0 < keep < 1 and sample >= 1")
    place = keyed_uniform(seed, keys, "threshold")
    taken = np.zeros(len(scores), np.bool_)
    found: list[LanguageChoice] = []
    for name, rows in language_rows(language).items():
        known = rows[~np.isnan(scores[rows])]
        if len(known):
            drawn = known[np.argsort(place[known], kind="stable")[:sample]]
            taken[known] = scores[known] >= np.quantile(scores[drawn], 1 - keep)
        found.append(language_choice(name, rows, taken, scores, tokens, _NAN))
    return Choice(taken=taken, languages=tuple(found))


def language_rows(language: Sequence[str]) -> dict[str, Ints]:
    """Return language -> its rows, ascending, the languages by name."""
    names, code = np.unique(np.asarray(language, dtype=np.str_), return_inverse=True)
    order = np.argsort(code, kind="stable")
    cuts = np.searchsorted(code[order], np.arange(1, len(names)))
    return dict(zip(names.tolist(), np.split(order, cuts), strict=True)) if len(names) else {}


def _weights(
    names: list[str], room: Floats, rule: Rule, alpha: float, explicit: Mapping[str, float] | None
) -> Floats:
    if (rule == "explicit") != (explicit is not None):
        raise RecipeError(f"token budgets by language: rule is {rule!r}; `explicit` goes with rule explicit")
    if explicit is not None:
        if lacking := sorted(set(explicit) - set(names)):
            raise RecipeError(
                f"a budget names the language {lacking[0]!r}, which the pool does not have; it has "
                f"{', '.join(names)}"
            )
        if bad := [n for n in sorted(explicit) if not 0 <= explicit[n] < float("inf")]:
            raise RecipeError(f"the budget of language {bad[0]!r} is {explicit[bad[0]]}, expected >= 0")
        return np.array([explicit.get(n, 0.0) for n in names], np.float64)
    if not 0 <= alpha < float("inf"):
        raise RecipeError(f"alpha of the budgets by language is {alpha}, expected a number >= 0")
    share = room / max(float(room.max(initial=0.0)), 1.0)  # powers of large numbers would overflow
    return np.where(room > 0, share ** (0.0 if rule == "uniform" else alpha), 0.0)


def _fill(weights: Floats, room: Floats, total: float) -> Floats:
    """Return min(k · weights, room) with the k that makes them add up to `total`."""
    granted, unfilled = np.zeros(len(room)), weights > 0
    while unfilled.any():
        left = total - granted[~unfilled].sum()
        part = left * weights / weights[unfilled].sum()
        full = unfilled & (part >= room)
        if not full.any():
            granted[unfilled] = part[unfilled]
            break
        granted[full] = room[full]
        unfilled &= ~full
    return granted


def language_choice(
    name: str,
    rows: Ints,
    taken: NDArray[np.bool_],
    scores: Floats,
    tokens: NDArray[np.integer],
    budget: float,
) -> LanguageChoice:
    """Return what was taken of one language. rows: its documents. taken, scores, tokens: (D,) of all."""
    mine = rows[taken[rows]]
    return LanguageChoice(
        language=name, pool_documents=len(rows), pool_tokens=int(tokens[rows].sum(dtype=np.int64)),
        unscored=int(np.isnan(scores[rows]).sum()), documents=len(mine),
        tokens=int(tokens[mine].sum(dtype=np.int64)), budget=budget,
        threshold=float(scores[mine].min()) if len(mine) else _NAN,
    )  # fmt: skip


def document_hashes(
    scores: Floats,
    tokens: NDArray[np.integer],
    language: Sequence[str],
    ids: Sequence[str] | NDArray[np.uint64],
) -> NDArray[np.uint64]:
    """Return the documents' hashes; ScoreError where a column is short or holds what it must not."""
    for what, column in (("tokens", tokens), ("language", language), ("ids", ids)):
        if len(column) != len(scores):
            raise ScoreError(f"{what} has {len(column)} rows, expected {len(scores)} as there are scores")
    if np.isinf(scores).any():
        row = int(np.isinf(scores).argmax())
        raise ScoreError(f"the score of row {row} is {scores[row]}, expected a number, or NaN for none")
    if len(tokens) and tokens.min() <= 0:
        row = int(tokens.argmin())
        raise ScoreError(f"row {row} has {tokens[row]} tokens, expected more than 0")
    return ids if isinstance(ids, np.ndarray) and ids.dtype == np.uint64 else doc_keys(ids)  # pyright: ignore[reportArgumentType]
