"""Equation 3: vectors of the specification, the oracle, bounds, monotonicity, conservation of mass."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixing_tables import curve_parameters, one_domain
from reference import copies_at, mass, mass_between

from quadmix.errors import ScoreError
from quadmix.mixing.curve import curve_mass, expected_copies, mean_copies
from quadmix.mixing.rank import rank_within_domain
from quadmix.types import Ranks, Theta

POINTS = [
    ((100, 0.05, 0.5, 0.0005), 0.0, 1.409973057),
    ((100, 0.05, 0.5, 0.0005), 0.02, 1.380771080),
    ((100, 0.05, 0.5, 0.0005), 0.05, 1.0005),
    ((100, 0.05, 0.5, 0.0005), 0.0500001, 0.0005),
    ((1, 0.1, 1, 0.001), 0.01, 1.045969650),
    ((1000, 0.04, 1, 0), 0.03, 1.999909204),
    ((31.622776601683793, 0.05, 0.5, 0.0005), 0.0, 1.288417500),
    ((500, 0.1, 0, 0.001), 0.0, 1.001),
]
MASSES = [
    ((100, 0.05, 0.5), 0.0654343559),
    ((1, 0.1, 1), 0.1024989590),
    ((1000, 0.04, 1), 0.0786137056),
    ((31.6227766, 0.05, 0.5), 0.0581565503),
    ((10, 0.1, 0.25), 0.1054121397),
]


@pytest.mark.parametrize(("parameters", "rank", "value"), POINTS)
def test_point_form_gives_the_published_vectors(parameters, rank, value):
    assert expected_copies([rank], one_domain(*parameters), [0])[0] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(("parameters", "value"), MASSES)
def test_mass_gives_the_published_vectors(parameters, value):
    assert curve_mass(one_domain(*parameters))[0] == pytest.approx(value, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(curve_parameters())
def test_mass_equals_adaptive_quadrature(parameters):
    assert curve_mass(one_domain(*parameters))[0] == pytest.approx(mass(*parameters), rel=1e-11, abs=1e-15)


@settings(deadline=None)
@given(st.floats(-6, 6), st.floats(1e-6, 1.0))
def test_mass_equals_the_closed_form_for_exponent_one(power, cutoff):
    steepness = 10.0**power
    u = steepness * cutoff
    log = math.log1p(math.expm1(u) / 2) if u < 30 else u - math.log(2) + math.log1p(math.exp(-u))
    expected = 2 / steepness * log
    assert curve_mass(one_domain(steepness, cutoff, 1.0))[0] == pytest.approx(expected, rel=1e-13)


def test_very_steep_curve_is_a_step_without_overflow():
    theta = one_domain(1e300, 1.0, 1.0, 0.25)
    assert curve_mass(theta)[0] == pytest.approx(2.25, rel=1e-15)
    assert expected_copies([0.0, 1.0], theta, [0, 0]) == pytest.approx([2.25, 1.25])


def test_scalar_arguments_and_scale():
    theta = one_domain(100, 0.05, 0.5, 0.0005, scale=0.5)
    assert expected_copies(0.0, theta, 0) == pytest.approx(1.409973057 / 2, abs=1e-9)
    assert curve_mass(theta)[0] == pytest.approx((0.0654343559 + 0.0005) / 2, abs=1e-9)


def test_domain_outside_theta_is_refused():
    with pytest.raises(ScoreError, match=r"domain spans 0\.\.1, expected 0\.\.0"):
        expected_copies([0.1, 0.2], one_domain(1, 0.1, 1), [0, 1])


@settings(deadline=None, max_examples=60)
@given(curve_parameters(), st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True))
def test_interval_average_equals_adaptive_quadrature(parameters, edges):
    low, high = sorted(edges)
    if high - low < 1e-9:
        high = min(low + 0.5, 1.0)
    got = mean_copies(
        Ranks(low=np.array([low]), high=np.array([high])), one_domain(*parameters), np.zeros(1, int)
    )
    expected = mass_between(low, high, *parameters) / (high - low)
    assert got[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_interval_of_width_zero_is_the_point_form():
    parameters = (100, 0.05, 0.5, 0.0005)
    ranks = Ranks(low=np.array([0.02, 0.05, 0.06, 0.0]), high=np.array([0.02, 0.05, 0.06, 1.0]))
    got = mean_copies(ranks, one_domain(*parameters), np.zeros(4, int))
    for rank, value in zip(ranks.low[:3], got[:3], strict=True):
        assert value == pytest.approx(copies_at(rank, *parameters), rel=1e-14)


@settings(deadline=None, max_examples=150)
@given(curve_parameters(), st.data())
def test_mass_is_conserved_whatever_the_ties_and_lengths(parameters, data):
    """Σ tokens · mean copies = T · (G + ε), to 1e-12 relative."""
    size = data.draw(st.integers(1, 40))
    merged = np.array(data.draw(st.lists(st.integers(0, 8), min_size=size, max_size=size)), dtype=float)
    tokens = np.array(data.draw(st.lists(st.integers(1, 10**6), min_size=size, max_size=size)))
    domain = np.zeros(size, dtype=np.int16)
    theta = one_domain(*parameters)
    copies = mean_copies(rank_within_domain(merged, tokens, domain), theta, domain)
    assert (tokens * copies).sum() == pytest.approx(tokens.sum() * curve_mass(theta)[0], rel=1e-12)


def test_mass_is_conserved_in_a_large_skewed_table():
    rng = np.random.default_rng(1)
    size, domains = 200_000, 7
    domain = rng.integers(0, domains, size).astype(np.int16)
    domain[0] = 6
    tokens = rng.lognormal(6, 1.5, size).astype(np.int64) + 1
    merged = np.where(rng.random(size) < 0.3, rng.integers(0, 4, size), rng.normal(size=size))
    theta = Theta(
        weights=np.ones((domains, 1)),
        steepness=10.0 ** rng.uniform(0, 5, domains),
        cutoff=rng.uniform(0, 1, domains),
        exponent=rng.uniform(0, 2, domains),
        floor=rng.uniform(0, 0.001, domains),
        scale=rng.uniform(0.1, 3, domains),
    )
    copies = mean_copies(rank_within_domain(merged, tokens, domain), theta, domain)
    got = np.bincount(domain, weights=tokens * copies, minlength=domains)
    total = np.bincount(domain, weights=tokens, minlength=domains)
    np.testing.assert_allclose(got, total * curve_mass(theta), rtol=1e-12)


@settings(deadline=None)
@given(curve_parameters(), st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_copies_fall_with_rank_and_stay_in_bounds(parameters, ranks):
    """A better rank never gets fewer copies; all lie in [ε, 2^η + ε]."""
    _, cutoff, exponent, floor = parameters
    rank = np.sort(np.array(ranks))
    copies = expected_copies(rank, one_domain(*parameters), np.zeros(len(rank), int))
    assert (np.diff(copies) <= 1e-12).all()
    assert (copies >= floor).all()
    assert (copies <= 2**exponent + floor + 1e-12).all()
    assert (copies[rank <= cutoff] >= 1 + floor - 1e-12).all()


@settings(deadline=None, max_examples=60)
@given(curve_parameters(), st.lists(st.integers(1, 1000), min_size=1, max_size=30))
def test_interval_averages_fall_with_rank_and_stay_in_bounds(parameters, tokens):
    merged, domain = np.arange(len(tokens), dtype=float), np.zeros(len(tokens), dtype=np.int16)
    copies = mean_copies(
        rank_within_domain(merged, np.array(tokens), domain), one_domain(*parameters), domain
    )
    assert (np.diff(copies) <= 1e-12).all()
    assert (copies >= parameters[3] - 1e-15).all()
    assert (copies <= 2 ** parameters[2] + parameters[3] + 1e-12).all()
