"""Batches of the swarm: decided once, written before they are trained, aimed, stopped when nothing is to
gain."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import tiny_recipe

from quadmix.errors import RecipeError, SearchError
from quadmix.io.atomic import read_json, read_value, value_digest, write_json
from quadmix.mixing.prior import Prior, prior_mean
from quadmix.pipeline import stages, swarming
from quadmix.pipeline.folder import Job, open_run
from quadmix.pipeline.mix import Mix
from quadmix.pipeline.progress import Progress
from quadmix.proxy.pool import TokenPool
from quadmix.recipe import Recipe
from quadmix.types import Proposal, Trial

QUICK = {"surrogate": "gp", "candidates": 200}


@contextmanager
def opened(recipe: Recipe) -> Generator[tuple[Job, Mix, TokenPool]]:
    with open_run(recipe, Progress(quiet=True)) as job:
        targets = stages.read_targets(job)
        corpus = stages.open_pool(job)
        mix = stages.prepare_mixing(job, stages.annotate(job, corpus, targets))
        yield job, mix, stages.tokenise(job, corpus, mix, targets)


def recipe_of(base: Path, **search: Any) -> Recipe:
    return tiny_recipe(base, search={**QUICK, **search}, proxy__trials=14, proxy__repeats=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, swarming.Swarmed, Path]:
    recipe = recipe_of(tmp_path_factory.mktemp("swarming"), stop=False)
    with opened(recipe) as (job, mix, pool):
        return recipe, swarming.train_swarm(job, mix, pool), job.folder


def test_the_first_batch_holds_the_trivial_recipes_and_the_later_ones_are_aimed(
    trained: tuple[Recipe, swarming.Swarmed, Path],
) -> None:
    _, swarm, folder = trained
    labels = [t.label for t in swarm.trials if t.kind == "prior"]
    assert labels[:5] == [
        "recipe:prior-mean", "recipe:equal-domains", "recipe:uniform-weights", "recipe:single:rules",
        "recipe:single:length",
    ]  # fmt: skip
    assert [label.split("-")[0] for label in labels[5:10]] == ["design"] * 5
    assert labels[10:] == ["batch-2"] * 3 + ["batch-3"]
    assert [b.trials for b in swarm.batches] == [10, 13]
    facts = read_json(folder / "stages" / "swarm.json")["facts"]
    assert (facts["batches"], facts["not_trained"]) == ([10, 3, 1], 0)


def test_a_run_that_lost_a_batch_trains_the_same_one_again(
    trained: tuple[Recipe, swarming.Swarmed, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a batch trains was written before; it is not decided anew, whatever is known by now."""
    recipe, swarm, folder = trained
    gone = [t for t in swarm.trials if t.label.startswith("batch-")]
    for trial in gone:
        (folder / "trials" / f"{trial.trial_id}.json").unlink()

    def never(*_: Any) -> None:
        raise AssertionError("decided again")

    monkeypatch.setattr(swarming, "next_thetas", never)
    with opened(recipe) as (job, mix, pool):
        again = swarming.train_swarm(job, mix, pool)
    losses = {t.trial_id: t.losses for t in swarm.trials}
    assert {t.trial_id: t.losses for t in again.trials} == losses


def test_a_dropped_trial_is_left_out_by_name_and_the_proposal_is_made_again(
    trained: tuple[Recipe, swarming.Swarmed, Path],
) -> None:
    recipe, _, folder = trained
    with opened(recipe) as (job, mix, pool):
        before = swarming.search(job, mix, swarming.train_swarm(job, mix, pool))
        write_json(folder / "trials" / "dropped.json", {"why": {"prior-0007": "odd"}, "version": 1})
        after = swarming.search(job, mix, swarming.train_swarm(job, mix, pool))
        (folder / "trials" / "dropped.json").unlink()
    assert (before.trials_used, after.trials_used) == (14, 13)
    assert after.trials_excluded == {"prior-0007": "dropped: odd"}
    assert any("1 trials are left out: 1 × dropped: odd" in w for w in after.warnings)
    assert read_value(folder / "search" / "proposal.json", Proposal).trials_used == 13


def test_a_batch_that_gains_less_than_the_confirmation_can_see_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarming, "resolution", lambda noise, seeds: 1e9)
    with opened(recipe_of(tmp_path)) as (job, mix, pool):
        swarm = swarming.train_swarm(job, mix, pool)
        again = swarming.train_swarm(job, mix, pool)
    for found in (swarm, again):
        assert sum(t.kind == "prior" for t in found.trials) == found.planned == 10
        assert len(found.batches) == 1
    stage = read_json(job.folder / "stages" / "swarm.json")
    assert stage["facts"]["not_trained"] == 4
    assert any("stopped early" in w and "4 trials were not trained" in w for w in stage["warnings"])


def test_resolution_is_the_noise_of_a_mean_and_nothing_is_stopped_without_repeats() -> None:
    assert swarming.resolution(0.02, 4) == pytest.approx(0.01)
    assert swarming.resolution(float("nan"), 3) == 0.0


def test_mode_paper_is_one_batch_of_random_draws(tmp_path: Path) -> None:
    with opened(recipe_of(tmp_path, mode="paper")) as (job, mix, pool):
        swarm = swarming.train_swarm(job, mix, pool)
    priors = [t for t in swarm.trials if t.kind == "prior"]
    assert {t.label for t in priors} == {"prior"}
    assert len(priors) == 14
    assert swarm.batches == ()


def test_with_too_few_good_trials_the_next_batch_is_not_aimed_but_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = swarming.apply_dropped

    def mostly_failed(folder: Path, trials: list[Trial]) -> list[Trial]:
        found = real(folder, trials)
        return found[:3] + [t for t in found[3:] if t.kind == "repeat"]

    monkeypatch.setattr(swarming, "apply_dropped", mostly_failed)
    with opened(recipe_of(tmp_path)) as (job, mix, pool):
        swarming.train_swarm(job, mix, pool)
    stage = read_json(job.folder / "stages" / "swarm.json")
    assert stage["facts"]["batches"] == [10, 3, 1]
    assert any("batch 2 was not aimed" in w for w in stage["warnings"])


def test_the_present_theta_is_tried_and_one_of_another_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "theta.json"
    write_json(file, prior_mean(Prior(num_domains=3, num_criteria=2)))
    with (
        opened(recipe_of(tmp_path, current=str(file))) as (job, mix, pool),
        pytest.raises(RecipeError, match=r"search\.current .* θ of 3 domains and 2 criteria, this run has"),
    ):
        swarming.train_swarm(job, mix, pool)
    write_json(file, prior_mean(mix.prior))
    with opened(recipe_of(tmp_path / "b", current=str(file))) as (job, mix, _):
        context = swarming.search_context(job, mix, planned=14)
    assert context.current is not None
    np.testing.assert_allclose(context.current.cutoff, prior_mean(mix.prior).cutoff)


def test_a_surrogate_that_the_first_batch_is_too_small_for_is_refused_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    with opened(recipe_of(tmp_path, surrogate="lightgbm")) as (job, mix, pool):
        with pytest.raises(SearchError, match=r"'lightgbm' needs 20 trials and the first batch has 10: set"):
            swarming.train_swarm(job, mix, pool)
        assert not list(job.folder.glob("trials/*.json"))


def test_trials_of_an_earlier_run_bring_no_twins(
    trained: tuple[Recipe, swarming.Swarmed, Path], tmp_path: Path
) -> None:
    """The same seed would train the same recipes again; each θ is there once, also that of the repeats."""
    _, _, folder = trained
    recipe = tiny_recipe(
        tmp_path, name="more", search=QUICK, proxy__trials=12, proxy__repeats=1, proxy__reuse=[str(folder)]
    )
    with opened(recipe) as (job, mix, pool):
        swarm = swarming.train_swarm(job, mix, pool)
        proposal = swarming.search(job, mix, swarm)
    priors = [t for t in swarm.trials if t.kind == "prior"]
    assert len({value_digest(t.theta) for t in priors}) == len(priors) == 14 + 12
    assert sum(t.label.startswith("recipe:") for t in priors) == 5
    assert proposal.trials_used == 26
