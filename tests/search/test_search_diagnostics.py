"""The numbers that say how far the surrogate can be trusted."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr
from search_world import box, measured

from quadmix.engine.threads import one_thread
from quadmix.search.diagnostics import (
    OBJECTIVE,
    Case,
    assess,
    coverage,
    noise,
    pairwise_accuracy,
    regret,
    reports,
    spearman,
    spearman_interval,
    warnings_about,
)
from quadmix.search.model import Fit, conformal_quantile, cross_fit, fit_model
from quadmix.search.surrogate import Predicted, member_weights, split_folds
from quadmix.search.swarm import combined


def report_of(y, mean, folds, *, noise_sd=0.1, target=OBJECTIVE, kind="auto"):
    case = Case(target=target, measured=y, noise_sd=noise_sd)
    predicted = Predicted(mean=mean, stderr=np.full(len(y), 0.5))
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
    report = report_of(y, mean, np.zeros(5, int))
    assert report.regret_at_1 == pytest.approx(1.0)
    assert report.regret_at_5 == 0


def test_regret_at_k_is_that_of_the_best_of_k():
    rng = np.random.default_rng(9)
    y, mean = rng.normal(size=(2, 40))
    for k in (1, 2, 5, 40):
        chosen = sorted(range(40), key=lambda i: mean[i])[:k]
        assert regret(y, mean, k) == pytest.approx(min(y[i] for i in chosen) - min(y))
    assert report_of(y, mean, split_folds(40, rng)).regret_at_5 == pytest.approx(regret(y, mean, 5))


def test_the_bias_of_the_best_decile_shows_promises_that_are_too_good():
    """Predictions that are right everywhere but 0.3 too low for the best 4 of 40."""
    y = np.arange(40.0)
    mean = np.where(y < 4, y - 0.3, y)
    assert report_of(y, mean, np.arange(40) % 5).best_decile_bias == pytest.approx(-0.3)
    assert report_of(y, y, np.arange(40) % 5).best_decile_bias == 0


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


def test_coverage_of_a_fold_is_judged_by_the_other_folds():
    scores = np.concatenate([np.full(20, 0.1), np.full(5, 9.0)])
    folds = np.repeat(np.arange(5), 5)
    # the last fold's errors never fit a width from the others; theirs always fit a width with it
    assert coverage(scores, folds) == pytest.approx(20 / 25)


def test_coverage_is_about_nine_in_ten_whatever_the_scale_of_the_deviations():
    rng = np.random.default_rng(8)
    found = []
    for _ in range(60):
        folds = split_folds(50, rng)
        found.append([coverage(scale * rng.standard_t(3, 50), folds) for scale in (0.01, 100.0)])
    np.testing.assert_allclose(np.mean(found, axis=0), 0.91, atol=0.02)


def test_too_little_data_gives_nan_and_a_warning_instead_of_a_number():
    rng = np.random.default_rng(5)
    y = rng.normal(size=8)
    report = report_of(y, y + rng.normal(size=8), np.arange(8) % 5, noise_sd=noise(np.array([1.0, 2.0])))
    assert np.isnan([report.spearman_low, report.interval_coverage, report.noise_sd]).all()
    assert np.isnan(conformal_quantile(np.ones(8)))
    assert conformal_quantile(np.arange(1.0, 10.0)) == 9.0
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


@pytest.fixture(scope="module")
def crossed():
    known, objective = measured(
        box(4), {"a": lambda p: np.sin(3 * p[:, 0]), "b": lambda p: 0.1 * p[:, 1]}, 60, noise=0.02
    )
    with one_thread():
        cross = cross_fit(
            known.swarm, Fit(surrogate="auto", workers=1), np.random.default_rng(0), beside=["paper"]
        )
        model = fit_model(known.swarm, cross, objective)
        found = reports(known.swarm, cross, objective, {"a": 0.02, OBJECTIVE: 0.05}, seed=1)
    return known, objective, cross, model, found


def test_there_is_a_report_per_target_and_kind_the_objective_first(crossed):
    _, _, cross, _, found = crossed
    kinds = ["auto", *cross.members, "paper"]
    assert [(r.target, r.surrogate) for r in found] == [(t, k) for t in (OBJECTIVE, "a", "b") for k in kinds]
    noises = {r.target: r.noise_sd for r in found}
    assert (noises[OBJECTIVE], noises["a"]) == (0.05, 0.02)
    assert np.isnan(noises["b"])


def test_members_weigh_as_their_errors_say_and_only_the_blend_of_a_target_has_members(crossed):
    known, _, cross, _, found = crossed
    for report in found:
        if report.surrogate == "auto" and report.target != OBJECTIVE:
            weights = member_weights(
                [cross.kinds[report.target][k] for k in cross.members], known.swarm.losses[report.target]
            )
            assert report.members == pytest.approx(dict(zip(cross.members, weights, strict=True)))
            assert sum(report.members.values()) == pytest.approx(1)
        else:
            assert report.members == {}


def test_parity_is_kept_for_the_chosen_surrogate_and_the_paper(crossed):
    known, objective, cross, _, found = crossed
    truth = combined(objective, known.swarm.losses)
    for report in found:
        assert len(report.parity) == (60 if report.surrogate in ("auto", "paper") else 0)
    first = found[0]
    assert [p.trial_id for p in first.parity] == list(known.swarm.ids)
    np.testing.assert_allclose([p.measured for p in first.parity], truth)
    np.testing.assert_allclose(
        [p.predicted for p in first.parity],
        combined(objective, {t: cross.chosen[t].mean for t in known.swarm.losses}),
    )
    assert first.rmse == pytest.approx(
        np.sqrt(np.mean([(p.measured - p.predicted) ** 2 for p in first.parity]))
    )


def test_reports_are_deterministic(crossed):
    known, objective, cross, _, found = crossed
    assert repr(reports(known.swarm, cross, objective, {"a": 0.02, OBJECTIVE: 0.05}, seed=1)) == repr(found)
