"""What is refused before training: files that do not belong together, batches that do not divide."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from proxy_world import MODEL, make_job, make_setting
from pydantic import ValidationError

from quadmix.errors import ProxyError
from quadmix.pipeline import training as pipeline
from quadmix.proxy.setting import check_files
from quadmix.recipe import TrainingSection


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        (
            "targets",
            {"tokenizer": "abc"},
            r"targets' was tokenised by abc, the pool .*/pool' by an unnamed one",
        ),
        ("heldout", {"tokenizer": "abc"}, r"heldout' was tokenised by abc"),
        ("pool", {"tokenizer": "abc"}, r"targets' was tokenised by an unnamed tokenizer, the pool .* by abc"),
        ("targets", {"context": 17}, r"windows of 17 tokens, longer than the model's context of 16"),
        ("heldout", {"context": 32}, r"windows of 32 tokens, longer than the model's context of 16"),
        ("pool", {"vocab_size": 4_096}, r"a vocabulary of 4,096, the model has 48 entries"),
    ],
)
def test_files_of_another_run_are_refused(tmp_path: Path, folder: str, change: dict, message: str) -> None:
    """Another tokenizer, windows beyond the context and ids beyond the model are errors with the numbers."""
    setting = make_setting(tmp_path)
    check_files(setting)
    manifest = tmp_path / folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(ProxyError, match=message):
        check_files(setting)


@pytest.mark.parametrize(
    ("batch", "micro_batch", "context", "passes"),
    [
        (8, 0, 128, 1),
        (64, 0, 1_024, 4),
        (6, 0, 8_192, 3),
        (5, 0, 8_192, 5),
        (3, 0, 20_000, 3),
        (8, 2, 128, 4),
        (512, 16, 2_048, 32),
    ],
)
def test_passes_hold_about_16_000_tokens(batch: int, micro_batch: int, context: int, passes: int) -> None:
    """Left alone, a pass is the largest divisor of the batch within 16,384 tokens; else as asked."""
    training = TrainingSection(batch=batch, micro_batch=micro_batch)
    assert training.passes(context) == passes


def test_a_micro_batch_must_divide_the_batch() -> None:
    """Passes of unlike size would weigh their tokens differently."""
    with pytest.raises(ValidationError, match=r"micro_batch 3 must divide batch 8"):
        TrainingSection(batch=8, micro_batch=3)


def test_a_vocabulary_is_padded_upwards() -> None:
    """The next multiple, the vocabulary itself if it is one."""
    padded = MODEL.model_copy(update={"vocab_multiple": 64}).padded
    assert [padded(n) for n in (1, 64, 65)] == [64, 64, 128]
    assert MODEL.padded(65) == 65


@pytest.mark.parametrize("own", ["init", "order", "draw", None])
def test_trials_have_their_own_of_what_is_not_common(
    monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    """Four trials differ in seed, order or drawn copies exactly where these are not common."""
    common = [name for name in ("init", "order", "draw") if name != own]
    monkeypatch.setattr(
        pipeline,
        "theta_job",
        lambda pool, mix, part, name, kind, label, theta, seed: make_job(name, np.array([seed]), seed),
    )
    mix: Any = SimpleNamespace(seed=3)
    none: Any = None
    trials = [pipeline.swarm_job(none, mix, none, none, i, common) for i in range(4)]
    repeats = pipeline.repeat_jobs(none, mix, none, none, 2)
    seen = {
        "init": {job.seed for job in trials},
        "order": {job.order_seed for job in trials},
        "draw": {int(job.copies[0]) for job in trials},
    }
    assert {name: len(values) for name, values in seen.items()} == {
        name: 4 if name == own else 1 for name in seen
    }
    assert len({job.seed for job in repeats}) == len({job.order_seed for job in repeats}) == 2
