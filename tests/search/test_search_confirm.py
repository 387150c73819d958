"""Confirmation: blocked analysis, honest intervals, a verdict that noise cannot buy."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.stats import norm, t, ttest_rel
from search_world import make_trial

from quadmix.errors import SearchError
from quadmix.mixing.prior import Prior, draw_theta
from quadmix.search.confirm import (
    anchored,
    broken_ceilings,
    complete_block,
    decide,
    dunnett_critical,
    measure,
    objectives,
    paired,
)
from quadmix.types import Candidate, Confirmation, Objective, Proposal, from_json, to_json
from quadmix.types.results import Standing

MEAN = Objective(weights={"x": 0.25, "y": 0.75})
NAMES = ("theta-star", "top-1", "best-observed", "prior-mean")


def trials_of(values, seeds=(1, 2, 3)):
    """Trials whose objective under MEAN is values[label][i] at seeds[i]."""
    return [
        make_trial(f"{label}-{seed}", {"x": v - 0.3, "y": v + 0.1}, kind="confirm", label=label, seed=seed)
        for label, row in values.items()
        for seed, v in zip(seeds, row, strict=True)
    ]


def proposal_of(names=NAMES, objective=MEAN):
    thetas = draw_theta(np.random.default_rng(0), Prior(num_domains=2, num_criteria=2), len(names))
    return Proposal(
        candidates=tuple(
            Candidate(name=n, theta=t, predicted=1.0, predicted_low=0.9, predicted_high=1.1, losses={})
            for n, t in zip(names, thetas, strict=True)
        ),
        objective=objective, diagnostics=(), trials_used=8, trials_excluded={}, noise_sd=0.01,
        spread_sd=0.1,
    )  # fmt: skip


def world_values(rng, effects, *, seeds=3, noise=0.01):
    block = 0.1 * rng.normal(size=seeds)
    return {n: 1 + e + block + noise * rng.normal(size=seeds) for n, e in effects.items()}


def test_measure_gives_means_t_intervals_and_losses_per_target():
    values = [1.0, 1.2, 1.1]
    (found,) = measure(trials_of({"a": values}), MEAN)
    half = t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert found.values == pytest.approx(values)
    assert (found.mean, found.low, found.high) == pytest.approx((1.1, 1.1 - half, 1.1 + half))
    assert found.losses == pytest.approx({"x": 0.8, "y": 1.2})
    assert found.heldout == pytest.approx({"a": 1.5})
    assert (found.selected_tokens, found.unique_tokens, found.epochs) == (1000, 800, 2.0)


def test_values_are_in_order_of_seeds_and_one_seed_has_no_interval():
    (found,) = measure(trials_of({"a": [3.0, 1.0]}, seeds=(9, 2)), MEAN)
    assert found.values == pytest.approx((1.0, 3.0))
    (single,) = measure(trials_of({"a": [3.0]}, seeds=(9,)), MEAN)
    assert np.isnan([single.low, single.high]).all()


def test_two_labels_give_the_paired_t_test():
    rng = np.random.default_rng(0)
    values = world_values(rng, {"a": -0.01, "prior-mean": 0.0}, seeds=5)
    (found,) = paired(trials_of(values, range(5)), MEAN, "prior-mean")
    test = ttest_rel(values["a"], values["prior-mean"])
    low, high = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.difference / found.stderr == pytest.approx(test.statistic)
    assert found.pairs == 5


def test_the_standard_error_is_that_of_the_two_way_least_squares_fit():
    rng = np.random.default_rng(1)
    values = world_values(rng, {"a": -0.02, "b": 0.01, "prior-mean": 0.0}, seeds=4)
    rows = [(i, s, values[n][s]) for i, n in enumerate(values) for s in range(4)]
    design = np.zeros((12, 6))
    for r, (i, s, _) in enumerate(rows):
        design[r, i] = 1
        if s:
            design[r, 2 + s] = 1
    y = np.array([v for *_, v in rows])
    beta, rss, *_ = np.linalg.lstsq(design, y, rcond=None)
    contrast = np.array([1, 0, -1, 0, 0, 0.0])
    stderr = np.sqrt(rss[0] / 6 * contrast @ np.linalg.inv(design.T @ design) @ contrast)
    found = next(p for p in paired(trials_of(values, range(4)), MEAN, "prior-mean") if p.label == "a")
    assert found.difference == pytest.approx(contrast @ beta)
    assert found.stderr == pytest.approx(stderr)
    assert found.high - found.difference == pytest.approx(t.ppf(0.975, 6) * stderr)


def test_a_shift_common_to_a_seed_changes_no_difference():
    rng = np.random.default_rng(2)
    values = world_values(rng, {"a": -0.02, "b": 0.01, "prior-mean": 0.0})
    shifted = {n: v + np.array([0.0, 5.0, -3.0]) for n, v in values.items()}
    for one, other in zip(
        paired(trials_of(values), MEAN, "prior-mean"), paired(trials_of(shifted), MEAN, "prior-mean"),
        strict=True,
    ):  # fmt: skip
        assert (one.difference, one.low, one.high) == pytest.approx((other.difference, other.low, other.high))


@pytest.mark.parametrize(
    ("labels", "freedom", "table"),
    [(1, 6, 2.45), (2, 6, 2.86), (3, 6, 3.10), (4, 6, 3.26), (3, 10, 2.76), (2, 5, 3.03), (3, 60, 2.41)],
)
def test_critical_values_equal_dunnetts_table(labels, freedom, table):
    """Dunnett (1964), two-sided, 95 %."""
    assert dunnett_critical(labels, freedom) == pytest.approx(table, abs=0.006)


def test_a_clear_gain_is_confirmed_with_its_numbers():
    values = world_values(
        np.random.default_rng(3), {"theta-star": -0.2, "top-1": -0.1, "best-observed": 0.0, "prior-mean": 0.0}
    )
    proposal = proposal_of()
    found = decide(proposal, trials_of(values))
    assert (found.winner, found.confirmed) == ("theta-star", True)
    np.testing.assert_array_equal(found.theta.cutoff, proposal.candidates[0].theta.cutoff)
    star = next(p for p in found.against if p.label == "theta-star")
    assert star.high < 0
    assert f"{star.difference:+.5f}" in found.reason
    assert "best of 3 candidates" in found.reason
    assert {m.label for m in found.measured} == set(NAMES)
    assert found.needed == ""


def test_a_runner_up_that_measures_best_wins():
    values = world_values(
        np.random.default_rng(4), {"theta-star": -0.1, "top-1": -0.3, "best-observed": 0.0, "prior-mean": 0.0}
    )
    proposal = proposal_of()
    found = decide(proposal, trials_of(values))
    assert (found.winner, found.confirmed) == ("top-1", True)
    np.testing.assert_array_equal(found.theta.cutoff, proposal.candidates[1].theta.cutoff)


def test_the_control_as_winner_is_never_a_confirmation():
    values = world_values(
        np.random.default_rng(5), {"theta-star": 0.2, "top-1": 0.1, "best-observed": 0.3, "prior-mean": 0.0}
    )
    found = decide(proposal_of(), trials_of(values))
    assert (found.winner, found.confirmed) == ("prior-mean", False)
    assert "no candidate measured better than prior-mean" in found.reason
    assert "More seeds would not turn this into a gain" in found.needed


def test_a_gain_inside_the_noise_is_refused_and_the_seeds_it_would_take_are_named():
    values = {"theta-star": [0.99, 1.03, 0.97], "prior-mean": [1.0, 1.0, 1.0]}
    found = decide(proposal_of(("theta-star", "prior-mean")), trials_of(values))
    assert (found.winner, found.confirmed) == ("theta-star", False)
    (p,) = found.against
    assert "the only candidate" in found.reason
    noise = p.stderr * np.sqrt(3)
    enough = (
        n for n in range(4, 1000) if (t.ppf(0.975, n - 1) + norm.ppf(0.8)) * noise / n**0.5 <= -p.difference
    )
    assert f"about {next(enough)} seeds instead of 3 would show it four times in five" in found.needed


def test_pure_noise_is_confirmed_in_about_one_of_forty_cases_although_the_best_of_three_is_picked():
    rng = np.random.default_rng(6)
    proposal, flat = proposal_of(), dict.fromkeys(NAMES, 0.0)
    rounds = 400
    count = sum(decide(proposal, trials_of(world_values(rng, flat))).confirmed for _ in range(rounds))
    # 2.5 % expected (one side of 95 %); the bound is 3 binomial standard deviations above it
    assert count / rounds <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / rounds)


def test_failed_trials_drop_their_seed_for_all_and_are_named():
    values = world_values(np.random.default_rng(7), dict.fromkeys(NAMES, 0.0), seeds=4)
    trials = trials_of(values, range(4))
    trials[1] = dataclasses.replace(trials[1], status="failed", reason="diverged", losses={})
    trials[6] = make_trial("top-1-2", {"x": float("nan"), "y": 1.0}, kind="confirm", label="top-1", seed=2)
    block = complete_block(trials, MEAN)
    assert block.seeds == (0, 3)
    assert block.excluded == {"theta-star-1": "diverged", "top-1-2": "no finite loss on target 'x'"}
    found = decide(proposal_of(), trials)
    assert all(p.pairs == 2 for p in found.against)
    assert "theta-star-1: diverged" in found.reason


def test_without_common_seeds_nothing_is_confirmed_and_the_reason_says_why():
    trials = trials_of({"theta-star": [0.5]}, (1,)) + trials_of({"prior-mean": [1.0]}, (2,))
    found = decide(proposal_of(("theta-star", "prior-mean")), trials)
    assert not found.confirmed
    assert "At least 2 common seeds" in found.needed
    assert np.isnan(found.against[0].difference)


def test_a_label_that_never_finished_is_left_out_but_the_control_is_needed():
    values = world_values(np.random.default_rng(8), {"theta-star": -0.2, "prior-mean": 0.0})
    failed = [
        make_trial(f"top-1-{s}", {}, kind="confirm", label="top-1", seed=s, status="failed", reason="oom")
        for s in (1, 2, 3)
    ]
    found = decide(proposal_of(), trials_of(values) + failed)
    assert found.confirmed
    assert "top-1-1: oom" in found.reason
    with pytest.raises(SearchError, match="control 'prior-mean' has no finished trial"):
        decide(proposal_of(), [x for x in trials_of(values) if x.label == "theta-star"])
    with pytest.raises(SearchError, match="only the control"):
        decide(proposal_of(), [x for x in trials_of(values) if x.label == "prior-mean"])


def test_two_trials_of_one_label_and_seed_are_refused():
    twice = trials_of({"a": [1.0]}, (1,)) * 2
    with pytest.raises(SearchError, match="two trials with seed 1"):
        measure(twice, MEAN)


def test_the_verdict_does_not_depend_on_the_order_of_trials():
    values = world_values(np.random.default_rng(9), {n: -0.02 * i for i, n in enumerate(NAMES)})
    trials = trials_of(values)
    orders = itertools.islice(itertools.permutations(trials), 0, 5000, 900)
    found = [decide(proposal_of(), list(order)) for order in orders]
    assert len({(d.winner, d.confirmed, d.theta.cutoff.tobytes()) for d in found}) == 1


def test_the_worst_target_decides_where_the_objective_says_so():
    """x of b rose by 0.2, y of a by 0.3; weighted 0.25 and 0.75, a is worse off although its mean is not."""
    worst = Objective(weights={"x": 0.5, "y": 0.5}, how="worst", levels={"x": 1.0, "y": 1.0})
    a = make_trial("a-1", {"x": 0.6, "y": 1.3}, label="a", seed=1)
    b = make_trial("b-1", {"x": 1.2, "y": 1.0}, label="b", seed=1)
    assert objectives([a, b], worst) == pytest.approx([1.0 + 0.3, 1.0 + 0.2])
    assert objectives([a, b], MEAN) == pytest.approx([0.25 * 0.6 + 0.75 * 1.3, 0.25 * 1.2 + 0.75])


def test_a_ceiling_is_broken_beyond_the_standard_error_of_the_mean_only():
    values = {"over": [2.0, 2.1, 2.2], "near": [1.9, 2.1, 2.3], "below": [1.0, 1.0, 1.0]}
    bounded = Objective(weights=MEAN.weights, ceilings={"y": 2.12})  # y is the objective plus 0.1
    found = broken_ceilings(trials_of(values), bounded)
    assert list(found) == ["over"]  # 2.2 - 0.058 exceeds 2.12, 2.2 - 0.115 does not
    assert found["over"] == "its loss of 2.2000 ± 0.0577 on 'y' exceeds the ceiling of 2.12"
    assert broken_ceilings(trials_of({"over": [9.0]}, (1,)), bounded) == {}


def test_a_candidate_that_breaks_a_ceiling_cannot_win():
    trials = [
        make_trial(f"{n}-{s}", {"x": x + 0.001 * s, "y": y + 0.001 * s}, label=n, seed=s)
        for n, x, y in [("theta-star", 2.0, 0.2), ("top-1", 1.0, 0.9), ("prior-mean", 1.0, 1.0)]
        for s in (1, 2, 3)
    ]
    for i, trial in enumerate(trials):  # some residual, so that there is noise to estimate
        y = trial.losses["y"]
        noisy = dataclasses.replace(y, bits_per_byte=y.bits_per_byte + 1e-4 * (i * i % 5))
        trials[i] = dataclasses.replace(trial, losses={"x": trial.losses["x"], "y": noisy})
    assert decide(proposal_of(), trials).winner == "theta-star"
    bounded = Objective(weights=MEAN.weights, ceilings={"x": 1.5})
    found = decide(proposal_of(objective=bounded), trials)
    assert (found.winner, found.confirmed) == ("top-1", True)
    assert "theta-star cannot win: its loss of 2.0020" in found.reason
    none = decide(proposal_of(objective=Objective(weights=MEAN.weights, ceilings={"x": 0.5})), trials)
    assert (none.winner, none.confirmed) == ("prior-mean", False)
    assert "every candidate breaks a ceiling" in none.reason
    assert "Loosen the ceilings" in none.needed


def test_candidates_without_theta_are_ignored_and_named():
    values = world_values(np.random.default_rng(10), {"theta-star": -0.2, "top-1": -0.5, "prior-mean": 0.0})
    proposal = proposal_of(("theta-star", "top-1", "prior-mean"))
    bare = dataclasses.replace(proposal.candidates[1], theta=None)
    found = decide(
        dataclasses.replace(proposal, candidates=(proposal.candidates[0], bare, proposal.candidates[2])),
        trials_of(values),
    )
    assert found.winner == "theta-star"
    assert "top-1: has no θ" in found.reason


def test_labels_that_left_the_race_are_not_compared_but_still_count_as_tried():
    """The interval of two labels after a race of four candidates is Dunnett's for four comparisons."""
    values = world_values(np.random.default_rng(11), {"theta-star": -0.02, "prior-mean": 0.0}, seeds=6)
    early = world_values(np.random.default_rng(12), {"top-1": -5.0}, seeds=3)
    trials = trials_of(values, range(6)) + trials_of(early, range(3))
    rounds = [
        Standing(label=n, round=1 + (not left), seeds=6, mean=1.0, behind=0.0, left=left)
        for n, left in [
            ("theta-star", ""),
            ("prior-mean", ""),
            ("top-1", "a"),
            ("best-observed", "b"),
            ("z", "c"),
        ]
    ]
    found = decide(proposal_of(), trials, rounds=rounds)
    assert [p.label for p in found.against] == ["theta-star"]
    (pair,) = found.against
    assert (pair.high - pair.difference) / pair.stderr == pytest.approx(dunnett_critical(4, 5))
    assert "best of 4 candidates" in found.reason
    assert {m.label for m in found.measured} == {"theta-star", "prior-mean", "top-1"}
    assert found.rounds == tuple(rounds)
    again = from_json(Confirmation, to_json(found))
    assert (again.rounds, again.needed, again.reason) == (found.rounds, found.needed, found.reason)


def test_a_confirmation_written_before_there_were_rounds_is_read():
    found = decide(
        proposal_of(), trials_of(world_values(np.random.default_rng(3), dict.fromkeys(NAMES, 0.0)))
    )
    old = {k: v for k, v in to_json(found).items() if k not in ("rounds", "needed")}
    assert from_json(Confirmation, old).rounds == ()


def test_no_worse_than_the_control_is_judged_by_the_control_of_these_models():
    """All losses fall with a larger model; the ceiling that was measured on the proxies would never bind."""
    bounded = Objective(weights=MEAN.weights, ceilings={"y": 9.0}, relative=("y",))
    values = {"a": [0.8, 0.81, 0.79], "prior-mean": [1.0, 1.01, 0.99]}
    trials = trials_of(values)
    spoiled = [
        dataclasses.replace(
            t, losses={**t.losses, "y": dataclasses.replace(t.losses["y"], bits_per_byte=1.2)}
        ) if t.label == "a" else t
        for t in trials
    ]  # fmt: skip
    there = anchored(bounded, spoiled)
    assert there.ceilings["y"] == pytest.approx(1.1)  # the control's y here
    assert set(broken_ceilings(spoiled, there)) == {"a"}
    assert broken_ceilings(spoiled, bounded) == {}
    found = decide(proposal_of(("a", "prior-mean"), bounded), spoiled)
    assert not found.confirmed
    assert "a cannot win" in found.reason


def test_the_worst_target_is_reckoned_from_the_control_of_these_models():
    worst = Objective(weights={"x": 0.5, "y": 0.5}, how="worst", levels={"x": 5.0, "y": 1.0})
    trials = trials_of({"a": [0.9, 0.9], "prior-mean": [1.0, 1.0]}, (1, 2))
    assert anchored(worst, trials).levels == pytest.approx({"x": 0.7, "y": 1.1})
    assert anchored(MEAN, trials) == MEAN


def test_a_label_that_finished_few_seeds_does_not_take_the_others_seeds_away():
    trials = trials_of({"a": [1.0, 1.1, 1.2, 1.3], "prior-mean": [2.0, 2.1, 2.2, 2.3]}, (1, 2, 3, 4))
    block = complete_block([*trials, *trials_of({"ill": [0.5]}, (1,))], MEAN)
    assert block.labels == ("a", "prior-mean")
    assert block.seeds == (1, 2, 3, 4)
    assert block.excluded == {"ill": "finished 1 of 4 seeds"}
