"""Where the group is not to be seen in the features: a gate recovers it as a code beside them does."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "studies"))

import poso_synthetic as study

SEEDS, STEPS, BATCH = 3, 400, 512  # docs/poso.md has five seeds, 500 steps and batches of 1,024


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Batches this small are slower on two threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def found() -> dict[str, list[dict[str, float]]]:
    return {arm: [measured(arm, seed) for seed in range(SEEDS)] for arm in ("plain", "concat", "POSO")}


def measured(arm: str, seed: int) -> dict[str, float]:
    return study.measured(arm, seed, 0.04, STEPS, BATCH)


def mean(found: dict[str, list[dict[str, float]]], arm: str, what: str) -> float:
    return float(np.mean([seed[what] for seed in found[arm]]))


def test_gate_recovers_a_minority_of_four_percent_as_the_code_beside_the_features_does(found) -> None:
    assert mean(found, "POSO", "minority") >= mean(found, "plain", "minority") + 20
    assert mean(found, "POSO", "minority") >= mean(found, "concat", "minority") - 2
    assert mean(found, "POSO", "majority") >= mean(found, "plain", "majority") - 0.5


def test_masking_the_code_moves_the_minority(found) -> None:
    """More than the code of groups at random does: a gate that has just begun has an S of its own."""
    placebo = measured("POSO, shuffled code", 0)
    assert min(seed["S"] for seed in found["POSO"]) > 2 * placebo["S"] > 0


def test_gate_that_is_told_groups_at_random_recovers_nothing(found) -> None:
    """A group has 4,000 rows to test on, so an AUC without any knowledge is known to about a point."""
    placebo = measured("POSO, shuffled code", 0)
    assert placebo["minority"] == pytest.approx(found["plain"][0]["minority"], abs=2)
    assert placebo["majority"] == pytest.approx(found["plain"][0]["majority"], abs=0.5)


def test_world_hides_the_group_and_the_functions_are_unrelated() -> None:
    train, test = study.two_groups(1, 0.04)
    assert (train.group == 2).float().mean().item() == pytest.approx(0.04, abs=0.005)
    first, second = (test.x[test.group == g] for g in (1, 2))
    assert (first.mean(dim=0) - second.mean(dim=0)).abs().max() < 5 * (2 / study.TEST) ** 0.5
    logits = study.teachers(study.stream(1, "two groups"))
    x = np.random.default_rng(0).normal(size=(20_000, study.WIDTH))
    one, other = logits(x, np.zeros(1)), logits(x, np.full(1, np.pi / 2))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert one.std() == pytest.approx(other.std(), rel=0.03)
