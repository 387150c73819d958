"""Train many jobs in groups, one worker per group at a time; every trial is a file.

In: jobs in order, the setting. Out: their trials in order, each committed to `folder`/<trial_id>.json. A
group whose files all exist is read, not trained (promise P6); one that was killed goes on from its last
checkpoint. Groups depend on the job order alone, and a worker always computes with one thread, so the number
of workers changes nothing (promise P7).
"""

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import xxhash

from quadmix.engine.tasks import LOCAL, Place, run_tasks
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
    save_weights: bool
    at_most: int = 1 << 30  # models to train together, after workers died of more

    @property
    def name(self) -> str:
        return self.jobs[0].trial_id

    @property
    def checkpoint(self) -> Path:
        return Path(self.folder, f".group-{self.name}-{len(self.jobs)}.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who is told how a swarm gets on, beside every trial. partial: about every second, how many models' work
    is done inside the groups in training. loaded: of every trial that was on disk already. retried: how many
    models are given out again, because their worker died."""

    partial: Callable[[float], None]
    loaded: Callable[[Trial], None]
    retried: Callable[[int], None]


def _nobody(_what: object) -> None:
    pass


def run_swarm(
    jobs: Sequence[ProxyJob],
    setting: ProxySetting,
    *,
    folder: str | Path,
    group: int,
    place: Place = LOCAL,
    save_weights: bool = False,
    whole: Callable[[str], bool] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    watch: Watch | None = None,
) -> list[Trial]:
    """Train all jobs, `group` at a time, and return their trials in the order of the jobs.

    A group is loaded when all its trials lie in `folder`, made from the same jobs; trials that failed
    for want of memory and the like are trained again, trials that diverged are not. A group that does not
    fit into memory is halved until it does; a trial says how many were trained together.

    whole: says of a finished trial whether all that is kept of it is there; if not, it is trained again.
    on_trial is called in this process for every trial, first for those already on disk, which a watch is
    told of instead.
    """
    _check_names(jobs)
    path, tell = Path(folder), on_trial or _nobody
    watch = watch or Watch(partial=_nobody, loaded=tell, retried=_nobody)
    trials: dict[str, Trial] = {}
    todo: list[_Group] = []
    for start in range(0, len(jobs), group):
        part = tuple(jobs[start : start + group])
        stored = [_stored(path, job, setting, whole) for job in part]
        if all(trial is not None for trial in stored):
            for trial in filter(None, stored):
                trials[trial.trial_id] = trial
                watch.loaded(trial)
        else:
            todo.append(_Group(jobs=part, setting=setting, folder=str(path), save_weights=save_weights))

    def arrived(index: int, done: list[Trial]) -> None:
        for trial in done:
            write_json(path / f"{trial.trial_id}.json", trial)
            trials[trial.trial_id] = trial
            tell(trial)
        for job in todo[index].jobs:  # halves of the group have checkpoints of their own
            for checkpoint in path.glob(f".group-{glob.escape(job.trial_id)}-*.safetensors"):
                checkpoint.unlink()

    def died(task: _Group, deaths: int) -> _Group:
        watch.retried(len(task.jobs))
        return _smaller(task, deaths)

    sizes = {task.name: len(task.jobs) for task in todo}
    with watching(path, sizes, watch.partial):
        run_tasks(train_task, todo, place=place, on_done=arrived, on_death=died)
    return [trials[job.trial_id] for job in jobs]


def _smaller(task: _Group, deaths: int) -> _Group:
    """Train a group in quarters after two deaths of its worker: how the kernel says that memory is out."""
    return task if deaths < 2 else replace(task, at_most=max(1, len(task.jobs) // 4))


def train_task(task: _Group) -> list[Trial]:
    """Train one group with one thread; what torch cannot do becomes failed trials."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "proxy", "training proxies") from error
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with beating(Path(task.folder), task.name) as tell:
            trials = _train_fitting(task, tell)
    finally:
        torch.set_num_threads(threads)
    return [replace(t, job=job_digest(j, task.setting)) for t, j in zip(trials, task.jobs, strict=True)]


def _train_fitting(task: _Group, tell: Callable[[float], None]) -> list[Trial]:
    """Train a group; where memory does not suffice, its halves one after the other."""
    from quadmix.proxy.device import is_out_of_memory
    from quadmix.proxy.group import train_group
    from quadmix.proxy.memory import release

    if len(task.jobs) > task.at_most:
        return _halves(task, tell)
    key = value_digest([job_digest(job, task.setting) for job in task.jobs])
    try:
        return train_group(
            task.jobs, task.setting, tell, checkpoint=str(task.checkpoint), key=key,
            save_to=str(Path(task.folder, "weights")) if task.save_weights else None,
        )  # fmt: skip
    except (RuntimeError, MemoryError) as error:
        failure, full = _said(error), is_out_of_memory(error)
    # outside the handler: the error's trace holds the tensors that filled the memory
    release()
    task.checkpoint.unlink(missing_ok=True)
    if full and len(task.jobs) > 1:
        return _halves(task, tell)
    return _failed(task, f"{failure}{_shortage(task.setting) if full else ''}")


def _halves(task: _Group, tell: Callable[[float], None]) -> list[Trial]:
    middle = len(task.jobs) // 2
    halves = [replace(task, jobs=task.jobs[:middle]), replace(task, jobs=task.jobs[middle:])]
    return [trial for half in halves for trial in _train_fitting(half, tell)]


def _said(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else "no message"
    return f"{type(error).__name__}: {text}"[:300]


def _shortage(setting: ProxySetting) -> str:
    from quadmix.proxy.device import choose_device
    from quadmix.proxy.memory import available_bytes, group_bytes

    need, free = group_bytes(setting, 1), available_bytes(choose_device(setting.device))
    return (
        f"; one model needs about {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are free: use fewer workers, a "
        "smaller training.micro_batch, model or vocabulary"
    )


def _failed(task: _Group, reason: str) -> list[Trial]:
    from quadmix.proxy.group import failed_trial
    from quadmix.proxy.pool import open_pool

    pool = open_pool(task.setting.pool)
    return [failed_trial(job, _ENVIRONMENT + reason, pool, task.setting) for job in task.jobs]


def job_digest(job: ProxyJob, setting: ProxySetting) -> str:
    """Return the digest of what a trial is made from: θ, seed, copies, model, training, pool, targets."""
    data = [Path(p, "manifest.json") for p in (setting.pool, setting.targets, setting.heldout) if p]
    return value_digest(
        [
            job.kind, job.label, job.theta, job.seed, job.order_seed,
            xxhash.xxh3_128_hexdigest(job.copies.tobytes()),
            setting.model.model_dump(), setting.training.model_dump(), setting.vocab_size,
            [file_digest(f) for f in data if f.exists()],
        ]
    )  # fmt: skip


def _stored(
    folder: Path, job: ProxyJob, setting: ProxySetting, whole: Callable[[str], bool] | None
) -> Trial | None:
    file = folder / f"{job.trial_id}.json"
    if not file.exists():
        return None
    trial = read_value(file, Trial)
    if whole is not None and trial.status == "done" and not whole(trial.trial_id):
        return None
    stale = trial.job != job_digest(job, setting) or trial.reason.startswith(_ENVIRONMENT)
    return None if stale else trial


def _check_names(jobs: Sequence[ProxyJob]) -> None:
    names = [job.trial_id for job in jobs]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"trial id {twice!r} is used by two jobs; expected distinct ids")
