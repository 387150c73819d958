"""The output head: next-token cross-entropy in chunks, so that the logits are never all in memory.

In: final states, the head's table. Out: mean loss per model with its gradients, or the loss of every
position. Since d logits = softmax - onehot, the forward pass computes both gradients at once. The head
dominates the cost of small models: on CPU it is looped per model in row chunks that stay in cache; on a
GPU all models go together.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

HEAD_ROWS = 256  # rows of logits alive at a time on CPU: 256 x 4,096 bf16 = 2 MB
GPU_LOGITS = 1 << 28  # logits alive at a time on a GPU
_LEAST = 1e-38  # a probability below is rounded to 0 and would make a huge loss an infinite one


def head_loss(hidden: Tensor, table: Tensor, labels: Tensor) -> Tensor:
    """Return the mean next-token loss (K,) in nats.

    hidden: (K, N, d). table: (K, V, d) float32 master weights. labels: (K, N) int64.
    """
    return _HeadLoss.apply(hidden, table, labels)  # pyright: ignore[reportReturnType]


def _chunks(hidden: Tensor, vocab: int) -> Iterator[tuple[slice, list[slice]]]:
    """Yield models and the row chunks to take them in."""
    models, rows, _ = hidden.shape
    together, size = 1, HEAD_ROWS
    if hidden.device.type == "cuda":
        together, size = models, max(HEAD_ROWS, GPU_LOGITS // (models * vocab))
    parts = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    for k in range(0, models, together):
        yield slice(k, k + together), parts


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        hidden, table, labels = inputs
        losses = torch.zeros(len(hidden), device=hidden.device)
        grad_hidden, grad_table = torch.empty_like(hidden), torch.zeros_like(table)
        for k, parts in _chunks(hidden, table.shape[1]):
            cast = table[k].to(hidden.dtype)
            for part in parts:
                states, label = hidden[k, part], labels[k, part, None]
                share = torch.softmax(torch.bmm(states, cast.mT), dim=-1)
                right = share.gather(2, label)
                losses[k] -= right.float().clamp_min(_LEAST).log().sum(dim=(1, 2))
                share.scatter_(2, label, right - 1)
                grad_hidden[k, part] = torch.bmm(share, cast)
                grad_table[k] += torch.bmm(share.mT, states)
        rows = hidden.shape[1]
        ctx.save_for_backward(grad_hidden.div_(rows), grad_table.div_(rows))
        return losses / rows

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_table = ctx.saved_tensors
        weight = grads[0][:, None, None]
        return grad_hidden * weight.to(grad_hidden.dtype), grad_table * weight, None


@torch.no_grad()
def token_losses(hidden: Tensor, table: Tensor, labels: Tensor, likeliest: Tensor | None = None) -> Tensor:
    """Return the loss (K, S) in nats of every position; hidden: (K, S, d), labels: (S,) for all models.

    likeliest: (K, S) bool, filled where given: is the label the first token of the largest logit?
    """
    out = torch.empty(hidden.shape[:2], device=hidden.device)
    for k, parts in _chunks(hidden, table.shape[1]):
        cast = table[k].to(hidden.dtype)
        for part in parts:
            logits = torch.bmm(hidden[k, part], cast.mT)
            share = torch.softmax(logits, dim=-1)
            label = labels[part].expand(len(share), -1)[..., None]
            out[k, part] = -share.gather(2, label)[..., 0].float().clamp_min(_LEAST).log()
            if likeliest is not None:
                likeliest[k, part] = logits.argmax(dim=-1) == label[..., 0]
    return out
