"""Does the ranking of selectors by a small model hold for a larger one?

In: two rungs of the ladder. Out: a `Transfer`: rank correlation, what noise alone would leave of it, and
decision accuracy, the share of pairs of selectors that both order alike (DataDecide, arXiv 2504.11393).

Means are over the seeds that all labels finished: a mean over other seeds would be off by the seeds' own
effect, which is larger than many differences of selectors. A pair is decided by its own seeds and its own
noise. A label that finished fewer than half of a rung's seeds takes no part.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
from scipy.special import stdtrit
from scipy.stats import rankdata

from quadmix.errors import SearchError
from quadmix.rng import stream
from quadmix.types import Floats, Rung, Transfer

DRAWS = 2000
LEAST_LABELS = 3
_MOST_SPLITS = 500
_LEAST_KNOWN = 0.5  # share of draws that must have a rank correlation


def transfers(rungs: Sequence[Rung], *, seed: int = 0) -> tuple[Transfer, ...]:
    """Return the first rung against every other; rungs with fewer than 3 labels in common are left out."""
    return tuple(
        transfer(rungs[0], other, seed=seed)
        for other in rungs[1:]
        if len(common_labels(rungs[0], other)) >= LEAST_LABELS
    )


def transfer(small: Rung, large: Rung, *, seed: int = 0) -> Transfer:
    """Return how far the order of the labels in `small` holds in `large` (objectives, smaller = better).

    The interval (at the level of the large rung's) resamples the seeds of both rungs, deviations stretched by
    √(S / (S - 1)); it is NaN when a rung has one seed. It says what other seeds would change, not what other
    labels would. Raises SearchError with fewer than 3 common labels.
    """
    labels = common_labels(small, large)
    if len(labels) < LEAST_LABELS:
        raise SearchError(
            f"rungs {small.name!r} and {large.name!r} have {len(labels)} labels in common with at least half "
            f"of the seeds finished ({', '.join(labels) or 'none'}), need at least {LEAST_LABELS}"
        )
    here, there = _values(small, labels), _values(large, labels)
    few, many = _shared(here), _shared(there)
    few_means, many_means = few.mean(axis=1), many.mean(axis=1)
    point = float(_spearman(few_means[None], many_means[None])[0])
    rng = stream(seed, "transfer", small.name, large.name)
    low, high = _interval(few, many, point, large.confidence, rng)
    gaps, halves = _gaps(there, large.confidence)
    alike = (1 + np.sign(_gaps(here, large.confidence)[0]) * np.sign(gaps)) / 2  # half where one rung ties
    decided = np.abs(gaps) > halves
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
    """Return the labels that finished at least half of the seeds of both rungs, in the order of the smaller.

    Where fewer than two seeds are left that all of these finished, those with the fewest seeds go first, the
    last of equals before the others.
    """
    labels = tuple(m.label for m in small.measured if m.label in {own.label for own in large.measured})
    for rung in (small, large):
        labels = _sharing(rung, labels)
    return labels


def _sharing(rung: Rung, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels with half of the rung's seeds or more that have two seeds in common, or its one."""
    seeds = _seeds(rung)
    most = len(set().union(*seeds.values())) if seeds else 0
    kept = [label for label in labels if seeds[label] and 2 * len(seeds[label]) >= most]
    while kept and len(set.intersection(*(seeds[label] for label in kept))) < min(2, most):
        kept.remove(min(reversed(kept), key=lambda label: len(seeds[label])))
    return tuple(kept)


def _seeds(rung: Rung) -> dict[str, set[int]]:
    """Return the seeds of every label's values; old files, which do not name them, say it of complete labels
    alone."""
    most = max((len(m.values) for m in rung.measured), default=0)
    plain = tuple(range(most))
    return {m.label: set(m.seeds or (plain if len(m.values) == most else ())) for m in rung.measured}


def _values(rung: Rung, labels: Sequence[str]) -> Floats:
    """Return the objective (L, S), NaN where a label did not finish a seed."""
    seeds = sorted(set().union(*_seeds(rung).values()))
    found = np.full((len(labels), len(seeds)), np.nan)
    for m in rung.measured:
        if m.label in labels:
            places = [seeds.index(seed) for seed in m.seeds] if m.seeds else range(len(m.values))
            found[labels.index(m.label), list(places)] = m.values
    return found


def _shared(values: Floats) -> Floats:
    """Return the columns of the seeds that all labels finished."""
    return values[:, np.isfinite(values).all(axis=0)]


def _interval(
    few: Floats, many: Floats, point: float, confidence: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the interval of the rank correlation; NaN too where most resamples tie all labels of a rung."""
    nan = float("nan")
    if few.shape[1] < 2 or many.shape[1] < 2:
        return nan, nan
    drawn = _spearman(_resampled_means(few, rng), _resampled_means(many, rng))
    if not np.isfinite(point):
        return nan, nan
    low, high = (_quantile(drawn, q) for q in ((1 - confidence) / 2, (1 + confidence) / 2))
    # added noise lowers every resampled correlation, so the measured one may lie above all of them
    return (min(low, point), max(high, point)) if np.isfinite(low) else (nan, nan)


def _quantile(correlations: Floats, q: float) -> float:
    """Return the quantile of those that are known; NaN where fewer than `_LEAST_KNOWN` are (all labels tied
    in the others)."""
    known = correlations[np.isfinite(correlations)]
    return float(np.quantile(known, q)) if len(known) >= _LEAST_KNOWN * len(correlations) else float("nan")


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
    return _quantile(_spearman(first, second), 0.5)


def _gaps(values: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Return of every pair of labels its difference over the seeds that both finished, and half of its
    interval (paired t); NaN, which decides nothing, with fewer than two such seeds."""
    i, j = np.triu_indices(len(values), 1)
    apart = values[i] - values[j]
    known = np.isfinite(apart)
    count = known.sum(axis=1)
    filled = np.where(known, apart, 0.0)
    gaps = filled.sum(axis=1) / np.where(count, count, np.nan)
    squares = (np.where(known, apart - gaps[:, None], 0.0) ** 2).sum(axis=1)
    free = np.where(count > 1, count - 1, np.nan)
    return gaps, stdtrit(free, (1 + confidence) / 2) * np.sqrt(squares / free / count)
