"""The stages that train: swarm, search, confirmation, RegMix's own swarm, the final comparison."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from quadmix.errors import BudgetError, RefusalError
from quadmix.evaluate import baselines
from quadmix.evaluate.compare import compare, regmix_mixture
from quadmix.io.atomic import read_json, read_value, value_digest, write_json
from quadmix.mixing.prior import draw_theta, prior_mean
from quadmix.pipeline.folder import Job, StageNotes, library_versions, stage
from quadmix.pipeline.mix import Mix, Part, scatter
from quadmix.pipeline.place import even_group, fitting, training_place, wanted_group
from quadmix.pipeline.plan import model_counts
from quadmix.proxy.pool import TokenPool
from quadmix.proxy.setting import ProxyJob, ProxySetting
from quadmix.proxy.swarm import run_swarm
from quadmix.recipe import ModelSection, TrainingSection
from quadmix.rng import derived_seed, stream
from quadmix.search.confirm import decide
from quadmix.search.propose import SearchContext, propose
from quadmix.types import Comparison, Confirmation, Copies, Floats, Proposal, Theta, Trial

CONTROL = "prior-mean"
_APART = 10_000  # first seed of trials that share nothing


def train_swarm(job: Job, mix: Mix, pool: TokenPool) -> list[Trial]:
    """Train one proxy per random θ (Algorithm 1) and repeats of the prior mean, all on equal tokens."""
    section = job.recipe.proxy
    with stage(job, "swarm") as notes:
        part = mix.part(mix.proxy_share(section.training.tokens, section.pool))
        drawn = _draw_fitted(job, mix, part, section.trials, notes)
        jobs = [swarm_job(pool, mix, part, theta, i, section.common) for i, theta in enumerate(drawn)]
        centre = part.calibrate(prior_mean(mix.prior))
        jobs += [_theta_job(pool, mix, part, f"repeat-{i:02d}", "repeat", "repeat", centre, 1 + i)
                 for i in range(section.repeats)]  # fmt: skip
        trials = _train(job, "swarm", jobs, proxy_setting(job, mix, pool), notes)
        notes.facts = {"trials": len(trials), "train_tokens": section.training.tokens}
    return trials


def swarm_job(
    pool: TokenPool, mix: Mix, part: Part, theta: Theta, trial: int, common: Sequence[str], seed: int = 0
) -> ProxyJob:
    """Return the job of one random θ. What is not `common` (init, order, draw) is the trial's own."""
    own = _APART * (seed + 1) + trial
    draw = seed if "draw" in common else own
    job = _theta_job(pool, mix, part, f"prior-{trial:04d}", "prior", "prior", theta, draw)
    seeds = {True: derived_seed(mix.seed, "model", seed), False: derived_seed(mix.seed, "model", own)}
    return replace(job, seed=seeds["init" in common], order_seed=seeds["order" in common])


def _draw_fitted(job: Job, mix: Mix, part: Part, count: int, notes: StageNotes) -> list[Theta]:
    """Return `count` random θ fitted to the budget; draws that cannot meet it are drawn again and counted."""
    rng, fitted, missed, reason = stream(job.recipe.seed, "prior"), list[Theta](), 0, ""
    while len(fitted) < count:
        try:
            fitted.append(part.calibrate(draw_theta(rng, mix.prior, 1)[0]))
        except BudgetError as error:
            missed, reason = missed + 1, str(error)
            if missed > 20 * count:
                raise BudgetError(
                    f"{missed} of {missed + len(fitted)} random θ cannot meet it: {reason}"
                ) from error
    if missed:
        notes.warnings.append(f"{missed} random θ could not meet the budget and were drawn again: {reason}")
    return fitted


def search(job: Job, mix: Mix, trials: Sequence[Trial]) -> Proposal:
    """Learn how θ moves the target losses and propose θ* (mean of the best draws, paper §3.12).

    A proposal that was made from the same trials, settings and libraries is loaded.
    """
    key = value_digest([list(trials), job.recipe.search.model_dump(mode="json"), library_versions()])
    file, key_file = job.path("search", "proposal.json"), job.path("search", "key.json")
    with stage(job, "search") as notes:
        if file.exists() and key_file.exists() and read_json(key_file) == key:
            proposal = read_value(file, Proposal)
        else:
            with job.progress.stage("search", 1, "proposal"):
                proposal = propose(trials, _search_context(job, mix), job.recipe.search)
            write_json(file, proposal)
            write_json(key_file, key)  # after it: a key may never vouch for an older proposal
        notes.warnings += list(proposal.warnings)
        notes.facts = {"trials_used": proposal.trials_used, "excluded": proposal.trials_excluded}
    return proposal


def _search_context(job: Job, mix: Mix) -> SearchContext:
    section = job.recipe.proxy
    part = mix.part(mix.proxy_share(section.training.tokens, section.pool))
    return SearchContext(
        annotations=part.table,
        normalised=part.normalised,
        prior=mix.prior,
        fit=part.calibrate,
        seed=job.recipe.seed,
        target_weights={t.name: t.weight for t in job.recipe.targets},
        planned=section.trials,
    )


def confirm(job: Job, mix: Mix, pool: TokenPool, proposal: Proposal) -> Confirmation:
    """Train the proposal, runners-up and the prior mean fresh with several seeds; the best measured wins."""
    section = job.recipe.confirm
    with stage(job, "confirm") as notes:
        proxy = job.recipe.proxy
        part = mix.part(mix.proxy_share(proxy.training.tokens, proxy.pool))
        chosen = [c for c in proposal.candidates if c.name != CONTROL][: 1 + section.runners_up]
        control = next(c for c in proposal.candidates if c.name == CONTROL)
        jobs = [
            _theta_job(
                pool, mix, part, f"confirm-{c.name}-{s}", "confirm", c.name, part.calibrate(c.theta), 100 + s
            )
            for s in range(section.seeds)
            for c in [*chosen, control]
        ]
        trials = _train(job, "confirm", jobs, proxy_setting(job, mix, pool), notes)
        confirmation = decide(proposal, trials, control=CONTROL)
        write_json(job.path("search", "confirm.json"), confirmation)
        if not confirmation.confirmed:
            notes.warnings.append(f"not confirmed: {confirmation.reason}")
    if not confirmation.confirmed and not job.recipe.run.accept_unconfirmed:
        raise RefusalError(
            f"{confirmation.reason}. Nothing was written. Train longer or more proxies, or write the "
            f"winner {confirmation.winner!r} all the same with --accept-unconfirmed"
        )
    return confirmation


def final_theta(mix: Mix, confirmation: Confirmation) -> Theta:
    """Return the winner's θ calibrated to the budget of the whole pool."""
    return mix.whole.calibrate(confirmation.theta)


def evaluate(
    job: Job, mix: Mix, pool: TokenPool, proposal: Proposal, confirmation: Confirmation
) -> Comparison:
    """Train a larger model on the chosen data and on every baseline, equal tokens, several seeds."""
    section = job.recipe.evaluate
    from quadmix.proxy.model import parameter_count

    with stage(job, "evaluate") as notes:
        mixture = _regmix(job, mix, pool, notes, proposal) if "regmix" in section.baselines else None
        part = mix.part(mix.proxy_share(section.training.tokens, job.recipe.proxy.pool))
        jobs: list[ProxyJob] = []
        for seed in range(section.seeds):
            for label, theta, copies in _contestants(job, mix, part, confirmation, seed, mixture):
                jobs.append(_copies_job(pool, mix, part, f"compare-{label}-{seed}", "compare", label, theta,
                                        copies, 1000 + seed))  # fmt: skip
        setting = setting_for(job, mix, pool, section.model, section.training, judge=True)
        trials = _train(job, "evaluate", jobs, setting, notes, folder="evaluate/trials")
        comparison = compare(
            trials, proposal, confirmation, train_tokens=setting.tokens,
            pool_share=_token_share(part, mix), proxies=_proxies(job),
            parameters=parameter_count(section.model, setting.vocab_size),
        )  # fmt: skip
        write_json(job.path("evaluate", "comparison.json"), comparison)
    return comparison


def _proxies(job: Job) -> dict[str, int]:
    """Return how many proxies each searched selector has had trained to find its mixture."""
    counts = model_counts(job.recipe)
    return {"quadmix": counts["swarm"] + counts["confirm"], "regmix": counts["regmix"]}


def _token_share(part: Part, mix: Mix) -> float:
    whole = mix.whole.table.tokens.sum(dtype=np.float64)
    return float(part.table.tokens.sum(dtype=np.float64) / whole)


def proxy_setting(job: Job, mix: Mix, pool: TokenPool) -> ProxySetting:
    """Return how this run's proxies are trained."""
    return setting_for(job, mix, pool, job.recipe.proxy.model, job.recipe.proxy.training)


def setting_for(
    job: Job,
    mix: Mix,
    pool: TokenPool,
    model: ModelSection,
    training: TrainingSection,
    *,
    judge: bool = False,
) -> ProxySetting:
    """Return a training setting over this run's pool. Comparison models are judged by the other half of
    every target and by held-out text, which neither chose nor trained anything."""
    return ProxySetting(
        pool=str(job.path("pool")),
        targets=str(job.path("judges" if judge else "targets")),
        heldout=str(job.path("heldout")) if judge else None,
        model=model,
        training=training,
        vocab_size=model.padded(pool.manifest.vocab_size),
        domains=mix.full.domains,
        device=job.recipe.run.device,
        checkpoint_seconds=job.recipe.run.checkpoint_seconds,
    )


def _contestants(
    job: Job, mix: Mix, part: Part, confirmation: Confirmation, seed: int, mixture: Floats | None
) -> list[tuple[str, Theta | None, Copies]]:
    wanted = set(job.recipe.evaluate.baselines)
    draw = derived_seed(job.recipe.seed, "baseline", seed)
    theta = part.calibrate(confirmation.theta)
    out: list[tuple[str, Theta | None, Copies]] = [("quadmix", theta, part.select(theta, 1000 + seed).copies)]
    if "prior-mean" in wanted:
        centre = part.calibrate(prior_mean(mix.prior))
        out.append((CONTROL, centre, part.select(centre, 1000 + seed).copies))
    if "random" in wanted:
        out.append(("random", None, baselines.random_copies(part.table, part.budget, seed=draw)))
    if "criteria" in wanted:
        for n, criterion in enumerate(part.table.criteria):
            copies = baselines.top_copies(part.table, part.normalised, n, part.budget, seed=draw)
            out.append((f"top:{criterion.name}", None, copies))
    if mixture is not None:
        out.append(("regmix", None, baselines.mixture_copies(mixture, part.table, part.budget, seed=draw)))
    return out


def _regmix(job: Job, mix: Mix, pool: TokenPool, notes: StageNotes, proposal: Proposal) -> Floats:
    """Train RegMix's own domain-only swarm at proxy size and return the shares that it finds."""
    proxy = job.recipe.proxy
    part = mix.part(mix.proxy_share(proxy.training.tokens, proxy.pool))
    rng = stream(job.recipe.seed, "regmix")
    tokens = part.table.domain_tokens()
    mixtures = baselines.draw_mixtures(rng, tokens, part.budget, job.recipe.evaluate.regmix_trials)
    draw = derived_seed(job.recipe.seed, "regmix-draw")
    jobs = [
        _copies_job(pool, mix, part, f"regmix-{i:04d}", "regmix", "regmix", None,
                    baselines.mixture_copies(m, part.table, part.budget, seed=draw), 0)
        for i, m in enumerate(mixtures)
    ]  # fmt: skip
    trials = _train(job, "regmix", jobs, proxy_setting(job, mix, pool), notes)
    pool_draws = baselines.draw_mixtures(rng, tokens, part.budget, job.recipe.search.candidates)
    shares, report = regmix_mixture(
        trials, mixtures, pool_draws, proposal.target_weights, seed=job.recipe.seed
    )
    notes.facts["regmix"] = {"shares": dict(zip(part.table.domains, shares, strict=True)), **report}
    return shares


def _train(
    job: Job,
    name: str,
    jobs: Sequence[ProxyJob],
    setting: ProxySetting,
    notes: StageNotes,
    *,
    folder: str = "trials",
) -> list[Trial]:
    """Train all jobs of one stage and note what failed."""
    run = job.recipe.run
    wanted = wanted_group(job.recipe.proxy.group, run)
    group = _chosen_group(job, name, setting, wanted)
    if group < wanted:
        notes.warnings.append(
            f"{group} models are trained together, not {wanted}: more do not fit into memory beside "
            "the other workers; last digits of the losses depend on it"
        )
    group = even_group(len(jobs), group)
    with job.progress.stage(name, len(jobs), "models") as step:
        trials = run_swarm(
            jobs, setting, folder=str(job.path(folder)), group=group,
            place=training_place(run), save_weights=job.recipe.proxy.save_weights,
            on_trial=lambda _trial: step.advance(), on_partial=step.partly,
        )  # fmt: skip
    for trial in trials:
        if trial.status == "failed":
            notes.warnings.append(f"trial {trial.trial_id} failed: {trial.reason}")
    planned = [min(group, len(jobs) - i // group * group) for i in range(len(jobs))]
    halved = [t.group for t, size in zip(trials, planned, strict=True) if 0 < t.group < size]
    if halved:
        notes.warnings.append(f"memory ran out: {len(halved)} models were trained in groups of {min(halved)}")
    return trials


def _chosen_group(job: Job, name: str, setting: ProxySetting, wanted: int) -> int:
    """Return the group size of a stage, the same after a kill whatever memory is free then."""
    file = job.path("trials", ".groups.json")
    chosen: dict[str, int] = read_json(file) if file.exists() else {}
    if name not in chosen:
        chosen[name] = fitting(setting, wanted, job.recipe.run)
        write_json(file, chosen)
    return chosen[name]


def _theta_job(
    pool: TokenPool, mix: Mix, part: Part, trial_id: str, kind: str, label: str, theta: Theta, seed: int
) -> ProxyJob:
    copies = part.select(theta, seed).copies
    return _copies_job(pool, mix, part, trial_id, kind, label, theta, copies, seed)


def _copies_job(
    pool: TokenPool, mix: Mix, part: Part, trial_id: str, kind: str, label: str, theta: Theta | None,
    copies: Copies, seed: int,
) -> ProxyJob:  # fmt: skip
    """Turn copies over a part of the selectable table into copies over the token pool's documents."""
    selectable = np.flatnonzero(mix.excluded == 0)
    over_full = np.zeros(len(mix.full), dtype=np.int32)
    over_full[selectable] = scatter(part, copies, len(selectable))
    return ProxyJob(
        trial_id=trial_id, kind=kind, label=label, theta=theta,
        seed=derived_seed(mix.seed, "model", seed), order_seed=derived_seed(mix.seed, "model", seed),
        copies=over_full[pool.rows],
    )  # fmt: skip
