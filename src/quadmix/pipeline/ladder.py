"""The settings in which the final comparison is made: the base rung of a recipe and those of its ladder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quadmix.evaluate.compare import CHOSEN
from quadmix.evaluate.selectors import baseline_labels
from quadmix.evaluate.stats import promised_difference
from quadmix.recipe import Baseline, EvaluateSection, ModelSection, Recipe, TrainingSection
from quadmix.types import Confirmation

BASE = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class RungPlan:
    """One rung with everything filled in.

    pool_tokens: training tokens that choose the rung's part of the pool (repetition-matched), whatever the
    budget; training.tokens are those that its models see. budget: factor on the selected tokens.
    """

    name: str
    model: ModelSection
    training: TrainingSection
    pool_tokens: int
    seeds: int
    baselines: tuple[Baseline, ...]
    random_thetas: int
    budget: float
    match: Literal["tokens", "epochs"]

    @property
    def folder(self) -> Path:
        """Return where the rung's trials lie, inside the run folder."""
        return Path("evaluate") if self.name == BASE else Path("evaluate", "rungs", self.name)

    @property
    def stage(self) -> str:
        """Return the name under which the rung's training is shown."""
        return "evaluate" if self.name == BASE else f"evaluate {self.name}"


def rung_plans(section: EvaluateSection) -> tuple[RungPlan, ...]:
    """Return the base rung and those of the ladder, in their order."""
    base = RungPlan(
        name=BASE, model=section.model, training=section.training, pool_tokens=section.training.tokens,
        seeds=section.seeds, baselines=tuple(section.baselines), random_thetas=section.random_thetas,
        budget=1.0, match="tokens",
    )  # fmt: skip
    plans = [base]
    for rung in section.ladder:
        training = rung.training or section.training
        tokens = training.tokens
        if rung.match == "epochs":
            training = training.model_copy(update={"tokens": round(tokens * rung.budget)})
        plans.append(
            RungPlan(
                name=rung.name,
                model=rung.model or section.model,
                training=training,
                pool_tokens=tokens,
                seeds=rung.seeds or section.seeds,
                baselines=base.baselines if rung.baselines is None else tuple(rung.baselines),
                random_thetas=base.random_thetas if rung.random_thetas is None else rung.random_thetas,
                budget=rung.budget,
                match=rung.match,
            )
        )
    return tuple(plans)


def contestant_labels(recipe: Recipe, plan: RungPlan) -> tuple[str, ...]:
    """Return θ* and the baselines of a rung, in the order of their models."""
    criteria = [c.name for c in recipe.annotate.criteria]
    return (CHOSEN, *baseline_labels(plan.baselines, criteria, plan.random_thetas))


def rung_models(recipe: Recipe) -> dict[str, int]:
    """Return how many models each rung trains, by its stage."""
    return {p.stage: len(contestant_labels(recipe, p)) * p.seeds for p in rung_plans(recipe.evaluate)}


def any_baseline(recipe: Recipe, name: Baseline) -> bool:
    """Does any rung of the recipe compare with this baseline?"""
    return any(name in plan.baselines for plan in rung_plans(recipe.evaluate))


def promised(confirmation: Confirmation, seeds: int, labels: int) -> float:
    """Return the difference of objectives that a rung will show with 80 % power, from the noise between the
    proxies of the confirmation; NaN where that is not known.

    Larger models on more tokens are usually less noisy, so the promise is a careful one.
    """
    pair = next((p for p in confirmation.against if p.pairs > 1), None)
    if pair is None or confirmation.source:
        return float("nan")
    return promised_difference(pair.stderr * (pair.pairs / 2) ** 0.5, seeds, labels)
