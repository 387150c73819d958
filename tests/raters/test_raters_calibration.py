"""Calibration of heads against sums written out, and against worlds whose chances are known."""

import math

import numpy as np
import pytest

from quadmix.raters.calibration import BINS, calibrate, calibration_lines, reliability


def by_hand(difference: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """Gap and ECE pair by pair: no sorting of arrays, no logistic function of scipy."""
    pairs = []
    for d, vote in zip(difference.tolist(), p.tolist(), strict=True):
        chance = 1 / (1 + math.exp(-d))
        pairs.append((chance, vote) if chance > 0.5 else (1 - chance, 1 - vote))
    pairs.sort(key=lambda x: x[0])
    size = len(pairs) // BINS
    error = 0.0
    for k in range(BINS):
        own = pairs[k * size : (k + 1) * size]
        error += len(own) / len(pairs) * abs(sum(c for c, _ in own) / size - sum(v for _, v in own) / size)
    return sum(c - v for c, v in pairs) / len(pairs), error


def test_gap_and_error_are_the_sums_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    difference, p = rng.normal(scale=2, size=200), rng.choice([0.0, 0.25, 0.5, 1.0], 200)
    found = reliability(difference, p)
    assert (found.gap, found.error) == pytest.approx(by_hand(difference, p))
    assert found.pairs == 200


def test_turning_a_pair_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    difference, p = rng.normal(size=300), rng.random(300)
    turn = rng.random(300) < 0.5
    other = reliability(np.where(turn, -difference, difference), np.where(turn, 1 - p, p))
    assert other == reliability(difference, p)
    equal = reliability(np.zeros(50), rng.random(50))  # no side is preferred: it promises nothing
    assert equal.gap == equal.error == 0


def voted(scale: float, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences whose votes have the chance of sigmoid(difference), the head's own stretched by `scale`."""
    rng = np.random.default_rng(seed)
    true = rng.normal(scale=1.5, size=pairs)
    return scale * true, (rng.random(pairs) < 1 / (1 + np.exp(-true))).astype(float)


def test_a_head_too_sure_has_a_gap_above_0_one_too_modest_below_and_a_calibrated_one_none() -> None:
    sure, modest, fair = (reliability(*voted(scale, 20_000, 2)) for scale in (3.0, 0.3, 1.0))
    assert sure.gap > 0.1
    assert modest.gap < -0.1
    assert abs(fair.gap) < 0.01
    assert fair.error < 0.02 < 0.1 < min(sure.error, modest.error)
    assert sure.error == pytest.approx(sure.gap, abs=0.01), "too sure in every bin"


def test_noise_is_the_mean_error_of_calibrated_heads() -> None:
    """With 100 votes of chance the error of a calibrated head is about 0.1, which is no fault of its."""
    found = [reliability(*voted(1.0, 100, seed)) for seed in range(300)]
    error, noise = (np.mean([getattr(f, name) for f in found]) for name in ("error", "noise"))
    assert error > 0.08
    assert noise == pytest.approx(error, rel=0.1)


def test_groups_are_pairs_of_their_languages_and_means_over_seeds() -> None:
    rng = np.random.default_rng(3)
    differences, p = rng.normal(size=(2, 120)), rng.random(120)
    language = np.array(["a", "b", "c"])[np.arange(120) % 3]
    found = calibrate("poso", differences, p, language, ["b", "c"])
    inside = language != "a"
    wanted = [reliability(row[inside], p[inside]) for row in differences]
    assert found.tail.error == pytest.approx((wanted[0].error + wanted[1].error) / 2)
    assert found.tail.pairs == 80
    assert found.every.gap == pytest.approx(np.mean([reliability(row, p).gap for row in differences]))
    assert found.head == found.languages["a"]
    few = calibrate("plain", differences[:, :12], p[:12], language[:12], ["b"])
    assert math.isnan(few.every.error), "a bin needs two pairs"
    assert few.every.gap == few.every.gap
    lines = calibration_lines([found, few])
    assert lines[1].split() == ["pairs", "chance", "poso", "plain"]
    row = next(line for line in lines if line.startswith("tail"))
    assert f"{found.tail.gap:+.3f} /{found.tail.error:.3f}" in row
    assert any(line.startswith("c ") for line in lines)
