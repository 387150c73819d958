"""POSO(Linear): a linear layer whose outputs are scaled for each group (arXiv 2108.04690, Eqs. 7-10).

The general form C sum_i g_i(p) W_i x (Eq. 6) has one matrix per sub-module. With as many sub-modules as
outputs, and W_i equal to row i of one W and zero elsewhere, it is

    y = C g(p) * (W x + b)                                            (Eq. 10; the paper has no bias)

so that a group costs a vector and not a matrix.
"""

import torch
from torch import Tensor, nn

from quadmix.poso.gate import Gate, GateConfig


class PosoLinear(nn.Module):
    """Like `torch.nn.Linear`, with the code of a group as a second input."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        code_dim: int,
        *,
        bias: bool = True,
        gate: GateConfig | None = None,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.gate = Gate(code_dim, out_features, gate)

    @staticmethod
    def from_linear(layer: nn.Linear, code_dim: int, *, gate: GateConfig | None = None) -> "PosoLinear":
        """Wrap a trained layer, whose weights are shared; by default the result is as before."""
        config = gate or GateConfig(init="identity")
        made = PosoLinear(1, 1, code_dim, gate=config)
        made.linear = layer
        made.gate = Gate(code_dim, layer.out_features, config)
        return made

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Return (B, ..., out) of x (B, ..., in) and codes (B, code_dim), one code for all of a row of x."""
        factors = self.gate(code)
        between = (1,) * (x.dim() - 2)
        return self.linear(x) * factors.view(len(factors), *between, -1).to(x.dtype)

    @torch.no_grad()
    def fold(self, code: Tensor) -> nn.Linear:
        """Return the plain layer that computes the same for one code (code_dim,)."""
        factors = self.gate(code[None])[0]
        bias = dict(self.linear.named_parameters()).get("bias")
        made = nn.Linear(self.linear.in_features, self.linear.out_features, bias=bias is not None)
        made.weight.copy_(self.linear.weight * factors[:, None])
        if bias is not None:
            made.bias.copy_(bias * factors)
        return made
