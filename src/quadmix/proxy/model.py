"""K small decoders trained as one batched model: RMSNorm, RoPE, SwiGLU, tied embedding.

In: token windows (K, B, T). Out: hidden states, per-model losses, per-token losses. Every tensor carries a
leading model axis K and no operation mixes models, so a model's numbers do not depend on its neighbours.

Why this way (measured on CPU): bfloat16 compute with float32 master weights is the largest gain; the output
head dominates, so it is looped per model in row chunks that stay in cache and its gradient is taken in the
forward pass; short contexts are faster with three plain matrix products than with the flash kernel.
Norms carry no gain: the matrices that follow them learn it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from quadmix.recipe import ModelSection
from quadmix.rng import derived_seed

HEAD_ROWS = 256  # rows of logits alive at a time: 256 x 4,096 bf16 = 2 MB
_PLAIN_CONTEXT = 512  # up to here explicit scores beat the CPU flash kernel (its backward is 5x slower)
_INIT_EMBEDDING = 0.02
_LEAST = 1e-38  # a probability below is rounded to 0 and would make a huge loss an infinite one


@dataclass(slots=True, kw_only=True)
class Weights:
    """Master weights in float32, matrices of one shape stacked so that Muon treats them at once.

    embedding: (K, V, d), also the output head. square: (K, 4L, d, d), per layer query, key, value, output.
    wide: (K, 3L, d, f), per layer gate, up and the transposed down matrix. Matrices map rows to columns.
    """

    embedding: Tensor
    square: Tensor
    wide: Tensor

    def all(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.embedding, self.square, self.wide


def parameter_count(model: ModelSection, vocab: int) -> int:
    """Return the parameters of one model, the tied embedding counted once."""
    return vocab * model.width + model.layers * (4 * model.width**2 + 3 * model.width * model.mlp)


def flops_per_token(model: ModelSection, vocab: int) -> float:
    """Return the training FLOPs per token: six per weight, and attention at full context."""
    attention = 12 * model.layers * model.width * model.context
    return 6.0 * parameter_count(model, vocab) + attention


def initial_weights(model: ModelSection, vocab: int, seeds: Sequence[int], device: torch.device) -> Weights:
    """Return fresh weights, a function of each model's seed alone (not of its place in the batch).

    Matrices that write to the residual stream (attention output, MLP down) start at zero.
    """
    drawn = [_draw(model, vocab, seed) for seed in seeds]
    parts = [torch.stack(list(tensors)).to(device) for tensors in zip(*drawn, strict=True)]
    for part in parts:
        part.requires_grad_()
    return Weights(embedding=parts[0], square=parts[1], wide=parts[2])


def _draw(model: ModelSection, vocab: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(derived_seed(seed, "init"))
    d, f, layers = model.width, model.mlp, model.layers
    embedding = torch.randn(vocab, d, generator=generator) * _INIT_EMBEDDING
    square = torch.randn(4 * layers, d, d, generator=generator) * d**-0.5
    wide = torch.randn(3 * layers, d, f, generator=generator) * d**-0.5
    square[3::4] = 0.0
    wide[2::3] = 0.0
    return embedding, square, wide


def rotary(
    context: int, width: int, heads: int, *, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the tables (T, d) of rotary position embedding, base 10,000, repeated for every head:
    x * cos + swap(x) * sin turns the pair (i, i + half) of a head by its position's angle."""
    half = width // heads // 2
    rate = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(context, dtype=torch.float64)[:, None] * rate
    cos, sin = angle.cos(), angle.sin()
    tables = torch.cat((cos, cos), dim=1), torch.cat((-sin, sin), dim=1)
    first, second = (table.repeat(1, heads).to(device, dtype) for table in tables)
    return first, second


def hidden_states(weights: Weights, tokens: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """Return the final normalised states (K, B*T, d) in `dtype`.

    tokens: (K, B, T) int64. Matrices are cast to `dtype` here, so their gradients arrive in float32.
    """
    models, batch, context = tokens.shape
    vocab, width = weights.embedding.shape[1:]
    shift = torch.arange(models, device=tokens.device)[:, None] * vocab
    flat = F.embedding((tokens.flatten(1) + shift).view(-1), weights.embedding.view(-1, width))
    x = _norm(flat.view(models, batch * context, width).to(dtype))
    squares, wides = weights.square.to(dtype).unbind(1), weights.wide.to(dtype).unbind(1)
    cos, sin = rotary(context, width, heads, dtype=dtype, device=tokens.device)
    for layer in range(len(squares) // 4):
        query, key, value, out = squares[4 * layer : 4 * layer + 4]
        y = _norm(x)
        y = attention(torch.bmm(y, query), torch.bmm(y, key), torch.bmm(y, value), cos, sin, heads)
        x = x + torch.bmm(y, out)
        gate, up, down = wides[3 * layer : 3 * layer + 3]
        y = _norm(x)
        x = x + torch.bmm(F.silu(torch.bmm(y, gate)) * torch.bmm(y, up), down.mT)
    return _norm(x)


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


def attention(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """Return rotary causal self-attention (K, B*T, d) of projections (K, B*T, d); cos, sin: (T, d)."""
    if q.device.type == "cpu" and len(cos) <= _PLAIN_CONTEXT:
        return _PlainAttention.apply(q, k, v, cos, sin, heads)  # pyright: ignore[reportReturnType]
    q, k = (
        _heads(_rotate(q, cos, sin, heads), len(cos), heads),
        _heads(_rotate(k, cos, sin, heads), len(cos), heads),
    )
    mixed = F.scaled_dot_product_attention(q, k, _heads(v, len(cos), heads), is_causal=True)
    return _join(mixed, v.shape)


def _heads(x: Tensor, context: int, heads: int) -> Tensor:
    """(K, B*T, d) -> (K*B, H, T, head width), a view."""
    return x.view(-1, context, heads, x.shape[-1] // heads).transpose(1, 2)


def _join(x: Tensor, shape: torch.Size) -> Tensor:
    return x.transpose(1, 2).reshape(shape)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """Turn (K, B*T, d) by the tables; with -sin it turns back."""
    head = x.shape[-1] // heads
    swapped = x.view(-1, head).roll(head // 2, dims=-1)
    rows = x.view(-1, *cos.shape)
    return torch.addcmul(rows * cos, swapped.view(rows.shape), sin).view(x.shape)


class _PlainAttention(torch.autograd.Function):
    """Rotary causal attention with explicit (T, T) scores, forward and backward by batched products."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        q, k, v, cos, sin, heads = inputs
        shape, context = v.shape, len(cos)
        q = _heads(_rotate(q, cos, sin, heads), context, heads).flatten(0, 1)
        k = _heads(_rotate(k, cos, sin, heads), context, heads).flatten(0, 1)
        v = _heads(v, context, heads).flatten(0, 1)
        mask = torch.full((context, context), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
        scores = torch.baddbmm(mask, q, k.mT, alpha=q.shape[-1] ** -0.5)
        share = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(q, k, v, share, cos, sin)
        ctx.shape, ctx.heads = shape, heads
        return _join(torch.bmm(share, v).unflatten(0, (-1, heads)), shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, share, cos, sin = ctx.saved_tensors
        heads, shape = ctx.heads, ctx.shape
        out = _heads(grads[0], len(cos), heads).flatten(0, 1)
        # softmax backward, share * (g - sum(g * share)), is one fused kernel
        inner = torch.ops.aten._softmax_backward_data(torch.bmm(out, v.mT), share, -1, share.dtype)
        inner.mul_(q.shape[-1] ** -0.5)
        grad_q, grad_k, grad_v = (
            _join(g.unflatten(0, (-1, heads)), shape)
            for g in (torch.bmm(inner, k), torch.bmm(inner.mT, q), torch.bmm(share.mT, out))
        )
        return _rotate(grad_q, cos, -sin, heads), _rotate(grad_k, cos, -sin, heads), grad_v, None, None, None


def head_loss(hidden: Tensor, embedding: Tensor, labels: Tensor) -> Tensor:
    """Return the mean next-token loss (K,) in nats.

    hidden: (K, N, d). embedding: (K, V, d) float32 master weights. labels: (K, N) int64.
    """
    return _HeadLoss.apply(hidden, embedding, labels)  # pyright: ignore[reportReturnType]


class _HeadLoss(torch.autograd.Function):
    """Chunked linear cross-entropy: d logits = softmax - onehot, so the forward pass has both gradients."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        hidden, embedding, labels = inputs
        models, rows, _ = hidden.shape
        losses = torch.zeros(models, device=hidden.device)
        grad_hidden, grad_table = torch.empty_like(hidden), torch.zeros_like(embedding)
        for k in range(models):
            table = embedding[k].to(hidden.dtype)
            for start in range(0, rows, HEAD_ROWS):
                part = slice(start, min(start + HEAD_ROWS, rows))
                states, label = hidden[k, part], labels[k, part, None]
                share = torch.softmax(states @ table.T, dim=-1)
                right = share.gather(1, label)
                losses[k] -= right.float().clamp_min(_LEAST).log().sum()
                share.scatter_(1, label, right - 1)
                torch.mm(share, table, out=grad_hidden[k, part])
                grad_table[k] += share.T @ states
        ctx.save_for_backward(grad_hidden.div_(rows), grad_table.div_(rows))
        return losses / rows

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_table = ctx.saved_tensors
        weight = grads[0][:, None, None]
        return grad_hidden * weight.to(grad_hidden.dtype), grad_table * weight, None


@torch.no_grad()
def token_losses(hidden: Tensor, embedding: Tensor, labels: Tensor) -> Tensor:
    """Return the loss (K, S) in nats of every position; hidden: (K, S, d), labels: (S,) for all models."""
    models, rows, _ = hidden.shape
    out = torch.empty(models, rows, device=hidden.device)
    for k in range(models):
        table = embedding[k].to(hidden.dtype)
        for start in range(0, rows, HEAD_ROWS):
            part = slice(start, min(start + HEAD_ROWS, rows))
            share = torch.softmax(hidden[k, part] @ table.T, dim=-1)
            out[k, part] = -share.gather(1, labels[part, None])[:, 0].float().clamp_min(_LEAST).log()
    return out
