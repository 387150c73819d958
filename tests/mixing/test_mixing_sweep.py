"""The sweep against sorting every θ: tokens, unique tokens, mean ranks, ties, gaps, tiny domains, threads."""

import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from quadmix.errors import BudgetError, MissingExtraError, RecipeError, ScoreError
from quadmix.mixing.batch import fit_budgets, stack_thetas
from quadmix.mixing.curve import mean_copies
from quadmix.mixing.limits import Limits
from quadmix.mixing.merge import merge_scores
from quadmix.mixing.prior import Prior, draw_theta
from quadmix.mixing.rank import rank_within_domain
from quadmix.mixing.sweep import Sweep, SweepTable, sweep, sweep_table
from quadmix.mixing.sweep_kernel import PLAIN, kernel_of, merge_columns, places_of
from quadmix.types import Floats, Theta

Table = tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int16], int]


def table_of(seed: int, documents: int, domains: int, criteria: int = 3, kind: str = "uniform") -> Table:
    """Random documents; kind: uniform, normal (as z-scores), outlier, ties, gaps."""
    rng = np.random.default_rng(seed)
    scores = rng.random((documents, criteria)) if kind in ("uniform", "ties", "gaps") else None
    if scores is None:
        scores = rng.standard_normal((documents, criteria))
    if kind == "outlier":
        scores[rng.integers(0, documents, 6)] *= 1e9
    if kind == "ties":
        scores = np.round(scores * 4) / 4
    if kind == "gaps":
        scores[rng.random(scores.shape) < 0.2] = np.nan
        scores[np.isnan(scores).all(axis=1), 0] = 0.5
    tokens = rng.lognormal(5, 1.1, documents).astype(np.int32) + 1
    return scores.astype(np.float32), tokens, rng.integers(0, domains, documents).astype(np.int16), domains


def random_thetas(domains: int, criteria: int, count: int = 12, seed: int = 3) -> list[Theta]:
    prior = Prior(num_domains=domains, num_criteria=criteria)
    drawn = draw_theta(np.random.default_rng(seed), prior, count)
    rng = np.random.default_rng(seed)
    wide = [replace(t, cutoff=rng.random(domains), exponent=3 * rng.random(domains)) for t in drawn[::3]]
    thin = [replace(t, scale=np.full(domains, 0.6)) for t in drawn[::4]]
    return [*drawn, *wide, *thin]


def exact(table: Table, theta: Theta) -> tuple[Floats, Floats, Floats]:
    """Return (M,) tokens, unique tokens and mean rank by sorting every document."""
    scores, tokens, domain, domains = table
    ranks = rank_within_domain(merge_scores(scores, theta.weights, domain), tokens, domain)
    copies = mean_copies(ranks, theta, domain)

    def total(values: Floats) -> Floats:
        return np.bincount(domain, weights=tokens * values, minlength=domains)

    selected = total(copies)
    with np.errstate(invalid="ignore"):
        mean = total(copies * 0.5 * (ranks.low + ranks.high)) / selected
    return selected, total(np.minimum(1.0, copies)), mean


def grouped(table: Table) -> SweepTable:
    return sweep_table(*table)


def same(a: Sweep, b: Sweep, rtol: float = 0.0) -> None:
    for field in fields(Sweep):
        if field.name != "batch":
            np.testing.assert_allclose(getattr(a, field.name), getattr(b, field.name), rtol=rtol, atol=0)


@pytest.mark.parametrize("kind", ["uniform", "normal", "outlier", "ties", "gaps"])
@pytest.mark.parametrize(("documents", "domains"), [(30_000, 3), (20_000, 1), (400, 60), (40, 40)])
def test_the_sweep_agrees_with_sorting(kind: str, documents: int, domains: int) -> None:
    """Tokens to rounding; unique tokens and mean ranks to 2e-3 of themselves, whatever the table."""
    table = table_of(documents, documents, domains, kind=kind)
    thetas = random_thetas(domains, 3)
    found = sweep(grouped(table), thetas)
    for k, theta in enumerate(thetas):
        tokens, unique, rank = exact(table, theta)
        np.testing.assert_allclose(found.tokens[k], tokens, rtol=1e-9)
        np.testing.assert_allclose(found.unique[k], unique, rtol=2e-3)
        np.testing.assert_allclose(found.rank[k], rank, rtol=2e-3, atol=1e-4)
        np.testing.assert_allclose(found.shares[k], tokens / tokens.sum(), rtol=1e-9)


def test_one_document_per_domain_and_one_criterion_are_exact() -> None:
    table = table_of(1, 25, 25, 1)
    table = (*table[:2], np.arange(25, dtype=np.int16), 25)
    thetas = random_thetas(25, 1)
    found = sweep(grouped(table), thetas)
    for k, theta in enumerate(thetas):
        _, unique, rank = exact(table, theta)
        np.testing.assert_allclose(found.unique[k], unique, rtol=1e-9)
        np.testing.assert_allclose(found.rank[k], rank, rtol=1e-9)


def test_a_tie_across_the_cutoff_is_one_document() -> None:
    """40 % of the tokens share the best score: all get S̄ = copies / 40 %, none of them is out."""
    scores = np.array([0.0] * 400 + [0.5 + i / 1000 for i in range(600)], dtype=np.float32)[:, None]
    table = (scores, np.full(1000, 7, dtype=np.int32), np.zeros(1000, dtype=np.int16), 1)
    theta = Theta(
        weights=np.ones((1, 1)), steepness=np.array([500.0]), cutoff=np.array([0.1]),
        exponent=np.array([1.0]), floor=np.array([0.0]),
    )  # fmt: skip
    found = sweep(grouped(table), [theta])
    np.testing.assert_allclose(found.unique[0], exact(table, theta)[1], rtol=1e-9)
    assert found.rank[0, 0] == pytest.approx(0.2)


def test_no_rank_is_off_by_more_than_the_grain() -> None:
    table = table_of(5, 50_000, 2)
    theta = random_thetas(2, 3)[0]
    scores, tokens, domain, _ = table
    ranks = rank_within_domain(merge_scores(scores, theta.weights, domain), tokens, domain)
    for m in range(2):
        rows = np.flatnonzero(domain == m)
        merged = merge_columns(scores[rows].T, theta.weights[m].astype(np.float32), False)
        places = places_of(merged, merged.min(), np.float32(1024) / (merged.max() - merged.min()), 1024)
        edges = np.concatenate([[0], np.cumsum(np.bincount(places, tokens[rows], 1024))]) / tokens[rows].sum()
        assert (edges[places] <= ranks.low[rows] + 1e-6).all()
        assert (edges[places + 1] >= ranks.high[rows] - 1e-6).all()
    assert sweep(grouped(table), [theta], bins=1024).grain.max() < 4 / 1024


def test_compiled_and_plain_kernels_count_the_same_tokens() -> None:
    pytest.importorskip("numba")
    for kind in ("uniform", "normal", "ties", "gaps", "outlier"):
        table = grouped(table_of(9, 5_000, 7, kind=kind))
        weights = random_thetas(7, 3)[0].weights.astype(np.float32)
        low, inverse = np.full(7, 0.05, dtype=np.float32), np.full(7, 300.0, dtype=np.float32)
        for gaps in (table.gaps, np.ones(7, dtype=np.bool_)):
            given = (table.scores, table.tokens, table.starts, gaps, weights, low, inverse, 256)
            counts = PLAIN.counts(*given)
            np.testing.assert_array_equal(kernel_of("numba").counts(*given), counts)
            assert counts.sum() == table.tokens.sum()
            one = (table.scores, 100, 4_000, True, weights[0], low[0], inverse[0], np.arange(256) % 3 == 0)
            np.testing.assert_array_equal(kernel_of("numba").spans(*one), PLAIN.spans(*one))


def test_kernels_and_threads_do_not_change_the_result() -> None:
    pytest.importorskip("numba")
    table, thetas = grouped(table_of(11, 6_000, 5, kind="gaps")), random_thetas(5, 3)
    first = sweep(table, thetas, threads=1)
    same(first, sweep(table, thetas, threads=3))
    same(first, sweep(table, thetas, kernel="numpy"))
    same(first, sweep(table, thetas, kernel="numba", threads=2))


def test_the_order_of_the_documents_does_not_matter() -> None:
    table, thetas = table_of(12, 6_000, 5), random_thetas(5, 3)
    shuffled = np.random.default_rng(0).permutation(6_000)
    other = sweep_table(*(column[shuffled] for column in table[:3]), table[3])
    same(sweep(grouped(table), thetas), sweep(other, thetas), rtol=1e-12)
    np.testing.assert_array_equal(other.scores[:, 0], table[0][shuffled][other.order[0]])


def test_every_theta_is_fitted_to_the_budget() -> None:
    table, thetas = table_of(13, 20_000, 4), random_thetas(4, 3)[:6]
    pool = grouped(table).pool
    budget = 0.08 * pool.sum()
    limits = Limits(multipliers=np.ones(4), min_share=np.zeros(4), max_share=np.full(4, 0.4))
    for bounds in (None, limits):
        found = sweep(grouped(table), thetas, token_budget=budget, limits=bounds)
        assert found.ok.all()
        np.testing.assert_allclose(found.tokens.sum(axis=1), budget, rtol=1e-9)
        fitted = fit_budgets(stack_thetas(thetas), pool, budget, limits=bounds).batch
        for k in range(len(thetas)):
            alone = fitted.theta(k)
            np.testing.assert_allclose(found.tokens[k], exact(table, alone)[0], rtol=1e-6)
            np.testing.assert_allclose(found.unique[k], exact(table, alone)[1], rtol=2e-3)


def test_a_theta_that_cannot_meet_the_budget_stays_as_given() -> None:
    table, thetas = table_of(14, 500, 2), random_thetas(2, 3)[:3]
    shut = replace(thetas[0], cutoff=np.zeros(2), floor=np.zeros(2))
    found = sweep(grouped(table), [shut, thetas[1]], token_budget=0.05 * float(table[1].sum()))
    assert found.ok.tolist() == [False, True]
    assert found.tokens[0].sum() == found.unique[0].sum() == found.shares[0].sum() == 0
    assert np.isnan(found.rank[0]).all()


def test_documents_of_no_tokens_move_nobody() -> None:
    """Held-out documents carry 0 tokens; a domain of only such documents selects nothing."""
    scores, tokens, domain, _ = table_of(15, 4_000, 3)
    tokens = np.where(domain == 2, 0, tokens).astype(np.int32)
    tokens[::5] = 0
    keep = tokens > 0
    thetas = random_thetas(4, 3)
    found = sweep(sweep_table(scores, tokens, domain, 4), thetas)
    rest = sweep(sweep_table(scores[keep], tokens[keep], domain[keep], 4), thetas)
    np.testing.assert_allclose(found.unique, rest.unique, rtol=2e-3)
    assert (found.tokens[:, 2:] == 0).all()
    assert np.isnan(found.rank[:, 2:]).all()


def test_wrong_tables_and_settings_are_refused_by_name() -> None:
    scores, tokens, domain, _ = table_of(16, 50, 2)
    with pytest.raises(ScoreError, match=r"expected \(D, N\)"):
        sweep_table(scores, tokens[:-1], domain, 2)
    with pytest.raises(ScoreError, match=r"no score at all \(first: row 7\)"):
        sweep_table(np.where(np.arange(50)[:, None] == 7, np.float32(np.nan), scores), tokens, domain, 2)
    with pytest.raises(ScoreError, match="row 3 is infinite"):
        sweep_table(np.where(np.arange(50)[:, None] == 3, np.float32(np.inf), scores), tokens, domain, 2)
    with pytest.raises(ScoreError, match=r"expected 0\.\.0"):
        sweep_table(scores, tokens, domain, 1)
    with pytest.raises(ScoreError, match="tokens span"):
        sweep_table(scores, tokens - 10_000, domain, 2)
    with pytest.raises(ScoreError, match="no documents"):
        sweep_table(scores[:0], tokens[:0], domain[:0], 2)
    table = sweep_table(scores, tokens, domain, 2)
    with pytest.raises(RecipeError, match="3 criteria"):
        sweep(table, random_thetas(2, 2))
    with pytest.raises(RecipeError, match="bins is 8"):
        sweep(table, random_thetas(2, 3), bins=8)
    with pytest.raises(BudgetError, match="positive"):
        sweep(table, random_thetas(2, 3), token_budget=-1.0)


def test_without_numba_the_sweep_is_slow_but_right(monkeypatch: pytest.MonkeyPatch) -> None:
    table, thetas = grouped(table_of(17, 2_000, 3)), random_thetas(3, 3)[:4]
    before = sweep(table, thetas)
    monkeypatch.setitem(sys.modules, "numba", None)
    same(before, sweep(table, thetas))
    with pytest.raises(MissingExtraError, match=r"quadmix\[search\]"):
        sweep(table, thetas, kernel="numba")
