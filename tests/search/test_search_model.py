"""All targets together: honest intervals, the same bits on any number of threads, ceilings that hold."""

import math

import numpy as np
import pytest

from quadmix.engine.threads import one_thread
from quadmix.search.model import Fit, Model, conformal_quantile, cross_fit, fit_model, whole
from quadmix.search.space import share_table
from quadmix.search.surrogate import Predicted, cross_blend, cross_predict, fit_plain, member_weights
from quadmix.search.swarm import check_swarm, combined, make_objective
from quadmix.types import Objective

DOMAINS = tuple("abcde")
SLOPES = {"easy": np.array([1.0, 0.5, 0.0, -0.5, -1.0]), "hard": np.array([0.0, 3.0, 1.0, 0.0, -2.0])}


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread():
    with one_thread():
        yield


def measure(rng, count, noise=0.1):
    """Return mixtures and losses that are linear in their cube roots, with heavy-tailed noise."""
    table = share_table(rng.dirichlet(np.ones(5), count), DOMAINS)
    roots = table.transformed("cbrt")
    return table, {t: roots @ s + noise * rng.standard_t(4, count) for t, s in SLOPES.items()}


def swarm_of(seed, count=40):
    table, losses = measure(np.random.default_rng(seed), count)
    swarm, _ = check_swarm([f"t{i}" for i in range(count)], table, losses)
    return swarm, make_objective({"easy": 1.0, "hard": 1.0}, losses)


def fitted(swarm, objective, kind="ridge", **options):
    cross = cross_fit(swarm, Fit(surrogate=kind, **options), np.random.default_rng(0))
    return cross, fit_model(swarm, cross, objective)


def test_conformal_intervals_cover_nine_of_ten_fresh_trials():
    hits = []
    for seed in range(20):
        swarm, objective = swarm_of(seed)
        _, model = fitted(swarm, objective)
        table, losses = measure(np.random.default_rng(1000 + seed), 100)
        predicted, _ = model.predict(table)
        error = predicted.mean - combined(objective, losses)
        hits.append(np.mean(np.abs(error) <= model.quantile * predicted.stderr))
    assert 0.87 <= np.mean(hits) <= 0.95


def test_the_quantile_is_the_one_that_a_ranking_gives():
    rng = np.random.default_rng(1)
    for count in (9, 10, 19, 20, 100):
        scores = rng.normal(size=count)
        place = math.ceil(0.9 * (count + 1))
        got = conformal_quantile(scores)
        assert sum(abs(s) <= got for s in scores) == place
    assert np.isnan(conformal_quantile(np.ones(8)))
    assert conformal_quantile(np.arange(1.0, 10.0)) == 9.0


def test_conformal_quantiles_hold_nine_of_ten_fresh_residuals():
    rng = np.random.default_rng(4)
    hits = [abs(rng.standard_t(3)) <= conformal_quantile(rng.standard_t(3, size=30)) for _ in range(2000)]
    assert 0.88 <= np.mean(hits) <= 0.93


@pytest.mark.parametrize("kind", ["auto", "gp"])
def test_one_and_two_threads_give_the_same_bits(kind):
    swarm, objective = swarm_of(2, 24)
    table = measure(np.random.default_rng(3), 10)[0]
    (cross, model), (again, other) = (fitted(swarm, objective, kind, workers=n) for n in (1, 2))
    for target in swarm.losses:
        for member in cross.members:
            for name in ("mean", "stderr"):
                first, second = (getattr(c.kinds[target][member], name) for c in (cross, again))
                np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(model.predict(table)[0].mean, other.predict(table)[0].mean)
    np.testing.assert_array_equal(model.predict(table)[0].stderr, other.predict(table)[0].stderr)
    assert model.quantile == other.quantile


def test_cross_fit_is_cross_predict_of_every_member_of_every_target_and_kinds_beside_carry_no_weight():
    swarm, _ = swarm_of(4, 24)
    cross = cross_fit(swarm, Fit(), np.random.default_rng(0), beside=["mixing", "ridge"])
    assert cross.members == ("gp-ard", "gp-ard-cbrt", "transfer", "ridge", "gp-isotropic")
    for target, y in swarm.losses.items():
        assert set(cross.kinds[target]) == {*cross.members, "mixing"}
        for kind in ("ridge", "mixing", "gp-isotropic"):
            alone = cross_predict(kind, swarm.table, y, cross.folds)
            np.testing.assert_array_equal(cross.kinds[target][kind].mean, alone.mean)
            np.testing.assert_array_equal(cross.kinds[target][kind].stderr, alone.stderr)
        parts = [cross.kinds[target][k] for k in cross.members]
        np.testing.assert_array_equal(cross.chosen[target].mean, cross_blend(parts, y, cross.folds).mean)
        weights = cross.weights(target, y)
        np.testing.assert_allclose(list(weights.values()), member_weights(parts, y))
        assert list(weights) == list(cross.members)


def test_the_model_adds_up_fits_on_all_trials():
    swarm, objective = swarm_of(5)
    table, _ = measure(np.random.default_rng(6), 10)
    _, model = fitted(swarm, objective)
    predicted, losses = model.predict(table)
    assert list(losses) == ["easy", "hard"]
    for target, y in swarm.losses.items():
        np.testing.assert_array_equal(losses[target], fit_plain("ridge", swarm.table, y).predict(table).mean)
    by_hand = sum(objective.weights[t] * losses[t] for t in losses)
    np.testing.assert_allclose(predicted.mean, by_hand)


def test_errors_of_targets_add_up_as_independent_ones():
    rng = np.random.default_rng(7)
    objective = Objective(weights={"a": 0.25, "b": 0.75})
    parts = {
        "a": Predicted(mean=np.array([1.0]), stderr=np.array([0.4])),
        "b": Predicted(mean=np.array([2.0]), stderr=np.array([0.2])),
    }
    draws = 0.25 * rng.normal(1.0, 0.4, 100_000) + 0.75 * rng.normal(2.0, 0.2, 100_000)
    found = whole(parts, objective)
    assert found.mean[0] == pytest.approx(1.75)
    assert found.stderr[0] == pytest.approx(draws.std(), rel=0.01)


def test_the_worst_objective_is_applied_to_predictions_per_target():
    swarm, _ = swarm_of(8)
    objective = make_objective({"easy": 1.0, "hard": 1.0}, swarm.losses, how="worst")
    _, model = fitted(swarm, objective)
    predicted, losses = model.predict(swarm.table)
    np.testing.assert_allclose(predicted.mean, combined(objective, losses))
    mean = make_objective({"easy": 1.0, "hard": 1.0}, swarm.losses)
    assert (predicted.mean > combined(mean, losses) - 1e-12).all()


def test_the_acquisition_trades_mean_for_deviation_and_pays_for_broken_ceilings():
    swarm, objective = swarm_of(9)
    table, _ = measure(np.random.default_rng(10), 50)
    free = fitted(swarm, objective)[1]
    predicted, losses = free.predict(table)
    for caution in (0.0, 2.0, np.linspace(0, 2, 50)):
        np.testing.assert_allclose(
            free.acquisition(table, caution), predicted.mean - caution * predicted.stderr
        )
    ceiling = float(np.median(losses["hard"]))
    bound = Model(
        surrogates=free.surrogates, quantile=free.quantile,
        objective=Objective(weights=objective.weights, levels=objective.levels, ceilings={"hard": ceiling}),
    )  # fmt: skip
    got, plain = bound.acquisition(table, 0.0), free.acquisition(table, 0.0)
    broken = losses["hard"] > ceiling
    assert 10 < broken.sum() < 40
    np.testing.assert_array_equal(got[~broken], plain[~broken])
    # breaking a ceiling is never worth what the rest of the objective could gain by it
    over = objective.weights["hard"] * (losses["hard"] - ceiling)[broken]
    assert (got[broken] - plain[broken] > 10 * over).all()
    assert not broken[np.argmin(got)]
