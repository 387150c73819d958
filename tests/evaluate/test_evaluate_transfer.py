"""Does a ranking carry over: Spearman, its interval and ceiling, decision accuracy."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import spearmanr

from quadmix.errors import SearchError
from quadmix.evaluate.transfer import _quantile, transfer, transfers
from quadmix.types import Measured, Rung

NAMES = ("quadmix", "random", "top", "dsir")


def rung(name, values, *, confidence=0.95):
    """A rung of label -> objective per seed (None: it did not finish)."""
    done = {label: {s: v for s, v in enumerate(own) if v is not None} for label, own in values.items()}
    measured = tuple(
        Measured(
            label=label, mean=float(np.mean(list(own.values()))), low=0.0, high=9.0,
            values=tuple(own.values()), losses={}, heldout={}, selected_tokens=10, unique_tokens=10,
            epochs=1.0, seeds=tuple(own),
        )
        for label, own in done.items()
    )  # fmt: skip
    return Rung(
        name=name, parameters=1, train_tokens=1, learning_rate=0.1, budget=1.0, match="tokens", seeds=3,
        measured=measured, against=(), verdict="", detectable=0.1, confidence=confidence,
    )  # fmt: skip


def flat(*means, seeds=3):
    """Seeds shift every label alike, so they change no order."""
    return {n: [m + 0.3 * s for s in range(seeds)] for n, m in zip(NAMES, means, strict=False)}


def noisy(rng, means, seeds, sd):
    return {f"s{i}": list(m + sd * rng.normal(size=seeds)) for i, m in enumerate(means)}


def test_a_hand_made_ranking():
    """Large order: quadmix < random < top < dsir; the small rung swaps the first two."""
    large = flat(2.0, 2.02, 2.2, 2.4)
    large["random"] = [2.01, 2.33, 2.62]  # its mean is as before, its differences vary by 0.01
    found = transfer(rung("1M", flat(1.1, 1.0, 1.2, 1.3)), rung("5M", large))
    assert found.labels == NAMES
    assert found.spearman == pytest.approx(0.8)  # 1 - 6 (1 + 1) / (4 (16 - 1))
    assert found.all_pairs == pytest.approx(5 / 6)
    # only quadmix - random (0.02) is inside its interval, t(2) 0.01 / √3 = 0.025
    assert (found.decided, found.decision_accuracy) == (5, 1.0)
    assert found.small_means == pytest.approx((1.4, 1.3, 1.5, 1.6))
    assert found.large_means == pytest.approx((2.3, 2.32, 2.5, 2.7))
    assert (found.low, found.high, found.ceiling) == pytest.approx((0.8, 0.8, 1.0))


def test_a_wrong_decision_counts_against_the_small_rung():
    found = transfer(rung("1M", flat(1.1, 1.0, 1.2)), rung("5M", flat(2.0, 2.4, 2.2)))
    assert found.decided == 3
    assert found.decision_accuracy == found.all_pairs == pytest.approx(1 / 3)


def test_ties_of_the_small_rung_count_half():
    found = transfer(rung("1M", flat(1.0, 1.0, 1.2)), rung("5M", flat(2.0, 2.4, 2.6)))
    assert found.all_pairs == pytest.approx(2.5 / 3)


def test_a_reversed_ranking_is_minus_one():
    found = transfer(rung("1M", flat(1.0, 1.1, 1.2)), rung("5M", flat(2.4, 2.2, 2.0)))
    assert (found.spearman, found.decision_accuracy, found.all_pairs) == (-1.0, 0.0, 0.0)


def test_no_pair_is_decided_inside_its_interval_or_without_one():
    wide = {"quadmix": [2.0, 2.6, 2.3], "random": [2.4, 2.1, 2.4], "top": [2.6, 2.3, 2.2]}
    one = flat(2.0, 2.1, 2.2, seeds=1)
    for large in (wide, one):
        found = transfer(rung("1M", flat(1.0, 1.1, 1.2)), rung("5M", large))
        assert found.decided == 0
        assert np.isfinite(found.all_pairs)
        assert np.isnan(found.decision_accuracy)


def test_a_noisy_label_leaves_the_pairs_of_others_decided():
    large = flat(2.0, 2.1, 2.2, 2.3)
    large["dsir"] = [3.0, 1.0, 4.0]
    found = transfer(rung("1M", flat(1.0, 1.1, 1.2, 1.3)), rung("5M", large))
    assert (found.decided, found.decision_accuracy) == (3, 1.0)


def test_a_higher_confidence_decides_fewer_pairs():
    noise = np.random.default_rng(0).normal(size=(4, 4))
    large = {n: list(0.4 * i + 0.3 * noise[i]) for i, n in enumerate(NAMES)}
    few, many = (
        transfer(rung("1M", flat(1.0, 1.1, 1.2, 1.3)), rung("5M", large, confidence=c)).decided
        for c in (0.999, 0.9)
    )
    assert few < many


def test_spearman_agrees_with_scipy_and_lies_inside_its_interval():
    rng = np.random.default_rng(0)
    for _ in range(10):
        means = rng.normal(size=8)
        small, large = noisy(rng, means, 3, 0.5), noisy(rng, means, 5, 0.2)
        found = transfer(rung("1M", small), rung("5M", large))
        expected = spearmanr(found.small_means, found.large_means).statistic
        assert found.spearman == pytest.approx(expected)
        assert found.low <= found.spearman <= found.high
        assert found.low < found.high


def test_noisier_seeds_give_a_wider_interval_and_a_lower_ceiling():
    means = np.linspace(0, 1, 8)
    quiet, loud = (
        transfer(
            rung("1M", noisy(np.random.default_rng(1), means, 4, sd)),
            rung("5M", noisy(np.random.default_rng(2), means, 4, sd)),
        )
        for sd in (0.02, 0.6)
    )
    assert quiet.high - quiet.low < loud.high - loud.low
    assert loud.ceiling < quiet.ceiling == 1.0


def test_the_ceiling_is_the_median_over_all_halves():
    large = noisy(np.random.default_rng(3), np.linspace(0, 1, 6), 5, 0.4)
    values = np.array(list(large.values()))
    expected = [
        spearmanr(values[:, list(half)].mean(1), np.delete(values, half, axis=1).mean(1)).statistic
        for half in combinations(range(5), 2)
    ]
    found = transfer(
        rung("1M", noisy(np.random.default_rng(4), np.linspace(0, 1, 6), 2, 0.1)), rung("5M", large)
    )
    assert found.ceiling == pytest.approx(np.median(expected))


def test_many_seeds_have_a_ceiling_from_random_halves():
    large = noisy(np.random.default_rng(3), np.linspace(0, 1, 6), 16, 0.1)
    assert 0.8 < transfer(rung("1M", flat_like(large)), rung("5M", large)).ceiling <= 1


def flat_like(values):
    return {label: [float(np.mean(own))] * 2 for label, own in values.items()}


def test_one_seed_has_neither_interval_nor_ceiling():
    found = transfer(rung("1M", flat(1.0, 1.1, 1.2)), rung("5M", flat(2.0, 2.2, 2.1, seeds=1)))
    assert found.spearman == pytest.approx(0.5)
    assert np.isnan([found.low, found.high, found.ceiling]).all()


def test_a_label_that_lacks_a_seed_is_used_over_common_seeds():
    large = flat(2.0, 2.2, 2.4, 2.6)
    large["top"][0] = None  # the mean of its other seeds is off by the seeds' shift
    small = {"extra": [0.9, 1.0, 1.1], **flat(1.0, 1.1, 1.2, 1.3)}
    found = transfer(rung("1M", small), rung("5M", large))
    assert found.labels == NAMES
    assert found.large_means == pytest.approx((2.45, 2.65, 2.85, 3.05))
    assert found.small_means == pytest.approx((1.3, 1.4, 1.5, 1.6))
    assert (found.spearman, found.decided, found.all_pairs) == (1.0, 6, 1.0)


def test_a_label_with_fewer_than_half_of_the_seeds_takes_no_part():
    large = flat(2.0, 2.2, 2.4, 2.6)
    large["top"][:2] = [None, None]
    found = transfer(rung("1M", flat(1.0, 1.1, 1.2, 1.3)), rung("5M", large))
    assert found.labels == ("quadmix", "random", "dsir")
    assert found.large_means == pytest.approx((2.3, 2.5, 2.9))


def test_labels_without_two_common_seeds_are_not_all_lost():
    large = flat(2.0, 2.2, 2.4, 2.6)
    large["top"][0] = large["dsir"][1] = None
    found = transfer(rung("1M", flat(1.0, 1.1, 1.2, 1.3)), rung("5M", large))
    assert found.labels == ("quadmix", "random", "top")


def test_files_that_do_not_name_seeds_are_read_by_complete_labels():
    large = rung("5M", {**flat(2.0, 2.2, 2.4), "dsir": [2.6, 2.9, None]})
    old = replace(large, measured=tuple(replace(m, seeds=()) for m in large.measured))
    assert transfer(rung("1M", flat(1.0, 1.1, 1.2, 1.3)), old).labels == ("quadmix", "random", "top")


def test_some_tied_resamples_are_left_out_and_many_leave_no_interval():
    drawn = np.append(np.linspace(0, 1, 101), np.full(50, np.nan))
    assert _quantile(drawn, 0.25) == pytest.approx(0.25)
    assert np.isnan(_quantile(np.append(drawn, np.full(60, np.nan)), 0.25))


def test_labels_that_all_tie_have_no_rank_correlation():
    same = transfer(rung("1M", flat(1.0, 1.0, 1.0)), rung("5M", flat(2.0, 2.2, 2.4)))
    assert np.isnan([same.spearman, same.low, same.high]).all()


def test_fewer_than_three_common_labels_are_refused_and_skipped():
    small, two, three = (
        rung("1M", flat(1.0, 1.1, 1.2)),
        rung("5M", flat(2.0, 2.1)),
        rung("20M", flat(3.0, 3.1, 3.2)),
    )
    with pytest.raises(SearchError, match=r"'1M' and '5M' have 2 labels in common .*\(quadmix, random\)"):
        transfer(small, two)
    assert [(t.small, t.large) for t in transfers([small, two, three])] == [("1M", "20M")]
    assert transfers([small]) == ()


def test_the_same_seed_gives_the_same_bytes():
    rng = np.random.default_rng(0)
    small, large = (rung(n, noisy(rng, np.linspace(0, 1, 6), 3, 0.5)) for n in ("1M", "5M"))
    assert transfer(small, large, seed=1) == transfer(small, large, seed=1)
