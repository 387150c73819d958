"""Agreement, histograms and what changes without a rater, counted by hand and against slow oracles."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr, zscore

from quadmix.errors import ScoreError
from quadmix.raters.diagnostics import diagnose_raters
from quadmix.raters.table import Ratings
from quadmix.raters.votes import JudgeVotes, label_pairs

NAN = float("nan")


def ids(size):
    return [f"t{i}" for i in range(size)]


def test_five_pairs_counted_by_hand():
    a = np.array([[1, 1, 1], [1, 0, 1], [0, 1, NAN], [0, 0, NAN], [1, 1, 0]], float)
    b = np.array([[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 0], [0, 0, 1]], float)
    votes = label_pairs(a, b)
    ratings = Ratings(names=("x", "y", "z"), values=np.arange(6, dtype=np.float32).reshape(2, 3))
    found = diagnose_raters(votes, ratings, ids(2))
    np.testing.assert_array_equal(found.compared, [[5, 4, 3], [4, 4, 3], [3, 3, 3]])
    np.testing.assert_allclose(found.agreement, [[1, 3 / 4, 2 / 3], [3 / 4, 1, 1 / 3], [2 / 3, 1 / 3, 1]])
    np.testing.assert_array_equal(found.votes, [[3, 0, 2, 0], [2, 1, 2, 0], [2, 0, 1, 2]])
    np.testing.assert_allclose(found.abstention, [0, 0, 0.4])
    # labels: 1, 2/3, 1/4, 0, 2/3; a third of 20 steps is 6.67
    expected = np.zeros(21, int)
    expected[[20, 5, 0]], expected[13] = 1, 2
    np.testing.assert_array_equal(found.labels, expected)
    assert found.names == ("x", "y", "z")
    assert found.pairs == 5
    without_x, without_y, without_z = found.without
    # without x: 1, 1/2, y alone, y alone, 1/2
    assert (without_x.name, without_x.labelled, without_x.lost) == ("x", 3, 2)
    assert without_x.flipped == 0
    assert without_x.change == pytest.approx((0 + 1 / 6 + 1 / 6) / 3)
    # without y: 1, 1, x alone, x alone, 1/2
    assert (without_y.labelled, without_y.lost) == (3, 2)
    assert without_y.change == pytest.approx((0 + 1 / 3 + 1 / 6) / 3)
    # without z: 1, 1/2, 1/4, 0, 1
    assert (without_z.labelled, without_z.lost) == (5, 0)
    assert without_z.change == pytest.approx((0 + 1 / 6 + 0 + 0 + 1 / 3) / 5)


def test_a_rater_that_decides_alone_turns_labels_round():
    """Weights 3, 1, 1: without the first, the other two decide, and they disagree with it on 2 of 4 pairs."""
    a = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]], float)
    votes = label_pairs(a, 1 - a, weights=[3, 1, 1])
    found = diagnose_raters(votes, Ratings(names=("x", "y", "z"), values=np.eye(3, dtype=np.float32)), ids(3))
    assert [w.flipped for w in found.without] == [0.5, 0.0, 0.0]
    assert found.without[0].change == pytest.approx((0.6 + 0.6 + 0 + 0.3) / 4)
    assert found.without[1].change == pytest.approx((0.15 + 0.15 + 0 + 0.05) / 4)  # 3 : 1 decide


def test_the_histogram_of_labels_has_the_nearest_bin_and_is_symmetric():
    a = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0]], float)
    ratings = Ratings(names=("x", "y", "z"), values=np.eye(3, dtype=np.float32))
    labels = diagnose_raters(label_pairs(a, 1 - a), ratings, ids(3)).labels
    assert labels.nonzero()[0].tolist() == [7, 13]  # 1/3 is 6.67 steps of 0.05, 2/3 is 13.33
    np.testing.assert_array_equal(
        diagnose_raters(label_pairs(1 - a, a), ratings, ids(3)).labels, labels[::-1]
    )


def test_rank_correlations_are_scipys_over_texts_that_both_rate():
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(size=(200, 3)) + rng.normal(size=(200, 1)), 1).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    pairs = rng.integers(200, size=(50, 2))
    found = diagnose_raters(
        label_pairs(values[pairs[:, 0]], values[pairs[:, 1]], least=1, judge=JudgeVotes(p=rng.random(50))),
        Ratings(names=("x", "y", "z"), values=values), ids(200),
    )  # fmt: skip
    for i in range(3):
        for j in range(3):
            both = ~np.isnan(values[:, i]) & ~np.isnan(values[:, j])
            expected = spearmanr(values[both, i], values[both, j]).statistic
            assert found.correlation[i, j] == pytest.approx(expected)
            assert found.rated[i, j] == both.sum()
    assert found.names[3] == "judge"
    assert np.isnan(found.correlation[3]).all()
    assert found.rated[3].tolist() == [0] * 4
    assert found.compared[3, 3] == 50
    assert np.isnan(found.without[3].top)


def test_the_share_of_the_best_tenth_that_changes_without_a_rater():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(500, 3)).astype(np.float32)
    votes = label_pairs(values[:250], values[250:])
    found = diagnose_raters(votes, Ratings(names=("x", "y", "z"), values=values), ids(500))
    z = zscore(values.astype(float))
    best = set(np.argsort(-z.mean(axis=1))[:50].tolist())
    for column, without in enumerate(found.without):
        rest = np.delete(z, column, axis=1).mean(axis=1)
        assert without.top == pytest.approx(1 - len(best & set(np.argsort(-rest)[:50].tolist())) / 50)
        assert 0 < without.top < 1
    third = diagnose_raters(votes, Ratings(names=("x", "y", "z"), values=values), ids(500), top=1.0)
    assert [w.top for w in third.without] == [0, 0, 0]


def test_ties_at_the_edge_of_the_best_tenth_are_no_change():
    """A rater of few values leaves hundreds of ties; who is best among them must not depend on the rows."""
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 2, size=400).astype(np.float32)
    values = np.stack([coarse, coarse, coarse], axis=1)
    votes = label_pairs(values[:200], values[200:])
    names = ("x", "y", "z")
    found = diagnose_raters(votes, Ratings(names=names, values=values), ids(400))
    assert [w.top for w in found.without] == [0, 0, 0]
    values[:, 2] = rng.permutation(coarse)
    found = diagnose_raters(votes, Ratings(names=names, values=values), ids(400))
    turn = rng.permutation(400)
    moved = diagnose_raters(votes, Ratings(names=names, values=values[turn]), [ids(400)[i] for i in turn])
    assert [w.top for w in moved.without] == [w.top for w in found.without]
    assert found.without[2].top > 0


def test_the_mask_and_the_temperature_of_the_labels_change_no_diagnosis():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(100, 3)).astype(np.float32)
    ratings = Ratings(names=("x", "y", "z"), values=values)
    plain = diagnose_raters(label_pairs(values[:50], values[50:]), ratings, ids(100))
    masked = label_pairs(values[:50], values[50:], min_confidence=0.9, temperature=3.0)
    assert masked.kept.sum() < 50
    assert diagnose_raters(masked, ratings, ids(100)).labels.tolist() == plain.labels.tolist()
    assert diagnose_raters(masked, ratings, ids(100)).without == plain.without


def test_two_raters_without_each_other_label_nothing():
    values = np.array([[1, 2], [2, 3], [3, 1], [4, 4]], np.float32)
    ratings = Ratings(names=("x", "y"), values=values)
    found = diagnose_raters(label_pairs(values[:2], values[2:]), ratings, ids(4))
    for without in found.without:
        assert (without.labelled, without.lost) == (0, 2)
        assert np.isnan(without.flipped)
        assert np.isnan(without.change)
    alone = Ratings(names=("x",), values=values[:, :1])
    one = diagnose_raters(label_pairs(values[:2, :1], values[2:, :1], least=1), alone, ids(4))
    assert np.isnan(one.without[0].top)


def test_raters_that_never_compare_have_no_agreement():
    a = np.array([[1, NAN], [NAN, 1], [1, 1]], float)
    b = np.array([[0, 0], [0, 0], [0, 1]], float)
    ratings = Ratings(names=("x", "y"), values=np.array([[1, 2], [1, NAN], [1, 3]], np.float32))
    found = diagnose_raters(label_pairs(a, b), ratings, ids(3))
    assert found.compared[0, 1] == 0
    assert np.isnan(found.agreement[0, 1])
    assert np.isnan(found.correlation[0, 1])  # x is constant
    empty = diagnose_raters(label_pairs(a[:0], b[:0]), ratings, ids(3))
    assert empty.pairs == 0
    assert np.isnan(empty.abstention).all()
    assert empty.labels.sum() == 0


def test_columns_and_ids_that_do_not_match_are_refused():
    ratings = Ratings(names=("x", "y"), values=np.zeros((3, 2), np.float32))
    votes = label_pairs(np.zeros((1, 2)), np.ones((1, 2)))
    with pytest.raises(ScoreError, match="2 ids for 3 rated texts, expected one each"):
        diagnose_raters(votes, ratings, ids(2))
    wide = replace(votes, votes=np.zeros((1, 4)), weights=np.ones(4))
    with pytest.raises(
        ScoreError, match="votes have 4 columns for the raters x, y; expected 2, or 3 with a judge"
    ):
        diagnose_raters(wide, ratings, ids(3))
