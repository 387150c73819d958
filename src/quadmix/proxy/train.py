"""Train K proxies as one batched model and measure their losses.

In: jobs (copies per pool document, a seed) and the setting they share. Out: one `Trial` per job. A model
whose loss or gradient is not finite is frozen and becomes a failed trial; its neighbours never notice.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from quadmix.errors import ProxyError
from quadmix.proxy.losses import measure
from quadmix.proxy.model import Weights, head_loss, hidden_states, initial_weights
from quadmix.proxy.optim import Optimizer, clip_models, rate_factor, update
from quadmix.proxy.order import ClockStream, Windows
from quadmix.proxy.pool import TokenPool, open_pool
from quadmix.proxy.setting import ProxyJob, ProxySetting
from quadmix.proxy.targets import open_targets
from quadmix.types import Copies, Loss, Trial

_CURVE_POINTS = 20


@dataclass(slots=True, kw_only=True)
class Progress:
    """What happened to each model. alive: (K,) bool. died_at, loss, norm: (K,) the step of death and the
    values met there. total: (K,) nats since the last point of the curve. points: (step, K bits per token)."""

    alive: Tensor
    died_at: Tensor
    loss: Tensor
    norm: Tensor
    total: Tensor
    points: list[tuple[int, list[float]]] = field(default_factory=list[tuple[int, list[float]]])


def train_group(
    jobs: Sequence[ProxyJob], setting: ProxySetting, tell: Callable[[float], None] | None = None
) -> list[Trial]:
    """Train all jobs as one batch and return their trials in order; `tell` hears the share done."""
    started = time.monotonic()
    pool = open_pool(setting.pool)
    refused: dict[int, str] = {}
    streams: list[ClockStream] = []
    for index, job in enumerate(jobs):
        try:
            streams.append(ClockStream(pool, job.copies, job.seed))
        except ProxyError as error:
            refused[index] = str(error)
    trained = [job for index, job in enumerate(jobs) if index not in refused]
    done = iter(_train_streams(trained, streams, pool, setting, tell) if trained else [])
    trials = [
        failed_trial(job, refused[index], pool, setting) if index in refused else next(done)
        for index, job in enumerate(jobs)
    ]
    share = (time.monotonic() - started) / len(jobs)
    return [replace(trial, seconds=share) for trial in trials]


def choose_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the compute type: `auto` is bfloat16 where the hardware multiplies it."""
    if precision == "auto":
        capable = getattr(torch.cpu, "get_capabilities", dict)()  # absent before torch 2.10: float32
        fast = device.type == "cuda" or capable.get("avx512_bf16") or capable.get("amx_bf16")
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def train_weights(
    streams: Sequence[ClockStream],
    seeds: Sequence[int],
    setting: ProxySetting,
    rates: Tensor | None = None,
    tell: Callable[[float], None] | None = None,
) -> tuple[Weights, Progress]:
    """Train one model per stream. rates: (K,) peak learning rate of each model, the recipe's if left out."""
    device = choose_device()
    dtype = choose_dtype(setting.training.precision, device)
    weights = initial_weights(setting.model, setting.vocab_size, seeds, device)
    optimizer = Optimizer.start(weights, setting.training, dtype)
    windows = [Windows(s, setting.training.batch, setting.model.context) for s in streams]
    peak = torch.full((len(streams),), setting.training.peak_lr) if rates is None else rates
    progress = _start(len(streams), device)
    for step in range(setting.steps):
        batch = torch.from_numpy(np.stack([w.next_step() for w in windows])).to(device)
        rate = peak.to(device) * rate_factor(step, setting.steps, setting.training)
        loss, norm = gradients(weights, batch, setting, dtype)
        _watch(progress, step, loss, norm, setting.steps)
        update(weights, optimizer, rate, progress.alive)
        for tensor in weights.all():
            tensor.grad = None
        if tell:
            tell((step + 1) / setting.steps)
    return weights, progress


def _start(models: int, device: torch.device) -> Progress:
    zeros = torch.zeros(models, device=device)
    alive = torch.ones(models, dtype=torch.bool, device=device)
    return Progress(
        alive=alive, died_at=zeros.long(), loss=zeros.clone(), norm=zeros.clone(), total=zeros.clone()
    )


def gradients(
    weights: Weights, batch: Tensor, setting: ProxySetting, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Put clipped gradients into the weights; return loss and gradient norm (K,). batch: (K, B, T + 1)."""
    tokens, labels = batch[:, :, :-1], batch[:, :, 1:].flatten(1)
    hidden = hidden_states(weights, tokens, setting.model.heads, dtype)
    loss = head_loss(hidden, weights.embedding, labels)
    loss.sum().backward()
    return loss.detach(), clip_models(weights, setting.training.clip)


def _watch(progress: Progress, step: int, loss: Tensor, norm: Tensor, steps: int) -> None:
    """Mark models whose loss or gradient is not finite; note the curve. No value leaves the device here
    except at a point of the curve."""
    dies = progress.alive & ~(loss.isfinite() & norm.isfinite())
    progress.died_at.masked_fill_(dies, step)
    progress.loss = torch.where(dies, loss, progress.loss)
    progress.norm = torch.where(dies, norm, progress.norm)
    progress.alive &= ~dies
    progress.total += loss
    every = max(1, steps // _CURVE_POINTS)
    if (step + 1) % every == 0:
        bits = progress.total / every / math.log(2)
        progress.points.append((step + 1, bits.tolist()))
        progress.total.zero_()


def _train_streams(
    jobs: Sequence[ProxyJob],
    streams: Sequence[ClockStream],
    pool: TokenPool,
    setting: ProxySetting,
    tell: Callable[[float], None] | None,
) -> list[Trial]:
    weights, progress = train_weights(streams, [job.seed for job in jobs], setting, tell=tell)
    losses = _measure_all(weights, setting, setting.targets)
    heldout = _measure_all(weights, setting, setting.heldout) if setting.heldout else [{} for _ in jobs]
    trials: list[Trial] = []
    for k, (job, stream) in enumerate(zip(jobs, streams, strict=True)):
        reason = _reason(progress, k) or _not_finite(losses[k]) or _not_finite(heldout[k])
        trial = failed_trial(job, reason, pool, setting, stream)
        if not reason:
            curve = tuple((step, values[k]) for step, values in progress.points)
            trial = replace(trial, status="done", losses=losses[k], heldout=heldout[k], curve=curve)
        trials.append(trial)
    return trials


def _measure_all(weights: Weights, setting: ProxySetting, folder: str) -> list[dict[str, Loss]]:
    device = weights.embedding.device
    dtype = choose_dtype(setting.training.precision, device)
    out: list[dict[str, Loss]] = [{} for _ in range(len(weights.embedding))]
    for target in open_targets(folder):
        for losses, loss in zip(out, measure(weights, target, setting.model.heads, dtype), strict=True):
            losses[target.name] = loss
    return out


def _reason(progress: Progress, k: int) -> str:
    if bool(progress.alive[k]):
        return ""
    step, loss, norm = int(progress.died_at[k]), float(progress.loss[k]), float(progress.norm[k])
    if not math.isfinite(loss):
        return f"training loss is {loss} at step {step}; lower peak_lr"
    return f"gradient norm is {norm} at step {step} (loss {loss:.4g}); lower peak_lr"


def _not_finite(losses: dict[str, Loss]) -> str:
    bad = next((name for name, loss in losses.items() if not math.isfinite(loss.bits_per_byte)), None)
    return "" if bad is None else f"loss on {bad!r} is {losses[bad].bits_per_byte}; lower peak_lr"


def failed_trial(
    job: ProxyJob, reason: str, pool: TokenPool, setting: ProxySetting, stream: ClockStream | None = None
) -> Trial:
    """Return the record of a job that gave no losses."""
    return Trial(
        trial_id=job.trial_id,
        kind=job.kind,
        label=job.label,
        theta=job.theta,
        seed=job.seed,
        selected_tokens=stream.selected_tokens if stream else 0,
        unique_tokens=stream.unique_tokens if stream else 0,
        train_tokens=setting.tokens if stream else 0,
        epochs=setting.tokens / stream.selected_tokens if stream else 0.0,
        losses={},
        heldout={},
        status="failed",
        reason=reason,
        shares=domain_shares(pool, job.copies, len(setting.domains)),
    )


def domain_shares(pool: TokenPool, copies: Copies, domains: int) -> tuple[float, ...]:
    """Return each domain's share of the selected tokens; all 0 if nothing is selected."""
    if len(copies) != len(pool):
        return ()
    tokens = np.bincount(pool.domain, weights=pool.lengths * copies, minlength=domains)
    return tuple((tokens / max(1.0, tokens.sum())).tolist())
