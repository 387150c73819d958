"""Targets that vary by noise alone are left out of the objective, by name; others never are."""

import dataclasses

import numpy as np
import pytest
from search_world import make_loss, make_world
from test_search_propose import QUICK

from quadmix.rng import stream
from quadmix.search.noisy import noisy_targets
from quadmix.search.propose import next_thetas, propose


def column(
    spread: float, noise: float, count: int, seed: int, *, repeats: int = 6
) -> tuple[np.ndarray, np.ndarray]:
    rng = stream(seed, "noisy")
    return spread * rng.normal(size=count) + noise * rng.normal(size=count), noise * rng.normal(size=repeats)


def scaled(values: np.ndarray, spread: float) -> np.ndarray:
    """Values with exactly this standard deviation."""
    return (values - values.mean()) / values.std(ddof=1) * spread


def test_the_border_is_the_tabled_quantile() -> None:
    """F of 15 and 5 degrees of freedom has its upper quarter from 1.8851 on (table of the F distribution)."""
    rng = stream(0, "border")
    again, other = scaled(rng.normal(size=6), 1.0), scaled(rng.normal(size=16), 9.0)
    for ratio, left_out in ((1.8801, True), (1.8901, False)):
        y = scaled(rng.normal(size=16), ratio**0.5)
        found = noisy_targets({"a": y, "b": other}, {"a": again, "b": again})
        assert (list(found) == ["a"]) is left_out


def test_noise_is_left_out_three_times_in_four_and_signal_hardly_ever() -> None:
    found = []
    for seed in range(600):
        noise, signal = column(0, 1, 64, seed), column(3, 1, 64, 5_000 + seed)
        found.append(noisy_targets({"n": noise[0], "s": signal[0]}, {"n": noise[1], "s": signal[1]}))
    assert np.mean(["n" in left for left in found]) == pytest.approx(0.75, abs=0.05)
    assert np.mean(["s" in left for left in found]) < 0.02


def test_nothing_is_left_out_where_the_noise_is_unknown_a_target_is_alone_or_bounds_the_search() -> None:
    (y, again), (z, more) = column(0, 1, 64, 3), column(5, 1, 64, 4)
    assert list(noisy_targets({"y": y, "z": z}, {"y": again, "z": more})) == ["y"]
    assert noisy_targets({"y": y, "z": z}, {"y": again[:2], "z": more[:2]}) == {}
    assert noisy_targets({"y": y}, {"y": again}) == {}
    assert noisy_targets({"y": y, "z": z}, {"y": again, "z": more}, keep=("y",)) == {}


def test_one_of_several_targets_of_noise_is_never_the_last_to_go() -> None:
    (y, again), (z, more) = column(0, 1, 64, 3), column(0, 1, 64, 3)
    assert noisy_targets({"y": y, "z": z}, {"y": again, "z": more}) == {}


def test_the_search_says_what_it_left_out_and_does_not_follow_it() -> None:
    world = make_world(documents=240, domains=3, seed=2)
    rng = stream(1, "third")
    trials = world.swarm(24, repeats=6)
    quiet = [2 + (0.02 if t.kind == "repeat" else 0.01) * float(rng.normal()) for t in trials]
    trials = [
        dataclasses.replace(t, losses={**t.losses, "quiet": make_loss(y)})
        for t, y in zip(trials, quiet, strict=True)
    ]
    context = world.context(24)
    more = dataclasses.replace(context, target_weights={**context.target_weights, "quiet": 5.0})
    plain, found = propose(trials, context, QUICK), propose(trials, more, QUICK)
    said = [w for w in found.warnings if "is left out" in w]
    assert len(said) == 1
    assert said[0].startswith("target 'quiet' is left out: its spread over 24 mixtures (0.0")
    assert found.target_weights == pytest.approx(plain.target_weights)
    assert {r.target for r in found.diagnostics} == {r.target for r in plain.diagnostics}
    bounded = dataclasses.replace(more, ceilings={"quiet": 9.0})
    assert "quiet" in propose(trials, bounded, QUICK).target_weights
    batches = [next_thetas(trials, c, QUICK, 2).batch.best for c in (context, more)]
    assert batches[0] == pytest.approx(batches[1])
