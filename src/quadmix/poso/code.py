"""The personalisation code: which group a row belongs to, as the vector that gates read (arXiv 2108.04690).

In: per feature one number for each row: a category (language, domain), or a quantity that is put into
buckets (number of labelled examples, accumulated view count). Out: (B, pc_dim), the trained vectors of all
features side by side.

The paper's best code was a bucketed count: graded and the same for all members of a group; a binary flag
and identities were worse, and gates that read all features worse than none (Table 6). It does not give the
edges of its buckets.

Row 0 of every table is the unknown group. While training, each feature of a row is withheld with probability
`unknown_p`, so that this row is trained, too.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from quadmix.errors import InputError
from quadmix.poso.gate import at_least_one


def log2_edges(top: int = 512) -> tuple[float, ...]:
    """Return edges for the buckets 0, 1, 2, 3-4, 5-8, ..., more than `top`, a power of two."""
    if top < 1 or top & (top - 1):
        raise InputError(f"top is {top}, expected a power of two, such as 512")
    return (1.0, *(2.0**k + 1 for k in range(top.bit_length())))


class PersonalizationCode(nn.Module):
    """Vectors of groups; weights ~ N(0, 1).

    categorical: feature -> number of known categories n; values 1..n, 0 = unknown. buckets: feature ->
    ascending edges; a value has the place of the last edge that is not above it, NaN = unknown. dim: numbers
    per feature. Raises InputError for counts below 1, edges that do not ascend, no or doubled features.
    """

    def __init__(
        self,
        categorical: Mapping[str, int] | None = None,
        buckets: Mapping[str, Sequence[float]] | None = None,
        *,
        dim: int = 16,
        unknown_p: float = 0.05,
    ) -> None:
        super().__init__()
        self.categorical = dict(categorical or {})
        self.edges = {name: tuple(map(float, edges)) for name, edges in (buckets or {}).items()}
        self.unknown_p = unknown_p
        self.names = (*self.categorical, *self.edges)
        _check_features(self.categorical, self.edges)
        at_least_one(dim, "dim of a code")
        if not 0.0 <= unknown_p < 1.0:
            raise InputError(f"unknown_p is {unknown_p}, expected a share from 0 up to, not including, 1")
        rows = {name: 1 + count for name, count in self.categorical.items()}
        rows |= {name: 2 + len(edges) for name, edges in self.edges.items()}
        # a name of its own for every table: a feature may be called as a method of ModuleDict is
        self.tables = nn.ModuleDict({f"of_{name}": nn.Embedding(rows[name], dim) for name in self.names})
        self.pc_dim = dim * len(self.names)

    def forward(self, codes: Mapping[str, Tensor]) -> Tensor:
        """Return (B, pc_dim). codes: feature -> (B,), int64 of categories, any number of a quantity.

        Raises InputError for a feature that is absent or unknown by name, another shape, and, outside
        compiled code, a category outside 0..n.
        """
        if missing := [name for name in self.names if name not in codes]:
            raise InputError(
                f"the code lacks {missing[0]!r}; expected {', '.join(self.names)}, with 0 (category) or NaN "
                "(quantity) where it is unknown"
            )
        if more := [name for name in codes if name not in self.names]:
            raise InputError(f"the code has {more[0]!r}, expected {', '.join(self.names)}")
        rows = [self.rows(name, codes[name]) for name in self.names]
        if len({own.shape[0] for own in rows}) > 1:
            found = ", ".join(f"{name}: {own.shape[0]}" for name, own in zip(self.names, rows, strict=True))
            raise InputError(f"the features of the code have different lengths ({found}), expected one")
        if self.training and self.unknown_p:
            rows = [own * (torch.rand(own.shape, device=own.device) >= self.unknown_p) for own in rows]
        return torch.cat(
            [self.tables[f"of_{name}"](own) for name, own in zip(self.names, rows, strict=True)], dim=1
        )

    def rows(self, name: str, values: Tensor) -> Tensor:
        """Return (B,) int64, the rows of a feature's table for values (B,)."""
        if values.dim() != 1:
            raise InputError(f"{name!r} of the code has shape {tuple(values.shape)}, expected (B,)")
        if name in self.edges:
            wide = values if values.dtype == torch.float64 else values.float()
            edges = torch.tensor(self.edges[name], dtype=wide.dtype, device=wide.device)
            return torch.where(wide.isnan(), 0, 1 + torch.bucketize(wide, edges, right=True))
        if values.is_floating_point() or values.dtype == torch.bool:
            raise InputError(f"{name!r} of the code is {values.dtype}, expected integers, 0 = unknown")
        _check_range(name, values, self.categorical[name])
        return values.long()


def _check_features(categorical: Mapping[str, int], edges: Mapping[str, Sequence[float]]) -> None:
    if not categorical and not edges:
        raise InputError("a code needs at least one feature; give categorical or buckets")
    if both := sorted(set(categorical) & set(edges)):
        raise InputError(f"{both[0]!r} is among the categories and among the buckets, expected it once")
    for name in (*categorical, *edges):
        if not name or "." in name:
            raise InputError(f"a feature of the code is called {name!r}, expected a name without dots")
    for name, count in categorical.items():
        at_least_one(count, f"number of categories of {name!r}")
    for name, own in edges.items():
        ascending = all(low < high for low, high in pairwise(own))
        if not own or not all(map(math.isfinite, own)) or not ascending:
            raise InputError(f"edges of {name!r} are {list(own)}, expected finite numbers that ascend")


def _check_range(name: str, values: Tensor, count: int) -> None:
    """Look at the values themselves, which compiled code cannot without leaving the graph."""
    if torch.compiler.is_compiling():
        return
    bad = (values < 0) | (values > count)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise InputError(
            f"{name!r} of the code is {int(values[row])} in row {row}, expected 0 (unknown) to {count}"
        )
