"""Successive halving: who is trained, who leaves, and what that does to the verdict."""

import dataclasses

import numpy as np
import pytest
from search_world import make_trial

from quadmix.mixing.prior import Prior, draw_theta
from quadmix.search.confirm import decide, dunnett_critical
from quadmix.search.race import Rules, round_sizes, run_race
from quadmix.types import Candidate, Objective, Proposal

OBJECTIVE = Objective(weights={"x": 1.0})
NAMES = ("a", "b", "c", "d", "e", "f")
CONTROL = "prior-mean"


def rules(names=NAMES, seeds=3, rounds=2, finalists=2):
    return Rules(candidates=names, control=CONTROL, seeds=seeds, rounds=rounds, finalists=finalists)


def make_proposal(names=NAMES, objective=OBJECTIVE):
    every = (*names, CONTROL)
    thetas = draw_theta(np.random.default_rng(0), Prior(num_domains=2, num_criteria=2), len(every))
    return Proposal(
        candidates=tuple(
            Candidate(name=n, theta=t, predicted=1.0, predicted_low=0.9, predicted_high=1.1, losses={})
            for n, t in zip(every, thetas, strict=True)
        ),
        objective=objective, diagnostics=(), trials_used=8, trials_excluded={}, noise_sd=0.01, spread_sd=0.1,
    )  # fmt: skip


def train(jobs, table, failed=()):
    """Trials of the jobs: table[label][seed] is the loss."""
    return [
        make_trial(
            f"confirm-{label}-{s}", {} if (label, s) in failed else {"x": table[label][s]}, kind="confirm",
            label=label, seed=7919 * (s + 1) % 1009, status="failed" if (label, s) in failed else "done",
            reason="diverged" if (label, s) in failed else "",
        )
        for label, s in jobs
    ]  # fmt: skip


def hold(rule, table, objective=OBJECTIVE, failed=()):
    """Run the race to its end; return it, its trials, and the jobs of every round."""
    trials, heats = [], []
    race = run_race(rule, trials, objective)
    while race.jobs:
        heats.append(race.jobs)
        trials += train(race.jobs, table, failed)
        race = run_race(rule, trials, objective)
    return race, trials, heats


def steady(**levels):
    """Losses that do not vary over seeds."""
    return {name: [level] * 50 for name, level in levels.items()} | {CONTROL: [2.0] * 50}


SIX = steady(a=1.5, b=1.3, c=1.1, d=1.2, e=1.4, f=1.6)


def test_the_first_round_is_everyone_and_the_second_the_better_half_with_new_seeds():
    race, _, heats = hold(rules(), SIX)
    assert heats[0] == tuple((name, s) for s in (0, 1, 2) for name in (*NAMES, CONTROL))
    assert heats[1] == tuple((name, s) for s in (3, 4, 5) for name in ("b", "c", "d", CONTROL))
    assert len(heats) == 2
    assert race.labels == ("b", "c", "d", CONTROL)


def test_it_ends_when_only_the_finalists_are_left():
    race, _, heats = hold(rules(rounds=9), SIX)
    assert [sorted({name for name, _ in jobs} - {CONTROL}) for jobs in heats] == [
        list(NAMES),
        ["b", "c", "d"],
        ["c", "d"],
    ]
    assert race.round == 3
    _, _, heats = hold(rules(rounds=9, finalists=1), SIX)
    assert [sorted({name for name, _ in jobs} - {CONTROL}) for jobs in heats][3:] == [["c"]]


def test_every_label_says_in_which_round_it_left_and_how_far_behind():
    race, _, _ = hold(rules(rounds=3), SIX)
    assert [(s.label, s.round, s.seeds) for s in race.standings] == [
        ("c", 3, 9), ("d", 3, 9), (CONTROL, 3, 9), ("b", 2, 6), ("e", 1, 3), ("a", 1, 3), ("f", 1, 3)
    ]  # fmt: skip
    found = {s.label: s for s in race.standings}
    assert [found[n].behind for n in ("c", "d", CONTROL, "b", "f")] == pytest.approx([0, 0.1, 0.9, 0.2, 0.5])
    assert found["b"].mean == pytest.approx(1.3)
    assert found["f"].left == "among the worse of 6 candidates"
    assert not any(found[n].left for n in ("c", "d", CONTROL))


def test_the_control_stays_although_it_is_the_worst_and_takes_no_place_although_it_is_the_best():
    for level in (0.0, 9.0):
        race, _, _ = hold(rules(rounds=3), SIX | {CONTROL: [level] * 50})
        assert race.labels == ("c", "d", CONTROL)


def test_equal_means_are_ordered_by_name():
    race, _, _ = hold(rules(names=("f", "b", "a", "e")), steady(a=1.0, b=1.0, e=1.0, f=1.0))
    assert race.labels == ("b", "a", CONTROL)


def test_the_schedule_is_a_function_of_the_trials_whatever_their_order_and_wherever_it_was_killed():
    rng = np.random.default_rng(0)
    table = {n: rng.normal(1.0, 0.1, 50) for n in (*NAMES, CONTROL)}
    rule = rules(rounds=3)
    race, trials, heats = hold(rule, table)
    ends = np.cumsum([len(jobs) for jobs in heats])
    for done in range(len(trials)):
        kept = [trials[i] for i in rng.permutation(done)]
        assert run_race(rule, kept, OBJECTIVE).jobs == heats[int(np.searchsorted(ends, done, side="right"))]
    again = run_race(rule, [trials[i] for i in rng.permutation(len(trials))], OBJECTIVE)
    assert again == race


def test_a_candidate_that_breaks_a_ceiling_leaves_before_those_that_keep_it():
    bounded = Objective(weights={"x": 1.0}, ceilings={"y": 1.0})
    trials = [
        dataclasses.replace(trial, losses={**trial.losses, "y": dataclasses.replace(
            trial.losses["x"], bits_per_byte=1.5 if trial.label in ("c", CONTROL) else 0.5)})
        for trial in train([(n, s) for n in (*NAMES, CONTROL) for s in range(3)], SIX)
    ]  # fmt: skip
    race = run_race(rules(), trials, bounded)
    assert race.labels == ("b", "d", "e", CONTROL)
    assert next(s.left for s in race.standings if s.label == "c").endswith("on 'y' exceeds the ceiling of 1")


def test_a_label_whose_models_all_failed_leaves_with_the_reason_and_one_failure_costs_only_its_seed():
    failed = {("c", 0), ("c", 1), ("c", 2), ("d", 1)}
    race, trials, heats = hold(rules(), SIX, failed=failed)
    assert {name for name, _ in heats[1]} == {"b", "d", "e", CONTROL}
    found = {s.label: s for s in race.standings}
    assert found["c"].left == "no model finished: diverged"
    assert np.isnan(found["c"].mean)
    assert (found["f"].seeds, found["d"].seeds) == (2, 5)
    assert all(p.pairs == 5 for p in decide(make_proposal(), trials, rounds=race.standings).against)


def test_without_a_finished_control_the_race_is_over():
    race, _, heats = hold(rules(), SIX, failed={(CONTROL, s) for s in range(3)})
    assert len(heats) == 1
    assert race.jobs == ()


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ((6, 2, 2), (7, 4)),
        ((6, 9, 2), (7, 4, 3)),
        ((2, 9, 2), (3,)),
        ((1, 2, 2), (2,)),
        ((8, 9, 1), (9, 5, 3, 2)),
    ],
)
def test_the_planned_sizes_are_those_that_are_trained(settings, sizes):
    count, rounds, finalists = settings
    names = tuple("abcdefgh"[:count])
    _, _, heats = hold(rules(names=names, rounds=rounds, finalists=finalists),
                       steady(**{n: 1 + 0.1 * i for i, n in enumerate(names)}))  # fmt: skip
    assert round_sizes(*settings) == sizes
    assert tuple(len(jobs) // 3 for jobs in heats) == sizes


def verdicts(losses, *, seeds, rounds, finalists):
    """The procedure written again, for many draws at once: (draws,) whether the best finalist is confirmed.

    losses: (draws, K + 1, seeds * rounds), the control last.
    """
    count, k = losses.shape[1] - 1, losses.shape[1] - 1
    alive, used = np.ones((len(losses), count), dtype=bool), seeds
    while used < seeds * rounds and k > finalists:
        means = np.where(alive, losses[:, :count, :used].mean(axis=2), np.inf)
        k, used = max(finalists, -(-k // 2)), used + seeds
        alive = means.argsort(axis=1).argsort(axis=1) < k
    kept = losses[:, :count][alive].reshape(len(losses), k, -1)
    rows = np.concatenate([kept, losses[:, count:]], axis=1)[:, :, :used]
    residual = (
        rows - rows.mean(2, keepdims=True) - rows.mean(1, keepdims=True) + rows.mean((1, 2), keepdims=True)
    )
    freedom = k * (used - 1)
    error = np.sqrt(2 * (residual**2).sum(axis=(1, 2)) / freedom / used)
    gain = rows[:, k].mean(axis=1) - rows[:, :k].mean(axis=2).min(axis=1)
    return gain > dunnett_critical(count, freedom) * error


def draws(rng, count, labels, seeds, gain=0.0):
    """Losses with seed effects three times the noise; the first candidate is better by `gain` noise sd."""
    losses = 3 * rng.normal(size=(count, 1, seeds)) + rng.normal(size=(count, labels + 1, seeds))
    losses[:, 0] -= gain
    return losses


@pytest.mark.parametrize(
    ("labels", "rounds", "finalists"), [(6, 2, 2), (6, 3, 2), (8, 4, 1), (3, 2, 2), (6, 1, 2)]
)
def test_pure_noise_is_confirmed_no_more_often_than_the_level_says(labels, rounds, finalists):
    """Nominal: one side of simultaneous 95 % intervals, 2.5 %. Bound: three binomial deviations above."""
    losses = draws(np.random.default_rng([labels, rounds]), 6000, labels, 3 * rounds)
    share = verdicts(losses, seeds=3, rounds=rounds, finalists=finalists).mean()
    assert share <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 6000)
    assert share <= 0.06


@pytest.mark.parametrize(
    ("gain", "seeds", "rounds", "least"),
    [(2.0, 6, 2, 0.97), (3.0, 3, 2, 0.96), (2.0, 3, 2, 0.65), (2.0, 3, 3, 0.85)],
)
def test_a_real_gain_is_confirmed(gain, seeds, rounds, least):
    """Two noise deviations nearly always show in two rounds of six seeds, three in two rounds of three."""
    losses = draws(np.random.default_rng(5), 4000, 6, seeds * rounds, gain)
    assert verdicts(losses, seeds=seeds, rounds=rounds, finalists=2).mean() >= least


@pytest.mark.parametrize("gain", [0.0, 2.5])
def test_race_and_decision_agree_with_the_procedure_written_again(gain):
    losses = draws(np.random.default_rng(6), 60, 6, 6, gain)
    expected = verdicts(losses, seeds=3, rounds=2, finalists=2)
    for table, confirmed in zip(losses, expected, strict=True):
        named = dict(zip((*NAMES, CONTROL), 10 + table, strict=True))
        race, trials, _ = hold(rules(), named)
        found = decide(make_proposal(), trials, rounds=race.standings)
        assert found.confirmed == confirmed
        assert found.rounds == race.standings
    assert gain == 0.0 or 0 < expected.sum() < len(expected)
