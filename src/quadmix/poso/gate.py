"""The gate of POSO: how much each feature of a module counts for one group (arXiv 2108.04690).

In: the code of a group, a vector. Out: (d,) factors in (0, C), C * g(code) with

    g(p) = sigmoid(W2 relu(W1 p + b1) + b2)

a two-layer MLP with a sigmoid (paper, section 4.5). C keeps the scale: with C = 2 and b2 = 0 the expectation
of a factor is 1. The paper gives neither C nor the start of W2. W2 ~ N(0, 0.5^2) was needed in training from
scratch: gates that begin near 1 left the code unused. `identity` (W2 = b2 = 0, every factor C / 2) is for
modules that are trained already.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """hidden: width of the first layer. scale: C, fixed. init_std: of W2 where init is spread."""

    hidden: int = 16
    scale: float = 2.0
    init: Literal["spread", "identity"] = "spread"
    init_std: float = 0.5


class Gate(nn.Module):
    """Factors per feature from the code of a group; computed in float32 under autocast, too."""

    def __init__(self, code_dim: int, features: int, config: GateConfig | None = None) -> None:
        super().__init__()
        self.config = config or GateConfig()
        self.first = nn.Linear(code_dim, self.config.hidden)
        self.second = nn.Linear(self.config.hidden, features)
        with torch.no_grad():
            if self.config.init == "spread":
                self.second.weight.normal_(0.0, self.config.init_std)
            else:
                self.second.weight.zero_()
            self.second.bias.zero_()

    def forward(self, code: Tensor) -> Tensor:
        """Return (B, features) factors in (0, C) of codes (B, code_dim)."""
        with torch.autocast(code.device.type, enabled=False):
            hidden = torch.relu(self.first(code.float()))
            return self.config.scale * torch.sigmoid(self.second(hidden))
