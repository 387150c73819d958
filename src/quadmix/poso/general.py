"""POSO of any module: N of them see the same input, and each group has its own mixture (arXiv 2108.04690).

    y = C sum_i g_i(p) f_i(x)                                         (Eq. 6; C = 2 / N)

It costs N times the module. `PosoLinear`, `PosoMLP`, `PosoMultiheadAttention` and `PosoMMoE` are the paper's
cheap forms of it. With gates that begin alike the sub-modules stay alike: W2 ~ N(0, 1.5^2).
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from quadmix.poso.gate import SCALAR_STD, Gate, GateConfig, at_least_one, gated


class Poso(nn.Module):
    """A sum of sub-modules of equal input and output, weighed by the code of a group."""

    def __init__(self, modules: Iterable[nn.Module], pc_dim: int, *, gate: GateConfig | None = None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        count = len(self.parts)
        at_least_one(count, "number of sub-modules")
        self.gate = Gate(pc_dim, count, gate, summed=count, init_std=SCALAR_STD)

    def forward(self, x: Tensor, pc: Tensor) -> Tensor:
        """Return what the sub-modules make of x (B, ...), weighed for codes pc (B, pc_dim)."""
        factors = self.gate(pc)
        return _sum(gated(part(x), factors[:, i : i + 1]) for i, part in enumerate(self.parts))

    @torch.no_grad()
    def fold(self, code: Tensor) -> "WeightedSum":
        """Return the plain module that computes the same for one code (pc_dim,)."""
        return WeightedSum(copy.deepcopy(self.parts), self.gate.of_one(code))


class WeightedSum(nn.Module):
    """sum_i w_i f_i(x)."""

    weights: Tensor

    def __init__(self, parts: nn.ModuleList, weights: Tensor) -> None:
        super().__init__()
        self.parts = parts
        self.register_buffer("weights", weights.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum for x."""
        return _sum(weight * part(x) for weight, part in zip(self.weights, self.parts, strict=True))


def _sum(parts: Iterable[Tensor]) -> Tensor:
    first, *others = parts
    for other in others:
        first = first + other
    return first
