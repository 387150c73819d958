"""What a run will do and cost, before it is run: documents, tokens, seconds per stage, what is reused.

Nothing is written. Training speed is measured for a few seconds on made-up tokens of the recipe's model;
the pool's tokens are estimated from its bytes unless the run folder already knows them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quadmix.codec import to_json
from quadmix.engine.tasks import resolve_workers
from quadmix.errors import MissingExtraError
from quadmix.io.atomic import read_json
from quadmix.io.fs import expand, file_size
from quadmix.pipeline.folder import STAGES, check_identity, identity_facts, run_folder, stage_done
from quadmix.proxy.setting import ProxySetting
from quadmix.recipe import ModelSection, Recipe, TrainingSection

BYTES_PER_TOKEN = 3.6  # byte-level BPE of a few thousand entries on English text
_EXPANSION = {".zst": 3.0, ".gz": 2.8, ".parquet": 2.2}
_READ, _SCORE, _TOKENISE = 60e6, 3.5e6, 4e6  # bytes of text per second and worker, on a plain laptop core


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """One stage: its estimated seconds, and whether its result is in the run folder already."""

    stage: str
    seconds: float
    reused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole estimate. `tokens` and `budget` are estimates until the corpus has been annotated."""

    folder: str
    files: int
    text_bytes: int
    tokens: int
    budget: int
    workers: int
    models: dict[str, int]
    stages: tuple[StagePlan, ...]

    def to_json(self) -> Any:
        """Return the plan as plain values."""
        return to_json(self)

    def lines(self) -> list[str]:
        """Return the plan as text."""
        left = sum(s.seconds for s in self.stages if not s.reused)
        rows = [
            f"  {s.stage:12} {'reused' if s.reused else f'about {s.seconds:,.0f} s':>14}" for s in self.stages
        ]
        models = ", ".join(f"{n} {kind}" for kind, n in self.models.items())
        return [
            f"run folder   {self.folder}",
            f"pool         {self.files} files, about {self.text_bytes / 1e6:,.1f} MB of text, "
            f"{self.tokens:,} tokens",
            f"budget       about {self.budget:,} tokens",
            f"models       {models}; {self.workers} workers",
            *rows,
            f"in all       about {left / 60:,.0f} min",
        ]


def plan(recipe: Recipe) -> Plan:
    """Estimate a run; raises IdentityError when its folder belongs to another run."""
    folder = run_folder(recipe)
    check_identity(folder, identity_facts(recipe))
    files = expand(recipe.corpus.paths)
    text = text_bytes(recipe)
    tokens = round(text / BYTES_PER_TOKEN)
    if stage_done(folder, "annotate"):
        tokens = int(read_json(folder / "stages" / "annotate.json")["facts"]["tokens"])
    budget = recipe.budget.tokens or round((recipe.budget.share or 0) * tokens)
    workers = resolve_workers(recipe.run.workers)
    seconds = stage_seconds(recipe, text, budget, workers)
    return Plan(
        folder=str(folder), files=len(files), text_bytes=text, tokens=tokens, budget=budget, workers=workers,
        models=model_counts(recipe),
        stages=tuple(
            StagePlan(stage=s, seconds=round(seconds.get(s, 1.0), 1), reused=stage_done(folder, s))
            for s in STAGES
        ),
    )  # fmt: skip


def text_bytes(recipe: Recipe) -> int:
    """Estimate the bytes of text in the pool from its files' sizes and usual compression."""
    return round(sum(file_size(f) * _expansion(f) for f in expand(recipe.corpus.paths)))


def model_counts(recipe: Recipe) -> dict[str, int]:
    """Return how many models of each kind the recipe trains."""
    contestants = 1 + sum(
        len(recipe.annotate.criteria) if b == "criteria" else 1 for b in recipe.evaluate.baselines
    )
    counts = {
        "swarm": recipe.proxy.trials + recipe.proxy.repeats,
        "confirm": (2 + recipe.confirm.runners_up) * recipe.confirm.seeds,
    }
    if recipe.evaluate.enabled:
        counts["regmix"] = recipe.evaluate.regmix_trials if "regmix" in recipe.evaluate.baselines else 0
        counts["comparison"] = contestants * recipe.evaluate.seeds
    return counts


def stage_seconds(recipe: Recipe, text_bytes: float, budget: int, workers: int) -> dict[str, float]:
    """Return the estimated seconds of every stage (and of `regmix`, a part of evaluate)."""
    counts = model_counts(recipe)
    proxy = _seconds_per_model(recipe, recipe.proxy.model, recipe.proxy.training) / workers
    seconds = {
        "corpus": 2 + text_bytes / _READ / workers,
        "annotate": 8 + text_bytes / _SCORE / workers,
        "pool": 1 + text_bytes * _pool_share(recipe, budget) / _TOKENISE / workers,
        "swarm": counts["swarm"] * proxy,
        "search": 5 + recipe.search.candidates * len(recipe.targets) / 2000,
        "confirm": counts["confirm"] * proxy,
        "materialise": 2 + text_bytes / _READ,
        "report": 8.0,
    }
    if recipe.evaluate.enabled:
        larger = _seconds_per_model(recipe, recipe.evaluate.model, recipe.evaluate.training) / workers
        seconds["regmix"] = counts["regmix"] * proxy
        seconds["evaluate"] = counts["comparison"] * larger + seconds["regmix"]
    return seconds


def progress_weights(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the planned seconds per progress stage; RegMix's swarm counts apart from the comparison."""
    weights = dict(seconds)
    if "evaluate" in weights:
        weights["evaluate"] -= weights.get("regmix", 0.0)
    return weights


def _seconds_per_model(recipe: Recipe, model: ModelSection, training: TrainingSection) -> float:
    try:
        from quadmix.proxy.cost import measure_speed
    except ImportError as error:
        raise MissingExtraError("torch", "proxy", "training proxies") from error
    setting = ProxySetting(
        pool="", targets="", heldout=None, model=model, training=training,
        vocab_size=recipe.tokenizer.vocab_size, domains=("any",),
    )  # fmt: skip
    return 1.2 * setting.tokens / measure_speed(setting, group=recipe.proxy.group, seconds=1.0)


def _pool_share(recipe: Recipe, budget: int) -> float:
    if recipe.proxy.pool == "fresh":
        return 1.0
    train = recipe.budget.train_tokens or budget
    longest = max(
        recipe.proxy.training.tokens, recipe.evaluate.training.tokens if recipe.evaluate.enabled else 0
    )
    return min(1.0, longest / max(train, 1))


def _expansion(path: str) -> float:
    return next((factor for suffix, factor in _EXPANSION.items() if path.endswith(suffix)), 1.0)
