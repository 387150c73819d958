"""Make θ select a given number of tokens, under domain multipliers, share bounds and a repetition cap.

In: θ, the table, the budget in tokens (copies counted). Out: θ with other cutoffs (and scales).

The paper has no budget: the number of selected tokens is whatever ω gives. Here one k solves

    Σ_m clip(w_m · E_m(min(1, k ω_m)), low_m, high_m) = budget,      E_m(ω) = T_m · scale · (G + ε)

with w the multipliers, low and high the share bounds times the budget (high also holds the cap).
The left side rises with k, so this is the water-filling that fixes violated domains at their bound
and solves for the rest, in one root. A domain then gets the cutoff that gives its tokens; where the
cutoff ends at 1, or a single tied group steps over the target, `scale` makes up the difference.
`method="thin"` keeps the cutoffs and lowers `scale`, which keeps the curve's shape.
In the point modes (`paper`, `hash-tiebreak`) E_m is summed over the documents' expected copies.

Where the floor ε alone would spend more than half of the budget it is lowered to spend half;
otherwise a small budget would buy random documents instead of the best.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import BudgetError, RecipeError, ScoreError
from quadmix.mixing.curve import expected_copies, window_mass, window_table
from quadmix.mixing.limits import Limits
from quadmix.mixing.merge import merge_scores
from quadmix.mixing.rank import Grouped, RankMode, pool_tokens
from quadmix.mixing.select import pool_ranks
from quadmix.types import Annotations, Floats, Theta

Supply = Callable[[Floats], Floats]  # cutoffs (M,) -> expected tokens (M,), all else as in one θ
Method = Literal["cutoff", "thin"]
_EXACT = 1e-10
_CLOSED = 1e-12  # a cutoff below this is not worth opening to 1: k stays a sane number


def fit_budget(
    theta: Theta,
    annotations: Annotations,
    token_budget: float,
    *,
    method: Method = "cutoff",
    rank_mode: RankMode = "interval",
    limits: Limits | None = None,
    normalised: NDArray[np.float32] | None = None,
    grouped: Grouped | None = None,
) -> Theta:
    """Return θ whose expected tokens over the table equal `token_budget` to 1e-9.

    method: "cutoff" scales every ω by one k; "thin" scales expected copies, downwards only.
    normalised: (D, N), needed by the point rank modes, whose tokens depend on the documents.
    Raises BudgetError where the pool, the bounds or the cap cannot give the budget.
    """
    pool = pool_tokens(annotations)
    _check(theta, pool, token_budget, limits)
    if limits is not None and limits.max_copies is not None:
        theta = cap_copies(theta, limits.max_copies)
    if method == "cutoff":
        theta = _tame_floor(theta, pool, token_budget, limits)
    if rank_mode == "interval":
        supply = _supply_of_curve(theta, pool)
    else:
        supply = _supply_of_documents(theta, annotations, rank_mode, normalised, grouped)
    low, high = _bounds(theta, supply, token_budget, limits)
    weights = np.ones(len(pool)) if limits is None else limits.multipliers
    path, start, stop = _path(theta, supply, weights, method)

    def wanted(position: float) -> Floats:
        return np.clip(path(position), low, high)

    if wanted(stop).sum() < token_budget * (1 - _EXACT):
        raise _too_much(token_budget, wanted(stop).sum(), pool, method, limits)
    left, right = _solve(lambda p: float(wanted(p).sum()) - token_budget, start, stop, rank_mode)
    if limits is None and rank_mode == "interval" and method == "cutoff" and right >= 0:
        return dataclasses.replace(theta, cutoff=np.minimum(1.0, right * theta.cutoff))
    tokens = _between(wanted(left), wanted(right), token_budget)
    return _reach(theta, supply, tokens, keep_cutoff=method == "thin")


def cap_copies(theta: Theta, max_copies: float) -> Theta:
    """Lower exponents, then scales, so that no document expects more than `max_copies` copies.

    The most any document can expect is scale · (2^η + ε).
    """
    room = max_copies / np.where(theta.scale > 0, theta.scale, 1.0) - theta.floor
    exponent = np.minimum(theta.exponent, np.log2(np.maximum(room, 1.0)))
    scale = np.where(room >= 1, theta.scale, np.minimum(theta.scale, max_copies / (1.0 + theta.floor)))
    return dataclasses.replace(theta, exponent=exponent, scale=scale)


def _check(theta: Theta, pool: Floats, token_budget: float, limits: Limits | None) -> None:
    if theta.num_domains != len(pool):
        raise RecipeError(f"theta has {theta.num_domains} domains, expected {len(pool)} as in the table")
    if limits is not None and len(limits.multipliers) != len(pool):
        raise RecipeError(
            f"limits have {len(limits.multipliers)} domains, expected {len(pool)} as in the table"
        )
    if not (np.isfinite(token_budget) and token_budget > 0):
        raise BudgetError(
            f"token budget is {token_budget}, expected a positive number of tokens (the pool has "
            f"{pool.sum():,.0f}); set budget.tokens or budget.share"
        )


def _tame_floor(theta: Theta, pool: Floats, token_budget: float, limits: Limits | None) -> Theta:
    """Lower ε everywhere by one factor where it alone would spend more than half of the budget."""
    weights = 1.0 if limits is None else limits.multipliers
    trickle = float((weights * pool * theta.scale * theta.floor).sum())
    factor = min(1.0, 0.5 * token_budget / trickle) if trickle > 0 else 1.0
    return dataclasses.replace(theta, floor=theta.floor * factor)


def _supply_of_curve(theta: Theta, pool: Floats) -> Supply:
    table = window_table(theta.exponent)

    def supply(cutoff: Floats) -> Floats:
        return pool * theta.scale * (window_mass(cutoff, theta, table) + theta.floor)

    return supply


def _supply_of_documents(
    theta: Theta,
    annotations: Annotations,
    rank_mode: RankMode,
    normalised: NDArray[np.float32] | None,
    grouped: Grouped | None,
) -> Supply:
    if normalised is None:
        raise ScoreError(
            f"fit_budget in rank mode {rank_mode!r} needs `normalised`, the (D, N) result of `normalise`"
        )
    merged = merge_scores(normalised, theta.weights, annotations.domain)
    ranks = pool_ranks(merged, annotations, rank_mode=rank_mode, grouped=grouped)
    rows = np.flatnonzero(~annotations.held_out)
    rank, domain, tokens = ranks.high[rows], annotations.domain[rows], annotations.tokens[rows]

    def supply(cutoff: Floats) -> Floats:
        copies = expected_copies(rank, dataclasses.replace(theta, cutoff=cutoff), domain)
        return np.bincount(domain, tokens * copies, theta.num_domains).astype(np.float64)

    return supply


def _bounds(
    theta: Theta, supply: Supply, token_budget: float, limits: Limits | None
) -> tuple[Floats, Floats]:
    """Return (low, high), the tokens each domain may and must give."""
    if limits is None:
        return np.zeros(theta.num_domains), np.full(theta.num_domains, np.inf)
    most = supply(np.ones(theta.num_domains))
    if limits.max_copies is None:
        reach = np.where(most > 0, np.inf, 0.0)
    else:
        peak = theta.scale * (2.0**theta.exponent + theta.floor)
        reach = most * np.maximum(limits.max_copies / np.where(peak > 0, peak, 1.0), 1.0)
    low = limits.min_share * token_budget
    high = np.minimum(limits.max_share * token_budget, reach)
    if (low > reach).any():
        m = int(np.argmax(low - reach))
        raise BudgetError(
            f"min_share {limits.min_share[m]:g} of domain {limits.name(m)} asks for {low[m]:,.0f} tokens, "
            f"the domain can give at most {reach[m]:,.0f}; lower mixing.min_share or the budget"
            + (", or raise mixing.repetition_cap" if limits.max_copies is not None else "")
        )
    return low, high


def _path(
    theta: Theta, supply: Supply, weights: Floats, method: Method
) -> tuple[Callable[[float], Floats], float, float]:
    """Return (tokens per domain at a position, first position, last position); tokens never fall along it.

    thin: the position is the factor on all copies, 0 to 1. cutoff: positions >= 0 are k; from -1 to 0
    the cutoffs are 0 and what the floor gives is thinned, for bounds that leave no room for it.
    """
    if method == "thin":
        given = weights * supply(theta.cutoff)
        return lambda t: t * given, 0.0, 1.0
    floor = weights * supply(np.zeros(theta.num_domains))
    open_cutoffs = theta.cutoff[theta.cutoff > _CLOSED]
    stop = 1.0 / float(open_cutoffs.min()) if len(open_cutoffs) else 0.0

    def tokens(k: float) -> Floats:
        return (1.0 + k) * floor if k < 0 else weights * supply(np.minimum(1.0, k * theta.cutoff))

    return tokens, -1.0, stop


def _solve(
    excess: Callable[[float], float], start: float, stop: float, rank_mode: RankMode
) -> tuple[float, float]:
    """Return the positions just below and just above the root of a rising function (equal if exact)."""
    from scipy.optimize import brentq  # here, because it takes longer to import than the rest of quadmix

    if excess(start) >= 0:
        return start, start
    if excess(stop) <= 0:
        return stop, stop
    if rank_mode == "interval":
        root = float(brentq(excess, start, stop, xtol=1e-16, rtol=1e-15, maxiter=1000))  # pyright: ignore[reportArgumentType]
        return root, root
    # Documents enter one by one, so the function has steps: bisect down to neighbouring numbers.
    while start < (middle := 0.5 * (start + stop)) < stop:
        start, stop = (start, middle) if excess(middle) >= 0 else (middle, stop)
    return start, stop


def _between(below: Floats, above: Floats, token_budget: float) -> Floats:
    """Return the tokens per domain between two sides of a step that add up to the budget."""
    step = float(above.sum() - below.sum())
    part = (token_budget - float(below.sum())) / step if step > 0 else 1.0
    return below + min(max(part, 0.0), 1.0) * (above - below)


def _reach(theta: Theta, supply: Supply, tokens: Floats, *, keep_cutoff: bool) -> Theta:
    """Give every domain the least cutoff that supplies its tokens; scale makes up what is left."""
    low, high = np.zeros(theta.num_domains), np.ones(theta.num_domains)
    aim = tokens * (1 - 1e-13)
    for _ in range(80):
        middle = 0.5 * (low + high)
        enough = supply(middle) >= aim
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    cutoff = np.where(supply(np.zeros(theta.num_domains)) >= aim, 0.0, high)
    if keep_cutoff:
        cutoff = np.where(supply(theta.cutoff) >= aim, theta.cutoff, cutoff)
    given = supply(cutoff)
    factor = np.where(given > 0, tokens / np.where(given > 0, given, 1.0), 1.0)
    factor = np.where(np.abs(factor - 1.0) < _EXACT, 1.0, factor)
    return dataclasses.replace(theta, cutoff=cutoff, scale=theta.scale * factor)


def _too_much(
    token_budget: float, most: float, pool: Floats, method: Method, limits: Limits | None
) -> BudgetError:
    remedies = ["lower budget.tokens (or budget.share)"]
    if method == "thin":
        remedies.append("use budget.method: cutoff, since thinning only goes downwards")
    else:
        remedies.append("add documents")
    if limits is not None and limits.max_copies is not None:
        remedies.append(f"raise mixing.repetition_cap (now {limits.max_copies:g} copies per epoch)")
    if limits is not None and (limits.max_share < 1).any():
        remedies.append("raise mixing.max_share")
    return BudgetError(
        f"token budget {token_budget:,.0f} exceeds {most:,.0f}, the most that a pool of {pool.sum():,.0f} "
        f"tokens gives under these settings, copies counted; {', or '.join(remedies)}"
    )
