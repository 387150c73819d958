"""θ* of a finished run applied to another corpus: same annotators, its own ranks and budget, no swarm."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import demo_rows, tiny_settings, write_rows

from quadmix.errors import IdentityError, RecipeError, ScoreError
from quadmix.io.atomic import file_digest, read_json, read_value
from quadmix.materialise.table import read_selection
from quadmix.materialise.verify import verify_run
from quadmix.mixing.curve import curve_mass
from quadmix.pipeline.plan import plan
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.run import RunResult, run
from quadmix.recipe import Recipe, check_recipe
from quadmix.types import Confirmation, Theta


def quiet_run(recipe: Recipe, until: str = "report") -> RunResult:
    return run(recipe, until=until, progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose search is done."""
    folder = tmp_path_factory.mktemp("source")
    return quiet_run(check_recipe(tiny_settings(folder)), "confirm").folder


def other_corpus(folder: Path, source: Path, **changes: Any) -> Recipe:
    """The recipe of a larger corpus of the same kind, whose θ* is the source's."""
    settings = tiny_settings(folder, **changes)
    rows = demo_rows("pool.jsonl.zst", 700)
    for row in rows:
        row["length_score"] = float(len(row["text"]) % 97)
    for old in folder.glob("pool-*.jsonl"):
        old.unlink()
    write_rows(folder / "pool-a.jsonl", rows[100:400])
    write_rows(folder / "pool-b.jsonl", rows[400:])
    del settings["targets"]
    return check_recipe(settings | {"name": "large", "mixing": {"theta_from": str(source)}})


def test_the_dataset_meets_its_own_budget_with_the_curves_of_the_source(tmp_path: Path, source: Path) -> None:
    result = quiet_run(other_corpus(tmp_path, source))
    manifest = result.manifest
    assert manifest is not None
    assert manifest.ledger.rows_in == 600 == manifest.ledger.selected + sum(manifest.ledger.dropped.values())
    table = read_selection(result.folder)
    longest = int(table.tokens.max()) * len(manifest.domains)
    assert abs(manifest.ledger.tokens_out - manifest.token_budget) <= longest
    theta = read_value(result.folder / "theta.json", Theta)
    found = read_value(source / "search" / "confirm.json", Confirmation).theta
    assert np.array_equal(theta.weights, found.weights)
    assert np.array_equal(theta.steepness, found.steepness)
    pool = np.bincount(
        table.domain[table.selectable], weights=table.tokens[table.selectable], minlength=theta.num_domains
    )
    assert pool @ curve_mass(theta) == pytest.approx(manifest.token_budget, rel=1e-9)
    assert all(check.ok for check in verify_run(str(result.folder)).checks)
    assert not (result.folder / "trials").exists()
    assert result.report is not None
    page = result.report.read_text(encoding="utf-8")
    assert "The θ* of the run tiny, " in page
    assert "was applied to this corpus; whether it is better here was not measured" in page
    assert manifest.ledger.dropped.get("held_out", 0) == 0  # nothing is evaluated, so nothing is kept back


def test_scores_are_those_of_the_source_annotators(tmp_path: Path, source: Path) -> None:
    result = quiet_run(other_corpus(tmp_path, source), "annotate")
    assert file_digest(result.folder / "tokenizer.json") == file_digest(source / "tokenizer.json")
    ours, theirs = (read_json(f / "annotators" / "manifest.json") for f in (result.folder, source))
    assert ours == theirs


def test_criteria_that_are_not_those_of_the_source_are_refused(tmp_path: Path, source: Path) -> None:
    recipe = other_corpus(tmp_path, source, annotate__criteria=[{"name": "rules", "kind": "heuristic"}])
    with pytest.raises(RecipeError, match=r"annotate section is not that of .*criteria is .*use the same"):
        quiet_run(recipe)


def test_a_domain_that_the_theta_does_not_know_is_refused_or_becomes_other(
    tmp_path: Path, source: Path
) -> None:
    domains = read_json(source / "normaliser.json")["domains"]
    recipe = other_corpus(tmp_path, source)
    rows = demo_rows("pool.jsonl.zst", 50)
    for row in rows:
        row["length_score"] = 1.0
        row["domain_hint"] = "never-seen"
        row["id"] = f"new-{row['id']}"
    write_rows(tmp_path / "pool-c.jsonl", rows)
    if "other" in domains:
        table = read_selection(quiet_run(recipe, "materialise").folder)
        assert (table.domain[-50:] == domains.index("other")).all()
    else:
        with pytest.raises(ScoreError, match="'never-seen', for which θ has no parameters"):
            quiet_run(recipe)


def test_a_folder_without_a_confirmed_search_is_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(RecipeError, match=r"theta_from names .*which has no identity.json"):
        quiet_run(other_corpus(tmp_path, tmp_path / "nothing"))


def test_another_theta_in_the_same_folder_is_refused(tmp_path: Path, source: Path) -> None:
    recipe = other_corpus(tmp_path, source)
    quiet_run(recipe, "annotate")
    settings = recipe.model_dump(mode="json")
    settings["budget"] = {"share": 0.3}
    with pytest.raises(IdentityError, match=r"recipe.budget.share"):
        quiet_run(check_recipe(settings))


def test_the_plan_of_an_applied_theta_trains_nothing(tmp_path: Path, source: Path) -> None:
    found = plan(other_corpus(tmp_path, source))
    assert [s.stage for s in found.stages] == ["corpus", "annotate", "mixing", "materialise", "report"]
    assert found.models == {}
    assert any("θ is given" in line for line in found.lines())


def test_targets_are_needed_unless_theta_comes_from_a_run(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    del settings["targets"]
    with pytest.raises(RecipeError, match="'targets' is missing"):
        check_recipe(settings)
