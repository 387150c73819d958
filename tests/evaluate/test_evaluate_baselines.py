"""Baseline selectors meet the same budget and take what they claim to take."""

import numpy as np
import pyarrow as pa
import pytest

from quadmix.errors import BudgetError
from quadmix.evaluate.cuts import top_copies
from quadmix.evaluate.mixtures import cap_shares, draw_mixtures, mixture_copies
from quadmix.evaluate.rungs import verdict
from quadmix.evaluate.sampling import random_copies
from quadmix.rng import doc_keys
from quadmix.types import Annotations, CriterionInfo, Paired


def table(documents: int = 600, domains: int = 3) -> Annotations:
    rng = np.random.default_rng(0)
    ids = [f"d{i}" for i in range(documents)]
    return Annotations(
        doc_id=pa.chunked_array([pa.array(ids)]),
        keys=doc_keys(ids),
        tokens=rng.integers(10, 200, documents).astype(np.int32),
        domain=(np.arange(documents) % domains).astype(np.int16),
        scores=rng.random((documents, 2)).astype(np.float32),
        held_out=np.zeros(documents, dtype=np.bool_),
        split=np.zeros(documents, dtype=np.int32),
        criteria=tuple(CriterionInfo(name=n, declared="lower", kind="column", digest="") for n in ("a", "b")),
        domains=tuple(f"m{i}" for i in range(domains)),
    )


def test_random_meets_the_budget_within_one_document() -> None:
    docs = table()
    budget = 0.2 * docs.tokens.sum()
    copies = random_copies(docs, budget, seed=1)
    assert abs((copies * docs.tokens).sum() - budget) <= docs.tokens.max()
    assert set(np.unique(copies)) == {0, 1}


def test_random_does_not_depend_on_the_order_of_the_documents() -> None:
    docs = table()
    order = np.random.default_rng(5).permutation(len(docs))
    mixed = docs.take(np.arange(len(docs)))
    shuffled = Annotations(
        doc_id=mixed.doc_id.take(pa.array(order)), keys=docs.keys[order], tokens=docs.tokens[order],
        domain=docs.domain[order], scores=docs.scores[order], held_out=docs.held_out[order],
        split=docs.split[order], criteria=docs.criteria, domains=docs.domains,
    )  # fmt: skip
    np.testing.assert_array_equal(
        random_copies(docs, 5000.0, seed=1)[order], random_copies(shuffled, 5000.0, seed=1)
    )


def test_top_takes_the_best_documents_of_its_criterion() -> None:
    docs = table()
    copies = top_copies(docs, docs.scores, 1, 0.1 * docs.tokens.sum(), seed=0)
    kept, dropped = docs.scores[copies > 0, 1], docs.scores[copies == 0, 1]
    assert kept.max() <= np.sort(dropped)[1]  # the document at the cut may go either way


def test_top_puts_missing_scores_last() -> None:
    docs = table()
    scores = docs.scores.copy()
    scores[:300, 0] = np.nan
    copies = top_copies(docs, scores, 0, float(docs.tokens[300:].sum()), seed=0)
    assert copies[:300].sum() == 0


def test_a_budget_above_the_pool_is_refused_with_both_numbers() -> None:
    docs = table()
    with pytest.raises(BudgetError, match=f"it has {docs.tokens.sum():,}"):
        random_copies(docs, 2.0 * docs.tokens.sum(), seed=0)


def test_mixtures_are_distributions_below_their_caps() -> None:
    tokens = np.array([1000.0, 10.0, 500.0, 0.0])
    draws = draw_mixtures(np.random.default_rng(0), tokens, 300.0, 500)
    np.testing.assert_allclose(draws.sum(axis=1), 1.0, atol=1e-12)
    assert (draws[:, 1] <= 15 * 10 / 300 + 1e-9).all()
    assert (draws[:, 3] == 0).all()


def test_capping_keeps_what_is_below_the_cap() -> None:
    shares = np.array([[0.7, 0.2, 0.1]])
    np.testing.assert_allclose(cap_shares(shares, np.array([1.0, 1.0, 1.0])), shares)
    capped = cap_shares(shares, np.array([0.4, 1.0, 1.0]))
    np.testing.assert_allclose(capped, [[0.4, 0.4, 0.2]])


def test_a_mixture_gets_its_domain_shares_even_when_it_must_repeat() -> None:
    docs = table(3000)
    shares = np.array([0.7, 0.2, 0.1])
    budget = 0.9 * docs.tokens.sum()
    copies = mixture_copies(shares, docs, budget, seed=3)
    got = np.bincount(docs.domain, weights=copies * docs.tokens) / budget
    np.testing.assert_allclose(got, shares, atol=0.02)
    assert copies.max() == 2


def paired(control: str, low: float, high: float) -> Paired:
    return Paired(
        label="quadmix", control=control, difference=(low + high) / 2, low=low, high=high, stderr=0.1, pairs=3
    )


def test_the_verdict_names_what_was_not_beaten() -> None:
    assert verdict([paired("random", -2, -1)]).startswith("θ* beats every baseline (random)")
    mixed = verdict([paired("random", -2, -1), paired("regmix", -1, 1), paired("top:a", 1, 2)])
    assert "NOT" in mixed
    assert "worse than top:a" in mixed
    assert "cannot be told from regmix" in mixed
