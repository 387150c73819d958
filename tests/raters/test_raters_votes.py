"""Votes become antisymmetric labels; ties are halves, abstaining raters leave the mean, nothing is lost."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadmix.errors import RecipeError, ScoreError
from quadmix.raters.votes import JudgeVotes, combine_votes, label_pairs, vote

NAN = float("nan")
rating = st.one_of(st.just(NAN), st.floats(-3, 3, width=32))


def test_a_vote_is_one_half_or_zero_and_nan_where_a_rating_is_missing():
    a, b = np.array([2.0, 1.0, 1.0, NAN, 1.0, np.inf, np.inf]), np.array([1.0, 2.0, 1.0, 1, NAN, 5, np.inf])
    np.testing.assert_array_equal(vote(a, b), [1, 0, 0.5, NAN, NAN, 1, 0.5])
    assert vote(1.0, 0.0) == 1.0


def test_ratings_at_most_eps_apart_are_a_tie_for_that_rater_alone():
    a, b = np.array([[0.5, 0.5], [0.75, 0.75]]), np.array([[0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(vote(a, b, np.array([0.5, 0.0])), [[0.5, 1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(vote(b, a, np.array([0.5, 0.0])), [[0.5, 0.0], [0.0, 0.0]])
    assert label_pairs(a, b, tie_eps=[0.5, 0.0]).p.tolist() == [0.75, 1.0]


def test_float32_ratings_that_differ_in_the_last_bit_differ():
    """FineWeb-Edu's float score is compared, not its rounding to an integer."""
    low = np.float32(2.5)
    high = np.nextafter(low, np.float32(3))
    assert label_pairs(np.array([[high, high]]), np.array([[low, low]])).p.tolist() == [1.0]


@settings(max_examples=60)
@given(st.data())
def test_labels_are_antisymmetric(data):
    """Acceptance test 1: P(a > b) + P(b > a) = 1, whatever weights, ties and abstentions."""
    raters = data.draw(st.integers(1, 4))
    rows = st.lists(st.lists(rating, min_size=raters, max_size=raters), min_size=1, max_size=5)
    a = np.array(data.draw(rows), np.float32)
    b = np.array(data.draw(st.permutations(a.reshape(-1).tolist())), np.float32).reshape(a.shape)
    weights = data.draw(st.lists(st.floats(0.1, 3), min_size=raters, max_size=raters))
    eps = data.draw(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=raters, max_size=raters))
    judged = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(a), max_size=len(a))))
    judge = [(None, None), (JudgeVotes(p=judged), JudgeVotes(p=1 - judged))][data.draw(st.integers(0, 1))]
    temperature = data.draw(st.sampled_from([1.0, 2.0]))
    one = label_pairs(a, b, weights=weights, tie_eps=eps, least=1, judge=judge[0], temperature=temperature)
    other = label_pairs(b, a, weights=weights, tie_eps=eps, least=1, judge=judge[1], temperature=temperature)
    np.testing.assert_array_equal(one.voters, other.voters)
    np.testing.assert_allclose(one.p + other.p, np.where(one.voters > 0, 1.0, NAN), atol=1e-12)


@settings(max_examples=60)
@given(st.data())
def test_a_label_is_the_weighted_share_of_those_who_vote(data):
    """Oracle: exact fractions, one pair and one rater at a time."""
    raters, pairs = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    small = st.one_of(st.none(), st.integers(0, 2))
    a = data.draw(st.lists(st.lists(small, min_size=raters, max_size=raters), min_size=pairs, max_size=pairs))
    b = data.draw(st.lists(st.lists(small, min_size=raters, max_size=raters), min_size=pairs, max_size=pairs))
    weights = data.draw(st.lists(st.integers(1, 5), min_size=raters, max_size=raters))
    found = label_pairs(np.array(a, float), np.array(b, float), weights=weights)
    few = 0
    for row, (left, right) in enumerate(zip(a, b, strict=True)):
        present = [(x, y, w) for x, y, w in zip(left, right, weights, strict=True) if None not in (x, y)]
        assert found.voters[row] == len(present)
        if len(present) < 2:
            few += 1
            assert math.isnan(found.p[row])
            assert not found.kept[row]
            continue
        won = sum(Fraction(w) * (Fraction(1, 2) if x == y else int(x > y)) for x, y, w in present)
        assert found.p[row] == pytest.approx(float(won / sum(w for _, _, w in present)), abs=1e-12)
    assert found.kept.sum() + sum(found.dropped.values()) == pairs
    assert sum(found.dropped.values()) == few


def test_an_all_tie_pair_is_one_half_exactly_under_any_weights():
    """Acceptance test 1."""
    a = np.ones((1, 3))
    assert label_pairs(a, a, weights=[0.1, 0.7, 1.3]).p.tolist() == [0.5]


def test_an_abstaining_rater_changes_the_denominator():
    """Acceptance test 1: 2 of 3 votes, then 2 of 2, then 1 of 2."""
    a = np.array([[1, 1, 0], [1, 1, NAN], [1, NAN, 0]], float)
    b = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 1]], float)
    found = label_pairs(a, b)
    np.testing.assert_allclose(found.p, [2 / 3, 1.0, 0.5])
    assert found.voters.tolist() == [3, 2, 2]
    np.testing.assert_array_equal(found.votes, [[1, 1, 0], [1, 1, NAN], [1, NAN, 0]])


def test_weights_that_balance_in_decimals_are_a_tie():
    """.1 + .2 of .1 + .2 + .2 + .1 is 0.5000000000000001 in binary: no preference for either side."""
    a, weights = np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([0.1, 0.2, 0.2, 0.1])
    assert weights[:2].sum() / weights.sum() != 0.5
    assert label_pairs(a, 1 - a, weights=weights).p.tolist() == [0.5]


def test_pairs_with_too_few_voters_are_dropped_and_counted_by_reason():
    a = np.array([[NAN, NAN, NAN], [1, NAN, NAN], [NAN, 1, NAN], [1, 1, NAN], [1, 1, 1]])
    b = np.zeros((5, 3))
    two = label_pairs(a, b)
    assert two.dropped == {"all abstain": 1, "one voter": 2}
    assert two.kept.tolist() == [False, False, False, True, True]
    assert label_pairs(a, b, least=3).dropped == {"all abstain": 1, "one voter": 2, "2 voters": 1}
    assert label_pairs(a, b, least=1).dropped == {"all abstain": 1}
    assert len(label_pairs(np.empty((0, 2)), np.empty((0, 2)))) == 0


def test_the_judge_votes_softly_or_by_its_direction():
    a, b = np.array([[1.0], [1.0], [1.0], [1.0]]), np.zeros((4, 1))
    answers = np.array([0.25, 0.75, 0.5, NAN])
    soft = label_pairs(a, b, judge=JudgeVotes(p=answers))
    np.testing.assert_allclose(soft.p, [0.625, 0.875, 0.75, NAN])
    hard = label_pairs(a, b, judge=JudgeVotes(p=answers, vote="hard"))
    np.testing.assert_allclose(hard.p, [0.5, 1.0, 0.75, NAN])
    assert hard.dropped == {"one voter": 1}
    heavy = label_pairs(a, b, weights=0.5, judge=JudgeVotes(p=answers, weight=1.5), least=1)
    np.testing.assert_allclose(heavy.p, [(0.5 + 1.5 * 0.25) / 2, (0.5 + 1.5 * 0.75) / 2, 0.625, 1.0])
    assert heavy.votes.shape == (4, 2)
    assert heavy.weights.tolist() == [0.5, 1.5]


def test_a_judge_alone_can_label():
    alone = label_pairs(np.empty((2, 0)), np.empty((2, 0)), judge=JudgeVotes(p=np.array([0.3, NAN])), least=1)
    np.testing.assert_allclose(alone.p, [0.3, NAN])


def test_min_confidence_keeps_pairs_at_least_half_of_it_from_a_tie():
    a = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]], float)
    found = label_pairs(a, 1 - a, min_confidence=0.5)
    np.testing.assert_array_equal(found.p, [1.0, 0.75, NAN, 0.25])
    assert found.dropped == {"below min_confidence": 1}
    judged = label_pairs(
        np.empty((1, 0)), np.empty((1, 0)), judge=JudgeVotes(p=np.array([0.7])), least=1, min_confidence=0.4
    )
    assert judged.kept.all()  # 0.7 - 0.5 is 0.19999999999999996 in binary


def test_temperature_divides_the_log_odds_after_the_mask():
    a = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]], float)
    found = label_pairs(a, 1 - a, temperature=2.0)
    odds = math.sqrt(3)  # of 3 : 1, its logarithm halved
    np.testing.assert_allclose(found.p, [odds / (1 + odds), 1.0, 0.5])
    assert label_pairs(a, 1 - a, temperature=2.0, min_confidence=0.5).dropped == {"below min_confidence": 1}


def test_votes_can_be_combined_again_without_a_rater():
    votes = np.array([[1, 0, 1], [1, NAN, 0]], float)
    np.testing.assert_allclose(combine_votes(votes[:, :2], np.array([3.0, 1.0]), 2), [0.75, NAN])


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"weights": [1, 0]}, r"weights are \[1.0, 0.0\], expected numbers above 0; leave such a rater out"),
        (
            {"weights": [1, 1, 1]},
            r"weights has shape \(3,\), expected one number or one for each of 2 raters",
        ),
        ({"tie_eps": -0.1}, "tie_eps is -0.1, expected finite numbers, none below 0"),
        ({"tie_eps": [0, NAN]}, r"tie_eps is \[0.0, nan\], expected finite"),
        ({"least": 0}, "least is 0, expected at least 1 voter"),
        ({"min_confidence": 1.5}, "min_confidence is 1.5, expected a number in"),
        ({"temperature": 0.0}, "temperature is 0.0, expected above 0"),
        ({"judge": JudgeVotes(p=np.array([0.5]), weight=0)}, "the judge's weight is 0, expected above 0"),
    ],
)
def test_settings_outside_their_range_are_refused(settings_, message):
    with pytest.raises(RecipeError, match=message):
        label_pairs(np.zeros((1, 2)), np.zeros((1, 2)), **settings_)


def test_ratings_and_answers_that_do_not_fit_are_refused():
    with pytest.raises(ScoreError, match=r"shapes \(1, 2\) and \(2, 2\), expected \(P, R\) twice"):
        label_pairs(np.zeros((1, 2)), np.zeros((2, 2)))
    with pytest.raises(
        ScoreError, match=r"judge answers have shape \(2,\), expected one for each of 1 pairs"
    ):
        label_pairs(np.zeros((1, 2)), np.zeros((1, 2)), judge=JudgeVotes(p=np.array([0.5, 0.5])))
    with pytest.raises(
        ScoreError, match=r"answer to pair 1 is 1.5, expected a probability in \[0, 1\] or NaN"
    ):
        label_pairs(np.zeros((2, 2)), np.zeros((2, 2)), judge=JudgeVotes(p=np.array([0.5, 1.5])))
