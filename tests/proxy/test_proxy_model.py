"""The batched model against plain torch written for one model at a time."""

import math

import pytest
import torch
from proxy_world import CONTEXT, MODEL, PUBLISHED, VOCAB
from torch.nn import functional as F

from quadmix.pipeline.presets import preset_recipe
from quadmix.proxy import model as room
from quadmix.proxy.head import head_loss, token_losses
from quadmix.proxy.model import (
    Weights,
    attention,
    flops_per_token,
    hidden_states,
    initial_weights,
    parameter_count,
    rotary,
)
from quadmix.proxy.optim import rate_factor
from quadmix.proxy.setting import ProxySetting
from quadmix.recipe import ModelSection

CPU = torch.device("cpu")


def random_weights(models: int, seed: int = 0, model: ModelSection = MODEL) -> Weights:
    torch_rng = torch.Generator().manual_seed(seed)
    weights = initial_weights(model, VOCAB, list(range(models)), CPU)
    with torch.no_grad():
        for tensor in weights.named().values():
            tensor.add_(torch.randn(tensor.shape, generator=torch_rng) * 0.2)
    return weights


def plain_forward(weights: Weights, k: int, tokens: torch.Tensor, model: ModelSection) -> torch.Tensor:
    """One model, complex-number RoPE, a masked softmax per head, RMSNorm written out."""
    table = weights.embedding[k]
    d, heads = model.width, model.heads
    published = model.architecture == "tinyllama"
    gains = iter(weights.gains[k]) if weights.gains is not None else None
    half = d // heads // 2
    rate = 10_000.0 ** (-torch.arange(half) / half)
    turn = torch.polar(torch.ones(CONTEXT, half), torch.arange(CONTEXT)[:, None] * rate)

    def norm(x: torch.Tensor) -> torch.Tensor:
        y = x / (x.square().mean(-1, keepdim=True) + (1e-5 if published else 1e-6)).sqrt()
        return y * next(gains) if gains else y

    def rope(x: torch.Tensor) -> torch.Tensor:
        z = torch.complex(x[..., :half], x[..., half:]) * turn
        return torch.cat((z.real, z.imag), -1)

    x = table[tokens] if published else norm(table[tokens])
    for layer in range(model.layers):
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
    return norm(x) @ (table if weights.head is None else weights.head[k]).T


@pytest.mark.parametrize("architecture", ["quadmix", "tinyllama"])
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_batched_loss_and_gradients_equal_one_model_at_a_time(architecture: str, head: str) -> None:
    """Loss and every gradient of a batch of three equal plain autograd on each model alone."""
    model = MODEL.model_copy(update={"architecture": architecture, "head": head})
    weights = random_weights(3, model=model)
    windows = torch.randint(VOCAB, (3, 4, CONTEXT + 1), generator=torch.Generator().manual_seed(1))
    hidden = hidden_states(weights, windows[:, :, :-1], model, torch.float32)
    loss = head_loss(hidden, weights.table, windows[:, :, 1:].flatten(1))
    grads = torch.autograd.grad(loss.sum(), list(weights.named().values()))
    for k in range(3):
        plain = F.cross_entropy(
            plain_forward(weights, k, windows[k, :, :-1], model).flatten(0, 1), windows[k, :, 1:].flatten()
        )
        expected = torch.autograd.grad(plain, list(weights.named().values()))
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
    one = hidden_states(weights, tokens, MODEL, torch.float32)
    two = hidden_states(weights, other, MODEL, torch.float32)
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
    batch = initial_weights(PUBLISHED, VOCAB, [5, 6, 5], CPU)
    alone = initial_weights(PUBLISHED, VOCAB, [6], CPU)
    for many, one in zip(batch.named().values(), alone.named().values(), strict=True):
        assert torch.equal(many[1], one[0])
        assert torch.equal(many[0], many[2])
    assert not torch.equal(batch.embedding[0], batch.embedding[1])


@pytest.mark.parametrize("model", [MODEL, PUBLISHED], ids=["quadmix", "tinyllama"])
def test_counts_of_parameters_and_flops(model: ModelSection) -> None:
    """The count equals the tensors' elements; FLOPs are six per weight of a product plus attention."""
    sizes = {name: t.numel() for name, t in initial_weights(model, VOCAB, [0], CPU).named().items()}
    assert parameter_count(model, VOCAB) == sum(sizes.values())
    products = sizes["square"] + sizes["wide"] + sizes.get("head", sizes["embedding"])
    attention_flops = 12 * model.layers * model.width * CONTEXT
    assert flops_per_token(model, VOCAB) == 6 * products + attention_flops


def test_tinyllama_starts_as_released() -> None:
    """Deviations: sqrt(2 / 5d) everywhere, 1 / (L sqrt(f)) in the last matrix of the MLP; gains of one."""
    model = PUBLISHED.model_copy(update={"width": 64, "mlp": 256})
    weights = initial_weights(model, 512, [0], CPU)
    assert weights.head is not None
    assert weights.gains is not None
    for tensor in (weights.embedding, weights.head, weights.square, weights.wide[:, [0, 1, 3, 4]]):
        assert tensor.std().item() == pytest.approx((0.4 / 64) ** 0.5, rel=0.02)
    assert weights.wide[:, 2::3].std().item() == pytest.approx(256**-0.5 / 2, rel=0.02)
    assert (weights.gains == 1).all()


def test_paper_preset_is_regmix_as_released() -> None:
    """1,312,000 parameters besides the tables, 1,001 steps of 512 x 2,048, 100 of them warm-up."""
    recipe = preset_recipe("paper")
    model, training = recipe.proxy.model, recipe.proxy.training
    vocab = model.padded(recipe.tokenizer.vocab_size)
    setting = ProxySetting(
        pool="", targets="", heldout=None, model=model, training=training, vocab_size=vocab, domains=("any",)
    )
    assert vocab == 50_432
    assert parameter_count(model, vocab) - 2 * vocab * model.width == 1_312_000
    assert (setting.steps, training.batch, model.context) == (1_001, 512, 2_048)
    factors = [rate_factor(step, setting.steps, training) for step in range(setting.steps)]
    assert factors[:100] == pytest.approx([(step + 1) / 100 for step in range(100)])
    assert set(factors[99:]) == {1.0}
