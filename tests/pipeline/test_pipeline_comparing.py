"""A whole comparison in small: every baseline, three rungs, benchmarks; resumed, mended, exported."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_run import demo_rows, tiny_recipe, write_rows

from quadmix.cli.table import result_lines
from quadmix.io.atomic import read_json, read_value
from quadmix.pipeline.models import list_models
from quadmix.pipeline.plan import model_counts, plan
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.run import RunResult, run
from quadmix.recipe import Recipe
from quadmix.types import Comparison

EVERY = ["random", "prior-mean", "random-mean", "global-cut", "criteria", "criteria-domain", "criteria-mix",
         "qurating", "upsampling", "dsir", "regmix"]  # fmt: skip
LABELS = {
    "quadmix", "random", "prior-mean", "random-mean", "global-cut", "top:rules", "top:length",
    "top-domain:rules", "top-domain:length", "criteria-mix", "qurating", "upsampling", "dsir", "regmix",
    "theta:000",
}  # fmt: skip


def recipe_of(folder: Path, **changes: Any) -> Recipe:
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "bench.jsonl", demo_rows("target_arc_easy.jsonl.zst", 90)[60:])
    wide = {"layers": 1, "width": 32, "heads": 1, "mlp": 32, "context": 48}
    settings: dict[str, Any] = {
        "evaluate__baselines": EVERY,
        "evaluate__random_thetas": 1,
        "evaluate__ladder": [
            {"name": "wide", "model": wide, "baselines": ["random", "prior-mean", "criteria"]},
            {"name": "twice", "budget": 2.0, "match": "epochs", "baselines": ["random"], "random_thetas": 0},
        ],
        "evaluate__benchmarks": [
            {"name": "arc", "path": str(folder / "bench.jsonl"), "choices": "choices", "gold": "gold"}
        ],
    }
    return tiny_recipe(folder, **{**settings, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, RunResult]:
    recipe = recipe_of(tmp_path_factory.mktemp("comparing"))
    return recipe, run(recipe, until="evaluate", progress=Progress(quiet=True))


def comparison_of(result: RunResult) -> Comparison:
    return read_value(result.folder / "evaluate" / "comparison.json", Comparison)


def test_every_baseline_takes_part_at_the_same_budget(done: tuple[Recipe, RunResult]) -> None:
    recipe, result = done
    base = comparison_of(result).rungs[0]
    assert {m.label for m in base.measured} == LABELS
    assert base.left_out == {}
    assert {m.label: len(m.values) for m in base.measured} == dict.fromkeys(LABELS, 2)
    budgets = [m.selected_tokens for m in base.measured]
    assert max(budgets) < 1.3 * min(budgets)  # within one document per domain of a budget of few documents
    assert model_counts(recipe)["comparison"] == 2 * (len(LABELS) + 6 + 2)


def test_rungs_differ_as_the_recipe_says(done: tuple[Recipe, RunResult]) -> None:
    _, result = done
    base, wide, twice = comparison_of(result).rungs
    assert (base.name, wide.name, twice.name) == ("base", "wide", "twice")
    assert wide.parameters > base.parameters
    assert {m.label for m in wide.measured} == {
        "quadmix", "random", "prior-mean", "top:rules", "top:length", "theta:000",
    }  # fmt: skip
    assert twice.train_tokens == 2 * base.train_tokens
    selected = {r.name: next(m.selected_tokens for m in r.measured if m.label == "quadmix")
                for r in (base, twice)}  # fmt: skip
    assert selected["twice"] == pytest.approx(2 * selected["base"], rel=0.2)


def test_scores_are_those_of_targets_heldout_text_and_benchmarks(done: tuple[Recipe, RunResult]) -> None:
    _, result = done
    for rung in comparison_of(result).rungs:
        kinds = {(s.kind, s.metric) for s in rung.scores}
        assert kinds == {
            ("target", "bits_per_byte"), ("heldout", "bits_per_byte"), ("benchmark", "bits_per_byte"),
            ("benchmark", "acc"), ("benchmark", "acc_norm"), ("benchmark", "accuracy"),
        }  # fmt: skip
        chance = {s.chance for s in rung.scores if s.metric == "acc" and s.task == "arc"}
        assert chance == {0.25}
        target = next(s for s in rung.scores if s.kind == "target" and s.label == "quadmix")
        measured = next(m for m in rung.measured if m.label == "quadmix")
        assert target.mean == pytest.approx(measured.losses["arc"], rel=1e-12)  # one number, not two
        assert all(d.control != "quadmix" for d in rung.differences)


def test_the_ranking_of_the_first_rung_is_held_against_the_others(done: tuple[Recipe, RunResult]) -> None:
    _, result = done
    found = comparison_of(result).transfers
    assert [(t.small, t.large) for t in found] == [("base", "wide")]  # with two labels there is no ranking
    assert set(found[0].labels) == {
        "quadmix", "random", "prior-mean", "top:rules", "top:length", "theta:000",
    }  # fmt: skip
    assert "base" not in "".join(result_lines(replace(result, comparison=None)))
    assert "wide" in "\n".join(result_lines(result))


def test_the_detectable_difference_is_said_before_anything_is_trained(done: tuple[Recipe, RunResult]) -> None:
    recipe, result = done
    promised = read_json(result.folder / "stages" / "evaluate.json")["facts"]["promised"]
    assert set(promised) == {"base", "wide", "twice"}
    assert all(p > 0 for p in promised.values())
    planned = plan(recipe, seconds=0.2)
    assert {r.stage: r.promised for r in planned.rungs} == {
        "evaluate": promised["base"], "evaluate wide": promised["wide"], "evaluate twice": promised["twice"],
    }  # fmt: skip
    assert f"at least {promised['wide']:.4f} bits per byte, by the" in "\n".join(planned.lines())
    # every rung costs what it trains; what is left of the stage is RegMix's own swarm
    folder = result.folder / "evaluate"
    trained = {"evaluate": folder, **{f"evaluate {n}": folder / "rungs" / n for n in ("wide", "twice")}}
    assert {r["stage"]: r["models"] for r in planned.to_json()["rungs"]} == {
        name: len(list((home / "trials").glob("compare-*.json"))) for name, home in trained.items()
    }
    stages = {s.stage: s.seconds for s in planned.stages}
    assert all(r.seconds > 0 for r in planned.rungs)
    assert 0 < stages["evaluate"] - sum(r.seconds for r in planned.rungs) < stages["evaluate"] / 2


def test_the_same_command_again_trains_nothing(done: tuple[Recipe, RunResult]) -> None:
    recipe, result = done
    folder = result.folder / "evaluate"
    before = {f: f.stat().st_mtime_ns for f in folder.rglob("compare-*")}
    text = (folder / "comparison.json").read_bytes()
    run(recipe, until="evaluate", progress=Progress(quiet=True))
    assert {f: f.stat().st_mtime_ns for f in folder.rglob("compare-*")} == before
    assert (folder / "comparison.json").read_bytes() == text


def test_a_comparison_may_grow_without_another_search(done: tuple[Recipe, RunResult]) -> None:
    """Which models judge is not part of a run's identity: θ* is not searched again."""
    recipe, result = done
    confirmed = (result.folder / "search" / "confirm.json").stat().st_mtime_ns
    trials = {f: f.stat().st_mtime_ns for f in (result.folder / "trials").glob("prior-*.json")}
    fewer = recipe.evaluate.model_copy(update={"ladder": recipe.evaluate.ladder[:1]})
    again = run(
        recipe.model_copy(update={"evaluate": fewer}), until="evaluate", progress=Progress(quiet=True)
    )
    assert [r.name for r in comparison_of(again).rungs] == ["base", "wide"]
    assert {f: f.stat().st_mtime_ns for f in (result.folder / "trials").glob("prior-*.json")} == trials
    assert (result.folder / "search" / "confirm.json").stat().st_mtime_ns >= confirmed
    run(recipe, until="evaluate", progress=Progress(quiet=True))


def test_a_baseline_that_is_added_trains_its_own_models_only(tmp_path: Path) -> None:
    plain = {"evaluate__ladder": [], "evaluate__benchmarks": [], "evaluate__random_thetas": 0}
    recipe = recipe_of(tmp_path, **plain, evaluate__baselines=["random"])
    result = run(recipe, until="evaluate", progress=Progress(quiet=True))
    trials = result.folder / "evaluate" / "trials"
    before = {f.name: f.stat().st_mtime_ns for f in trials.glob("compare-*.json")}
    more = recipe.evaluate.model_copy(update={"baselines": ["random", "global-cut"]})
    run(recipe.model_copy(update={"evaluate": more}), until="evaluate", progress=Progress(quiet=True))
    after = {f.name: f.stat().st_mtime_ns for f in trials.glob("compare-*.json")}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"compare-global-cut-0.json", "compare-global-cut-1.json"}


def test_without_kept_weights_a_finished_comparison_stays_finished(tmp_path: Path) -> None:
    plain = {"evaluate__benchmarks": [], "evaluate__random_thetas": 0, "evaluate__save_weights": False}
    wide = {"name": "wide", "model": {"width": 32}, "baselines": ["random"]}
    recipe = recipe_of(tmp_path, **plain, evaluate__baselines=["random"], evaluate__ladder=[wide])
    result = run(recipe, until="evaluate", progress=Progress(quiet=True))
    folder = result.folder / "evaluate"
    assert not list(folder.rglob("*.safetensors"))
    text = (folder / "comparison.json").read_bytes()
    before = {f: f.stat().st_mtime_ns for f in folder.rglob("compare-*")}
    run(recipe, until="evaluate", progress=Progress(quiet=True))
    assert {f: f.stat().st_mtime_ns for f in folder.rglob("compare-*")} == before
    assert (folder / "comparison.json").read_bytes() == text


def test_a_rung_whose_models_all_diverge_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    plain = {"evaluate__benchmarks": [], "evaluate__random_thetas": 0, "evaluate__baselines": ["random"]}
    wild = {"name": "wild", "training": {"peak_lr": 1e30, "optimizer": "adamw", "clip": 1e30}}
    wide = {"name": "wide", "model": {"width": 32}}
    recipe = recipe_of(tmp_path, **plain, evaluate__ladder=[wild, wide])
    result = run(recipe, until="report", progress=Progress(quiet=True))
    base, failed, last = comparison_of(result).rungs
    assert base.measured
    assert last.measured
    assert failed.measured == ()
    assert "no model finished" in failed.flags[0]
    assert [t.large for t in comparison_of(result).transfers if t.large == "wild"] == []


def test_a_lost_model_is_trained_again_with_the_same_result(done: tuple[Recipe, RunResult]) -> None:
    recipe, result = done
    folder = result.folder / "evaluate"
    rows = folder / "rows" / "compare-random-0.parquet"
    weights = folder / "trials" / "weights" / "compare-random-0.safetensors"
    before, text = weights.read_bytes(), (folder / "comparison.json").read_bytes()
    rows.unlink()
    weights.unlink()
    run(recipe, until="evaluate", progress=Progress(quiet=True))
    assert weights.read_bytes() == before
    assert (folder / "comparison.json").read_bytes() == text


def test_the_models_are_listed_by_rung(done: tuple[Recipe, RunResult]) -> None:
    _, result = done
    names = [m.name for m in list_models(result.folder)]
    assert "compare-quadmix-0" in names
    assert "wide/compare-quadmix-1" in names
    assert len(names) == 2 * (len(LABELS) + 6 + 2)


def test_a_baseline_without_enough_scored_documents_is_left_out_with_numbers(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, evaluate__ladder=[], evaluate__baselines=["random", "criteria"],
                       evaluate__random_thetas=0, evaluate__benchmarks=[], budget__share=0.6,
                       annotate__missing="renormalise", annotate__min_coverage=0.1)  # fmt: skip
    rows = demo_rows("pool.jsonl.zst", 360)
    for number, row in enumerate(rows):
        row["text"] = row["text"][:1500]
        row["length_score"] = float(number) if number % 2 else None
    write_rows(tmp_path / "pool-a.jsonl", rows[:200])
    write_rows(tmp_path / "pool-b.jsonl", rows[200:])
    result = run(recipe, until="evaluate", progress=Progress(quiet=True))
    base = comparison_of(result).rungs[0]
    assert "top:length" in base.left_out
    assert "tokens" in base.left_out["top:length"]
    assert {m.label for m in base.measured} == {"quadmix", "random", "top:rules"}
    said = read_json(result.folder / "stages" / "evaluate.json")["warnings"]
    assert any("top:length is left out" in w for w in said)
