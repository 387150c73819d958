"""The gate of POSO and the gated linear layer: Eq. 6 to Eq. 10, identity, folding, range, gradients."""

import pytest
import torch
from torch import nn

from quadmix.poso.gate import Gate, GateConfig
from quadmix.poso.linear import PosoLinear


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_gate_is_a_scaled_sigmoid_of_a_two_layer_network() -> None:
    gate, code = Gate(8, 5), torch.randn(7, 8)
    w1, b1, w2, b2 = (p.detach() for p in gate.parameters())
    written = 2.0 / (1.0 + torch.exp(-(torch.clamp(code @ w1.T + b1, min=0) @ w2.T + b2)))
    torch.testing.assert_close(gate(code).detach(), written)
    assert ((gate(1000 * code) >= 0) & (gate(1000 * code) <= 2)).all()
    assert gate(code).min() > 0
    assert gate(code).max() < 2


def test_spread_start_has_the_stated_deviation_and_tells_codes_apart() -> None:
    gate = Gate(8, 4000, GateConfig(hidden=16))
    assert gate.second.weight.std().item() == pytest.approx(0.5, rel=0.02)
    assert not gate.second.bias.any()
    assert gate(torch.randn(500, 8)).mean().item() == pytest.approx(1.0, abs=0.05)
    assert gate(torch.randn(2, 8)).diff(dim=0).abs().mean() > 0.1


def test_identity_start_is_the_plain_layer_for_every_code() -> None:
    layer, x, code = nn.Linear(6, 3), torch.randn(4, 6), torch.randn(4, 8)
    wrapped = PosoLinear.from_linear(layer, 8)
    torch.testing.assert_close(wrapped(x, code), layer(x), atol=1e-6, rtol=0)
    assert wrapped.linear is layer


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
    torch.testing.assert_close(module.fold(code)(x), module(x, code.expand(9, 8)).detach())
    assert (module.fold(code).bias is not None) == bias


def test_one_code_gates_all_positions_of_a_sequence() -> None:
    module, x, code = PosoLinear(5, 3, 8), torch.randn(2, 4, 5), torch.randn(2, 8)
    found = module(x, code)
    assert found.shape == (2, 4, 3)
    for row in range(2):
        torch.testing.assert_close(found[row], module(x[row], code[row].expand(4, 8)))


def test_gradients_reach_both_layers_of_the_gate_and_the_code() -> None:
    module, code = PosoLinear(5, 3, 8), torch.randn(2, 8, requires_grad=True)
    module(torch.randn(2, 5), code).square().sum().backward()
    for parameter in (module.gate.first.weight, module.gate.second.weight, module.linear.weight, code):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_gate_stays_in_float32_under_autocast() -> None:
    module, x, code = PosoLinear(5, 3, 8), torch.randn(2, 5), torch.randn(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert module.gate(code).dtype == torch.float32
        assert torch.isfinite(module(x, code)).all()
