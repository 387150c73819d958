"""Presets and the size ladder: what they set, what overrides them, what they cost here."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from quadmix.errors import RecipeError
from quadmix.pipeline.presets import HEADER, plan_presets, to_rows
from quadmix.recipe import (
    ModelSection,
    Recipe,
    check_recipe,
    dump_recipe,
    load_recipe,
    preset_names,
    preset_settings,
)
from quadmix.recipe.proxies import LADDER


def minimal(**more: Any) -> dict[str, Any]:
    return {
        "name": "n", "corpus": {"paths": ["/pool"]}, "budget": {"share": 0.1},
        "targets": [{"name": "t", "path": "/target", "text": "text"}], **more,
    }  # fmt: skip


def loaded(folder: Path, settings: dict[str, Any], *overrides: str) -> Recipe:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(settings))
    return load_recipe(str(file), overrides)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_completes_a_minimal_recipe(tmp_path: Path, name: str) -> None:
    """Every value of the preset arrives; the recipe printed with all its defaults reads back as itself."""
    recipe = check_recipe(minimal(preset=name))

    def arrives(section: dict[str, Any], found: Any) -> None:
        for key, value in section.items():
            if isinstance(value, dict):
                arrives(value, getattr(found, key))
            else:
                assert getattr(found, key) == value, key

    arrives(preset_settings(name), recipe)
    assert recipe.proxy.model.context == recipe.evaluate.model.context
    (tmp_path / "resolved.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(str(tmp_path / "resolved.yaml")) == recipe


def test_own_keys_win_over_the_preset_and_set_over_both(tmp_path: Path) -> None:
    """Preset < recipe < --set, key by key: what is beside an overridden key stays the preset's."""
    settings = minimal(preset="laptop", proxy={"trials": 20, "training": {"batch": 4}})
    recipe = loaded(tmp_path, settings)
    assert (recipe.proxy.trials, recipe.proxy.training.batch) == (20, 4)
    assert (recipe.proxy.training.tokens, recipe.tokenizer.vocab_size) == (2_000_000, 2_048)
    recipe = loaded(tmp_path, settings, "proxy.trials=30", "proxy.model.layers=3", "preset=workstation")
    assert (recipe.proxy.trials, recipe.proxy.training.batch) == (30, 4)
    assert (recipe.proxy.model.layers, recipe.proxy.model.width) == (3, LADDER["1M"]["width"])
    assert recipe.proxy.training.tokens == 10_000_000


@pytest.mark.parametrize("name", preset_names())
def test_own_size_replaces_the_shape_of_the_preset(tmp_path: Path, name: str) -> None:
    """A preset that spells out its shape gives way to a size that the user asks for, but keeps the rest."""
    recipe = loaded(tmp_path, minimal(preset=name), "proxy.model.size=3M")
    shape = {key: getattr(recipe.proxy.model, key) for key in LADDER["3M"]}
    assert shape == LADDER["3M"]
    assert recipe.proxy.model.context == check_recipe(minimal(preset=name)).proxy.model.context


def test_an_unknown_preset_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """In the recipe and by --set."""
    with pytest.raises(RecipeError, match="no preset 'huge'; there are: smoke, laptop, workstation, paper"):
        check_recipe(minimal(preset="huge"))
    with pytest.raises(RecipeError, match="no preset '3'"):
        loaded(tmp_path, minimal(), "preset=3")


@pytest.mark.parametrize("size", LADDER)
def test_a_size_sets_the_shape_and_own_keys_win(size: str) -> None:
    """Each step of the ladder sets layers, width, heads and mlp; a key beside it is kept."""
    model = ModelSection.model_validate({"size": size})
    assert {key: getattr(model, key) for key in LADDER[size]} == LADDER[size]
    other = ModelSection.model_validate({"size": size, "layers": 7, "mlp": 40})
    assert (other.layers, other.mlp, other.width) == (7, 40, LADDER[size]["width"])
    assert ModelSection.model_validate(other.model_dump()) == other


def test_a_preset_is_measured_on_this_device() -> None:
    """One line with finite seconds and memory; a swarm takes longer than one of its proxies."""
    (plan,) = plan_presets({"workers": 1}, ["smoke"], seconds=0.3)
    assert plan.seconds is not None
    assert plan.seconds_per_proxy is not None
    assert 0 < plan.seconds_per_proxy < plan.seconds < math.inf
    assert 100e6 < plan.memory < 4e9
    assert plan.line().startswith("smoke")
    assert len(plan.line()) == len(HEADER)
    assert to_rows([plan])[0]["trials"] == 16
