"""What a recipe can ask of the proxies that cannot be had: said with numbers before anything is trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import tiny_recipe

from quadmix.errors import BudgetError, ProxyError, QuadmixError, RecipeError
from quadmix.pipeline.plan import model_costs, plan
from quadmix.pipeline.run import run
from quadmix.proxy import memory
from quadmix.recipe import EvaluateSection


def test_fresh_pools_must_hold_the_training_without_repetition(tmp_path: Path) -> None:
    """The mixture's tokens and the wanted ones are named; repetition-matched is offered."""
    recipe = tiny_recipe(tmp_path, proxy__pool="fresh", proxy__training__tokens=50_000_000)
    with pytest.raises(
        BudgetError, match=r"selects [\d,]+ tokens of this pool and a model trains on 50,000,000"
    ):
        run(recipe)


def test_fresh_pools_are_checked_in_the_recipe_where_it_says_enough(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"budget\.tokens is 9,000 and proxy\.training\.tokens 10,000: lower"
    ):
        tiny_recipe(
            tmp_path, proxy__pool="fresh", budget={"tokens": 9_000}, proxy__training={"tokens": 10_000}
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what must be missing")
@pytest.mark.parametrize("call", [plan, run])
def test_a_device_that_is_not_there(tmp_path: Path, call: Any) -> None:
    recipe = tiny_recipe(tmp_path, run__device="cuda")
    with pytest.raises(ProxyError, match=r"run\.device is cuda, but this process sees 0 GPUs .* cpu or auto"):
        call(recipe)
    assert not (Path(recipe.run.folder) / recipe.name / "corpus").exists()


def test_too_little_memory_for_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda _device: 400_000_000)
    recipe = tiny_recipe(tmp_path, proxy__model={"size": "20M"})
    with pytest.raises(
        ProxyError, match=r"needs about \d\.\d\d GB to train, each of \d+ workers has 0\.0\d GB"
    ):
        run(recipe)


def test_a_tokenizer_with_no_end_of_document_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
    file.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    with pytest.raises(QuadmixError, match="no end-of-document token"):
        run(tiny_recipe(tmp_path, tokenizer__path=str(file)))


def test_proxies_and_larger_models_may_have_contexts_of_their_own(tmp_path: Path) -> None:
    """Targets are cut for the models that they judge; rows that do not fit are reported with the remedy."""
    larger = {"layers": 1, "width": 16, "heads": 1, "mlp": 32, "context": 32}
    recipe = tiny_recipe(tmp_path, proxy__model={**larger, "context": 16}, evaluate__model=larger)
    result = run(recipe, until="evaluate")
    contexts = [
        json.loads((result.folder / n / "manifest.json").read_text())["context"]
        for n in ("targets", "judges", "heldout")
    ]
    assert contexts == [16, 32, 32]
    assert result.comparison is not None
    warnings = json.loads((result.folder / "stages" / "pool.json").read_text())["warnings"]
    assert any(
        "longer than the context of 16 tokens" in w and "raise proxy.model.context" in w for w in warnings
    )


def test_part_of_the_larger_model_keeps_the_other_defaults() -> None:
    section = EvaluateSection.model_validate({"model": {"context": 256}})
    assert (section.model.layers, section.model.width, section.model.context) == (4, 128, 256)
    assert EvaluateSection.model_validate({"model": {"size": "20M"}}).model.width == 448


def test_a_plan_counts_the_entries_of_the_users_tokenizer(tmp_path: Path) -> None:
    """Ids with gaps count up to the largest; serial runs are planned with one worker."""
    file = tmp_path / "tokenizer.json"
    vocab = {"a": 0, "b": 5, "<|endoftext|>": 7000}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}
    file.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    recipe = tiny_recipe(tmp_path, tokenizer__path=str(file))
    costs = model_costs(recipe, 0.1)
    assert costs["proxy"].setting.vocab_size == 7001
    assert plan(recipe, seconds=0.1).workers == 1


def test_a_vocabulary_that_does_not_fit_two_bytes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"vocab_size is 100,000; at most 65,536 .* give tokenizer\.path"):
        tiny_recipe(tmp_path, tokenizer__vocab_size=100_000)
