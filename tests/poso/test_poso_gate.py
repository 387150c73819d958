"""The gate of POSO and the gated linear layer: Eq. 6 to Eq. 10, identity, folding, range, gradients."""

import pytest
import torch
from torch import nn

from quadmix.errors import InputError
from quadmix.poso import Gate, GateConfig, PosoLinear, masking_sensitivity


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("learn", [False, True])
def test_gate_is_a_scaled_sigmoid_of_a_two_layer_network(learn: bool) -> None:
    gate, code = Gate(8, 5, GateConfig(learn_scale=learn)), torch.randn(7, 8)
    named = {name: p.detach() for name, p in gate.named_parameters()}
    w1, b1, w2, b2 = (
        named[f"{layer}.{kind}"] for layer in ("first", "second") for kind in ("weight", "bias")
    )
    written = 2.0 / (1.0 + torch.exp(-(torch.clamp(code @ w1.T + b1, min=0) @ w2.T + b2)))
    torch.testing.assert_close(gate(code).detach(), written)
    assert ((gate(1000 * code) >= 0) & (gate(1000 * code) <= 2)).all()
    assert gate(code).min() > 0
    assert gate(code).max() < 2
    gate(code).sum().backward()
    assert ("scale" in named) == learn
    assert gate.scale.grad is not None if learn else not gate.scale.requires_grad


def test_spread_start_has_the_stated_deviation_and_tells_codes_apart() -> None:
    gate = Gate(8, 4000, GateConfig(hidden=16))
    assert gate.second.weight.std().item() == pytest.approx(0.5, rel=0.02)
    assert not gate.second.bias.any()
    assert gate(torch.randn(500, 8)).mean().item() == pytest.approx(1.0, abs=0.05)
    assert gate(torch.randn(2, 8)).diff(dim=0).abs().mean() > 0.1


def test_width_of_the_spread_is_the_modules_unless_it_is_given() -> None:
    wide = Gate(8, 4000, init_std=1.5).second.weight.std().item()
    given = Gate(8, 4000, GateConfig(init_std=0.1), init_std=1.5).second.weight.std().item()
    assert (wide, given) == (pytest.approx(1.5, rel=0.02), pytest.approx(0.1, rel=0.02))


@pytest.mark.parametrize("scale", [2.0, 3.0, 1.5])
def test_identity_start_is_the_plain_layer_for_every_code_and_scale(scale: float) -> None:
    layer, x, code = nn.Linear(6, 3), torch.randn(4, 6), torch.randn(4, 8)
    wrapped = PosoLinear.from_linear(layer, 8, gate=GateConfig(init="identity", scale=scale))
    torch.testing.assert_close(wrapped(x, code), layer(x), atol=1e-6, rtol=0)
    assert wrapped.linear is layer
    assert not wrapped.gate.second.weight.any()


def test_gated_layer_is_the_sum_of_sub_modules_with_one_row_each() -> None:
    """Eq. 6 with N = d_out and W_i zero but for row i (Eq. 8), against the product of Eq. 10."""
    module, x, code = PosoLinear(5, 3, 8, bias=False), torch.randn(2, 5), torch.randn(2, 8)
    weight, gates = module.linear.weight.detach(), module.gate(code).detach() / 2.0
    whole = torch.zeros(2, 3)
    for i in range(3):
        part = torch.zeros_like(weight)
        part[i] = weight[i]
        whole += gates[:, i : i + 1] * (x @ part.T)
    torch.testing.assert_close(module(x, code).detach(), 2.0 * whole)


@pytest.mark.parametrize("bias", [True, False])
def test_folded_layer_computes_the_same_for_its_code(bias: bool) -> None:
    module, x, code = PosoLinear(5, 3, 8, bias=bias), torch.randn(9, 5), torch.randn(8)
    folded = module.fold(code)
    assert type(folded) is nn.Linear
    torch.testing.assert_close(folded(x), module(x, code.expand(9, 8)).detach())
    assert (folded.bias is not None) == bias


def test_gradients_reach_both_layers_of_the_gate_and_the_code() -> None:
    module, code = PosoLinear(5, 3, 8), torch.randn(2, 8, requires_grad=True)
    module(torch.randn(2, 5), code).square().sum().backward()
    for parameter in (module.gate.first.weight, module.gate.second.weight, module.linear.weight, code):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_gate_computes_in_float32_whatever_surrounds_it() -> None:
    module, x, code = PosoLinear(5, 3, 8), torch.randn(2, 5), torch.randn(2, 8)
    exact = module.gate(code)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module.gate(code), exact)
        assert torch.isfinite(module(x, code)).all()
    half = module.bfloat16()
    assert half.gate(code.bfloat16()).dtype == torch.float32
    assert half(x.bfloat16(), code.bfloat16()).dtype == torch.bfloat16
    assert PosoLinear(5, 3, 8).double()(x.double(), code.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"hidden": 0}, "hidden of a gate is 0, expected at least 1"),
        ({"scale": 0.9}, r"scale of a gate is 0\.9, expected at least 1"),
        ({"scale": float("nan")}, "scale of a gate is nan"),
        ({"scale": float("inf")}, "scale of a gate is inf"),
        ({"init_std": -0.1}, r"init_std of a gate is -0\.1"),
        ({"init": "zeros"}, "init of a gate is 'zeros', expected 'spread' or 'identity'"),
        ({"init": "identity", "scale": 1.0}, "identity needs a scale above 1"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict, what: str) -> None:
    with pytest.raises(InputError, match=what):
        GateConfig(**settings)


def test_wrong_dimensions_are_named() -> None:
    module = PosoLinear(5, 3, 8)
    with pytest.raises(InputError, match=r"the code has shape \(2, 7\), expected \(B, 8\)"):
        module(torch.randn(2, 5), torch.randn(2, 7))
    with pytest.raises(InputError, match=r"the code has shape \(2, 4, 8\), expected \(B, 8\)"):
        module(torch.randn(2, 5), torch.randn(2, 4, 8))
    with pytest.raises(InputError, match=r"x has shape \(3, 3\) and there are 2 codes"):
        module(torch.randn(3, 5), torch.randn(2, 8))
    with pytest.raises(InputError, match=r"x has shape \(3,\) and there are 2 codes"):
        module(torch.randn(5), torch.randn(2, 8))
    with pytest.raises(InputError, match=r"the code to fold has shape \(1, 8\), expected one vector"):
        module.fold(torch.randn(1, 8))
    with pytest.raises(InputError, match="pc_dim is 0, expected at least 1"):
        PosoLinear(5, 3, 0)


def test_masking_sensitivity_is_the_share_of_the_activations_that_moves() -> None:
    shown = torch.tensor([[1.0, -3.0], [2.0, 2.0]])
    assert masking_sensitivity(shown, shown) == 0
    assert masking_sensitivity(shown, torch.zeros(2, 2)) == 1
    moved = shown + torch.tensor([[0.5, 0.0], [0.0, -1.5]])
    assert masking_sensitivity(shown, moved) == pytest.approx(2 / 8)
    assert masking_sensitivity(torch.zeros(1, 1), torch.zeros(1, 1)) == 0
    with pytest.raises(InputError, match=r"shapes \(2, 2\) and \(1, 2\), expected one shape"):
        masking_sensitivity(shown, shown[:1])
