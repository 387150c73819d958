"""Who takes part in a rung of the comparison: θ* and the baselines, each with its copies per document.

What a baseline needs beyond the table is prepared before anything is trained: RegMix's mixture (its own
swarm of proxies) and the documents' languages (one pass), both once for all rungs, and DSIR's importance
weights (two passes over a rung's documents).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from quadmix.corpus.targets import TargetText
from quadmix.errors import BudgetError, InputError, SearchError
from quadmix.evaluate.compare import CHOSEN, regmix_mixture
from quadmix.evaluate.languages import Languages
from quadmix.evaluate.mixtures import draw_mixtures, mixture_copies
from quadmix.evaluate.selectors import Chosen, Pool, baseline_labels, choose, from_theta
from quadmix.io.trials import apply_dropped
from quadmix.pipeline.confirming import file_names
from quadmix.pipeline.contamination import steering_text
from quadmix.pipeline.folder import Job, StageNotes
from quadmix.pipeline.importance import importance_weights
from quadmix.pipeline.ladder import RungPlan, any_baseline, contestant_labels
from quadmix.pipeline.languages import document_languages, language_baselines, language_notes
from quadmix.pipeline.mix import Mix, Part
from quadmix.pipeline.stages import Mapped
from quadmix.pipeline.training import copies_job, proxy_setting, train_jobs
from quadmix.proxy.pool import TokenPool
from quadmix.proxy.setting import ProxyJob
from quadmix.recipe import Recipe
from quadmix.rng import derived_seed, stream
from quadmix.types import Confirmation, Corpus, Floats, Proposal, Theta

_FIRST_SEED = 1000  # the swarm's repeats use the seeds below 100, the confirmation those from 100 on


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """What baselines need beyond the table. shares: (M,) RegMix's mixture. importance: (D',) DSIR's log
    weights of the rung's documents. languages: of these. unable: label -> why it cannot take part."""

    shares: Floats | None = None
    importance: Floats | None = None
    languages: Languages | None = None
    unable: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contestants:
    """Jobs of one rung, seed by seed, and who could not take part, with the reason."""

    jobs: tuple[ProxyJob, ...]
    left_out: dict[str, str]


def rung_part(recipe: Recipe, mix: Mix, plan: RungPlan) -> Part:
    """Return the documents on which a rung's selectors work, with its budget."""
    part = mix.part(mix.proxy_share(plan.pool_tokens, recipe.proxy.pool))
    return replace(part, budget=part.budget * plan.budget)


def contestants(
    job: Job, mix: Mix, pool: TokenPool, plan: RungPlan, confirmation: Confirmation, prepared: Prepared
) -> Contestants:
    """Return the jobs of one rung. A baseline that cannot meet the budget is left out by name; θ* that
    cannot raises BudgetError."""
    part = rung_part(job.recipe, mix, plan)
    given = selector_pool(job.recipe, mix, part, prepared)
    labels = contestant_labels(job.recipe, plan)
    names = file_names(labels)
    jobs, left_out = list[ProxyJob](), dict[str, str]()
    for label in labels:  # label by label: one that is added later changes no group of those before it
        if label in prepared.unable:
            left_out[label] = prepared.unable[label]
            continue
        own: list[ProxyJob] = []
        try:
            for seed in range(plan.seeds):
                chosen = _choose(job.recipe, part, given, label, confirmation.theta, seed)
                own.append(
                    copies_job(pool, mix, part, f"compare-{names[label]}-{seed}", "compare", label,
                               chosen.theta, chosen.copies, _FIRST_SEED + seed)
                )  # fmt: skip
        except BudgetError as error:
            if label == CHOSEN:
                raise BudgetError(f"rung {plan.name!r}: {error}") from error
            left_out[label] = str(error)
        else:
            jobs += own
    return Contestants(jobs=tuple(jobs), left_out=left_out)


def _choose(recipe: Recipe, part: Part, given: Pool, label: str, best: Theta, seed: int) -> Chosen:
    """Let one selector choose. θ-based ones share θ*'s draw of copies (common random numbers)."""
    if label == CHOSEN:
        theta = part.calibrate(best)
        return Chosen(label=label, theta=theta, copies=part.select(theta, _FIRST_SEED + seed).copies)
    shared = from_theta(label)
    draw = part.draw_seed(_FIRST_SEED + seed) if shared else derived_seed(recipe.seed, "baseline", seed)
    return choose(label, given, part.budget, draw=draw)


def selector_pool(recipe: Recipe, mix: Mix, part: Part, prepared: Prepared) -> Pool:
    """Return what the selectors of a rung get, over its part."""
    return Pool(
        table=part.table, normalised=part.normalised, grouped=part.grouped, prior=mix.prior,
        limits=part.limits, rank_mode=part.rank_mode, method=part.method, seed=recipe.seed,
        importance=prepared.importance, shares=prepared.shares, languages=prepared.languages,
        temperature=recipe.evaluate.temperature, language_alpha=recipe.evaluate.language_alpha,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Common:
    """What baselines of all rungs share. shares: (M,) RegMix's mixture. languages: of the selectable
    documents. Both None where no rung asks for them, or where they could not be had; unable: label -> why."""

    shares: Floats | None = None
    languages: Languages | None = None
    unable: dict[str, str] = field(default_factory=dict[str, str])


def find_common(
    job: Job, corpus: Corpus, mix: Mix, pool: TokenPool, proposal: Proposal, notes: StageNotes,
    mapper: Mapped,
) -> Common:  # fmt: skip
    """Find what rungs share: what cannot be found costs those baselines that need it.

    mapper: of the pass that reads languages.
    """
    unable, shares, languages = dict[str, str](), None, None
    if any_baseline(job.recipe, "regmix"):
        try:
            shares = _find_shares(job, mix, pool, proposal, notes)
        except SearchError as error:
            unable["regmix"] = str(error)
    asked = language_baselines(job.recipe)
    if asked:
        try:
            languages = document_languages(
                corpus, mix.whole.table, job.path("evaluate", "languages"), mapper=mapper
            )
        except InputError as error:
            labels = baseline_labels(list(asked), [c.name for c in job.recipe.annotate.criteria])
            unable |= dict.fromkeys(labels, str(error))
        else:
            language_notes(languages, corpus.columns.language or "", notes)
    return Common(shares=shares, languages=languages, unable=unable)


def _find_shares(job: Job, mix: Mix, pool: TokenPool, proposal: Proposal, notes: StageNotes) -> Floats:
    """Search RegMix's mixture; SearchError where that fails."""
    domains, trials = len(mix.full.domains), job.recipe.evaluate.regmix_trials
    if trials < 2 * domains:
        notes.warnings.append(
            f"evaluate.regmix_trials is {trials} for {domains} domains: with fewer than {2 * domains} RegMix "
            "has too little to learn from; its place in the comparison says little about the method"
        )
    return _regmix(job, mix, pool, notes, proposal)


def prepare(
    job: Job, corpus: Corpus, mix: Mix, plan: RungPlan, common: Common,
    halves: Mapping[str, Sequence[TargetText]], mapper: Mapped,
) -> Prepared:  # fmt: skip
    """Return what the rung's baselines need: what rungs share, and DSIR's weights of the rung's documents.

    DSIR learns from every row of the targets' files that neither judges nor shares a passage with a judge.
    """
    part = rung_part(job.recipe, mix, plan)
    languages = common.languages and common.languages.take(part.rows)
    prepared = Prepared(shares=common.shares, languages=languages, unable=common.unable)
    if "dsir" not in plan.baselines:
        return prepared
    folder = job.path("evaluate", f"dsir-{plan.pool_tokens}")
    try:
        known = steering_text(job.recipe.targets, halves, accept_test=job.recipe.run.accept_test_targets)
        weights = importance_weights(corpus, part.table, known, folder, mapper=mapper)
    except InputError as error:
        return replace(prepared, unable={**common.unable, "dsir": str(error)})
    return replace(prepared, importance=weights)


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
