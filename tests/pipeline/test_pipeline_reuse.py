"""Trials of an earlier run count where they still apply, and every decision has its reason."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import demo_rows, tiny_recipe, tiny_settings, write_rows

from quadmix.errors import RecipeError
from quadmix.io.atomic import read_json, read_value, write_json
from quadmix.io.trials import read_trials, write_dropped
from quadmix.pipeline import reuse, stages, swarming
from quadmix.pipeline.comparable import Axes, facts_here, facts_there, incomparable, match_axes, projected
from quadmix.pipeline.folder import Job, StageNotes, identity_facts, open_run
from quadmix.pipeline.mix import Mix
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.reuse import reused_trials
from quadmix.pipeline.training import proxy_setting
from quadmix.pipeline.trials import retry_trials
from quadmix.proxy.pool import TokenPool
from quadmix.recipe import Recipe, check_recipe, load_recipe
from quadmix.types import Theta, Trial

WORDS = {"name": "words", "kind": "column", "column": "length_score"}


@dataclass
class World:
    """A run up to its token pool."""

    job: Job
    mix: Mix
    pool: TokenPool

    def reused(self, own: list[Trial] | None = None) -> tuple[list[Trial], StageNotes]:
        return reused_trials(self.job, self.mix, proxy_setting(self.job, self.mix, self.pool), own or [])


@contextmanager
def opened(recipe: Recipe) -> Generator[World]:
    with open_run(recipe, Progress(quiet=True)) as job:
        targets, corpus = stages.read_targets(job), stages.open_pool(job)
        mix = stages.prepare_mixing(job, stages.annotate(job, corpus, targets))
        yield World(job=job, mix=mix, pool=stages.tokenise(job, corpus, mix, targets))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    """A swarm of eight θ, each on one of two criteria (sparse), with saved weights."""
    base = tmp_path_factory.mktemp("reuse")
    recipe = tiny_recipe(
        base,
        name="old",
        prior={"sparse": 1.0},
        search={"mode": "paper", "candidates": 200},
        proxy__trials=8,
        proxy__repeats=1,
        proxy__save_weights=True,
    )
    with opened(recipe) as world:
        swarming.train_swarm(world.job, world.mix, world.pool)
    return world.job.folder, world


@pytest.fixture
def copy(old: tuple[Path, World], tmp_path: Path) -> Path:
    """A copy of the old run that a test may change."""
    return shutil.copytree(old[0], tmp_path / "copy")


def new(base: Path, folder: Path, **changes: Any) -> Recipe:
    return tiny_recipe(base, name="new", proxy__reuse=[str(folder)], **changes)


def priors(folder: Path) -> list[Trial]:
    return [t for t in read_trials(folder) if t.kind == "prior"]


def share_of(world: World) -> float:
    section = world.job.recipe.proxy
    return world.mix.proxy_share(section.training.tokens, section.pool)


def test_a_new_criterion_and_a_new_target_keep_every_trial(
    old: tuple[Path, World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The criterion has weight 0, so the selection is the old one; the target is scored from the weights."""
    folder, before = old
    settings = tiny_settings(tmp_path, name="new", proxy__reuse=[str(folder)], proxy__trials=8)
    settings["annotate"]["criteria"].append(WORDS)
    settings["targets"].append({**settings["targets"][0], "name": "late", "limit": 14})
    with opened(check_recipe(settings)) as world:
        kept, notes = world.reused()
        first = priors(folder)
        assert [t.trial_id for t in kept] == [f"reused-0-{t.trial_id}" for t in first]  # and no repeats
        for was, now in zip(first, kept, strict=True):
            assert was.theta is not None
            assert now.theta is not None
            assert (now.theta.weights[:, :2] == was.theta.weights).all()
            assert (now.theta.weights[:, 2] == 0).all()
            assert now.losses["arc"] == was.losses["arc"]
            assert np.isfinite(now.losses["late"].bits_per_byte)
            copies = world.mix.part(share_of(world)).select(now.theta).copies
            assert (copies == before.mix.part(share_of(before)).select(was.theta).copies).all()
        reason = "kept; criterion 'words' is new: weight 0; scored again on 'late'"
        assert notes.facts["reasons"] == {reason: 8}
        assert notes.facts["kept"] == 8
        assert notes.warnings == []
        assert set(read_json(world.job.path("reused.json"))["0: old"].values()) == {reason}
        # they are trials of this run now: listed, reported, and not scored again by the next pass
        assert [t.trial_id for t in read_trials(world.job.folder)] == [t.trial_id for t in kept]
        monkeypatch.setattr(reuse, "rescore", None)
        again, _ = world.reused()
        assert [t.losses for t in again] == [t.losses for t in kept]
        swarm = swarming.Swarmed(trials=tuple(kept), batches=(), planned=8)
        proposal = swarming.search(world.job, world.mix, swarm)
        assert proposal.trials_used == 8


def test_a_target_without_saved_weights_leaves_the_trials_out_by_name(
    old: tuple[Path, World], copy: Path, tmp_path: Path
) -> None:
    """A changed target is another target: its windows differ, whatever its name."""
    shutil.rmtree(copy / "trials" / "weights")
    settings = tiny_settings(tmp_path, name="new", proxy__reuse=[str(copy)])
    settings["targets"][0]["limit"] = 20
    with opened(check_recipe(settings)) as world:
        kept, notes = world.reused()
    assert kept == []
    (line,) = notes.warnings
    assert (
        "8 of 8 trials left out: it has no loss on target 'arc' as it is here, and no saved weights" in line
    )
    assert "prior-0000, prior-0001, prior-0002, prior-0003, prior-0004 and 3 more" in line


def test_a_criterion_that_is_gone_keeps_the_trials_without_weight_on_it(
    old: tuple[Path, World], copy: Path, tmp_path: Path
) -> None:
    """Renaming is removing and adding. Failed, dropped, broken and doubled trials are left out by name."""
    bad = read_value(copy / "trials" / "prior-0000.json", Trial)
    write_json(copy / "trials" / "prior-0000.json", replace(bad, status="failed", reason="diverged"))
    write_dropped(copy, {"prior-0001": "odd"})
    (copy / "trials" / "prior-0002.json").write_text('{"trial_id": "prior-0002"}')
    settings = tiny_settings(tmp_path, name="new", proxy__reuse=[str(copy), str(old[0])])
    settings["annotate"]["criteria"][1]["name"] = "size"
    with opened(check_recipe(settings)) as world:
        kept, notes = world.reused()
        others, twice = world.reused(own=kept)
    free = {t.trial_id for t in priors(old[0]) if t.theta is not None and (t.theta.weights[:, 1] == 0).all()}
    assert 0 < len(free) < 8
    first = sorted(free - {"prior-0000", "prior-0001", "prior-0002"})
    ids = [f"reused-0-{i}" for i in first] + [f"reused-1-{i}" for i in sorted(free - set(first))]
    assert [t.trial_id for t in kept] == ids
    record = read_json(world.job.path("reused.json"))["0: copy"]
    assert record["prior-0000"] == "left out: it failed there"
    assert record["prior-0001"] == "left out: dropped: odd"
    assert "lacks field" in record["prior-0002"]
    weight = "left out: it gives weight to criterion 'length', which is gone or made otherwise here"
    assert notes.facts["reasons"][weight] >= 8 - len(free)
    twin = "left out: the same θ and seed are here already"
    assert notes.facts["reasons"].get(twin, 0) == len(first)
    assert others == []
    assert twice.facts["reasons"][twin] >= len(free)


def test_more_files_keep_the_trials_where_no_domain_changed_much(
    old: tuple[Path, World], tmp_path: Path
) -> None:
    """The tokenizer of old is needed; a new domain is closed in the old θ."""
    folder, _ = old
    changes = {"tokenizer": {"path": str(folder / "tokenizer.json")}}
    recipe = new(tmp_path, folder, **changes)
    rows = [{**r, "id": f"poem-{i}", "domain_hint": "poems", "length_score": 1.0 * i}
            for i, r in enumerate(demo_rows("pool.jsonl.zst", 420)[390:])]  # fmt: skip
    write_rows(tmp_path / "pool-c.jsonl", rows)
    with opened(recipe) as world:
        kept, notes = world.reused()
        domains, theirs = world.mix.full.domains, facts_there(folder)
        facts = facts_here(world.job, world.mix)
    place = domains.index("poems")
    assert len(kept) == 8
    assert all(t.theta is not None and t.theta.cutoff[place] == 0 == t.theta.floor[place] for t in kept)
    assert all(t.shares[place] == 0 and sum(t.shares) == pytest.approx(1) for t in kept)
    (reason,) = notes.facts["reasons"]
    assert "features are those of the new pool" in reason
    assert "domain 'poems' is new: nothing was selected there" in reason
    grown = replace(
        facts.table, tokens=facts.table.tokens * np.where(facts.table.domain == 0, 2, 1).astype(np.int32)
    )
    (problem,) = incomparable(replace(facts, table=grown), theirs)
    assert problem.startswith(f"domain {domains[0]!r} has ")
    assert "+100%, expected within 20%" in problem


def test_what_makes_losses_incomparable_is_said_field_by_field(old: tuple[Path, World]) -> None:
    folder, world = old
    facts = facts_here(world.job, world.mix)
    there = facts_there(folder)
    assert incomparable(facts, there) == []
    settings = facts.recipe.model_dump()
    settings["proxy"]["training"]["tokens"] = 9_000
    settings["proxy"]["model"]["width"] = 32
    settings["proxy"]["common"] = ["draw", "init"]
    settings["mixing"]["rank_mode"] = "paper"
    other = replace(
        facts, recipe=check_recipe(settings), tokenizer="f" * 32, labeller="x", budget=facts.budget * 1.3,
        epochs=4.0,
    )  # fmt: skip
    said = "; ".join(incomparable(other, there))
    for text in (
        "proxy.model.width is 16 there, 32 here",
        "proxy.training.tokens is 8192 there, 9000 here",
        "proxy.common is ['init', 'order', 'draw'] there",
        "mixing.rank_mode is 'interval' there, 'paper' here",
        f"set tokenizer.path: {folder / 'tokenizer.json'}",
        "annotate.domain labels documents otherwise",
        "the budget as a share of the pool is 0.2 there, 0.26 here",
        "the number of epochs of the final training is 1 there, 4 here",
    ):
        assert text in said
    settings = facts.recipe.model_dump()
    settings["proxy"]["common"] = ["draw", "order", "init"]  # the same set
    assert incomparable(replace(facts, recipe=check_recipe(settings)), there) == []


def test_a_folder_is_left_out_whole_without_an_error(
    old: tuple[Path, World], copy: Path, tmp_path: Path
) -> None:
    """For another model, for want of files, and where there is no trial."""
    with opened(new(tmp_path, copy, proxy__model__mlp=64)) as world:
        kept, notes = world.reused()
        assert kept == []
        (line,) = notes.warnings
        assert "8 of 8 trials left out: proxy.model.mlp is 32 there, 64 here" in line
        (copy / "stages" / "mixing.json").unlink()
        kept, notes = world.reused()
        assert kept == []
        assert "it has no stages/mixing.json, so it did not get as far as its swarm" in notes.warnings[0]
        shutil.rmtree(copy / "trials")
        assert "there is no trial of a random θ yet" in world.reused()[1].warnings[0]


def test_a_domain_that_is_gone_counts_by_its_share(old: tuple[Path, World]) -> None:
    """And a criterion that another annotator makes now is another criterion."""
    folder, world = old
    there, trial = facts_there(folder), priors(folder)[0]
    lost, names = int(np.argmax(trial.shares)), there.table.domains
    keep = [i for i in range(len(names)) if i != lost]
    here = replace(there, table=replace(
        there.table, domains=tuple(names[i] for i in keep), domain=np.zeros_like(there.table.domain)
    ))  # fmt: skip
    prior = replace(world.mix.prior, num_domains=len(keep))
    axes: Axes = match_axes(here, there, prior)
    assert axes.gone_domains == {names[lost]: lost}
    assert projected(trial, axes) == f"it selects from domain {names[lost]!r}, which is gone here"
    shares = np.array(trial.shares)
    shares[lost] = 0.0009
    made = projected(replace(trial, shares=tuple(shares.tolist())), axes)
    assert isinstance(made, Trial)
    assert isinstance(made.theta, Theta)
    assert trial.theta is not None
    assert (made.theta.cutoff == trial.theta.cutoff[keep]).all()
    assert made.shares == tuple(shares[keep].tolist())
    other = tuple(replace(c, digest="other") for c in here.table.criteria)
    changed = match_axes(replace(here, table=replace(here.table, criteria=other)), there, prior)
    assert changed.criteria == (None, None)
    assert set(changed.gone_criteria) == {"rules", "length"}


def test_the_identity_follows_the_reused_trials_and_not_where_they_lie(
    old: tuple[Path, World], copy: Path, tmp_path: Path
) -> None:
    folder, _ = old
    plain = identity_facts(tiny_recipe(tmp_path, name="new"))
    facts = identity_facts(new(tmp_path, folder))
    assert set(facts) - set(plain) == {"files.reuse.0"}
    assert identity_facts(new(tmp_path, copy)) == facts
    write_dropped(copy, {"prior-0003": "odd"})
    dropped = identity_facts(new(tmp_path, copy))
    assert [n for n in facts if facts[n] != dropped[n]] == ["files.reuse.0"]


def test_reused_folders_are_relative_to_the_recipe_and_must_be_other_runs(
    old: tuple[Path, World], tmp_path: Path
) -> None:
    import yaml

    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(tiny_settings(tmp_path, proxy__reuse=["runs/none", str(old[0])])))
    recipe = load_recipe(str(file))
    assert recipe.proxy.reuse == [str(tmp_path / "runs" / "none"), str(old[0])]
    with pytest.raises(RecipeError, match=r"proxy\.reuse names '.*runs/none', which is no run folder"):
        identity_facts(recipe)
    itself = tiny_recipe(tmp_path, proxy__reuse=[str(tmp_path / "runs" / "tiny")])
    with pytest.raises(RecipeError, match="the folder of this run itself"):
        identity_facts(itself)


def test_a_trial_to_be_retried_is_trained_again_to_the_same_losses(old: tuple[Path, World]) -> None:
    folder, world = old
    before = read_value(folder / "trials" / "prior-0005.json", Trial)
    assert retry_trials(folder, ["prior-0005"], force=True) == ["prior-0005"]
    with opened(world.job.recipe) as again:
        swarming.train_swarm(again.job, again.mix, again.pool)
    assert read_value(folder / "trials" / "prior-0005.json", Trial).losses == before.losses
