"""Targets that tell no mixtures apart: their spread over mixtures is not above the noise of seeds.

In: losses of the mixtures and of repeats of one mixture with other seeds. Out: which targets to leave out of
the objective, with the reason. Every target counts in it by its spread (weight over spread), so one that
varies by noise alone would count as much as one that varies by mixture. With many targets, such as one per
language and ability, some are always of that kind.

The test is F = s²(mixtures) / s²(repeats), one-sided, of the hypothesis that mixtures change nothing, at the
level 0.25 that is usual for a preliminary test of two variances (Bancroft and Han 1977): to keep a target of
noise costs little, since its surrogate predicts a constant; to lose one that tells mixtures apart costs all
that it says. Noise alone is left out three times in four; with 64 mixtures and 6 repeats a target stays from
a spread of 1.37 times the noise on. Where trials share their random numbers, repeats with other seeds say
the noise too high, and the test errs to the side of leaving out.
"""

from collections.abc import Collection, Mapping

import numpy as np
from scipy.stats import f as f_distribution

from quadmix.types import Floats

LEVEL = 0.25
LEAST_REPEATS = 3


def noisy_targets(
    losses: Mapping[str, Floats], repeats: Mapping[str, Floats], keep: Collection[str] = ()
) -> dict[str, str]:
    """Return target -> why it is to be left out; never all of them.

    losses: (K,) per target, of mixtures that no surrogate chose. repeats: (R,) per target. keep: targets that
    bound the search and stay. With fewer than `LEAST_REPEATS` repeats or two targets nothing is left out.
    """
    found: dict[str, str] = {}
    for target, y in losses.items():
        again = repeats[target]
        if target in keep or len(again) < LEAST_REPEATS or len(y) < 2:
            continue
        spread, noise = float(y.std(ddof=1)), float(again.std(ddof=1))
        ratio = (spread / noise) ** 2 if noise > 0 else np.inf
        chance = float(f_distribution.sf(ratio, len(y) - 1, len(again) - 1))
        if chance > LEVEL:
            found[target] = (
                f"its spread over {len(y)} mixtures ({spread:.4g}) is not above the noise of {len(again)} "
                f"seeds ({noise:.4g}): F = {ratio:.2f}, p = {chance:.2f}"
            )
    return found if len(found) < len(losses) else {}
