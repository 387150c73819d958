"""What `quadmix plan` says of a rung before it is trained: models, minutes, and what its seeds can show."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import nct, t, ttest_rel
from tiny_run import tiny_recipe

from quadmix.mixing.prior import Prior, prior_mean
from quadmix.pipeline.ladder import LOWER_BOUND, promised, reading, rung_estimates
from quadmix.recipe import Recipe
from quadmix.types import Confirmation, Paired

SECONDS = {"evaluate": 90.0, "evaluate 5M": 1200.0}


def recipe_of(folder: Path, **changes: Any) -> Recipe:
    ladder = [{"name": "5M", "seeds": 3}]
    settings = {"evaluate__seeds": 5, "evaluate__baselines": ["random", "prior-mean"], **changes}
    return tiny_recipe(folder, evaluate__ladder=ladder, **settings)


def confirmed(stderr: float, seeds: int, source: str = "") -> Confirmation:
    pair = Paired(label="theta-star", control="prior-mean", difference=-0.1, low=-0.2, high=-0.01,
                  stderr=stderr, pairs=seeds)  # fmt: skip
    theta = prior_mean(Prior(num_domains=1, num_criteria=1))
    return Confirmation(winner="theta-star", theta=theta, confirmed=True, reason="", measured=(),
                        against=(pair,), source=source)  # fmt: skip


def test_before_anything_is_trained_a_rung_says_models_minutes_and_noise_sds(tmp_path: Path) -> None:
    base, larger = rung_estimates(recipe_of(tmp_path), SECONDS, None)
    assert (base.models, base.seconds, base.seeds) == (15, 90.0, 5)
    assert (larger.models, larger.seconds, larger.seeds) == (9, 1200.0, 3)
    assert math.isnan(base.promised)
    assert base.line().startswith(
        "evaluate     15 models, about 2 min; 5 seeds show differences from 2.4 noise"
    )
    low, high = (sd * (t.ppf(0.975, 4) + t.ppf(0.8, 4)) * math.sqrt(2 / 5) for sd in (0.003, 0.007))
    assert f"at least {low:.3f} bits per byte at an sd of 0.003, {high:.3f} at 0.007" in base.line()
    assert larger.line().startswith("evaluate 5M  9 models, about 20 min; 3 seeds")
    said = " ".join(reading([base, larger]))
    assert LOWER_BOUND in said
    assert "unknown until proxies are trained" in said


def test_a_difference_of_so_many_noise_sds_shows_in_four_of_five_paired_t_tests(tmp_path: Path) -> None:
    found = rung_estimates(recipe_of(tmp_path), SECONDS, None)[0]
    noise = np.random.default_rng(0).normal(size=(2, found.seeds, 20_000))
    noise[0] -= found.sds
    shown = (ttest_rel(noise[0], noise[1]).pvalue < 0.05) & (noise[0].mean(axis=0) < noise[1].mean(axis=0))
    assert shown.mean() == pytest.approx(0.8, abs=0.015)


def test_with_a_confirmation_its_noise_takes_the_place_of_the_range(tmp_path: Path) -> None:
    """Six seeds gave a difference of means the error 0.004: one model has the sd 0.004 √3."""
    recipe = recipe_of(tmp_path)
    found = rung_estimates(recipe, SECONDS, confirmed(0.004, 6))[0]
    error = math.sqrt(2 / 5) * 0.004 * math.sqrt(3)
    exact = brentq(lambda d: nct.sf(t.ppf(0.975, 4), 4, d / error) - 0.8, 1e-4, 1)
    assert found.promised == pytest.approx(exact, rel=0.06)
    assert f"at least {found.promised:.4f} bits per byte, by the confirmation's proxies" in found.line()
    assert "unknown" not in " ".join(reading([found]))
    assert LOWER_BOUND in " ".join(reading([found]))


def test_the_level_of_the_intervals_counts(tmp_path: Path) -> None:
    strict = rung_estimates(recipe_of(tmp_path, evaluate__confidence=0.99), SECONDS, confirmed(0.004, 6))[0]
    plain = rung_estimates(recipe_of(tmp_path), SECONDS, confirmed(0.004, 6))[0]
    ratio = (t.ppf(0.995, 4) + t.ppf(0.8, 4)) / (t.ppf(0.975, 4) + t.ppf(0.8, 4))
    assert strict.sds / plain.sds == pytest.approx(ratio)
    assert strict.promised / plain.promised == pytest.approx(ratio)


def test_where_nothing_is_compared_or_measured_here_nothing_is_said(tmp_path: Path) -> None:
    alone = rung_estimates(recipe_of(tmp_path, evaluate__baselines=[]), SECONDS, None)
    assert alone[0].line() == "evaluate     5 models, about 2 min"
    assert reading(alone) == []
    assert math.isnan(promised(confirmed(0.004, 6, source="another run"), 5, 3, 0.95))
    assert math.isnan(promised(confirmed(math.nan, 1), 5, 3, 0.95))
