"""What thousands of θ select from one table: tokens, unique tokens, shares, mean ranks, θ fitted to a budget.

In: a table of normalised scores, grouped by domain once, and K θ. Out: a `Sweep` of (K, M) arrays.

One pass per θ counts tokens per bin of merged score in every domain (Eq. 1); a bin then covers an interval of
ranks, as a document does in `rank_within_domain` (Eq. 2), and gets the mean of Eq. 3 over it. So no θ sorts
documents, and no rank is off by more than the share of the domain's tokens in one bin. What that means:

- expected tokens are exact, T_m · scale · (G + ε), whatever the bins;
- unique tokens, Σ t · min(1, S̄), and the mean rank of the selected tokens depend on where the curve jumps, at
  the cutoff. The bin that holds it is read as one tie and as many small documents; where the two readings
  differ by more than 1e-3 of the result and its documents are not tied, they are sorted. So are those of
  other bins inside the window that are too wide for their curve (outliers stretch the bins).

Unique tokens are the expected distinct ones: a document of S̄ copies is taken ⌊S̄⌋ times and once more with
probability S̄ - ⌊S̄⌋, so at all with probability min(1, S̄).

The result does not depend on the number of threads: each θ is computed by one, from integer counts.
Rank mode "interval" only. Documents that may not be selected get 0 tokens: they move nobody's rank.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import RecipeError, ScoreError
from quadmix.mixing.batch import ThetaBatch, batch_mass, fit_budgets, stack_thetas, window_integral
from quadmix.mixing.curve import expected_copies
from quadmix.mixing.limits import Limits
from quadmix.mixing.quota import Method
from quadmix.mixing.rank import group_by_domain, rank_within_domain
from quadmix.mixing.sweep_kernel import (
    Flags,
    Kernel,
    KernelName,
    Singles,
    Tokens,
    kernel_of,
    merge_columns,
    places_of,
)
from quadmix.types import Floats, Ints, Theta

_TOLERANCE = 1e-3  # of a domain's unique tokens and of their mean rank
_TRIM = 1e-4  # share of a domain's scores beyond the bins, at each end


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepTable:
    """A table prepared once for many θ: documents in blocks of one domain, in their order.

    scores: (N, D) float32, smaller = better, NaN = missing. tokens: (D,) int32 >= 0. order: (D,) the row of
    the caller's table at each place. starts: (M + 1,) where each domain begins. pool: (M,) its tokens.
    gaps: (M,) whether a score is missing. low, high: (M, N) the range of the scores, outliers trimmed.
    """

    scores: Singles
    tokens: Tokens
    order: Ints
    starts: Ints
    pool: Floats
    gaps: Flags
    low: Singles
    high: Singles


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sweep:
    """What K θ select. All arrays but `ok` are (K, M); tokens are expectations, ranks lie in [0, 1].

    batch: θ after the fit to the budget, or as given. ok: (K,) whether the budget can be met; where not, the
    row describes θ as given. mass: copies per token of the domain, scale · (G + ε). tokens: selected, copies
    counted. unique: distinct ones among them. shares: of the tokens, rows sum to 1 (0 where nothing is
    selected). rank: mean rank of the selected tokens, copies counted; NaN where there are none. grain: the
    largest share of the domain's tokens in one bin up to the cutoff; no rank there is off by more.
    """

    batch: ThetaBatch
    ok: Flags
    mass: Floats
    tokens: Floats
    unique: Floats
    shares: Floats
    rank: Floats
    grain: Floats


def sweep_table(
    normalised: NDArray[np.floating],
    tokens: NDArray[np.integer],
    domain: NDArray[np.integer],
    num_domains: int,
) -> SweepTable:
    """Group a table by domain, once for all θ; needs about 24 bytes per document and 4 per score.

    normalised: (D, N) from `normalise`, smaller = better, NaN = missing. tokens: (D,) >= 0, with 0 for
    documents that may not be selected. domain: (D,) in 0..num_domains-1.
    Raises ScoreError for shapes that do not fit, infinite scores and documents without any score.
    """
    _check_table(normalised, tokens, domain, num_domains)
    grouped = group_by_domain(domain, num_domains)
    scores = np.empty((normalised.shape[1], len(tokens)), dtype=np.float32)
    for n in range(len(scores)):
        scores[n] = normalised[:, n][grouped.order]
    bare = np.isnan(scores).all(axis=0)
    if bare.any():
        raise ScoreError(
            f"{bare.sum()} documents have no score at all (first: row {grouped.order[bare].min()}), expected "
            "at least one criterion each; drop them or impute them (annotate.missing: drop or median)"
        )
    blocks = [slice(a, b) for a, b in zip(grouped.starts[:-1], grouped.starts[1:], strict=True)]
    ranges = np.array([[_range(column[block]) for column in scores] for block in blocks], dtype=np.float32)
    ordered = tokens[grouped.order].astype(np.int32)
    return SweepTable(
        scores=scores,
        tokens=ordered,
        order=grouped.order,
        starts=grouped.starts,
        pool=np.array([ordered[block].sum(dtype=np.int64) for block in blocks], dtype=np.float64),
        gaps=np.array([bool(np.isnan(scores[:, block]).any()) for block in blocks]),
        low=ranges[:, :, 0],
        high=ranges[:, :, 1],
    )


def sweep(
    table: SweepTable,
    thetas: Sequence[Theta] | ThetaBatch,
    *,
    token_budget: float | None = None,
    method: Method = "cutoff",
    limits: Limits | None = None,
    bins: int = 2048,
    threads: int = 2,
    kernel: KernelName = "auto",
) -> Sweep:
    """Return what every θ selects from the table, each fitted to `token_budget` first where one is given.

    method, limits: of the fit, as in `fit_budget`. bins: of merged score per domain, 16..65,536. threads: how
    many θ at a time. kernel: numba (in the extra `search`), numpy (the same numbers, fifty times slower), or
    auto: numba where it is installed. Raises RecipeError where θ does not fit the table, BudgetError for a
    budget that is no positive number, MissingExtraError where numba is asked for and absent.
    """
    batch = thetas if isinstance(thetas, ThetaBatch) else stack_thetas(thetas)
    _check_sweep(table, batch, bins, threads)
    ok = np.ones(len(batch), dtype=np.bool_)
    if token_budget is not None:
        fitted = fit_budgets(batch, table.pool, token_budget, method=method, limits=limits)
        batch, ok = fitted.batch, fitted.ok
    passes = kernel_of(kernel)

    def one(k: int) -> Floats:
        return _selected(table, batch.theta(k), passes, bins)

    if min(threads, len(batch)) > 1:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(one, range(len(batch))))
    else:
        found = [one(k) for k in range(len(batch))]
    unique, rank, grain = np.array(found).reshape(len(batch), 3, len(table.pool)).transpose(1, 0, 2)
    mass = batch_mass(batch)
    tokens = mass * table.pool
    total = tokens.sum(axis=1, keepdims=True)
    return Sweep(
        batch=batch, ok=ok, mass=mass, tokens=tokens, unique=unique * table.pool,
        shares=tokens / np.where(total > 0, total, 1.0), rank=np.where(tokens > 0, rank, np.nan), grain=grain,
    )  # fmt: skip


def _selected(table: SweepTable, theta: Theta, kernel: Kernel, bins: int) -> Floats:
    """Return (3, M) under one θ: chance of a token to be selected at all, mean rank, widest bin."""
    weights = theta.weights.astype(np.float32)
    low, inverse = _bins(table, weights, bins)
    counts = kernel.counts(table.scores, table.tokens, table.starts, table.gaps, weights, low, inverse, bins)
    edges = np.zeros((len(counts), bins + 1))
    np.cumsum(counts, axis=1, out=edges[:, 1:])
    edges /= np.maximum(table.pool, 1.0)[:, None]
    cut = np.minimum((edges[:, 1:] < theta.cutoff[:, None]).sum(axis=1), bins - 1)
    edges = edges[:, : cut.max() + 2]  # beyond, there is the floor alone
    rows = np.arange(len(edges))
    gain = np.diff(_window(edges, theta, rows), axis=1)
    once, moment = _moments(edges, gain, theta, rows)
    floor, rest = theta.floor, edges[:, -1]
    unique = once.sum(axis=1) + (1.0 - rest) * np.minimum(1.0, theta.scale * floor)
    total = moment.sum(axis=1) + floor * 0.5 * (1.0 - rest**2)
    width = np.where(np.arange(gain.shape[1]) <= cut[:, None], np.diff(edges, axis=1), 0.0)
    ends = np.stack([edges[rows, cut], edges[rows, cut + 1]], axis=1)
    wanted = _steep(edges, width, theta, unique, total)
    wanted[rows, cut] = _torn(ends, gain[rows, cut], theta, unique, total)
    for m in np.flatnonzero(wanted.any(axis=1)).tolist():
        scale = (low[m], inverse[m])
        for place, merged, tokens in _mixed(table, m, weights[m], scale, kernel, wanted[m], bins):
            exact = _sorted_moments(merged, tokens, edges[m, place : place + 2], theta, m)
            unique[m] += exact[0] - once[m, place]
            total[m] += exact[1] - moment[m, place]
    copies = gain.sum(axis=1) + floor
    return np.stack([unique, total / np.where(copies > 0, copies, 1.0), width.max(axis=1)])


def _window(edges: Floats, theta: Theta, rows: Ints) -> Floats:
    """Return (R, J) copies per domain token that the windows of domains `rows` give up to ranks (R, J)."""
    return window_integral(edges, theta.steepness[rows], theta.cutoff[rows], theta.exponent[rows])


def _moments(edges: Floats, gain: Floats, theta: Theta, rows: Ints) -> tuple[Floats, Floats]:
    """Return (R, J) per interval of ranks: tokens selected at least once and Σ copies · rank, as parts of the
    domain's tokens (copies without the scale). gain: (R, J) copies that the window gives each interval."""
    width, middle = np.diff(edges, axis=1), 0.5 * (edges[:, 1:] + edges[:, :-1])
    copies = gain + theta.floor[rows, None] * width
    return np.minimum(width, theta.scale[rows, None] * copies), copies * middle


def _torn(ends: Floats, gain: Floats, theta: Theta, unique: Floats, total: Floats) -> Flags:
    """Return (M,) where it matters whether the bin at the cutoff is one tie or many small documents.

    ends: (M, 2) its ranks. gain: (M,) what the window gives it. unique, total: of the domain, as one tie.
    """
    width = ends[:, 1] - ends[:, 0]
    covered = np.clip(theta.cutoff - ends[:, 0], 0.0, width)
    scale, floor = theta.scale, theta.floor
    tied = np.minimum(width, scale * (gain + floor * width))
    spread = np.minimum(covered, scale * (gain + floor * covered))
    spread += (width - covered) * np.minimum(1.0, scale * floor)
    shift = 0.5 * gain * (width - covered)
    return (np.abs(tied - spread) > _TOLERANCE * unique) | (shift > _TOLERANCE * total)


def _steep(edges: Floats, width: Floats, theta: Theta, unique: Floats, total: Floats) -> Flags:
    """Return (M, J) the bins inside the window so wide that it matters how the curve falls within them."""
    wide = (width > 0.01 * theta.cutoff[:, None]) & (edges[:, 1:] <= theta.cutoff[:, None])
    m, place = np.nonzero(wide)
    best, worst = (expected_copies(edges[m, place + side], theta, m) for side in (0, 1))
    share, fall = width[m, place], best - worst
    shift = theta.scale[m] * total[m] * _TOLERANCE < share**2 * fall / 12
    crossed = (worst < 1) & (best > 1) & (share * fall / 4 > _TOLERANCE * unique[m])
    wide[m, place] = shift | crossed
    return wide


def _mixed(
    table: SweepTable, m: int, weights: Singles, scale: tuple[np.float32, np.float32],
    kernel: Kernel, wanted: Flags, bins: int,
) -> Iterator[tuple[int, Singles, Tokens]]:  # fmt: skip
    """Yield place, merged scores and tokens of the wanted bins of domain m that are not one tie."""
    block, gaps = slice(int(table.starts[m]), int(table.starts[m + 1])), bool(table.gaps[m])
    wanted = np.pad(wanted, (0, bins - len(wanted)))
    spans = kernel.spans(table.scores, block.start, block.stop, gaps, weights, *scale, wanted)
    wanted &= spans[0] < spans[1]
    if not wanted.any():
        return
    merged = merge_columns(table.scores[:, block], weights, gaps)
    places = places_of(merged, *scale, bins)
    inside = np.flatnonzero(wanted[places])
    inside = inside[np.argsort(places[inside], kind="stable")]
    found, first = np.unique(places[inside], return_index=True)
    for place, rows in zip(found.tolist(), np.split(inside, first[1:]), strict=True):
        yield place, merged[rows], table.tokens[block][rows]


def _sorted_moments(
    merged: Singles, tokens: Tokens, ends: Floats, theta: Theta, m: int
) -> tuple[float, float]:
    """Return `_moments` summed over the documents of one bin of domain m, each at its own rank."""
    ranks = rank_within_domain(merged.astype(np.float64), tokens, np.zeros(len(merged), dtype=np.int16))
    # Ties share an interval; edges that rounding left a hair apart make an interval of no weight.
    edges = np.unique(np.concatenate([[0.0], ranks.low, ranks.high, [1.0]]))
    edges = (ends[0] + edges * (ends[1] - ends[0]))[None, :]
    rows = np.array([m])
    gain = np.diff(_window(edges, theta, rows), axis=1)
    once, moment = _moments(edges, gain, theta, rows)
    return float(once.sum()), float(moment.sum())


def _bins(table: SweepTable, weights: Singles, bins: int) -> tuple[Singles, Singles]:
    """Return (M,) float32 where the bins of every domain begin and how many there are per unit of score.

    Where scores are missing, weights are rescaled, and a merged score can lie anywhere among the scores.
    """
    low, high = (np.einsum("mn,mn->m", weights, side) for side in (table.low, table.high))
    low = np.where(table.gaps, table.low.min(axis=1), low).astype(np.float32)
    high = np.where(table.gaps, table.high.max(axis=1), high).astype(np.float32)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(bins) / (high - low)
    return low, np.where(np.isfinite(inverse), inverse, np.float32(0))


def _range(column: Singles) -> tuple[float, float]:
    """Return the range of the bins: of the scores without the outermost ones, which would widen all bins."""
    known = column[~np.isnan(column)]
    if not len(known):
        return 0.0, 0.0
    trim = int(_TRIM * len(known))
    part = np.partition(known, [trim, len(known) - 1 - trim])
    low, high = float(part[trim]), float(part[len(known) - 1 - trim])
    return (low, high) if low < high else (float(known.min()), float(known.max()))


def _check_table(
    normalised: NDArray[np.floating], tokens: NDArray[np.integer], domain: NDArray[np.integer], domains: int
) -> None:
    if normalised.ndim != 2 or not len(normalised) == len(tokens) == len(domain) or not normalised.shape[1]:
        raise ScoreError(
            f"sweep_table got scores of shape {normalised.shape}, {len(tokens)} token counts and "
            f"{len(domain)} domains, expected (D, N) and D of each"
        )
    if not len(tokens):
        raise ScoreError("sweep_table got no documents, expected at least one")
    if np.isinf(normalised).any():
        row, column = np.argwhere(np.isinf(normalised))[0]
        raise ScoreError(f"score {column} of row {row} is infinite; scores are finite or missing (NaN)")
    if not 0 <= int(domain.min()) <= int(domain.max()) < domains:
        raise ScoreError(f"domain spans {domain.min()}..{domain.max()}, expected 0..{domains - 1}")
    if int(tokens.min()) < 0 or int(tokens.max()) > np.iinfo(np.int32).max:
        raise ScoreError(f"tokens span {tokens.min()}..{tokens.max()}, expected 0..{np.iinfo(np.int32).max}")


def _check_sweep(table: SweepTable, batch: ThetaBatch, bins: int, threads: int) -> None:
    if batch.weights.shape[1:] != table.low.shape:
        raise RecipeError(
            f"theta has weights of shape {batch.weights.shape[1:]}, the table {table.low.shape[0]} domains "
            f"and {table.low.shape[1]} criteria; expected the same"
        )
    if not 16 <= bins <= 65_536 or threads < 1:
        raise RecipeError(f"bins is {bins}, threads {threads}; expected 16..65536 and at least 1")
