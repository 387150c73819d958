"""The presets side by side: what each trains, and what that costs on this device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quadmix.codec import to_json
from quadmix.errors import ProxyError
from quadmix.pipeline.place import fitting, training_place
from quadmix.pipeline.plan import ModelCost, model_counts
from quadmix.proxy.setting import ProxySetting
from quadmix.recipe import Recipe, RunSection, check_recipe, preset_names, preset_settings

_STAND_IN = {"corpus": {"paths": ["-"]}, "budget": {"share": 0.1},
             "targets": [{"name": "any", "path": "-", "text": "text"}]}  # fmt: skip
_EVALUATED = 80_000  # tokens of targets, about 3,000 questions
_SECONDS = 13.0  # of measuring per preset: the four of them take about a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetPlan:
    """One preset on this device. seconds: of one proxy and of the whole swarm; None where it does not fit,
    with the reason. memory: peak bytes of a worker that trains `group` models together."""

    name: str
    parameters: int
    vocab: int
    context: int
    tokens: int
    trials: int
    gigaflops_per_proxy: float
    group: int = 0
    memory: int = 0
    seconds_per_proxy: float | None = None
    seconds: float | None = None
    reason: str = ""

    def line(self) -> str:
        cost = f"{'-':>11} {'-':>11} {'-':>9}  {self.reason}"
        if self.seconds is not None and self.seconds_per_proxy is not None:
            cost = (
                f"{_time(self.seconds_per_proxy):>11} {_time(self.seconds):>11} {self.memory / 1e9:>6.2f} GB"
            )
        return (
            f"{self.name:12} {self.parameters:>11,} {self.vocab:>7,} {self.context:>6,} "
            f"{self.tokens:>14,} {self.trials:>7,} {cost}"
        )


HEADER = (
    f"{'preset':12} {'parameters':>11} {'vocab':>7} {'length':>6} {'tokens each':>14} {'trials':>7} "
    f"{'one proxy':>11} {'swarm':>11} {'a worker':>9}"
)


def plan_presets(
    settings: Mapping[str, Any], names: Sequence[str] = (), seconds: float = _SECONDS
) -> list[PresetPlan]:
    """Measure each preset's proxies for about `seconds` on this device, all workers at once.

    settings: the keys of a recipe's `run` section. Raises RecipeError or ProxyError for what cannot be had.
    """
    run = check_recipe({**_STAND_IN, "name": "presets", "run": settings}).run
    training_place(run)  # a device that is not there is no matter of one preset
    return [_plan(name, run, seconds) for name in names or preset_names()]


def preset_recipe(name: str) -> Recipe:
    """Return the preset over a stand-in corpus: only its own sections count."""
    return check_recipe({**_STAND_IN, **preset_settings(name), "name": name})


def _plan(name: str, run: RunSection, seconds: float) -> PresetPlan:
    from quadmix.proxy.cost import measure_speed
    from quadmix.proxy.model import flops_per_token, parameter_count

    recipe = preset_recipe(name)
    proxy = recipe.proxy
    vocab = proxy.model.padded(recipe.tokenizer.vocab_size)
    setting = ProxySetting(
        pool="", targets="", heldout=None, model=proxy.model, training=proxy.training,
        vocab_size=vocab, domains=("any",), device=run.device,
    )  # fmt: skip
    facts: dict[str, Any] = dict(
        name=name, parameters=parameter_count(proxy.model, vocab), vocab=vocab, context=proxy.model.context,
        tokens=setting.tokens, trials=proxy.trials,
        gigaflops_per_proxy=flops_per_token(proxy.model, vocab) * setting.tokens / 1e9,
    )  # fmt: skip
    try:
        group = fitting(setting, proxy.group, run)
    except ProxyError as error:
        return PresetPlan(**facts, reason=str(error))
    place = training_place(run)
    speed = measure_speed(setting, group=group, seconds=seconds, place=place)
    cost = ModelCost(setting=setting, place=place, group=group, speed=speed, evaluated=_EVALUATED)
    return PresetPlan(
        **facts, group=group, memory=speed.peak_bytes,
        seconds_per_proxy=setting.tokens / speed.training + _EVALUATED / speed.evaluation,
        seconds=cost.seconds(model_counts(recipe)["swarm"]),
    )  # fmt: skip


def to_rows(plans: Sequence[PresetPlan]) -> list[Any]:
    """Return the plans as plain values."""
    return [to_json(plan) for plan in plans]


def _time(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"
