"""What is wanted of a mixture, from options and small files: bounds, what the pool holds, the mixture in use.

In: names with numbers, files of {domain: number}. Out: `ShareBounds`, `Natural` and shares (M,) over the
domains of a `MixtureTable`. A name that is not there is refused with the nearest, a contradiction by name.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from quadmix.errors import InputError, RecipeError
from quadmix.io.csv import read_csv
from quadmix.io.fs import open_input
from quadmix.search.exchange import TOLERANCE, MixtureTable, check_known, number_in
from quadmix.search.space import ShareBounds
from quadmix.types import Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Natural:
    """shares: (M,) of the pool. tokens: (M,), None where they are not known.

    note: how the shares came about.
    """

    shares: Floats
    tokens: Floats | None
    note: str


def natural_shares(path: str | None, domains: Sequence[str], mixtures: Floats) -> Natural:
    """Return the shares of the pool from a file of tokens per domain, else the mean of `mixtures` (K, M)."""
    if path is None:
        note = "natural is the mean mixture of the runs, as no --tokens FILE says what the pool holds"
        return Natural(shares=mixtures.mean(axis=0), tokens=None, note=note)
    amounts = read_amounts(path, domains, what="tokens")
    if absent := [d for d in domains if d not in amounts]:
        raise InputError(
            f"{path} has no tokens for domain {absent[0]!r}; expected all {len(domains)}, 0 if none"
        )
    tokens = np.array([amounts[d] for d in domains])
    if not tokens.sum() > 0:
        raise InputError(f"{path}: no domain has any tokens; expected numbers above 0")
    reach = np.where((mixtures > 0).any(axis=0), tokens, 0.0)
    if not reach.sum() > 0:
        raise InputError(f"{path}: only domains that no run has hold tokens; expected tokens for the others")
    shares = reach / reach.sum()
    missed = 1.0 - float(reach.sum() / tokens.sum())
    note = f"natural is the pool of {path}: {tokens.sum():,.0f} tokens"
    return Natural(
        shares=shares,
        tokens=tokens,
        note=note + (f", less {missed:.1%} in domains that no run has" if missed > 0 else ""),
    )


def current_shares(path: str, domains: Sequence[str]) -> Floats:
    """Return (M,) the mixture of a file of shares per domain; a domain that is not in it has none."""
    amounts = read_amounts(path, domains, what="share")
    shares = np.array([amounts.get(d, 0.0) for d in domains])
    if abs(float(shares.sum()) - 1.0) > TOLERANCE:
        raise InputError(f"{path}: shares sum to {shares.sum():.4g}, expected 1 (fractions, not percent)")
    return shares / shares.sum()


def read_amounts(path: str, domains: Sequence[str], *, what: str) -> dict[str, float]:
    """Read {domain: number >= 0} from JSON, or from a CSV with a domain and a number per row.

    Of JSON that Olmix wrote (`priors`), the token counts are taken.
    """
    if path.lower().endswith(".json"):
        pairs = list(_json_amounts(path, what).items())
    else:
        table = read_csv(path)
        if len(table.header) != 2 or "domain" not in table.header:
            raise InputError(
                f"{path} has the columns {', '.join(table.header[:6])}; expected two with a header, "
                f"domain,{what}; or a .json of {{domain: {what}}}"
            )
        at = table.header.index("domain")
        pairs = [(row[at], row[1 - at]) for row in table.rows]
    check_known([name for name, _ in pairs], domains, "domain", "the runs", InputError)
    amounts: dict[str, float] = {}
    for name, cell in pairs:
        value = number_in(str(cell))
        if name in amounts or not (value >= 0 and math.isfinite(value)):
            got = "is there twice" if name in amounts else f"has {what} {cell!r}"
            raise InputError(f"{path}: domain {name!r} {got}, expected each domain once and a number >= 0")
        amounts[name] = value
    return amounts


def share_bounds(
    table: MixtureTable,
    *,
    least: Mapping[str, float],
    most: Mapping[str, float],
    fixed: Mapping[str, float],
    caps: Floats | None = None,
) -> ShareBounds:
    """Return the bounds on shares: the user's by name, caps (M,) by what the pool holds, and 0 for domains
    that no run has. RecipeError for an unknown domain or a contradiction, by name."""
    check_known([*least, *most, *fixed], table.domains, "domain", "the runs")
    low = np.array([max(least.get(d, 0.0), fixed.get(d, 0.0)) for d in table.domains])
    high = np.array([min(most.get(d, 1.0), fixed.get(d, 1.0)) for d in table.domains])
    for m in np.flatnonzero(table.unseen & (low > 0)):
        raise RecipeError(
            f"domain {table.domains[m]!r} is 0 in all {len(table)} runs, so nothing is known about it and "
            f"its share cannot be {low[m]:g} or more; train runs that have it, or take the wish back"
        )
    high[table.unseen] = 0.0
    if caps is not None:
        for m in np.flatnonzero(low > caps + 1e-12):
            raise RecipeError(
                f"domain {table.domains[m]!r}: least share {low[m]:g}, but its tokens allow {caps[m]:.4g}; "
                "raise --repetition or lower --budget"
            )
        high = np.minimum(high, caps)
    return ShareBounds(domains=table.domains, low=low, high=high)


def _json_amounts(path: str, what: str) -> dict[str, Any]:
    with open_input(path) as file:
        try:
            data = json.load(file)
        except ValueError as error:
            raise InputError(f"{path} is not valid JSON ({error}); expected {{domain: {what}}}") from error
    if isinstance(data, dict):
        data = cast(dict[str, Any], data)
        data = data.get("priors", data)
        data = data.get("token_counts", data) if isinstance(data, dict) else data
    if not isinstance(data, dict) or not data:
        raise InputError(f"{path} holds {type(data).__name__}, expected an object {{domain: {what}}}")
    return cast(dict[str, Any], data)
