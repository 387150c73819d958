"""Sampling without replacement by score: keys whose order is such a sample.

In: scores or logits of documents, their keyed hashes, a temperature, a seed. Out: (D,) numbers to sort by.
"""

import numpy as np
from numpy.typing import NDArray

from quadmix.rng import keyed_uniform
from quadmix.types import Floats


def gumbel_keys(logits: Floats, keys: NDArray[np.uint64], *, temperature: float, seed: int) -> Floats:
    """Return (D,) logit / τ + Gumbel noise, largest first; NaN stays NaN.

    The documents in this order are a sample without replacement, one after another, each with probability
    ∝ exp(logit / τ) among those left (Gumbel top-k; Kool et al., arXiv 1903.06059). The noise of a document
    is a hash of (seed, id). logits: (D,), larger = likelier. temperature: τ > 0.
    """
    noise = keyed_uniform(seed, keys, "gumbel")
    with np.errstate(divide="ignore"):  # a uniform of exactly 0 gives -inf: that document comes last
        return logits / temperature - np.log(-np.log(noise))


def standardise(score: Floats) -> Floats:
    """Return (score - mean) / standard deviation over the documents that have one; NaN stays NaN.

    0 where all scores are equal. Sums run over sorted values: the order of documents changes no bit.
    """
    known = np.sort(score[~np.isnan(score)])
    spread = known.std() if len(known) else 0.0
    if not spread > 0:
        return np.where(np.isnan(score), np.nan, 0.0)
    return (score - known.mean()) / spread
