"""Expected copies -> whole copies, by a keyed hash of the document.

In: expected copies S, document ids, a seed. Out: ⌊S⌋ + [u < frac(S)] with u a hash of (seed, id).

The paper draws the fraction as a Bernoulli variable. Here its uniform number belongs to the
document, so the draw does not depend on order, shard or worker, and two θ are compared with the
same luck (common random numbers): copies differ only where S differs.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import ScoreError
from quadmix.rng import keyed_uniform
from quadmix.types import Copies, Floats


def draw_copies(expected: Floats, doc_id: NDArray[np.uint64] | Sequence[str], *, seed: int) -> Copies:
    """Return (D,) int32 copies whose mean over seeds is `expected`.

    expected: (D,) >= 0. doc_id: (D,) ids, or their uint64 hashes from `rng.doc_keys`.
    """
    expected = np.asarray(expected, dtype=np.float64)
    if len(doc_id) != len(expected):
        raise ScoreError(f"draw_copies got {len(doc_id)} ids for {len(expected)} expected copies")
    bad = ~(np.isfinite(expected) & (expected >= 0) & (expected < 2**31 - 1))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ScoreError(f"expected copies of row {row} are {expected[row]}, expected a number >= 0")
    uniform = keyed_uniform(seed, doc_id, "copies")
    whole = np.floor(expected)
    return (whole + (uniform < expected - whole)).astype(np.int32)
