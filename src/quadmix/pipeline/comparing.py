"""The final comparison: every selector's choice trained by larger models at equal tokens, several seeds, in
every rung of the ladder, and scored row by row on targets, held-out text and benchmarks.

In: the confirmed θ*. Out: a `Comparison` in evaluate/comparison.json, written after every rung, so that a
report may be made while the next one trains. Scores are those of the weights as they are saved, so that an
exported model has them too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quadmix.corpus.benchmarks import BenchmarkItems
from quadmix.corpus.targets import TargetText
from quadmix.corpus.tokenizer import Tokenizer
from quadmix.errors import BudgetError
from quadmix.evaluate.compare import CHOSEN, compare
from quadmix.evaluate.rows import read_tasks, with_losses
from quadmix.evaluate.rungs import build_rung
from quadmix.evaluate.transfer import transfers
from quadmix.io.atomic import read_json, read_value, write_json
from quadmix.pipeline.contestants import Contestants, contestants, find_common, prepare, rung_part
from quadmix.pipeline.folder import Job, StageNotes, stage
from quadmix.pipeline.ladder import LOWER_BOUND, RungPlan, promised, rung_plans
from quadmix.pipeline.mix import Mix, Part
from quadmix.pipeline.place import training_place
from quadmix.pipeline.plan import model_counts
from quadmix.pipeline.stages import mapper, target_halves
from quadmix.pipeline.training import train_jobs
from quadmix.proxy.choices import encode_benchmarks
from quadmix.proxy.pool import TokenPool, build_pool
from quadmix.proxy.rescore import weights_path
from quadmix.proxy.scoring import ScoringSetting, rows_key, score_models, scored, sound_weights
from quadmix.proxy.setting import ProxySetting
from quadmix.proxy.targets import encode_heldout, encode_targets
from quadmix.types import Comparison, Confirmation, Corpus, Proposal, Rung, Trial

_TOGETHER = 4  # models that are scored as one batch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """What the comparison needs beside the recipe. targets, benchmarks: read and checked before anything was
    spent; of the targets one half steered the search, the other judges here."""

    corpus: Corpus
    mix: Mix
    pool: TokenPool
    targets: Sequence[TargetText]
    benchmarks: Sequence[BenchmarkItems]
    proposal: Proposal
    confirmation: Confirmation


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sets:
    """Folders of encoded text for one context length; benchmarks is None where there are none."""

    judges: Path
    heldout: Path
    benchmarks: Path | None

    @property
    def folders(self) -> list[str]:
        """Return the folders that there are, in the order in which they are scored."""
        return [str(f) for f in (self.judges, self.heldout, self.benchmarks) if f is not None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _OpenPool:
    folder: Path
    pool: TokenPool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ready:
    """A rung with everything that it needs, before any of its models is trained."""

    plan: RungPlan
    found: Contestants
    sets: _Sets
    setting: ProxySetting


def evaluate(job: Job, judged: Judged) -> Comparison:
    """Train and score every rung; what is on disk already is loaded.

    What all rungs select and are judged by is settled before the first model is trained; what is known before
    the swarm is checked there (`feasible`), and θ* is fitted to every rung before RegMix's own swarm. A rung
    of which no model finishes is recorded as such, but for the first.
    """
    plans = rung_plans(job.recipe.evaluate)
    with stage(job, "evaluate") as notes:
        _check_chosen(job, judged, plans)
        ready = _prepare(job, judged, plans, notes)
        rungs: list[Rung] = []
        for one in ready:
            rungs.append(_rung(job, judged, one, notes, first=not rungs))
            notes.warnings += [f"{one.plan.stage}: {flag}" for flag in rungs[-1].flags]
            write_json(job.path("evaluate", "comparison.json"), _comparison(job, judged, plans[0], rungs))
    return _comparison(job, judged, plans[0], rungs)


def _comparison(job: Job, judged: Judged, base: RungPlan, rungs: Sequence[Rung]) -> Comparison:
    return compare(
        rungs, judged.proposal, judged.confirmation, proxies=_proxies(job), overlaps=_overlaps(job),
        pool_share=_token_share(rung_part(job.recipe, judged.mix, base), judged.mix),
        transfers=transfers(rungs, seed=job.recipe.seed),
    )  # fmt: skip


def _check_chosen(job: Job, judged: Judged, plans: Sequence[RungPlan]) -> None:
    """Raise BudgetError where θ* cannot be fitted to a rung."""
    for plan in plans:
        try:
            rung_part(job.recipe, judged.mix, plan).calibrate(judged.confirmation.theta)
        except BudgetError as error:
            raise BudgetError(f"rung {plan.name!r}: {error}") from error


def _prepare(job: Job, judged: Judged, plans: Sequence[RungPlan], notes: StageNotes) -> list[_Ready]:
    halves = target_halves(judged.targets, True, job.recipe.seed)
    common = find_common(
        job, judged.corpus, judged.mix, judged.pool, judged.proposal, notes,
        mapper(job, "languages", "pieces"),
    )  # fmt: skip
    ready: list[_Ready] = []
    for plan in plans:
        prepared = prepare(
            job, judged.corpus, judged.mix, plan, common, halves, mapper(job, "dsir", "pieces")
        )
        opened = _pool(job, judged, plan)
        found = contestants(job, judged.mix, opened.pool, plan, judged.confirmation, prepared)
        for label, why in found.left_out.items():
            notes.warnings.append(f"{plan.stage}: {label} is left out: {why}")
        sets = _encode(job, judged, plan.model.context, halves["judges"])
        setting = _setting(job, judged.mix, opened, plan, sets)
        ready.append(_Ready(plan=plan, found=found, sets=sets, setting=setting))
    return ready


def _rung(job: Job, judged: Judged, ready: _Ready, notes: StageNotes, *, first: bool) -> Rung:
    """Train and judge one rung; where none of its models finishes, say so and go on."""
    plan, found = ready.plan, ready.found
    promise = _promise(job, judged.confirmation, plan, len({j.label for j in found.jobs}), notes)
    made_of = rows_key(ready.sets.folders, _scoring(ready.setting))
    trials = train_jobs(
        job, plan.stage, found.jobs, ready.setting, notes, folder=str(plan.folder / "trials"),
        whole=lambda name: _kept(job, ready, made_of, name), multiple=plan.seeds,
    )  # fmt: skip
    if first or any(t.status == "done" for t in trials):
        return _judge(job, judged, ready, trials, promise)
    why = "; ".join(sorted({t.reason for t in trials})) or "no reason given"
    return Rung(
        name=plan.name, parameters=_parameters(ready), train_tokens=ready.setting.tokens,
        learning_rate=plan.training.peak_lr, budget=plan.budget, match=plan.match, seeds=0, measured=(),
        against=(), verdict="nothing was compared: no model finished", detectable=float("nan"),
        promised=promise, left_out=found.left_out, flags=(f"no model finished: {why}",),
    )  # fmt: skip


def _parameters(ready: _Ready) -> int:
    from quadmix.proxy.model import parameter_count

    return parameter_count(ready.plan.model, ready.setting.vocab_size)


def _judge(
    job: Job, judged: Judged, ready: _Ready, trials: Sequence[Trial], promise: float
) -> Rung:  # fmt: skip
    """Score a rung's models, as they were saved, on everything."""
    plan, sets, setting = ready.plan, ready.sets, ready.setting
    rows, weights = job.path(str(plan.folder), "rows"), job.path(str(plan.folder), "trials", "weights")
    done = [t.trial_id for t in trials if t.status == "done"]
    with job.progress.stage(f"score {plan.name}", len(done), "models") as step:
        refused = score_models(
            done, weights, _scoring(setting), sets.folders, rows, jobs={t.trial_id: t.job for t in trials},
            group=_TOGETHER, place=training_place(job.recipe.run), on_done=step.advance,
        )  # fmt: skip
    trials = [
        replace(t, status="failed", reason=f"cannot be scored: {refused[t.trial_id]}")
        if t.trial_id in refused
        else t
        for t in trials
    ]
    tasks = read_tasks(trials, rows, sets.benchmarks)
    if not job.recipe.evaluate.save_weights:
        for trial in trials:  # those that diverged were saved too
            weights_path(weights, trial.trial_id).unlink(missing_ok=True)
    return build_rung(
        with_losses(trials, tasks), tasks, judged.proposal.objective, name=plan.name,
        parameters=_parameters(ready), train_tokens=setting.tokens, learning_rate=plan.training.peak_lr,
        budget=plan.budget, match=plan.match, promised=promise, left_out=ready.found.left_out, chosen=CHOSEN,
        confidence=job.recipe.evaluate.confidence, seed=job.recipe.seed,
    )  # fmt: skip


def _kept(job: Job, ready: _Ready, made_of: str, trial_id: str) -> bool:
    """Are a trained model's weights there and sound, or what it scored on these very sets?"""
    home = job.path(str(ready.plan.folder))
    weights = weights_path(home / "trials" / "weights", trial_id)
    if weights.exists():
        return sound_weights(weights, _scoring(ready.setting))
    trained_from = read_value(home / "trials" / f"{trial_id}.json", Trial).job
    return scored(home / "rows", trial_id, made_of, trained_from)


def _scoring(setting: ProxySetting) -> ScoringSetting:
    return ScoringSetting(model=setting.model, vocab_size=setting.vocab_size, device=setting.device)


def _setting(job: Job, mix: Mix, opened: _OpenPool, plan: RungPlan, sets: _Sets) -> ProxySetting:
    """Return how a rung's models are trained. They are judged by the other half of every target and by
    held-out text (scored afterwards), which neither chose nor trained anything."""
    return ProxySetting(
        pool=str(opened.folder), targets=str(sets.judges), heldout=None, model=plan.model,
        training=plan.training, vocab_size=plan.model.padded(opened.pool.manifest.vocab_size),
        domains=mix.full.domains, device=job.recipe.run.device,
        checkpoint_seconds=job.recipe.run.checkpoint_seconds,
    )  # fmt: skip


def _pool(job: Job, judged: Judged, plan: RungPlan) -> _OpenPool:
    """Return the proxies' token pool, or one of the rung's own where it works on more documents."""
    mix = judged.mix
    rows = np.flatnonzero(mix.excluded == 0)[rung_part(job.recipe, mix, plan).rows]
    if np.isin(rows, judged.pool.rows).all():
        return _OpenPool(folder=job.path("pool"), pool=judged.pool)
    folder, tokenizer = job.path("evaluate", f"pool-{plan.pool_tokens}"), str(job.path("tokenizer.json"))
    run = mapper(job, "evaluate pool", "pieces")
    pool = build_pool(judged.corpus, mix.full, tokenizer, str(folder), rows=rows, mapper=run)
    return _OpenPool(folder=folder, pool=pool)


def _encode(job: Job, judged: Judged, context: int, judges: Sequence[TargetText]) -> _Sets:
    """Encode what judges for models of this context; the base rung's judges and held-out text lie beside the
    pool, where earlier stages use them too."""
    base = context == job.recipe.evaluate.model.context
    home = job.folder if base else job.path("evaluate", f"context-{context}")
    tokenizer = Tokenizer.load(str(job.path("tokenizer.json")))
    sets = _Sets(
        judges=home / "judges",
        heldout=home / "heldout",
        benchmarks=home / "benchmarks" if judged.benchmarks else None,
    )
    encode_targets(judges, tokenizer, context, str(sets.judges))
    encode_heldout(
        judged.corpus, judged.mix.full, tokenizer, str(sets.heldout), context=context,
        max_bytes=job.recipe.evaluate.holdout_bytes, mapper=mapper(job, "held-out text", "pieces"),
    )  # fmt: skip
    if sets.benchmarks:
        encode_benchmarks(judged.benchmarks, tokenizer, context, str(sets.benchmarks))
    return sets


def _promise(job: Job, confirmation: Confirmation, plan: RungPlan, labels: int, notes: StageNotes) -> float:
    """Say before training from what difference on the rung can tell selectors apart."""
    least = promised(confirmation, plan.seeds, labels, job.recipe.evaluate.confidence)
    if least == least:
        notes.facts.setdefault("promised", {})[plan.name] = least
        job.progress.note(
            f"{plan.stage}: with {plan.seeds} seeds a difference must be at least {least:.4f} bits per byte "
            f"to show in four of five comparisons ({LOWER_BOUND})"
        )
    return least


def _overlaps(job: Job) -> dict[str, int]:
    """Return target or benchmark -> documents of the pool that overlap with it and were not excluded."""
    found = read_json(job.path("stages", "annotate.json"))["facts"].get("overlap", {})
    excluded = job.recipe.annotate.exclude_overlap
    return {str(name): 0 if excluded else int(count) for name, count in found.items()}


def _proxies(job: Job) -> dict[str, int]:
    """Return how many proxies each searched selector has had trained to find its mixture."""
    facts = {name: read_json(job.path("stages", f"{name}.json"))["facts"] for name in ("swarm", "confirm")}
    regmix = model_counts(job.recipe)["regmix"]
    return {
        "quadmix": facts["swarm"]["trials"] + facts["swarm"]["counted"] + facts["confirm"]["models"],
        "regmix": regmix,
    }


def _token_share(part: Part, mix: Mix) -> float:
    whole = mix.whole.table.tokens.sum(dtype=np.float64)
    return float(part.table.tokens.sum(dtype=np.float64) / whole)
