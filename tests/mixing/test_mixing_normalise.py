"""σ: mid-ranks against a loop, exact merging of shards, bounded knots, constants, missing scores, JSON."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixing_tables import make_table, random_table
from reference import mid_rank

from quadmix.errors import InputError, ScoreError
from quadmix.mixing.normalise import Normaliser, fit_normaliser, freeze, normalise
from quadmix.mixing.sketch import float_values, merge_sketches, ordered_bits, sketch
from quadmix.types import from_json, to_json

KINDS = ["rank-global", "rank-domain", "zscore", "robust-z", "identity"]


def frozen_bytes(normaliser):
    return json.dumps(to_json(normaliser))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_rank_kinds_equal_the_loop(seed, by_domain):
    table = random_table(seed, documents=40, domains=3, ties=True)
    table.scores[3, 0] = np.nan
    kind = "rank-domain" if by_domain else "rank-global"
    got = normalise(fit_normaliser(table, kind), table.scores, table.domain)
    for x in range(len(table)):
        mates = table.domain == table.domain[x] if by_domain else slice(None)
        for n in range(3):
            if np.isnan(table.scores[x, n]):
                assert np.isnan(got[x, n])
                continue
            expected = mid_rank(table.scores[x, n], table.scores[mates, n], table.tokens[mates].tolist())
            assert got[x, n] == pytest.approx(expected, abs=1e-7)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.lists(st.integers(0, 200), max_size=5), st.sampled_from(KINDS))
def test_any_grouping_of_shards_freezes_to_the_same_bytes(seed, cuts, kind):
    """Merging is exact: left to right, right to left and in one go agree with fitting the whole."""
    table = random_table(seed, documents=200, ties=seed % 2 == 0)
    edges = [0, *sorted(cuts), 200]
    shards = [sketch(table.take(np.arange(a, b))) for a, b in pairwise(edges)]
    left = shards[0]
    for shard in shards[1:]:
        left = merge_sketches([left, shard])
    right = shards[-1]
    for shard in reversed(shards[:-1]):
        right = merge_sketches([shard, right])
    whole = frozen_bytes(fit_normaliser(table, kind))
    for merged in (left, right, merge_sketches(shards)):
        assert frozen_bytes(freeze(merged, kind)) == whole


def test_many_distinct_values_keep_bounded_knots_and_a_small_rank_error():
    rng = np.random.default_rng(3)
    size = 150_000
    scores = np.where(rng.random(size) < 0.2, 0.25, rng.lognormal(0, 2, size)).astype(np.float32)
    table = make_table(rng.integers(1, 500, size), np.zeros(size), scores)
    normaliser = fit_normaliser(table)
    assert len(normaliser.knots[0].values) <= 65_536
    got = normalise(normaliser, table.scores, table.domain)[:, 0]
    order = np.argsort(scores, kind="stable")
    weight = np.cumsum(table.tokens[order], dtype=float)
    value, first, inverse = np.unique(scores[order], return_index=True, return_inverse=True)
    last = np.append(first[1:], size) - 1
    below = np.append(0.0, weight)[first]
    exact = ((below + weight[last]) / 2 / weight[-1])[inverse]
    assert len(value) > 100_000
    assert np.abs(got[order] - exact).max() <= 1e-4


@pytest.mark.parametrize("kind", ["rank-global", "rank-domain", "zscore", "robust-z"])
def test_constant_criterion_is_one_half_everywhere(kind):
    table = make_table([5, 9, 1, 3], [0, 0, 1, 1], np.full((4, 1), 7.5))
    assert normalise(fit_normaliser(table, kind), table.scores, table.domain).tolist() == [[0.5]] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_monotone_kind_keeps_the_order_and_the_gaps(kind):
    """A better score never gets a worse value within a domain, and NaN stays NaN."""
    table = random_table(5, ties=True)
    table.scores[::7, 1] = np.nan
    got = normalise(fit_normaliser(table, kind), table.scores, table.domain)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(table.scores))
    for m in range(4):
        rows = np.flatnonzero((table.domain == m) & ~np.isnan(table.scores[:, 1]))
        rows = rows[np.argsort(table.scores[rows, 1])]
        assert (np.diff(got[rows, 1]) >= 0).all()
        assert got[rows[0], 1] < got[rows[-1], 1]


def test_ranks_lie_in_the_unit_interval_with_the_best_near_zero():
    table = random_table(6)
    got = normalise(fit_normaliser(table), table.scores, table.domain)
    assert got.min() > 0
    assert got.max() < 1
    assert np.argmin(got[:, 0]) == np.argmin(table.scores[:, 0])


def test_z_kinds_are_token_weighted():
    table = make_table([1, 1, 2], [0, 0, 0], [0.0, 2.0, 3.0])
    repeated = np.array([0.0, 2.0, 3.0, 3.0])
    got = normalise(fit_normaliser(table, "zscore"), table.scores, table.domain)[:, 0]
    np.testing.assert_allclose(got, (np.array([0.0, 2.0, 3.0]) - repeated.mean()) / repeated.std(), rtol=1e-6)


def test_robust_z_ignores_an_outlier_that_moves_the_zscore():
    values = np.append(np.random.default_rng(0).normal(size=999), 1e6)
    table = make_table(np.ones(1000), np.zeros(1000), values)
    robust = fit_normaliser(table, "robust-z")
    assert abs(robust.centre[0]) < 0.2
    assert 0.8 < robust.spread[0] < 1.2
    assert fit_normaliser(table, "zscore").spread[0] > 1e4


def test_robust_z_keeps_a_spread_when_most_tokens_are_tied():
    table = make_table([98, 1, 1], [0, 0, 0], [0.0, 1.0, 2.0])
    assert fit_normaliser(table, "robust-z").spread[0] > 0.1


def test_held_out_documents_do_not_move_the_normaliser():
    table = make_table([5, 9, 1], [0, 0, 0], [0.1, 0.2, 0.3], held_out=[False, False, True])
    kept = make_table([5, 9], [0, 0], [0.1, 0.2])
    assert frozen_bytes(fit_normaliser(table)) == frozen_bytes(fit_normaliser(kept))


def test_unseen_scores_fall_between_their_neighbours_or_on_the_ends():
    normaliser = fit_normaliser(make_table([1, 1], [0, 0], [0.0, 1.0]))
    got = normalise(normaliser, np.array([[-5], [0.5], [9]], dtype=np.float32), np.zeros(3, int))
    assert got[:, 0].tolist() == [0.25, 0.5, 0.75]


@pytest.mark.parametrize("kind", KINDS)
def test_normaliser_survives_json(kind):
    table = random_table(8, ties=True)
    normaliser = fit_normaliser(table, kind)
    again = from_json(Normaliser, json.loads(frozen_bytes(normaliser)))
    assert frozen_bytes(again) == frozen_bytes(normaliser)
    np.testing.assert_array_equal(
        normalise(again, table.scores, table.domain), normalise(normaliser, table.scores, table.domain)
    )


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_ordered_bits_sort_like_floats_and_come_back(values):
    array = np.array(values, dtype=np.float32)
    bits = ordered_bits(array)
    np.testing.assert_array_equal(float_values(bits).astype(np.float32), array)
    for a, x in zip(bits, array, strict=True):
        np.testing.assert_array_equal(bits < a, array < x)


def test_wrong_shapes_versions_and_kinds_are_named():
    table = random_table(1)
    normaliser = fit_normaliser(table)
    with pytest.raises(ScoreError, match=r"expected \(D, 3\) for criteria c0, c1, c2"):
        normalise(normaliser, table.scores[:, :2], table.domain)
    with pytest.raises(ScoreError, match=r"expected 0\.\.3 as in the normaliser"):
        normalise(fit_normaliser(table, "rank-domain"), table.scores, table.domain + 1)
    with pytest.raises(ScoreError, match="kind is 'minmax'"):
        fit_normaliser(table, "minmax")
    with pytest.raises(ScoreError, match="no sketch"):
        merge_sketches([])
    with pytest.raises(ScoreError, match="sketch 1 is of criteria"):
        merge_sketches([sketch(table), sketch(random_table(1, criteria=2))])
    with pytest.raises(InputError, match="version 2, expected 1"):
        from_json(Normaliser, to_json(normaliser) | {"version": 2})
