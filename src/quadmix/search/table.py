"""What trials selected, in numbers a regressor can learn from.

A `FeatureTable` has one row per trial or candidate and says of every column what it means and which domain
it belongs to. Token shares stand in it as they are; every surrogate puts them on its own scale
(`transformed`), because the scale matters more than the regressor: on RegMix's released trials ridge
regression explains 75 % of the variance of a loss from raw shares and 94 % from their roots. Centred log
ratios are not offered: nearly half of those shares are exact zeros, and centring smears them into every
column.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.types import Floats

Transform = Literal["identity", "log:3e-4", "log:1e-3", "log:3e-3", "log:1e-2", "cbrt"]
TRANSFORMS: tuple[Transform, ...] = ("identity", "log:3e-4", "log:1e-3", "log:3e-3", "log:1e-2", "cbrt")
SHARE = "share"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureTable:
    """One row per mixture. values: (K, P). names, types and domains: (P,) each.

    types: "share" (token share of a domain, in [0, 1]), "score", "repetition", "total", or "raw.*" (a
    parameter of θ in unit coordinates). domains: the column's domain, or M where it belongs to none.
    """

    values: Floats
    names: tuple[str, ...]
    types: tuple[str, ...]
    domains: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> "FeatureTable":
        """Return the table restricted to the rows of `index`."""
        return replace(self, values=self.values[index])

    def take(self, columns: NDArray[np.integer]) -> "FeatureTable":
        """Return the table restricted to some columns."""
        return FeatureTable(
            values=self.values[:, columns],
            names=tuple(self.names[i] for i in columns),
            types=tuple(self.types[i] for i in columns),
            domains=tuple(self.domains[i] for i in columns),
        )

    def columns(self, *, raw: bool) -> "FeatureTable":
        """Return only the raw columns (`raw`) or only the realised ones."""
        return self.take(np.flatnonzero(self.is_raw == raw))

    @property
    def is_raw(self) -> NDArray[np.bool_]:
        """(P,) which columns are parameters rather than what they select."""
        return np.array([kind.startswith("raw") for kind in self.types], dtype=bool)

    @property
    def is_share(self) -> NDArray[np.bool_]:
        """(P,) which columns are token shares."""
        return np.array([kind == SHARE for kind in self.types], dtype=bool)

    def transformed(self, how: Transform) -> Floats:
        """Return (K, P) values with the share columns on the scale `how`."""
        values = self.values.copy()
        shares = self.is_share
        values[:, shares] = on_scale(values[:, shares], how)
        return values


def on_scale(shares: Floats, how: Transform) -> Floats:
    """Return shares, log(share + ε) or their cube roots."""
    if how == "identity":
        return shares
    if how == "cbrt":
        return np.cbrt(shares)
    return np.log(shares + float(how.removeprefix("log:")))


def join(tables: list[FeatureTable]) -> FeatureTable:
    """Put tables with the same columns one below the other."""
    return replace(tables[0], values=np.concatenate([t.values for t in tables]))
