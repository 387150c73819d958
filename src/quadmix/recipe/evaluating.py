"""The section of a recipe that says how the outcome is judged: baselines, ladder of models, benchmarks."""

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from quadmix.recipe.base import Name, Section, Share
from quadmix.recipe.proxies import LADDER, ModelSection, TrainingSection

Baseline = Literal[
    "random", "prior-mean", "random-mean", "global-cut", "criteria", "criteria-domain", "criteria-mix",
    "qurating", "upsampling", "dsir", "regmix", "criteria-language", "qurating-language", "fineweb2-hq",
]  # fmt: skip
CONTROLS: tuple[Baseline, ...] = (
    "random", "prior-mean", "random-mean", "global-cut", "criteria", "regmix",
)  # fmt: skip


# its long stretch at the peak wants a lower rate than a linear decay: docs/comparison.md
_TRAINING: dict[str, Any] = {"schedule": "wsd", "peak_lr": 0.01}
_SHAPE = ("size", "layers", "width", "heads", "mlp")


class BenchmarkSection(Section):
    """A set of questions on which comparison models are scored: which answer is likeliest."""

    name: Name
    path: str = Field(description="JSONL or Parquet; relative to the recipe")
    prompt: str = Field(default="query", description="column with the question or the text before the answer")
    choices: str | None = Field(default=None, description="column with the answer options ...")
    gold: str | None = Field(default=None, description="... and the column with the index of the right one")
    answer: str | None = Field(
        default=None,
        description="instead of choices: column with the only right continuation (a string, or a list whose "
        "first is taken), as in LAMBADA; right if greedy decoding gives it",
    )
    blank: str | None = Field(
        default=None,
        description="such as _ (WinoGrande): each choice takes its place, the rest of the prompt is scored",
    )
    split: str | None = Field(default=None, description="use rows whose `split` column has this value")
    limit: int = Field(default=500, gt=0, description="at most this many items, drawn by a hash of the row")

    @model_validator(mode="after")
    def _one_form(self) -> "BenchmarkSection":
        if (self.choices is None) == (self.answer is None):
            raise ValueError(f"benchmark {self.name!r} needs exactly one of `choices` and `answer`")
        if (self.choices is None) != (self.gold is None):
            raise ValueError(f"benchmark {self.name!r}: `choices` and `gold` go together")
        if self.blank is not None and (not self.blank or self.choices is None):
            raise ValueError(f"benchmark {self.name!r}: `blank` is a text in the prompt, and needs `choices`")
        return self


class RungSection(Section):
    """Another setting of the comparison: a larger model, another learning rate, budget or length."""

    name: Name
    model: ModelSection | None = Field(
        default=None, description="such as {size: 5M}: only the keys that differ from evaluate.model"
    )
    training: TrainingSection | None = Field(
        default=None, description="only the keys that differ from evaluate.training"
    )
    seeds: int | None = Field(default=None, ge=2, description="left out, evaluate.seeds")
    baselines: list[Baseline] | None = Field(default=None, description="left out, evaluate.baselines")
    random_thetas: int | None = Field(default=None, ge=0, description="left out, evaluate.random_thetas")
    budget: float = Field(
        default=1.0, gt=0, description="selects this many times the budget's tokens (cutoffs are loosened)"
    )
    match: Literal["tokens", "epochs"] = Field(
        default="tokens",
        description="with another budget: as many training tokens as before, or as many passes over the data",
    )


class EvaluateSection(Section):
    """The final comparison with larger models at equal tokens."""

    enabled: bool = True
    holdout: float = Field(
        default=0.01, ge=0.0, lt=0.5, description="share of documents reserved for held-out loss"
    )
    holdout_bytes: int = Field(default=300_000, gt=0, description="held-out text scored per domain, at most")
    seeds: int = Field(default=3, ge=2)
    baselines: list[Baseline] = Field(
        default=[*CONTROLS], description=f"{', '.join(get_args(Baseline))}; docs/baselines.md"
    )
    regmix_trials: int = Field(
        default=32, ge=8, description="proxies of the domain-only swarm for the RegMix-style baseline"
    )
    temperature: float = Field(
        default=2.0, gt=0, description="qurating, qurating-language: of the sampling by mean score"
    )
    language_alpha: float = Field(
        default=1.0,
        ge=0,
        le=10,
        description="criteria-language, qurating-language: a language's part of the budget goes with its "
        "tokens in the pool ** this: 1 keeps the pool's shares, 0 gives equal parts",
    )
    random_thetas: int = Field(
        default=0, ge=0, description="so many random θ take part too: more ranks to compare between rungs"
    )
    model: ModelSection = ModelSection.model_validate(LADDER["1M"])
    training: TrainingSection = TrainingSection(**_TRAINING)
    ladder: list[RungSection] = Field(
        default=[], description="further settings in which the same selections are compared"
    )
    benchmarks: list[BenchmarkSection] = Field(
        default=[], description="question sets; accuracy with its chance level is reported beside the losses"
    )
    save_weights: bool = Field(
        default=True, description="keep the comparison models, for `quadmix models export`"
    )
    confidence: Share = Field(default=0.95, gt=0.5, lt=1.0, description="of all intervals of the comparison")

    @model_validator(mode="before")
    @classmethod
    def _larger(cls, data: Any) -> Any:
        """A model of which only some keys are given keeps the other defaults of this section; a rung keeps
        model and training of the section but for the keys that it names."""
        if not isinstance(data, dict):
            return data
        out: dict[str, Any] = {**data}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        model = out.get("model")
        if isinstance(model, dict) and "size" not in model:
            out["model"] = {**LADDER["1M"], **model}
        training = out.get("training", {})
        if isinstance(training, dict):
            out["training"] = training = {**_TRAINING, **training}
            base = out.get("model", LADDER["1M"])
            base = base if isinstance(base, dict) else {}
            out["ladder"] = [_inherits(rung, training, base) for rung in out.get("ladder") or []]
        return out

    @model_validator(mode="after")
    def _plain(self) -> "EvaluateSection":
        models = {"model": self.model} | {f"ladder {r.name!r}": r.model for r in self.ladder if r.model}
        if bad := [place for place, model in models.items() if model.gates != "none"]:
            raise ValueError(
                f"{bad[0]} has gates {models[bad[0]].gates!r}; only proxies may have gates "
                "(proxy.model.gates): those of the comparison stand for the model trained in the end, "
                "which has no code"
            )
        return self

    @model_validator(mode="after")
    def _distinct(self) -> "EvaluateSection":
        for what, names in (
            ("rung", ["base", *(r.name for r in self.ladder)]),
            ("benchmark", [b.name for b in self.benchmarks]),
        ):
            if average := set(names) & {"macro", "micro"}:
                raise ValueError(f"{what} name {average.pop()!r} is kept for averages; choose another one")
            if twice := sorted({n for n in names if names.count(n) > 1}):
                raise ValueError(f"{what} name {twice[0]!r} is used twice; names must be distinct")
        return self


def _inherits(rung: Any, training: dict[str, Any], base: dict[str, Any]) -> Any:
    if not isinstance(rung, dict):
        return rung
    out: dict[str, Any] = {**rung}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(out.get("training"), dict):
        out["training"] = {**training, **out["training"]}
    own = out.get("model")
    if isinstance(own, dict):
        sized = "size" in own
        out["model"] = {**{k: v for k, v in base.items() if not (sized and k in _SHAPE)}, **own}
    return out
