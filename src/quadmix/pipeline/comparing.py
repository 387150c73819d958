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
from quadmix.evaluate.compare import CHOSEN, compare
from quadmix.evaluate.rows import read_tasks, with_losses
from quadmix.evaluate.rungs import build_rung
from quadmix.evaluate.transfer import transfers
from quadmix.io.atomic import read_json, write_json
from quadmix.pipeline.contestants import contestants, prepare, rung_part
from quadmix.pipeline.folder import Job, StageNotes, stage
from quadmix.pipeline.ladder import RungPlan, promised, rung_plans
from quadmix.pipeline.mix import Mix, Part
from quadmix.pipeline.place import training_place
from quadmix.pipeline.plan import model_counts
from quadmix.pipeline.stages import mapper, target_halves
from quadmix.pipeline.training import train_jobs
from quadmix.proxy.choices import encode_benchmarks
from quadmix.proxy.pool import TokenPool, build_pool
from quadmix.proxy.scoring import ScoringSetting, score_models
from quadmix.proxy.setting import ProxySetting
from quadmix.proxy.targets import encode_heldout, encode_targets
from quadmix.types import Comparison, Confirmation, Corpus, Proposal, Rung, Trial

_TOGETHER = 8  # models that are scored as one batch


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _OpenPool:
    folder: Path
    pool: TokenPool


def evaluate(job: Job, judged: Judged) -> Comparison:
    """Train and score every rung; what is on disk already is loaded."""
    plans = rung_plans(job.recipe.evaluate)
    with stage(job, "evaluate") as notes:
        halves = target_halves(judged.targets, True, job.recipe.seed)
        prepared = prepare(
            job, judged.corpus, judged.mix, judged.pool, halves["targets"], judged.proposal, plans, notes,
            mapper(job, "dsir", "pieces"),
        )  # fmt: skip
        opened = _pool(job, judged, plans)
        rungs: list[Rung] = []
        comparison: Comparison | None = None
        for plan in plans:
            found = contestants(job, judged.mix, opened.pool, plan, judged.confirmation, prepared)
            for label, why in found.left_out.items():
                notes.warnings.append(f"{plan.stage}: {label} is left out: {why}")
            sets = _encode(job, judged, plan.model.context, halves["judges"])
            setting = _setting(job, judged.mix, opened, plan, sets)
            promise = _promise(job, judged.confirmation, plan, len({j.label for j in found.jobs}), notes)
            trials = train_jobs(
                job, plan.stage, found.jobs, setting, notes,
                folder=str(plan.folder / "trials"), whole=lambda name, plan=plan: _kept(job, plan, name),
            )  # fmt: skip
            rung = _judge(job, judged, plan, setting, sets, trials, promise, found.left_out)
            rungs.append(rung)
            comparison = compare(
                rungs, judged.proposal, judged.confirmation, proxies=_proxies(job), overlaps=_overlaps(job),
                pool_share=_token_share(rung_part(job.recipe, judged.mix, plans[0]), judged.mix),
                transfers=transfers(rungs, seed=job.recipe.seed),
            )  # fmt: skip
            write_json(job.path("evaluate", "comparison.json"), comparison)
            notes.warnings += [f"{plan.stage}: {flag}" for flag in rung.flags]
        assert comparison is not None  # there is always a base rung
    return comparison


def _judge(
    job: Job, judged: Judged, plan: RungPlan, setting: ProxySetting, sets: _Sets, trials: Sequence[Trial],
    promise: float, left_out: dict[str, str],
) -> Rung:  # fmt: skip
    """Score a rung's models, as they were saved, on everything."""
    from quadmix.proxy.model import parameter_count

    rows, weights = job.path(str(plan.folder), "rows"), job.path(str(plan.folder), "trials", "weights")
    scoring = ScoringSetting(model=setting.model, vocab_size=setting.vocab_size, device=setting.device)
    done = [t.trial_id for t in trials if t.status == "done"]
    folders = [str(f) for f in (sets.judges, sets.heldout, sets.benchmarks) if f is not None]
    with job.progress.stage(f"score {plan.name}", len(done), "models") as step:
        refused = score_models(
            done, weights, scoring, folders, rows, group=_TOGETHER, place=training_place(job.recipe.run),
            on_done=step.advance,
        )  # fmt: skip
    trials = [
        replace(t, status="failed", reason=f"cannot be scored: {refused[t.trial_id]}")
        if t.trial_id in refused
        else t
        for t in trials
    ]
    tasks = read_tasks(trials, rows, sets.benchmarks)
    scored = with_losses(trials, tasks)
    if not job.recipe.evaluate.save_weights:
        for name in done:
            (weights / f"{name}.safetensors").unlink(missing_ok=True)
    return build_rung(
        scored, tasks, judged.proposal.objective, name=plan.name,
        parameters=parameter_count(plan.model, setting.vocab_size), train_tokens=setting.tokens,
        learning_rate=plan.training.peak_lr, budget=plan.budget, match=plan.match, promised=promise,
        left_out=left_out, chosen=CHOSEN, confidence=job.recipe.evaluate.confidence, seed=job.recipe.seed,
    )  # fmt: skip


def _kept(job: Job, plan: RungPlan, trial_id: str) -> bool:
    """Are a trained model's weights there, or what it scored?"""
    home = job.path(str(plan.folder))
    weights, rows = home / "trials" / "weights", home / "rows"
    return (weights / f"{trial_id}.safetensors").exists() or (rows / f"{trial_id}.parquet").exists()


def _setting(job: Job, mix: Mix, opened: _OpenPool, plan: RungPlan, sets: _Sets) -> ProxySetting:
    """Return how a rung's models are trained. They are judged by the other half of every target and by
    held-out text (scored afterwards), which neither chose nor trained anything."""
    return ProxySetting(
        pool=str(opened.folder), targets=str(sets.judges), heldout=None, model=plan.model,
        training=plan.training, vocab_size=plan.model.padded(opened.pool.manifest.vocab_size),
        domains=mix.full.domains, device=job.recipe.run.device,
        checkpoint_seconds=job.recipe.run.checkpoint_seconds,
    )  # fmt: skip


def _pool(job: Job, judged: Judged, plans: Sequence[RungPlan]) -> _OpenPool:
    """Return the proxies' token pool, or a larger one where a rung works on more documents."""
    mix = judged.mix
    parts = [rung_part(job.recipe, mix, plan) for plan in plans]
    largest = max(parts, key=lambda part: len(part.rows))
    rows = np.flatnonzero(mix.excluded == 0)[largest.rows]
    if np.isin(rows, judged.pool.rows).all():
        return _OpenPool(folder=job.path("pool"), pool=judged.pool)
    folder, tokenizer = job.path("evaluate", "pool"), str(job.path("tokenizer.json"))
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
    """Say before training what difference the rung can show."""
    least = promised(confirmation, plan.seeds, labels)
    if least == least:
        notes.facts.setdefault("promised", {})[plan.name] = least
        job.progress.note(
            f"{plan.stage}: with {plan.seeds} seeds, differences of {least:.4f} bits per byte and more will "
            "show in four of five comparisons (noise as in the confirmation)"
        )
    return least


def _overlaps(job: Job) -> dict[str, int]:
    facts = read_json(job.path("stages", "annotate.json"))["facts"]
    return {str(name): int(count) for name, count in facts.get("overlap", {}).items() if count}


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
