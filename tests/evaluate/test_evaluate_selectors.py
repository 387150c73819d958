"""Every selector through the one interface: budgets, determinism, order, missing scores, errors."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selector_pools import BY_DOMAIN, LABELS, make_pool, make_table, shuffled, taken

from quadmix.errors import BudgetError, RecipeError, ScoreError, SearchError
from quadmix.evaluate.selectors import baseline_labels, choose, from_theta, random_mean, theta_copies
from quadmix.mixing.limits import Limits
from quadmix.mixing.prior import draw_theta, mean_theta, prior_mean
from quadmix.recipe import Baseline
from quadmix.rng import stream


@pytest.mark.parametrize("label", LABELS)
@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.02, 0.6), st.booleans())
def test_the_budget_is_met_within_a_document(label: str, seed: int, share: float, ties: bool) -> None:
    pool = make_pool(make_table(seed, documents=150, decimals=0 if ties else None))
    total, longest = int(pool.table.tokens.sum()), int(pool.table.tokens.max())
    chosen = choose(label, pool, share * total, draw=seed)
    parts = len(pool.table.domains) if label in BY_DOMAIN else 1
    assert abs(taken(pool, chosen.copies) - share * total) <= parts * longest
    assert chosen.label == label
    assert chosen.copies.dtype == np.int32
    assert (chosen.theta is not None) == from_theta(label)


@pytest.mark.parametrize("label", LABELS)
def test_the_same_seed_gives_the_same_bytes_in_any_order_of_documents(label: str) -> None:
    pool = make_pool(make_table(3, missing=0.2, decimals=1))
    budget = 0.15 * pool.table.tokens.sum()
    once = choose(label, pool, budget, draw=5).copies
    assert once.tobytes() == choose(label, pool, budget, draw=5).copies.tobytes()
    order = np.random.default_rng(1).permutation(len(pool.table))
    np.testing.assert_array_equal(choose(label, shuffled(pool, order), budget, draw=5).copies, once[order])


@pytest.mark.parametrize("label", ["random", "qurating", "qurating-language", "dsir", "regmix", "prior-mean"])
def test_another_draw_takes_other_documents(label: str) -> None:
    pool = make_pool(make_table(3))
    budget = 0.15 * pool.table.tokens.sum()
    first, second = (choose(label, pool, budget, draw=draw).copies for draw in (1, 2))
    assert (first != second).any()


@pytest.mark.parametrize("label", LABELS)
def test_held_out_documents_are_never_chosen(label: str) -> None:
    table = make_table(4)
    table = replace(table, held_out=np.random.default_rng(0).random(len(table)) < 0.3)
    pool = make_pool(table)
    budget = 0.2 * float(table.tokens[~table.held_out].sum())
    copies = choose(label, pool, budget, draw=1).copies
    assert copies[table.held_out].sum() == 0
    assert abs(taken(pool, copies) - budget) <= len(table.domains) * int(table.tokens.max())


@pytest.mark.parametrize(
    "label", ["global-cut", "criteria-mix", "qurating", "upsampling", "qurating-language", "fineweb2-hq"]
)
def test_documents_without_any_score_are_never_chosen(label: str) -> None:
    table = make_table(5)
    scores = table.scores.copy()
    scores[:100] = np.nan
    pool = make_pool(replace(table, scores=scores))
    copies = choose(label, pool, 0.4 * float(table.tokens[100:].sum()), draw=1).copies
    assert copies[:100].sum() == 0


@pytest.mark.parametrize("label", ["top:b", "top-domain:b", "top-language:b"])
def test_a_missing_score_is_no_reason_to_choose_a_document(label: str) -> None:
    table = make_table(6, missing=0.3)
    pool = make_pool(table)
    copies = choose(label, pool, 0.3 * float(table.tokens.sum()), draw=1).copies
    assert copies[np.isnan(table.scores[:, 1])].sum() == 0


@pytest.mark.parametrize("label", ["top:a", "global-cut", "criteria-mix", "qurating", "fineweb2-hq"])
def test_too_few_scored_tokens_are_refused_with_their_number(label: str) -> None:
    table = make_table(7, criteria="a")
    scores = table.scores.copy()
    scores[50:] = np.nan
    pool = make_pool(replace(table, scores=scores))
    scored = int(table.tokens[:50].sum())
    with pytest.raises(BudgetError, match=f"baseline '{label}'.* a score.*there are {scored:,}"):
        choose(label, pool, scored + 1000.0, draw=1)


def test_a_domain_with_too_few_scored_tokens_is_named() -> None:
    table = make_table(7, criteria="a")
    scores = table.scores.copy()
    rows = np.flatnonzero(table.domain == 2)
    scores[rows[1:]] = np.nan
    pool = make_pool(replace(table, scores=scores))
    with pytest.raises(BudgetError, match=f"in domain 'm2' .*there are {int(table.tokens[rows[0]]):,}"):
        choose("top-domain:a", pool, 0.5 * float(table.tokens.sum()), draw=1)


def test_dsir_takes_no_document_without_a_weight() -> None:
    pool = make_pool(make_table(8))
    weights = np.zeros(len(pool.table))
    weights[:150], weights[150:200] = np.nan, -np.inf
    left = float(pool.table.tokens[200:].sum())
    copies = choose("dsir", replace(pool, importance=weights), 0.9 * left, draw=1).copies
    assert copies[:200].sum() == 0
    with pytest.raises(BudgetError, match=f"an importance weight; there are {left:,.0f}"):
        choose("dsir", replace(pool, importance=weights), 1.2 * left, draw=1)


@pytest.mark.parametrize("label", [x for x in LABELS if x not in BY_DOMAIN and x != "upsampling"])
def test_more_than_the_pool_is_refused(label: str) -> None:
    pool = make_pool(make_table(9))
    total = int(pool.table.tokens.sum())
    with pytest.raises(BudgetError, match=rf"{2 * total:,} tokens.*{total:,}"):
        choose(label, pool, 2.0 * total, draw=1)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("budget", [0.0, -5.0, float("nan")])
def test_a_budget_that_is_no_number_of_tokens_is_refused(label: str, budget: float) -> None:
    with pytest.raises(BudgetError, match=f"baseline '{label}'"):
        choose(label, make_pool(make_table(9)), budget, draw=1)


def test_a_theta_that_cannot_reach_the_budget_is_refused_with_the_numbers() -> None:
    pool = make_pool(make_table(9))
    total = float(pool.table.tokens.sum())
    ones = np.ones(len(pool.table.domains))
    limits = Limits(multipliers=ones, min_share=0 * ones, max_share=ones, max_copies=0.5)
    with pytest.raises(BudgetError, match=f"baseline 'prior-mean': token budget {0.9 * total:,.0f} exceeds"):
        choose("prior-mean", replace(pool, limits=limits), 0.9 * total, draw=1)


def test_a_mixture_that_wants_an_empty_domain_is_refused_with_what_it_reaches() -> None:
    table = make_table(9)
    pool = replace(make_pool(replace(table, domains=(*table.domains, "empty"))), shares=np.full(5, 0.2))
    with pytest.raises(BudgetError, match=r"domain 'empty'.* reaches 800 of 1,000 tokens"):
        choose("regmix", pool, 1000.0, draw=1)
    with pytest.raises(RecipeError, match=r"expected \(5,\)"):
        choose("regmix", replace(pool, shares=np.full(4, 0.25)), 1000.0, draw=1)


@pytest.mark.parametrize(
    ("label", "error", "words"),
    [
        ("dsir", ScoreError, "needs the pool's `importance`"),
        ("regmix", SearchError, "needs the pool's `shares`"),
        ("fineweb2-hq", ScoreError, "'fineweb2-hq' needs the pool's `languages`"),
        ("qurating-language", ScoreError, "'qurating-language' needs the pool's `languages`"),
        ("top-language:a", ScoreError, "'top-language:a' needs the pool's `languages`"),
        ("top-language:d", RecipeError, "criterion 'd'.*expected one of a, b, c"),
        ("top:d", RecipeError, "criterion 'd'.*expected one of a, b, c"),
        ("theta:x", RecipeError, "expected a number behind 'theta:'"),
        ("best", RecipeError, "no selector 'best'; expected one of random"),
    ],
)
def test_what_a_label_lacks_is_said(label: str, error: type[Exception], words: str) -> None:
    pool = replace(make_pool(make_table(1)), importance=None, shares=None, languages=None)
    with pytest.raises(error, match=words):
        choose(label, pool, 1000.0, draw=1)


def test_infinite_or_too_few_importance_weights_are_refused() -> None:
    pool = make_pool(make_table(1))
    with pytest.raises(ScoreError, match=r"row 0 is infinite"):
        choose("dsir", replace(pool, importance=np.full(len(pool.table), np.inf)), 1000.0, draw=1)
    with pytest.raises(ScoreError, match=r"shape \(3,\)"):
        choose("dsir", replace(pool, importance=np.zeros(3)), 1000.0, draw=1)


def test_labels_follow_the_recipe_each_once() -> None:
    names: list[Baseline] = ["regmix", "criteria", "criteria-domain", "random", "random", "criteria-language"]
    assert baseline_labels(names, ["a", "b"], 2) == (
        "regmix", "top:a", "top:b", "top-domain:a", "top-domain:b", "random", "top-language:a",
        "top-language:b", "theta:000", "theta:001",
    )  # fmt: skip


def test_of_one_criterion_the_same_cut_is_not_taken_three_times() -> None:
    assert baseline_labels(["criteria", "criteria-mix", "global-cut"], ["a"]) == ("top:a",)
    assert baseline_labels(["criteria-mix", "global-cut"], ["a"]) == ("criteria-mix", "global-cut")
    pool = make_pool(make_table(2, criteria="a"))
    copies = [choose(x, pool, 5000.0, draw=3).copies for x in ("top:a", "criteria-mix", "global-cut")]
    np.testing.assert_array_equal(copies[0], copies[1])
    np.testing.assert_array_equal(copies[0], copies[2])


def test_random_thetas_do_not_depend_on_the_draw_and_differ_by_number() -> None:
    pool = make_pool(make_table(2))
    first, again, other = (
        choose(label, pool, 5000.0, draw=draw).theta
        for label, draw in (("theta:000", 1), ("theta:000", 2), ("theta:001", 1))
    )
    assert first is not None
    assert again is not None
    assert other is not None
    np.testing.assert_array_equal(first.cutoff, again.cutoff)
    assert (first.weights != other.weights).any()
    drawn = draw_theta(stream(pool.seed, "compare-theta", 1), pool.prior, 1)[0]
    np.testing.assert_array_equal(other.weights, drawn.weights)


def test_random_mean_is_the_mean_of_ten_draws_of_its_stream() -> None:
    pool = make_pool(make_table(2))
    drawn = draw_theta(stream(pool.seed, "random-mean"), pool.prior, 10)
    np.testing.assert_array_equal(
        random_mean(pool.prior, pool.seed).cutoff, mean_theta(drawn, pool.prior).cutoff
    )


def test_a_theta_is_fitted_afresh_whatever_thinning_it_carries() -> None:
    pool = make_pool(make_table(2))
    plain = prior_mean(pool.prior)
    thinned = replace(plain, scale=np.full(plain.num_domains, 0.3))
    first, second = (theta_copies(t, pool, 5000.0, seed=4) for t in (plain, thinned))
    np.testing.assert_array_equal(first[0].cutoff, second[0].cutoff)
    np.testing.assert_array_equal(first[1], second[1])
