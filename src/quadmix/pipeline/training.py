"""Training jobs: what a model of one mixture is trained on, and all models of a stage. Swarm, confirmation
and comparison have files of their own."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from quadmix.errors import BudgetError
from quadmix.io.atomic import read_json, value_digest, write_json
from quadmix.pipeline.folder import Job, StageNotes
from quadmix.pipeline.mix import Mix, Part, scatter
from quadmix.pipeline.place import even_group, fitting, grouped_by, training_place, wanted_group
from quadmix.proxy.pool import TokenPool
from quadmix.proxy.setting import ProxyJob, ProxySetting
from quadmix.proxy.swarm import Watch, run_swarm
from quadmix.recipe import ModelSection, TrainingSection
from quadmix.rng import derived_seed
from quadmix.types import Confirmation, Copies, Theta, Trial

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


def proxy_setting(job: Job, mix: Mix, pool: TokenPool) -> ProxySetting:
    """Return how this run's proxies are trained."""
    return setting_for(job, mix, pool, job.recipe.proxy.model, job.recipe.proxy.training)


def setting_for(
    job: Job, mix: Mix, pool: TokenPool, model: ModelSection, training: TrainingSection
) -> ProxySetting:
    """Return a training setting over this run's pool and the rows of the targets that steer the search."""
    return ProxySetting(
        pool=str(job.path("pool")),
        targets=str(job.path("targets")),
        heldout=None,
        model=model,
        training=training,
        vocab_size=model.padded(pool.manifest.vocab_size),
        domains=mix.full.domains,
        device=job.recipe.run.device,
        checkpoint_seconds=job.recipe.run.checkpoint_seconds,
    )


def train_jobs(
    job: Job,
    name: str,
    jobs: Sequence[ProxyJob],
    setting: ProxySetting,
    notes: StageNotes,
    *,
    folder: str = "trials",
    whole: Callable[[str], bool] | None = None,
    multiple: int = 0,
    save: bool | None = None,
) -> list[Trial]:
    """Train all jobs of one stage and note what failed.

    whole: keeps the models' weights, and says of a finished trial whether all that is kept of it is there; if
    not, it is trained again. multiple: groups hold this many models or multiples of it, so that jobs added
    at the end change no group before them. save: keep weights (left out: as the recipe says of proxies).
    """
    run = job.recipe.run
    wanted = wanted_group(job.recipe.proxy.group, run)
    group = _chosen_group(job, name, setting, wanted)
    if group < wanted:
        notes.warnings.append(
            f"{group} models are trained together, not {wanted}: more do not fit into memory beside "
            "the other workers; last digits of the losses depend on it"
        )
    group = grouped_by(group, multiple) if multiple else even_group(len(jobs), group)
    with job.progress.stage(name, len(jobs), "models", trains=setting.tokens) as step:
        trials = run_swarm(
            jobs, setting, folder=str(job.path(folder)), group=group,
            save_weights=whole is not None or (job.recipe.proxy.save_weights if save is None else save),
            whole=whole,
            place=training_place(run), on_trial=lambda trial: step.advance(failed=trial.status == "failed"),
            watch=Watch(
                partial=step.partly, retried=step.retry,
                loaded=lambda trial: step.load(failed=trial.status == "failed"),
            ),
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
    name = f"{name} {value_digest([setting.model.model_dump(), setting.training.model_dump()])[:12]}"
    if name not in chosen:
        chosen[name] = fitting(setting, wanted, job.recipe.run)
        write_json(file, chosen)
    return chosen[name]


def theta_job(
    pool: TokenPool, mix: Mix, part: Part, trial_id: str, kind: str, label: str, theta: Theta, seed: int
) -> ProxyJob:
    copies = part.select(theta, seed).copies
    return copies_job(pool, mix, part, trial_id, kind, label, theta, copies, seed)


def copies_job(
    pool: TokenPool, mix: Mix, part: Part, trial_id: str, kind: str, label: str, theta: Theta | None,
    copies: Copies, seed: int,
) -> ProxyJob:  # fmt: skip
    """Turn copies over a part of the selectable table into copies over the token pool's documents."""
    selectable = np.flatnonzero(mix.excluded == 0)
    over_full = np.zeros(len(mix.full), dtype=np.int32)
    over_full[selectable] = scatter(part, copies, len(selectable))
    if lost := int(over_full.sum() - over_full[pool.rows].sum()):
        raise BudgetError(
            f"{label}: {lost:,} of {int(over_full.sum()):,} selected copies are not in the token pool of "
            f"{len(pool):,} documents; expected a part of the documents that the pool holds"
        )
    return ProxyJob(
        trial_id=trial_id, kind=kind, label=label, theta=theta,
        seed=derived_seed(mix.seed, "model", seed), order_seed=derived_seed(mix.seed, "model", seed),
        copies=over_full[pool.rows],
    )  # fmt: skip
