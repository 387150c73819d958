"""The sections of a recipe that say how θ* is searched for and confirmed."""

from typing import Literal, get_args

from pydantic import Field, model_validator

from quadmix.recipe.base import Section, Share
from quadmix.recipe.proxies import ModelSection, TrainingSection


class SearchSection(Section):
    """From trials to θ*."""

    mode: Literal["adaptive", "paper"] = Field(
        default="adaptive",
        description="adaptive: three batches of trials, each aimed by the surrogate, and a local search; "
        "paper: one batch of random θ, the mean of the best of many draws",
    )
    batches: int = Field(
        default=3, ge=1, le=3, description="mode adaptive: batches that share the trials 4:2:1"
    )
    surrogate: Literal[
        "auto", "gp", "gp-ard", "gp-ard-cbrt", "gp-structured", "gp-isotropic", "transfer", "mixing", "ridge",
        "lightgbm", "paper", "regmix",
    ] = Field(
        default="auto", description="auto: several, weighted by 1/MSE² of cross-validation, for every target"
    )  # fmt: skip
    features: Literal["realised", "raw", "both"] = Field(
        default="realised", description="what θ selects, θ in unit coordinates, or both"
    )
    objective: Literal["mean", "worst"] = Field(
        default="mean", description="weighted mean of the targets, or the target that is worst off"
    )
    candidates: int = Field(
        default=100_000,
        ge=100,
        description="random draws of the published search (mode paper and its candidate)",
    )
    top_k: int = Field(default=10, ge=1, description="best draws averaged, in unit coordinates")
    stop: bool = Field(
        default=True,
        description="train no further batch when its expected improvement is below the noise of the "
        "confirmation's mean",
    )
    current: str | None = Field(
        default=None, description="theta.json of your present mixture: tried, and a candidate"
    )
    min_success: Share = Field(default=0.8, description="least share of trials that must have succeeded")


Tried = Literal[
    "theta-star", "paper", "best-observed", "current", "prior-mean", "uniform-weights", "random-mean",
    "single", "equal-domains",
]  # fmt: skip


class ConfirmSection(Section):
    """Fresh models of the candidates and the control, by successive halving, before anything is written."""

    seeds: int = Field(default=3, ge=3, description="models of every candidate in each round")
    rounds: int = Field(default=2, ge=1, description="after each, the better half of the candidates goes on")
    finalists: int = Field(default=2, ge=1, description="no further round with so few candidates left")
    candidates: list[Tried] = Field(
        default=[*get_args(Tried)[:-1]],
        description="what is tried beside the prior mean (the control); single: the best criterion alone",
    )
    model: ModelSection | None = Field(
        default=None,
        description="such as {size: 1M}, without gates; left out, the proxies'. Its context is always theirs",
    )
    training: TrainingSection | None = Field(default=None, description="left out, the proxies'")

    @model_validator(mode="after")
    def _something(self) -> "ConfirmSection":
        if not set(self.candidates) - {"prior-mean"}:
            raise ValueError("`candidates` names nothing but the control; add theta-star, or leave it out")
        return self
