"""The gated MLP, the general sum and the gated mixture of experts, against their equations written out."""

import pytest
import torch
from torch import nn

from quadmix.errors import InputError
from quadmix.poso import GateConfig, MMoE, Poso, PosoMLP, PosoMMoE


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


IDENTITY = GateConfig(init="identity")


def test_mlp_is_equation_11_with_a_gate_of_its_own_per_layer_and_none_at_the_end() -> None:
    module, x, code = PosoMLP(6, [5, 4], 3, pc_dim=8, activation="gelu"), torch.randn(7, 6), torch.randn(7, 8)
    named = {name: p.detach().double() for name, p in module.named_parameters()}
    h = x.double()
    for layer in range(2):
        z = h @ named[f"blocks.{layer}.0.weight"].T + named[f"blocks.{layer}.0.bias"]
        gelu = 0.5 * z * (1 + torch.erf(z / 2**0.5))
        inner = torch.relu(
            code.double() @ named[f"gates.{layer}.first.weight"].T + named[f"gates.{layer}.first.bias"]
        )
        logits = inner @ named[f"gates.{layer}.second.weight"].T + named[f"gates.{layer}.second.bias"]
        h = 2 / (1 + torch.exp(-logits)) * gelu
    wanted = h @ named["out.weight"].T + named["out.bias"]
    torch.testing.assert_close(module(x, code).detach().double(), wanted, atol=1e-5, rtol=1e-5)
    assert module(x, code).shape == (7, 3)
    assert PosoMLP(6, [5, 4], pc_dim=8)(x, code).shape == (7, 4)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh"])
@pytest.mark.parametrize("out", [None, 3])
def test_mlp_at_identity_is_the_plain_one_and_folds_to_a_plain_one(activation: str, out: int | None) -> None:
    x, code = torch.randn(7, 6), torch.randn(7, 8)
    acts = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
    plain = nn.Sequential(
        nn.Linear(6, 5), nn.LayerNorm(5), acts[activation](), nn.Dropout(0.3), nn.Linear(5, 4),
        acts[activation](), *([nn.Linear(4, out)] if out else []),
    ).eval()  # fmt: skip
    wrapped = PosoMLP.from_mlp(plain, 8).eval()
    torch.testing.assert_close(wrapped(x, code), plain(x), atol=1e-6, rtol=0)
    assert wrapped.blocks[0][0] is plain[0]
    with torch.no_grad():
        for gate in wrapped.gates:
            gate.second.weight.normal_()
    folded = wrapped.fold(code[2])
    assert not any("gate" in name for name, _ in folded.named_modules())
    found = wrapped(x, code[2].expand(7, 8))
    torch.testing.assert_close(folded(x), found)
    assert not torch.allclose(found, plain(x), atol=1e-3)


def test_dropout_comes_after_the_gate_and_stays_in_the_fold() -> None:
    module = PosoMLP(6, [4000], pc_dim=8, dropout=0.5)
    x, code = torch.randn(1, 6), torch.randn(1, 8)
    found, whole = module(x, code), module.eval()(x, code)
    kept = found != 0
    torch.testing.assert_close(found[kept], 2 * whole[kept])
    assert kept[whole != 0].float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert [type(layer) for layer in PosoMLP(6, [4], 2, pc_dim=8, dropout=0.5).fold(code[0])] == [
        nn.Linear, nn.ReLU, nn.Dropout, nn.Linear,
    ]  # fmt: skip


def test_one_code_gates_all_positions_of_a_sequence() -> None:
    x, code = torch.randn(2, 3, 4, 6), torch.randn(2, 8)
    for module, tail in ((PosoMLP(6, [5], 3, pc_dim=8), (3,)), (PosoMMoE(6, [5], 4, 2, 8), (2, 5))):
        found = module(x, code)
        assert found.shape == (2, 3, 4, *tail)
        for row in range(2):
            alone = module(x[row].reshape(12, 6), code[row].expand(12, 8))
            torch.testing.assert_close(found[row].reshape(12, *tail), alone)


def test_general_form_is_equation_6_and_the_mean_of_its_parts_at_identity() -> None:
    parts, x, code = [nn.Linear(6, 3) for _ in range(4)], torch.randn(5, 6), torch.randn(5, 8)
    module = Poso(parts, 8)
    gates = module.gate(code).detach() * 2  # C = 2 / N
    wanted = sum((2 / 4) * gates[:, i : i + 1] * part(x) for i, part in enumerate(parts))
    torch.testing.assert_close(module(x, code), wanted)
    assert gates.max() < 2
    assert module.gate.second.weight.std() > 1.0  # starts of scalar gates are apart
    mean = torch.stack([part(x) for part in parts]).mean(dim=0)
    torch.testing.assert_close(Poso(parts, 8, gate=IDENTITY)(x, code), mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(module.fold(code[1])(x), module(x, code[1].expand(5, 8)))


def test_experts_are_equations_15_to_18_with_one_scalar_each_and_no_renormalisation() -> None:
    module, x, code = PosoMMoE(6, [5, 4], 3, 2, 8), torch.randn(7, 6), torch.randn(7, 8)
    found, factors = module(x, code).detach(), module.gate(code).detach()
    assert (found.shape, factors.shape) == ((7, 2, 4), (7, 3))
    outputs = [expert(x) for expert in module.mmoe.experts]
    logits = (x @ module.mmoe.task_gates.weight.T).detach().view(7, 2, 3)
    for task in range(2):
        share = torch.exp(logits[:, task]) / torch.exp(logits[:, task]).sum(dim=1, keepdim=True)
        wanted = sum(factors[:, i : i + 1] * share[:, i : i + 1] * outputs[i].detach() for i in range(3))
        torch.testing.assert_close(found[:, task], wanted)


def test_experts_at_identity_are_the_plain_mixture_and_fold_to_one() -> None:
    plain, x, code = MMoE(6, [5], 3, 2, activation="gelu"), torch.randn(7, 6), torch.randn(7, 8)
    wrapped = PosoMMoE.from_mmoe(plain, 8)
    torch.testing.assert_close(wrapped(x, code), plain(x), atol=1e-6, rtol=0)
    module = PosoMMoE.from_mmoe(plain, 8, gate=GateConfig())
    many = PosoMMoE.from_mmoe(MMoE(6, [2], 64, 1), 8, gate=GateConfig())
    assert many.gate.second.weight.std().item() == pytest.approx(1.5, rel=0.1)  # 2,048 numbers
    folded = module.fold(code[3])
    assert type(folded) is MMoE
    torch.testing.assert_close(folded(x), module(x, code[3].expand(7, 8)))
    assert len(plain.experts[0]) == 2  # the fold is a copy


def test_counts_below_one_and_modules_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError, match="number of sub-modules is 0, expected at least 1"):
        Poso([], 8)
    with pytest.raises(InputError, match="number of hidden layers is 0"):
        PosoMLP(6, [], 1, pc_dim=8)
    with pytest.raises(InputError, match="width of a layer is 0"):
        PosoMLP(6, [0], 1, pc_dim=8)
    with pytest.raises(InputError, match="num_experts is 0"):
        PosoMMoE(6, [5], 0, 2, 8)
    with pytest.raises(InputError, match="num_tasks is 0"):
        PosoMMoE(6, [5], 2, 0, 8)
    with pytest.raises(InputError, match="number of an expert's layers is 0"):
        PosoMMoE(6, [], 2, 1, 8)
    with pytest.raises(InputError, match="activation is 'rely', expected one of relu, gelu, silu, tanh"):
        PosoMLP(6, [5], 1, pc_dim=8, activation="rely")
    for bad, what in (
        (nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU()), "module 1 of the MLP is BatchNorm1d"),
        (nn.Sequential(nn.ReLU(), nn.Linear(6, 5)), "module 0 of the MLP is ReLU"),
        (nn.Sequential(nn.Linear(6, 5)), "has no hidden layer .* PosoLinear.from_linear"),
        (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2), nn.LayerNorm(2)), "LayerNorm at its end"),
    ):
        with pytest.raises(InputError, match=what):
            PosoMLP.from_mlp(bad, 8)
