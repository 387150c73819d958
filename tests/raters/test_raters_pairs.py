"""Pairs are drawn from seed and ids alone, obey every limit, and never share a source between the parts."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, zscore

from quadmix.errors import InputError, IntegrityError, RecipeError, ScoreError
from quadmix.raters.pairs import check_split, draw_pairs, held_out, mean_z
from quadmix.raters.table import Pairs, Texts

NAN = float("nan")


def world(size, raters=2, *, per_source=1, seed=0):
    ids = [f"d{i}" for i in range(size)]
    source = [f"s{i // per_source}" for i in range(size)]
    return ids, source, np.random.default_rng(seed).normal(size=(size, raters))


def obeys(found, ids, source, *, max_uses, count):
    """What must hold for every draw, document by document and pair by pair."""
    assert len(found) <= found.asked == count
    uses = Counter(found.a.tolist()) + Counter(found.b.tolist())
    assert max(uses.values(), default=0) <= max_uses
    pairs = [frozenset((ids[i], ids[j])) for i, j in zip(found.a, found.b, strict=True)]
    assert all(len(p) == 2 for p in pairs)
    assert len(set(pairs)) == len(pairs)
    parts = {}
    for i, j, held in zip(found.a, found.b, found.held.tolist(), strict=True):
        assert source[i] != source[j]
        assert parts.setdefault(source[i], held) == held
        assert parts.setdefault(source[j], held) == held


@settings(max_examples=40)
@given(st.data())
def test_every_draw_obeys_the_limits(data):
    size, per_source = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 4))
    ids, source, ratings = world(size, data.draw(st.integers(0, 2)), per_source=per_source)
    count, max_uses = data.draw(st.integers(1, 120)), data.draw(st.integers(1, 4))
    share = data.draw(st.sampled_from([0.0, 0.1, 0.5]))
    found = draw_pairs(ids, source, ratings, count, seed=3, max_uses=max_uses, held_share=share)
    obeys(found, ids, source, max_uses=max_uses, count=count)
    assert found.documents == size
    if len(found) == count:
        return
    # as many as possible: in one of the parts no pair could be added
    held = held_out(source, share, 3)
    uses = Counter(found.a.tolist()) + Counter(found.b.tolist())
    known = {frozenset((i, j)) for i, j in zip(found.a.tolist(), found.b.tolist(), strict=True)}
    free = [
        [
            (i, j)
            for i, j in combinations([k for k in range(size) if held[k] == part and uses[k] < max_uses], 2)
            if source[i] != source[j] and frozenset((i, j)) not in known
        ]
        for part in (False, True)
    ]
    assert not free[0] or not free[1]


def named(found, ids):
    return [
        (ids[i], ids[j], bool(h), bool(s))
        for i, j, h, s in zip(found.a, found.b, found.held, found.stratified, strict=True)
    ]


def test_the_order_of_the_documents_changes_nothing():
    ids, source, ratings = world(3_000, 3, per_source=2)
    ratings = np.round(ratings, 1).astype(np.float32)  # many ties
    ratings[np.random.default_rng(1).random(ratings.shape) < 0.2] = np.nan
    first = draw_pairs(ids, source, ratings, 2_000, seed=7)
    turn = np.random.default_rng(2).permutation(3_000)
    moved_ids = [ids[i] for i in turn]
    moved = draw_pairs(moved_ids, [source[i] for i in turn], ratings[turn], 2_000, seed=7)
    assert named(first, ids) == named(moved, moved_ids)
    assert named(first, ids) == named(draw_pairs(ids, source, ratings, 2_000, seed=7), ids)
    assert named(first, ids) != named(draw_pairs(ids, source, ratings, 2_000, seed=8), ids)
    obeys(first, ids, source, max_uses=4, count=2_000)
    assert len(first) == 2_000


def test_stratified_pairs_have_sides_from_adjacent_bins_of_the_mean_z_score():
    ids, source, ratings = world(5_000, 3)
    found = draw_pairs(ids, source, ratings * [1, 10, 100] + 5, 4_000, seed=0)
    held = held_out(source, 0.1, 0)
    quality = zscore(ratings).mean(axis=1)
    bins = np.empty(5_000, int)
    for part in (held, ~held):
        edges = np.quantile(quality[part], np.arange(1, 10) / 10)
        bins[part] = np.searchsorted(edges, quality[part])
    apart = np.abs(bins[found.a] - bins[found.b])
    assert found.stratified.mean() == pytest.approx(0.5, abs=0.001)
    assert (apart[found.stratified] == 1).mean() > 0.98  # a document at an edge may fall to either side
    low = np.minimum(bins[found.a], bins[found.b])[found.stratified]
    assert np.bincount(low, minlength=9).min() > 2_000 / 9 - 15  # every boundary gets its share
    assert (apart[~found.stratified] > 1).mean() > 0.6  # independent sides: 72 of 100


def test_uniform_pairs_use_all_documents_alike():
    ids, source, ratings = world(300)
    found = draw_pairs(ids, source, ratings, 240, seed=11, stratified=0.0, held_share=0.0)
    assert not found.stratified.any()
    many = Counter()
    for seed in range(40):
        found = draw_pairs(ids, source, ratings, 240, seed=seed, stratified=0.0, held_share=0.0)
        many.update(found.a.tolist() + found.b.tolist())
    assert chisquare([many[i] for i in range(300)]).pvalue > 0.001
    assert min(many.values()) > 0


def test_either_side_is_first_and_the_side_depends_on_seed_and_ids_alone():
    ids, source, ratings = world(2_000, 1)
    ratings = np.arange(2_000.0)[:, None]
    found = draw_pairs(ids, source, ratings, 1_500, seed=0)
    assert (ratings[found.a, 0] > ratings[found.b, 0]).mean() == pytest.approx(0.5, abs=4 * 0.5 / 1_500**0.5)
    all_pairs = draw_pairs(ids[:40], source[:40], ratings[:40], 9**9, seed=0, max_uses=99, held_share=0.0)
    some = draw_pairs(ids[:40], source[:40], ratings[:40], 50, seed=0, held_share=0.0)
    order = {frozenset(p[:2]): p[:2] for p in named(all_pairs, ids)}
    assert len(order) == 40 * 39 // 2  # every pair there is
    assert all(order[frozenset(p[:2])] == p[:2] for p in named(some, ids))
    other = draw_pairs(ids[:40], source[:40], ratings[:40], 9**9, seed=1, max_uses=99, held_share=0.0)
    same = np.mean([order[frozenset(p[:2])] == p[:2] for p in named(other, ids)])
    assert same == pytest.approx(0.5, abs=4 * 0.5 / 780**0.5)
    first = Counter(p[0] for p in order.values())  # no document is on one side always
    assert all(5 < first[i] < 35 for i in ids[:40])


def test_if_fewer_pairs_are_possible_all_are_given_and_counted():
    ids, source, ratings = world(5)
    found = draw_pairs(ids, source, ratings, 1_000, seed=0, held_share=0.0)
    assert {frozenset(p[:2]) for p in named(found, ids)} == {frozenset(p) for p in combinations(ids, 2)}
    assert (len(found), found.asked) == (10, 1_000)
    assert len(draw_pairs(ids, ["one"] * 5, ratings, 7, seed=0)) == 0
    assert len(draw_pairs(ids, ["a", "a", "a", "a", "b"], ratings, 9, seed=0, held_share=0.0)) == 4
    assert len(draw_pairs(ids[:1], source[:1], ratings[:1], 9, seed=0)) == 0
    assert len(draw_pairs([], [], ratings[:0], 9, seed=0)) == 0


def test_no_pair_is_missed_where_shuffling_is_unlikely_to_meet_it():
    ids, source, ratings = world(7)
    for seed in range(150):
        found = draw_pairs(ids, source, ratings, 99, seed=seed, max_uses=3, held_share=0.0)
        uses = Counter(found.a.tolist()) + Counter(found.b.tolist())
        known = {frozenset(p) for p in zip(found.a.tolist(), found.b.tolist(), strict=True)}
        free = [frozenset(p) for p in combinations([i for i in range(7) if uses[i] < 3], 2)]
        assert max(uses.values()) == 3
        assert set(free) <= known


def test_the_last_pairs_one_by_one_obey_the_limits_too(monkeypatch):
    monkeypatch.setattr("quadmix.raters.pairs._IDLE", 0)  # no shuffling at all
    ids, source, ratings = world(12, per_source=2)
    found = draw_pairs(ids, source, ratings, 99, seed=0, max_uses=3, held_share=0.0)
    obeys(found, ids, source, max_uses=3, count=99)
    assert len(found) >= 16  # of 18
    assert len(draw_pairs(ids, source, ratings, 5, seed=0, held_share=0.0)) == 5


def test_almost_all_free_uses_are_found_when_they_are_asked_for():
    ids, source, ratings = world(2_000)
    found = draw_pairs(ids, source, ratings, 4_000, seed=0)
    obeys(found, ids, source, max_uses=4, count=4_000)
    assert len(found) > 3_990


def test_a_tenth_of_the_sources_is_held_out_whatever_documents_there_are():
    ids, source, ratings = world(4_000, per_source=2)
    found = draw_pairs(ids, source, ratings, 2_000, seed=5)
    held = held_out(source, 0.1, 5)
    names = np.array(sorted(set(source)))
    assert held_out(names.tolist(), 0.1, 5).mean() == pytest.approx(0.1, abs=4 * (0.09 / 2_000) ** 0.5)
    np.testing.assert_array_equal(found.held, held[found.a])
    np.testing.assert_array_equal(found.held, held[found.b])
    assert found.held_documents == held.sum()
    assert found.held.sum() == round(2_000 * held.mean())  # pairs as documents
    assert len(found) == 2_000
    assert held_out(["s1", "x"], 0.5, 5).tolist() == held_out(["x", "s1"], 0.5, 5).tolist()[::-1]


def test_documents_that_no_rater_rates_are_left_out_and_counted():
    ids, source, ratings = world(60)
    ratings[:20] = np.nan
    ratings[20:40, 0] = np.nan
    found = draw_pairs(ids, source, ratings, 1_000, seed=0, held_share=0.0)
    assert (found.unrated, found.documents) == (20, 40)
    assert set(found.a.tolist()) | set(found.b.tolist()) == set(range(20, 60))
    judged = draw_pairs(ids, source, np.empty((60, 0)), 50, seed=0, held_share=0.0)
    assert (len(judged), judged.unrated, judged.stratified.sum()) == (50, 0, 0)


def test_the_mean_z_score_skips_missing_ratings_and_constant_raters():
    values = np.array([[1.0, 10, 3], [2, NAN, 3], [3, 30, 3], [NAN, NAN, NAN], [NAN, NAN, 3]])
    first = (np.array([1.0, 2, 3]) - 2) / np.std([1, 2, 3])
    second = (np.array([10.0, 30]) - 20) / 10
    expected = [(first[0] + second[0]) / 2, first[1], (first[2] + second[1]) / 2, NAN, 0.0]
    np.testing.assert_allclose(mean_z(values), expected, atol=1e-12)
    assert np.isnan(mean_z(np.empty((2, 0)))).all()
    with pytest.raises(
        ScoreError, match=r"column 1 gives 2 infinite ratings, expected finite numbers or NaN"
    ):
        mean_z(np.array([[0, np.inf], [1, -np.inf]]))


def texts(source, origin=None):
    size = len(source)
    return Texts(
        ids=tuple(f"t{i}" for i in range(size)), source=tuple(source), origin=origin or ("",) * size,
        language=("en",) * size, text=("x",) * size,
    )  # fmt: skip


def pairs(sides, held):
    a, b = np.array(sides, np.int32).reshape(-1, 2).T
    size = len(a)
    return Pairs(
        a=a, b=b, p=np.ones(size), weight=np.ones(size), kind=np.zeros(size, np.int8),
        held=np.array(held, np.bool_),
    )  # fmt: skip


def test_a_source_in_both_parts_is_found_through_its_translations():
    """Acceptance test 5: the split is by source, so a translation counts as its document."""
    found = texts(["en1", "en2", "en3", "en4", "en1"], ("", "", "", "", "t0"))
    check_split(found, pairs([(0, 1), (4, 1), (2, 3)], [False, False, True]))
    with pytest.raises(
        IntegrityError, match=r"source 'en1' stands in pairs of training and of validation \(1"
    ):
        check_split(found, pairs([(0, 1), (4, 2)], [False, True]))
    with pytest.raises(IntegrityError, match="source 'en3' stands in pairs"):
        check_split(found, pairs([(0, 2), (2, 3)], [True, False]))
    check_split(found, pairs([], []))


def test_a_translation_with_another_source_than_its_original_is_refused():
    found = texts(["en1", "en2", "fr1"], ("", "", "t0"))
    with pytest.raises(IntegrityError, match="text 't2' has source 'fr1', its original 't0' has 'en1'"):
        check_split(found, pairs([(0, 1)], [False]))
    check_split(texts(["en1"], ("not here",)), pairs([], []))


def test_drawn_pairs_pass_the_check_of_the_split():
    ids, source, ratings = world(500, per_source=5)
    found = draw_pairs(ids, source, ratings, 400, seed=1)
    drawn = pairs(np.stack([found.a, found.b], axis=1), found.held)
    check_split(texts(source), drawn)
    flipped = replace(drawn, held=drawn.held ^ (drawn.a == drawn.a[0]))
    with pytest.raises(IntegrityError, match="stands in pairs of training and of validation"):
        check_split(texts(source), flipped)


def test_what_cannot_be_drawn_is_refused():
    ids, source, ratings = world(3)
    with pytest.raises(InputError, match="document id 'd0' stands there twice, expected distinct ids"):
        draw_pairs(["d0", "d1", "d0"], source, ratings, 1, seed=0)
    with pytest.raises(ScoreError, match=r"3 ids and 2 sources for ratings of shape \(3, 2\)"):
        draw_pairs(ids, source[:2], ratings, 1, seed=0)
    for setting, message in (
        ({"count": 0}, "0 pairs with at most 4 per document"),
        ({"max_uses": 0}, "1 pairs with at most 0 per document"),
        ({"stratified": 1.5}, "stratified is 1.5, expected a share"),
        ({"bins": 1}, "bins is 1, expected 2 to 1000"),
        ({"held_share": 1.0}, "held_share is 1.0, expected a share"),
    ):
        with pytest.raises(RecipeError, match=message):
            draw_pairs(ids, source, ratings, **{"count": 1, "seed": 0, **setting})
