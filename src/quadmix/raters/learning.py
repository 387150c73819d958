"""What all trainers of raters share: pairs in an order of their own, and the accuracy that stops training.

In: texts, pairs, scores. Out: pairs that any order of rows, and any exchange of the two sides, leaves the
same; accuracy with every language weighing the same.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.raters.finetune_batches import language_accuracy
from quadmix.raters.table import PARALLEL, Pairs, Texts
from quadmix.rng import doc_keys
from quadmix.types import Ints


def canonical(pairs: Pairs, texts: Texts) -> Pairs:
    """Return the same pairs, each turned so that the key of a is the smaller one, sorted by what they are.

    Training adds numbers in the order of pairs; with this order the same pairs give the same bits, however
    their rows stand and whichever of two texts is called a.
    """
    keys = doc_keys(texts.ids)
    turned = keys[pairs.a] > keys[pairs.b]
    a, b = np.where(turned, pairs.b, pairs.a), np.where(turned, pairs.a, pairs.b)
    p = np.where(turned, 1.0 - pairs.p, pairs.p)
    order = np.lexsort((pairs.held, pairs.weight, p, pairs.kind, keys[b], keys[a]))
    return Pairs(
        a=a[order].astype(np.int32), b=b[order].astype(np.int32), p=p[order], weight=pairs.weight[order],
        kind=pairs.kind[order], held=pairs.held[order],
    )  # fmt: skip


def used_texts(pairs: Pairs, texts: Texts) -> Ints:
    """Return the rows of the texts that some pair names, ascending by key, so in no order of rows."""
    rows = np.unique(np.concatenate([pairs.a, pairs.b])).astype(np.int64)
    return rows[np.argsort(doc_keys([texts.ids[i] for i in rows.tolist()]), kind="stable")]


def trained_languages(pairs: Pairs, texts: Texts) -> list[str]:
    """Return the languages of the pairs that are not held, sorted."""
    rows = np.unique(np.concatenate([pairs.a, pairs.b])[np.tile(~pairs.held, 2)])
    return sorted({texts.language[i] for i in rows.tolist()})


def check_pairs(pairs: Pairs) -> None:
    """Raise InputError if there is nothing to train on, or nothing that says when to stop."""
    decided = (pairs.p != 0.5) & (pairs.kind != PARALLEL)
    train, held = int((decided & ~pairs.held).sum()), int((decided & pairs.held).sum())
    if train == 0:
        raise InputError(
            f"of {len(pairs)} pairs none of the training part prefers a side (p other than 0.5); expected "
            "some: add texts or raters that differ"
        )
    if held == 0:
        raise InputError(
            f"of {len(pairs)} pairs none of the held-out part prefers a side, so nothing says when to stop; "
            "make the pairs with a larger held-out share"
        )


def mean_accuracy(scores: NDArray[np.float32], pairs: Pairs, languages: Sequence[str]) -> float:
    """Return the accuracy of scores (D,), larger = better, on the pairs of each language, its mean over
    languages: each weighs the same. Pairs without a preference (p = 0.5) are left out."""
    return float(np.mean(list(language_accuracy(scores, pairs, languages).values())))
