"""The settings in which the final comparison is made: the base rung of a recipe and those of its ladder.

Also what each of them will cost and can show, as far as that is known before it is trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quadmix.evaluate.compare import CHOSEN
from quadmix.evaluate.selectors import baseline_labels
from quadmix.evaluate.stats import promised_difference
from quadmix.recipe import Baseline, EvaluateSection, ModelSection, Recipe, TrainingSection
from quadmix.types import Confirmation

BASE = "base"
NOISE = (
    0.003,
    0.007,
)  # sd of a proxy's loss on the reference corpus, bits per byte: docs/reproduction.md, R8
LOWER_BOUND = "a lower bound: noise of the rows that judge and of selectors that draw anew comes on top"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RungEstimate:
    """What a rung costs and can show, said before it is trained.

    models: that it trains. seconds: to train and score them. sds: smallest true difference that its seeds
    show with 80 % power, in standard deviations of one model's noise (about its label and its seed); NaN
    without a baseline. promised: see `promised`, NaN before the confirmation.
    """

    stage: str
    models: int
    seconds: float
    seeds: int
    sds: float
    promised: float

    def line(self) -> str:
        """Return the estimate as text."""
        text = f"{self.stage:12} {self.models} models, about {self.seconds / 60:,.0f} min"
        if self.sds != self.sds:
            return text
        text += f"; {self.seeds} seeds show differences from {self.sds:.1f} noise sds on"
        if self.promised == self.promised:
            return f"{text}: at least {self.promised:.4f} bits per byte, by the confirmation's proxies"
        low, high = (f"{sd * self.sds:.3f}" for sd in NOISE)
        return f"{text}: at least {low} bits per byte at an sd of {NOISE[0]}, {high} at {NOISE[1]}"


def rung_estimates(
    recipe: Recipe, seconds: Mapping[str, float], confirmation: Confirmation | None
) -> tuple[RungEstimate, ...]:
    """Return the estimate of every rung. seconds: by stage. confirmation: None before there is one."""
    models, confidence = rung_models(recipe), recipe.evaluate.confidence
    found: list[RungEstimate] = []
    for rung in rung_plans(recipe.evaluate):
        labels = len(contestant_labels(recipe, rung))
        least = promised(confirmation, rung.seeds, labels, confidence) if confirmation else float("nan")
        found.append(
            RungEstimate(
                stage=rung.stage, models=models[rung.stage], seconds=round(seconds[rung.stage], 1),
                seeds=rung.seeds, sds=promised_difference(1.0, rung.seeds, labels, confidence=confidence),
                promised=least,
            )
        )  # fmt: skip
    return tuple(found)


def reading(estimates: Sequence[RungEstimate]) -> list[str]:
    """Return how the differences in the lines of the estimates are to be read."""
    shown = [e for e in estimates if e.sds == e.sds]
    lines = [f"{'differences':12} that show in four comparisons of five: {LOWER_BOUND}"] if shown else []
    if any(e.promised != e.promised for e in shown):
        lines.append(
            f"{'noise sd':12} of one model: unknown until proxies are trained; on the reference corpus "
            f"{NOISE[0]} to {NOISE[1]} bits per byte (docs/reproduction.md, R8)"
        )
    return lines


def promised(confirmation: Confirmation, seeds: int, labels: int, confidence: float) -> float:
    """Return the least difference of objectives that a rung can show with 80 % power, at the level of its
    intervals, from the noise between the proxies of the confirmation; NaN where that is not known.

    A lower bound: those are θ that share a draw of documents, trained at proxy size. The noise of the rows
    that judge is not in it (losses are not kept row by row before the comparison), nor that of selectors
    that draw anew for every seed; only the noise of a larger model may be less.
    """
    pair = next((p for p in confirmation.against if p.pairs > 1), None)
    if pair is None or confirmation.source:
        return float("nan")
    sd = pair.stderr * (pair.pairs / 2) ** 0.5
    return promised_difference(sd, seeds, labels, confidence=confidence)
