"""Which pairs a fine-tuning step reads, in which forward passes, and how well pairs are ordered.

In: `Pairs` and the ids of their texts. Out: rows of pairs. Draws are keyed by the two ids of a pair without
their order, so that neither the order of rows nor which side is called a changes what is trained.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.raters.table import KINDS, PARALLEL, Pairs, Texts
from quadmix.rng import doc_keys, keyed_uniform

Keys = NDArray[np.uint64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuning:
    """How an encoder is fine-tuned; the defaults are those of the specification.

    window: tokens of a text, special tokens included. composition: shares of the kinds mono, cross, parallel
    in every batch, renormalised over the kinds that are there; None: as the pairs are. warmup: share of the
    steps in which the learning rates rise linearly, before they fall linearly to zero. clip: largest norm of
    a step's gradient. evaluations: on the held pairs, evenly over the training; the weights of the best are
    kept, and `patience` in a row without a better one end the training (4 of 8 are one epoch).
    checkpoint_steps: steps that are lost at most when the process is killed.
    """

    pooling: Literal["cls", "mean"] = "cls"
    window: int = 512
    encoder_rate: float = 2e-5
    head_rate: float = 1e-3
    weight_decay: float = 0.01
    batch_pairs: int = 256
    composition: tuple[float, float, float] | None = (0.4, 0.4, 0.2)
    epochs: int = 2
    warmup: float = 0.1
    clip: float = 1.0
    evaluations: int = 8
    patience: int = 4
    checkpoint_steps: int = 100
    seed: int = 0


def pair_keys(pairs: Pairs, texts: Texts) -> Keys:
    """Return (P,) uint64, a hash of the ids of each pair's texts, whichever is a."""
    ids = texts.ids
    sides = zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)
    return doc_keys("\x1f".join(sorted((ids[a], ids[b]))) for a, b in sides)


def batch_order(kind: NDArray[np.int8], keys: Keys, training: FineTuning) -> Rows:
    """Return (epochs * P,) places of training pairs (P) in the order in which they are read.

    Every kind runs through its pairs again and again, each time in a new order; any stretch of the result
    holds the kinds in their shares, to one pair each.
    """
    counts = np.bincount(kind, minlength=len(KINDS))
    asked = np.array(counts if training.composition is None else training.composition, np.float64)
    share = np.where(counts > 0, asked, 0.0)
    slots = training.epochs * len(kind)
    rows, times = [np.zeros(0, np.int64)], [np.zeros(0)]
    for number in np.flatnonzero(share).tolist():
        mine = np.flatnonzero(kind == number)
        need = int(np.ceil(slots * share[number] / share.sum())) + 1
        passes = [
            mine[np.argsort(keyed_uniform(training.seed, keys[mine], f"finetune-{turn}"), kind="stable")]
            for turn in range(-(-need // len(mine)))
        ]
        rows.append(np.concatenate(passes)[:need])
        times.append((np.arange(need) + 0.5) / share[number])
    return np.concatenate(rows)[np.argsort(np.concatenate(times), kind="stable")][:slots]


def micro_batches(
    pairs: Pairs, rows: Rows, keys: Keys, lengths: Rows, limit: int, *, to: int = 1
) -> Generator[Rows]:
    """Yield the pairs `rows` of a batch in parts whose distinct texts fill at most `limit` padded tokens, the
    longest first; a pair that is too long alone is a part of its own. to: lengths are padded to multiples."""
    longest = np.maximum(lengths[pairs.a[rows]], lengths[pairs.b[rows]])
    part: list[int] = []
    inside: set[int] = set()
    width = 0
    for row in rows[np.lexsort((keys[rows], -longest))].tolist():
        both = {int(pairs.a[row]), int(pairs.b[row])}
        if part and width * len(inside | both) > limit:
            yield np.array(part, np.int64)
            part, inside = [], set()
        if not part:
            width = -(-int(max(lengths[list(both)])) // to) * to
        part.append(row)
        inside |= both
    if part:
        yield np.array(part, np.int64)


def language_accuracy(
    scores: NDArray[np.float32], pairs: Pairs, languages: Sequence[str]
) -> dict[str, float]:
    """Return language -> share of its pairs with p != 0.5 whose scores (D,), larger = better, differ in the
    direction of p; equal scores count half. A pair of two languages counts in both; parallel pairs do not."""
    told = pairs.take((pairs.kind != PARALLEL) & (pairs.p != 0.5))
    right = (np.sign((scores[told.a] - scores[told.b]) * (told.p - 0.5)) + 1) / 2
    codes = np.array(languages, dtype=object)
    sides = codes[told.a], codes[told.b]
    found = sorted({*sides[0].tolist(), *sides[1].tolist()})
    return {code: float(right[(sides[0] == code) | (sides[1] == code)].mean()) for code in found}
