"""Budgets: met in every mode, under multipliers, share bounds and caps; impossible ones are named."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mixing_tables import make_table, random_table

from quadmix.errors import BudgetError, RecipeError, ScoreError
from quadmix.mixing.curve import curve_mass, expected_copies
from quadmix.mixing.limits import Limits, limits_from
from quadmix.mixing.normalise import fit_normaliser, normalise
from quadmix.mixing.prior import Prior, draw_theta, prior_mean
from quadmix.mixing.quota import cap_copies, fit_budget
from quadmix.mixing.select import expected_tokens, select
from quadmix.recipe import MixingSection

PRIOR = Prior(num_domains=4, num_criteria=3)
TABLE = random_table(0)
POOL = float(TABLE.tokens.sum())


def theta_of(seed, prior=PRIOR):
    return draw_theta(np.random.default_rng(seed), prior, 1)[0]


def limits(*, multipliers=(1, 1, 1, 1), low=(0, 0, 0, 0), high=(1, 1, 1, 1), max_copies=None):
    arrays = (np.array(a, dtype=float) for a in (multipliers, low, high))
    m, lo, hi = arrays
    return Limits(multipliers=m, min_share=lo, max_share=hi, max_copies=max_copies, domains=TABLE.domains)


def shares(theta):
    tokens = expected_tokens(theta, TABLE)
    return tokens / tokens.sum()


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(1e-5, 1.0))
def test_budget_is_met_by_one_k(seed, share):
    theta = theta_of(seed)
    fitted = fit_budget(theta, TABLE, share * POOL)
    assert expected_tokens(fitted, TABLE).sum() == pytest.approx(share * POOL, rel=1e-9)
    assert (fitted.scale == 1).all()
    k = fitted.cutoff / theta.cutoff
    below = fitted.cutoff < 1
    np.testing.assert_allclose(k[below], k.max() if not below.all() else k[0], rtol=1e-9)
    np.testing.assert_array_equal(fitted.weights, theta.weights)
    np.testing.assert_array_equal(fitted.steepness, theta.steepness)


def test_the_argument_is_not_changed():
    theta = theta_of(1)
    before = theta.cutoff.copy()
    fit_budget(theta, TABLE, POOL / 3, limits=limits(max_copies=1.1, multipliers=(2, 1, 1, 1)))
    np.testing.assert_array_equal(theta.cutoff, before)
    assert (theta.scale == 1).all()


@pytest.mark.parametrize("mode", ["interval", "paper", "hash-tiebreak"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("method", ["cutoff", "thin"])
def test_documents_add_up_to_the_budget_in_every_mode(mode, ties, method):
    table = random_table(3, ties=ties)
    normalised = normalise(fit_normaliser(table), table.scores, table.domain)
    theta = theta_of(3, Prior(num_domains=4, num_criteria=3, cutoff_max=1.0))
    budget = 0.2 * float(table.tokens.sum())
    fitted = fit_budget(theta, table, budget, method=method, rank_mode=mode, normalised=normalised)
    got = select(fitted, normalised, table, seed=0, rank_mode=mode)
    assert (got.expected * table.tokens).sum() == pytest.approx(budget, rel=1e-9)


def test_everything_tied_still_meets_the_budget_in_paper_mode():
    """One tied group per domain enters as a whole; scale makes up the difference."""
    table = make_table(TABLE.tokens, TABLE.domain, np.zeros((len(TABLE), 3)))
    normalised = normalise(fit_normaliser(table), table.scores, table.domain)
    fitted = fit_budget(theta_of(0), table, POOL / 10, rank_mode="paper", normalised=normalised)
    got = select(fitted, normalised, table, seed=0, rank_mode="paper")
    assert (got.expected * table.tokens).sum() == pytest.approx(POOL / 10, rel=1e-9)


def test_whole_pool_can_be_asked_for_and_no_more():
    theta = theta_of(5)
    theta = replace(theta, exponent=np.zeros(4), floor=np.zeros(4))
    full = fit_budget(theta, TABLE, POOL)
    assert full.cutoff == pytest.approx([1.0] * 4, abs=1e-9)
    with pytest.raises(BudgetError, match=rf"exceeds {POOL:,.0f}, the most .* lower budget.tokens"):
        fit_budget(theta, TABLE, POOL * 1.001)


@pytest.mark.parametrize("budget", [0, -5, float("nan"), float("inf")])
def test_budget_must_be_a_positive_number(budget):
    with pytest.raises(BudgetError, match=r"token budget is .*set budget.tokens or budget.share"):
        fit_budget(theta_of(0), TABLE, budget)


def test_thinning_lowers_all_copies_by_one_factor_and_never_raises():
    theta = theta_of(2)
    given = expected_tokens(theta, TABLE).sum()
    thinned = fit_budget(theta, TABLE, given / 2, method="thin")
    np.testing.assert_allclose(thinned.scale, 0.5, rtol=1e-12)
    np.testing.assert_array_equal(thinned.cutoff, theta.cutoff)
    with pytest.raises(BudgetError, match=r"use budget.method: cutoff"):
        fit_budget(theta, TABLE, given * 1.01, method="thin")


def test_floor_is_lowered_where_it_would_eat_a_small_budget():
    """Differs from the paper: at most half of the budget goes to the trickle outside the window."""
    theta = prior_mean(PRIOR)
    small = fit_budget(theta, TABLE, 1e-4 * POOL)
    assert (small.floor * TABLE.domain_tokens()).sum() == pytest.approx(0.5e-4 * POOL)
    np.testing.assert_array_equal(fit_budget(theta, TABLE, 0.05 * POOL).floor, theta.floor)


def test_multiplier_is_relative_to_what_the_common_k_gives():
    theta = theta_of(7)
    plain = fit_budget(theta, TABLE, 0.1 * POOL)
    lifted = fit_budget(theta, TABLE, 0.1 * POOL, limits=limits(multipliers=(3, 1, 1, 1)))
    a, b = expected_tokens(plain, TABLE), expected_tokens(lifted, TABLE)
    assert b.sum() == pytest.approx(0.1 * POOL, rel=1e-9)
    k = lifted.cutoff[1] / theta.cutoff[1]
    np.testing.assert_allclose(lifted.cutoff[1:], k * theta.cutoff[1:], rtol=1e-9)
    common = replace(theta, cutoff=k * theta.cutoff)
    assert b[0] == pytest.approx(3 * expected_tokens(common, TABLE)[0], rel=1e-9)
    assert b[0] > a[0]
    assert (lifted.scale == 1).all(), "the cutoff suffices here"


def test_multiplier_beyond_the_whole_domain_raises_the_scale():
    fitted = fit_budget(theta_of(7), TABLE, 0.9 * POOL, limits=limits(multipliers=(8, 1, 1, 1)))
    assert fitted.cutoff[0] == 1
    assert fitted.scale[0] > 1
    assert (fitted.scale[1:] == 1).all()
    assert expected_tokens(fitted, TABLE).sum() == pytest.approx(0.9 * POOL, rel=1e-9)


@st.composite
def bounds(draw):
    raw = np.array(draw(st.lists(st.floats(0, 1), min_size=4, max_size=4)))
    low = raw * draw(st.floats(0, 1)) / max(raw.sum(), 1)
    gap = np.array(draw(st.lists(st.floats(0, 1), min_size=4, max_size=4)))
    high = np.minimum(low + gap, 1.0)
    assume(high.sum() >= 1)
    return low, high


@settings(deadline=None)
@given(bounds(), st.integers(0, 1000), st.floats(0.01, 0.25), st.sampled_from(["cutoff", "thin"]))
def test_share_bounds_are_kept_and_the_budget_is_met(bound, seed, share, method):
    low, high = bound
    theta = theta_of(seed, Prior(num_domains=4, num_criteria=3, cutoff_max=1.0))
    widest = theta.cutoff if method == "thin" else np.ones(4)
    most = np.minimum(expected_tokens(replace(theta, cutoff=widest), TABLE), high * share * POOL)
    if np.maximum(most, low * share * POOL).sum() < share * POOL:
        with pytest.raises(BudgetError, match=r"exceeds .* or raise mixing.max_share|use budget.method"):
            fit_budget(theta, TABLE, share * POOL, method=method, limits=limits(low=low, high=high))
        return
    fitted = fit_budget(theta, TABLE, share * POOL, method=method, limits=limits(low=low, high=high))
    assert expected_tokens(fitted, TABLE).sum() == pytest.approx(share * POOL, rel=1e-9)
    assert (shares(fitted) >= low - 1e-9).all()
    assert (shares(fitted) <= high + 1e-9).all()


def test_domains_inside_their_bounds_keep_one_common_k():
    """Water-filling: only the violated domain moves away from k times its cutoff."""
    theta = theta_of(11)
    fitted = fit_budget(theta, TABLE, 0.1 * POOL, limits=limits(low=(0.6, 0, 0, 0)))
    assert shares(fitted)[0] == pytest.approx(0.6, rel=1e-9)
    k = fitted.cutoff / theta.cutoff
    np.testing.assert_allclose(k[1:], k[1], rtol=1e-9)
    assert k[0] > k[1]


def test_minimum_shares_that_leave_no_room_silence_the_other_floors():
    fitted = fit_budget(theta_of(4), TABLE, 0.1 * POOL, limits=limits(low=(0.5, 0.5, 0, 0)))
    np.testing.assert_allclose(shares(fitted), [0.5, 0.5, 0, 0], atol=1e-9)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 3.0), st.floats(0.01, 0.9))
def test_no_document_expects_more_copies_than_the_cap(seed, cap, share):
    theta = theta_of(seed, Prior(num_domains=4, num_criteria=3, exponent_max=4.0, floor_max=0.01))
    bound = limits(max_copies=cap, multipliers=(5, 1, 1, 0.5))
    full = replace(cap_copies(theta, cap), cutoff=np.ones(4))
    given = expected_tokens(full, TABLE)
    room = cap / (full.scale * (2**full.exponent + full.floor))
    if np.minimum(bound.multipliers * given, given * room).sum() < share * POOL:
        with pytest.raises(BudgetError, match=r"raise mixing.repetition_cap \(now"):
            fit_budget(theta, TABLE, share * POOL, limits=bound)
        return
    fitted = fit_budget(theta, TABLE, share * POOL, limits=bound)
    assert expected_tokens(fitted, TABLE).sum() == pytest.approx(share * POOL, rel=1e-9)
    assert (expected_copies(np.zeros(4), fitted, np.arange(4)) <= cap * (1 + 1e-9)).all()


def test_cap_lowers_exponents_before_scales():
    theta = theta_of(0, Prior(num_domains=4, num_criteria=3, exponent_max=6.0))
    capped = cap_copies(theta, 1.5)
    assert (capped.scale == 1).all()
    assert (2**capped.exponent + capped.floor <= 1.5 + 1e-12).all()
    low = cap_copies(theta, 0.5)
    assert (low.exponent == 0).all()
    np.testing.assert_allclose(low.scale * (1 + low.floor), 0.5)
    loose = cap_copies(theta, 100.0)
    np.testing.assert_array_equal(loose.exponent, theta.exponent)


def test_impossible_minimum_share_under_a_cap_is_named():
    with pytest.raises(BudgetError, match=r"min_share 0.9 of domain 'm0' .* or raise mixing.repetition_cap"):
        fit_budget(theta_of(0), TABLE, 0.9 * POOL, limits=limits(low=(0.9, 0, 0, 0), max_copies=1.0))


def test_budget_beyond_all_maximum_shares_is_named():
    table = make_table(TABLE.tokens, np.minimum(TABLE.domain, 1), TABLE.scores, domains=4)
    with pytest.raises(BudgetError, match=r"exceeds .* or raise mixing.max_share"):
        fit_budget(theta_of(0), table, 0.1 * POOL, limits=limits(high=(0.3, 0.3, 1, 1)))


def test_contradictory_limits_name_the_domains():
    with pytest.raises(RecipeError, match=r"min_share of domain 'm1' is 0.5, above its max_share 0.2"):
        limits(low=(0, 0.5, 0, 0), high=(1, 0.2, 1, 1))
    with pytest.raises(RecipeError, match=r"min_share adds up to 1.2 \('m0' 0.6, 'm1' 0.6\)"):
        limits(low=(0.6, 0.6, 0, 0))
    with pytest.raises(
        RecipeError, match=r"max_share adds up to 0.4 \('m0' 0.1, 'm1' 0.1, 'm2' 0.1, 'm3' 0.1\)"
    ):
        limits(high=(0.1, 0.1, 0.1, 0.1))
    with pytest.raises(RecipeError, match="multiplier of domain 'm2' is 0, expected > 0"):
        limits(multipliers=(1, 1, 0, 1))
    with pytest.raises(RecipeError, match=r"must lie in \[0, 1\]"):
        limits(low=(-0.1, 0, 0, 0))
    with pytest.raises(RecipeError, match="max_copies is 0"):
        limits(max_copies=0)
    with pytest.raises(RecipeError, match=r"expected \(4,\) finite numbers"):
        limits(low=(0.1,))


def test_limits_from_the_recipe():
    section = MixingSection(multipliers={"b": 2.0}, max_share={"a": 0.7}, repetition_cap=6)
    got = limits_from(section, ("a", "b"), epochs=4.0)
    assert got is not None
    assert got.multipliers.tolist() == [1, 2]
    assert got.min_share.tolist() == [0, 0]
    assert got.max_share.tolist() == [0.7, 1]
    assert got.max_copies == 1.5
    assert limits_from(MixingSection(), ("a", "b"), epochs=4.0) is None


def test_limits_from_names_unknown_domains_and_bad_epochs():
    with pytest.raises(
        RecipeError, match=r"mixing.min_share names the domain 'scince'.*did you mean 'science'"
    ):
        limits_from(MixingSection(min_share={"scince": 0.1}), ("science", "law"), 1.0)
    with pytest.raises(RecipeError, match="expected one of science, law"):
        limits_from(MixingSection(multipliers={"zzz": 2.0}), ("science", "law"), 1.0)
    with pytest.raises(RecipeError, match="epochs is 0"):
        limits_from(MixingSection(repetition_cap=2), ("science",), 0)


def test_point_modes_need_the_normalised_scores_and_shapes_must_fit():
    with pytest.raises(ScoreError, match="rank mode 'paper' needs `normalised`"):
        fit_budget(theta_of(0), TABLE, 100, rank_mode="paper")
    with pytest.raises(RecipeError, match="theta has 2 domains, expected 4"):
        fit_budget(prior_mean(Prior(num_domains=2, num_criteria=3)), TABLE, 100)


def test_held_out_tokens_are_not_part_of_the_pool():
    held = np.arange(len(TABLE)) % 2 == 0
    table = make_table(TABLE.tokens, TABLE.domain, TABLE.scores, held_out=held)
    fitted = fit_budget(theta_of(1), table, 0.1 * POOL)
    alone = fit_budget(theta_of(1), table.take(~held), 0.1 * POOL)
    np.testing.assert_array_equal(fitted.cutoff, alone.cutoff)


def test_a_domain_without_documents_costs_nothing():
    table = make_table(TABLE.tokens, np.minimum(TABLE.domain, 2), TABLE.scores, domains=4)
    fitted = fit_budget(theta_of(1), table, 0.1 * POOL, limits=limits(multipliers=(1, 2, 1, 3)))
    tokens = expected_tokens(fitted, table)
    assert tokens[3] == 0
    assert tokens.sum() == pytest.approx(0.1 * POOL, rel=1e-9)
    with pytest.raises(BudgetError, match=r"min_share 0.1 of domain 'm3'"):
        fit_budget(theta_of(1), table, 0.1 * POOL, limits=limits(low=(0, 0, 0, 0.1)))


def test_huge_steepness_and_full_cutoffs_are_solved():
    theta = theta_of(1)
    steep = replace(theta, steepness=np.full(4, 1e6), cutoff=np.ones(4), exponent=np.ones(4))
    for share in (0.01, 1.0, 1.9):
        fitted = fit_budget(steep, TABLE, share * POOL)
        assert (TABLE.domain_tokens() * curve_mass(fitted)).sum() == pytest.approx(share * POOL, rel=1e-9)
