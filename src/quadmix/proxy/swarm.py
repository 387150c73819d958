"""Train many jobs in groups, one worker process per group at a time; every trial is a file.

In: jobs in order, the setting. Out: their trials in order, each committed to `folder`/<trial_id>.json. A
group whose files all exist is read, not trained (promise P6). Groups depend on the job order alone, and a
worker always computes with one thread, so the number of workers changes nothing (promise P7).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import xxhash

from quadmix.engine.tasks import run_tasks
from quadmix.errors import InputError, MissingExtraError
from quadmix.io.atomic import file_digest, read_value, value_digest, write_json
from quadmix.proxy.heartbeat import beating, watching
from quadmix.proxy.setting import ProxyJob, ProxySetting
from quadmix.types import Trial

_ENVIRONMENT = "could not train: "  # begins the reason of a failure that another try may not meet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Group:
    jobs: tuple[ProxyJob, ...]
    setting: ProxySetting
    folder: str

    @property
    def name(self) -> str:
        return self.jobs[0].trial_id


def run_swarm(
    jobs: Sequence[ProxyJob],
    setting: ProxySetting,
    *,
    folder: str | Path,
    group: int,
    executor: Literal["serial", "processes"] = "processes",
    workers: int = 1,
    on_trial: Callable[[Trial], None] | None = None,
    on_partial: Callable[[float], None] | None = None,
) -> list[Trial]:
    """Train all jobs, `group` at a time, and return their trials in the order of the jobs.

    A group is loaded when all its trials lie in `folder`, made from the same jobs; trials that failed
    for want of memory and the like are trained again, trials that diverged are not.

    on_trial is called in this process for every trial, first for those already on disk; on_partial
    about every second with how many models' work is done inside the groups that are in training.
    """
    _check_names(jobs)
    path, tell = Path(folder), on_trial or (lambda _: None)
    trials: dict[str, Trial] = {}
    todo: list[_Group] = []
    for start in range(0, len(jobs), group):
        part = tuple(jobs[start : start + group])
        stored = [_stored(path, job, setting) for job in part]
        if all(trial is not None for trial in stored):
            for trial in filter(None, stored):
                trials[trial.trial_id] = trial
                tell(trial)
        else:
            todo.append(_Group(jobs=part, setting=setting, folder=str(path)))

    def arrived(_: int, done: list[Trial]) -> None:
        for trial in done:
            trials[trial.trial_id] = trial
            tell(trial)

    sizes = {task.name: len(task.jobs) for task in todo}
    with watching(path, sizes, on_partial or (lambda _: None)):
        run_tasks(train_and_save, todo, executor=executor, workers=workers, on_done=arrived)
    return [trials[job.trial_id] for job in jobs]


def train_and_save(task: _Group) -> list[Trial]:
    """Train one group with one thread and commit its trials; what torch cannot do becomes failed trials."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "proxy", "training proxies") from error
    from quadmix.proxy.pool import open_pool
    from quadmix.proxy.train import failed_trial, train_group

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with beating(Path(task.folder), task.name) as tell:
            trials = train_group(task.jobs, task.setting, tell)
    except (RuntimeError, MemoryError) as error:
        text = str(error).splitlines()[0] if str(error) else "no message"
        reason = f"{_ENVIRONMENT}{type(error).__name__}: {text}"
        pool = open_pool(task.setting.pool)
        trials = [failed_trial(job, reason[:500], pool, task.setting) for job in task.jobs]
    finally:
        torch.set_num_threads(threads)
    named = [replace(t, job=job_digest(j, task.setting)) for t, j in zip(trials, task.jobs, strict=True)]
    for trial in named:
        write_json(Path(task.folder, f"{trial.trial_id}.json"), trial)
    return named


def job_digest(job: ProxyJob, setting: ProxySetting) -> str:
    """Return the digest of what a trial is made from: θ, seed, copies, model, training, pool, targets."""
    data = [Path(p, "manifest.json") for p in (setting.pool, setting.targets, setting.heldout) if p]
    return value_digest(
        [
            job.kind, job.label, job.theta, job.seed, xxhash.xxh3_128_hexdigest(job.copies.tobytes()),
            setting.model.model_dump(), setting.training.model_dump(), setting.vocab_size,
            [file_digest(f) for f in data if f.exists()],
        ]
    )  # fmt: skip


def _stored(folder: Path, job: ProxyJob, setting: ProxySetting) -> Trial | None:
    file = _file(folder, job)
    if not file.exists():
        return None
    trial = read_value(file, Trial)
    stale = trial.job != job_digest(job, setting) or trial.reason.startswith(_ENVIRONMENT)
    return None if stale else trial


def _file(folder: Path, job: ProxyJob) -> Path:
    return folder / f"{job.trial_id}.json"


def _check_names(jobs: Sequence[ProxyJob]) -> None:
    names = [job.trial_id for job in jobs]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"trial id {twice!r} is used by two jobs; expected distinct ids")
