"""The settled draw meets every domain's tokens within one document and stays a fair, keyed draw (P10, P7)."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quadmix.mixing.draw import settle_copies
from quadmix.rng import doc_keys, keyed_uniform


def world(seed: int, documents: int, domains: int):
    rng = np.random.default_rng(seed)
    keys = doc_keys(f"{seed}-{i}" for i in range(documents))
    tokens = rng.lognormal(5, 1.2, documents).astype(np.int32) + 1
    domain = rng.integers(0, domains, documents).astype(np.int16)
    expected = np.where(rng.random(documents) < 0.2, 2 * rng.random(documents), 0.001)
    expected[rng.random(documents) < 0.1] = 1.0
    return expected, keys, tokens, domain


@given(st.integers(0, 500), st.integers(1, 300), st.integers(1, 5))
def test_every_domain_is_within_one_document_of_its_expected_tokens(seed, documents, domains):
    expected, keys, tokens, domain = world(seed, documents, domains)
    drawn = settle_copies(expected, keys, tokens, domain, num_domains=domains, seed=seed)
    gap = np.bincount(domain, weights=tokens * (drawn.copies - expected), minlength=domains)
    for m in range(domains):
        assert abs(gap[m]) <= max(tokens[domain == m], default=0) / 2 + 1e-6
    assert (np.abs(drawn.copies - expected) < 1).all()


@given(st.integers(0, 500))
def test_the_rule_is_the_hash_against_the_scaled_fraction(seed):
    expected, keys, tokens, domain = world(seed, 200, 3)
    drawn = settle_copies(expected, keys, tokens, domain, num_domains=3, seed=4)
    u, whole = keyed_uniform(4, keys, "copies"), np.floor(expected)
    fraction = expected - whole
    taken = np.divide(u, fraction, out=np.full(200, np.inf), where=fraction > 0) < drawn.factor[domain]
    np.testing.assert_array_equal(drawn.copies, whole + taken)


@given(st.integers(0, 200))
def test_the_order_of_documents_does_not_matter(seed):
    expected, keys, tokens, domain = world(seed, 150, 3)
    p = np.random.default_rng(seed).permutation(150)
    drawn = settle_copies(expected, keys, tokens, domain, num_domains=3, seed=1).copies
    mixed = settle_copies(expected[p], keys[p], tokens[p], domain[p], num_domains=3, seed=1).copies
    np.testing.assert_array_equal(drawn[p], mixed)


def test_over_many_seeds_the_mean_copies_are_the_expected_ones():
    expected, keys, tokens, domain = world(1, 4000, 2)
    draws = [settle_copies(expected, keys, tokens, domain, num_domains=2, seed=s).copies for s in range(300)]
    mean = np.mean(draws, axis=0)
    for low, high in ((0.0, 0.01), (0.01, 0.5), (0.5, 1.0), (1.0, 2.0)):
        some = (expected > low) & (expected < high)
        error = float((tokens * (mean - expected))[some].sum() / (tokens * expected)[some].sum())
        assert abs(error) < (0.2 if high == 0.01 else 0.03)
    assert np.corrcoef(mean, expected)[0, 1] > 0.99


def test_tokens_are_met_far_better_than_by_independent_draws():
    expected, keys, tokens, domain = world(2, 4000, 2)
    target = (tokens * expected).sum()
    settled = [
        (tokens * settle_copies(expected, keys, tokens, domain, num_domains=2, seed=s).copies).sum() - target
        for s in range(50)
    ]
    free = [
        (tokens * (np.floor(expected) + (keyed_uniform(s, keys) < expected % 1))).sum() - target
        for s in range(50)
    ]
    assert np.std(settled) < np.std(free) / 5
