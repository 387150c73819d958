"""The parametric laws recover themselves from noiseless shares, and bend only one way."""

import numpy as np
import pytest
from scipy.optimize import check_grad

from quadmix.engine.threads import one_thread
from quadmix.search import laws
from quadmix.search.laws import fit_law


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread():
    with one_thread():
        yield


def draw(rng, count, domains=8):
    """Return Dirichlet shares of which about a third are exact zeros."""
    shares = rng.dirichlet(np.full(domains, 0.5), count)
    shares = np.where(shares < 0.01, 0.0, shares)
    return shares / shares.sum(1, keepdims=True)


def transfer(shares):
    strength = np.array([2.0, 0.5, 0.1, 0.05, 1.0, 0.02, 0.3, 0.01])
    return 1.5 + 0.8 * (0.1 + shares @ strength) ** -0.3


def mixing(shares):
    return 1.2 + 0.5 * np.exp(shares @ np.array([-2.0, 1.0, 0.5, -0.5, 0.0, 1.5, -1.0, 0.3]))


@pytest.mark.parametrize(("shape", "truth"), [("transfer", transfer), ("mixing", mixing)])
def test_a_law_is_recovered_from_noiseless_shares(shape, truth):
    """Prediction error on fresh mixtures, also on those of one domain alone, which nobody measured."""
    rng = np.random.default_rng(0)
    shares, new = draw(rng, 64), np.concatenate([draw(rng, 200), np.eye(8)])
    law = fit_law(shape, shares, truth(shares))
    y = truth(new)
    assert np.sqrt(((law.predict(new) - y) ** 2).mean()) < 0.05 * y.std()
    assert law.factor > 0
    assert law.residual < 0.03 * y.std()


@pytest.mark.parametrize("shape", ["transfer", "mixing"])
@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_the_gradient_is_the_derivative_though_level_and_factor_are_solved_for(shape, scale):
    rng = np.random.default_rng(1)
    shares = draw(rng, 30)
    y = {"transfer": transfer, "mixing": mixing}[shape](shares)
    y = (y - y.mean()) / y.std()
    slope = np.polyfit(shares[:, 0], y, 1)[0]
    point = scale * rng.normal(size=8 + (2 if shape == "transfer" else 0))
    # towards the truth, so that the factor is above 0 and the curve matters at all
    point[-8] += (1 if shape == "mixing" else -1) * np.sign(slope) * 2
    value, gradient = laws._loss(point, shape, shares, y)
    assert np.isfinite(value)
    assert np.abs(gradient[-8:]).max() > 1e-3
    error = check_grad(
        lambda q: laws._loss(q, shape, shares, y)[0], lambda q: laws._loss(q, shape, shares, y)[1], point
    )
    assert error < 1e-5


def test_level_and_factor_equal_least_squares_and_the_factor_is_never_negative():
    rng = np.random.default_rng(2)
    curve, y = rng.random(20), rng.random(20)
    factor, level = np.polyfit(curve, y, 1)
    np.testing.assert_allclose(
        laws._linear(curve, y), (level, factor) if factor > 0 else (y.mean(), 0.0), atol=1e-12
    )
    np.testing.assert_allclose(laws._linear(curve, 3 - 2 * curve), (np.mean(3 - 2 * curve), 0.0))
    np.testing.assert_allclose(laws._linear(curve, 3 + 2 * curve), (3.0, 2.0))
    np.testing.assert_allclose(laws._linear(np.ones(20), y), (y.mean(), 0.0))


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_in_the_transfer_law_more_of_a_domain_never_hurts(noise):
    """T >= 0 and k >= 0, whatever was measured: only giving up another domain can raise a loss."""
    rng = np.random.default_rng(3)
    shares = draw(rng, 40)
    law = fit_law("transfer", shares, transfer(shares) + noise * rng.normal(size=40))
    before = law.predict(shares)
    for domain in range(8):
        more = shares.copy()
        more[:, domain] += 0.2
        assert (law.predict(more) <= before + 1e-12).all()
    if not noise:
        assert (law.predict(shares + 0.2) < before).all()


def test_no_share_at_all_and_domains_that_nobody_varied_give_finite_numbers():
    rng = np.random.default_rng(4)
    shares = draw(rng, 30)
    shares[:, 3] = 0.0
    for shape in ("transfer", "mixing"):
        for y in (transfer(shares), np.ones(30)):
            law = fit_law(shape, shares, y)
            assert np.isfinite(law.predict(np.concatenate([shares, np.zeros((1, 8)), np.eye(8)]))).all()
            if np.ptp(y) == 0:
                np.testing.assert_allclose(law.predict(shares), 1.0)


def test_the_residual_is_the_noise():
    rng = np.random.default_rng(5)
    shares = draw(rng, 400)
    law = fit_law("transfer", shares, transfer(shares) + 0.05 * rng.normal(size=400))
    assert law.residual == pytest.approx(0.05, rel=0.12)


def test_the_same_data_give_the_same_bits():
    shares = draw(np.random.default_rng(6), 30)
    for shape in ("transfer", "mixing"):
        first, second = (fit_law(shape, shares, transfer(shares)) for _ in range(2))
        np.testing.assert_array_equal(first.parameters, second.parameters)
