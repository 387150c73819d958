"""Items into target, select and report by a hash of task and id: the same ids in every language.

The same question in another language is the same question: what was tuned on one must not be reported on
another. Nothing tuned on `target` or chosen on `select` is ever reported on them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quadmix.rng import keyed_uniform

SHARES = {"target": 0.2, "select": 0.2, "report": 0.6}
"""Name of a part -> its expected share of the items."""
_SEED = 0  # a convention, not a draw: another seed would be another benchmark


def parts_of(task: str, ids: Sequence[str]) -> NDArray[np.str_]:
    """Return (I,) the part of each item: "target", "select" or "report"."""
    uniform = keyed_uniform(_SEED, [f"{task}\x1f{i}" for i in ids], "mubench")
    edges = np.cumsum(list(SHARES.values()))[:-1]
    return np.array(list(SHARES))[np.searchsorted(edges, uniform, side="right")]
