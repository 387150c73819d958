"""Muon for the matrices, AdamW for the tables, both over K models at once; one clip per model.

In: gradients with a leading model axis. Out: weights updated in place. Muon (Jordan et al. 2024)
orthogonalises the momentum of each matrix by a Newton-Schulz iteration, here batched over models, layers and
matrices of one shape. A model marked dead gets zero gradients and a zero rate, so it never changes again.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from quadmix.proxy.model import Weights
from quadmix.recipe import TrainingSection

_MATRICES = ("square", "wide")  # Muon is for these
EMBEDDING_RATE = 1.0  # AdamW rate of the embedding under Muon, as a multiple of peak_lr
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_MOMENTUM = 0.95
_BETAS = (0.9, 0.95)
_EPS = 1e-8


@dataclass(slots=True, kw_only=True)
class Optimizer:
    """State of one batch of models, by the names of the weights. steps: () float32, steps done; a tensor,
    so that a captured CUDA graph counts on. second: of the AdamW tensors alone."""

    first: dict[str, Tensor]
    second: dict[str, Tensor]
    steps: Tensor

    @staticmethod
    def start(weights: Weights, training: TrainingSection) -> "Optimizer":
        tensors = weights.named()
        adam = [name for name in tensors if training.optimizer == "adamw" or name not in _MATRICES]
        return Optimizer(
            first={name: torch.zeros_like(tensor) for name, tensor in tensors.items()},
            second={name: torch.zeros_like(tensors[name]) for name in adam},
            steps=torch.zeros((), device=weights.embedding.device),
        )


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
    grads = [tensor.grad for tensor in weights.named().values() if tensor.grad is not None]
    norm = torch.stack([g.flatten(1).square().sum(dim=1) for g in grads]).sum(dim=0).sqrt()
    factor = (limit / norm.clamp_min(1e-12)).clamp_max(1.0)
    for g in grads:
        g.mul_(factor.view(-1, *[1] * (g.ndim - 1)))
    return norm


@torch.no_grad()
def update(
    weights: Weights, optimizer: Optimizer, rate: Tensor, alive: Tensor, *,
    training: TrainingSection, dtype: torch.dtype, decay_all: bool = False,
) -> None:  # fmt: skip
    """Take one step. rate: (K,) learning rate of each model. alive: (K,) bool. decay_all: weight decay on
    embedding, head and gains too (RegMix), not on the matrices alone."""
    optimizer.steps += 1
    rate = torch.where(alive, rate, torch.zeros_like(rate))
    masked = alive.device.type == "cuda" or not bool(alive.all())  # asking would wait for a GPU
    for name, tensor in weights.named().items():
        grad = tensor.grad
        assert grad is not None
        if masked:
            grad.masked_fill_(~alive.view(-1, *[1] * (tensor.ndim - 1)), 0.0)
        lr = rate.view(-1, *[1] * (tensor.ndim - 1))
        first = optimizer.first[name]
        if name in optimizer.second:
            change = _adam(first, optimizer.second[name], grad, optimizer.steps)
            if training.optimizer == "muon":
                lr = lr * EMBEDDING_RATE
        else:
            change = _muon(first, grad, dtype)
            if name == "wide":  # gate and up widen d -> f; the stored down matrix is transposed and narrows
                change.view(len(change), -1, 3, *change.shape[2:])[:, :, :2] *= _stretch(tensor)
        if decay_all or name in _MATRICES:
            tensor.mul_(1.0 - lr * training.weight_decay)
        tensor.sub_(lr * change)


def _stretch(tensor: Tensor) -> float:
    return max(1.0, tensor.shape[-1] / tensor.shape[-2]) ** 0.5


def _adam(first: Tensor, second: Tensor, grad: Tensor, step: Tensor) -> Tensor:
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
