"""What a swarm will cost: speed and memory of a worker, measured on this device, and seconds for many jobs.

Workers are measured all at once, as they will run, on made-up tokens of the real model; no folder is read.
`parameter_count` and `flops_per_token` are in `quadmix.proxy.model`.
"""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from quadmix.engine.tasks import Place, run_tasks
from quadmix.io.atomic import read_text, read_value
from quadmix.proxy.device import choose_device, choose_dtype
from quadmix.proxy.head import token_losses
from quadmix.proxy.memory import group_bytes
from quadmix.proxy.model import hidden_states
from quadmix.proxy.optim import update
from quadmix.proxy.setting import ProxySetting
from quadmix.proxy.targets import TargetManifest
from quadmix.proxy.train import start, stepper

_START_SECONDS = 4.0  # a worker starts and loads torch
_EVALUATED = 8  # sequences measured at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One worker while all are busy: training and evaluation tokens per second, all models of its group
    together; the peak of its memory in bytes (the process on CPU, the allocations on a GPU);
    where a whole group would take too long, fewer models are measured, the memory of the rest estimated."""

    training: float
    evaluation: float
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measurement:
    setting: ProxySetting
    group: int
    seconds: float


def measure_speed(setting: ProxySetting, *, group: int, seconds: float, place: Place) -> Speed:
    """Return the median over the workers of `place`, measured for about `seconds` each (Ray: two of them)."""
    if place.executor == "serial":
        place = replace(place, executor="processes")  # for a memory peak of its own
    workers = min(place.workers or 2, 2) if place.executor == "ray" else place.workers
    task = _Measurement(setting=setting, group=group, seconds=seconds)
    speeds = run_tasks(measure_here, [task] * workers, place=place)
    return Speed(
        training=median(s.training for s in speeds),
        evaluation=median(s.evaluation for s in speeds),
        peak_bytes=max(s.peak_bytes for s in speeds),
    )


def measure_here(task: _Measurement) -> Speed:
    """Measure in this process with one thread; its memory peak is the process's own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(task.setting, task.group, task.seconds)
    finally:
        torch.set_num_threads(threads)


def _measure(setting: ProxySetting, group: int, seconds: float) -> Speed:
    """A step is some equal passes and one update, so a pass and an update are measured apart; where that
    takes too long, with fewer models, then with fewer sequences (the cost is in proportion to them)."""
    whole_pass = setting.training.batch // setting.training.passes(setting.model.context)
    probe = _step_seconds(_with_batch(setting, 1), 1, 0.0)
    affordable = max(1, int(0.2 * seconds / max(probe, 1e-9)))  # sequences, over all models
    batch = min(whole_pass, affordable)
    models = max(1, min(group, affordable // batch))
    one = _with_batch(setting, batch)
    step = _step_seconds(one, models, 0.7 * seconds)
    state = start(one, [0] * models, choose_device(setting.device))
    dtype = choose_dtype(setting.training.precision, state.weights.embedding.device)
    for tensor in state.weights.named().values():
        tensor.grad = torch.zeros_like(tensor)
    rate = torch.zeros(models, device=state.weights.embedding.device)

    def renew() -> None:
        update(state.weights, state.optimizer, rate, state.progress.alive, training=one.training, dtype=dtype)

    change = min(step, _seconds_each(renew, 0.1 * seconds))
    whole = (step - change) * setting.training.batch / batch + change
    tokens = torch.zeros(models, _EVALUATED, setting.model.context, dtype=torch.int64, device=rate.device)

    @torch.no_grad()
    def evaluate() -> None:
        hidden = hidden_states(state.weights, tokens, setting.model, dtype)
        token_losses(hidden, state.weights.table, tokens[0].flatten())

    evaluation = models * _EVALUATED * setting.model.context / _seconds_each(evaluate, 0.1 * seconds)
    return Speed(
        training=models * setting.training.batch * setting.model.context / whole,
        evaluation=evaluation,
        peak_bytes=_peak(rate.device) + max(0, group_bytes(setting, group) - group_bytes(one, models)),
    )


def _with_batch(setting: ProxySetting, batch: int) -> ProxySetting:
    training = setting.training.model_copy(update={"batch": batch, "micro_batch": batch})
    return replace(setting, training=training)


def _step_seconds(setting: ProxySetting, models: int, seconds: float) -> float:
    device = choose_device(setting.device)
    state = start(setting, [0] * models, device)
    take = stepper(state, setting)
    generator = torch.Generator().manual_seed(0)
    shape = (models, setting.training.batch, setting.model.context + 1)
    batch = torch.randint(setting.vocab_size, shape, generator=generator).to(device)
    rate = torch.full((models,), 1e-4, device=device)
    return _seconds_each(lambda: take(batch, rate), seconds)


def _seconds_each(work: Callable[[], None], seconds: float) -> float:
    """Return the mean seconds of `work` over about `seconds` and at least one call, after warm-up."""
    for _ in range(5 if torch.cuda.is_available() else 1):
        work()
    _wait()
    begun, calls = time.perf_counter(), 0
    while calls < 1 or time.perf_counter() - begun < seconds:
        work()
        calls += 1
        _wait()
    return (time.perf_counter() - begun) / calls


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        lines = read_text("/proc/self/status").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):  # ru_maxrss of a worker begins at its parent's
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def swarm_seconds(
    setting: ProxySetting, jobs: int, speed: Speed, *, group: int, workers: int, evaluated: int | None = None
) -> float:
    """Return seconds to train and evaluate `jobs` models in groups over `workers` workers.

    evaluated: tokens that each is evaluated on; left out, what the target folders hold (0 without them).
    """
    if evaluated is None:
        evaluated = sum(_window_tokens(f) for f in (setting.targets, setting.heldout))
    groups = -(-jobs // group)
    one = jobs / groups * (setting.tokens / speed.training + evaluated / speed.evaluation)
    return _START_SECONDS + -(-groups // workers) * one


def _window_tokens(folder: str | None) -> int:
    manifest = Path(folder or "", "manifest.json")
    if folder is None or not manifest.exists():
        return 0
    found = read_value(manifest, TargetManifest)
    return found.windows * found.context
