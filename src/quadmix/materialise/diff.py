"""Two runs over the same pool: what does one select that the other does not?

In: two run folders. Out: a `Diff`, with tokens per domain, documents only in one, and how much they share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quadmix.materialise.table import SelectionTable, read_selection

EXAMPLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainMove:
    """Selected tokens of one domain in A and in B, copies counted, and their share of each selection."""

    domain: str
    tokens_a: int
    tokens_b: int
    share_a: float
    share_b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """Two selections. jaccard: shared documents over all selected documents. token_jaccard: the same with
    every document weighted by its tokens and copies (the smaller number of copies over the larger)."""

    domains: tuple[DomainMove, ...]
    documents_a: int
    documents_b: int
    both: int
    other_copies: int
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    only_a_count: int
    only_b_count: int
    jaccard: float
    token_jaccard: float

    def render(self) -> str:
        """Return plain text, one fact per line."""
        lines = [
            f"{'domain':24} {'tokens A':>14} {'tokens B':>14} {'moved':>14} {'share A':>8} {'share B':>8}"
        ]
        lines += [
            f"{d.domain:24} {d.tokens_a:>14,} {d.tokens_b:>14,} {d.tokens_b - d.tokens_a:>+14,} "
            f"{d.share_a:>8.2%} {d.share_b:>8.2%}"
            for d in self.domains
        ]
        lines += [
            f"documents: {self.documents_a:,} in A, {self.documents_b:,} in B, {self.both:,} in both "
            f"({self.other_copies:,} of them with other copies)",
            f"Jaccard: {self.jaccard:.4f} of documents, {self.token_jaccard:.4f} of tokens with copies",
            f"only in A: {self.only_a_count:,}{_such_as(self.only_a)}",
            f"only in B: {self.only_b_count:,}{_such_as(self.only_b)}",
        ]
        return "\n".join(lines)


def _such_as(ids: Sequence[str]) -> str:
    return f", such as {', '.join(ids)}" if ids else ""


def diff_runs(run_a: str | Path, run_b: str | Path) -> Diff:
    """Compare two selections by document id; the pools may differ."""
    a, b = read_selection(run_a), read_selection(run_b)
    copies_in_b = _lookup(b, a.keys)
    copies_in_a = _lookup(a, b.keys)
    only_a = np.flatnonzero((a.copies > 0) & (copies_in_b == 0))
    only_b = np.flatnonzero((b.copies > 0) & (copies_in_a == 0))
    both = (a.copies > 0) & (copies_in_b > 0)
    tokens = a.tokens.astype(np.float64)
    shared = float(tokens @ np.minimum(a.copies, copies_in_b))
    union = float(tokens @ np.maximum(a.copies, copies_in_b))
    elsewhere = ~np.isin(b.keys, a.keys)
    union += float(b.tokens[elsewhere].astype(np.float64) @ b.copies[elsewhere])
    documents = int(both.sum()) + len(only_a) + len(only_b)
    return Diff(
        domains=_moves(a, b),
        documents_a=int((a.copies > 0).sum()),
        documents_b=int((b.copies > 0).sum()),
        both=int(both.sum()),
        other_copies=int((both & (a.copies != copies_in_b)).sum()),
        only_a=_examples(a, only_a),
        only_b=_examples(b, only_b),
        only_a_count=len(only_a),
        only_b_count=len(only_b),
        jaccard=int(both.sum()) / documents if documents else 1.0,
        token_jaccard=shared / union if union else 1.0,
    )


def _lookup(table: SelectionTable, keys: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Return (K,) the copies that `table` takes of the documents with these keys, 0 if it lacks them."""
    if not len(table):
        return np.zeros(len(keys), dtype=np.int32)
    order = np.argsort(table.keys)
    place = order[np.searchsorted(table.keys[order], keys).clip(max=len(order) - 1)]
    return np.where(table.keys[place] == keys, table.copies[place], 0).astype(np.int32)


def _examples(table: SelectionTable, rows: NDArray[np.int64]) -> tuple[str, ...]:
    """Return the ids of the documents with the most tokens among `rows`."""
    weight = table.tokens[rows].astype(np.int64) * table.copies[rows]
    first = rows[np.argsort(-weight, kind="stable")][:EXAMPLES]
    return tuple(table.doc_id[int(r)].as_py() for r in first)


def _moves(a: SelectionTable, b: SelectionTable) -> tuple[DomainMove, ...]:
    tokens_a, tokens_b = _domain_tokens(a), _domain_tokens(b)
    total_a, total_b = max(1, sum(tokens_a.values())), max(1, sum(tokens_b.values()))
    return tuple(
        DomainMove(
            domain=name,
            tokens_a=tokens_a.get(name, 0),
            tokens_b=tokens_b.get(name, 0),
            share_a=tokens_a.get(name, 0) / total_a,
            share_b=tokens_b.get(name, 0) / total_b,
        )
        for name in dict.fromkeys((*a.info.domains, *b.info.domains))
    )


def _domain_tokens(table: SelectionTable) -> dict[str, int]:
    weight = table.tokens.astype(np.float64) * table.copies
    sums = np.bincount(table.domain, weights=weight, minlength=len(table.info.domains))
    return {name: int(t) for name, t in zip(table.info.domains, sums, strict=True)}
