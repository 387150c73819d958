"""Which pairs a step of fine-tuning reads, how large its learning rates are, and what accuracy means."""

import math

import numpy as np
from tiny_encoders import some_pairs, some_texts

from quadmix.raters.finetune import Point, best_point, rate
from quadmix.raters.finetune_batches import (
    FineTuning,
    batch_order,
    language_accuracy,
    micro_batches,
    pair_keys,
)
from quadmix.raters.table import CROSS, MONO, PARALLEL, Pairs

TEXTS, SHARE = some_texts(240)
PAIRS = some_pairs(SHARE, 400, held=100)


def test_every_batch_holds_the_kinds_in_their_shares() -> None:
    """Twice as many mono pairs as their share: half are read in each epoch; the others are repeated."""
    kind = np.repeat(np.array([MONO, CROSS, PARALLEL], np.int8), [400, 150, 50])
    keys = np.random.default_rng(0).integers(2**63, size=600).astype(np.uint64)
    order = batch_order(kind, keys, FineTuning(epochs=2))
    assert len(order) == 1200
    for at in range(0, 1200, 100):
        counts = np.bincount(kind[order[at : at + 100]], minlength=3)
        assert np.abs(counts - [40, 40, 20]).max() <= 1
    for number, size in ((MONO, 400), (CROSS, 150), (PARALLEL, 50)):
        mine = order[kind[order] == number]
        whole = len(mine) // size * size
        assert set(np.unique(mine[:whole], return_counts=True)[1]) <= {whole // size}
    exact = batch_order(kind, keys, FineTuning(epochs=3, composition=None))
    assert (np.bincount(exact) == 3).all()
    only = batch_order(kind[:400], keys[:400], FineTuning(epochs=1))
    assert sorted(only.tolist()) == list(range(400))
    assert not (batch_order(kind, keys, FineTuning(seed=1)) == order[:1200]).all()


def test_micro_batches_hold_every_pair_once_within_the_limit() -> None:
    lengths = np.array([len(t.split()) + 2 for t in TEXTS.text])
    rows = np.arange(0, 400, 3)
    parts = list(micro_batches(PAIRS, rows, pair_keys(PAIRS, TEXTS), lengths, 200, to=8))
    assert sorted(np.concatenate(parts).tolist()) == rows.tolist()
    for part in parts:
        read = np.unique([PAIRS.a[part], PAIRS.b[part]])
        assert len(part) == 1 or len(read) * -(-lengths[read].max() // 8) * 8 <= 200
    assert max(len(part) for part in parts) > 3
    assert [len(p) for p in micro_batches(PAIRS, rows, pair_keys(PAIRS, TEXTS), lengths, 1)] == [1] * len(
        rows
    )


def test_learning_rates_rise_and_fall_and_the_first_best_is_kept() -> None:
    factors = [rate(step, 20, 0.1) for step in range(20)]
    np.testing.assert_allclose(factors, [0.5, 1.0, *np.arange(18, 0, -1) / 18])
    assert rate(0, 1, 0.1) == 1.0

    def points(*accuracy: float) -> tuple[Point, ...]:
        return tuple(Point(step=i, loss={}, accuracy=a, languages={}) for i, a in enumerate(accuracy))

    assert best_point(points(0.5, 0.8, 0.8, 0.7)).step == 1
    assert best_point(points(math.nan, math.nan)).step == 1


def test_accuracy_is_by_language_over_pairs_that_are_no_tie() -> None:
    scores = np.array([0.0, 1.0, 2.0, 2.0], np.float32)
    pairs = Pairs(
        a=np.array([0, 1, 2, 0, 3], np.int32), b=np.array([1, 2, 3, 3, 1], np.int32),
        p=np.array([0.25, 1.0, 0.75, 0.5, 0.5]), weight=np.ones(5),
        kind=np.array([MONO, CROSS, MONO, CROSS, PARALLEL], np.int8), held=np.ones(5, np.bool_),
    )  # fmt: skip
    found = language_accuracy(scores, pairs, ("en", "en", "de", "de"))
    assert found == {"en": 0.5, "de": 0.25}  # right, wrong; wrong, equal scores
