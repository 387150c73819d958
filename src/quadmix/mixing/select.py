"""θ and a normalised table -> who is taken how often: Equations 1, 2 and 3 and the draw in a row.

In: θ, normalised scores, the table. Out: a `Selection` with every intermediate number per document.
Held-out documents get a rank for the record but move nobody's rank and are never selected.
"""

import numpy as np
from numpy.typing import NDArray

from quadmix.mixing.curve import curve_mass, mean_copies
from quadmix.mixing.draw import settle_copies
from quadmix.mixing.merge import merge_scores
from quadmix.mixing.rank import Grouped, RankMode, group_by_domain, pool_tokens, rank_within_domain
from quadmix.types import Annotations, Floats, Ranks, Selection, Theta


def group(annotations: Annotations) -> Grouped:
    """Prepare a table once for many calls of `select` and `fit_budget`."""
    return group_by_domain(annotations.domain, len(annotations.domains))


def select(
    theta: Theta,
    normalised: NDArray[np.float32],
    annotations: Annotations,
    *,
    seed: int,
    rank_mode: RankMode = "interval",
    grouped: Grouped | None = None,
) -> Selection:
    """Return merged scores, ranks, expected copies and drawn copies of every document.

    normalised: (D, N) from `normalise`, smaller = better. grouped: from `group(annotations)`, saves time.
    """
    merged = merge_scores(normalised, theta.weights, annotations.domain)
    ranks = pool_ranks(merged, annotations, rank_mode=rank_mode, grouped=grouped)
    expected = mean_copies(ranks, theta, annotations.domain)
    expected[annotations.held_out] = 0.0
    drawn = settle_copies(
        expected,
        annotations.keys,
        annotations.tokens,
        annotations.domain,
        num_domains=len(annotations.domains),
        seed=seed,
    )
    return Selection(
        normalised=normalised, merged=merged, ranks=ranks, expected=expected, copies=drawn.copies
    )


def pool_ranks(
    merged: Floats, annotations: Annotations, *, rank_mode: RankMode, grouped: Grouped | None = None
) -> Ranks:
    """Rank all documents of the table among those that may be selected."""
    tokens = np.where(annotations.held_out, 0, annotations.tokens)
    return rank_within_domain(
        merged,
        tokens,
        annotations.domain,
        mode=rank_mode,
        keys=annotations.keys,
        grouped=grouped or group(annotations),
    )


def expected_tokens(theta: Theta, annotations: Annotations) -> Floats:
    """Return (M,) the expected tokens of each domain, copies counted: T_m · scale · (G + ε).

    Exact for rank mode `interval`; the point modes differ by the length of single documents.
    """
    return pool_tokens(annotations) * curve_mass(theta)
