"""POSO(MMoE): experts shared by tasks, masked for each group (arXiv 2108.04690, Eqs. 15-18).

    y_t = C sum_i g_i(p) [softmax(W_t x)]_i e_i(x)                    (Eq. 18; C = 2)

g has one scalar per expert, the same for all tasks; the softmax is over all experts and nothing is
normalised again after the mask.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quadmix.poso.gate import SCALAR_STD, Gate, GateConfig, Scale, at_least_one
from quadmix.poso.linear import identity_gate
from quadmix.poso.mlp import plain_mlp


class MMoE(nn.Module):
    """Multi-gate mixture of experts (Ma et al. 2018): the plain module, and what a fold gives."""

    def __init__(
        self,
        in_features: int,
        expert_hidden: Sequence[int],
        num_experts: int,
        num_tasks: int,
        *,
        activation: str = "relu",
    ) -> None:
        """expert_hidden: widths of the layers of one expert, each with an activation."""
        super().__init__()
        at_least_one(len(expert_hidden), "number of an expert's layers")
        at_least_one(num_experts, "num_experts")
        at_least_one(num_tasks, "num_tasks")
        widths = (in_features, *expert_hidden)
        self.experts = nn.ModuleList(plain_mlp(widths, activation) for _ in range(num_experts))
        self.task_gates = nn.Linear(in_features, num_tasks * num_experts, bias=False)

    def forward(self, x: Tensor, factors: Tensor | None = None) -> Tensor:
        """Return (B, ..., tasks, D) of x (B, ..., in). factors: (B, experts), what each expert is times."""
        outputs = torch.stack([expert(x) for expert in self.experts], dim=-2)
        shares = self.task_gates(x).unflatten(-1, (-1, len(self.experts))).softmax(dim=-1)
        if factors is not None:
            between = (1,) * (x.dim() - 1)
            shares = shares * factors.view(factors.shape[0], *between, factors.shape[1]).to(shares.dtype)
        return shares.to(outputs.dtype) @ outputs


class PosoMMoE(nn.Module):
    """An `MMoE` whose experts count differently for each group."""

    def __init__(
        self,
        in_features: int,
        expert_hidden: Sequence[int],
        num_experts: int,
        num_tasks: int,
        pc_dim: int,
        *,
        activation: str = "relu",
        gate: GateConfig | None = None,
    ) -> None:
        super().__init__()
        self.mmoe = MMoE(in_features, expert_hidden, num_experts, num_tasks, activation=activation)
        self.gate = Gate(pc_dim, num_experts, gate, init_std=SCALAR_STD)

    @staticmethod
    def from_mmoe(mmoe: MMoE, pc_dim: int, *, gate: GateConfig | None = None) -> "PosoMMoE":
        """Wrap a trained module, which is shared; by default the result is as before."""
        made = PosoMMoE(1, [1], 1, 1, 1)
        made.mmoe = mmoe
        made.gate = identity_gate(
            pc_dim, len(mmoe.experts), gate, like=mmoe.task_gates.weight, init_std=SCALAR_STD
        )  # fmt: skip
        return made

    def forward(self, x: Tensor, pc: Tensor) -> Tensor:
        """Return (B, ..., tasks, D) of x (B, ..., in) and codes pc (B, pc_dim), one for a whole row of x."""
        return self.mmoe(x, self.gate(pc))

    @torch.no_grad()
    def fold(self, code: Tensor) -> MMoE:
        """Return the plain module that computes the same for one code (pc_dim,)."""
        made = copy.deepcopy(self.mmoe)
        for expert, factor in zip(made.experts, self.gate.of_one(code), strict=True):
            expert.append(Scale(factor))  # pyright: ignore[reportCallIssue]
        return made
