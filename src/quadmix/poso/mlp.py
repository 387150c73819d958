"""POSO(MLP): every hidden layer is scaled for each group, after its activation (arXiv 2108.04690, Eq. 11).

    h_l = C g_l(p) * act(W_l h_(l-1) + b_l),  y = W h_L + b           the last layer has no gate

Each layer has a gate network of its own; all read the code and never the features. Dropout comes after the
gate. With ReLU the gate could as well stand before it, with other activations it could not.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from quadmix.errors import InputError
from quadmix.poso.gate import Gate, GateConfig, Scale, at_least_one, gated
from quadmix.poso.linear import identity_gate, scaled_columns

ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
_WRAPPED = (
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Mish,
)


def plain_mlp(widths: Sequence[int], activation: str = "relu", dropout: float = 0.0) -> nn.Sequential:
    """Return Linear, activation and, where it is above 0, dropout for every step between `widths`."""
    if activation not in ACTIVATIONS:
        raise InputError(f"activation is {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        at_least_one(before, "width of a layer")
        at_least_one(after, "width of a layer")
        layers += [nn.Linear(before, after), _activation(activation)]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


def _activation(name: str) -> nn.Module:
    if name == "relu":
        return nn.ReLU(inplace=True)  # one pass over memory less; a Linear does not need what it returned
    return {"gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}[name]()


class PosoMLP(nn.Module):
    """Hidden layers with a gate each, and a last layer without one where `out_features` is given."""

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int | None = None,
        *,
        pc_dim: int,
        activation: str = "relu",
        dropout: float = 0.0,
        gate: GateConfig | None = None,
    ) -> None:
        super().__init__()
        at_least_one(len(hidden), "number of hidden layers")
        layers = list(plain_mlp((in_features, *hidden), activation, dropout))
        if out_features is not None:
            layers.append(nn.Linear(hidden[-1], out_features))
        self._take(layers)
        self.gates = nn.ModuleList(Gate(pc_dim, width, gate) for width in hidden)

    @staticmethod
    def from_mlp(mlp: nn.Sequential, pc_dim: int, *, gate: GateConfig | None = None) -> "PosoMLP":
        """Wrap a trained MLP, whose modules are shared; by default the result is as before.

        mlp: Linear, LayerNorm if any, activation, Dropout if any, for every hidden layer; then a Linear if
        any. Raises InputError for a module of another kind or in another place.
        """
        made = PosoMLP(1, [1], pc_dim=1)
        made._take(list(mlp))
        widths = [block[0] for block in made.blocks]  # pyright: ignore[reportIndexIssue]
        made.gates = nn.ModuleList(
            identity_gate(pc_dim, layer.out_features, gate, like=layer.weight) for layer in widths
        )
        return made

    def _take(self, layers: Sequence[nn.Module]) -> None:
        """Split modules into blocks that end with an activation, the dropout after each, the last layer."""
        blocks: list[nn.Module] = []
        drops: list[nn.Module] = []
        open_: list[nn.Module] = []
        for place, layer in enumerate(layers):
            if isinstance(layer, nn.Dropout) and blocks and not open_:
                drops[-1] = layer
            elif isinstance(layer, _WRAPPED) and open_:
                blocks.append(nn.Sequential(*open_, layer))
                drops.append(nn.Identity())
                open_ = []
            elif isinstance(layer, nn.LayerNorm if open_ else nn.Linear):
                open_.append(layer)
            else:
                raise InputError(
                    f"module {place} of the MLP is {type(layer).__name__}; expected Linear, LayerNorm if "
                    "any, activation, Dropout if any, for every hidden layer, then a Linear if any"
                )
        if not blocks or len(open_) > 1:
            raise InputError(
                "the MLP has no hidden layer that ends with an activation, or a LayerNorm at its end; wrap "
                "a single layer with PosoLinear.from_linear"
            )
        self.blocks, self.drops = nn.ModuleList(blocks), nn.ModuleList(drops)
        self.out = open_[0] if open_ else None

    def forward(self, x: Tensor, pc: Tensor) -> Tensor:
        """Return (B, ..., out) of x (B, ..., in) and codes pc (B, pc_dim), one for all of a row of x."""
        for block, gate, drop in zip(self.blocks, self.gates, self.drops, strict=True):
            x = drop(gated(block(x), gate(pc)))
        return x if self.out is None else self.out(x)

    @torch.no_grad()
    def fold(self, code: Tensor) -> nn.Sequential:
        """Return the plain MLP that computes the same for one code (pc_dim,): each gate is taken into the
        weights that read its layer."""
        layers: list[nn.Module] = []
        factors: Tensor | None = None
        for block, gate, drop in zip(self.blocks, self.gates, self.drops, strict=True):
            first, *others = copy.deepcopy(block).children()
            layers += [_read(first, factors), *others, copy.deepcopy(drop)]
            factors = gate.of_one(code)  # pyright: ignore[reportCallIssue]
        assert factors is not None
        layers.append(Scale(factors) if self.out is None else _read(self.out, factors))
        return nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))


def _read(layer: nn.Module, factors: Tensor | None) -> nn.Module:
    assert isinstance(layer, nn.Linear)
    return layer if factors is None else scaled_columns(layer, factors)
