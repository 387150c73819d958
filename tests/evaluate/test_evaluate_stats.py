"""Intervals over items and seeds cover what they say; Holm and detectable differences are the textbook's."""

import time
from itertools import product

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import nct, t, ttest_1samp

from quadmix.evaluate.stats import (
    _quantile,
    crossed_bootstrap,
    detectable_beyond,
    detectable_difference,
    estimate,
    holm,
    item_sums,
    macro,
    micro,
    promised_difference,
)


def world(rng, seeds, items, *, seed_sd, item_sd, noise_sd, mean=0.0):
    """Values (S, I) of mean + seed + item + interaction."""
    own, item = rng.normal(size=(seeds, 1)), rng.normal(size=items)
    return mean + seed_sd * own + item_sd * item + noise_sd * rng.normal(size=(seeds, items))


def pigeonhole(rng, values, draws=300):
    """The plain bootstrap, in a loop: seeds and items with replacement; a 95 % interval."""
    seeds, items = values.shape
    means = [
        values[np.ix_(rng.integers(seeds, size=seeds), rng.integers(items, size=items))].mean()
        for _ in range(draws)
    ]
    return np.quantile(means, [0.025, 0.975])


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "noise",
    [
        {"seed_sd": 0.1, "item_sd": 0.2, "noise_sd": 0.2},  # seeds
        {"seed_sd": 0.01, "item_sd": 1.0, "noise_sd": 0.3},  # items
        {"seed_sd": 0.06, "item_sd": 1.0, "noise_sd": 1.0},  # all alike
        {"seed_sd": 0.0, "item_sd": 0.1, "noise_sd": 1.0},  # interaction, as of answers to near-equal models
    ],
)
def test_intervals_of_95_percent_cover_the_truth_in_91_to_98_percent_of_worlds(seeds, noise):
    rng, worlds = np.random.default_rng(seeds), 400
    values = np.vstack([world(rng, seeds, 300, mean=0.7, **noise) for _ in range(worlds)])
    ratios = item_sums(values, np.ones(300), seed=0, names=["all"], draws=500).ratios
    found = [estimate(own) for own in np.split(ratios, worlds, axis=1)]
    assert 0.91 <= np.mean([e.low <= 0.7 <= e.high for e in found]) <= 0.98


def test_the_plain_bootstrap_of_few_seeds_does_not_cover_the_truth():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        low, high = pigeonhole(rng, world(rng, 3, 50, seed_sd=1.0, item_sd=0.5, noise_sd=0.5))
        inside += low <= 0 <= high
    assert inside < 85


def test_noise_of_items_alone_gives_the_interval_of_their_mean():
    items = np.random.default_rng(1).gamma(2.0, size=400)
    found = crossed_bootstrap(np.tile(items, (4, 1)), np.ones(400), seed=3, draws=8000)
    error = items.std(ddof=1) / 20
    assert found.value == pytest.approx(items.mean())
    assert found.stderr == pytest.approx(error, rel=0.03)
    assert (found.low, found.high) == pytest.approx(items.mean() + 1.96 * error * np.array([-1, 1]), rel=0.01)


def test_noise_of_seeds_alone_gives_the_t_test():
    seeds = np.array([0.1, 0.5, 0.4])
    found = crossed_bootstrap(np.tile(seeds[:, None], (1, 50)), np.ones(50), seed=3)
    test = ttest_1samp(seeds, 0.0)
    low, high = test.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, test.pvalue))


def test_the_standard_error_counts_the_interaction_once():
    """Against the mean squares of the two-way table: var = (MS_item + MS_seed - MS_interaction) / (S I)."""
    values = world(np.random.default_rng(5), 5, 200, seed_sd=0.1, item_sd=1.0, noise_sd=1.0)
    row, column = values.mean(axis=1, keepdims=True), values.mean(axis=0)
    residual = values - row - column + values.mean()
    squares = 5 * column.var(ddof=1) + 200 * row.var(ddof=1) - (residual**2).sum() / (4 * 199)
    found = crossed_bootstrap(values, np.ones(200), seed=0, draws=20_000)
    assert found.stderr == pytest.approx(np.sqrt(squares / 1000), rel=0.02)


def test_a_ratio_is_of_sums_not_a_mean_of_ratios():
    values, weights = np.array([[1.0, 9.0], [3.0, 9.0]]), np.array([1.0, 3.0])
    found = crossed_bootstrap(values, weights, seed=0)
    assert found.value == pytest.approx((10 / 4 + 12 / 4) / 2)


def test_the_error_of_a_ratio_is_that_of_its_linear_form():
    rng = np.random.default_rng(2)
    weights = rng.uniform(1, 9, 500)
    values = np.tile(0.8 * weights + rng.normal(size=500), (2, 1))
    found = crossed_bootstrap(values, weights, seed=0, draws=8000)
    rest = values[0] - found.value * weights
    assert found.stderr == pytest.approx(rest.std(ddof=1) / np.sqrt(500) / weights.mean(), rel=0.03)


def test_p_is_below_the_level_exactly_when_the_interval_excludes_zero():
    rng = np.random.default_rng(8)
    found = [
        crossed_bootstrap(
            world(rng, 4, 40, seed_sd=0.3, item_sd=1.0, noise_sd=1.0, mean=0.5),
            np.ones(40),
            seed=n,
            draws=500,
        )
        for n in range(100)
    ]
    excluded = [e.low > 0 or e.high < 0 for e in found]
    assert excluded == [e.p < 0.05 for e in found]
    assert 10 < sum(excluded) < 90


def test_one_seed_or_one_item_has_a_value_and_no_interval():
    for values in (np.ones((1, 30)), np.array([[1.0], [2.0]])):
        found = crossed_bootstrap(values, np.ones(values.shape[1]), seed=0)
        assert found.value == pytest.approx(values.mean())
        assert np.isnan([found.low, found.high, found.stderr, found.p]).all()


def test_equal_models_differ_by_nothing():
    values = np.random.default_rng(0).normal(size=(3, 70))
    ratios = item_sums(np.vstack([values, values]), np.full(70, 3.0), seed=0, names=["x"]).ratios
    found = estimate(ratios[:, :3] - ratios[:, 3:])
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_macro_is_the_mean_of_tasks_and_micro_of_items():
    small = item_sums(np.array([[1.0, 1.0], [0.0, 1.0]]), np.ones(2), seed=0, names=["a"])
    large = item_sums(np.array([[0.0] * 8, [1.0] * 8]), np.ones(8), seed=0, names=["b"])
    assert macro([small, large])[0] == pytest.approx([0.5, 0.75])
    assert micro([small, large])[0] == pytest.approx([0.2, 0.9])


def test_the_macro_interval_adds_the_errors_of_tasks_with_items_of_their_own():
    rng = np.random.default_rng(4)
    tasks = [np.tile(rng.normal(size=400), (2, 1)) for _ in range(4)]
    sums = [item_sums(v, np.ones(400), seed=0, names=[str(n)], draws=8000) for n, v in enumerate(tasks)]
    expected = np.sqrt(sum(v[0].var(ddof=1) / 400 for v in tasks)) / 4
    assert estimate(macro(sums)).stderr == pytest.approx(expected, rel=0.03)


def test_resamples_do_not_depend_on_how_many_are_held_at_a_time(monkeypatch):
    values = np.random.default_rng(0).normal(size=(2, 50))
    whole = item_sums(values, np.ones(50), seed=1, names=["x"], draws=99)
    monkeypatch.setattr("quadmix.evaluate.stats._CHUNK", 350)
    parts = item_sums(values, np.ones(50), seed=1, names=["x"], draws=99)
    assert whole.numerators.shape == (100, 2)
    np.testing.assert_allclose(parts.numerators, whole.numerators, rtol=1e-12)


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    values = np.random.default_rng(0).normal(size=60) + np.array([[0.01], [0.02], [0.0]])
    first, again, other = (crossed_bootstrap(values, np.ones(60), seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.low != other.low


def test_two_thousand_draws_of_five_thousand_items_are_quick():
    values = np.random.default_rng(0).normal(size=(5, 5000))
    taken = []
    for _ in range(3):
        start = time.process_time()
        crossed_bootstrap(values, np.ones(5000), seed=0, draws=2000)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.5


def test_many_tasks_can_pass_the_correction_where_seeds_vary_and_draws_alone_say_no_more_than_they_are():
    """150 tasks with 2,000 draws: the least p of the draws, 1/2001, is 0.07 after Holm's correction."""
    rng = np.random.default_rng(0)
    sums = item_sums(rng.normal(0.5, 0.05, (4, 40)), np.ones(40), seed=0, names=["x"])
    strong = estimate(sums.ratios)
    assert 0 < strong.p < 1e-5
    assert holm(np.full(150, strong.p)).max() < 0.05
    alike = np.repeat(sums.ratios[:, :1], 4, axis=1)
    assert estimate(alike).p == pytest.approx(1 / 2001)


@pytest.mark.parametrize("seeds", [2, 3, 5, 30])
@pytest.mark.parametrize("ratio", [1e-9, 1e-3, 0.3, 1.0, 30.0, 1e6])
def test_the_ends_of_an_interval_are_quantiles_of_the_convolution(seeds, ratio):
    rng = np.random.default_rng(1)
    centres = np.concatenate([rng.normal(size=700), rng.normal(9.0, 0.1, size=40)])
    for q in (0.005, 0.025, 0.975):
        x = _quantile(q, centres, ratio, seeds - 1)
        slope = max(1e-3, ratio)
        below, above = (t.cdf((x + d * slope - centres) / ratio, seeds - 1).mean() for d in (-1e-5, 1e-5))
        assert below - 1e-7 <= q <= above + 1e-7


def test_a_difference_beyond_an_interval_is_the_t_tests_where_seeds_are_the_noise():
    assert detectable_beyond(t.ppf(0.975, 4) * 0.3, 0.3, 4) == pytest.approx(detectable_difference(0.3, 4))
    assert np.isnan([detectable_beyond(1.0, 1.0, 0), detectable_beyond(np.nan, 1.0, 3)]).all()


def test_holm_on_the_textbook_example():
    """p = 0.01, 0.04, 0.03, 0.005: steps 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 may not fall below 0.06."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_rejects_what_the_step_down_procedure_rejects():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.uniform(0, 0.2, size=rng.integers(1, 8))
        rejected = np.zeros(len(p), dtype=bool)
        for step, place in enumerate(np.argsort(p)):
            if p[place] > 0.05 / (len(p) - step):
                break
            rejected[place] = True
        assert ((holm(p) <= 0.05) == rejected).all()


def test_holm_passes_nan_through_and_does_not_count_it():
    assert holm(np.array([np.nan, 0.02, 0.9, np.nan])) == pytest.approx(
        [np.nan, 0.04, 0.9, np.nan], nan_ok=True
    )
    assert holm(np.array([])).shape == (0,)


@pytest.mark.parametrize(("freedom", "power"), [*product([4, 20, 200], [0.8, 0.9])])
def test_the_detectable_difference_is_near_the_exact_one_of_the_noncentral_t(freedom, power):
    critical = t.ppf(0.975, freedom)
    exact = brentq(lambda d: nct.sf(critical, freedom, d) - power, 0.1, 20)
    assert detectable_difference(1.0, freedom, power=power) == pytest.approx(exact, rel=0.06)


def test_a_simulated_comparison_shows_the_promised_difference_four_times_in_five():
    rng, seeds, labels, sd = np.random.default_rng(3), 5, 6, 0.02
    effect = promised_difference(sd, seeds, labels)
    values = sd * rng.normal(size=(20_000, labels, seeds)) + rng.normal(size=(20_000, 1, seeds))
    values[:, 0] -= effect
    apart = values[:, 0] - values[:, 1]
    high = apart.mean(1) + t.ppf(0.975, 4) * apart.std(1, ddof=1) / np.sqrt(seeds)
    assert (high < 0).mean() == pytest.approx(0.8, abs=0.015)


def test_more_comparisons_need_a_larger_difference_and_no_noise_estimate_gives_none():
    assert detectable_difference(1.0, 30, comparisons=10) > detectable_difference(1.0, 30)
    assert detectable_difference(1.0, 30, confidence=0.99) > detectable_difference(1.0, 30)
    assert np.isnan([detectable_difference(np.nan, 4), detectable_difference(1.0, 0)]).all()
    assert np.isnan([promised_difference(0.1, 1, 5), promised_difference(0.1, 5, 1)]).all()
