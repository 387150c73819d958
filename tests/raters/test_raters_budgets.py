"""Token budgets per language, and the selectors that meet them, against slow and obvious versions."""

import math

import numpy as np
import pytest

from quadmix.errors import BudgetError, RecipeError, ScoreError
from quadmix.raters.budgets import (
    language_budgets,
    pool_by_language,
    take_until,
    threshold_per_language,
    top_per_language,
)
from quadmix.rng import doc_keys

POOL = {"en": 9000, "de": 800, "sw": 100, "th": 100}


def documents(seed: int = 0, count: int = 600):
    rng = np.random.default_rng(seed)
    language = rng.choice(["de", "en", "sw"], count, p=[0.3, 0.6, 0.1])
    scores = np.round(rng.normal(size=count), 1)  # many ties
    scores[rng.random(count) < 0.05] = np.nan
    tokens = (rng.lognormal(4, 1, count) + 1).astype(np.int32)
    return scores, tokens, language.tolist(), [f"d{i}" for i in range(count)]


@pytest.mark.parametrize("alpha", [1.0, 0.7, 0.3])
def test_proportional_budgets_follow_the_power_of_the_pool(alpha: float) -> None:
    found = language_budgets(POOL, 100, alpha=alpha)
    total = sum(math.pow(t, alpha) for t in POOL.values())
    assert found.tokens == pytest.approx({n: 100 * math.pow(t, alpha) / total for n, t in POOL.items()})
    assert found.shortfall == 0
    assert [b.language for b in found.languages] == ["de", "en", "sw", "th"]


def test_a_language_that_has_too_little_gives_all_and_the_rest_goes_to_the_others() -> None:
    """Against the root of Σ min(k w, pool) = budget, found by bisection."""
    for alpha, total in ((0.3, 3000), (0.3, 9500), (0.0, 900), (1.0, 10_000)):
        found = language_budgets(POOL, total, alpha=alpha)
        low, high = 0.0, 1e9
        for _ in range(200):
            k = (low + high) / 2
            given = {n: min(k * t**alpha, t) for n, t in POOL.items()}
            low, high = (k, high) if sum(given.values()) < total else (low, k)
        assert found.tokens == pytest.approx(given, rel=1e-9)
        assert sum(found.tokens.values()) == pytest.approx(total)


def test_what_lacks_is_reported_instead_where_asked() -> None:
    found = language_budgets(POOL, 1000, rule="uniform", overflow="report")
    assert found.tokens == {"de": 250, "en": 250, "sw": 100, "th": 100}
    assert found.shortfall == 300
    assert [b.wanted for b in found.languages] == [250] * 4


def test_explicit_budgets_are_kept_in_proportion_and_refuse_strangers() -> None:
    found = language_budgets(POOL, 1000, rule="explicit", explicit={"en": 600, "sw": 400})
    assert found.tokens == pytest.approx({"de": 0, "en": 900, "sw": 100, "th": 0})
    with pytest.raises(RecipeError, match=r"names the language 'xx', which the pool does not have"):
        language_budgets(POOL, 10, rule="explicit", explicit={"xx": 10})
    with pytest.raises(RecipeError, match=r"budget of language 'de' is -1"):
        language_budgets(POOL, 10, rule="explicit", explicit={"de": -1})
    with pytest.raises(RecipeError, match="`explicit` goes with rule explicit"):
        language_budgets(POOL, 10, explicit={"en": 1})


def test_budgets_that_cannot_be_met_are_refused() -> None:
    with pytest.raises(BudgetError, match="they have 10,000"):
        language_budgets(POOL, 10_001)
    with pytest.raises(BudgetError, match="they have 200"):
        language_budgets(POOL, 201, rule="explicit", explicit={"sw": 1, "th": 1})
    for total in (0, math.nan, math.inf):
        with pytest.raises(BudgetError, match="expected a number above 0"):
            language_budgets(POOL, total)
    with pytest.raises(BudgetError, match="no language of the pool gets a part"):
        language_budgets({"en": 0}, 5, overflow="report")
    assert language_budgets({**POOL, "zz": 0}, 40, rule="uniform").tokens["zz"] == 0


def test_the_pool_counts_tokens_of_documents_with_a_score() -> None:
    scores, tokens = np.array([1.0, np.nan, 2.0]), np.array([5, 7, 2**31 - 1], np.int32)
    assert pool_by_language(tokens, ["b", "a", "b"], scores) == {"a": 0, "b": 2**31 + 4}
    assert pool_by_language(tokens, ["b", "a", "b"]) == {"a": 7, "b": 2**31 + 4}


def slow_top(scores, tokens, language, ids, budgets) -> set[str]:
    """One document after the other, best first."""
    from quadmix.rng import keyed_uniform

    held: set[str] = set()
    for name, budget in budgets.items():
        rows = [i for i in range(len(ids)) if language[i] == name and not np.isnan(scores[i])]
        rows.sort(key=lambda i: (-scores[i], float(keyed_uniform(0, [ids[i]], "ties")[0])))
        spent = 0
        for i in rows:
            if spent >= budget:
                break
            held.add(ids[i])
            spent += int(tokens[i])
    return held


def test_the_best_documents_are_taken_until_the_budget_is_reached() -> None:
    """Acceptance test 8: tokens per language within one document of the budget."""
    scores, tokens, language, ids = documents()
    pool = pool_by_language(tokens, language, scores)
    budgets = language_budgets(pool, 0.1 * sum(pool.values())).tokens
    chosen = top_per_language(scores, tokens, language, ids, budgets)
    assert {ids[i] for i in np.flatnonzero(chosen.taken)} == slow_top(scores, tokens, language, ids, budgets)
    for one in chosen.languages:
        mine = [i for i in np.flatnonzero(chosen.taken) if language[i] == one.language]
        assert one.documents == len(mine)
        assert one.tokens == sum(int(tokens[i]) for i in mine)
        assert 0 <= one.tokens - budgets[one.language] < max(tokens[i] for i in mine)
        assert one.threshold == min(scores[i] for i in mine)
        assert one.unscored == sum(
            math.isnan(scores[i]) for i in range(len(ids)) if language[i] == one.language
        )
    everything = top_per_language(scores, tokens, language, ids, pool)
    assert np.array_equal(everything.taken, ~np.isnan(scores))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_neither_order_nor_workers_change_a_selection(temperature: float) -> None:
    """Acceptance test 8: documents in another order, and each language by a worker of its own."""
    scores, tokens, language, ids = documents(1)
    budgets = dict.fromkeys(("de", "en", "sw"), 500.0)

    def chosen(rows: np.ndarray, seed: int = 5) -> set[str]:
        names, codes = [ids[i] for i in rows], [language[i] for i in rows]
        found = top_per_language(
            scores[rows], tokens[rows], codes, names, budgets, temperature=temperature, seed=seed
        )
        return {names[i] for i in np.flatnonzero(found.taken)}

    all_at_once = chosen(np.arange(len(ids)))
    shuffled = np.random.default_rng(2).permutation(len(ids))
    assert chosen(shuffled) == all_at_once
    apart = [chosen(np.array([i for i in shuffled if language[i] == n])) for n in budgets]
    assert set.union(*apart) == all_at_once
    assert (chosen(np.arange(len(ids)), seed=6) == all_at_once) == (temperature == 0)
    keyed = top_per_language(
        scores, tokens, language, doc_keys(ids), budgets, temperature=temperature, seed=5
    )
    assert {ids[i] for i in np.flatnonzero(keyed.taken)} == all_at_once


def test_with_a_temperature_the_first_document_follows_the_softmax_of_the_standardised_score() -> None:
    scores = np.array([3.0, 1.0, 0.0, -2.0, 50.0])
    language, ids = ["a", "a", "a", "a", "b"], ["p", "q", "r", "s", "t"]
    budgets = {"a": 1.0, "b": 0.0}
    draws = [
        top_per_language(scores, np.ones(5, np.int32), language, ids, budgets, temperature=2.0, seed=s).taken
        for s in range(3000)
    ]
    z = (scores[:4] - 0.5) / np.sqrt(np.mean((scores[:4] - 0.5) ** 2)) / 2.0
    expected = np.exp(z) / np.exp(z).sum()
    np.testing.assert_allclose(np.mean(draws, axis=0)[:4], expected, atol=0.03)
    assert not np.any([d[4] for d in draws])


def test_selections_refuse_what_would_be_lost_in_silence() -> None:
    scores, tokens = np.array([1.0, 2.0, np.nan]), np.array([10, 10, 10], np.int32)
    with pytest.raises(BudgetError, match="language 'b' has 2 documents and no budget"):
        top_per_language(scores, tokens, ["a", "b", "b"], ["x", "y", "z"], {"a": 5})
    with pytest.raises(BudgetError, match=r"budget of language 'b' is 11 tokens; its documents .* have 10"):
        top_per_language(scores, tokens, ["a", "b", "b"], ["x", "y", "z"], {"a": 5, "b": 11})
    with pytest.raises(BudgetError, match="expected a number of tokens >= 0"):
        take_until(np.array([0]), tokens, math.nan, "language 'a'")
    with pytest.raises(ScoreError, match="the score of row 1 is inf"):
        top_per_language(np.array([0.0, np.inf]), tokens[:2], ["a", "a"], ["x", "y"], {"a": 5})
    with pytest.raises(ScoreError, match="ids has 1 rows, expected 3"):
        top_per_language(scores, tokens, ["a", "b", "b"], ["x"], {})
    with pytest.raises(ScoreError, match="row 1 has 0 tokens"):
        top_per_language(scores, np.array([1, 0, 1]), ["a", "b", "b"], ["x", "y", "z"], {})
    with pytest.raises(RecipeError, match="temperature is -1"):
        top_per_language(scores, tokens, ["a", "b", "b"], ["x", "y", "z"], {}, temperature=-1)


def test_a_threshold_keeps_the_same_share_of_documents_of_every_language() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=3000) + np.repeat([0.0, 10.0, -5.0], 1000)
    language = np.repeat(["a", "b", "c"], 1000).tolist()
    ids = [f"d{i}" for i in range(3000)]
    scores[7] = np.nan
    tokens = np.full(3000, 3, np.int32)
    found = threshold_per_language(scores, tokens, language, ids)
    assert [one.documents for one in found.languages] == [100, 100, 100]
    for name, one in zip("abc", found.languages, strict=True):
        ranked = sorted(s for s, n in zip(scores, language, strict=True) if n == name and not np.isnan(s))
        assert one.threshold == ranked[-100]
        assert one.tokens == 300
        assert math.isnan(one.budget)
    few = threshold_per_language(scores, tokens, language, ids, sample=200, seed=1)
    assert all(
        40 <= one.documents <= 180 for one in few.languages
    )  # 100 plus or minus 4 errors of the sample
    assert not np.array_equal(few.taken, found.taken)
    order = rng.permutation(3000)
    again = threshold_per_language(
        scores[order], tokens, [language[i] for i in order], [ids[i] for i in order], sample=200, seed=1
    )
    assert np.array_equal(again.taken, few.taken[order])
    with pytest.raises(RecipeError, match=r"keep is 1\.5"):
        threshold_per_language(scores, tokens, language, ids, keep=1.5)
