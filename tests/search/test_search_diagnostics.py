"""The numbers that say how far the surrogate can be trusted."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from quadmix.search.diagnostics import (
    OBJECTIVE,
    Case,
    assess,
    conformal_width,
    coverage,
    noise,
    pairwise_accuracy,
    spearman,
    spearman_interval,
    warnings_about,
)
from quadmix.search.surrogate import OutOfFold, split_folds


def report_of(y, mean, folds, *, noise_sd=0.1, target=OBJECTIVE, kind="auto"):
    case = Case(target=target, measured=y, noise_sd=noise_sd)
    predicted = OutOfFold(mean=mean, stderr=np.full(len(y), 0.5))
    ids = [f"t{i}" for i in range(len(y))]
    return assess(case, kind, predicted, folds=folds, rng=np.random.default_rng(0), trial_ids=ids)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=30))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_rank_correlation_and_pairwise_accuracy_equal_scipy_and_a_loop(pairs):
    y, p = (np.array(v, dtype=float) for v in zip(*pairs, strict=True))
    if np.ptp(y) and np.ptp(p):
        assert spearman(y, p) == pytest.approx(spearmanr(y, p)[0])
    else:
        assert np.isnan(spearman(y, p))
    right, total = 0.0, 0
    for i, j in itertools.combinations(range(len(y)), 2):
        if y[i] != y[j]:
            total += 1
            right += 0.5 if p[i] == p[j] else float((y[i] < y[j]) == (p[i] < p[j]))
    if total:
        assert pairwise_accuracy(y, p) == pytest.approx(right / total)


def test_pairwise_accuracy_is_an_affine_map_of_kendalls_tau_without_ties():
    rng = np.random.default_rng(0)
    y, p = rng.normal(size=(2, 30))
    assert pairwise_accuracy(y, p) == pytest.approx((kendalltau(y, p)[0] + 1) / 2)


def test_a_perfect_prediction_gets_perfect_numbers():
    y = np.random.default_rng(1).normal(size=30)
    report = report_of(y, y.copy(), split_folds(30, np.random.default_rng(0)))
    assert (report.spearman, report.r2, report.pairwise_accuracy) == pytest.approx((1, 1, 1))
    assert report.rmse == report.regret_at_1 == 0
    assert report.interval_coverage == 1
    assert report.parity[3].measured == report.parity[3].predicted == y[3]


def test_regret_is_the_cost_of_trusting_the_best_prediction():
    y = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    mean = np.array([2.5, 2.0, 1.0, 4.0, 4.0])
    assert report_of(y, mean, np.zeros(5, int)).regret_at_1 == pytest.approx(1.0)


def test_predicting_only_the_mean_of_the_other_folds_has_no_rank_correlation():
    rng = np.random.default_rng(2)
    y, folds = rng.normal(size=20), np.repeat(np.arange(5), 4)
    mean = np.array([y[folds != f].mean() for f in folds])
    report = report_of(y, mean, folds)
    assert spearman(y, mean) < 0, "the naive number would mislead"
    assert np.isnan([report.spearman, report.regret_at_1, report.pairwise_accuracy]).all()
    assert report.r2 < 0


def test_the_bootstrap_interval_holds_the_truth_about_as_often_as_it_says():
    rng, inside = np.random.default_rng(3), 0
    truth = 6 / np.pi * np.arcsin(0.8 / 2)  # rank correlation of a normal pair with r = 0.8
    for _ in range(60):
        x = rng.normal(size=40)
        low, high = spearman_interval(x, 0.8 * x + 0.6 * rng.normal(size=40), rng, draws=300)
        inside += low <= truth <= high
    assert 0.85 <= inside / 60 <= 1.0


def test_conformal_intervals_cover_nine_of_ten_fresh_residuals():
    rng = np.random.default_rng(4)
    hits = [abs(rng.standard_t(3)) <= conformal_width(rng.standard_t(3, size=30)) for _ in range(2000)]
    assert 0.88 <= np.mean(hits) <= 0.93


def test_coverage_of_a_fold_is_judged_by_the_other_folds():
    residuals = np.concatenate([np.full(20, 0.1), np.full(5, 9.0)])
    folds = np.repeat(np.arange(5), 5)
    # the last fold's residuals never fit a width from the others; theirs always fit a width with it
    assert coverage(residuals, folds) == pytest.approx(20 / 25)


def test_too_little_data_gives_nan_and_a_warning_instead_of_a_number():
    rng = np.random.default_rng(5)
    y = rng.normal(size=8)
    report = report_of(y, y + rng.normal(size=8), np.arange(8) % 5, noise_sd=noise(np.array([1.0, 2.0])))
    assert np.isnan([report.spearman_low, report.interval_coverage, report.noise_sd]).all()
    assert np.isnan(conformal_width(np.ones(8)))
    assert conformal_width(np.arange(1.0, 10.0)) == 9.0
    texts = " | ".join(warnings_about([report], "auto", 8))
    assert "no interval of the rank correlation" in texts
    assert "noise is unknown" in texts


def test_noise_as_large_as_the_spread_and_useless_predictions_are_called_out():
    rng = np.random.default_rng(6)
    y, folds = rng.normal(size=60), split_folds(60, rng)
    bad = report_of(y, rng.normal(size=60), folds, noise_sd=1.5)
    texts = " | ".join(warnings_about([bad], "auto", 60))
    assert "not below the spread" in texts
    assert "no better than the mean" in texts


def test_a_published_recipe_that_predicts_better_is_reported():
    rng = np.random.default_rng(7)
    y, folds = rng.normal(size=60), split_folds(60, rng)
    mine = report_of(y, y + 0.5 * rng.normal(size=60), folds)
    paper = report_of(y, y + 0.1 * rng.normal(size=60), folds, kind="paper")
    assert any("'paper' has a lower error" in w for w in warnings_about([mine, paper], "auto", 60))
    assert warnings_about([report_of(y, y, folds)], "auto", 60) == []


def test_noise_is_the_sample_standard_deviation():
    assert noise(np.array([1.0, 2.0, 3.0])) == pytest.approx(1.0)
