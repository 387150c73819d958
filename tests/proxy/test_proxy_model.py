"""The batched model against plain torch written for one model at a time."""

import math

import pytest
import torch
from proxy_world import CONTEXT, MODEL, VOCAB
from torch.nn import functional as F

from quadmix.proxy import model as room
from quadmix.proxy.model import (
    Weights,
    attention,
    flops_per_token,
    head_loss,
    hidden_states,
    initial_weights,
    parameter_count,
    rotary,
    token_losses,
)

CPU = torch.device("cpu")


def random_weights(models: int, seed: int = 0) -> Weights:
    torch_rng = torch.Generator().manual_seed(seed)
    weights = initial_weights(MODEL, VOCAB, list(range(models)), CPU)
    with torch.no_grad():
        for tensor in weights.all():
            tensor.add_(torch.randn(tensor.shape, generator=torch_rng) * 0.2)
    return weights


def plain_forward(weights: Weights, k: int, tokens: torch.Tensor) -> torch.Tensor:
    """One model, complex-number RoPE, a masked softmax per head, PyTorch's own RMSNorm."""
    table = weights.embedding[k]
    d, heads = MODEL.width, MODEL.heads
    half = d // heads // 2
    rate = 10_000.0 ** (-torch.arange(half) / half)
    turn = torch.polar(torch.ones(CONTEXT, half), torch.arange(CONTEXT)[:, None] * rate)

    def norm(x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def rope(x: torch.Tensor) -> torch.Tensor:
        z = torch.complex(x[..., :half], x[..., half:]) * turn
        return torch.cat((z.real, z.imag), -1)

    x = norm(table[tokens])
    for layer in range(MODEL.layers):
        q, key, v, out = weights.square[k, 4 * layer : 4 * layer + 4]
        gate, up, down = weights.wide[k, 3 * layer : 3 * layer + 3]
        y, parts = norm(x), []
        for h in range(heads):
            part = slice(h * 2 * half, (h + 1) * 2 * half)
            scores = rope((y @ q)[..., part]) @ rope((y @ key)[..., part]).mT / math.sqrt(2 * half)
            seen = torch.ones(CONTEXT, CONTEXT).tril().bool()
            parts.append(scores.masked_fill(~seen, -torch.inf).softmax(-1) @ (y @ v)[..., part])
        x = x + torch.cat(parts, -1) @ out
        y = norm(x)
        x = x + (F.silu(y @ gate) * (y @ up)) @ down.T
    return norm(x) @ table.T


def test_batched_loss_and_gradients_equal_one_model_at_a_time() -> None:
    """Loss and every gradient of a batch of three equal plain autograd on each model alone."""
    weights = random_weights(3)
    windows = torch.randint(VOCAB, (3, 4, CONTEXT + 1), generator=torch.Generator().manual_seed(1))
    hidden = hidden_states(weights, windows[:, :, :-1], MODEL.heads, torch.float32)
    loss = head_loss(hidden, weights.embedding, windows[:, :, 1:].flatten(1))
    grads = torch.autograd.grad(loss.sum(), weights.all())
    for k in range(3):
        plain = F.cross_entropy(
            plain_forward(weights, k, windows[k, :, :-1]).flatten(0, 1), windows[k, :, 1:].flatten()
        )
        expected = torch.autograd.grad(plain, weights.all())
        assert loss[k].item() == pytest.approx(plain.item(), abs=1e-5)
        for got, want in zip(grads, expected, strict=True):
            torch.testing.assert_close(got[k], want[k], atol=1e-5, rtol=1e-4)


def test_plain_and_fused_attention_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The explicit products and torch's scaled_dot_product_attention give one answer and one gradient."""
    rng = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(2, 3 * CONTEXT, 16, generator=rng).requires_grad_() for _ in range(3))
    cos, sin = rotary(CONTEXT, 16, 2, dtype=torch.float32, device=CPU)
    weight = torch.randn(2, 3 * CONTEXT, 16, generator=rng)
    results = []
    for limit in (512, 0):
        monkeypatch.setattr(room, "_PLAIN_CONTEXT", limit)
        out = attention(q, k, v, cos, sin, 2)
        results.append((out, *torch.autograd.grad(out, (q, k, v), weight)))
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(plain, fused, atol=1e-5, rtol=1e-5)


def test_a_token_does_not_see_the_future() -> None:
    """Changing the last token of a window leaves the states of the earlier ones as they were."""
    weights = random_weights(1)
    tokens = torch.randint(VOCAB, (1, 1, CONTEXT), generator=torch.Generator().manual_seed(3))
    other = tokens.clone()
    other[..., -1] = (other[..., -1] + 1) % VOCAB
    one = hidden_states(weights, tokens, MODEL.heads, torch.float32)
    two = hidden_states(weights, other, MODEL.heads, torch.float32)
    torch.testing.assert_close(one[:, :-1], two[:, :-1], atol=0, rtol=0)
    assert not torch.allclose(one[:, -1], two[:, -1])


@pytest.mark.parametrize("rows", [1, 255, 256, 257])
def test_head_chunks_cover_every_row(rows: int) -> None:
    """Chunked losses equal cross-entropy over all logits at and around the chunk size."""
    rng = torch.Generator().manual_seed(rows)
    hidden, table = torch.randn(2, rows, 8, generator=rng), torch.randn(2, VOCAB, 8, generator=rng)
    labels = torch.randint(VOCAB, (rows,), generator=rng)
    got = token_losses(hidden, table, labels)
    mean = head_loss(hidden, table, labels.expand(2, rows))
    for k in range(2):
        want = F.cross_entropy(hidden[k] @ table[k].T, labels, reduction="none")
        torch.testing.assert_close(got[k], want, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mean[k], want.mean(), atol=1e-4, rtol=1e-4)


def test_a_hopeless_label_has_a_large_finite_loss() -> None:
    """A probability that underflows is no infinite loss (it would freeze the model)."""
    hidden, table = torch.tensor([[[300.0]]]), torch.tensor([[[1.0], [-1.0]]])
    loss = token_losses(hidden, table, torch.tensor([1]))
    assert 80 < loss.item() < 100


def test_start_depends_on_the_seed_alone() -> None:
    """A model's first weights are the same at any place of any batch; other seeds differ."""
    batch = initial_weights(MODEL, VOCAB, [5, 6, 5], CPU)
    alone = initial_weights(MODEL, VOCAB, [6], CPU)
    for many, one in zip(batch.all(), alone.all(), strict=True):
        assert torch.equal(many[1], one[0])
        assert torch.equal(many[0], many[2])
    assert not torch.equal(batch.embedding[0], batch.embedding[1])


def test_counts_of_parameters_and_flops() -> None:
    """The count equals the tensors' elements; FLOPs are six per weight plus attention."""
    weights = initial_weights(MODEL, VOCAB, [0], CPU)
    assert parameter_count(MODEL, VOCAB) == sum(t.numel() for t in weights.all())
    attention_flops = 12 * MODEL.layers * MODEL.width * CONTEXT
    assert flops_per_token(MODEL, VOCAB) == 6 * parameter_count(MODEL, VOCAB) + attention_flops
