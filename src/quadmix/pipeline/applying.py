"""θ* of one run applied to another corpus: no swarm, no table in memory, a corpus of any size.

In: a recipe whose `mixing.theta_from` names a finished run. Out: the dataset. The annotators, the tokenizer
and the normaliser are that run's, so that scores and tokens mean the same; ranks and the budget are the
corpus's own. Each stage is a pass over parts, so memory does not depend on the number of documents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quadmix.annotate.prepare import adopt_annotators
from quadmix.annotate.run import annotate_split, annotate_tasks, finish_annotations, prepare_overlap
from quadmix.annotate.table import Surveyed, survey
from quadmix.errors import BudgetError, RecipeError
from quadmix.io.atomic import copy_file, read_value, write_json
from quadmix.mixing.batch import fit_budgets, stack_thetas
from quadmix.mixing.limits import limits_from
from quadmix.mixing.normalise import Normaliser
from quadmix.pipeline.contamination import contamination_warnings, overlap_facts
from quadmix.pipeline.folder import Job, stage
from quadmix.pipeline.place import numbers_place, rating_place
from quadmix.pipeline.stages import check_budget, held_out, mapper, without_multipliers
from quadmix.types import Confirmation, Corpus, Theta


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Applied:
    """What the selection of a corpus needs: counts, θ fitted to its budget, the normaliser."""

    surveyed: Surveyed
    theta: Theta
    normaliser: Normaliser
    budget: int
    label: str


def apply_theta(
    job: Job, corpus: Corpus, texts: Mapping[str, Sequence[str]], *, annotate_only: bool
) -> Applied | None:
    """Annotate the corpus as the source run did and fit its θ* to the budget; None if only annotations were
    asked for. texts: of targets and benchmarks, which are looked for in the corpus. Raises BudgetError where
    the corpus or the limits cannot give the budget."""
    source = Path(str(job.recipe.mixing.theta_from))
    normaliser = read_value(source / "normaliser.json", Normaliser)
    surveyed = _annotate(job, corpus, texts, source, normaliser)
    return None if annotate_only else _fit(job, surveyed, source, normaliser)


def _annotate(
    job: Job, corpus: Corpus, texts: Mapping[str, Sequence[str]], source: Path, normaliser: Normaliser
) -> Surveyed:
    folder, recipe = job.folder, job.recipe
    with stage(job, "annotate") as notes:
        copy_file(source / "tokenizer.json", job.path("tokenizer.json"))
        annotators = adopt_annotators(source, folder, recipe.annotate, corpus)
        overlap = prepare_overlap(texts, folder)
        tasks = annotate_tasks(
            corpus, annotators, folder, overlap=overlap, checkpoint=recipe.run.checkpoint_seconds
        )
        done = mapper(job, "annotate", "pieces", rating_place(recipe))(annotate_split, tasks)
        manifest = finish_annotations(corpus, annotators, folder, done, overlap=overlap)
        surveyed = survey(
            folder, corpus, recipe.annotate, holdout=held_out(recipe), seed=recipe.seed,
            domains=normaliser.domains,
            mapper=mapper(job, "survey", "pieces", numbers_place(recipe.run)),
        )  # fmt: skip
        notes.warnings += list(dict.fromkeys([*manifest.warnings, *surveyed.warnings]))
        notes.warnings += contamination_warnings(
            texts, manifest.overlap, manifest.documents, excluded=recipe.annotate.exclude_overlap
        )
        notes.facts = {
            "documents": manifest.documents,
            "tokens": manifest.tokens,
            "domains": len(surveyed.frame.domains),
            "coverage": surveyed.coverage,
            "missing": manifest.missing,
            "overlap": manifest.overlap,
            **overlap_facts(texts, surveyed.dropped),
        }
    return surveyed


def _fit(job: Job, surveyed: Surveyed, source: Path, normaliser: Normaliser) -> Applied:
    """Fit θ* to the budget. In rank mode interval a domain's tokens follow from θ alone (Eq. 3)."""
    recipe = job.recipe
    if recipe.mixing.rank_mode != "interval":
        raise RecipeError(
            f"mixing.rank_mode is {recipe.mixing.rank_mode}; a θ from another run is fitted without the "
            "table of documents, for which it must be interval"
        )
    with stage(job, "mixing") as notes:
        confirmation = read_value(source / "search" / "confirm.json", Confirmation)
        pool = surveyed.open_tokens
        available = int(pool.sum())
        budget = recipe.budget.tokens or round((recipe.budget.share or 0) * available)
        occupied = int(np.count_nonzero(pool))
        check_budget(budget, available, int(surveyed.open_documents.sum()), occupied)
        train_tokens = recipe.budget.train_tokens or budget
        limits = limits_from(recipe.mixing, surveyed.frame.domains, epochs=train_tokens / budget)
        plain = replace(confirmation.theta, scale=np.ones(confirmation.theta.num_domains))
        fitted = fit_budgets(
            stack_thetas([plain]), pool, float(budget), method=recipe.budget.method,
            limits=without_multipliers(limits),
        )  # fmt: skip
        if not fitted.ok[0]:
            raise BudgetError(
                f"θ* of {source} cannot give {budget:,} tokens from this corpus ({available:,} selectable) "
                "under the limits of mixing; lower the budget or loosen repetition_cap, min_share, max_share"
            )
        if absent := [n for n, t in zip(surveyed.frame.domains, pool.tolist(), strict=True) if not t]:
            notes.warnings.append(f"domains of θ* that this corpus lacks: {', '.join(absent[:10])}")
        if not confirmation.confirmed:
            notes.warnings.append(f"θ* was not confirmed in {source.name}: {confirmation.reason}")
        write_json(job.path("normaliser.json"), normaliser)
        write_json(job.path("theta.json"), fitted.batch.theta(0))
        write_json(
            job.path("search", "confirm.json"),
            replace(confirmation, source=confirmation.source or source.name),
        )
        notes.facts = {"tokens": available, "budget": budget, "train_tokens": train_tokens}
    return Applied(
        surveyed=surveyed, theta=fitted.batch.theta(0), normaliser=normaliser, budget=budget,
        label=confirmation.winner,
    )  # fmt: skip
