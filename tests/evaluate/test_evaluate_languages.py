"""Selectors per language: parts of the budget, cuts, sampling and quantiles against slow versions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selector_pools import make_pool, make_table, taken

from quadmix.errors import BudgetError
from quadmix.evaluate.languages import Languages, language_parts
from quadmix.evaluate.selectors import Pool, choose
from quadmix.rng import keyed_uniform


def in_language(pool: Pool, name: str) -> np.ndarray:
    assert pool.languages is not None
    return pool.languages.code == pool.languages.names.index(name)


@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.97])
def test_parts_follow_the_power_of_the_tokens_and_no_language_gives_more_than_it_has(
    alpha: float, share: float
) -> None:
    """Against the root of Σ min(k · T ** alpha, T) = budget, found by bisection."""
    table = make_table(1)
    table = replace(table, held_out=np.random.default_rng(1).random(len(table)) < 0.2)
    code = np.minimum(np.random.default_rng(2).geometric(0.6, len(table)) - 1, 4).astype(np.int32)
    languages = Languages(code=code, names=("", "aa", "bb", "cc", "dd", "nobody"))
    tokens = [sum(t for t, c, h in zip(table.tokens.tolist(), code, table.held_out, strict=True)
                  if c == number and not h) for number in range(6)]  # fmt: skip
    budget = share * sum(tokens)
    low, high = 0.0, 1e12
    for _ in range(300):
        k = (low + high) / 2
        given_out = [min(k * t**alpha, t) if t else 0.0 for t in tokens]
        low, high = (k, high) if sum(given_out) < budget else (low, k)
    parts = language_parts(languages, table, budget, alpha)
    np.testing.assert_allclose(parts, given_out, rtol=1e-6)
    assert parts.sum() == pytest.approx(budget)
    assert (parts <= tokens).all()


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.05, 0.9))
def test_the_best_of_every_language_are_taken_up_to_its_part(seed: int, share: float) -> None:
    pool = make_pool(make_table(seed, documents=200, decimals=1))
    table = pool.table
    copies = choose("top-language:b", pool, share * float(table.tokens.sum()), draw=seed).copies
    for name in ("", "de", "en"):
        rows = np.flatnonzero(in_language(pool, name)).tolist()
        part = share * sum(int(table.tokens[r]) for r in rows)
        ties = dict(zip(rows, keyed_uniform(seed, table.keys[rows], "ties").tolist(), strict=True))
        spent = 0
        for row in sorted(rows, key=lambda r: (pool.normalised[r, 1], ties[r])):
            before, spent = spent, spent + int(table.tokens[row])
            if spent <= part - 1e-6:
                assert copies[row] == 1
            if before >= part:
                assert copies[row] == 0


def test_where_languages_are_the_domains_the_cut_is_the_cut_per_domain() -> None:
    pool = make_pool(make_table(3, missing=0.1))
    languages = Languages(code=pool.table.domain.astype(np.int32), names=pool.table.domains)
    budget = 0.2 * float(pool.table.tokens.sum())
    both = [choose(label, replace(pool, languages=languages), budget, draw=4).copies
            for label in ("top-language:a", "top-domain:a")]  # fmt: skip
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize(("label", "plain"), [
    ("top-language:a", "top:a"), ("fineweb2-hq", "top:a"), ("qurating-language", "qurating"),
])  # fmt: skip
def test_with_a_single_language_nothing_is_per_language(label: str, plain: str) -> None:
    pool = make_pool(make_table(5, criteria="a", decimals=1))
    one = replace(pool, languages=Languages(code=np.zeros(len(pool.table), np.int32), names=("en",)))
    budget = 0.2 * float(pool.table.tokens.sum())
    two = [choose(name, one, budget, draw=2).copies for name in (label, plain)]
    assert (two[0] != two[1]).sum() <= 1  # the document that crosses the budget may go either way


def test_alpha_moves_the_budget_between_languages_and_not_its_sum() -> None:
    pool = make_pool(make_table(6, documents=3000))
    code = np.where(np.arange(3000) < 2700, 2, 1).astype(np.int32)
    pool = replace(pool, languages=Languages(code=code, names=("", "de", "en")))
    budget = 0.05 * float(pool.table.tokens.sum())
    longest = int(pool.table.tokens.max())
    for label in ("top-language:a", "qurating-language"):
        copies = choose(label, replace(pool, language_alpha=0.0), budget, draw=1).copies
        assert abs(taken(pool, copies) - budget) <= longest
        assert abs(taken(pool, copies * (code == 1)) - budget / 2) <= longest


def test_qurating_per_language_without_noise_is_the_cut_per_language() -> None:
    pool = replace(make_pool(make_table(3, criteria="a")), temperature=1e-9)
    budget = 0.2 * float(pool.table.tokens.sum())
    cold = choose("qurating-language", pool, budget, draw=2).copies
    np.testing.assert_array_equal(cold, choose("top-language:a", pool, budget, draw=2).copies)


def test_qurating_samples_by_the_score_standardised_within_the_language() -> None:
    """One document of each language is drawn: row i with probability softmax(z_i / τ) of its language."""
    table = make_table(0, documents=8, criteria="a")
    scores = np.array([[0.0], [1.0], [2.0], [9.0], [-50.0], [-51.0], [-53.0], [-50.5]], np.float32)
    table = replace(table, tokens=np.ones(8, np.int32), scores=scores)
    code = np.repeat([0, 1], 4).astype(np.int32)
    pool = replace(make_pool(table), normalised=scores, temperature=1.5,
                   languages=Languages(code=code, names=("aa", "bb")))  # fmt: skip
    draws = [choose("qurating-language", pool, 2.0, draw=d).copies for d in range(2500)]
    assert {int(d[:4].sum()) for d in draws} == {1}
    for rows in (slice(0, 4), slice(4, 8)):
        good = -scores[rows, 0].astype(np.float64)
        z = (good - good.mean()) / good.std()
        expected = np.exp(z / 1.5) / np.exp(z / 1.5).sum()
        np.testing.assert_allclose(np.mean(draws, axis=0)[rows], expected, atol=0.03)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.02, 0.9))
def test_fineweb2_hq_keeps_the_documents_above_one_quantile_of_every_language(
    seed: int, share: float
) -> None:
    """Against thresholds by np.quantile for a bisected quantile: the largest set within the budget is taken,
    and nothing beyond the next larger one."""
    pool = make_pool(make_table(seed, documents=90, missing=0.2))
    table = pool.table
    good = np.array([-np.mean([v for v in row.tolist() if v == v]) for row in pool.normalised])
    copies = choose("fineweb2-hq", pool, share * float(table.tokens.sum()), draw=seed).copies

    def above(q: float) -> set[int]:
        found: set[int] = set()
        for name in ("", "de", "en"):
            rows = np.flatnonzero(in_language(pool, name))
            found |= set(rows[good[rows] >= np.quantile(good[rows], 1 - q) - 1e-12].tolist())
        return found

    low, high = -1e-9, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        fits = middle > 0 and sum(int(table.tokens[r]) for r in above(middle)) <= share * table.tokens.sum()
        low, high = (middle, high) if fits else (low, middle)
    chosen = set(np.flatnonzero(copies).tolist())
    assert (above(low) if low > 0 else set()) <= chosen <= above(high + 1e-9)


def test_the_quantile_of_few_documents_is_that_of_numpy() -> None:
    """aa has two documents, bb eleven; q = 0.7 keeps one and eight: between two scores the threshold rises
    from one to the other, so the worse of two stays out until q = 1."""
    table = make_table(0, documents=13, criteria="a")
    good = np.array([5.0, 1.0, *range(11, 0, -1)])
    pool = replace(
        make_pool(replace(table, tokens=np.ones(13, np.int32))), normalised=-good[:, None].astype(np.float32),
        languages=Languages(code=np.array([0, 0, *[1] * 11], np.int32), names=("aa", "bb")),
    )  # fmt: skip
    kept = good >= np.where(np.arange(13) < 2, np.quantile(good[:2], 0.3), np.quantile(good[2:], 0.3))
    assert kept.sum() == 9
    np.testing.assert_array_equal(choose("fineweb2-hq", pool, 9.0, draw=0).copies, kept)


def test_the_share_of_documents_is_that_of_every_language_even_with_equal_scores() -> None:
    table = make_table(1, documents=3000, criteria="a", decimals=0)
    pool = make_pool(replace(table, tokens=np.full(3000, 10, np.int32)))
    copies = choose("fineweb2-hq", pool, 0.1 * 30_000, draw=1).copies
    for name in ("", "de", "en"):
        rows = in_language(pool, name)
        assert copies[rows].sum() == pytest.approx(0.1 * rows.sum(), abs=1.5)


def test_a_criterion_that_a_language_lacks_leaves_the_selector_out_by_name() -> None:
    """An English rater has no score elsewhere; whole languages are not dropped in silence."""
    table = make_table(7)
    gone = make_pool(table).languages
    assert gone is not None
    scores = table.scores.copy()
    scores[gone.code == 1, 1] = np.nan
    pool = make_pool(replace(table, scores=scores))
    budget = 0.1 * float(table.tokens.sum())
    with pytest.raises(BudgetError, match=r"'top-language:b'.* in language 'de' .*score of 'b'; there are 0"):
        choose("top-language:b", pool, budget, draw=1)
    copies = choose("fineweb2-hq", pool, budget, draw=1).copies  # by the scores that are there
    assert copies[gone.code == 1].sum() > 0
    scores[gone.code == 0] = np.nan
    with pytest.raises(BudgetError, match="in the group of documents without a language"):
        choose("qurating-language", make_pool(replace(table, scores=scores)), budget, draw=1)
