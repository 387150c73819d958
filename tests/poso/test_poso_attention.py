"""Gated attention: both fast ways against Eq. 14 computed as it is written, masks, wrapping, folding."""

import math

import pytest
import torch
from torch import nn

from quadmix.errors import InputError
from quadmix.poso import GateConfig, PosoMultiheadAttention

SHORT, LONG = (1, 30), (12, 9)  # queries, keys


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def made(bias: bool = True, **settings) -> PosoMultiheadAttention:
    module = PosoMultiheadAttention(8, 2, 5, kdim=6, vdim=7, num_values=3, bias=bias, **settings)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "bias" in name:
                parameter.normal_()
    return module


def inputs(queries: int, keys: int, batch: int = 4) -> tuple[torch.Tensor, ...]:
    shapes = ((batch, queries, 8), (batch, keys, 6), (batch, keys, 7), (batch, 5))
    return tuple(torch.randn(shape, requires_grad=True) for shape in shapes)


def written_out(module, query, key, value, code, hidden=None) -> torch.Tensor:
    """Eq. 14 head by head and row by row, in float64: keys gated, N value projections, scalar gates.

    hidden: (B, Lq, L) bool, True where a key may not be seen.
    """
    double = {name: p.double() for name, p in module.named_parameters()}
    zero = torch.zeros((), dtype=torch.float64)
    query, key, value, code = (t.double() for t in (query, key, value, code))

    def gate(name: str) -> torch.Tensor:
        inner = torch.relu(code @ double[f"{name}.first.weight"].T + double[f"{name}.first.bias"])
        return torch.sigmoid(inner @ double[f"{name}.second.weight"].T + double[f"{name}.second.bias"])

    gate_k, gate_v = 2 * gate("key_gate"), gate("value_gate")
    rows = []
    for b in range(len(query)):
        q = query[b] @ double["q_proj.weight"].T + double.get("q_proj.bias", zero)
        k = key[b] @ double["k_proj.weight"].T + double.get("k_proj.bias", zero)
        heads = []
        for h in range(2):
            own = slice(4 * h, 4 * h + 4)
            scores = q[:, own] @ (gate_k[b, own] * k[:, own]).T / math.sqrt(4)
            if hidden is not None:
                scores = scores.masked_fill(hidden[b], -math.inf)
            share = torch.softmax(scores, dim=1).nan_to_num(0.0)
            mixed = torch.zeros(())
            for i in range(3):
                v = value[b] @ double["v_weight"][i, own].T
                v = v + double["v_bias"][i, own] if "v_bias" in double else v
                mixed = mixed + (2 / 3) * gate_v[b, 3 * h + i] * v
            heads.append(share @ mixed)
        y = torch.cat(heads, dim=1) @ double["out_proj.weight"].T + double.get("out_proj.bias", zero)
        if hidden is not None:
            y = torch.where(hidden[b].all(dim=1, keepdim=True), 0.0, y)
        rows.append(y)
    return torch.stack(rows)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [SHORT, LONG])
def test_fast_ways_equal_the_naive_equation_and_its_gradients(shape: tuple[int, int], bias: bool) -> None:
    module, given = made(bias), inputs(*shape)
    assert module._is_short(*shape) == (shape == SHORT)
    found, wanted = module(*given), written_out(module, *given)
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
    parameters = [*given, *(p for n, p in module.named_parameters() if n != "k_proj.bias" or shape == LONG)]
    weigh = torch.randn_like(found)
    mine = torch.autograd.grad((found * weigh).sum(), parameters, retain_graph=True)
    theirs = torch.autograd.grad((wanted * weigh).sum(), parameters)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("shape", [SHORT, LONG])
def test_masks_hide_keys_and_a_query_that_sees_none_gets_zeros(shape: tuple[int, int]) -> None:
    queries, keys = shape
    module, given = made(), inputs(*shape)
    padding = torch.rand(4, keys) < 0.4
    padding[1] = True  # hides everything of row 1
    mask = torch.rand(queries, keys) < 0.3
    hidden = padding[:, None, :] | mask[None]
    found = module(*given, key_padding_mask=padding, attn_mask=mask)
    wanted = written_out(module, *given, hidden=hidden)
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
    assert not found[1].any()
    found.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in (*given, *module.parameters()))
    changed = given[2].detach().clone()
    changed[padding] += 100.0
    torch.testing.assert_close(
        module(given[0], given[1], changed, given[3], padding, mask), found, atol=1e-4, rtol=1e-4
    )
    nothing = module(*given, attn_mask=torch.ones(queries, keys, dtype=torch.bool))
    assert not nothing.any()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("widths", [{}, {"kdim": 6, "vdim": 7}])
@pytest.mark.parametrize("shape", [SHORT, LONG])
def test_attention_at_identity_is_the_trained_one_and_folds_to_a_plain_one(shape, widths, bias) -> None:
    plain = nn.MultiheadAttention(8, 2, batch_first=True, bias=bias, **widths).eval()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.normal_(std=0.5)
    queries, keys = shape
    query, code = torch.randn(4, queries, 8), torch.randn(4, 5)
    key, value = torch.randn(4, keys, widths.get("kdim", 8)), torch.randn(4, keys, widths.get("vdim", 8))
    padding = torch.arange(keys) >= torch.tensor([[keys], [3], [1], [2]])
    wanted = plain(query, key, value, key_padding_mask=padding, need_weights=False)[0]
    wrapped = PosoMultiheadAttention.from_mha(plain, 5).eval()
    torch.testing.assert_close(wrapped(query, key, value, code, padding), wanted, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        for gate in (wrapped.key_gate, wrapped.value_gate):
            gate.second.weight.normal_()
    folded = wrapped.fold(code[2])
    assert type(folded) is nn.MultiheadAttention
    found = wrapped(query, key, value, code[2].expand(4, 5), padding)
    torch.testing.assert_close(
        folded(query, key, value, key_padding_mask=padding)[0], found, atol=1e-5, rtol=1e-5
    )
    assert not torch.allclose(found, wanted, atol=1e-3)


def test_copies_of_trained_values_part_in_training() -> None:
    """Equal copies under equal gates would have equal gradients: N values as good as one."""
    wrapped = PosoMultiheadAttention.from_mha(nn.MultiheadAttention(8, 2), 5, num_values=3)
    x = torch.randn(7, 4, 8)
    wrapped(x, x, x, torch.randn(4, 5)).square().sum().backward()
    gradient = wrapped.value_gate.second.weight.grad
    assert gradient is not None
    assert (gradient[0] - gradient[1]).abs().max() > 1e-3 * gradient.abs().max()


def test_batch_may_stand_second() -> None:
    first, given = made(), inputs(*SHORT)
    second = made(batch_first=False)
    second.load_state_dict(first.state_dict())
    turned = [x.transpose(0, 1) for x in given[:3]]
    torch.testing.assert_close(second(*turned, given[3]).transpose(0, 1), first(*given))


@pytest.mark.parametrize("shape", [SHORT, LONG])
def test_dropout_drops_attention_while_training_and_keeps_the_mean(shape: tuple[int, int]) -> None:
    module, given = made(dropout=0.3), inputs(*shape, batch=1)
    many = [x.detach().expand(4000, *x.shape[1:]) for x in given]
    torch.testing.assert_close(module(*many).mean(dim=0), module.eval()(*given)[0], atol=0.06, rtol=0.0)
    assert torch.equal(module(*given), module(*given))
    assert module.train()(*many).std(dim=0).min() > 0.02


def test_wrong_shapes_masks_and_counts_are_named() -> None:
    module, (query, key, value, code) = made(), inputs(2, 3)
    for given, what in (
        (
            (query[0], key, value, code),
            r"query has shape \(2, 8\), expected \(4, L, 8\), B = 4 as there are codes",
        ),
        ((query, key[:2], value, code), r"key has shape \(2, 3, 6\), expected \(4, L, 6\)"),
        ((query, key, key, code), r"value has shape \(4, 3, 6\), expected \(4, L, 7\)"),
        ((query, key, value[:, :2], code), "there are 3 keys and 2 values"),
        ((query, key, value, code[:, :4]), r"the code has shape \(4, 4\), expected \(B, 5\)"),
        (
            (query, key, value, code, torch.zeros(4, 3)),
            r"key_padding_mask is torch\.float32 of shape \(4, 3\)",
        ),
        (
            (query, key, value, code, None, torch.zeros(3, 3, dtype=torch.bool)),
            r"attn_mask .* shape \(2, 3\)",
        ),
    ):
        with pytest.raises(InputError, match=what):
            module(*given)
    for settings, what in (
        ({"num_values": 0}, "num_values is 0"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"num_heads": 3}, r"embed_dim is 8, expected a multiple of num_heads \(3\)"),
    ):
        with pytest.raises(InputError, match=what):
            PosoMultiheadAttention(**{"embed_dim": 8, "num_heads": 2, "pc_dim": 5, **settings})
    with pytest.raises(InputError, match="add_bias_kv"):
        PosoMultiheadAttention.from_mha(nn.MultiheadAttention(8, 2, add_bias_kv=True), 5)


def test_dropout_is_off_where_the_trained_module_is_off() -> None:
    """A wrapped module that was in evaluation computes as before at once, and so does what it folds to."""
    plain = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    x, code = torch.randn(4, 6, 8), torch.randn(4, 5)
    wrapped = PosoMultiheadAttention.from_mha(plain.eval(), 5)
    torch.testing.assert_close(wrapped(x, x, x, code), plain(x, x, x)[0], atol=1e-6, rtol=1e-5)
    folded = wrapped.fold(code[0])
    torch.testing.assert_close(folded(x, x, x)[0], plain(x, x, x)[0], atol=1e-5, rtol=1e-5)
    assert PosoMultiheadAttention.from_mha(plain.train(), 5).training


@pytest.mark.parametrize("shape", [SHORT, LONG])
def test_padding_may_hold_anything(shape: tuple[int, int]) -> None:
    module, (query, key, value, code) = made().eval(), inputs(*shape)
    padding = torch.arange(shape[1]) >= torch.tensor([shape[1], 3, 0, *[1] * (len(key) - 3)])[:, None]
    wanted = module(query, key, value, code, padding)
    spoilt = [x.detach().masked_fill(padding[..., None], torch.nan) for x in (key, value)]
    torch.testing.assert_close(module(query, *spoilt, code, padding), wanted)
    assert not wanted[2].any()


def test_starts_of_the_two_gates() -> None:
    module = PosoMultiheadAttention(256, 16, 5, num_values=8)
    assert module.key_gate.second.weight.std().item() == pytest.approx(0.5, rel=0.05)
    assert module.value_gate.second.weight.std().item() == pytest.approx(1.5, rel=0.06)
    assert module.value_gate.scale.item() == 2 / 8
    config = GateConfig(init="identity")
    assert not PosoMultiheadAttention(8, 2, 5, gate=config).value_gate.second.weight.any()
