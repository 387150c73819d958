"""The Gaussian process equals independent implementations, and stays sane where data say nothing."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from quadmix.engine.threads import one_thread
from quadmix.search import gp


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread():
    with one_thread():
        yield


LENGTHS = ("ard", "structured", "isotropic")
TYPES = np.array([0, 0, 1, 1, 2, 2, 2])
DOMAINS = np.array([0, 1, 0, 1, 0, 1, 2])


def objective_of(monkeypatch, x, y, lengths, types=TYPES, domains=DOMAINS):
    """Return what `fit_gp` minimises, parameters -> (value, gradient), and how many there are."""
    caught = []
    real = gp.minimize

    def spy(function, start, args, **options):
        caught.append((lambda q: function(np.asarray(q), *args), len(start)))
        return real(function, start, args, **options)

    monkeypatch.setattr(gp, "minimize", spy)
    gp.fit_gp(x, y, types, domains, lengths)
    return caught[0]


def as_scikit(signal, scales, linear, noise):
    width = len(scales)
    kernel = (
        ConstantKernel(signal) * Matern(scales, nu=2.5)
        + ConstantKernel(linear / width) * DotProduct(sigma_0=1e-9)
        + WhiteKernel(noise)
    )
    return GaussianProcessRegressor(kernel, optimizer=None, alpha=1e-9)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_gradient_is_the_derivative(monkeypatch, lengths):
    rng = np.random.default_rng(0)
    loss, size = objective_of(monkeypatch, rng.normal(size=(20, 7)), rng.normal(size=20), lengths)
    assert size == 3 + {"ard": 7, "structured": 3 + 3, "isotropic": 1}[lengths]
    for scale in (0.1, 0.4):
        point = scale * rng.normal(size=size) + np.array([0.0, -1.0, -2.0, *[0.0] * (size - 3)])
        slope = loss(point)[1]
        error = check_grad(lambda q: loss(q)[0], lambda q: loss(q)[1], point)
        assert np.linalg.norm(slope) > 0.1
        assert error < 1e-5 * max(1.0, float(np.linalg.norm(slope)))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_objective_is_the_marginal_likelihood_of_scikit_learn_plus_the_priors(monkeypatch, lengths):
    """Up to a constant: -log p(y | hyper-parameters) - log p(hyper-parameters), the priors of the docs."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(18, 7)), rng.normal(size=18)
    z, unit_y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    loss, size = objective_of(monkeypatch, x, y, lengths)

    def expected(q):
        if lengths == "ard":
            offset, tall = q[3:], 1.2
        elif lengths == "isotropic":
            offset, tall = np.full(7, q[3]), 1.2
        else:  # a[type] + b[domain]
            offset, tall = q[3 + TYPES] + q[6 + DOMAINS], 1.0
        signal, linear, noise = np.exp(q[:3])
        scales = np.exp(0.5 * np.log(7) + 0.4 + offset)
        fitted = as_scikit(signal, scales, linear, noise).fit(z, unit_y)
        prior = norm.logpdf(q[0], 0, 1.5) + norm.logpdf(q[1], 0, 2) + norm.logpdf(q[3:], 0, tall).sum()
        prior += norm.logpdf(q[2], np.log(0.1 if lengths == "structured" else 0.01), 2)
        return -fitted.log_marginal_likelihood_value_ - prior

    points = [0.5 * rng.normal(size=size) for _ in range(3)]
    gaps = [loss(q)[0] - expected(q) for q in points]
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-5)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_posterior_equals_scikit_learn_with_the_same_hyper_parameters(lengths):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(25, 4)) * [1, 5, 0.1, 1] + 3, 7 + 0.1 * rng.normal(size=25)
    mine = gp.fit_gp(x, y, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), lengths)
    level, unit = y.mean(), y.std()
    other = as_scikit(mine.signal, mine.scales, mine.linear, mine.noise)
    other.fit((x - x.mean(0)) / x.std(0), (y - level) / unit)
    new = rng.normal(size=(6, 4)) * [1, 5, 0.1, 1] + 3
    mean, sd = other.predict((new - x.mean(0)) / x.std(0), return_std=True)
    got_mean, got_sd = mine.predict(new)
    np.testing.assert_allclose(got_mean, level + unit * mean, atol=1e-6)
    np.testing.assert_allclose(got_sd, unit * sd, atol=1e-6)
    assert mine.noise_sd == pytest.approx(unit * np.sqrt(mine.noise))


def test_with_many_trials_it_is_still_conditioned_on_all_of_them():
    """Hyper-parameters come from a part of them; mean and deviation are those of all 900."""
    rng = np.random.default_rng(11)
    x = rng.uniform(-2, 2, (900, 2))
    y = np.sin(2 * x[:, 0]) * x[:, 1] + 0.1 * rng.normal(size=900)
    mine = gp.fit_gp(x, y, np.zeros(2, int), np.arange(2), "ard")
    other = as_scikit(mine.signal, mine.scales, mine.linear, mine.noise)
    other.fit((x - mine.centre) / mine.spread, (y - mine.level) / mine.unit)
    new = rng.uniform(-2, 2, (5, 2))
    mean, sd = other.predict((new - mine.centre) / mine.spread, return_std=True)
    np.testing.assert_allclose(mine.predict(new)[0], mine.level + mine.unit * mean, atol=1e-6)
    np.testing.assert_allclose(mine.predict(new)[1], mine.unit * sd, atol=1e-6)
    np.testing.assert_allclose(mine.mean(new), mine.predict(new)[0], rtol=1e-12)
    assert mine.noise_sd == pytest.approx(0.1, rel=0.25)


def test_the_fit_does_not_depend_on_the_units_of_inputs_and_targets():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 3))
    y = np.sin(x[:, 0]) + 0.1 * rng.normal(size=30)
    types = np.zeros(3, int)
    new = rng.normal(size=(5, 3))
    mean, sd = gp.fit_gp(x, y, types, np.arange(3)).predict(new)
    scaled = gp.fit_gp(x * [1e3, 1e-3, 1] + 5, 1e4 * y - 3, types, np.arange(3))
    other, wide = scaled.predict(new * [1e3, 1e-3, 1] + 5)
    np.testing.assert_allclose(other, 1e4 * mean - 3, rtol=1e-3, atol=50)
    np.testing.assert_allclose(wide, 1e4 * sd, rtol=0.02)


def test_structured_scales_are_a_sum_over_type_and_domain_and_find_the_type_that_matters():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 12))
    y = np.sin(x[:, 0]) + x[:, 2] ** 2 / 3
    types, domains = np.array([0, 1] * 6), np.arange(12) // 2
    scales = gp.fit_gp(x, y, types, domains).scales
    assert scales[types == 0].mean() < scales[types == 1].mean()
    table = np.log(scales).reshape(6, 2)  # domain x type
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    np.testing.assert_allclose(rest, 0, atol=1e-9)
    assert np.ptp(np.log(scales)) > 0.1


def test_isotropic_has_one_scale_and_ard_finds_the_feature_that_matters():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 6))
    y = np.sin(2 * x[:, 3])
    alone = np.zeros(6, int), np.arange(6)
    assert np.ptp(gp.fit_gp(x, y, *alone, "isotropic").scales) == 0
    assert np.argmin(gp.fit_gp(x, y, *alone, "ard").scales) == 3


def test_it_falls_back_to_the_mean_on_noise():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(60, 10)), rng.normal(size=60)
    for lengths in LENGTHS:
        process = gp.fit_gp(x, y, np.zeros(10, int), np.arange(10), lengths)
        mean, sd = process.predict(rng.normal(size=(200, 10)))
        assert mean.std() < 0.7 * y.std(), lengths
        assert np.median(sd) > 0.7 * y.std(), lengths


def test_far_from_an_even_function_it_says_the_mean_with_full_deviation():
    """An even function on symmetric inputs has no linear part, so nothing is left to extrapolate."""
    half = np.random.default_rng(7).normal(size=(20, 2))
    x = np.concatenate([half, -half])
    y = (x**2).sum(1)
    process = gp.fit_gp(x, y, np.zeros(2, int), np.arange(2), "isotropic")
    mean, sd = process.predict(np.array([[500.0, 0], [0, -500.0]]))
    np.testing.assert_allclose(mean, y.mean(), atol=1e-3 * y.std())
    assert (sd >= y.std() * np.sqrt(process.signal) * 0.999).all()


def test_it_follows_a_smooth_function_and_its_deviation_says_how_well():
    rng = np.random.default_rng(8)
    x, new = rng.uniform(-2, 2, (80, 2)), rng.uniform(-2, 2, (300, 2))

    def truth(v):
        return np.sin(2 * v[:, 0]) * v[:, 1]

    process = gp.fit_gp(x, truth(x) + 0.05 * rng.normal(size=80), np.zeros(2, int), np.arange(2), "ard")
    mean, sd = process.predict(new)
    assert ((mean - truth(new)) ** 2).mean() < 0.05 * truth(new).var()
    assert 0.02 < process.noise_sd < 0.1
    score = (mean - truth(new)) / sd
    assert 0.3 < score.std() < 1.5


def test_duplicate_rows_constant_columns_and_constant_targets_give_finite_numbers():
    rng = np.random.default_rng(9)
    x = np.concatenate([rng.normal(size=(12, 5)), np.ones((12, 2))], axis=1)
    x, y = np.concatenate([x, x]), rng.normal(size=24)
    for lengths in LENGTHS:
        for target in (y, np.ones(24)):
            mean, sd = gp.fit_gp(x, target, TYPES, DOMAINS, lengths).predict(x)
            assert np.isfinite(mean).all()
            assert (sd > 0).all()
            if np.ptp(target) == 0:
                np.testing.assert_allclose(mean, 1.0)


def test_the_same_data_give_the_same_bits():
    rng = np.random.default_rng(10)
    x, y, new = rng.normal(size=(30, 7)), rng.normal(size=30), rng.normal(size=(4, 7))
    first, second = (gp.fit_gp(x, y, TYPES, DOMAINS).predict(new) for _ in range(2))
    np.testing.assert_array_equal(first, second)
