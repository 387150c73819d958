"""Does the ranking of selectors by a small model hold for a larger one (spec §10, R7)?

In: two rungs of the ladder. Out: a `Transfer`: rank correlation, what noise alone would leave of it, and
decision accuracy, the share of pairs of selectors that both order alike (DataDecide, arXiv 2504.11393).

A label takes part when every seed of both rungs finished it: a mean over other seeds would be off by the
seeds' own effect, which is larger than many differences of selectors.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
from scipy.stats import rankdata

from quadmix.errors import SearchError
from quadmix.rng import stream
from quadmix.types import Floats, Rung, Transfer

DRAWS = 2000
LEAST_LABELS = 3
_MOST_SPLITS = 500


def transfers(rungs: Sequence[Rung], *, seed: int = 0) -> tuple[Transfer, ...]:
    """Return the first rung against every other; rungs with fewer than 3 labels in common are left out."""
    return tuple(
        transfer(rungs[0], other, seed=seed)
        for other in rungs[1:]
        if len(common_labels(rungs[0], other)) >= LEAST_LABELS
    )


def transfer(small: Rung, large: Rung, *, seed: int = 0) -> Transfer:
    """Return how far the order of the labels in `small` holds in `large` (objectives, smaller = better).

    The interval (95 %) resamples the seeds of both rungs, deviations stretched by √(S / (S - 1)); it is NaN
    when a rung has one seed. It says what other seeds would change, not what other labels would.
    Raises SearchError with fewer than 3 common labels.
    """
    labels = common_labels(small, large)
    if len(labels) < LEAST_LABELS:
        raise SearchError(
            f"rungs {small.name!r} and {large.name!r} have {len(labels)} labels in common with all seeds "
            f"finished ({', '.join(labels) or 'none'}), need at least {LEAST_LABELS}"
        )
    few, many = _values(small, labels), _values(large, labels)
    few_means, many_means = few.mean(axis=1), many.mean(axis=1)
    point = float(_spearman(few_means[None], many_means[None])[0])
    low, high = _interval(few, many, point, stream(seed, "transfer", small.name, large.name))
    alike, gap = _pairs(few_means, many_means)
    decided = gap > _half_width(large)
    return Transfer(
        small=small.name,
        large=large.name,
        labels=labels,
        small_means=tuple(map(float, few_means)),
        large_means=tuple(map(float, many_means)),
        spearman=point,
        low=low,
        high=high,
        ceiling=_ceiling(many, stream(seed, "ceiling", large.name)),
        decision_accuracy=float(alike[decided].mean()) if decided.any() else float("nan"),
        decided=int(decided.sum()),
        all_pairs=float(alike.mean()),
    )


def common_labels(small: Rung, large: Rung) -> tuple[str, ...]:
    """Return the labels that finished every seed of both rungs, in the order of the smaller."""
    complete = _complete(large)
    return tuple(label for label in _complete(small) if label in complete)


def _complete(rung: Rung) -> tuple[str, ...]:
    most = max((len(m.values) for m in rung.measured), default=0)
    return tuple(m.label for m in rung.measured if len(m.values) == most)


def _values(rung: Rung, labels: Sequence[str]) -> Floats:
    """Return the objective (L, S)."""
    own = {m.label: m.values for m in rung.measured}
    return np.array([own[label] for label in labels])


def _interval(few: Floats, many: Floats, point: float, rng: np.random.Generator) -> tuple[float, float]:
    if few.shape[1] < 2 or many.shape[1] < 2:
        return float("nan"), float("nan")
    drawn = _spearman(_resampled_means(few, rng), _resampled_means(many, rng))
    low, high = np.quantile(drawn, [0.025, 0.975])
    # added noise lowers every resampled correlation, so the measured one may lie above all of them
    return min(float(low), point), max(float(high), point)


def _resampled_means(values: Floats, rng: np.random.Generator) -> Floats:
    """Return (draws, L): means over resampled seeds, the same for all labels."""
    seeds = values.shape[1]
    drawn = values[:, rng.integers(seeds, size=(DRAWS, seeds))].mean(axis=2).T
    mean = values.mean(axis=1)
    return mean + np.sqrt(seeds / (seeds - 1)) * (drawn - mean)


def _spearman(a: Floats, b: Floats) -> Floats:
    """Return the rank correlation (n,) of the rows of two tables (n, L); NaN where all are tied."""
    ranks = [rankdata(x, axis=1) for x in (a, b)]
    x, y = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), scale, out=np.full(len(x), np.nan), where=scale > 0)


def _ceiling(values: Floats, rng: np.random.Generator) -> float:
    """Return the median Spearman of two halves of the seeds, over all splits or `_MOST_SPLITS` random ones.

    A half has half of the seeds, so the whole rung agrees with itself somewhat better than this.
    """
    seeds = values.shape[1]
    half = seeds // 2
    if not half:
        return float("nan")
    if comb(seeds, half) <= _MOST_SPLITS:
        chosen = np.array(list(combinations(range(seeds), half)))
    else:
        chosen = np.argsort(rng.random((_MOST_SPLITS, seeds)), axis=1)[:, :half]
    inside = np.zeros((len(chosen), seeds))
    np.put_along_axis(inside, chosen, 1.0, axis=1)
    first, second = inside @ values.T / half, (1 - inside) @ values.T / (seeds - half)
    return float(np.median(_spearman(first, second)))


def _pairs(small: Floats, large: Floats) -> tuple[Floats, Floats]:
    """Return of every pair of labels: 1 if both order it alike, 0 if not, 0.5 if one ties; and its gap in the
    large rung."""
    i, j = np.triu_indices(len(small), 1)
    here, there = small[i] - small[j], large[i] - large[j]
    return (1 + np.sign(here) * np.sign(there)) / 2, np.abs(there)


def _half_width(rung: Rung) -> float:
    """Return the half width of the interval of any pair: the block design gives all pairs the same one.

    NaN, which decides no pair, when the rung has none.
    """
    halves = [(p.high - p.low) / 2 for p in rung.against if np.isfinite(p.high - p.low)]
    return max(halves, default=float("nan"))
