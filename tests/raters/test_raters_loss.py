"""The loss of pairs: the paper's two losses are one, exact where exp overflows, blind where it must be."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quadmix.raters.loss import (
    pair_gradient,
    pair_loss,
    pair_losses,
    parallel_excess,
    torch_pair_loss,
)

ONE = np.ones(1)


def one(value: float) -> np.ndarray:
    return np.array([value], np.float64)


def test_parallel_loss_is_two_ln_2_at_zero_and_twice_the_cross_entropy_at_one_half() -> None:
    """L_par = -log sigmoid(d) - log sigmoid(-d), written out with math for single numbers."""
    assert 2 * pair_loss(one(0.0), one(0.5), ONE) == pytest.approx(2 * math.log(2), abs=1e-15)
    assert parallel_excess(one(0.0))[0] == pytest.approx(0.0, abs=1e-15)
    for d in (-3.0, -0.4, 0.1, 2.5):
        sigma = 1 / (1 + math.exp(-d))
        written = -math.log(sigma) - math.log(1 - sigma)
        assert 2 * pair_loss(one(d), one(0.5), ONE) == pytest.approx(written, rel=1e-12)
        assert written == pytest.approx(2 * math.log(2 * math.cosh(d / 2)), rel=1e-12)
        assert parallel_excess(one(d))[0] == pytest.approx(written - 2 * math.log(2), rel=1e-12)


def test_gradient_of_the_parallel_loss_is_tanh_of_half_the_difference() -> None:
    """With weight 2 lambda, lambda = 1, beside a mean over pairs; lambda = 0.5 is the plain cross-entropy."""
    d = np.array([-2.0, -0.3, 0.0, 0.7, 5.0])
    half = np.full(5, 0.5)
    slope = 2 * pair_gradient(d, half, np.ones(5)) * 5
    np.testing.assert_allclose(slope, np.tanh(d / 2), rtol=1e-12)
    tensor = torch.tensor(d, requires_grad=True)
    torch_pair_loss(tensor, torch.tensor(half), torch.full((5,), 2.0, dtype=torch.float64)).backward()
    assert tensor.grad is not None
    np.testing.assert_allclose(2 * tensor.grad.numpy() * 5, np.tanh(d / 2), rtol=1e-12)


@given(st.floats(-30, 30), st.floats(0, 1))
def test_loss_is_the_cross_entropy_of_the_sigmoid(d: float, p: float) -> None:
    sigma = 1 / (1 + math.exp(-d))
    written = -p * math.log(sigma) - (1 - p) * (-d - math.log1p(math.exp(-d)))
    assert pair_losses(one(d), one(p))[0] == pytest.approx(written, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("d", [1e4, -1e4])
def test_large_differences_neither_overflow_nor_lose_the_gradient(d: float) -> None:
    """At |d| = 1e4 the loss is |d| on the wrong side and nothing on the right one, in numpy and in torch."""
    right = 1.0 if d > 0 else 0.0
    with np.errstate(all="raise", under="ignore"):
        assert pair_loss(one(d), one(1 - right), ONE) == 1e4
        assert pair_loss(one(d), one(right), ONE) == 0.0
        assert parallel_excess(one(d))[0] == pytest.approx(1e4 - 2 * math.log(2))
    for dtype in (torch.float32, torch.float64):
        tensor = torch.tensor([d], dtype=dtype, requires_grad=True)
        loss = torch_pair_loss(tensor, torch.tensor([1 - right], dtype=dtype), torch.ones(1, dtype=dtype))
        loss.backward()
        assert loss.item() == 1e4
        assert tensor.grad is not None
        assert tensor.grad.item() == math.copysign(1.0, d)


def test_torch_and_numpy_agree_and_weights_are_shares() -> None:
    rng = np.random.default_rng(0)
    d, p, w = rng.normal(size=50) * 4, rng.random(50), rng.random(50) + 0.1
    found = torch_pair_loss(torch.tensor(d), torch.tensor(p), torch.tensor(w)).item()
    assert pair_loss(d, p, w) == pytest.approx(found, rel=1e-12)
    assert pair_loss(d, p, 7 * w) == pytest.approx(found, rel=1e-12)
    twice = np.concatenate([w, w[:1]])
    assert pair_loss(np.append(d, d[0]), np.append(p, p[0]), twice) == pytest.approx(
        pair_loss(d, p, np.append(2 * w[0], w[1:])), rel=1e-12
    )


def test_swapping_sides_leaves_the_loss_unchanged() -> None:
    """Acceptance test 6, on the loss itself; on training in test_raters_dense and _hashed."""
    rng = np.random.default_rng(1)
    d, p, w = rng.normal(size=200) * 3, rng.integers(0, 5, 200) / 4, rng.random(200)
    assert pair_loss(-d, 1 - p, w) == pair_loss(d, p, w)


def test_monolingual_pairs_do_not_see_a_constant_per_language_and_others_do() -> None:
    """Acceptance test 3: s(x) + b(language of x) has the same loss on monolingual pairs alone."""
    rng = np.random.default_rng(2)
    scores, language = rng.normal(size=60), np.arange(60) % 3
    moved = scores + np.array([0.0, 3.0, -2.0])[language]
    a, b = rng.integers(60, size=(2, 400))
    p, w = rng.random(400), np.ones(400)
    mono = language[a] == language[b]

    def loss(s: np.ndarray, rows: np.ndarray) -> float:
        return pair_loss((s[a] - s[b])[rows], p[rows], w[rows])

    assert loss(moved, mono) == pytest.approx(loss(scores, mono), rel=1e-12)
    assert loss(moved, ~mono) > loss(scores, ~mono) + 0.1
