"""What a recipe can ask of the proxies that cannot be had: said before any document is read, with numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import tiny_recipe

from quadmix.errors import BudgetError, ProxyError, QuadmixError
from quadmix.pipeline.plan import plan
from quadmix.pipeline.run import run
from quadmix.proxy import memory


def test_fresh_pools_must_hold_the_training_without_repetition(tmp_path: Path) -> None:
    """The mixture's tokens and the wanted ones are named; repetition-matched is offered."""
    recipe = tiny_recipe(tmp_path, proxy__pool="fresh", proxy__training__tokens=50_000_000)
    with pytest.raises(BudgetError, match=r"selects [\d,]+ tokens of this pool and a model trains on 50,000,000"):
        run(recipe)


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
    with pytest.raises(ProxyError, match=r"needs about \d\.\d\d GB to train, each of \d+ workers has 0\.0\d GB"):
        run(recipe)


def test_a_tokenizer_with_no_end_of_document_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
    file.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    with pytest.raises(QuadmixError, match="no end-of-document token"):
        run(tiny_recipe(tmp_path, tokenizer__path=str(file)))


def test_targets_longer_than_the_context_are_reported(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, proxy__model__context=16, evaluate__enabled=False)
    folder = run(recipe, until="confirm").folder
    warnings = json.loads((folder / "stages" / "pool.json").read_text())["warnings"]
    assert any("longer than the context of 16 tokens" in w and "raise proxy.model.context" in w for w in warnings)
