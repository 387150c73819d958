"""Mixtures of domains as a box: constraints hold, coordinates go there and back, draws cover the simplex."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from quadmix.errors import RecipeError
from quadmix.search.space import LEAST_SHARE, ShareBounds, ShareSpace, draw_shares, share_table


def bounds_of(low, high, names=None):
    low, high = np.array(low, dtype=float), np.array(high, dtype=float)
    return ShareBounds(domains=names or tuple(f"d{i}" for i in range(len(low))), low=low, high=high)


def free_space(domains=5, natural=None):
    natural = np.full(domains, 1 / domains) if natural is None else np.array(natural)
    return ShareSpace(bounds=bounds_of([0] * len(natural), [1] * len(natural)), natural=natural)


@st.composite
def problems(draw):
    """Shares (all above 0) and bounds that some mixture meets; a domain in three is fixed."""
    m = draw(st.integers(2, 7))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    inside = rng.dirichlet(np.ones(m))
    low, high = inside * rng.uniform(0, 1, m), inside + (1 - inside) * rng.uniform(0, 1, m)
    fixed = rng.random(m) < 1 / 3
    low, high = np.where(fixed, inside, low), np.where(fixed, inside, high)
    return rng.dirichlet(np.full(m, 0.5), 3) + 1e-6, low, high


@given(problems())
def test_a_projection_keeps_sums_bounds_fixed_domains_and_the_ratios_of_free_domains(problem):
    shares, low, high = problem
    found = bounds_of(low, high).project(shares)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    assert (found >= low - 1e-9).all()
    assert (found <= high + 1e-9).all()
    fixed = low == high
    np.testing.assert_allclose(found[:, fixed], np.tile(low[fixed], (3, 1)), atol=1e-9)
    for row, given_row in zip(found, shares, strict=True):
        free = (row > low + 1e-7) & (row < high - 1e-7)
        ratio = row[free] / given_row[free]
        np.testing.assert_allclose(ratio, ratio.mean() if free.any() else 1, rtol=1e-6)


@given(problems())
def test_a_projection_equals_the_root_of_the_water_level(problem):
    shares, low, high = problem
    found = bounds_of(low, high).project(shares)

    def total(k, row):
        return np.clip(np.exp(k) * row, low, high).sum() - 1

    for row, got in zip(shares / shares.sum(1, keepdims=True), found, strict=True):
        if total(-40, row) * total(40, row) < 0:
            k = brentq(total, -40, 40, args=(row,), xtol=1e-15)
            np.testing.assert_allclose(got, np.clip(np.exp(k) * row, low, high), atol=1e-8)


def test_a_projection_on_hand_numbers():
    """d0 may have .5 at most; what is left keeps 1:3. d3 is fixed at .1, d4 must have .2."""
    bounds = bounds_of([0, 0, 0, 0.1, 0.2], [0.5, 1, 1, 0.1, 1])
    found = bounds.project(np.array([[0.9, 0.02, 0.06, 0.01, 0.01], [0.9, 0.02, 0.06, 0.5, 0.0]]))
    np.testing.assert_allclose(found, np.tile([0.5, 0.05, 0.15, 0.1, 0.2], (2, 1)), atol=1e-9)


def test_shares_that_meet_the_bounds_are_left_alone():
    shares = np.random.default_rng(0).dirichlet(np.ones(6), 20)
    np.testing.assert_allclose(bounds_of([0] * 6, [1] * 6).project(shares), shares, atol=1e-11)
    np.testing.assert_allclose(
        bounds_of([0] * 6, [1] * 6).project(np.eye(6)), np.eye(6), atol=1e-11, err_msg="exact zeros"
    )


def test_bounds_that_touch_leave_one_mixture():
    for low, high in (([0.2, 0.8], [0.2, 0.8]), ([0.0, 0.0], [0.3, 0.7]), ([0.4, 0.6], [1.0, 1.0])):
        expected = high if sum(high) == 1 else low
        found = bounds_of(low, high).project(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
        np.testing.assert_allclose(found, np.tile(expected, (3, 1)), atol=1e-9)


def test_contradictory_bounds_are_refused_by_name():
    names = ("web", "code", "math")
    with pytest.raises(RecipeError, match=r"'code': least share 0.5 and largest share 0.2 contradict"):
        bounds_of([0, 0.5, 0], [1, 0.2, 1], names)
    with pytest.raises(RecipeError, match=r"least shares add up to 1.2 \(math 0.7, web 0.5\)"):
        bounds_of([0.5, 0, 0.7], [1, 1, 1], names)
    with pytest.raises(RecipeError, match=r"largest shares add up to 0.6, expected at least 1"):
        bounds_of([0, 0, 0], [0.1, 0.2, 0.3], names)
    for low, high in (([-0.1, 0, 0], [1, 1, 1]), ([0, 0, 0], [1, 1, 1.1])):
        with pytest.raises(RecipeError, match=r"'(web|math)'"):
            bounds_of(low, high, names)


def test_points_and_shares_go_there_and_back():
    """As far as the box reaches: shares of at least LEAST_SHARE of the largest, and exact zeros."""
    space = free_space(6)
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.full(6, 0.7), 200)
    shares = np.where(shares < 1e-2 * shares.max(1, keepdims=True), 0.0, shares)
    shares /= shares.sum(1, keepdims=True)
    np.testing.assert_allclose(space.shares(space.points(shares)), shares, atol=1e-9)
    points = rng.random((200, 6))
    again = space.points(space.shares(points))
    np.testing.assert_allclose(space.shares(again), space.shares(points), atol=1e-9)
    assert again.min() >= 0
    np.testing.assert_allclose(again.max(1), 1)


def test_a_coordinate_is_the_logarithm_of_a_share_and_its_low_end_is_none():
    space = free_space(3)
    found = space.shares(np.array([[1.0, 0.5, 0.75], [1.0, 0.0, 1.0], [0.3, 0.3, 0.3]]))
    np.testing.assert_allclose(found[0] / found[0, 0], [1, LEAST_SHARE**0.5, LEAST_SHARE**0.25])
    np.testing.assert_allclose(found[1], [0.5, 0, 0.5], atol=1e-9)
    np.testing.assert_allclose(found[2], 1 / 3)


def test_every_point_meets_the_bounds_and_is_feasible():
    space = ShareSpace(
        bounds=bounds_of([0.05, 0, 0, 0.3], [0.5, 0.4, 1, 0.3]), natural=np.array([0.1, 0.5, 0.2, 0.2])
    )
    rng = np.random.default_rng(2)
    corners = np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, -1).T
    drawn = space.draw(rng, 50)
    for points in (rng.random((200, 4)), corners, drawn):
        table, ok = space.select(points)
        assert ok.all()
        assert table.is_share.all()
        np.testing.assert_allclose(table.values.sum(1), 1, atol=1e-12)
        assert (table.values >= space.bounds.low - 1e-9).all()
        assert (table.values <= space.bounds.high + 1e-9).all()
        np.testing.assert_array_equal(space.table(points).values, table.values)
        np.testing.assert_array_equal(space.published_table(points).values, table.values)
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_draws_go_from_single_domains_to_nearly_natural_mixtures_and_are_centred_between():
    natural = np.array([0.64, 0.16, 0.16, 0.04])
    shares = draw_shares(np.random.default_rng(3), natural, 4000)
    kept = shares.sum(1)
    assert (kept > 0.999).all()
    centre = np.sqrt(natural) / np.sqrt(natural).sum()  # .4 .2 .2 .1, times 1/.9
    np.testing.assert_allclose(shares.mean(0), centre, atol=0.02)
    assert (shares.max(1) > 0.98).mean() > 0.05
    assert (np.abs(shares - centre).max(1) < 0.1).mean() > 0.02
    assert (shares == 0).any()
    assert not ((shares > 0) & (shares < 2e-4)).any()


def test_equal_streams_draw_equal_points_and_a_design_is_a_draw():
    space = free_space(4)
    first, second = (space.draw(np.random.default_rng(4), 10) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert space.design(np.random.default_rng(4), 7).shape == (7, 4)


def test_the_average_of_points_is_that_of_their_shares():
    space = free_space(4)
    points = np.random.default_rng(5).random((10, 4)) * 0.3 + 0.7
    found = space.shares(space.average(points)[None])[0]
    np.testing.assert_allclose(found, space.shares(points).mean(0), atol=1e-9)


def test_names_say_which_domain_a_column_and_a_coordinate_belong_to():
    space = free_space(3)
    assert space.size == 3
    assert space.groups == (("share", "d0"), ("share", "d1"), ("share", "d2"))
    table = share_table(np.eye(3), space.domains)
    assert table.names == ("share[d0]", "share[d1]", "share[d2]")
    assert table.domains == (0, 1, 2)
