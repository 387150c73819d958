"""Recipes: every wrong key or value is named with its place and the remedy; defaults survive a round trip."""

from pathlib import Path

import pytest
import yaml
from tiny_run import DEMO, tiny_settings

from quadmix.errors import RecipeError
from quadmix.recipe import check_recipe, dump_recipe, json_schema, load_recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpos": {}}, "unknown key 'corpos'; did you mean 'corpus'"),
        ({"proxy": {"trails": 9}}, "unknown key 'proxy.trails'; did you mean 'trials'"),
        (
            {"annotate": {"criteria": [{"name": "a", "kind": "column", "colum": "x"}]}},
            "did you mean 'column'",
        ),
        ({"annotate": {"criteria": [{"name": "a", "kind": "column"}]}}, "'a' of kind 'column' needs the key"),
        ({"annotate": {"criteria": []}}, "annotate.criteria"),
        ({"budget": {"tokens": 0}}, "budget.tokens: Input should be greater than 0"),
        ({"budget": {"tokens": -5}}, r"greater than 0 \(got -5\)"),
        ({"budget": {"share": 1.5}}, "less than or equal to 1"),
        ({"budget": {"tokens": 5, "share": 0.1}}, "exactly one of `tokens` and `share`"),
        ({"targets": []}, "targets"),
        ({"targets": [{"name": "t", "path": "p"}]}, "exactly one of `text`, `answer` and `choices`"),
        ({"name": "../up"}, "name"),
        ({"proxy": {"model": {"width": 30, "heads": 4}}}, "multiple of twice the heads"),
    ],
)
def test_a_wrong_recipe_is_refused_with_place_and_remedy(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_recipe({**tiny_settings(tmp_path), **change})


def test_two_criteria_of_one_name_are_refused(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    settings["annotate"]["criteria"] *= 2
    with pytest.raises(RecipeError, match="used twice"):
        check_recipe(settings)


def test_the_resolved_recipe_reads_back_as_itself(tmp_path: Path) -> None:
    recipe = check_recipe(tiny_settings(tmp_path))
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(str(tmp_path / "r.yaml")) == recipe


def test_overrides_reach_nested_keys_and_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(tiny_settings(tmp_path)))
    recipe = load_recipe(str(file), ["proxy.trials=99", "evaluate.baselines=[random]"])
    assert recipe.proxy.trials == 99
    assert recipe.evaluate.baselines == ["random"]
    with pytest.raises(RecipeError, match="did you mean 'trials'"):
        load_recipe(str(file), ["proxy.trial=9"])
    with pytest.raises(RecipeError, match=r"expected a\.b=value"):
        load_recipe(str(file), ["proxy.trials"])
    assert load_recipe(str(file), ["targets.0.limit=7"]).targets[0].limit == 7
    with pytest.raises(RecipeError, match="'1' is no place in a list, expected 0 to 0"):
        load_recipe(str(file), ["targets.1.limit=7"])
    with pytest.raises(RecipeError, match="'name' is not a section"):
        load_recipe(str(file), ["name.x=1"])


def test_relative_paths_are_taken_from_the_recipes_folder() -> None:
    recipe = load_recipe(str(DEMO / "recipe.yaml"))
    assert recipe.corpus.paths == [str(DEMO / "pool.jsonl.zst")]
    assert Path(recipe.targets[0].path).is_file()


def test_yaml_tags_are_not_executed(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(str(file))


def test_a_missing_recipe_says_how_to_make_one() -> None:
    with pytest.raises(RecipeError, match="quadmix init"):
        load_recipe("nowhere.yaml")


def test_the_published_schema_is_the_current_one() -> None:
    published = Path(__file__).parent.parent / "docs" / "recipe.schema.json"
    assert published.read_text(encoding="utf-8") == json_schema(), "run `make schema`"
