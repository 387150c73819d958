"""What a group of proxies needs in memory, what is free, and how many models therefore go together.

The estimate adds up what the trainer keeps: master weights, gradients, moments, their copies in the compute
type, and what backward needs per token. `benchmarks/swarm.py` prints it beside the measured peak.
"""

import gc
import os

import torch

from quadmix.errors import ProxyError
from quadmix.io.atomic import read_text
from quadmix.proxy.device import choose_device, choose_dtype
from quadmix.proxy.head import GPU_LOGITS, HEAD_ROWS
from quadmix.proxy.model import parameter_count
from quadmix.proxy.setting import ProxySetting

PROCESS_BYTES = 350_000_000  # a worker with torch loaded, before it trains
_SAFETY = 0.9  # of the free memory is used


def group_bytes(setting: ProxySetting, models: int) -> int:
    """Return about how many bytes one worker needs to train `models` models together."""
    model, training = setting.model, setting.training
    device = choose_device(setting.device)
    width = choose_dtype(training.precision, device).itemsize
    parameters = parameter_count(model, setting.vocab_size, len(setting.domains))
    matrices = model.layers * (4 * model.width**2 + 3 * model.width * model.mlp)
    tables = parameters - matrices
    # master, gradient, first moment, second moment (of what AdamW trains); the change, held for one tensor
    state = 4 * (3 * parameters + (parameters if training.optimizer == "adamw" else tables))
    state += 4 * parameters * (training.average != "none") + width * parameters
    scratch = 4 * 3 * max(tables, matrices // 2)  # gradients of head and lookup, terms of the update
    per_token = model.layers * (14 * model.width + 6 * model.mlp) * width + 12 * model.width * width
    per_token += model.layers * 2 * model.mlp * width * (model.gates != "none")  # factors and what they scale
    if device.type == "cpu" and model.context <= 512:
        per_token += 3 * model.layers * model.heads * model.context * width  # the scores of plain attention
    tokens = training.batch // training.passes(model.context) * model.context
    logits = HEAD_ROWS * setting.vocab_size
    if device.type == "cuda":  # of all models at once
        logits = max(models * logits, min(GPU_LOGITS, models * tokens * setting.vocab_size))
    return models * (state + scratch + per_token * tokens) + 4 * logits * width


def available_bytes(device: torch.device) -> int:
    """Return the memory that is free on the device (on CPU: what the kernel and the cgroup would give)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(_meminfo(pages), _cgroup())


def fitting_group(setting: ProxySetting, group: int, workers: int) -> int:
    """Return how many models, at most `group`, each of `workers` workers can train together in what is free.

    Raises ProxyError with the numbers when not even one fits.
    """
    device = choose_device(setting.device)
    own = PROCESS_BYTES if device.type == "cpu" else 0
    share = int(_SAFETY * available_bytes(device)) // workers - own
    fits = [k for k in range(group, 0, -1) if group_bytes(setting, k) <= share]
    if not fits:
        need = group_bytes(setting, 1)
        raise ProxyError(
            f"one model of {parameter_count(setting.model, setting.vocab_size):,} parameters needs about "
            f"{need / 1e9:.2f} GB to train, each of {workers} workers has {max(share, 0) / 1e9:.2f} GB on "
            f"{device.type}: use fewer workers (run.workers), a smaller training.micro_batch, model or "
            "vocabulary"
        )
    return fits[0]


def release() -> None:
    """Give back what a failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _meminfo(default: int) -> int:
    """Return MemAvailable of /proc/meminfo (free and reclaimable), or `default` where there is none."""
    try:
        lines = read_text("/proc/meminfo").splitlines()
    except OSError:
        return default
    kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return default if kilobytes is None else int(kilobytes) * 1024


def _cgroup() -> int:
    """Return what the container's limit leaves, or a huge number without one."""
    try:
        limit = read_text("/sys/fs/cgroup/memory.max").strip()
        used = int(read_text("/sys/fs/cgroup/memory.current"))
    except (OSError, ValueError):
        return 1 << 62
    return 1 << 62 if limit == "max" else max(0, int(limit) - used)
