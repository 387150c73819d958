"""The main job, nine calls in order; each returns what the next needs and commits what it made."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from quadmix.annotate.table import Surveyed
from quadmix.engine.tasks import session
from quadmix.errors import Interrupted, RefusalError
from quadmix.io.atomic import write_json
from quadmix.io.door import network
from quadmix.io.signals import terminable
from quadmix.materialise.publish import publish_dataset
from quadmix.materialise.selecting import select_corpus
from quadmix.materialise.write import materialise
from quadmix.pipeline import stages, training
from quadmix.pipeline.applying import Applied, apply_theta
from quadmix.pipeline.comparing import Judged, evaluate
from quadmix.pipeline.confirming import confirm
from quadmix.pipeline.contamination import overlap_texts
from quadmix.pipeline.feasible import check_comparison
from quadmix.pipeline.folder import STAGES, Job, open_run, stage
from quadmix.pipeline.languages import check_language_column
from quadmix.pipeline.mix import Mix, draw_seed
from quadmix.pipeline.place import data_place, numbers_place, text_place
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.swarming import search, train_swarm
from quadmix.recipe import Recipe
from quadmix.report.write import write_report
from quadmix.types import Comparison, Confirmation, Corpus, DatasetManifest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunResult:
    """What a run made; stages that were not asked for are None."""

    folder: Path
    confirmation: Confirmation | None = None
    manifest: DatasetManifest | None = None
    comparison: Comparison | None = None
    report: Path | None = None


def run(recipe: Recipe, *, until: str = "report", progress: Progress | None = None) -> RunResult:
    """Run the stages up to and including `until`; finished work is loaded, not repeated.

    Raises RefusalError when θ* is not confirmed (unless accepted), IdentityError when the run folder
    belongs to another run, Interrupted on Ctrl-C or SIGTERM.
    """
    progress = progress or Progress()
    last = STAGES.index(until)
    with (
        _interruptible(),
        _network(recipe),
        open_run(recipe, progress) as job,
        session(data_place(recipe.run)),
    ):
        stages.expect_stages(job, last)
        if last > STAGES.index("annotate"):
            stages.plan_progress(job)
        if recipe.mixing.theta_from is not None:
            return _apply(job, last)
        targets = stages.read_targets(job)
        benchmarks = stages.read_benchmarks(job, targets)
        corpus = stages.open_pool(job)
        check_language_column(recipe, corpus)
        table = stages.annotate(job, corpus, targets, benchmarks)
        if last <= STAGES.index("annotate"):
            return RunResult(folder=job.folder)
        mix = stages.prepare_mixing(job, table)
        if recipe.evaluate.enabled:
            check_comparison(job, mix)
        pool = stages.tokenise(job, corpus, mix, targets)
        proposal = search(job, mix, train_swarm(job, mix, pool))
        try:
            confirmation = confirm(job, mix, pool, proposal)
        except RefusalError:
            _report(job)
            raise
        manifest = comparison = report = None
        if last >= STAGES.index("materialise"):
            manifest = _materialise(job, corpus, mix, table.surveyed, confirmation)
        if last >= STAGES.index("evaluate") and recipe.evaluate.enabled:
            judged = Judged(
                corpus=corpus, mix=mix, pool=pool, targets=targets, benchmarks=benchmarks,
                proposal=proposal, confirmation=confirmation,
            )  # fmt: skip
            comparison = evaluate(job, judged)
        if last >= STAGES.index("report"):
            report = _report(job)
        return RunResult(
            folder=job.folder,
            confirmation=confirmation,
            manifest=manifest,
            comparison=comparison,
            report=report,
        )


def _apply(job: Job, last: int) -> RunResult:
    """Run the stages of a recipe that brings its θ from another run."""
    targets = stages.read_targets(job)
    benchmarks = stages.read_benchmarks(job, targets)
    corpus = stages.open_pool(job)
    texts = overlap_texts(targets, benchmarks, job.recipe.annotate.overlap_with)
    applied = apply_theta(job, corpus, texts, annotate_only=last <= STAGES.index("annotate"))
    if applied is None or last < STAGES.index("materialise"):
        return RunResult(folder=job.folder)
    manifest = _write(job, corpus, applied, job.recipe.seed)
    report = _report(job) if last >= STAGES.index("report") else None
    return RunResult(folder=job.folder, manifest=manifest, report=report)


def _materialise(
    job: Job, corpus: Corpus, mix: Mix, surveyed: Surveyed, confirmation: Confirmation
) -> DatasetManifest:
    theta = training.final_theta(mix, confirmation)
    write_json(job.path("theta.json"), theta)
    applied = Applied(
        surveyed=surveyed, theta=theta, normaliser=mix.normaliser, budget=mix.budget,
        label=confirmation.winner,
    )  # fmt: skip
    return _write(job, corpus, applied, mix.seed)


def _write(job: Job, corpus: Corpus, applied: Applied, seed: int) -> DatasetManifest:
    """Select from the whole corpus and write the dataset."""
    recipe = job.recipe
    with stage(job, "materialise") as notes:
        select_corpus(
            job.folder, applied.surveyed, applied.theta, applied.normaliser, seed=draw_seed(seed),
            rank_mode=recipe.mixing.rank_mode, exact_documents=recipe.mixing.exact_documents,
            runner=stages.mapper(job, "select", "pieces", numbers_place(recipe.run)),
        )  # fmt: skip
        manifest = materialise(
            corpus, job.folder, section=recipe.materialise, seed=recipe.seed, budget=applied.budget,
            identity=job.identity, theta_label=applied.label,
            mapper=stages.mapper(job, "materialise", "pieces", text_place(recipe, corpus)),
            samples=recipe.report.samples,
        )  # fmt: skip
        if recipe.materialise.out is not None:
            sending = stages.mapper(job, "publish", "shards", numbers_place(recipe.run))
            publish_dataset(
                job.folder, recipe.materialise.out, sending, keep_local=recipe.materialise.keep_local
            )
        gap = abs(manifest.ledger.tokens_out - applied.budget) / applied.budget
        notes.facts = {"digest": manifest.digest, "tokens_out": manifest.ledger.tokens_out, "gap": gap}
    return manifest


def _report(job: Job) -> Path:
    with stage(job, "report"), job.progress.stage("report", 1, "page"):
        return write_report(str(job.folder))


def _network(recipe: Recipe) -> contextlib.AbstractContextManager[None]:
    return network(offline=recipe.run.offline, allow_http=recipe.run.allow_http)


@contextlib.contextmanager
def _interruptible() -> Generator[None]:
    """Turn Ctrl-C and SIGTERM into `Interrupted`; what is committed stays, the rest is redone."""
    try:
        with terminable():
            yield
    except KeyboardInterrupt as error:
        raise Interrupted("stopped; committed work is kept. Run the same command again to go on") from error
