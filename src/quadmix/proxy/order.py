"""Clock order: every document has a fixed hash time in an epoch; θ only decides who is present.

In: a token pool, copies per document, a seed. Out: an endless stream of tokens, cut without padding. Two
mixtures with one seed show the shared documents at the same times, so their losses differ by what the
mixtures differ in and by little else. Each further epoch has times of its own.
"""

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import ProxyError
from quadmix.proxy.pool import TokenPool
from quadmix.rng import clock_times, derived_seed
from quadmix.types import Copies, Ints


class ClockStream:
    """The token stream of one job; `take(n)` returns its next n tokens and remembers what was seen.

    copies: (P,) int32. Raises ProxyError if nothing is selected.
    """

    def __init__(self, pool: TokenPool, copies: Copies, seed: int) -> None:
        if len(copies) != len(pool):
            raise ProxyError(f"copies has {len(copies)} entries, the pool has {len(pool)} documents")
        if (copies < 0).any() or not (copies > 0).any():
            raise ProxyError(
                "the mixture selects no document of the pool; loosen its cutoff or raise its floor"
            )
        self._pool, self._copies, self._seed = pool, copies, seed
        self._lengths = pool.lengths
        self.selected_tokens = int((self._lengths * copies).sum())
        self._epoch = -1
        self._rows: Ints = np.empty(0, dtype=np.int64)
        self._ends: Ints = np.empty(0, dtype=np.int64)
        self._next = 0  # copies of this epoch already begun
        self._rest = pool.tokens[:0]
        self._seen = np.zeros(len(pool), dtype=np.bool_)

    @property
    def unique_tokens(self) -> int:
        """Return the tokens of the distinct documents begun, less what of the last is still to come."""
        first_time = self._next and not (self._rows[: self._next - 1] == self._rows[self._next - 1]).any()
        rest = len(self._rest) if self._epoch == 0 and first_time else 0
        return int(self._lengths[self._seen].sum()) - rest

    def take(self, count: int) -> NDArray[np.int64]:
        """Return the next `count` tokens (count,) int64."""
        parts, missing = [self._rest[:count]], count - min(count, len(self._rest))
        self._rest = self._rest[count:]
        while missing > 0:
            if self._next == len(self._rows):
                self._begin_epoch()
            begin = int(self._ends[self._next - 1]) if self._next else 0
            stop = min(int(np.searchsorted(self._ends, begin + missing)) + 1, len(self._rows))
            documents = self._rows[self._next : stop]
            self._seen[documents] = True
            tokens = np.concatenate([self._document(row) for row in documents.tolist()])
            parts.append(tokens[:missing])
            self._rest = tokens[missing:]
            self._next, missing = stop, missing - len(parts[-1])
        return np.concatenate(parts).astype(np.int64)

    def _document(self, row: int) -> NDArray[np.unsignedinteger]:
        return self._pool.tokens[self._pool.offsets[row] : self._pool.offsets[row + 1]]

    def _begin_epoch(self) -> None:
        self._epoch += 1
        seed = derived_seed(self._seed, "epoch", self._epoch)
        rows, times = clock_times(seed, self._pool.keys, self._copies)
        self._rows = rows[np.argsort(times, kind="stable")]
        self._ends = np.cumsum(self._lengths[self._rows])
        self._next = 0


class Windows:
    """Steps of a stream: `next_step()` returns (batch, context + 1), each token a label exactly once."""

    def __init__(self, stream: ClockStream, batch: int, context: int) -> None:
        self._stream, self._batch, self._context = stream, batch, context
        self._last: NDArray[np.int64] | None = None

    def next_step(self) -> NDArray[np.int64]:
        """Return the next windows: stride `context`, so the last token of one is the first of the next."""
        if self._last is None:
            self._last = self._stream.take(1)
        tokens = np.concatenate([self._last, self._stream.take(self._batch * self._context)])
        self._last = tokens[-1:]
        return np.lib.stride_tricks.sliding_window_view(tokens, self._context + 1)[:: self._context]
