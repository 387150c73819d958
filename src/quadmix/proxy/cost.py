"""What a swarm will cost: the measured speed of one worker, and seconds for many jobs.

In: the setting. Out: training tokens per second (all models of a group together) and an estimate.
`parameter_count` and `flops_per_token` are in `quadmix.proxy.model`.
"""

import time
from pathlib import Path

import torch

from quadmix.io.atomic import read_value
from quadmix.proxy.model import initial_weights
from quadmix.proxy.optim import Optimizer, update
from quadmix.proxy.setting import ProxySetting
from quadmix.proxy.targets import TargetManifest
from quadmix.proxy.train import choose_device, choose_dtype, gradients

_EVALUATION = 0.3  # a token evaluated costs about this part of a token trained


def measure_speed(setting: ProxySetting, *, group: int = 8, seconds: float = 3.0) -> float:
    """Train `group` models on random tokens for about `seconds` with one thread; return tokens per second.

    The folders of the setting need not exist.
    """
    device = choose_device()
    dtype = choose_dtype(setting.training.precision, device)
    weights = initial_weights(setting.model, setting.vocab_size, [0] * group, device)
    optimizer = Optimizer.start(weights, setting.training, dtype)
    shape = (group, setting.training.batch, setting.model.context + 1)
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(setting.vocab_size, shape, generator=generator).to(device)
    alive = torch.ones(group, dtype=torch.bool, device=device)
    rate = torch.full((group,), 1e-4, device=device)
    threads, steps, started = torch.get_num_threads(), -1, 0.0
    torch.set_num_threads(1)
    try:
        while steps < 1 or time.perf_counter() - started < seconds:
            gradients(weights, batch, setting, dtype)
            update(weights, optimizer, rate, alive)
            for tensor in weights.all():
                tensor.grad = None
            steps += 1
            if steps == 0:  # the first step pays for warm-up
                float(weights.embedding.detach()[0, 0, 0])
                started = time.perf_counter()
        float(weights.embedding.detach()[0, 0, 0])  # waits for a GPU
        return (
            steps * group * setting.training.batch * setting.model.context / (time.perf_counter() - started)
        )
    finally:
        torch.set_num_threads(threads)


def estimate_seconds(
    setting: ProxySetting, jobs: int, tokens_per_second: float, *, workers: int = 1
) -> float:
    """Return seconds to train and evaluate `jobs` models over `workers` workers of that speed each.

    Evaluation is counted where the target folders exist already.
    """
    tokens = setting.tokens + _EVALUATION * sum(_window_tokens(f) for f in (setting.targets, setting.heldout))
    return jobs * tokens / (tokens_per_second * workers)


def _window_tokens(folder: str | None) -> int:
    manifest = Path(folder or "", "manifest.json")
    if folder is None or not manifest.exists():
        return 0
    found = read_value(manifest, TargetManifest)
    return found.windows * found.context
