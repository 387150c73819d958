"""The draw and the whole selection: unbiased, independent of order and shards, held-out untouched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixing_tables import make_table, random_table
from reference import copies_at, mass_between, merged_score, paper_rank, rank_interval

from quadmix.errors import ScoreError
from quadmix.mixing.draw import draw_copies
from quadmix.mixing.normalise import fit_normaliser, normalise
from quadmix.mixing.prior import Prior, draw_theta
from quadmix.mixing.select import expected_tokens, group, select
from quadmix.rng import doc_keys

WIDE = Prior(num_domains=4, num_criteria=3, cutoff_max=1.0, floor_max=0.1)


def theta_of(seed):
    return draw_theta(np.random.default_rng(seed), WIDE, 1)[0]


@given(st.lists(st.floats(0, 20), min_size=1, max_size=50), st.integers(0, 1000), st.randoms())
def test_draw_rounds_up_or_down_and_ignores_order_and_shards(expected, seed, random):
    ids = [f"id-{i}" for i in range(len(expected))]
    wanted = np.array(expected)
    copies = draw_copies(wanted, ids, seed=seed)
    assert copies.dtype == np.int32
    assert (np.abs(copies - wanted) < 1).all()
    p = list(range(len(ids)))
    random.shuffle(p)
    np.testing.assert_array_equal(draw_copies(wanted[p], [ids[i] for i in p], seed=seed), copies[p])
    half = len(ids) // 2
    parts = [draw_copies(wanted[s], doc_keys(ids)[s], seed=seed) for s in (slice(half), slice(half, None))]
    np.testing.assert_array_equal(np.concatenate(parts), copies)


def test_draw_is_unbiased_and_shares_its_luck_between_expectations():
    keys = doc_keys([str(i) for i in range(40_000)])
    draws = {s: draw_copies(np.full(40_000, s), keys, seed=3) for s in (0.3, 0.7, 1.0, 1.3)}
    for s, copies in draws.items():
        assert copies.mean() == pytest.approx(s, abs=0.012)
    assert (draws[0.3] <= draws[0.7]).all()
    np.testing.assert_array_equal(draws[1.3], draws[0.3] + 1)
    assert not np.array_equal(draws[0.3], draw_copies(np.full(40_000, 0.3), keys, seed=4))


def test_draw_refuses_what_is_not_a_number_of_copies():
    for bad in (np.nan, np.inf, -0.1):
        with pytest.raises(ScoreError, match="expected copies of row 1 are"):
            draw_copies(np.array([1.0, bad]), ["a", "b"], seed=0)
    with pytest.raises(ScoreError, match="1 ids for 2"):
        draw_copies(np.ones(2), ["a"], seed=0)


@pytest.mark.parametrize("mode", ["interval", "paper"])
@pytest.mark.parametrize("ties", [False, True])
def test_selection_equals_the_method_done_by_hand(mode, ties):
    """Equations 1 to 3 of every document, in plain Python."""
    table = random_table(2, documents=120, ties=ties)
    table.scores[5, 1] = np.nan
    theta = theta_of(1)
    normalised = normalise(fit_normaliser(table), table.scores, table.domain)
    got = select(theta, normalised, table, seed=0, rank_mode=mode)
    rows = range(len(table))
    q = [merged_score(normalised[x].tolist(), theta.weights[table.domain[x]].tolist()) for x in rows]
    np.testing.assert_allclose(got.merged, q, rtol=1e-12)
    q = np.round(q, 12)
    for x in rows:
        m = table.domain[x]
        p = tuple(float(a[m]) for a in (theta.steepness, theta.cutoff, theta.exponent, theta.floor))
        if mode == "paper":
            expected = copies_at(paper_rank(x, q, table.tokens, table.domain), *p)
        else:
            low, high = rank_interval(x, q, table.tokens, table.domain)
            expected = mass_between(low, high, *p) / (high - low)
        assert got.expected[x] == pytest.approx(expected, rel=1e-9)
    assert (np.abs(got.copies - got.expected) < 1).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from(["interval", "paper", "hash-tiebreak"]))
def test_selection_does_not_depend_on_the_order_of_documents(seed, mode):
    table = random_table(seed, documents=150, ties=seed % 2 == 0)
    p = np.random.default_rng(seed).permutation(150)
    moved = table.take(p)
    normaliser = fit_normaliser(table)
    straight, shuffled = (
        select(theta_of(seed), normalise(normaliser, t.scores, t.domain), t, seed=7, rank_mode=mode)
        for t in (table, moved)
    )
    np.testing.assert_array_equal(shuffled.expected, straight.expected[p])
    np.testing.assert_array_equal(shuffled.copies, straight.copies[p])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000))
def test_expected_tokens_are_what_the_documents_add_up_to(seed):
    table = random_table(seed, documents=150, ties=seed % 2 == 0)
    theta = theta_of(seed)
    got = select(theta, normalise(fit_normaliser(table), table.scores, table.domain), table, seed=0)
    per_domain = np.bincount(table.domain, weights=table.tokens * got.expected, minlength=4)
    np.testing.assert_allclose(per_domain, expected_tokens(theta, table), rtol=1e-12)


def test_held_out_documents_are_never_selected_and_change_nothing():
    base = random_table(4, documents=300)
    held = np.random.default_rng(0).random(300) < 0.2
    table = make_table(base.tokens, base.domain, base.scores, held_out=held)
    theta, normaliser = theta_of(4), fit_normaliser(table)
    whole = select(theta, normalise(normaliser, table.scores, table.domain), table, seed=1)
    kept = table.take(~held)
    alone = select(theta, normalise(normaliser, kept.scores, kept.domain), kept, seed=1)
    assert whole.copies[held].sum() == 0
    assert whole.expected[held].sum() == 0
    assert np.isfinite(whole.ranks.high).all()
    np.testing.assert_array_equal(whole.expected[~held], alone.expected)
    np.testing.assert_array_equal(whole.copies[~held], alone.copies)
    np.testing.assert_array_equal(expected_tokens(theta, table), expected_tokens(theta, kept))


def test_a_better_score_never_gets_fewer_expected_copies():
    table = random_table(9, ties=True)
    got = select(theta_of(9), normalise(fit_normaliser(table), table.scores, table.domain), table, seed=0)
    for m in range(4):
        rows = np.flatnonzero(table.domain == m)
        rows = rows[np.argsort(got.merged[rows], kind="stable")]
        assert (np.diff(got.expected[rows]) <= 1e-12).all()


def test_prepared_groups_and_empty_domains_change_nothing():
    table = make_table([3, 4, 5], [0, 2, 2], [[0.1], [0.3], [0.2]], domains=4)
    theta = draw_theta(np.random.default_rng(0), Prior(num_domains=4, num_criteria=1, cutoff_max=1.0), 1)[0]
    normalised = normalise(fit_normaliser(table), table.scores, table.domain)
    plain = select(theta, normalised, table, seed=0)
    prepared = select(theta, normalised, table, seed=0, grouped=group(table))
    np.testing.assert_array_equal(plain.expected, prepared.expected)
    assert expected_tokens(theta, table)[[1, 3]].tolist() == [0.0, 0.0]


def test_empty_table_selects_nothing():
    table = make_table([], [], np.empty((0, 1)))
    theta = draw_theta(np.random.default_rng(0), Prior(num_domains=1, num_criteria=1), 1)[0]
    assert len(select(theta, table.scores, table, seed=0).copies) == 0
