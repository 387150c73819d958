"""What a model reads, and when: every document has a place in the epoch, θ only decides who is present.

In: a token pool, copies per document, a seed. Out: `read(start, count)`, any stretch of an endless stream
of tokens, cut without padding. Each further epoch has an order of its own. Three orders
(docs/proxies.md has what is known of their noise):

clock: a document's time is a hash of its id, so two mixtures with one seed show their shared documents at
the same times and their losses differ by what they select and by little else.
stratified: as clock, but each domain is spread evenly over the epoch.
shuffled: every mixture in an order of its own (what a plain shuffle does).
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from quadmix.errors import ProxyError
from quadmix.proxy.pool import TokenPool
from quadmix.rng import clock_times, derived_seed, keyed_uniform
from quadmix.types import Copies, Floats, Ints

Order = Literal["clock", "stratified", "shuffled"]
WITHHELD = 0.05  # share of the documents whose domain gates are not told


class TokenStream:
    """The tokens of one job. `read` depends on its arguments alone, so training can stop and go on anywhere.

    copies: (P,) int32. Raises ProxyError if nothing is selected.
    """

    def __init__(self, pool: TokenPool, copies: Copies, seed: int, order: Order = "clock") -> None:
        if len(copies) != len(pool):
            raise ProxyError(f"copies has {len(copies)} entries, the pool has {len(pool)} documents")
        if (copies < 0).any() or not (copies > 0).any():
            raise ProxyError(
                "the mixture selects no document of the pool; loosen its cutoff or raise its floor"
            )
        self._pool, self._copies, self._order = pool, copies, order
        own = xxhash.xxh3_64_intdigest(copies.tobytes())
        self._seed = derived_seed(seed, "lane", own) if order == "shuffled" else seed
        self._tokens = np.asarray(pool.tokens)  # a plain view: slicing a memmap object is ten times slower
        self._lengths = pool.lengths
        self.selected_tokens = int((self._lengths * copies).sum())
        self._epoch = -1
        self._told_seed = derived_seed(seed, "told")
        self._rows: Ints = np.empty(0, dtype=np.int64)
        self._ends: Ints = np.empty(0, dtype=np.int64)

    @cached_property
    def told(self) -> NDArray[np.int32]:
        """(P,) each document's row in the codes of gates by domain: 1 + domain, and 0, unknown, for a few
        documents, the same ones in every mixture of a seed."""
        told = keyed_uniform(self._told_seed, self._pool.keys, "told") >= WITHHELD
        return np.where(told, 1 + self._pool.domain.astype(np.int32), 0).astype(np.int32)

    def read(self, start: int, count: int) -> NDArray[np.unsignedinteger]:
        """Return tokens start .. start + count of the stream, in the pool's dtype."""
        parts: list[NDArray[np.unsignedinteger]] = [self._tokens[:0]]
        for _, starts, stops in self._stretches(start, count):
            parts += [self._tokens[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        return np.concatenate(parts)

    def of_documents(self, start: int, count: int, values: NDArray[Any]) -> NDArray[Any]:
        """Return, for tokens start .. start + count, the value of each one's document; values: (P,)."""
        parts = [
            np.repeat(values[rows], stops - starts) for rows, starts, stops in self._stretches(start, count)
        ]
        return np.concatenate([values[:0], *parts])

    def _stretches(self, start: int, count: int) -> Iterator[tuple[Ints, Ints, Ints]]:
        """Yield pool rows and the stretches of the pool's tokens that make up the asked ones, by epoch."""
        while count > 0:
            epoch, begin = divmod(start, self.selected_tokens)
            self._open(epoch)
            size = min(count, self.selected_tokens - begin)
            first = int(np.searchsorted(self._ends, begin, side="right"))
            last = int(np.searchsorted(self._ends, begin + size))
            rows = self._rows[first : last + 1]
            starts, stops = self._pool.offsets[rows], self._pool.offsets[rows + 1]
            starts[0] = stops[0] - (self._ends[first] - begin)
            stops[-1] -= self._ends[last] - (begin + size)
            yield rows, starts, stops
            start, count = start + size, count - size

    def unique_tokens(self, count: int) -> int:
        """Return how many distinct tokens the first `count` of the stream hold."""
        if count >= self.selected_tokens:
            return int(self._lengths[self._copies > 0].sum())
        self._open(0)
        begun = self._rows[: int(np.searchsorted(self._ends, count)) + 1]
        cut = 0 if (begun[:-1] == begun[-1]).any() else int(self._ends[len(begun) - 1]) - count
        return int(self._lengths[np.unique(begun)].sum()) - cut

    def _open(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self._epoch = epoch
        rows, times = clock_times(derived_seed(self._seed, "epoch", epoch), self._pool.keys, self._copies)
        if self._order == "stratified":
            times = self._spread(rows, times)
        self._rows = rows[np.argsort(times, kind="stable")]
        self._ends = np.cumsum(self._lengths[self._rows])

    def _spread(self, rows: Ints, times: Floats) -> Floats:
        """Return, for each copy, the share of its domain's tokens up to its middle, in clock order."""
        order = np.lexsort((times, self._pool.domain[rows]))
        domain, tokens = self._pool.domain[rows][order], self._lengths[rows][order].astype(np.float64)
        total = np.bincount(domain, weights=tokens)
        before = np.concatenate([[0.0], np.cumsum(total)])[domain]
        out = np.empty_like(times)
        out[order] = (np.cumsum(tokens) - tokens / 2 - before) / total[domain]
        return out


def windows(stream: TokenStream, step: int, batch: int, context: int) -> NDArray[np.unsignedinteger]:
    """Return (batch, context + 1), the windows of `step`: stride `context`, so that over the whole training
    each token is a label exactly once."""
    return _cut(stream.read(step * batch * context, batch * context + 1), context)


def document_windows(
    stream: TokenStream, step: int, batch: int, context: int, values: NDArray[Any]
) -> NDArray[Any]:  # fmt: skip
    """Return (batch, context + 1), for each token of `windows` the value of its document; values: (P,)."""
    return _cut(stream.of_documents(step * batch * context, batch * context + 1, values), context)


def _cut(stretch: NDArray[Any], context: int) -> NDArray[Any]:
    return np.lib.stride_tricks.sliding_window_view(stretch, context + 1)[::context]
