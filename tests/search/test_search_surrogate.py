"""Surrogates learn, stay honest on noise, and repeat themselves bit for bit."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from search_world import make_world
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel
from sklearn.linear_model import Ridge

from quadmix.search import gp
from quadmix.search.features import FeatureTable, features, sample_documents
from quadmix.search.surrogate import (
    MEMBERS,
    OutOfFold,
    cross_blend,
    cross_predict,
    fit_plain,
    fit_surrogate,
    kinds_needed,
    member_weights,
    split_folds,
)


def swarm_data(seed, count=48, target="hard"):
    world = make_world(documents=1000, domains=5, seed=seed)
    trials = [t for t in world.swarm(count, repeats=0)]
    sample = sample_documents(world.annotations, world.normalised, seed=1)
    table = features(sample, [t.theta for t in trials], world.prior)
    y = np.array([t.losses[target].bits_per_byte for t in trials])
    return table, y, split_folds(count, np.random.default_rng(seed))


def toy_table(values):
    p = values.shape[1]
    return FeatureTable(
        values=values, names=tuple(f"f{i}" for i in range(p)),
        types=tuple("share" if i % 2 else "score" for i in range(p)), domains=tuple(i % 3 for i in range(p)),
    )  # fmt: skip


def relative_error(y, out_of_fold):
    return float(((out_of_fold.mean - y) ** 2).mean() / y.var())


def test_every_small_data_surrogate_beats_the_mean_out_of_fold_and_auto_beats_paper():
    ratios = []
    for seed in (1, 2):
        table, y, folds = swarm_data(seed)
        found = {k: cross_predict(k, table, y, folds) for k in kinds_needed("auto")}
        auto = relative_error(y, cross_blend(found, y, folds))
        for kind in MEMBERS:
            assert relative_error(y, found[kind]) < 0.75, (kind, seed)
        assert auto < 0.3
        ratios.append(auto / relative_error(y, found["paper"]))
        assert auto < 1.3 * min(relative_error(y, found[k]) for k in MEMBERS)
    assert max(ratios) < 0.5


def test_the_gradient_of_the_gp_objective_is_the_derivative():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(20, 7)), rng.normal(size=20)
    groups = gp._membership(np.array([0, 0, 1, 1, 2, 2, 2]), np.array([0, 1, 0, 1, 0, 1, 2]))
    point = rng.normal(size=3 + groups.shape[1]) * 0.3
    error = check_grad(lambda q: gp._loss(q, z, y, groups)[0], lambda q: gp._loss(q, z, y, groups)[1], point)
    assert error < 1e-5


def test_the_gp_posterior_equals_scikit_learn_with_the_same_hyper_parameters():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(25, 4)), rng.normal(size=25)
    mine = gp.fit_gp(x, y, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    kernel = (
        ConstantKernel(mine.signal) * Matern(mine.scales, nu=2.5)
        + ConstantKernel(mine.linear / 4) * DotProduct(sigma_0=1e-9)
        + WhiteKernel(mine.noise)
    )
    scaled, level, unit = (x - x.mean(0)) / x.std(0), y.mean(), y.std()
    other = GaussianProcessRegressor(kernel, optimizer=None, alpha=0.0).fit(scaled, (y - level) / unit)
    new = rng.normal(size=(6, 4))
    mean, sd = other.predict((new - x.mean(0)) / x.std(0), return_std=True)
    got_mean, got_sd = mine.predict(new)
    np.testing.assert_allclose(got_mean, level + unit * mean, atol=1e-6)
    np.testing.assert_allclose(got_sd, unit * sd, atol=1e-6)


def test_structured_scales_find_the_type_that_matters():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 12))
    y = np.sin(x[:, 0]) + x[:, 2] ** 2 / 3
    types = np.array([0, 1] * 6)
    scales = gp.fit_gp(x, y, types, np.arange(12) // 2).scales
    assert scales[types == 0].mean() < scales[types == 1].mean()


def test_the_gp_falls_back_to_the_mean_on_noise():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(60, 10)), rng.normal(size=60)
    mean, sd = gp.fit_gp(x, y, np.zeros(10, int), np.arange(10)).predict(rng.normal(size=(200, 10)))
    assert mean.std() < 0.7 * y.std()
    assert np.median(sd) > 0.7 * y.std()


def test_duplicate_trials_and_constant_columns_do_not_break_a_fit():
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(size=(12, 5)), np.ones((12, 2))], axis=1)
    x, y = np.concatenate([x, x]), rng.normal(size=24)
    for kind in MEMBERS:
        mean, sd = fit_plain(kind, toy_table(x), y).predict(toy_table(x))
        assert np.isfinite(mean).all(), kind
        assert (sd >= 0).all(), kind


def test_ridge_equals_scikit_learn_at_its_penalty_and_picks_the_best_by_brute_force():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(20, 6))
    y = x @ rng.normal(size=6) + rng.normal(size=20)
    z = (x - x.mean(0)) / x.std(0)

    def left_out(penalty):
        # the intercept is the mean of all of y, and the columns are scaled once, as in the closed form
        full = np.column_stack([np.ones(20), z])
        ridge = np.diag([0.0, *[penalty] * 6])
        errors = []
        for i in range(20):
            keep = np.arange(20) != i
            beta = np.linalg.solve(full[keep].T @ full[keep] + ridge, full[keep].T @ y[keep])
            errors.append(y[i] - full[i] @ beta)
        return np.mean(np.square(errors))

    best = min(np.geomspace(1e-2, 1e6, 25), key=left_out)
    got, sd = fit_plain("ridge", toy_table(x), y).predict(toy_table(x))
    np.testing.assert_allclose(got, Ridge(alpha=best).fit(z, y).predict(z), atol=1e-8)
    assert sd[0] == pytest.approx(np.sqrt(left_out(best)))


def test_weights_are_inverse_squared_errors():
    y = np.zeros(4)
    predicted = np.array([[1.0] * 4, [2.0] * 4, [1.0] * 4])
    np.testing.assert_allclose(member_weights(predicted, y), np.array([16, 1, 16]) / 33)


def test_a_perfect_member_takes_all_the_weight_without_dividing_by_zero():
    y = np.arange(5.0)
    weights = member_weights(np.stack([y, y + 1]), y)
    np.testing.assert_allclose(weights, [1, 0], atol=1e-6)


def test_blending_weights_of_a_fold_do_not_see_that_fold():
    rng = np.random.default_rng(6)
    y, folds = rng.normal(size=20), np.repeat(np.arange(5), 4)
    parts = {
        k: OutOfFold(mean=y + rng.normal(size=20) * (i + 1), stderr=np.ones(20))
        for i, k in enumerate(MEMBERS)
    }
    before = cross_blend(parts, y, folds).mean
    changed = np.where(folds == 2, 100.0, y)
    after = cross_blend(parts, changed, folds).mean
    np.testing.assert_array_equal(before[folds == 2], after[folds == 2])
    assert (before[folds != 2] != after[folds != 2]).any()


def test_fits_are_deterministic():
    table, y, folds = swarm_data(3, count=40)
    found = {k: cross_predict(k, table, y, folds) for k in MEMBERS}
    first, second = (fit_surrogate("auto", table, y, found).predict(table) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_folds_have_equal_sizes_and_cover_everything():
    folds = split_folds(23, np.random.default_rng(0))
    assert sorted(np.bincount(folds)) == [4, 4, 5, 5, 5]
