"""Each selector against a slow, obvious version of itself, and against what its method promises."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selector_pools import make_pool, make_table, taken

from quadmix.errors import BudgetError
from quadmix.evaluate.cuts import top_copies, union_copies
from quadmix.evaluate.sampling import gumbel_copies, mean_score
from quadmix.evaluate.selectors import choose
from quadmix.evaluate.upsampling import CAP, DROPPED, solve_curve
from quadmix.mixing.sampling import standardise
from quadmix.rng import keyed_uniform


def best_tokens(pool, criterion: int, k: float, seed: int) -> set[int]:
    """The documents that lie whole within the best k tokens of one criterion."""
    ties = keyed_uniform(seed, pool.table.keys, "ties")
    rows = [r for r in range(len(pool.table)) if not np.isnan(pool.normalised[r, criterion])]
    held, total = set[int](), 0
    for row in sorted(rows, key=lambda r: (pool.normalised[r, criterion], ties[r])):
        total += int(pool.table.tokens[row])
        if total > k:
            break
        held.add(row)
    return held


def union_for(pool, budget: float, seed: int) -> tuple[set[int], set[int]]:
    """Bisect k: the largest union within the budget, and the next larger one."""
    low, high = 0, int(pool.table.tokens.sum())

    def union(k: int) -> set[int]:
        return set[int]().union(*(best_tokens(pool, n, k, seed) for n in range(pool.normalised.shape[1])))

    while high - low > 1:
        middle = (low + high) // 2
        fits = sum(int(pool.table.tokens[r]) for r in union(middle)) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return union(low), union(high)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(0.05, 0.8), st.sampled_from([0.0, 0.3]))
def test_criteria_mix_is_the_union_of_the_best_k_tokens(seed: int, share: float, missing: float) -> None:
    pool = make_pool(make_table(seed, documents=60, missing=missing, decimals=1))
    budget = share * float(pool.table.tokens.sum())
    copies = union_copies(pool.table, pool.normalised, budget, seed=seed)
    inner, outer = union_for(pool, budget, seed)
    chosen = set(np.flatnonzero(copies).tolist())
    assert copies.max() == 1  # a document in two of the sets counts once
    assert inner <= chosen <= outer


def test_criteria_mix_takes_more_per_criterion_where_the_sets_overlap() -> None:
    table = make_table(1, criteria="ab")
    same = replace(table, scores=np.repeat(table.scores[:, :1], 2, axis=1))
    budget = 0.2 * float(table.tokens.sum())
    pool = make_pool(same)
    top = top_copies(same, pool.normalised, 0, budget, seed=3)
    np.testing.assert_array_equal(union_copies(same, pool.normalised, budget, seed=3), top)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.05, 0.9))
def test_the_cut_per_domain_keeps_shares_and_takes_the_best(seed: int, share: float) -> None:
    table = make_table(seed, documents=200, decimals=1)
    pool = make_pool(table)
    copies = choose("top-domain:b", pool, share * float(table.tokens.sum()), draw=seed).copies
    for m in range(len(table.domains)):
        rows = table.domain == m
        part = share * table.tokens[rows].sum(dtype=np.float64)
        order = np.lexsort((keyed_uniform(seed, table.keys[rows], "ties"), pool.normalised[rows, 1]))
        end = np.cumsum(table.tokens[rows][order], dtype=np.float64)
        mine = copies[rows][order]
        assert (mine[end <= part - 1e-6] == 1).all()
        assert (mine[end - table.tokens[rows][order] >= part] == 0).all()


def test_the_global_cut_is_the_best_mean_score() -> None:
    pool = make_pool(make_table(2, missing=0.3))
    copies = choose("global-cut", pool, 0.3 * float(pool.table.tokens.sum()), draw=1).copies
    mean = np.array([np.mean([float(v) for v in row if not np.isnan(v)]) for row in pool.normalised])
    np.testing.assert_allclose(mean_score(pool.normalised), mean, rtol=1e-12)
    assert mean[copies > 0].max() <= np.sort(mean[copies == 0])[1]  # the one at the cut may go either way


def test_qurating_without_noise_is_the_top_cut() -> None:
    pool = replace(make_pool(make_table(3, criteria="a")), temperature=1e-9)
    budget = 0.2 * float(pool.table.tokens.sum())
    np.testing.assert_array_equal(
        choose("qurating", pool, budget, draw=2).copies, choose("top:a", pool, budget, draw=2).copies
    )


def test_qurating_prefers_better_scores_the_more_the_colder_and_is_random_when_hot() -> None:
    pool = make_pool(make_table(3, documents=4000, criteria="a"))
    budget = 0.2 * float(pool.table.tokens.sum())

    def rank(temperature: float) -> float:
        copies = choose("qurating", replace(pool, temperature=temperature), budget, draw=2).copies
        return float(pool.normalised[copies > 0, 0].mean())

    cold, published, warm, hot = rank(1e-3), rank(2.0), rank(8.0), rank(1e9)
    assert cold < published < warm < hot
    assert cold == pytest.approx(0.1, abs=0.02)  # the best fifth
    assert hot == pytest.approx(0.5, abs=0.03)


def test_gumbel_sampling_follows_the_softmax() -> None:
    """One document's budget: the first drawn is document i with probability softmax(logits / τ)_i."""
    table = make_table(0, documents=4)
    table = replace(table, tokens=np.ones(4, dtype=np.int32))
    logits = np.array([0.0, 1.0, 2.0, np.nan])
    first = np.mean([gumbel_copies(logits, table, 1.0, temperature=2.0, seed=s) for s in range(2000)], axis=0)
    weight = np.exp(np.nan_to_num(logits, nan=-np.inf) / 2.0)
    np.testing.assert_allclose(first, weight / weight.sum(), atol=0.04)


def test_dsir_samples_by_importance() -> None:
    pool = make_pool(make_table(0, documents=3000))
    weights = np.where(np.arange(3000) < 1500, 2.0, 0.0)
    copies = choose("dsir", replace(pool, importance=weights), 0.01 * float(pool.table.tokens.sum()), draw=1)
    got = copies.copies[:1500].sum() / copies.copies.sum()
    tokens = pool.table.tokens
    assert got == pytest.approx(np.exp(2) / (np.exp(2) + 1), abs=0.12)
    assert tokens[:1500].mean() == pytest.approx(tokens[1500:].mean(), rel=0.2)  # lengths do not explain it


def test_standardised_scores_have_mean_0_and_deviation_1_without_the_missing() -> None:
    score = np.array([1.0, 2.0, np.nan, 6.0])
    z = standardise(score)
    assert np.isnan(z[2])
    np.testing.assert_allclose([np.nanmean(z), np.nanstd(z)], [0, 1], atol=1e-12)
    np.testing.assert_array_equal(standardise(np.array([3.0, np.nan, 3.0])), [0, np.nan, 0])


@pytest.mark.parametrize("ratio", [0.001, 0.05, 0.3, 0.6, 1.0, 4.2])
def test_the_upsampling_curve_rises_to_its_cap_and_integrates_to_the_budget(ratio: float) -> None:
    curve = solve_curve(ratio * 1000, 1000)
    quality = np.linspace(0, 1, 200_001)
    copies = curve.copies(quality)
    assert (copies[quality <= DROPPED] == 0).all()
    assert (np.diff(copies) >= 0).all()
    assert copies[-1] == CAP == copies.max()
    assert np.trapezoid(copies, quality) == pytest.approx(ratio, rel=2e-3)
    np.testing.assert_allclose(curve.tokens_below(np.array([DROPPED, 1.0])), [0, ratio], rtol=1e-12)


def test_the_published_formula_is_the_curve() -> None:
    curve = solve_curve(0.5, 1.0)
    p = 7 * 0.6 / 0.5 - 1
    quality = np.linspace(0.4, 1, 50)
    np.testing.assert_allclose(curve.copies(quality), 7 / 0.6**p * (quality - 0.4) ** p, rtol=1e-9)


def test_upsampling_repeats_the_best_and_drops_the_worst() -> None:
    pool = make_pool(make_table(4, documents=3000, decimals=1))
    table = pool.table
    budget = 0.5 * float(table.tokens.sum())
    copies = choose("upsampling", pool, budget, draw=1).copies
    score = mean_score(pool.normalised)
    order = np.argsort(-score)
    quality = np.cumsum(table.tokens[order]) / table.tokens.sum()
    assert copies.max() <= CAP
    assert copies[order][quality <= 0.38].sum() == 0
    assert copies[order][quality >= 0.999].min() >= 6
    assert abs(taken(pool, copies) - budget) <= table.tokens.max()
    curve = solve_curve(0.5, 1.0)
    for low, high in ((0.6, 0.7), (0.8, 0.9), (0.95, 1.0)):
        band = (quality > low) & (quality <= high)
        got = (copies[order][band] * table.tokens[order][band]).sum() / table.tokens[order][band].sum()
        below = curve.tokens_below(np.array([low, high]))
        assert got == pytest.approx((below[1] - below[0]) / (high - low), rel=0.2, abs=0.05)


def test_upsampling_may_ask_for_more_than_the_pool_up_to_its_cap() -> None:
    pool = make_pool(make_table(4))
    total = float(pool.table.tokens.sum())
    copies = choose("upsampling", pool, 2.0 * total, draw=1).copies
    assert abs(taken(pool, copies) - 2.0 * total) <= pool.table.tokens.max()
    with pytest.raises(BudgetError, match=rf"not in 0\.\.{4.2 * total:,.0f}"):
        choose("upsampling", pool, 5.0 * total, draw=1)
