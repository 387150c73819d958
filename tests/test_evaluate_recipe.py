"""The section `evaluate`: what rungs take over from the base, and what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from quadmix.recipe import EvaluateSection


def section(**settings: Any) -> EvaluateSection:
    return EvaluateSection.model_validate(settings)


def test_a_rung_keeps_every_key_of_the_base_that_it_does_not_name() -> None:
    base = {"size": "1M", "architecture": "tinyllama", "head": "untied", "vocab_multiple": 128, "context": 64}
    made = section(
        model=base,
        training={"tokens": 5_000, "batch": 4, "peak_lr": 0.01},
        ladder=[{"name": "5M", "model": {"size": "5M"}}, {"name": "long", "model": {"context": 256}},
                {"name": "lr", "training": {"peak_lr": 0.1}}],
    )  # fmt: skip
    larger, longer, rate = made.ladder
    assert larger.model is not None
    assert (larger.model.width, larger.model.architecture, larger.model.head) == (256, "tinyllama", "untied")
    assert (larger.model.vocab_multiple, larger.model.context) == (128, 64)
    assert longer.model is not None
    assert (longer.model.width, longer.model.layers, longer.model.context) == (128, 4, 256)
    assert longer.model.architecture == "tinyllama"
    assert rate.training is not None
    assert rate.training.model_dump() == {**made.training.model_dump(), "peak_lr": 0.1}
    assert rate.training.schedule == "wsd"


def test_a_rung_of_the_default_base_is_a_1m_model() -> None:
    (rung,) = section(ladder=[{"name": "long", "model": {"context": 256}}]).ladder
    assert rung.model is not None
    assert (rung.model.width, rung.model.layers) == (128, 4)


def test_a_section_that_was_written_out_reads_back_the_same() -> None:
    made = section(model={"size": "3M"}, ladder=[{"name": "5M", "model": {"size": "5M"}, "budget": 2.0}])
    assert section(**made.model_dump()) == made


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ladder": [{"name": "base"}]}, "rung name 'base' is used twice"),
        ({"ladder": [{"name": "a"}, {"name": "a"}]}, "rung name 'a' is used twice"),
        ({"benchmarks": [{"name": "macro", "path": "x", "answer": "a"}]}, "'macro' is kept for averages"),
        ({"benchmarks": [{"name": "b", "path": "x"}]}, "exactly one of `choices` and `answer`"),
        ({"benchmarks": [{"name": "b", "path": "x", "choices": "c"}]}, "`choices` and `gold` go together"),
        ({"benchmarks": [{"name": "b", "path": "x", "answer": "c", "blank": "_"}]}, "needs `choices`"),
        ({"seeds": 1}, "greater than or equal to 2"),
        ({"baselines": ["best"]}, "Input should be"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section(**settings)
