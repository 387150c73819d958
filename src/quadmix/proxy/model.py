"""K small decoders trained as one batched model: RMSNorm, RoPE, SwiGLU, tied or untied head.

In: token windows (K, B, T). Out: hidden states. Every tensor carries a leading model axis K and no operation
mixes models, so a model's numbers do not depend on its neighbours.

Two architectures: `quadmix` normalises the embedding, has no gains in its norms (the matrices that follow
learn them) and starts the matrices that write to the residual stream at zero; `tinyllama` is RegMix's
`tinyllama_1M` as released (gains, eps 1e-5, its initialisation), for fidelity.

Why this way (measured on CPU): bfloat16 compute with float32 master weights is the largest gain; short
contexts are faster with three plain matrix products than with the flash kernel.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from quadmix.proxy.gates import draw_gates, factors, gate_parameters, gated
from quadmix.recipe import ModelSection
from quadmix.rng import derived_seed

_PLAIN_CONTEXT = 512  # up to here explicit scores beat the CPU flash kernel (its backward is 5x slower)
_INIT_EMBEDDING = 0.02
_EPS, _PUBLISHED_EPS = 1e-6, 1e-5


@dataclass(slots=True, kw_only=True)
class Weights:
    """Master weights in float32, matrices of one shape stacked so that Muon treats them at once.

    embedding: (K, V, d). head: (K, V, d), None if tied to the embedding. square: (K, 4L, d, d), per layer
    query, key, value, output. wide: (K, 3L, d, f), per layer gate, up and the transposed down matrix.
    gains: (K, 2L + 1, d) of the norms, None without them. codes, gate_in, gate_out: of gates by domain
    (`gates.py`), None without them. Matrices map rows to columns.
    """

    embedding: Tensor
    square: Tensor
    wide: Tensor
    head: Tensor | None = None
    gains: Tensor | None = None
    codes: Tensor | None = None
    gate_in: Tensor | None = None
    gate_out: Tensor | None = None

    def named(self) -> dict[str, Tensor]:
        """Return the tensors that this model has, in a fixed order."""
        every = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: tensor for name, tensor in every.items() if tensor is not None}

    @property
    def table(self) -> Tensor:
        """Return the output head (K, V, d)."""
        return self.embedding if self.head is None else self.head


def parameter_count(model: ModelSection, vocab: int, domains: int = 0) -> int:
    """Return the parameters of one model, a tied embedding counted once; domains: of its gates, if any."""
    tables = vocab * model.width * (2 if model.head == "untied" else 1)
    gains = (2 * model.layers + 1) * model.width if model.architecture == "tinyllama" else 0
    own = model.layers * (4 * model.width**2 + 3 * model.width * model.mlp)
    return tables + gains + own + gate_parameters(model, domains)


def flops_per_token(model: ModelSection, vocab: int) -> float:
    """Return the training FLOPs per token: six per weight of a product, and attention at full context."""
    products = vocab * model.width + model.layers * (4 * model.width**2 + 3 * model.width * model.mlp)
    return 6.0 * products + 12 * model.layers * model.width * model.context


def initial_weights(
    model: ModelSection, vocab: int, seeds: Sequence[int], device: torch.device, *, domains: int = 0
) -> Weights:  # fmt: skip
    """Return fresh weights, a function of each model's seed alone (not of its place in the batch).

    domains: that gates tell apart, if the model has any.
    """
    drawn = [_draw(model, vocab, seed, domains) for seed in seeds]
    stacked = {name: torch.stack([tensors[name] for tensors in drawn]).to(device) for name in drawn[0]}
    return Weights(**{name: tensor.requires_grad_() for name, tensor in stacked.items()})


def _draw(model: ModelSection, vocab: int, seed: int, domains: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(derived_seed(seed, "init"))
    d, f, layers = model.width, model.mlp, model.layers
    published = model.architecture == "tinyllama"
    inner = (0.4 / d) ** 0.5 if published else d**-0.5
    outer = inner if published else _INIT_EMBEDDING
    out = {
        "embedding": torch.randn(vocab, d, generator=generator) * outer,
        "square": torch.randn(4 * layers, d, d, generator=generator) * inner,
        "wide": torch.randn(3 * layers, d, f, generator=generator) * inner,
    }
    if published:
        out["wide"][2::3] *= f**-0.5 / layers / inner
        out["gains"] = torch.ones(2 * layers + 1, d)
    else:
        out["square"][3::4] = 0.0
        out["wide"][2::3] = 0.0
    if model.head == "untied":
        out["head"] = torch.randn(vocab, d, generator=generator) * outer
    return out | draw_gates(model, domains, generator)


def rotary(
    context: int, width: int, heads: int, *, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the tables (T, d) of rotary position embedding, base 10,000, repeated for every head:
    x * cos + swap(x) * sin turns the pair (i, i + half) of a head by its position's angle."""
    half = width // heads // 2
    # made on the device: a copy from the host cannot be part of a CUDA graph
    rate = 10_000.0 ** (-torch.arange(half, dtype=torch.float64, device=device) / half)
    angle = torch.arange(context, dtype=torch.float64, device=device)[:, None] * rate
    cos, sin = angle.cos(), angle.sin()
    tables = torch.cat((cos, cos), dim=1), torch.cat((-sin, sin), dim=1)
    first, second = (table.repeat(1, heads).to(dtype) for table in tables)
    return first, second


def hidden_states(
    weights: Weights, tokens: Tensor, model: ModelSection, dtype: torch.dtype, domains: Tensor | None = None
) -> Tensor:  # fmt: skip
    """Return the final normalised states (K, B*T, d) in `dtype`.

    tokens: (K, B, T) int64. domains: (K, B, T) int64 rows of the gates' codes; left out, unknown. Matrices
    are cast to `dtype` here, so their gradients arrive in float32.
    """
    models, batch, context = tokens.shape
    vocab, width = weights.embedding.shape[1:]
    shift = torch.arange(models, device=tokens.device)[:, None] * vocab
    flat = F.embedding((tokens.flatten(1) + shift).view(-1), weights.embedding.view(-1, width))
    x = flat.view(models, batch * context, width).to(dtype)
    norms = _norms(weights, model, dtype)
    if model.architecture == "quadmix":
        x = _norm(x, None, _EPS)
    squares, wides = weights.square.to(dtype).unbind(1), weights.wide.to(dtype).unbind(1)
    cos, sin = rotary(context, width, model.heads, dtype=dtype, device=tokens.device)
    gates, told = _gate_tables(weights), None if domains is None else domains.flatten(1)
    for layer in range(model.layers):
        query, key, value, out = squares[4 * layer : 4 * layer + 4]
        y = next(norms)(x)
        y = attention(torch.bmm(y, query), torch.bmm(y, key), torch.bmm(y, value), cos, sin, model.heads)
        x = x + torch.bmm(y, out)
        gate, up, down = wides[3 * layer : 3 * layer + 3]
        y = next(norms)(x)
        y = F.silu(torch.bmm(y, gate)) * torch.bmm(y, up)
        y = y if gates is None else gated(y, gates[:, layer], told)
        x = x + torch.bmm(y, down.mT)
    return next(norms)(x)


def _gate_tables(weights: Weights) -> Tensor | None:
    if weights.codes is None or weights.gate_in is None or weights.gate_out is None:
        return None
    return factors(weights.codes, weights.gate_in, weights.gate_out)


def _norms(weights: Weights, model: ModelSection, dtype: torch.dtype) -> Iterator[Callable[[Tensor], Tensor]]:
    """Return the 2L + 1 norms in the order of their use."""
    if weights.gains is None:
        return repeat(partial(_norm, gain=None, eps=_EPS))
    gains = weights.gains.to(dtype).unbind(1)
    return iter([partial(_norm, gain=gain, eps=_PUBLISHED_EPS) for gain in gains])


def _norm(x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """Return RMSNorm of (K, N, d), times the gain (K, d) of each model."""
    y = F.rms_norm(x, x.shape[-1:], eps=eps)
    return y if gain is None else y * gain[:, None]


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
