"""One group of jobs -> their trials: train them together, measure their losses, say what went wrong.

In: jobs (copies per pool document, seeds) and the setting they share. Out: one `Trial` per job, in order.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from quadmix.errors import ProxyError
from quadmix.proxy.checkpoint import write_weights
from quadmix.proxy.device import choose_dtype
from quadmix.proxy.facts import model_facts
from quadmix.proxy.losses import measure
from quadmix.proxy.model import Weights
from quadmix.proxy.order import TokenStream
from quadmix.proxy.pool import TokenPool, open_pool
from quadmix.proxy.setting import ProxyJob, ProxySetting, check_files
from quadmix.proxy.targets import open_targets
from quadmix.proxy.train import Progress, train_weights
from quadmix.types import Copies, Loss, Trial


def train_group(
    jobs: Sequence[ProxyJob],
    setting: ProxySetting,
    tell: Callable[[float], None] | None = None,
    *,
    checkpoint: str | None = None,
    key: str = "",
    save_to: str | None = None,
) -> list[Trial]:
    """Train all jobs as one batch and return their trials in order.

    tell: hears the share done. checkpoint, key: see `train_weights`. save_to: a folder for the weights.
    Raises ProxyError if pool, targets and setting do not belong together.
    """
    started = time.monotonic()
    check_files(setting)
    pool = open_pool(setting.pool)
    refused: dict[int, str] = {}
    streams: list[TokenStream] = []
    for index, job in enumerate(jobs):
        try:
            streams.append(TokenStream(pool, job.copies, job.order_seed, setting.training.order))
        except ProxyError as error:
            refused[index] = str(error)
    trained = [job for index, job in enumerate(jobs) if index not in refused]
    done: list[Trial] = []
    if trained:
        weights, progress = train_weights(
            streams, [job.seed for job in trained], setting,
            tell=tell, checkpoint=checkpoint, every=setting.checkpoint_seconds, key=key,
        )  # fmt: skip
        done = _trials(trained, streams, pool, setting, weights, progress)
        if save_to:
            facts = model_facts(setting.model, setting.training)
            for k, trial in enumerate(done):
                named = {name: tensor[k] for name, tensor in weights.named().items()}
                write_weights(f"{save_to}/{trial.trial_id}.safetensors", named, facts)
    rest = iter(done)
    trials = [
        failed_trial(job, refused[index], pool, setting) if index in refused else next(rest)
        for index, job in enumerate(jobs)
    ]
    share = (time.monotonic() - started) / len(jobs)
    return [replace(trial, seconds=share, group=len(jobs)) for trial in trials]


def _trials(
    jobs: Sequence[ProxyJob],
    streams: Sequence[TokenStream],
    pool: TokenPool,
    setting: ProxySetting,
    weights: Weights,
    progress: Progress,
) -> list[Trial]:
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
    dtype = choose_dtype(setting.training.precision, weights.embedding.device)
    out: list[dict[str, Loss]] = [{} for _ in range(len(weights.embedding))]
    for target in open_targets(folder):
        for losses, loss in zip(out, measure(weights, target, setting.model, dtype), strict=True):
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
    job: ProxyJob, reason: str, pool: TokenPool, setting: ProxySetting, stream: TokenStream | None = None
) -> Trial:
    """Return the record of a job that gave no losses."""
    return Trial(
        trial_id=job.trial_id,
        kind=job.kind,
        label=job.label,
        theta=job.theta,
        seed=job.seed,
        selected_tokens=stream.selected_tokens if stream else 0,
        unique_tokens=stream.unique_tokens(setting.tokens) if stream else 0,
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
