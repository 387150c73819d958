"""Which saved models belong to the present comparison, and what shape an exported one has."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_run import demo_rows, tiny_recipe
from typer.testing import CliRunner

from quadmix.cli.models import app
from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.errors import InputError, ProxyError
from quadmix.io.atomic import write_json, write_text
from quadmix.pipeline.ladder import RungPlan, rung_plans
from quadmix.pipeline.models import export_model, list_models, why_none
from quadmix.proxy.checkpoint import read_weights, write_weights
from quadmix.proxy.facts import Header, model_facts, read_header
from quadmix.proxy.model import initial_weights
from quadmix.proxy.pool import PoolManifest
from quadmix.recipe import Recipe, dump_recipe
from quadmix.types import Trial

LADDER = [{"name": "wide", "model": {"layers": 1, "width": 32, "heads": 1, "mlp": 32, "context": 32}}]


def trial(name: str, label: str) -> Trial:
    return Trial(
        trial_id=name, kind="compare", label=label, theta=None, seed=1000, selected_tokens=9,
        unique_tokens=9, train_tokens=1_234, epochs=1.0, losses={}, heldout={}, status="done",
    )  # fmt: skip


def add(home: Path, plan: RungPlan, one: Trial) -> Path:
    """Write what training leaves of one model."""
    vocab = plan.model.padded(Tokenizer.load(home / "tokenizer.json").vocab_size)
    weights = initial_weights(plan.model, vocab, [0], torch.device("cpu"))
    file = home / plan.folder / "trials" / "weights" / f"{one.trial_id}.safetensors"
    named = {name: tensor[0] for name, tensor in weights.named().items()}
    write_weights(str(file), named, model_facts(plan.model, plan.training))
    write_json(home / plan.folder / "trials" / f"{one.trial_id}.json", one)
    return file


def set_recipe(home: Path, **changes: Any) -> Recipe:
    settings = {"evaluate__ladder": LADDER, "evaluate__baselines": ["random"], **changes}
    recipe = tiny_recipe(home / "data", **settings)
    write_text(home / "recipe.resolved.yaml", dump_recipe(recipe))
    return recipe


@pytest.fixture
def home(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    recipe = set_recipe(run)
    write_text(
        run / "tokenizer.json", train_tokenizer([r["text"] for r in demo_rows("pool.jsonl.zst", 20)], 300)
    )
    tokenizer = Tokenizer.load(run / "tokenizer.json")
    write_json(
        run / "pool" / "manifest.json",
        PoolManifest(
            documents=1, tokens=9, vocab_size=tokenizer.vocab_size, source="t", tokenizer=tokenizer.digest
        ),
    )
    for plan in rung_plans(recipe.evaluate):
        for label in ("quadmix", "random"):
            for seed in range(2):
                add(run, plan, trial(f"compare-{label}-{seed}", label))
    return run


def stale(home: Path) -> dict[str, str]:
    return {model.name: model.stale for model in list_models(home) if model.stale}


def test_models_of_the_present_comparison_are_none_of_them_stale(home: Path) -> None:
    assert len(list_models(home)) == 8
    assert stale(home) == {}


def test_models_that_the_recipe_does_not_ask_for_are_marked(home: Path) -> None:
    base, wide = rung_plans(set_recipe(home).evaluate)
    add(home, base, trial("compare-dsir-0", "dsir"))
    add(home, base, trial("compare-quadmix-2", "quadmix"))  # of a third seed
    failed = replace(trial("compare-random-1", "random"), status="failed", reason="training loss is nan")
    add(home, wide, failed)
    assert stale(home) == {
        "compare-dsir-0": "the recipe compares no such selector, or fewer seeds",
        "compare-quadmix-2": "the recipe compares no such selector, or fewer seeds",
        "wide/compare-random-1": "its training failed: training loss is nan",
    }
    set_recipe(home, evaluate__ladder=[])
    assert stale(home)["wide/compare-quadmix-0"] == "the recipe has no rung 'wide'"
    told = CliRunner().invoke(app, ["list", str(home)]).stdout
    assert "10 models, 6 of them stale" in told
    assert "stale: the recipe has no rung 'wide'" in told


def test_models_of_other_settings_are_marked(home: Path) -> None:
    training = {"tokens": 8_192, "batch": 8, "precision": "float32", "peak_lr": 0.001}
    set_recipe(home, evaluate__training=training)
    assert set(stale(home).values()) == {"it was trained with another training section than the recipe's"}
    assert len(stale(home)) == 8
    set_recipe(home, evaluate__ladder=[{**LADDER[0], "model": {**LADDER[0]["model"], "heads": 2}}])
    why = "it was trained with another model section than the recipe's"
    assert stale(home) == {
        f"wide/compare-{n}": why for n in ("quadmix-0", "quadmix-1", "random-0", "random-1")
    }


def test_a_stale_model_is_exported_when_asked_for_and_in_its_own_shape(home: Path, tmp_path: Path) -> None:
    """Heads and context are in no tensor's shape: the recipe of today would give a wrong config.json."""
    set_recipe(home, evaluate__model={"layers": 1, "width": 16, "heads": 2, "mlp": 32, "context": 64})
    with pytest.raises(InputError, match=r"'compare-quadmix-0' is stale \(it was trained with another model"):
        export_model(home, "compare-quadmix-0", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = CliRunner().invoke(
        app, ["export", str(home), "compare-quadmix-0", "--out", str(tmp_path / "out"), "--stale"]
    )
    assert result.exit_code == 0, result.output
    config = orjson.loads((tmp_path / "out" / "config.json").read_bytes())
    assert (config["num_attention_heads"], config["max_position_embeddings"]) == (1, 32)


def test_weights_of_an_older_version_do_not_say_their_shape_and_are_refused(
    home: Path, tmp_path: Path
) -> None:
    file = home / "evaluate" / "trials" / "weights" / "compare-quadmix-0.safetensors"
    save_file(load_file(file), file)
    (old,) = (m for m in list_models(home) if m.name == "compare-quadmix-0")
    assert (old.stale, old.context) == ("", 0)
    with pytest.raises(
        ProxyError, match=r"do not say of what shape .* remove them and .*rows/compare-quadmix-0"
    ):
        export_model(home, "compare-quadmix-0", tmp_path / "out")


def test_facts_are_kept_in_the_header_and_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2, 3), "a": torch.zeros(4)}
    files = [tmp_path / str(i) for i in range(8)]
    for file in files:
        write_weights(str(file), tensors, {"model": "m", "training": "t", "more": "é"})
    assert len({file.read_bytes() for file in files}) == 1
    facts = {"model": "m", "training": "t", "more": "é"}
    assert read_header(files[0]) == Header(shapes={"a": (4,), "b": (2, 3)}, facts=facts)
    write_weights(str(files[1]), tensors)
    assert read_header(files[1]).facts == {}
    one, other = (read_weights(file) for file in files[:2])
    assert all(torch.equal(one[name], other[name]) for name in tensors)


@pytest.mark.parametrize(
    ("changes", "scored", "message"),
    [
        ({"evaluate__enabled": False}, True, "evaluate.enabled is false; set it to true and run again"),
        ({}, False, "the comparison has not been run"),
        ({}, True, "trained again, remove .*evaluate/rows and run again"),
        ({"evaluate__save_weights": False}, True,
         "trained again, set evaluate.save_weights to true, remove .*evaluate/rows and run again"),
    ],
)  # fmt: skip
def test_a_run_without_models_says_how_to_have_them(
    tmp_path: Path, changes: dict[str, Any], scored: bool, message: str
) -> None:
    base = rung_plans(set_recipe(tmp_path, **changes).evaluate)[0]
    if scored:
        write_text(tmp_path / base.folder / "rows" / "compare-quadmix-0.parquet", "")
    with pytest.raises(InputError, match=f"keeps no comparison models: .*{message}"):
        export_model(tmp_path, "x", tmp_path / "out")
    assert why_none(tmp_path) in CliRunner().invoke(app, ["list", str(tmp_path)]).stdout
