"""Equation 1 and its handling of missing scores, against one document at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import merged_score

from quadmix.errors import ScoreError
from quadmix.mixing.merge import merge_scores

value = st.one_of(st.just(float("nan")), st.floats(-10, 10, width=32))
weight = st.one_of(st.just(0.0), st.floats(0.01, 1))


@given(
    st.lists(st.tuples(value, value, st.floats(-10, 10, width=32)), min_size=1, max_size=20),
    st.lists(st.tuples(weight, weight, weight).filter(any), min_size=2, max_size=2),
)
def test_merged_scores_equal_the_loop_and_present_weights_are_rescaled(rows, weights):
    alpha = np.array(weights) / np.array(weights).sum(axis=1, keepdims=True)
    domain = np.arange(len(rows)) % 2
    scores = np.array(rows, dtype=np.float32)
    got = merge_scores(scores, alpha, domain)
    for x in range(len(rows)):
        assert got[x] == pytest.approx(
            merged_score(scores[x].tolist(), alpha[domain[x]].tolist()), rel=1e-9, abs=1e-9
        )


def test_a_document_is_merged_the_same_alone_and_in_a_crowd():
    rng = np.random.default_rng(0)
    scores = rng.random((501, 7)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    scores[:, 0] = 0.5
    weights = rng.dirichlet(np.ones(7), 3)
    domain = rng.integers(0, 3, 501)
    together = merge_scores(scores, weights, domain)
    alone = [merge_scores(scores[i : i + 1], weights, domain[i : i + 1])[0] for i in range(501)]
    np.testing.assert_array_equal(together, alone)


def test_only_unweighted_scores_present_count_equally():
    scores = np.array([[np.nan, 0.2, 0.6]], dtype=np.float32)
    assert merge_scores(scores, np.array([[1.0, 0.0, 0.0]]), np.zeros(1, int)) == pytest.approx(
        [0.4], abs=1e-7
    )


def test_all_missing_and_wrong_shapes_are_named():
    scores = np.array([[0.1, 0.2], [np.nan, np.nan]], dtype=np.float32)
    with pytest.raises(ScoreError, match=r"1 documents have no score at all \(first: row 1\)"):
        merge_scores(scores, np.array([[0.5, 0.5]]), np.zeros(2, int))
    with pytest.raises(ScoreError, match=r"expected \(D, 3\)"):
        merge_scores(scores, np.ones((1, 3)) / 3, np.zeros(2, int))
