"""The stages up to the token pool: text is read here (scan, annotate, tokenise) and turned into numbers.

Every stage commits its own files and is skipped when they are there, so that the same command after a
kill goes on where the last one stopped.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from quadmix.annotate.prepare import prepare_annotators
from quadmix.annotate.run import annotate_split, annotate_tasks, finish_annotations, prepare_overlap
from quadmix.annotate.table import EXCLUDED_REASONS, LoadedAnnotations, load_annotations
from quadmix.codec import to_json
from quadmix.corpus.benchmarks import BenchmarkItems, read_benchmark
from quadmix.corpus.read import read_documents
from quadmix.corpus.scan import ScanResult, open_corpus
from quadmix.corpus.targets import TargetText, halve_target, read_target
from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.engine.tasks import Place, run_tasks
from quadmix.errors import BudgetError, InputError
from quadmix.io.atomic import read_value, write_json, write_text
from quadmix.materialise.selecting import fit_corpus_normaliser
from quadmix.mixing.limits import Limits, limits_from
from quadmix.mixing.normalise import Normaliser
from quadmix.mixing.prior import prior_from
from quadmix.pipeline.circular import kept_warnings
from quadmix.pipeline.contamination import (
    benchmark_target_overlap,
    clean_judges,
    contamination_warnings,
    judge_warnings,
    overlap_facts,
    overlap_texts,
    refuse_contained,
    refuse_same_rows,
    shared_warnings,
)
from quadmix.pipeline.folder import STAGES, Job, stage, stage_done
from quadmix.pipeline.mix import Mix, whole_part
from quadmix.pipeline.place import data_place, numbers_place, rating_place
from quadmix.pipeline.plan import (
    BYTES_PER_TOKEN,
    DATA_STAGES,
    GLANCE,
    confirm_kind,
    data_seconds,
    model_costs,
    progress_weights,
    stage_seconds,
    text_bytes,
)
from quadmix.pipeline.progress import StageProgress
from quadmix.proxy.pool import WIDE_VOCAB, TokenPool, build_pool
from quadmix.proxy.targets import TargetManifest, encode_heldout, encode_targets
from quadmix.recipe import Recipe
from quadmix.rng import stream
from quadmix.types import Corpus


class Mapped(Protocol):
    """A function that maps tasks over the run's workers; see `materialise.selecting.Runner`."""

    def __call__(
        self,
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        /,
        *,
        fold: Callable[[int, Any], None] | None = None,
    ) -> list[Any]: ...


def mapper(
    job: Job,
    name: str,
    unit: str,
    place: Place | None = None,
    count: Callable[[StageProgress, Any], None] | None = None,
) -> Mapped:
    """Return a function that maps tasks over the run's workers and shows progress as stage `name`.

    count: counts a result as done, where results are of a kind that `count_result` does not know.
    """

    def run(
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        /,
        *,
        fold: Callable[[int, Any], None] | None = None,
    ) -> list[Any]:
        with job.progress.stage(name, len(tasks), unit) as step:

            def done(index: int, result: Any) -> None:
                (count or count_result)(step, result)
                if fold is not None:
                    fold(index, result)

            return run_tasks(
                function,
                tasks,
                place=place or data_place(job.recipe.run),
                on_done=done,
                keep=fold is None,
            )

    return run


def count_result(step: StageProgress, result: Any) -> None:
    """Count one task as done, with the documents and tokens that its result says it went through."""
    if getattr(result, "reused", False):
        step.load()
        return
    counts = result.count if isinstance(result, ScanResult) else result
    documents = getattr(counts, "documents", getattr(counts, "rows", 0))
    tokens = getattr(counts, "tokens", 0)
    step.advance(
        documents=documents if isinstance(documents, int) else 0,
        tokens=tokens if isinstance(tokens, int) else 0,
    )


def expect_stages(job: Job, last: int) -> None:
    """Tell the progress display which stages the run will pass, and which of them are there already."""
    recipe = job.recipe
    names = DATA_STAGES if recipe.mixing.theta_from is not None else STAGES
    wanted = [n for n in names if STAGES.index(n) <= last and (n != "evaluate" or recipe.evaluate.enabled)]
    job.progress.expect(wanted, [name for name in wanted if stage_done(job.folder, name)])


def plan_progress(job: Job) -> None:
    """Give the progress display the planned seconds of every stage, so that its ETA covers the whole run."""
    recipe = job.recipe
    if recipe.run.executor == "ray":
        return  # starting a cluster to measure costs more than the better estimate is worth
    text = text_bytes(recipe)
    if recipe.mixing.theta_from is not None:
        job.progress.plan(data_seconds(recipe, text))
        return
    budget = recipe.budget.tokens or round((recipe.budget.share or 0) * text / BYTES_PER_TOKEN)
    job.progress.plan(progress_weights(stage_seconds(recipe, text, budget, model_costs(recipe, GLANCE))))


def open_pool(job: Job) -> Corpus:
    """Freeze the input files, scan them once, put bad rows into quarantine."""
    with stage(job, "corpus") as notes:
        corpus = open_corpus(job.recipe.corpus, str(job.folder), mapper=mapper(job, "corpus", "pieces"))
        bad = sum(sum(c.quarantined.values()) for c in corpus.counts)
        notes.warnings += list(corpus.warnings)
        notes.facts = {"files": len(corpus.files), "documents": corpus.documents, "quarantined": bad}
        if bad:
            notes.warnings.append(f"{bad:,} bad rows are in quarantine/ with file, row and reason")
    return corpus


def read_targets(job: Job) -> list[TargetText]:
    """Read and check the targets first of all: a wrong target must not cost an annotation pass, nor one of
    which too few rows could judge."""
    recipe = job.recipe
    targets = [
        read_target(t, seed=recipe.seed, accept_test=recipe.run.accept_test_targets) for t in recipe.targets
    ]
    target_halves(targets, recipe.evaluate.enabled and recipe.mixing.theta_from is None, recipe.seed)
    return targets


def read_benchmarks(job: Job, targets: Sequence[TargetText] = ()) -> list[BenchmarkItems]:
    """Read and check the benchmarks as early as the targets; InputError if one stands in a target, or reads
    the same file and split."""
    refuse_same_rows(job.recipe.targets, job.recipe.evaluate.benchmarks)
    out: list[BenchmarkItems] = []
    for section in job.recipe.evaluate.benchmarks:
        try:
            out.append(read_benchmark(section, seed=job.recipe.seed))
        except InputError as error:
            name = f"benchmark {section.name!r}"
            raise error if name in str(error) else InputError(f"{name}: {error}") from error
    refuse_contained(benchmark_target_overlap(targets, out))
    return out


def prepare_tokenizer(job: Job, corpus: Corpus) -> Path:
    """Train the BPE on an even sample of the pool, or copy the user's tokenizer.json; return its path."""
    path, section = job.path("tokenizer.json"), job.recipe.tokenizer
    if path.exists():
        return path
    if section.path:
        Tokenizer.load(section.path)
        write_text(path, Path(section.path).read_text(encoding="utf-8"))
        return path
    with job.progress.stage("tokenizer", 1, "vocabulary"):
        write_text(path, train_tokenizer(_sample_texts(job, corpus, section.train_bytes), section.vocab_size))
    return path


def _sample_texts(job: Job, corpus: Corpus, limit: int) -> list[str]:
    """Return about `limit` bytes of text, every document with the same chance, whatever its split."""
    total = max(sum(c.text_bytes for c in corpus.counts), 1)
    share = min(1.0, limit / total)
    texts: list[str] = []
    for split in corpus.splits:
        rng = stream(job.recipe.seed, "tokenizer", split.index)
        for batch in read_documents(corpus, split, columns=()):
            keep = rng.random(len(batch.text)) < share
            texts += [text[:50_000] for text, kept in zip(batch.text, keep, strict=True) if kept]
    return texts


def annotate(
    job: Job, corpus: Corpus, targets: Sequence[TargetText], benchmarks: Sequence[BenchmarkItems] = ()
) -> LoadedAnnotations:
    """Score every document and label its domain; return the loaded table with warnings."""
    section, folder = job.recipe.annotate, job.folder
    with stage(job, "annotate") as notes:
        prepare_tokenizer(job, corpus)
        with job.progress.stage("train raters", 1, "set"):
            texts = overlap_texts(targets, benchmarks, section.overlap_with)
            overlap = prepare_overlap(texts, folder)
            notes.warnings += kept_warnings(folder, job.recipe, texts, overlap.digest)
            annotators = prepare_annotators(section, corpus, folder, seed=job.recipe.seed)
        tasks = annotate_tasks(
            corpus, annotators, folder, overlap=overlap, checkpoint=job.recipe.run.checkpoint_seconds
        )
        done = mapper(job, "annotate", "pieces", rating_place(job.recipe))(annotate_split, tasks)
        manifest = finish_annotations(corpus, annotators, folder, done, overlap=overlap)
        loaded = load_table(
            folder, corpus, job.recipe, mapper(job, "survey", "pieces", numbers_place(job.recipe.run))
        )
        notes.warnings += list(dict.fromkeys([*manifest.warnings, *loaded.surveyed.warnings]))
        notes.facts = {
            "documents": manifest.documents,
            "tokens": manifest.tokens,
            "domains": len(loaded.table.domains),
            "merged_domains": loaded.surveyed.merged_domains,
            "coverage": {name: _mean_coverage(loaded, name) for name in loaded.surveyed.coverage},
            "length_bias": loaded.surveyed.length_bias,
            "overlap": manifest.overlap,
            "missing": manifest.missing,
            "cards": [to_json(card) for card in manifest.criteria],
        }
        notes.facts |= overlap_facts(texts, loaded.surveyed.dropped)
        notes.warnings += contamination_warnings(
            texts, manifest.overlap, manifest.documents, excluded=section.exclude_overlap
        )
        notes.warnings += shared_warnings(benchmark_target_overlap(targets, benchmarks))
    return loaded


def load_table(folder: Path, corpus: Corpus, recipe: Recipe, run: Mapped | None = None) -> LoadedAnnotations:
    """Return the annotations of a run folder as its recipe wants them; the run need not be this one."""
    return load_annotations(
        folder, corpus, recipe.annotate, holdout=held_out(recipe), seed=recipe.seed,
        **({} if run is None else {"mapper": run}),
    )  # fmt: skip


def held_out(recipe: Recipe) -> float:
    """Return the share of documents that are reserved for evaluation; none where nothing is evaluated."""
    evaluated = recipe.evaluate.enabled and recipe.mixing.theta_from is None
    return recipe.evaluate.holdout if evaluated else 0.0


def _mean_coverage(loaded: LoadedAnnotations, name: str) -> float:
    """Return the share of all documents that have a score of one criterion."""
    column = [c.name for c in loaded.table.criteria].index(name)
    return float(np.isfinite(loaded.table.scores[:, column]).mean())


def prepare_mixing(job: Job, loaded: LoadedAnnotations) -> Mix:
    """Fit (or load) the frozen normaliser, fix the budget, the limits and the prior."""
    recipe = job.recipe
    with stage(job, "mixing") as notes:
        selectable = loaded.table.take(loaded.excluded == 0)
        file = job.path("normaliser.json")
        if not file.exists():
            sigma = fit_corpus_normaliser(
                loaded.surveyed, recipe.mixing.normaliser, exact_documents=recipe.mixing.exact_documents,
                runner=mapper(job, "normalise", "pieces", numbers_place(recipe.run)),
            )  # fmt: skip
            write_json(file, sigma)
        normaliser = read_value(file, Normaliser)
        available = int(selectable.tokens.sum(dtype=np.int64))
        budget = recipe.budget.tokens or round((recipe.budget.share or 0) * available)
        check_budget(budget, available, len(selectable), len(selectable.domains))
        train_tokens = recipe.budget.train_tokens or budget
        limits = limits_from(recipe.mixing, selectable.domains, epochs=train_tokens / budget)
        multipliers = () if limits is None else tuple(limits.multipliers.tolist())
        whole = whole_part(recipe, selectable, normaliser, float(budget), without_multipliers(limits))
        prior = prior_from(recipe.prior, len(selectable.domains), len(selectable.criteria), multipliers)
        if train_tokens / budget > 4:
            notes.warnings.append(
                f"the final training repeats the selection {train_tokens / budget:.1f} times; "
                "beyond about 4 epochs repeated tokens are worth less"
            )
        notes.facts = {"tokens": available, "budget": budget, "train_tokens": train_tokens}
    return Mix(
        full=loaded.table, excluded=loaded.excluded, reasons=EXCLUDED_REASONS[1:], whole=whole,
        normaliser=normaliser, prior=prior, train_tokens=train_tokens, seed=recipe.seed,
    )  # fmt: skip


def check_budget(budget: int, available: int, documents: int, domains: int) -> None:
    """Raise BudgetError for less than a document per domain, or more than the selectable tokens."""
    least = round(available / max(documents, 1)) * domains
    if budget < least:
        raise BudgetError(
            f"the budget is {budget:,} tokens, less than one average document for each of the "
            f"{domains} domains ({least:,} tokens); raise budget.tokens or budget.share"
        )
    if budget > available:
        raise BudgetError(
            f"budget.tokens is {budget:,}, but the pool holds {available:,} selectable tokens; "
            "lower it, and set budget.train_tokens if the training is to repeat the selection"
        )


def without_multipliers(limits: Limits | None) -> Limits | None:
    """Return the limits of a budget fit: the prior applies the multipliers, once; see Prior."""
    return limits and replace(limits, multipliers=np.ones(len(limits.multipliers)))


def tokenise(job: Job, corpus: Corpus, mix: Mix, targets: Sequence[TargetText]) -> TokenPool:
    """Tokenise once what proxies and comparison models may train on, the targets, and held-out text."""
    recipe = job.recipe
    with stage(job, "pool") as notes:
        longest = max(recipe.proxy.training.tokens, confirm_kind(recipe)[1].tokens)
        share = mix.proxy_share(longest, recipe.proxy.pool)
        rows = np.flatnonzero(mix.excluded == 0)[mix.part(share).rows]
        file, larger = str(job.path("tokenizer.json")), recipe.evaluate.model.context
        contexts = {"targets": recipe.proxy.model.context, "judges": larger}
        tokenizer, run = Tokenizer.load(file), mapper(job, "pool", "pieces", count=_count_tokens)
        pool = build_pool(corpus, mix.full, file, str(job.path("pool")), rows=rows, mapper=run)
        halves, warnings = _halves(targets, recipe.evaluate.enabled, recipe.seed)
        for name, part in halves.items():
            encode_targets(part, tokenizer, contexts[name], str(job.path(name)))
        encode_heldout(
            corpus, mix.full, tokenizer, str(job.path("heldout")),
            context=larger, max_bytes=recipe.evaluate.holdout_bytes, mapper=run,
        )  # fmt: skip
        notes.facts = {"documents": len(rows), "tokens": int(pool.offsets[-1]), "share": share}
        notes.warnings += read_value(job.path("targets", "manifest.json"), TargetManifest).warnings
        notes.warnings += warnings
        notes.warnings += _pool_warnings(job, mix, tokenizer.vocab_size)
    return pool


def _count_tokens(step: StageProgress, result: Any) -> None:
    step.advance(tokens=result if isinstance(result, int) else 0)


def _pool_warnings(job: Job, mix: Mix, vocab: int) -> list[str]:
    recipe, out = job.recipe, list[str]()
    if vocab > WIDE_VOCAB:
        out.append(
            f"the vocabulary has {vocab:,} entries: tokens take 4 bytes in the pool, not 2, and almost "
            "all of a proxy's cost is its output head; without tokenizer.path a vocabulary of 4,096 is "
            "trained, at a fraction of the cost"
        )
    trained = {"proxy": recipe.proxy.training.tokens, "evaluate": recipe.evaluate.training.tokens}
    if recipe.confirm.training is not None:
        trained["confirm"] = recipe.confirm.training.tokens
    for name, tokens in trained.items():
        if tokens > 1.05 * mix.train_tokens:
            out.append(
                f"{name}.training.tokens is {tokens:,}, the final training {mix.train_tokens:,}: these "
                f"models repeat data {tokens / mix.train_tokens:.1f} times as often as the final run; "
                "lower it, or say with budget.train_tokens how long the final training is"
            )
    if recipe.run.accept_test_targets:
        out.append("run.accept_test_targets: targets were not checked for being test splits")
    return out


def target_halves(targets: Sequence[TargetText], evaluated: bool, seed: int) -> dict[str, list[TargetText]]:
    """Return the rows that steer the search (`targets`) and those that judge its outcome (`judges`).

    A mixture is searched on one half of every target, drawn by a hash, and compared on the other, without the
    rows that share a passage with the first (see `clean_judges`), so that it is not judged by what chose it.
    Without a comparison all rows steer. InputError where too few rows could judge.
    """
    return _halves(targets, evaluated, seed)[0]


def _halves(
    targets: Sequence[TargetText], evaluated: bool, seed: int
) -> tuple[dict[str, list[TargetText]], list[str]]:
    """Return the halves, and what is to be said about rows that both would share."""
    if not evaluated:
        return {"targets": list(targets)}, []
    halves = [halve_target(t, seed) for t in targets]
    steering, judging = [h[0] for h in halves], [h[1] for h in halves]
    judges, shared = clean_judges(steering, judging)
    return {"targets": steering, "judges": judges}, judge_warnings(judging, shared)
