"""POSO(Linear): a linear layer whose outputs are scaled for each group (arXiv 2108.04690, Eqs. 7-10).

The general form C sum_i g_i(p) W_i x (Eq. 6) has one matrix per sub-module. With as many sub-modules as
outputs, and W_i equal to row i of one W and zero elsewhere, it is

    y = C g(p) * (W x + b)                                            (Eq. 10; the paper has no bias)

so that a group costs a vector and not a matrix.
"""

import torch
from torch import Tensor, nn

from quadmix.poso.gate import ELEMENT_STD, Gate, GateConfig, gated


class PosoLinear(nn.Module):
    """Like `torch.nn.Linear`, with the code of a group as a second input."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pc_dim: int,
        *,
        bias: bool = True,
        gate: GateConfig | None = None,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.gate = Gate(pc_dim, out_features, gate)

    @staticmethod
    def from_linear(layer: nn.Linear, pc_dim: int, *, gate: GateConfig | None = None) -> "PosoLinear":
        """Wrap a trained layer, whose weights are shared; by default the result is as before."""
        made = PosoLinear(1, 1, 1)
        made.linear = layer
        made.gate = identity_gate(pc_dim, layer.out_features, gate, like=layer.weight)
        return made

    def forward(self, x: Tensor, pc: Tensor) -> Tensor:
        """Return (B, ..., out) of x (B, ..., in) and codes pc (B, pc_dim), one for all of a row of x."""
        return gated(self.linear(x), self.gate(pc))

    @torch.no_grad()
    def fold(self, code: Tensor) -> nn.Linear:
        """Return the plain layer that computes the same for one code (pc_dim,)."""
        return scaled_rows(self.linear, self.gate.of_one(code))


def identity_gate(
    pc_dim: int,
    features: int,
    config: GateConfig | None,
    *,
    like: Tensor,
    summed: int = 1,
    init_std: float = ELEMENT_STD,
) -> Gate:
    """Return the gate of a trained module that is wrapped, of the device and dtype of `like`; it changes
    nothing at first unless a configuration says otherwise."""
    config = config or GateConfig(init="identity")
    made = Gate(pc_dim, features, config, summed=summed, init_std=init_std)
    return made.to(like.device, like.dtype)


def scaled_rows(layer: nn.Linear, factors: Tensor) -> nn.Linear:
    """Return a copy of a layer with its outputs times factors (out,)."""
    return _copy(layer, layer.weight * factors[:, None].to(layer.weight.dtype), _times(layer, factors))


def scaled_columns(layer: nn.Linear, factors: Tensor) -> nn.Linear:
    """Return a copy of a layer with its inputs times factors (in,)."""
    return _copy(layer, layer.weight * factors.to(layer.weight.dtype), _times(layer, None))


def _times(layer: nn.Linear, factors: Tensor | None) -> Tensor | None:
    bias = dict(layer.named_parameters()).get("bias")
    return bias if bias is None or factors is None else bias * factors.to(bias.dtype)


@torch.no_grad()
def _copy(layer: nn.Linear, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(
        layer.in_features, layer.out_features, bias=bias is not None, device=weight.device, dtype=weight.dtype
    )
    made.weight.copy_(weight)
    if bias is not None:
        made.bias.copy_(bias)
    return made
