"""Equation 2 in its three modes, against a double loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import paper_rank, rank_interval

from quadmix.errors import ScoreError
from quadmix.mixing.curve import mean_copies
from quadmix.mixing.rank import rank_within_domain
from quadmix.rng import doc_keys
from quadmix.types import Theta

MERGED = np.array([0.1, 0.2, 0.2, 0.5])
TOKENS = np.array([100, 300, 100, 500])
ONE = np.zeros(4, dtype=np.int16)

documents = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 50), st.integers(0, 3)), min_size=1, max_size=40
)


def columns(rows):
    merged, tokens, domain = zip(*rows, strict=True)
    return np.array(merged, dtype=float), np.array(tokens), np.array(domain, dtype=np.int16)


def test_vector_of_the_specification():
    paper = rank_within_domain(MERGED, TOKENS, ONE, mode="paper")
    assert paper.high.tolist() == [0.1, 0.5, 0.5, 1.0]
    assert paper.low.tolist() == paper.high.tolist()
    ranks = rank_within_domain(MERGED, TOKENS, ONE)
    assert ((ranks.low + ranks.high) / 2).tolist() == pytest.approx([0.05, 0.3, 0.3, 0.75], abs=1e-15)


@given(documents)
def test_paper_and_interval_ranks_equal_the_double_loop(rows):
    merged, tokens, domain = columns(rows)
    paper = rank_within_domain(merged, tokens, domain, mode="paper")
    ranks = rank_within_domain(merged, tokens, domain)
    for x in range(len(rows)):
        assert paper.high[x] == pytest.approx(paper_rank(x, merged, tokens, domain), abs=1e-15)
        assert (ranks.low[x], ranks.high[x]) == pytest.approx(
            rank_interval(x, merged, tokens, domain), abs=1e-15
        )


@given(documents, st.randoms(use_true_random=False))
def test_ranks_do_not_depend_on_the_order_of_documents(rows, random):
    merged, tokens, domain = columns(rows)
    keys = doc_keys([str(i) for i in range(len(rows))])
    shuffled = list(range(len(rows)))
    random.shuffle(shuffled)
    p = np.array(shuffled)
    for mode in ("interval", "paper", "hash-tiebreak"):
        straight = rank_within_domain(merged, tokens, domain, mode=mode, keys=keys)
        moved = rank_within_domain(merged[p], tokens[p], domain[p], mode=mode, keys=keys[p])
        np.testing.assert_array_equal(moved.low, straight.low[p])
        np.testing.assert_array_equal(moved.high, straight.high[p])


@given(documents)
def test_hash_tiebreak_splits_ties_by_key_and_keeps_the_order_of_scores(rows):
    merged, tokens, domain = columns(rows)
    keys = doc_keys([str(i) for i in range(len(rows))])
    rank = rank_within_domain(merged, tokens, domain, mode="hash-tiebreak", keys=keys).high
    for m in set(domain.tolist()):
        mates = [x for x in range(len(rows)) if domain[x] == m]
        seen = 0
        for x in sorted(mates, key=lambda x: (merged[x], keys[x])):
            seen += tokens[x]
            assert rank[x] == pytest.approx(seen / tokens[mates].sum(), abs=1e-15)


def test_a_domain_of_one_document_covers_all_of_its_domain():
    ranks = rank_within_domain(np.array([3.0, 1.0, 2.0]), np.array([7, 5, 5]), np.array([1, 0, 0]))
    assert (ranks.low[0], ranks.high[0]) == (0.0, 1.0)


def test_tied_top_fifth_survives_the_interval_mode_only():
    """Literally, `<=` sends a tied best fifth to rank 0.2 > ω: the domain disappears."""
    merged = np.array([0.0] * 20 + list(range(1, 81)), dtype=float)
    tokens, domain = np.full(100, 10), np.zeros(100, dtype=np.int16)
    theta = Theta(
        weights=np.ones((1, 1)),
        steepness=np.array([100.0]),
        cutoff=np.array([0.1]),
        exponent=np.array([1.0]),
        floor=np.array([0.0]),
    )
    paper = mean_copies(rank_within_domain(merged, tokens, domain, mode="paper"), theta, domain)
    shared = mean_copies(rank_within_domain(merged, tokens, domain), theta, domain)
    assert paper.sum() == 0
    assert shared[:20].min() == shared[:20].max() > 0.5
    assert shared[20:].sum() == 0


def test_documents_without_tokens_get_a_place_and_move_nobody():
    with_ghost = rank_within_domain(np.append(MERGED, 0.15), np.append(TOKENS, 0), np.zeros(5, dtype=int))
    without = rank_within_domain(MERGED, TOKENS, ONE)
    np.testing.assert_array_equal(with_ghost.high[:4], without.high)
    assert with_ghost.low[4] == with_ghost.high[4] == 0.1


def test_empty_table_has_no_ranks():
    assert len(rank_within_domain(np.empty(0), np.empty(0, int), np.empty(0, int)).low) == 0


def test_bad_arguments_are_named():
    with pytest.raises(ScoreError, match="row 1 is nan"):
        rank_within_domain(np.array([0.0, np.nan]), np.array([1, 1]), np.array([0, 0]))
    with pytest.raises(ScoreError, match="needs `keys`"):
        rank_within_domain(MERGED, TOKENS, ONE, mode="hash-tiebreak")
    with pytest.raises(ScoreError, match="rank mode is 'best'"):
        rank_within_domain(MERGED, TOKENS, ONE, mode="best")
