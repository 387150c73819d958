"""Muon for the matrices, AdamW for the embedding, both over K models at once; one clip per model.

In: gradients with a leading model axis. Out: weights updated in place. Muon (Jordan et al. 2024)
orthogonalises the momentum of each matrix by a Newton-Schulz iteration, here batched over models, layers and
matrices of one shape. A model marked dead gets zero gradients and a zero rate, so it never changes again.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from quadmix.proxy.model import Weights
from quadmix.recipe import TrainingSection

EMBEDDING_RATE = 1.0  # AdamW rate of the embedding under Muon, as a multiple of peak_lr
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_MOMENTUM = 0.95
_BETAS = (0.9, 0.95)
_EPS = 1e-8


@dataclass(slots=True, kw_only=True)
class Optimizer:
    """State of one batch of models: first moments, second moments (AdamW tensors only), steps done."""

    kind: str
    weight_decay: float
    dtype: torch.dtype
    first: list[Tensor] = field(default_factory=list[Tensor])
    second: list[Tensor | None] = field(default_factory=list[Tensor | None])
    steps: int = 0

    @staticmethod
    def start(weights: Weights, training: TrainingSection, dtype: torch.dtype) -> "Optimizer":
        optimizer = Optimizer(kind=training.optimizer, weight_decay=training.weight_decay, dtype=dtype)
        for index, tensor in enumerate(weights.all()):
            adam = index == 0 or training.optimizer == "adamw"
            optimizer.first.append(torch.zeros_like(tensor))
            optimizer.second.append(torch.zeros_like(tensor) if adam else None)
        return optimizer


def rate_factor(step: int, steps: int, training: TrainingSection) -> float:
    """Return the schedule's factor in (0, 1] at `step` of 0..steps-1: warm-up, then
    linear decay to zero, none, or (wsd) linear decay over the last fifth."""
    warm = max(1, round(training.warmup * steps))
    rise = min(1.0, (step + 1) / warm)
    left = (steps - step) / max(1, steps - warm)
    if training.schedule == "linear":
        return min(rise, left)
    if training.schedule == "wsd":
        return min(rise, (steps - step) / max(1.0, 0.2 * steps))
    return rise


def clip_models(weights: Weights, limit: float) -> Tensor:
    """Scale each model's gradients to norm <= limit, in place; return the norms (K,) before."""
    grads = [tensor.grad for tensor in weights.all() if tensor.grad is not None]
    norm = torch.stack([g.flatten(1).square().sum(dim=1) for g in grads]).sum(dim=0).sqrt()
    factor = (limit / norm.clamp_min(1e-12)).clamp_max(1.0)
    for g in grads:
        g.mul_(factor.view(-1, *[1] * (g.ndim - 1)))
    return norm


@torch.no_grad()
def update(weights: Weights, optimizer: Optimizer, rate: Tensor, alive: Tensor) -> None:
    """Take one step. rate: (K,) learning rate of each model. alive: (K,) bool."""
    optimizer.steps += 1
    all_alive = bool(alive.all())
    rate = torch.where(alive, rate, torch.zeros_like(rate))
    for index, tensor in enumerate(weights.all()):
        grad = tensor.grad
        assert grad is not None
        if not all_alive:
            grad[~alive] = 0.0
        lr = rate.view(-1, *[1] * (tensor.ndim - 1))
        first, second = optimizer.first[index], optimizer.second[index]
        if second is None:
            change = _muon(first, grad, optimizer.dtype)
            if index == 2:  # gate and up widen d -> f; the stored down matrix is transposed and narrows
                change.view(len(change), -1, 3, *change.shape[2:])[:, :, :2] *= _stretch(tensor)
        else:
            change = _adam(first, second, grad, optimizer.steps)
            if optimizer.kind == "muon":
                lr = lr * EMBEDDING_RATE
        if index > 0:
            tensor.mul_(1.0 - lr * optimizer.weight_decay)
        tensor.sub_(lr * change)


def _stretch(tensor: Tensor) -> float:
    return max(1.0, tensor.shape[-1] / tensor.shape[-2]) ** 0.5


def _adam(first: Tensor, second: Tensor, grad: Tensor, step: int) -> Tensor:
    first.lerp_(grad, 1 - _BETAS[0])
    second.mul_(_BETAS[1]).addcmul_(grad, grad, value=1 - _BETAS[1])
    denominator = (second / (1 - _BETAS[1] ** step)).sqrt_().add_(_EPS)
    return first.div(1 - _BETAS[0] ** step).div_(denominator)


def _muon(momentum: Tensor, grad: Tensor, dtype: torch.dtype) -> Tensor:
    momentum.lerp_(grad, 1 - _MOMENTUM)
    return orthogonalise(grad.lerp(momentum, _MOMENTUM), dtype).to(grad.dtype)


def orthogonalise(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (..., r, c) with singular values pushed near 1 (about 0.7 to 1.2), in `dtype`.

    Newton-Schulz: X <- aX + (bA + cA²)X with A = XXᵀ, five times, on the side with fewer rows.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).flatten(0, -3)
    x = (x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)).to(dtype)
    a, b, c = _COEFFICIENTS
    for _ in range(_STEPS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.mT if tall else x
    return x.view(matrices.shape) if not tall else x.reshape(matrices.shape)
