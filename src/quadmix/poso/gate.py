"""The gate of POSO: how much each feature, or each sub-module, counts for one group (arXiv 2108.04690).

In: the personalisation code of a group, a vector. Out: factors C * g(code) in (0, C), with

    g(p) = sigmoid(W2 relu(W1 p + b1) + b2)

a two-layer MLP with a sigmoid (paper, section 4.5). C keeps the scale, since nothing bounds the sum of g: a
sigmoid is 1/2 on average, so C = 2 where a factor multiplies one path, and 2 / N where N paths are summed.

The paper gives neither C nor the start of W2. From scratch W2 ~ N(0, 0.5^2) for element-wise gates and
N(0, 1.5^2) for scalar gates of whole sub-modules: gates that began near 1 (0.05) cost 11 +- 11 points of AUC
on a minority of 1 %, and nothing certain on one of 4 % (docs/poso.md).
`identity` (W2 = 0, every factor 1, or 1 / N) is for modules that are trained already.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadmix.errors import InputError

ELEMENT_STD, SCALAR_STD = 0.5, 1.5  # of W2, where a gate has a factor per feature, or per sub-module


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """hidden: width of the first layer. scale: C of one path, at least 1; a sum of N has C = scale / N.
    learn_scale: C is a parameter. init_std: of W2 where init is spread; None: 0.5 for gates with a factor per
    feature, 1.5 for those with one per sub-module.

    Raises InputError for values outside these ranges, and for identity with scale 1: sigmoid reaches no 1.
    """

    hidden: int = 32
    scale: float = 2.0
    learn_scale: bool = False
    init: Literal["spread", "identity"] = "spread"
    init_std: float | None = None

    def __post_init__(self) -> None:
        at_least_one(self.hidden, "hidden of a gate")
        if not 1.0 <= self.scale < math.inf:
            raise InputError(
                f"scale of a gate is {self.scale}, expected at least 1: below it no factor can let a feature "
                "pass whole; 2 is the default"
            )
        if self.init not in ("spread", "identity"):
            raise InputError(f"init of a gate is {self.init!r}, expected 'spread' or 'identity'")
        if self.init == "identity" and self.scale == 1.0:
            raise InputError("a gate of scale 1 has factors below 1, never 1; identity needs a scale above 1")
        if self.init_std is not None and not 0.0 <= self.init_std < math.inf:
            raise InputError(f"init_std of a gate is {self.init_std}, expected a number not below 0")


class Gate(nn.Module):
    """Factors from the code of a group; computed in float32 at least, under autocast, too."""

    scale: Tensor

    def __init__(
        self,
        pc_dim: int,
        features: int,
        config: GateConfig | None = None,
        *,
        summed: int = 1,
        init_std: float = ELEMENT_STD,
    ) -> None:
        """features: factors per code. summed: N, how many gated paths are added up. init_std: where `config`
        has none."""
        super().__init__()
        config = config or GateConfig()
        at_least_one(pc_dim, "pc_dim")
        at_least_one(features, "factors of a gate")
        self.first = nn.Linear(pc_dim, config.hidden)
        self.second = nn.Linear(config.hidden, features)
        scale = torch.tensor(config.scale / summed)
        if config.learn_scale:
            self.scale = nn.Parameter(scale)
        else:
            self.register_buffer("scale", scale)
        std = init_std if config.init_std is None else config.init_std
        with torch.no_grad():
            if config.init == "spread":
                self.second.weight.normal_(0.0, std)
                self.second.bias.zero_()
            else:  # scale * sigmoid(bias) = 1; 0 where scale is 2
                self.second.weight.zero_()
                self.second.bias.fill_(-math.log(config.scale - 1.0))

    def forward(self, pc: Tensor) -> Tensor:
        """Return (B, features) factors in (0, C) of codes pc (B, pc_dim); InputError for another shape."""
        if pc.dim() != 2 or pc.shape[1] != self.first.in_features:
            raise InputError(
                f"the code has shape {tuple(pc.shape)}, expected (B, {self.first.in_features}): one vector "
                "for each row of x; make it with PersonalizationCode"
            )
        wide = torch.promote_types(self.first.weight.dtype, torch.float32)
        with torch.autocast(pc.device.type, enabled=False):
            hidden = torch.relu(_linear(self.first, pc.to(wide)))
            return self.scale.to(wide) * torch.sigmoid(_linear(self.second, hidden))

    def of_one(self, code: Tensor) -> Tensor:
        """Return (features,) factors of one code (pc_dim,)."""
        if code.dim() != 1:
            raise InputError(f"the code to fold has shape {tuple(code.shape)}, expected one vector (pc_dim,)")
        return self(code[None])[0]


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


def gated(x: Tensor, factors: Tensor) -> Tensor:
    """Return x (B, ..., d) times factors (B, d) or (B, 1), those of a row for all of its positions."""
    if x.dim() < 2 or x.shape[0] != factors.shape[0]:
        raise InputError(
            f"x has shape {tuple(x.shape)} and there are {factors.shape[0]} codes; expected x (B, ..., d) "
            "and one code for each of its B rows"
        )
    between = (1,) * (x.dim() - 2)
    return x * factors.view(factors.shape[0], *between, factors.shape[1]).to(x.dtype)


class Scale(nn.Module):
    """x times fixed factors (d,): what is left of a gate whose code is fixed."""

    factors: Tensor

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.register_buffer("factors", factors.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return x (..., d) * factors."""
        return x * self.factors.to(x.dtype)


def at_least_one(value: int, what: str) -> None:
    """Raise InputError if a count or a width is below 1."""
    if value < 1:
        raise InputError(f"{what} is {value}, expected at least 1")
