"""POSO(MHA): attention whose keys are scaled, and whose values are mixed, for each group (Eqs. 12-14).

    y = C softmax(Q (G_k(p) * K)^T / sqrt(d_h)) sum_i g_i(p) V_i      (arXiv 2108.04690, Eq. 14; C = 2 / N)

for each head, then heads side by side through an output layer as in `torch.nn.MultiheadAttention` (in the
paper that is the next layer). Q carries all features of a user already and is not gated; keys are gated by
one factor per feature, for all positions; values, which decide the output, have N projections of their own.

Neither the N projections nor the gated keys need be computed. A factor of K is a factor of Q, and attention
does not depend on i, so with A the softmax and X the sequence (rows)

    long queries:   sum_i g_i V_i = X (sum_i g_i W_i)      one projection per row of the batch
    short queries:  Q K^T = (Q W_K) X^T and A V_i = (A X) W_i, so nothing but the products with X is as long
                    as the sequence

The shapes decide which takes fewer products; the result is the same but for rounding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadmix.errors import InputError
from quadmix.poso.gate import SCALAR_STD, Gate, GateConfig, at_least_one, gated
from quadmix.poso.linear import identity_gate

_APART = 0.1  # how far copies of trained values are moved apart, in standard deviations of the weights


class PosoMultiheadAttention(nn.Module):
    """Like `torch.nn.MultiheadAttention`, with the code of a group as a fourth input; no weights returned.

    kdim, vdim: widths of keys and values, embed_dim if left out. num_values: N. batch_first: (B, L, d)
    inputs, else (L, B, d).
    """

    def __init__(  # noqa: PLR0913 - as many as torch.nn.MultiheadAttention has
        self,
        embed_dim: int,
        num_heads: int,
        pc_dim: int,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        num_values: int = 4,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = True,
        gate: GateConfig | None = None,
    ) -> None:
        super().__init__()
        at_least_one(num_heads, "num_heads")
        at_least_one(embed_dim, "embed_dim")
        at_least_one(num_values, "num_values")
        if embed_dim % num_heads:
            raise InputError(f"embed_dim is {embed_dim}, expected a multiple of num_heads ({num_heads})")
        self.num_heads, self.num_values = num_heads, num_values
        self.dropout, self.batch_first = dropout, batch_first
        vdim = vdim or embed_dim
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.k_proj = nn.Linear(kdim or embed_dim, embed_dim, bias=bias)
        self.v_weight = nn.Parameter(torch.empty(num_values, embed_dim, vdim))
        self.v_bias = nn.Parameter(torch.zeros(num_values, embed_dim)) if bias else None
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.key_gate = Gate(pc_dim, embed_dim, gate)
        self.value_gate = Gate(pc_dim, num_heads * num_values, gate, summed=num_values, init_std=SCALAR_STD)
        for weight in (self.q_proj.weight, self.k_proj.weight, *self.v_weight):
            nn.init.xavier_uniform_(weight)
        for layer in (self.q_proj, self.k_proj, self.out_proj):
            if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                nn.init.zeros_(layer.bias)

    @staticmethod
    def from_mha(
        mha: nn.MultiheadAttention, pc_dim: int, *, num_values: int = 4, gate: GateConfig | None = None
    ) -> "PosoMultiheadAttention":
        """Return a module with copies of trained weights; by default the result is as before.

        Equal values with equal gates would get equal gradients for ever, so the N copies are moved apart at
        random, by a tenth of the weights' standard deviation and so that their mean is the trained one.
        Raises InputError for a module with `add_bias_kv` or `add_zero_attn`.
        """
        if mha.bias_k is not None or mha.add_zero_attn:
            raise InputError("the attention has add_bias_kv or add_zero_attn, expected one without them")
        biased = mha.in_proj_bias is not None  # pyright: ignore[reportUnnecessaryComparison]
        made = PosoMultiheadAttention(
            mha.embed_dim, mha.num_heads, pc_dim, kdim=mha.kdim, vdim=mha.vdim, num_values=num_values,
            dropout=mha.dropout, bias=biased, batch_first=mha.batch_first,
        ).to(mha.out_proj.weight)  # fmt: skip
        like = mha.out_proj.weight
        made.key_gate = identity_gate(pc_dim, mha.embed_dim, gate, like=like)
        made.value_gate = identity_gate(
            pc_dim, mha.num_heads * num_values, gate, like=like, summed=num_values, init_std=SCALAR_STD
        )
        with torch.no_grad():
            made._take(mha)
        return made.train(mha.training)  # dropout is as the trained module has it now

    def _take(self, mha: nn.MultiheadAttention) -> None:
        for own, trained in zip(
            (self.q_proj.weight, self.k_proj.weight, self.v_weight), _in_weights(mha), strict=True
        ):
            own.copy_(trained)
        apart = torch.randn_like(self.v_weight) * _APART * self.v_weight.std()
        self.v_weight += apart - apart.mean(dim=0)
        if self.v_bias is not None:
            for own, trained in zip(
                (self.q_proj.bias, self.k_proj.bias, self.v_bias), mha.in_proj_bias.chunk(3), strict=True
            ):
                own.copy_(trained)
        self.out_proj.load_state_dict(mha.out_proj.state_dict())

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        pc: Tensor,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        """Return (B, Lq, embed_dim) of query (B, Lq, embed_dim), key (B, L, kdim), value (B, L, vdim) and
        codes pc (B, pc_dim).

        key_padding_mask: (B, L) bool, attn_mask: (Lq, L) bool, both True where a key may not be seen. A query
        that sees no key gets zeros. Raises InputError for other shapes and kinds of masks.
        """
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        self._check(query, key, value, pc)
        seen = _seen(query, key, key_padding_mask, attn_mask)
        heads = self.num_heads
        q = gated(self.q_proj(query), self.key_gate(pc)).unflatten(-1, (heads, -1)).transpose(1, 2)
        shares = self.value_gate(pc).unflatten(-1, (heads, -1))  # (B, H, N)
        any_seen = None if seen is None else seen.any(dim=-1, keepdim=True)  # (B or 1, 1, Lq or 1, 1)
        if seen is not None and any_seen is not None:
            if key_padding_mask is not None:  # padding may hold anything, and 0 * NaN is NaN
                key, value = (x.masked_fill(key_padding_mask[..., None], 0.0) for x in (key, value))
            seen = seen | ~any_seen  # a softmax over nothing is NaN, and so is its gradient
        mix = self._short if self._is_short(query.shape[1], key.shape[1]) else self._long
        y = self.out_proj(mix(q, key, value, shares, seen).transpose(1, 2).flatten(2))
        y = y if any_seen is None else y * any_seen[:, 0]
        return y if self.batch_first else y.transpose(0, 1)

    def _check(self, query: Tensor, key: Tensor, value: Tensor, pc: Tensor) -> None:
        widths = (self.q_proj.in_features, self.k_proj.in_features, self.v_weight.shape[2])
        batch = pc.shape[0]
        for x, width, name in zip((query, key, value), widths, ("query", "key", "value"), strict=True):
            if x.dim() != 3 or x.shape[0] != batch or x.shape[2] != width:
                raise InputError(
                    f"{name} has shape {tuple(x.shape)}, expected ({batch}, L, {width}), B = {batch} as "
                    "there are codes"
                    + ("" if self.batch_first else "; B and L exchanged (batch_first=False)")
                )
        if key.shape[1] != value.shape[1]:
            raise InputError(f"there are {key.shape[1]} keys and {value.shape[1]} values, expected as many")

    def _is_short(self, queries: int, keys: int) -> bool:
        """Do the products with the sequence itself take fewer multiplications than its projections?"""
        width, heads = self.q_proj.out_features, self.num_heads
        wide = self.k_proj.in_features + self.v_weight.shape[2]
        own = queries * width * (self.k_proj.in_features + self.num_values * self.v_weight.shape[2])
        short = heads * queries * keys * wide + own
        mixed = self.num_values * width * self.v_weight.shape[2]
        return short < keys * width * wide + mixed + 2 * queries * keys * width

    def _long(self, q: Tensor, key: Tensor, value: Tensor, shares: Tensor, seen: Tensor | None) -> Tensor:
        """Return (B, H, Lq, d_h): keys and mixed values of all positions, then plain attention."""
        heads = self.num_heads
        k = self.k_proj(key).unflatten(-1, (heads, -1)).transpose(1, 2)
        by_head = self.v_weight.unflatten(1, (heads, -1)).permute(1, 0, 2, 3).flatten(2)  # (H, N, d_h * vdim)
        mixed = shares.to(q.dtype).transpose(0, 1) @ by_head.to(q.dtype)  # (H, B, d_h * vdim)
        mixed = mixed.transpose(0, 1).unflatten(-1, (-1, value.shape[2])).flatten(1, 2)  # (B, H * d_h, vdim)
        value, mixed = value.to(q.dtype), mixed.transpose(1, 2)
        if self.v_bias is None:
            v = torch.bmm(value, mixed)
        else:
            v = torch.baddbmm(self._mixed_bias(shares, q.dtype).flatten(1)[:, None], value, mixed)
        v = v.unflatten(-1, (heads, -1)).transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)

    def _short(self, q: Tensor, key: Tensor, value: Tensor, shares: Tensor, seen: Tensor | None) -> Tensor:
        """Return (B, H, Lq, d_h): attention over the sequence itself, then keys' and values' projections."""
        _, heads, queries, width = q.shape
        q = q * width**-0.5
        to_key = self.k_proj.weight.unflatten(0, (heads, -1)).to(q.dtype)  # (H, d_h, kdim)
        scores = torch.bmm(_by_head(q, to_key).flatten(1, 2), key.to(q.dtype).transpose(1, 2))
        scores = scores.unflatten(1, (heads, queries))
        if self.k_proj.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            # the same for all keys, so without effect; there so that every parameter has a gradient
            bias = self.k_proj.bias.view(heads, 1, width).to(q.dtype)
            scores = scores + (q * bias).sum(dim=-1, keepdim=True)
        if seen is not None:
            scores = scores.masked_fill(~seen, -torch.inf)
        weights = F.dropout(scores.softmax(dim=-1), self.dropout, self.training).to(q.dtype)
        pooled = torch.bmm(weights.flatten(1, 2), value.to(q.dtype)).unflatten(1, (heads, queries))
        to_value = self.v_weight.unflatten(1, (heads, -1)).permute(1, 3, 0, 2).flatten(2).to(q.dtype)
        parts = _by_head(pooled, to_value).unflatten(-1, (self.num_values, width))  # (B, H, Lq, N, d_h)
        y = (parts * shares[:, :, None, :, None].to(parts.dtype)).sum(dim=-2)
        if self.v_bias is not None:  # dropped weights do not sum to 1
            y = y + self._mixed_bias(shares, y.dtype) * weights.sum(dim=-1, keepdim=True)
        return y

    def _mixed_bias(self, shares: Tensor, dtype: torch.dtype) -> Tensor:
        """Return (B, H, 1, d_h), sum_i g_i b_i."""
        assert self.v_bias is not None
        by_head = self.v_bias.unflatten(1, (self.num_heads, -1)).transpose(0, 1)  # (H, N, d_h)
        return _by_head(shares[:, :, None, :].to(dtype), by_head.to(dtype)).to(dtype)

    @torch.no_grad()
    def fold(self, code: Tensor) -> nn.MultiheadAttention:
        """Return the plain module that computes the same for one code (pc_dim,), but for queries that see no
        key: there it gives NaN."""
        keys, shares = self.key_gate.of_one(code), self.value_gate.of_one(code)
        weight, vdim = self.out_proj.weight, self.v_weight.shape[2]
        made = nn.MultiheadAttention(
            self.q_proj.out_features, self.num_heads, dropout=self.dropout, bias=self.v_bias is not None,
            kdim=self.k_proj.in_features, vdim=vdim, batch_first=self.batch_first, device=weight.device,
            dtype=weight.dtype,
        )  # fmt: skip
        by_head = shares.view(self.num_heads, 1, -1).expand(-1, weight.shape[0] // self.num_heads, -1)
        each = by_head.flatten(0, 1).to(weight.dtype)  # (embed_dim, N)
        mixed = torch.einsum("en,nev->ev", each, self.v_weight)
        for target, source in zip(
            _in_weights(made),
            (self.q_proj.weight, self.k_proj.weight * keys[:, None].to(weight.dtype), mixed),
            strict=True,
        ):
            target.copy_(source)
        if self.v_bias is not None:
            value_bias = torch.einsum("en,ne->e", each, self.v_bias)
            key_bias = self.k_proj.bias * keys.to(weight.dtype)
            made.in_proj_bias.copy_(torch.cat([self.q_proj.bias, key_bias, value_bias]))
        made.out_proj.load_state_dict(self.out_proj.state_dict())
        return made.train(self.training)


def _by_head(x: Tensor, weight: Tensor) -> Tensor:
    """Return (B, H, Lq, b) of x (B, H, Lq, a), each head through its own weight (H, a, b); a product with
    broadcasting would copy the weights for every row of the batch."""
    rows = x.transpose(0, 1).flatten(1, 2)
    return torch.bmm(rows, weight).unflatten(1, (x.shape[0], x.shape[2])).transpose(0, 1)


def _in_weights(mha: nn.MultiheadAttention) -> tuple[Tensor, ...]:
    """Return the projections of query, key and value."""
    if mha.in_proj_weight is not None:  # pyright: ignore[reportUnnecessaryComparison]
        return mha.in_proj_weight.chunk(3)
    return mha.q_proj_weight, mha.k_proj_weight, mha.v_proj_weight


def _seen(query: Tensor, key: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Return (B or 1, 1, Lq or 1, L) bool, True where a key is seen; None without masks."""
    shapes = {"key_padding_mask": (key.shape[0], key.shape[1]), "attn_mask": (query.shape[1], key.shape[1])}
    for name, given in (("key_padding_mask", padding), ("attn_mask", mask)):
        if given is not None and (given.dtype != torch.bool or tuple(given.shape) != shapes[name]):
            raise InputError(
                f"{name} is {given.dtype} of shape {tuple(given.shape)}, expected bool of shape "
                f"{shapes[name]}, True where a key may not be seen"
            )
    seen = None if padding is None else ~padding[:, None, None, :]
    if mask is None:
        return seen
    return ~mask[None, None] if seen is None else seen & ~mask[None, None]
