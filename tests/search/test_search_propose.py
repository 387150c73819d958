"""The search finds what the simulator hides, and refuses what it cannot know."""

import dataclasses

import numpy as np
import pytest
from search_world import make_loss, make_trial, make_world

from quadmix.errors import BudgetError, SearchError
from quadmix.mixing.select import expected_tokens
from quadmix.recipe import SearchSection
from quadmix.search.propose import effective_weights, propose, usable_trials
from quadmix.types import Proposal, from_json, to_json

SMALL = SearchSection(candidates=600, top_k=10)


@pytest.fixture(scope="module")
def world():
    return make_world(seed=2)


@pytest.fixture(scope="module")
def proposal(world):
    return propose(world.swarm(48), world.context(48), SMALL)


def true_objective(world, theta, weights):
    return sum(weights[t] * v for t, v in world.losses(theta).items())


def by_name(proposal):
    return {c.name: c for c in proposal.candidates}


def test_theta_star_truly_beats_the_prior_mean_and_the_mean_of_the_swarm(world, proposal):
    weights, found = proposal.target_weights, by_name(proposal)
    star = true_objective(world, found["theta-star"].theta, weights)
    control = true_objective(world, found["prior-mean"].theta, weights)
    assert star < control - 0.5 * proposal.spread_sd
    assert proposal.candidates[0].name == "theta-star"
    assert list(found)[:4] == ["theta-star", "top-1", "best-observed", "prior-mean"]


def test_predictions_lie_near_the_truth_and_their_intervals_hold_most_of_it(world, proposal):
    inside = [
        c.predicted_low <= true_objective(world, c.theta, proposal.target_weights) <= c.predicted_high
        for c in proposal.candidates
    ]
    assert sum(inside) >= len(inside) - 1
    for c in proposal.candidates:
        parts = sum(proposal.target_weights[t] * v for t, v in c.losses.items())
        assert c.predicted == pytest.approx(parts)


def test_every_candidate_meets_the_budget(world, proposal):
    for candidate in proposal.candidates:
        tokens = expected_tokens(candidate.theta, world.annotations).sum()
        assert tokens == pytest.approx(world.budget, rel=1e-6), candidate.name


def test_best_observed_is_the_trial_of_least_measured_objective(world, proposal):
    trials = [t for t in world.swarm(48) if t.kind == "prior"]
    best = min(
        trials,
        key=lambda t: sum(w * t.losses[n].bits_per_byte for n, w in proposal.target_weights.items()),
    )
    np.testing.assert_array_equal(by_name(proposal)["best-observed"].theta.cutoff, best.theta.cutoff)


def test_reports_name_every_surrogate_for_every_target_and_auto_beats_the_paper(proposal):
    found = {(r.target, r.surrogate): r for r in proposal.diagnostics}
    kinds, targets = {"auto", "gp", "lightgbm", "ridge", "paper"}, {"objective", "easy", "hard"}
    assert set(found) == {(t, k) for t in targets for k in kinds}
    for target in targets:
        assert found[target, "auto"].rmse < found[target, "paper"].rmse
        assert len(found[target, "auto"].parity) == proposal.trials_used == 48
    auto = found["objective", "auto"]
    assert auto.r2 > 0.5
    assert auto.spearman_low < auto.spearman < auto.spearman_high
    assert 0 < proposal.noise_sd < proposal.spread_sd


def test_the_proposal_is_deterministic_whatever_the_order_of_trials_and_survives_json(world):
    swarm = world.swarm(24)
    section = SearchSection(candidates=200)
    first = propose(swarm, world.context(24), section)
    second = propose(swarm[::-1], world.context(24), section)
    assert to_json(first) == to_json(second)
    assert to_json(from_json(Proposal, to_json(first))) == to_json(first)
    other = propose(swarm, world.context(24, seed=6), section)
    assert to_json(other) != to_json(first)


def test_a_budget_that_some_draws_cannot_meet_drops_them_with_a_count(world):
    def picky(theta):
        if theta.weights[0, 0] > 0.5:
            raise BudgetError("too greedy")
        return world.fit(theta)

    context = dataclasses.replace(world.context(24), fit=picky)
    swarm = world.swarm(24)
    found = propose(swarm, context, SearchSection(candidates=200, surrogate="gp"))
    assert any("candidate θ cannot meet the budget: too greedy" in w for w in found.warnings)

    def never(theta):
        raise BudgetError("no")

    with pytest.raises(SearchError, match="none of 200 candidate θ can meet"):
        propose(swarm, dataclasses.replace(context, fit=never), SearchSection(candidates=200, surrogate="gp"))


def test_the_paper_surrogate_is_refused_with_an_explanation_on_a_small_swarm(world):
    with pytest.raises(SearchError, match="at least 40"):
        propose(world.swarm(16), world.context(16), SearchSection(candidates=200, surrogate="paper"))


def test_the_paper_surrogate_runs_and_is_a_candidate_beside_the_others_on_a_larger_swarm(world):
    found = propose(world.swarm(64), world.context(64), SearchSection(candidates=300, surrogate="gp"))
    assert by_name(found)["paper"].predicted >= by_name(found)["theta-star"].predicted
    alone = propose(world.swarm(64), world.context(64), SearchSection(candidates=300, surrogate="paper"))
    assert "paper" not in by_name(alone)
    np.testing.assert_allclose(
        by_name(alone)["theta-star"].theta.cutoff, by_name(found)["paper"].theta.cutoff
    )


def test_pure_noise_is_called_noise(world):
    rng = np.random.default_rng(0)
    swarm = [
        dataclasses.replace(
            t, losses={n: make_loss(1 + 0.01 * rng.normal()) for n in t.losses}
        )
        for t in world.swarm(32)
    ]  # fmt: skip
    found = propose(swarm, world.context(32), SearchSection(candidates=200))
    texts = " | ".join(found.warnings)
    assert "no better than the mean" in texts or "not distinguishable from zero" in texts
    report = next(r for r in found.diagnostics if (r.target, r.surrogate) == ("objective", "auto"))
    assert report.r2 < 0.2


def test_failed_and_broken_trials_are_excluded_by_name_and_reason(world):
    swarm = world.swarm(12)
    swarm[0] = dataclasses.replace(swarm[0], status="failed", reason="loss became nan at step 7", losses={})
    swarm[1] = make_trial("prior-001", {"easy": float("inf"), "hard": 1.0}, theta=swarm[1].theta)
    swarm[2] = make_trial("prior-002", {"easy": 1.0}, theta=swarm[2].theta)
    swarm[3] = make_trial("prior-003", {"easy": 1.0, "hard": 1.0})
    used, excluded = usable_trials(swarm, world.context(10), 0.8)
    assert len(used) == 8
    assert excluded == {
        "prior-000": "loss became nan at step 7",
        "prior-001": "loss on target 'easy' is inf",
        "prior-002": "has no loss on target 'hard'",
        "prior-003": "carries no θ",
    }
    with pytest.raises(
        SearchError, match=r"8 of 12 planned trials .* at least 10; prior-000: loss became nan"
    ):
        usable_trials(swarm, world.context(12), 0.8)
    with pytest.raises(SearchError, match="7 of 4 planned trials can be used, expected at least 8"):
        usable_trials([t for t in world.swarm(7) if t.kind == "prior"], world.context(4), 0.0)


def test_constant_losses_and_equal_thetas_are_refused(world):
    swarm = world.swarm(10)
    flat = [make_trial(t.trial_id, {"easy": 1.0, "hard": 2.0}, theta=t.theta) for t in swarm]
    with pytest.raises(SearchError, match="same loss on every target"):
        propose(flat, world.context(10), SMALL)
    same = [dataclasses.replace(t, theta=swarm[0].theta) for t in swarm]
    with pytest.raises(SearchError, match="same θ"):
        propose(same, world.context(10), SMALL)


def test_a_constant_target_is_left_out_with_a_warning(world):
    swarm = [
        dataclasses.replace(
            t, losses={**t.losses, "hard": dataclasses.replace(t.losses["hard"], bits_per_byte=1.0)}
        )
        for t in world.swarm(12)
    ]
    found = propose(swarm, world.context(12), SearchSection(candidates=100, surrogate="gp"))
    assert list(found.target_weights) == ["easy"]
    assert any("'hard' is constant" in w for w in found.warnings)


def test_effective_weights_rank_like_the_weighted_mean_of_z_scores():
    rng = np.random.default_rng(1)
    losses = {"a": rng.normal(5, 2.0, 30), "b": rng.normal(1, 0.01, 30)}
    weights = effective_weights({"a": 1.0, "b": 3.0}, losses)
    assert sum(weights.values()) == pytest.approx(1)
    z = {n: (v - v.mean()) / v.std(ddof=1) for n, v in losses.items()}
    mixed = weights["a"] * losses["a"] + weights["b"] * losses["b"]
    np.testing.assert_array_equal(np.argsort(mixed), np.argsort(z["a"] + 3 * z["b"]))
