"""The comparison uses the search's objective, and RegMix's procedure finds what moves it."""

import numpy as np
import pytest

from quadmix.errors import SearchError
from quadmix.evaluate.compare import compare, regmix_mixture
from quadmix.evaluate.rungs import build_rung
from quadmix.types import Confirmation, Floats, Loss, Objective, Proposal, Rung, Theta, Trial

OBJECTIVE = Objective(weights={"x": 0.25, "y": 0.75})


def trial(
    name: str, losses: dict[str, float], *, label: str = "regmix", seed: int = 1, status: str = "done"
) -> Trial:
    return Trial(
        trial_id=name, kind="regmix", label=label, theta=None, seed=seed, selected_tokens=10,
        unique_tokens=10, train_tokens=10, epochs=1.0, heldout={},
        status=status, reason="" if status == "done" else "diverged",  # pyright: ignore[reportArgumentType]
        losses={t: Loss(bits_per_byte=v, stderr=0.01, rows=9, tokens=9, bytes=9) for t, v in losses.items()},
    )  # fmt: skip


def world(count: int, *, seed: int = 0) -> tuple[Floats, list[Trial]]:
    """Mixtures of four domains; the first lowers x, the second y, the others nothing."""
    shares = np.random.default_rng(seed).dirichlet(np.ones(4), count)
    losses = [{"x": 2 - 0.5 * np.sqrt(w[0]), "y": 2 - np.sqrt(w[1]), "flat": 1.0} for w in shares]
    return shares, [trial(f"regmix-{i:04d}", loss) for i, loss in enumerate(losses)]


def test_regmix_finds_the_domains_that_lower_the_objective() -> None:
    shares, trials = world(40)
    candidates = np.random.default_rng(1).dirichlet(np.ones(4), 1000)
    found, report = regmix_mixture(trials, shares, candidates, OBJECTIVE, seed=0)
    assert found.sum() == pytest.approx(1.0)
    assert found[1] == found.max()
    assert found[0] > max(found[2], found[3])
    assert report["trials"] == 40
    assert report["spearman"] > 0.9
    again, _ = regmix_mixture(trials, shares, candidates, OBJECTIVE, seed=0)
    np.testing.assert_array_equal(found, again)


def test_regmix_leaves_out_a_target_that_does_not_vary_and_keeps_the_ceilings() -> None:
    shares, trials = world(40)
    candidates = np.random.default_rng(1).dirichlet(np.ones(4), 1000)
    flat = Objective(weights={"x": 0.2, "y": 0.6, "flat": 0.2})
    free, _ = regmix_mixture(trials, shares, candidates, flat, seed=0)
    bound = Objective(weights=flat.weights, ceilings={"x": 1.6, "flat": 0.5})
    held, _ = regmix_mixture(trials, shares, candidates, bound, seed=0)
    assert 2 - 0.5 * np.sqrt(free[0]) > 1.6
    assert 2 - 0.5 * np.sqrt(held[0]) < 1.61


def test_regmix_needs_eight_proxies() -> None:
    shares, trials = world(9)
    trials[3:5] = [trial(t.trial_id, {}, status="failed") for t in trials[3:5]]
    with pytest.raises(SearchError, match="has 7 successful proxies, needs at least 8"):
        regmix_mixture(trials, shares, shares, OBJECTIVE, seed=0)


def _rung(trials: list[Trial], objective: Objective) -> Rung:
    return build_rung(
        trials, [], objective, name="base", parameters=1, train_tokens=1, learning_rate=0.1, budget=1.0,
        match="tokens", promised=float("nan"), left_out={}, chosen="quadmix", confidence=0.95, seed=0,
    )  # fmt: skip


def test_a_comparison_without_a_model_of_the_chosen_theta_is_refused() -> None:
    trials = [
        trial(f"{n}-{s}", {"x": 1.0, "y": s}, label=n, seed=s) for n in ("random", "top") for s in (1, 2)
    ]
    proposal = Proposal(
        candidates=(), objective=OBJECTIVE, diagnostics=(), trials_used=8, trials_excluded={}, noise_sd=0.1,
        spread_sd=0.1,
    )  # fmt: skip
    ones = np.ones(1)
    theta = Theta(
        weights=np.ones((1, 1)), steepness=ones, cutoff=0.1 * ones, exponent=ones, floor=0 * ones, scale=ones
    )
    confirmation = Confirmation(
        winner="theta-star", theta=theta, confirmed=True, reason="", measured=(), against=()
    )
    with pytest.raises(SearchError, match="no comparison model of the chosen θ finished"):
        compare([_rung(trials, OBJECTIVE)], proposal, confirmation)


def test_the_comparison_is_by_the_objective_of_the_search() -> None:
    ones = np.ones(1)
    theta = Theta(
        weights=np.ones((1, 1)), steepness=ones, cutoff=0.1 * ones, exponent=ones, floor=0 * ones, scale=ones
    )
    trials = [
        trial(f"{n}-{s}", {"x": x + 0.1 * s, "y": y + 0.1 * s + e}, label=n, seed=s)
        for n, x, y in [("quadmix", 1.0, 1.5), ("random", 1.5, 1.3)]
        for s, e in [(1, 0.0), (2, 0.001 * (n == "random"))]
    ]
    proposal = Proposal(
        candidates=(), objective=OBJECTIVE, diagnostics=(), trials_used=8, trials_excluded={}, noise_sd=0.1,
        spread_sd=0.1,
    )  # fmt: skip
    confirmation = Confirmation(
        winner="theta-star", theta=theta, confirmed=True, reason="", measured=(), against=()
    )
    mean = compare([_rung(trials, OBJECTIVE)], proposal, confirmation)
    assert mean.against[0].difference == pytest.approx(0.25 * -0.5 + 0.75 * (0.2 - 0.0005))
    assert mean.target_weights == OBJECTIVE.weights
    worst = Objective(weights={"x": 0.5, "y": 0.5}, how="worst", levels={"x": 1.0, "y": 1.4})
    proposal = Proposal(
        candidates=(), objective=worst, diagnostics=(), trials_used=8, trials_excluded={}, noise_sd=0.1,
        spread_sd=0.1,
    )  # fmt: skip
    found = compare([_rung(trials, worst)], proposal, confirmation)
    assert found.against[0].difference == pytest.approx(0.1 - 0.5)
