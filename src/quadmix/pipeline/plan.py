"""What a run will do and cost, before it is run: documents, tokens, seconds and memory, what is reused.

Nothing is written. The speed of training is measured on this device, all workers at once, with the recipe's
models on made-up tokens (about a minute); the pool's tokens are estimated from its bytes unless the run
folder already knows them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quadmix.codec import to_json
from quadmix.corpus.benchmarks import read_benchmark
from quadmix.corpus.targets import read_target
from quadmix.corpus.tokenizer import Tokenizer
from quadmix.engine.tasks import Place, slots
from quadmix.io.atomic import read_json, read_value
from quadmix.io.door import network
from quadmix.io.fs import expand, file_size
from quadmix.pipeline.folder import STAGES, check_identity, identity_facts, run_folder, stage_done
from quadmix.pipeline.ladder import (
    BASE,
    RungEstimate,
    RungPlan,
    any_baseline,
    reading,
    rung_estimates,
    rung_models,
    rung_plans,
)
from quadmix.pipeline.place import data_place, even_group, fitting, training_place
from quadmix.pipeline.rating import rating_seconds
from quadmix.proxy.setting import ProxySetting
from quadmix.recipe import ModelSection, Recipe, TrainingSection, remote_paths
from quadmix.search.adaptive import batch_sizes
from quadmix.search.confirm import CONTROL
from quadmix.search.race import round_sizes
from quadmix.types import Confirmation

if TYPE_CHECKING:
    from quadmix.proxy.cost import Speed

BYTES_PER_TOKEN = 3.6  # byte-level BPE of a few thousand entries on English text
_EXPANSION = {".zst": 3.0, ".gz": 2.8, ".parquet": 2.2, ".feather": 1.6}
_READ, _TOKENISE = 60e6, 4e6  # bytes of text per second and worker, on a plain laptop core
_COUNT, _SCORE = 0.25e-6, 0.12e-6  # seconds per byte of text: tokens and overlap; each criterion
_CALIBRATION = 20.0  # seconds of measuring per model of the recipe, in a plan
DATA_STAGES = ("corpus", "annotate", "mixing", "materialise", "report")  # where θ comes from another run
LARGER = "larger"
GLANCE = 1.0  # the same for the progress display, which corrects itself


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """One stage: its estimated seconds, and whether its result is in the run folder already."""

    stage: str
    seconds: float
    reused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole estimate. `tokens` and `budget` are estimates until the corpus has been annotated.

    memory: peak bytes of one training worker, by kind of model. together: models in a group, by kind. remote:
    what uses the network, as "key: address". rungs: of the comparison.
    """

    folder: str
    files: int
    text_bytes: int
    tokens: int
    budget: int
    workers: int
    models: dict[str, int]
    memory: dict[str, int]
    together: dict[str, int]
    stages: tuple[StagePlan, ...]
    remote: tuple[str, ...] = ()
    rungs: tuple[RungEstimate, ...] = ()

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
            f"models       {models or 'none, θ is given'}; {self.workers} workers",
            *(
                f"memory       {name}: about {size / 1e9:.2f} GB per worker, {self.together[name]} together"
                for name, size in self.memory.items()
            ),
            *(rung.line() for rung in self.rungs),
            *reading(self.rungs),
            *(f"network      {address}" for address in self.remote),
            *rows,
            f"in all       about {left / 60:,.0f} min",
        ]


def plan(recipe: Recipe, *, seconds: float = _CALIBRATION) -> Plan:
    """Estimate a run, measuring for about `seconds` per kind of model.

    Raises IdentityError when its folder belongs to another run, ProxyError when a model does not fit.
    """
    with network(offline=recipe.run.offline, allow_http=recipe.run.allow_http):
        return _estimate(recipe, seconds)


def _estimate(recipe: Recipe, seconds: float) -> Plan:
    folder = run_folder(recipe)
    check_identity(folder, identity_facts(recipe))
    files = expand(recipe.corpus.paths)
    text = text_bytes(recipe)
    tokens = round(text / BYTES_PER_TOKEN)
    if stage_done(folder, "annotate"):
        tokens = int(read_json(folder / "stages" / "annotate.json")["facts"]["tokens"])
    budget = recipe.budget.tokens or round((recipe.budget.share or 0) * tokens)
    applied = recipe.mixing.theta_from is not None
    costs = {} if applied else model_costs(recipe, seconds)
    estimate = data_seconds(recipe, text) if applied else stage_seconds(recipe, text, budget, costs)
    absent: tuple[str, ...] = ()
    if not stage_done(folder, "annotate"):
        rating, absent = rating_seconds(recipe, text, seconds=min(seconds, 5.0))
        estimate["annotate"] += rating
    return Plan(
        folder=str(folder), files=len(files), text_bytes=text, tokens=tokens, budget=budget,
        workers=slots(data_place(recipe.run) if applied else training_place(recipe.run)),
        models={} if applied else model_counts(recipe),
        memory={name: cost.speed.peak_bytes for name, cost in costs.items()},
        together={name: cost.group for name, cost in costs.items()},
        remote=(*remote_paths(recipe), *(f"rater: {name}; its time is not counted" for name in absent)),
        rungs=() if applied or not recipe.evaluate.enabled else _rungs(folder, recipe, estimate),
        stages=tuple(
            StagePlan(stage=s, seconds=round(estimate.get(s, 1.0), 1), reused=stage_done(folder, s))
            for s in (DATA_STAGES if applied else STAGES)
        ),
    )  # fmt: skip


def _rungs(folder: Path, recipe: Recipe, estimate: Mapping[str, float]) -> tuple[RungEstimate, ...]:
    file = folder / "search" / "confirm.json"
    confirmation = read_value(file, Confirmation) if file.exists() else None
    return rung_estimates(recipe, progress_weights(estimate), confirmation)


def text_bytes(recipe: Recipe) -> int:
    """Estimate the bytes of text in the pool from its files' sizes and usual compression."""
    return round(sum(file_size(f) * _expansion(f) for f in expand(recipe.corpus.paths)))


def model_counts(recipe: Recipe) -> dict[str, int]:
    """Return how many models of each kind the recipe trains."""
    counts = {
        "swarm": recipe.proxy.trials + recipe.proxy.repeats,
        "confirm": sum(confirm_rounds(recipe)),
    }
    if recipe.evaluate.enabled:
        counts["regmix"] = recipe.evaluate.regmix_trials if any_baseline(recipe, "regmix") else 0
        counts["comparison"] = sum(rung_models(recipe).values())
    return counts


def confirm_rounds(recipe: Recipe) -> tuple[int, ...]:
    """Return the most models that each round of the confirmation trains: if every candidate is proposed."""
    section = recipe.confirm
    absent = set[str]() if recipe.search.current else {"current"}
    candidates = len(set(section.candidates) - {CONTROL} - absent)
    return tuple(n * section.seeds for n in round_sizes(candidates, section.rounds, section.finalists))


def confirm_kind(recipe: Recipe) -> tuple[ModelSection, TrainingSection]:
    """Return the model and training of the confirmation: the proxies', or its own over the same windows."""
    own, proxy = recipe.confirm, recipe.proxy
    model = own.model.model_copy(update={"context": proxy.model.context}) if own.model else proxy.model
    return model, own.training or proxy.training


def swarm_batches(recipe: Recipe) -> tuple[int, ...]:
    """Return how many θ each batch of the swarm trains at most."""
    section = recipe.search
    return batch_sizes(recipe.proxy.trials, 1 if section.mode == "paper" else section.batches)


def larger_kind(rung: RungPlan) -> str:
    """Return under which name the cost of a rung's models is kept."""
    return LARGER if rung.name == BASE else f"{LARGER} {rung.name}"


def batch_stage(number: int) -> str:
    """Return the progress stage of a batch of the swarm, counted from 0."""
    return f"swarm {number + 1}" if number else "swarm"


def round_stage(number: int) -> str:
    """Return the name under which a round of the confirmation is shown, 1 being the first."""
    return "confirm" if number == 1 else f"confirm {number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """One kind of model of a recipe: how it is trained, how many together, how fast here, and the tokens
    that each is evaluated on."""

    setting: ProxySetting
    place: Place
    group: int
    speed: "Speed"
    evaluated: int

    def seconds(self, models: int) -> float:
        """Return the seconds to train and evaluate that many models over all workers."""
        from quadmix.proxy.cost import swarm_seconds

        return swarm_seconds(
            self.setting, models, self.speed, group=even_group(models, self.group),
            workers=slots(self.place), evaluated=self.evaluated,
        )  # fmt: skip


def model_costs(recipe: Recipe, seconds: float) -> dict[str, ModelCost]:
    """Measure the models of a recipe on this device: `proxy`, `confirm` if it is another kind, and, if there
    is a comparison, `larger`."""
    kinds = {"proxy": (recipe.proxy.model, recipe.proxy.training)}
    if confirm_kind(recipe) != kinds["proxy"]:
        kinds["confirm"] = confirm_kind(recipe)
    if recipe.evaluate.enabled:
        for rung in rung_plans(recipe.evaluate):
            kinds[larger_kind(rung)] = (rung.model, rung.training)
    targets, judged = _target_tokens(recipe), _judged_tokens(recipe) if recipe.evaluate.enabled else 0
    costs: dict[str, ModelCost] = {}
    for name, (model, training) in kinds.items():
        setting = _setting(recipe, model, training)
        known = next((c for c in costs.values() if _same_speed(c.setting, setting)), None)
        cost = known or _model_cost(recipe, setting, seconds)
        evaluated = targets + (judged if name.startswith(LARGER) else 0)
        costs[name] = replace(cost, setting=setting, evaluated=evaluated)
    return costs


def _setting(recipe: Recipe, model: ModelSection, training: TrainingSection) -> ProxySetting:
    return ProxySetting(
        pool="", targets="", heldout=None, model=model, training=training,
        vocab_size=model.padded(_vocabulary(recipe)), domains=("any",), device=recipe.run.device,
    )  # fmt: skip


def _same_speed(one: ProxySetting, other: ProxySetting) -> bool:
    """Do these models train equally fast? How long and at which rate they train is no matter."""
    plain = {"tokens": 1, "peak_lr": 1.0, "schedule": "linear"}
    return replace(one, training=one.training.model_copy(update=plain)) == replace(
        other, training=other.training.model_copy(update=plain)
    )


def _model_cost(recipe: Recipe, setting: ProxySetting, seconds: float) -> ModelCost:
    from quadmix.proxy.cost import measure_speed

    place, group = training_place(recipe.run), fitting(setting, recipe.proxy.group, recipe.run)
    speed = measure_speed(setting, group=group, seconds=seconds, place=place)
    return ModelCost(setting=setting, place=place, group=group, speed=speed, evaluated=0)


def _judged_tokens(recipe: Recipe) -> int:
    """Estimate the tokens on which a comparison model is scored after training, in float32 (twice as slow):
    targets, held-out text, and every answer of the benchmarks with its question."""
    size = recipe.evaluate.holdout * text_bytes(recipe)
    for section in recipe.evaluate.benchmarks:
        items = read_benchmark(section, seed=recipe.seed)
        size += sum(len(text.encode()) for row in items.contexts for text in row)
        size += sum(len(text.encode()) for row in items.continuations for text in row)
    return 2 * (round(size / BYTES_PER_TOKEN) + _target_tokens(recipe))


def _vocabulary(recipe: Recipe) -> int:
    section = recipe.tokenizer
    return Tokenizer.load(section.path).vocab_size if section.path else section.vocab_size


def _target_tokens(recipe: Recipe) -> int:
    """Estimate the target tokens that one model is evaluated on (half of all, if there is a comparison)."""
    accept = recipe.run.accept_test_targets
    texts = [read_target(t, seed=recipe.seed, accept_test=accept) for t in recipe.targets]
    size = sum(len(text.encode()) for target in texts for text in target.texts())
    return round(size / BYTES_PER_TOKEN / (2 if recipe.evaluate.enabled else 1))


def data_seconds(recipe: Recipe, text_bytes: float) -> dict[str, float]:
    """Return the estimated seconds of the stages that train nothing."""
    workers = slots(data_place(recipe.run))
    copied = 0.0 if recipe.materialise.format == "index" else text_bytes / _READ
    return {
        "corpus": 2 + text_bytes / _READ / workers,
        "annotate": 15 + text_bytes * (_COUNT + _SCORE * len(recipe.annotate.criteria)) / workers,
        "materialise": 2 + copied,
        "report": 8.0,
    }


def stage_seconds(
    recipe: Recipe, text_bytes: float, budget: int, costs: Mapping[str, ModelCost]
) -> dict[str, float]:
    """Return the estimated seconds of every stage (and of `regmix`, a part of evaluate, and of the later
    batches of the swarm and rounds of confirm, parts of them)."""
    counts, workers = model_counts(recipe), slots(data_place(recipe.run))
    own = costs.get("confirm", costs["proxy"])
    rounds = {round_stage(n): own.seconds(m) for n, m in enumerate(confirm_rounds(recipe), 1)}
    batches = swarm_batches(recipe)
    whole = costs["proxy"].seconds(counts["swarm"])
    search = _search_seconds(recipe)
    seconds = {
        **data_seconds(recipe, text_bytes),
        "pool": 1 + text_bytes * _pool_share(recipe, budget) / _TOKENISE / workers,
        **{batch_stage(n): whole * size / counts["swarm"] for n, size in enumerate(batches) if n},
        "swarm": whole,
        "search": search,
        **rounds,
        "confirm": sum(rounds.values()),
    }
    if recipe.evaluate.enabled:
        regmix = costs["proxy"].seconds(counts["regmix"]) if counts["regmix"] else 0.0
        seconds["regmix"] = regmix
        models = rung_models(recipe)
        rungs = {r.stage: costs[larger_kind(r)].seconds(models[r.stage]) for r in rung_plans(recipe.evaluate)}
        seconds |= rungs
        seconds["evaluate"] = sum(rungs.values()) + regmix
    return seconds


def progress_weights(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the planned seconds per progress stage; RegMix's swarm counts apart from the comparison, and
    every batch of the swarm and round of the confirmation for itself."""
    weights = dict(seconds)
    for stage in ("swarm", "confirm", "evaluate"):
        later = sum(s for name, s in seconds.items() if name.startswith(f"{stage} "))
        if stage in weights:
            weights[stage] -= later
    if "evaluate" in weights:
        weights["evaluate"] -= weights.get("regmix", 0.0)
    return weights


def _search_seconds(recipe: Recipe) -> float:
    """Estimate the last search of a run (benchmarks/search.py --time): fits grow with the trials, the
    published recipe with its draws."""
    trials, targets = recipe.proxy.trials, len(recipe.targets)
    return 5 + targets * (trials / 60 + (trials / 250) ** 3 + recipe.search.candidates / 20_000)


def _pool_share(recipe: Recipe, budget: int) -> float:
    if recipe.proxy.pool == "fresh":
        return 1.0
    train = recipe.budget.train_tokens or budget
    longest = max(recipe.proxy.training.tokens, confirm_kind(recipe)[1].tokens)
    if recipe.evaluate.enabled:
        longest = max(longest, *(rung.pool_tokens for rung in rung_plans(recipe.evaluate)))
    return min(1.0, longest / max(train, 1))


def _expansion(path: str) -> float:
    return next((factor for suffix, factor in _EXPANSION.items() if path.endswith(suffix)), 1.0)
