"""Which candidates are confirmed, under which file names, and what that costs."""

from pathlib import Path

import numpy as np
import pytest
from tiny_run import tiny_recipe

from quadmix.errors import RecipeError, SearchError
from quadmix.mixing.prior import Prior, draw_theta
from quadmix.pipeline.confirming import chosen_candidates, file_names
from quadmix.pipeline.plan import confirm_kind, confirm_rounds, model_counts, progress_weights, stage_seconds
from quadmix.recipe import ConfirmSection
from quadmix.types import Candidate, Objective, Proposal

OFFERED = {
    "theta-star": 1.0, "paper": 1.1, "best-observed": 1.2, "prior-mean": 1.5, "equal-domains": 1.3,
    "uniform-weights": 1.6, "single:rules": 1.8, "single:edu": 1.4, "random-mean": 1.7,
}  # fmt: skip


def proposal(bare: str = "") -> Proposal:
    theta = draw_theta(np.random.default_rng(0), Prior(num_domains=2, num_criteria=2), 1)[0]
    return Proposal(
        candidates=tuple(
            Candidate(name=name, theta=None if name == bare else theta, predicted=value, predicted_low=0.9,
                      predicted_high=1.9, losses={})
            for name, value in OFFERED.items()
        ),
        objective=Objective(weights={"x": 1.0}), diagnostics=(), trials_used=8, trials_excluded={},
        noise_sd=0.1, spread_sd=0.1,
    )  # fmt: skip


def test_the_default_tries_all_kinds_and_of_the_single_criteria_the_one_predicted_best() -> None:
    names = [c.name for c in chosen_candidates(proposal(), ConfirmSection().candidates)]
    assert names == [
        "theta-star", "paper", "best-observed", "prior-mean", "uniform-weights", "single:edu", "random-mean"
    ]  # fmt: skip


def test_the_control_is_always_tried_and_what_has_no_theta_never() -> None:
    names = [c.name for c in chosen_candidates(proposal("paper"), ["theta-star", "paper"])]
    assert names == ["theta-star", "prior-mean"]
    with pytest.raises(SearchError, match="candidates asks for current"):
        chosen_candidates(proposal(), ["current"])
    with pytest.raises(SearchError, match="expected prior-mean and at least one other"):
        chosen_candidates(proposal("prior-mean"), ["theta-star"])


def test_file_names_are_plain_and_distinct_even_where_case_is_ignored() -> None:
    found = file_names(["theta-star", "single:a/b", "single:A/b", "single-a-b", "single-a-b-2"])
    assert list(found.values()) == [
        "theta-star", "single-a-b", "single-A-b-2", "single-a-b-3", "single-a-b-2-2"
    ]  # fmt: skip
    assert len({name.lower() for name in found.values()}) == len(found)


def test_a_recipe_that_confirms_nothing_but_the_control_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="names nothing but the control"):
        tiny_recipe(tmp_path, confirm={"candidates": ["prior-mean"]})
    with pytest.raises(RecipeError, match="greater than or equal to 3"):
        tiny_recipe(tmp_path, confirm={"seeds": 2})


def test_the_plan_counts_the_race_at_its_largest(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, confirm={})
    assert confirm_rounds(recipe) == (21, 12)
    assert model_counts(recipe)["confirm"] == 33
    assert confirm_rounds(tiny_recipe(tmp_path, confirm={"rounds": 1, "seeds": 5})) == (35,)


class Cost:
    """A model that takes so many seconds."""

    def __init__(self, each: float) -> None:
        self.each = each

    def seconds(self, models: int) -> float:
        return self.each * models


def test_confirmation_models_of_their_own_size_are_costed_at_it(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, confirm={"model": {"size": "0.3M"}, "training": {"tokens": 9_999}})
    model, training = confirm_kind(recipe)
    assert (model.layers, model.width, training.tokens) == (2, 64, 9_999)
    assert model.context == recipe.proxy.model.context
    own = {"proxy": Cost(1.0), "confirm": Cost(10.0), "larger": Cost(100.0)}
    seconds = stage_seconds(recipe, 1e6, 1000, own)  # pyright: ignore[reportArgumentType]
    assert (seconds["swarm"], seconds["confirm"], seconds["confirm 2"]) == (14.0, 330.0, 120.0)
    weights = progress_weights(seconds)
    assert (weights["confirm"], weights["confirm 2"]) == (210.0, 120.0)
    plain = tiny_recipe(tmp_path, confirm={})
    assert confirm_kind(plain) == (plain.proxy.model, plain.proxy.training)
    same = stage_seconds(plain, 1e6, 1000, own | {"confirm": Cost(1.0)})  # pyright: ignore[reportArgumentType]
    assert same["confirm"] == 33.0
