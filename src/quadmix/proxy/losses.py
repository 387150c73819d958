"""Loss of K models on target sets, in bits per byte with a standard error over rows.

In: weights, a target set. Out: one `Loss` per model. The estimate is a ratio, L = Σ nll / Σ bytes / ln 2,
and its standard error treats the row as the unit: s.e. = sqrt(R / (R - 1) Σ (nll_r - L b_r)²) / Σ b.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from quadmix.proxy.head import token_losses
from quadmix.proxy.model import Weights, hidden_states
from quadmix.proxy.targets import IGNORE, TargetSet
from quadmix.recipe import ModelSection
from quadmix.types import Floats, Ints, Loss

_TOKENS_AT_ONCE = 1_024  # per model; larger batches leave the cache and halve the speed
_ROUND = 16  # windows are sorted by length and cut to a multiple of this, so short rows cost little


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowScores:
    """nll: (K, R) float64, summed loss in nats of the scored tokens of every row under every model.
    greedy: (K, R) bool, is each of these tokens the likeliest one after those before it? (None: not asked)"""

    nll: Floats
    greedy: NDArray[np.bool_] | None


def measure(weights: Weights, target: TargetSet, model: ModelSection, dtype: torch.dtype) -> list[Loss]:
    """Return the loss of each of the K models on `target`."""
    nll = row_scores(weights, target, model, dtype).nll
    return [ratio(row, target.bytes, target.tokens) for row in nll]


@torch.no_grad()
def row_scores(
    weights: Weights, target: TargetSet, model: ModelSection, dtype: torch.dtype, *, greedy: bool = False
) -> RowScores:
    """Score every row of `target` under each of the K models."""
    models, device = len(weights.embedding), weights.embedding.device
    nll = np.zeros((models, len(target.bytes)))
    right = np.ones(nll.shape, dtype=np.bool_) if greedy else None
    for windows, width in _batches(target.labels):
        inputs = torch.from_numpy(target.inputs[windows, :width].astype(np.int64)).to(device)
        labels = target.labels[windows, :width]
        place = np.flatnonzero(labels.reshape(-1) != IGNORE)
        hidden = hidden_states(weights, inputs.expand(models, *inputs.shape), model, dtype)
        scored = hidden[:, torch.from_numpy(place).to(device)]
        wanted = torch.from_numpy(labels.reshape(-1)[place].astype(np.int64)).to(device)
        likeliest = torch.empty(scored.shape[:2], dtype=torch.bool, device=device) if greedy else None
        losses = token_losses(scored, weights.table, wanted, likeliest).double().cpu().numpy()
        rows = target.row[windows][place // width]
        for k in range(models):
            nll[k] += np.bincount(rows, weights=losses[k], minlength=nll.shape[1])
            if right is not None and likeliest is not None:
                right[k, rows[~likeliest[k].cpu().numpy()]] = False
    return RowScores(nll=nll, greedy=right)


def ratio(nll: Floats, scored_bytes: Ints, tokens: int) -> Loss:
    """Return the ratio estimate of rows with summed loss `nll` (R,) nats over `scored_bytes` (R,)."""
    rows, total = len(nll), float(scored_bytes.sum())
    bits = nll / math.log(2)
    mean = float(bits.sum()) / total
    spread = float(np.square(bits - mean * scored_bytes).sum())
    stderr = math.sqrt(rows / (rows - 1) * spread) / total if rows > 1 else math.nan
    return Loss(bits_per_byte=mean, stderr=stderr, rows=rows, tokens=tokens, bytes=int(total))


def _batches(labels: NDArray[np.int32]) -> Iterator[tuple[Ints, int]]:
    """Yield (window indices, width) with windows of like length together; width covers every label."""
    context = labels.shape[1]
    used = context - np.argmax(labels[:, ::-1] != IGNORE, axis=1)
    widths = np.minimum(-(-used // _ROUND) * _ROUND, context)
    for width in np.unique(widths).tolist():
        mine = np.flatnonzero(widths == width)
        size = max(1, _TOKENS_AT_ONCE // width)
        for start in range(0, len(mine), size):
            yield mine[start : start + size], width
