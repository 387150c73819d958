"""Who takes part in a rung of the comparison: θ* and the baselines, each with its copies per document.

What a baseline needs beyond the table is prepared once for all rungs: RegMix's mixture (its own swarm of
proxies) and DSIR's importance weights (two passes over the text of the largest part).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from quadmix.corpus.targets import TargetText
from quadmix.errors import BudgetError
from quadmix.evaluate.compare import CHOSEN, regmix_mixture
from quadmix.evaluate.mixtures import draw_mixtures, mixture_copies
from quadmix.evaluate.selectors import Chosen, Pool, baseline_labels, choose, from_theta
from quadmix.io.trials import apply_dropped
from quadmix.pipeline.confirming import file_names
from quadmix.pipeline.folder import Job, StageNotes
from quadmix.pipeline.importance import importance_weights
from quadmix.pipeline.ladder import RungPlan, any_baseline
from quadmix.pipeline.mix import Mix, Part
from quadmix.pipeline.stages import Mapped
from quadmix.pipeline.training import copies_job, proxy_setting, train_jobs
from quadmix.proxy.pool import TokenPool
from quadmix.proxy.setting import ProxyJob
from quadmix.recipe import Recipe
from quadmix.rng import derived_seed, stream
from quadmix.types import Confirmation, Corpus, Floats, Ints, Proposal, Theta

_FIRST_SEED = 1000  # the swarm's repeats use the seeds below 100, the confirmation those from 100 on


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """What baselines need beyond the table. shares: (M,) RegMix's mixture. rows: (R,) of the selectable
    table, ascending; importance: (R,) DSIR's log weights of those documents."""

    shares: Floats | None = None
    rows: Ints | None = None
    importance: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contestants:
    """Jobs of one rung, seed by seed, and who could not take part, with the reason."""

    jobs: tuple[ProxyJob, ...]
    left_out: dict[str, str]


def rung_part(recipe: Recipe, mix: Mix, plan: RungPlan) -> Part:
    """Return the documents on which a rung's selectors work, with its budget."""
    part = mix.part(mix.proxy_share(plan.pool_tokens, recipe.proxy.pool))
    return replace(part, budget=part.budget * plan.budget)


def contestant_labels(recipe: Recipe, plan: RungPlan) -> tuple[str, ...]:
    """Return θ* and the baselines of a rung, in the order of their models."""
    criteria = [c.name for c in recipe.annotate.criteria]
    return (CHOSEN, *baseline_labels(plan.baselines, criteria, plan.random_thetas))


def contestants(
    job: Job, mix: Mix, pool: TokenPool, plan: RungPlan, confirmation: Confirmation, prepared: Prepared
) -> Contestants:
    """Return the jobs of one rung. A baseline that cannot meet the budget is left out by name; θ* that
    cannot raises BudgetError."""
    part = rung_part(job.recipe, mix, plan)
    given = _pool(job.recipe, mix, part, prepared)
    labels = contestant_labels(job.recipe, plan)
    names = file_names(labels)
    jobs, left_out = list[ProxyJob](), dict[str, str]()
    for seed in range(plan.seeds):
        for label in labels:
            if label in left_out:
                continue
            try:
                chosen = _choose(job.recipe, part, given, label, confirmation.theta, seed)
            except BudgetError as error:
                if label == CHOSEN or seed:
                    raise
                left_out[label] = str(error)
                continue
            jobs.append(
                copies_job(pool, mix, part, f"compare-{names[label]}-{seed}", "compare", label,
                           chosen.theta, chosen.copies, _FIRST_SEED + seed)
            )  # fmt: skip
    return Contestants(jobs=tuple(jobs), left_out=left_out)


def _choose(recipe: Recipe, part: Part, given: Pool, label: str, best: Theta, seed: int) -> Chosen:
    """Let one selector choose. θ-based ones share θ*'s draw of copies (common random numbers)."""
    if label == CHOSEN:
        theta = part.calibrate(best)
        return Chosen(label=label, theta=theta, copies=part.select(theta, _FIRST_SEED + seed).copies)
    shared = from_theta(label)
    draw = part.draw_seed(_FIRST_SEED + seed) if shared else derived_seed(recipe.seed, "baseline", seed)
    return choose(label, given, part.budget, draw=draw)


def _pool(recipe: Recipe, mix: Mix, part: Part, prepared: Prepared) -> Pool:
    importance = None
    if prepared.importance is not None and prepared.rows is not None:
        importance = prepared.importance[np.searchsorted(prepared.rows, part.rows)]
    return Pool(
        table=part.table, normalised=part.normalised, grouped=part.grouped, prior=mix.prior,
        limits=part.limits, rank_mode=part.rank_mode, method=part.method, seed=recipe.seed,
        importance=importance, shares=prepared.shares, temperature=recipe.evaluate.temperature,
    )  # fmt: skip


def prepare(
    job: Job, corpus: Corpus, mix: Mix, pool: TokenPool, targets: Sequence[TargetText], proposal: Proposal,
    plans: Sequence[RungPlan], notes: StageNotes, mapper: Mapped,
) -> Prepared:  # fmt: skip
    """Find RegMix's mixture and DSIR's weights where any rung asks for them. targets: the rows that steered
    the search; the others judge."""
    shares = _regmix(job, mix, pool, notes, proposal) if any_baseline(job.recipe, "regmix") else None
    if not any_baseline(job.recipe, "dsir"):
        return Prepared(shares=shares)
    largest = max((rung_part(job.recipe, mix, plan) for plan in plans), key=lambda part: len(part.rows))
    weights = importance_weights(corpus, largest.table, targets, job.path("evaluate", "dsir"), mapper=mapper)
    return Prepared(shares=shares, rows=largest.rows, importance=weights)


def _regmix(job: Job, mix: Mix, pool: TokenPool, notes: StageNotes, proposal: Proposal) -> Floats:
    """Train RegMix's own domain-only swarm at proxy size and return the shares that it finds."""
    proxy = job.recipe.proxy
    part = mix.part(mix.proxy_share(proxy.training.tokens, proxy.pool))
    rng = stream(job.recipe.seed, "regmix")
    tokens = part.table.domain_tokens()
    mixtures = draw_mixtures(rng, tokens, part.budget, job.recipe.evaluate.regmix_trials)
    draw = derived_seed(job.recipe.seed, "regmix-draw")
    jobs = [
        copies_job(pool, mix, part, f"regmix-{i:04d}", "regmix", "regmix", None,
                   mixture_copies(m, part.table, part.budget, seed=draw), 0)
        for i, m in enumerate(mixtures)
    ]  # fmt: skip
    done = train_jobs(job, "regmix", jobs, proxy_setting(job, mix, pool), notes)
    trials = apply_dropped(job.folder, done)
    pool_draws = draw_mixtures(rng, tokens, part.budget, min(job.recipe.search.candidates, 20_000))
    shares, report = regmix_mixture(trials, mixtures, pool_draws, proposal.objective, seed=job.recipe.seed)
    notes.facts["regmix"] = {"shares": dict(zip(part.table.domains, shares, strict=True)), **report}
    return shares
