"""Train many jobs in groups, one worker process per group at a time; every trial is a file.

In: jobs in order, the setting. Out: their trials in order, each committed to `folder`/<trial_id>.json. A
group whose files all exist is read, not trained (promise P6). Groups depend on the job order alone, and a
worker always computes with one thread, so the number of workers changes nothing (promise P7).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quadmix.engine.tasks import run_tasks
from quadmix.errors import InputError, MissingExtraError
from quadmix.io.atomic import read_value, write_json
from quadmix.proxy.heartbeat import beating, watching
from quadmix.proxy.setting import ProxyJob, ProxySetting
from quadmix.types import Trial


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

    on_trial is called in this process for every trial, first for those already on disk; on_partial
    about every second with how many models' work is done inside the groups that are in training.
    """
    _check_names(jobs)
    path, tell = Path(folder), on_trial or (lambda _: None)
    trials: dict[str, Trial] = {}
    todo: list[_Group] = []
    for start in range(0, len(jobs), group):
        part = tuple(jobs[start : start + group])
        if all(_file(path, job).exists() for job in part):
            for job in part:
                trials[job.trial_id] = read_value(_file(path, job), Trial)
                tell(trials[job.trial_id])
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
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        pool = open_pool(task.setting.pool)
        trials = [failed_trial(job, reason[:500], pool, task.setting) for job in task.jobs]
    finally:
        torch.set_num_threads(threads)
    for trial in trials:
        write_json(Path(task.folder, f"{trial.trial_id}.json"), trial)
    return trials


def _file(folder: Path, job: ProxyJob) -> Path:
    return folder / f"{job.trial_id}.json"


def _check_names(jobs: Sequence[ProxyJob]) -> None:
    names = [job.trial_id for job in jobs]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"trial id {twice!r} is used by two jobs; expected distinct ids")
