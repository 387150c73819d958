"""A batch of θ gives row by row what `from_unit`, `curve_mass` and `fit_budget` give for one θ."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixing_tables import make_table
from scipy.integrate import quad

from quadmix.errors import BudgetError, RecipeError
from quadmix.mixing.batch import (
    ThetaBatch,
    batch_from_unit,
    batch_mass,
    batch_to_unit,
    fit_budgets,
    stack_thetas,
    window_integral,
)
from quadmix.mixing.curve import curve_mass
from quadmix.mixing.limits import Limits
from quadmix.mixing.prior import Prior, draw_theta, from_unit, to_unit
from quadmix.mixing.quota import fit_budget
from quadmix.types import Theta

FIELDS = [field.name for field in dataclasses.fields(ThetaBatch)]
POOL = np.array([5e6, 3e5, 8e6, 1e6, 2e4])
TABLE = make_table(POOL, np.arange(5), np.zeros(5))
TOTAL = float(POOL.sum())


def limits(*, multipliers=1.0, low=0.0, high=1.0, max_copies=None):
    five = (np.broadcast_to(np.asarray(v, dtype=float), (5,)).copy() for v in (multipliers, low, high))
    m, lo, hi = five
    return Limits(multipliers=m, min_share=lo, max_share=hi, max_copies=max_copies)


def assert_fits_agree(thetas, budget, *, table=TABLE, pool=POOL, **options):
    """Compare with `fit_budget` θ by θ; return how many could be fitted."""
    got = fit_budgets(stack_thetas(thetas), pool, budget, **options)
    assert got.ok.shape == (len(thetas),)
    for i, theta in enumerate(thetas):
        mine = got.batch.theta(i)
        try:
            expected = fit_budget(theta, table, budget, **options)
        except BudgetError:
            assert not got.ok[i], i
            for name in FIELDS:
                np.testing.assert_array_equal(getattr(mine, name), getattr(theta, name))
            continue
        assert got.ok[i], i
        tokens = pool * curve_mass(mine)
        assert tokens.sum() == pytest.approx(budget, rel=1e-9)
        np.testing.assert_allclose(tokens, pool * curve_mass(expected), rtol=1e-6, atol=1e-12 * budget)
        for name in ("weights", "steepness", "exponent"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(expected, name))
        np.testing.assert_allclose(mine.floor, expected.floor, rtol=1e-12)
        np.testing.assert_allclose(mine.scale, expected.scale, rtol=1e-6)
        # below that, the reference's bisection to 2^-80 leaves a scale of 1 ± 1e-9
        wide = expected.cutoff > 1e-12
        np.testing.assert_array_equal(
            (mine.scale == theta.scale)[wide], (expected.scale == theta.scale)[wide]
        )
        np.testing.assert_allclose(mine.cutoff, expected.cutoff, rtol=1e-6, atol=1e-12)
    return int(got.ok.sum())


def thetas_of(seed, count=4, *, wild=False, **changes):
    """Draws of the paper's prior, or of one far beyond it (with scales and closed domains)."""
    rng = np.random.default_rng(seed)
    if not wild:
        drawn = draw_theta(rng, Prior(num_domains=5, num_criteria=2), count)
        return [dataclasses.replace(t, **{k: np.full(5, v) for k, v in changes.items()}) for t in drawn]
    prior = Prior(num_domains=5, num_criteria=2, cutoff_max=1.0, exponent_max=5.0, floor_max=0.05)
    return [
        dataclasses.replace(
            t,
            steepness=10.0 ** rng.uniform(-3, 5, 5),
            cutoff=np.where(rng.random(5) < 0.2, rng.choice([0.0, 1e-13, 1e-9, 1.0], 5), t.cutoff),
            exponent=np.where(rng.random(5) < 0.2, 0.0, t.exponent),
            floor=np.where(rng.random(5) < 0.3, rng.choice([0.0, 1e-9], 5), t.floor),
            scale=rng.choice([1.0, 0.3, 2.5], 5),
        )
        for t in draw_theta(rng, prior, count)
    ]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6), st.floats(-4.5, 0.4), st.booleans(), st.sampled_from(["cutoff", "thin"])
)  # fmt: skip
def test_fits_without_limits_agree(seed, decades, wild, method):
    assert_fits_agree(thetas_of(seed, wild=wild), 10.0**decades * TOTAL, method=method)


@st.composite
def any_limits(draw):
    """Bounds (some domains fixed), multipliers and a cap, or some of them."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    low = rng.dirichlet(np.ones(5)) * rng.choice([0.0, 0.3, 0.9]) * (rng.random(5) < 0.7)
    high = np.where(rng.random(5) < 0.3, low, np.minimum(low + rng.random(5), 1.0))
    if high.sum() < 1:
        high[rng.integers(5)] = 1.0
    return limits(
        multipliers=10.0 ** rng.uniform(-1, 1, 5) if draw(st.booleans()) else 1.0,
        low=low if draw(st.booleans()) else 0.0,
        high=high,
        max_copies=draw(st.sampled_from([None, 0.4, 1.0, 1.3, 3.0])),
    )


@settings(deadline=None, max_examples=150)
@given(
    any_limits(),
    st.integers(0, 10**6),
    st.floats(-4, 0.3),
    st.booleans(),
    st.sampled_from(["cutoff", "thin"]),
)
def test_fits_under_limits_agree(some, seed, decades, wild, method):
    assert_fits_agree(thetas_of(seed, wild=wild), 10.0**decades * TOTAL, method=method, limits=some)


@pytest.mark.parametrize(
    ("share", "options"),
    [
        (0.05, {}),
        (0.9, {}),  # cutoffs end at 1
        (1e-4, {}),  # the floors are tamed
        (0.004, {"method": "thin"}),
        (0.05, {"limits": limits(low=[0.1, 0, 0.2, 0, 0])}),
        (0.05, {"limits": limits(high=[0.2, 0.1, 1, 1, 1])}),
        (0.01, {"limits": limits(low=[0.3, 0, 0, 0, 0], high=[0.3, 1, 1, 1, 1])}),
        (0.01, {"limits": limits(low=[0.3, 0.1, 0.3, 0.2, 0.1], high=[0.3, 0.1, 0.3, 0.2, 0.1])}),
        (0.5, {"limits": limits(max_copies=1.0)}),
        (0.02, {"limits": limits(multipliers=[5, 1, 1, 0.2, 1], max_copies=1.5)}),
        (0.9, {"limits": limits(multipliers=[1, 1, 1, 8, 1])}),  # scale beyond the whole domain
        (1e-3, {"limits": limits(high=[1e-5, 1, 1, 1, 1])}),  # less than the floor gives
    ],
)
def test_every_kind_of_limit_agrees(share, options):
    fitted = assert_fits_agree(thetas_of(1, 20), share * TOTAL, **options)
    assert fitted > 10, "a comparison of refusals alone would say little"


@pytest.mark.parametrize(
    "changes", [{"exponent": 0.0}, {"floor": 1e-12}, {"floor": 0.0}, {"cutoff": 1.0}, {"steepness": 1e5}]
)
def test_extreme_curves_agree(changes):
    for share in (1e-5, 0.05, 0.99):
        assert assert_fits_agree(thetas_of(2, 10, **changes), share * TOTAL) > 0


def test_an_empty_domain_gets_nothing_and_cannot_hold_a_share():
    pool = np.where(np.arange(5) == 3, 0.0, POOL)
    table = make_table(POOL, np.arange(5), np.zeros(5), held_out=np.arange(5) == 3)
    assert assert_fits_agree(thetas_of(3, 6), 0.05 * TOTAL, table=table, pool=pool) == 6
    held = limits(low=[0, 0, 0, 0.1, 0])
    assert assert_fits_agree(thetas_of(3, 6), 0.05 * TOTAL, table=table, pool=pool, limits=held) == 0


def test_rows_do_not_depend_on_their_companions():
    thetas = thetas_of(4, 8, wild=True)
    some = limits(low=[0.1, 0, 0, 0.05, 0], high=[0.5, 0.2, 1, 1, 1], max_copies=2.0)
    for options in ({}, {"limits": some}):
        together = fit_budgets(stack_thetas(thetas), POOL, 0.05 * TOTAL, **options)
        for i, theta in enumerate(thetas):
            alone = fit_budgets(stack_thetas([theta]), POOL, 0.05 * TOTAL, **options)
            assert alone.ok[0] == together.ok[i]
            for name in FIELDS:
                got, expected = getattr(alone.batch, name)[0], getattr(together.batch, name)[i]
                np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-15)


def test_the_argument_is_not_changed():
    batch = stack_thetas(thetas_of(5))
    before = {name: getattr(batch, name).copy() for name in FIELDS}
    fit_budgets(batch, POOL, 0.1 * TOTAL, limits=limits(max_copies=1.1, multipliers=[2, 1, 1, 1, 1]))
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(batch, name), before[name])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(["log", "linear"]), st.sampled_from([0.0, 0.01]))
def test_unit_coordinates_agree(seed, steepness, floor_max):
    prior = Prior(
        num_domains=4, num_criteria=3, steepness=steepness, floor_max=floor_max, cutoff_max=0.7,
        exponent_max=2.0,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    units = rng.uniform(-0.3, 1.6, (6, prior.num_parameters))
    units[0, :3] = -1.0  # no weight left: equal ones
    batch = batch_from_unit(units, prior)
    assert len(batch) == 6
    for i, unit in enumerate(units):
        theta = from_unit(unit, prior)
        for name in FIELDS:
            np.testing.assert_allclose(getattr(batch, name)[i], getattr(theta, name), rtol=1e-14)
            np.testing.assert_array_equal(getattr(batch.theta(i), name), getattr(batch, name)[i])
    expected = np.stack([to_unit(batch.theta(i), prior) for i in range(6)])
    np.testing.assert_allclose(batch_to_unit(batch, prior), expected, rtol=1e-14, atol=1e-15)


def test_rows_selects_by_index_mask_and_slice():
    batch = stack_thetas(thetas_of(0, 5))
    for index in (np.array([3, 1]), np.array([False, True, False, True, False]), slice(1, 3)):
        got = batch.rows(index)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(got, name), getattr(batch, name)[index])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.booleans())
def test_masses_agree_with_curve_mass(seed, wild):
    thetas = thetas_of(seed, wild=wild)
    expected = np.stack([curve_mass(t) for t in thetas])
    np.testing.assert_allclose(batch_mass(stack_thetas(thetas)), expected, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 1000), st.floats(1e-4, 1), st.floats(0, 6), st.floats(1e-6, 1))
def test_the_window_integral_equals_adaptive_quadrature(steepness, cutoff, exponent, rank):
    end = min(rank, cutoff)

    def curve(x):
        return (2 / (1 + np.exp(-steepness * (cutoff - x)))) ** exponent

    cuts = [0.0, *(c for c in (cutoff - d / steepness for d in (40, 10, 3, 1)) if 0 < c < end), end]
    exact = sum(quad(curve, a, b, epsabs=1e-13, epsrel=1e-12)[0] for a, b in itertools.pairwise(cuts))
    one = (np.array([value]) for value in (steepness, cutoff, exponent))
    got = window_integral(np.array([[rank]]), *one)
    assert got[0, 0] == pytest.approx(exact, rel=1e-8, abs=1e-12)


def test_a_small_window_keeps_its_relative_precision():
    """At λω = 1e-9 the window is flat: mass ω, however steep the exponent."""
    theta = Theta(
        weights=np.ones((1, 1)), steepness=np.array([1.0]), cutoff=np.array([1e-9]),
        exponent=np.array([2.0]), floor=np.zeros(1),
    )  # fmt: skip
    assert batch_mass(stack_thetas([theta]))[0, 0] == pytest.approx(1e-9, rel=1e-8)


def test_wrong_arguments_are_named():
    batch, prior = stack_thetas(thetas_of(0)), Prior(num_domains=4, num_criteria=2)
    with pytest.raises(RecipeError, match="got no theta"):
        stack_thetas([])
    with pytest.raises(RecipeError, match=r"shape \(3, 7\), expected \(K, 24\)"):
        batch_from_unit(np.zeros((3, 7)), prior)
    with pytest.raises(RecipeError, match=r"expected \(K, 4, 2\) as in the prior"):
        batch_to_unit(batch, prior)
    with pytest.raises(RecipeError, match=r"5 domains, the pool 3; expected the same"):
        fit_budgets(batch, POOL[:3], 1.0)
    with pytest.raises(RecipeError, match="cutoff has shape"):
        dataclasses.replace(batch, cutoff=np.zeros((4, 3)))
    for budget in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BudgetError, match=r"token budget is .*set budget.tokens"):
            fit_budgets(batch, POOL, budget)
