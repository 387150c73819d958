"""Muon, AdamW, clipping and schedules against per-model references."""

import pytest
import torch
from proxy_world import MODEL, PUBLISHED, VOCAB

from quadmix.proxy.model import initial_weights
from quadmix.proxy.optim import Optimizer, clip_models, orthogonalise, rate_factor, update
from quadmix.recipe import TrainingSection

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(3, 2, 16, 16), (3, 2, 16, 40), (1, 4, 40, 16)])
def test_newton_schulz_pushes_singular_values_near_one(shape: tuple[int, ...]) -> None:
    """Singular values end within 0.6..1.3 and singular vectors stay, against torch's SVD."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, vh = torch.linalg.svd(drawn, full_matrices=False)
    matrices = u @ torch.diag_embed(torch.linspace(0.2, 1.0, s.shape[-1]).expand_as(s)) @ vh
    got = orthogonalise(matrices, torch.float32)
    core = u.mT @ got @ vh.mT
    diagonal = core.diagonal(dim1=-2, dim2=-1)
    assert float(diagonal.min()) > 0.6
    assert float(diagonal.max()) < 1.3
    assert float((core - torch.diag_embed(diagonal)).abs().max()) < 0.02


@pytest.mark.parametrize("decay_all", [False, True])
def test_adamw_equals_torch(decay_all: bool) -> None:
    """Ten steps of our AdamW equal torch.optim.AdamW; embedding, head and gains decay only if all do."""
    training = TrainingSection(optimizer="adamw", weight_decay=0.1)
    weights = initial_weights(PUBLISHED, VOCAB, [0, 1], CPU)
    copies = [t.detach().clone().requires_grad_() for t in weights.named().values()]
    decays = [0.1 if decay_all or name in ("square", "wide") else 0.0 for name in weights.named()]
    groups = [{"params": [c], "weight_decay": d} for c, d in zip(copies, decays, strict=True)]
    theirs = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    ours = Optimizer.start(weights, training)
    rng = torch.Generator().manual_seed(0)
    for _ in range(10):
        for mine, copy in zip(weights.named().values(), copies, strict=True):
            mine.grad = torch.randn(mine.shape, generator=rng)
            copy.grad = mine.grad.clone()
        alive = torch.ones(2, dtype=torch.bool)
        update(
            weights,
            ours,
            torch.full((2,), 0.01),
            alive,
            training=training,
            dtype=torch.float32,
            decay_all=decay_all,
        )
        theirs.step()
    for mine, copy in zip(weights.named().values(), copies, strict=True):
        torch.testing.assert_close(mine, copy, atol=1e-6, rtol=1e-5)


def test_clip_is_per_model() -> None:
    """A model with a large gradient is scaled to the limit, its neighbour is left alone."""
    weights = initial_weights(MODEL, VOCAB, [0, 1], CPU)
    for tensor in weights.named().values():
        tensor.grad = torch.zeros_like(tensor)
    assert weights.embedding.grad is not None
    weights.embedding.grad[0, 0, 0] = 30.0
    assert weights.square.grad is not None
    weights.square.grad[0, 0, 0, 0] = 40.0
    weights.square.grad[1, 0, 0, 0] = 0.5
    norm = clip_models(weights, 1.0)
    assert norm.tolist() == [50.0, 0.5]
    assert weights.embedding.grad[0, 0, 0].item() == pytest.approx(0.6)
    assert weights.square.grad[0, 0, 0, 0].item() == pytest.approx(0.8)
    assert weights.square.grad[1, 0, 0, 0].item() == 0.5


def test_schedules() -> None:
    """Warm-up rises to the peak; linear ends near zero, constant stays, wsd decays over the last fifth."""
    factors = {
        name: [rate_factor(s, 100, TrainingSection(schedule=name, warmup=0.1)) for s in range(100)]
        for name in ("linear", "constant", "wsd")
    }
    for values in factors.values():
        assert values[0] == pytest.approx(0.1)
        assert values[9] == pytest.approx(1.0)
        assert all(0 < v <= 1 for v in values)
    assert factors["linear"][99] == pytest.approx(1 / 90)
    assert factors["linear"][55] == pytest.approx(0.5)
    assert factors["constant"][99] == 1.0
    assert factors["wsd"][79] == 1.0
    assert factors["wsd"][90] == pytest.approx(0.5)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_dead_model_never_changes_again(optimizer: str) -> None:
    """With NaN gradients and alive False a model keeps its weights; the others move to finite ones."""
    weights = initial_weights(MODEL, VOCAB, [0, 1], CPU)
    before = [t.detach().clone() for t in weights.named().values()]
    training = TrainingSection(optimizer=optimizer)  # pyright: ignore[reportArgumentType]
    state = Optimizer.start(weights, training)
    for _ in range(2):
        for tensor in weights.named().values():
            tensor.grad = torch.ones_like(tensor)
            tensor.grad[0] = torch.nan
        rates, alive = torch.tensor([torch.nan, 0.01]), torch.tensor([False, True])
        update(weights, state, rates, alive, training=training, dtype=torch.float32)
    for tensor, old in zip(weights.named().values(), before, strict=True):
        assert torch.equal(tensor[0], old[0])
        assert not torch.equal(tensor[1], old[1])
        assert tensor[1].isfinite().all()
