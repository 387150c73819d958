"""Training jobs and the final comparison with RegMix's own swarm; swarm, search and confirmation have files
of their own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from quadmix.evaluate import baselines
from quadmix.evaluate.compare import compare, regmix_mixture
from quadmix.io.atomic import read_json, write_json
from quadmix.io.trials import apply_dropped
from quadmix.mixing.prior import prior_mean
from quadmix.pipeline.folder import Job, StageNotes, stage
from quadmix.pipeline.mix import Mix, Part, scatter
from quadmix.pipeline.place import even_group, fitting, training_place, wanted_group
from quadmix.pipeline.plan import model_counts
from quadmix.proxy.pool import TokenPool
from quadmix.proxy.setting import ProxyJob, ProxySetting
from quadmix.proxy.swarm import run_swarm
from quadmix.recipe import ModelSection, TrainingSection
from quadmix.rng import derived_seed, stream
from quadmix.types import Comparison, Confirmation, Copies, Floats, Proposal, Theta, Trial

CONTROL = "prior-mean"
_APART = 10_000  # first seed of trials that share nothing


def swarm_job(
    pool: TokenPool, mix: Mix, part: Part, theta: Theta, trial: int, common: Sequence[str], seed: int = 0
) -> ProxyJob:
    """Return the job of one random θ. What is not `common` (init, order, draw) is the trial's own."""
    own = _APART * (seed + 1) + trial
    draw = seed if "draw" in common else own
    job = theta_job(pool, mix, part, f"prior-{trial:04d}", "prior", "prior", theta, draw)
    seeds = {True: derived_seed(mix.seed, "model", seed), False: derived_seed(mix.seed, "model", own)}
    return replace(job, seed=seeds["init" in common], order_seed=seeds["order" in common])


def repeat_jobs(pool: TokenPool, mix: Mix, part: Part, theta: Theta, count: int) -> list[ProxyJob]:
    """Return jobs of one θ that share nothing but the data: their spread is the noise of a trial."""
    return [
        theta_job(pool, mix, part, f"repeat-{i:02d}", "repeat", "repeat", theta, 1 + i) for i in range(count)
    ]


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
        trials = train_jobs(job, "evaluate", jobs, setting, notes, folder="evaluate/trials")
        comparison = compare(
            trials, proposal, confirmation, train_tokens=setting.tokens,
            pool_share=_token_share(part, mix), proxies=_proxies(job),
            parameters=parameter_count(section.model, setting.vocab_size),
        )  # fmt: skip
        write_json(job.path("evaluate", "comparison.json"), comparison)
    return comparison


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
    done = train_jobs(job, "regmix", jobs, proxy_setting(job, mix, pool), notes)
    trials = apply_dropped(job.folder, done)
    pool_draws = baselines.draw_mixtures(rng, tokens, part.budget, min(job.recipe.search.candidates, 20_000))
    shares, report = regmix_mixture(trials, mixtures, pool_draws, proposal.objective, seed=job.recipe.seed)
    notes.facts["regmix"] = {"shares": dict(zip(part.table.domains, shares, strict=True)), **report}
    return shares


def train_jobs(
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


def theta_job(
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
