"""What a model reads, and when: three orders, any stretch of the stream, how it is cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy_world import make_pool, some_copies

from quadmix.errors import ProxyError
from quadmix.proxy.order import Order, TokenStream, windows
from quadmix.proxy.pool import TokenPool, open_pool

ORDERS: tuple[Order, ...] = ("clock", "stratified", "shuffled")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> TokenPool:
    return open_pool(make_pool(tmp_path_factory.mktemp("pool"), documents=40))


def documents(tokens: np.ndarray) -> list[tuple[int, ...]]:
    """Cut a token sequence at end-of-document (token 0), which stays at the end of each."""
    ends = np.flatnonzero(tokens == 0) + 1
    return [tuple(part.tolist()) for part in np.split(tokens, ends) if len(part)]


def epoch(stream: TokenStream, number: int = 0) -> list[tuple[int, ...]]:
    return documents(stream.read(number * stream.selected_tokens, stream.selected_tokens))


@pytest.mark.parametrize("order", ORDERS)
def test_an_epoch_holds_every_copy_once(pool: TokenPool, order: Order) -> None:
    """The documents of one epoch are exactly the copies; the second epoch has them in another order."""
    copies = some_copies(1, 40)
    stream = TokenStream(pool, copies, 3, order)
    want = sorted(
        tuple(pool.tokens[pool.offsets[i] : pool.offsets[i + 1]].tolist())
        for i in range(40)
        for _ in range(copies[i])
    )
    first, second = epoch(stream, 0), epoch(stream, 1)
    assert sorted(first) == want
    assert sorted(second) == want
    assert first != second


@pytest.mark.parametrize(("order", "kept"), [("clock", True), ("shuffled", False)])
def test_only_a_shuffle_moves_the_others(pool: TokenPool, order: Order, kept: bool) -> None:
    """Two mixtures with one seed show their shared documents in one order, unless shuffled; a seed counts."""
    every, half = np.ones(40, np.int32), (np.arange(40) % 2 == 0).astype(np.int32)
    part = epoch(TokenStream(pool, half, 3, order))
    shown = [d for d in epoch(TokenStream(pool, every, 3, order)) if d in set(part)]
    assert (shown == part) == kept
    assert epoch(TokenStream(pool, half, 3, order)) == part
    assert epoch(TokenStream(pool, half, 4, order)) != part


def test_stratified_spreads_each_domain_evenly(tmp_path: Path) -> None:
    """Every tenth of an epoch has each domain's share of the tokens, far closer than by the clock."""
    made = open_pool(make_pool(tmp_path, documents=400))
    marked = replace(made, tokens=np.repeat(made.domain, made.lengths).astype(np.uint16))
    copies = np.where(made.domain == 0, some_copies(1, 400), 1).astype(np.int32)

    def largest_miss(order: Order) -> float:
        stream = TokenStream(marked, copies, 3, order)
        tokens = stream.read(0, stream.selected_tokens)
        return max(abs(part.mean() - tokens.mean()) for part in np.array_split(tokens, 10))

    assert largest_miss("stratified") < 0.03
    assert largest_miss("clock") > 3 * largest_miss("stratified")


def test_stratified_keeps_the_clock_inside_a_domain(pool: TokenPool) -> None:
    """The documents of one domain follow each other as by the clock, so trials still share their order."""
    own = {
        tuple(pool.tokens[pool.offsets[i] : pool.offsets[i + 1]].tolist()): int(pool.domain[i])
        for i in range(40)
    }
    clock, spread = (epoch(TokenStream(pool, np.ones(40, np.int32), 3, o)) for o in ("clock", "stratified"))
    assert clock != spread
    for domain in (0, 1):
        assert [d for d in clock if own[d] == domain] == [d for d in spread if own[d] == domain]


@settings(max_examples=40, deadline=None)
@given(
    order=st.sampled_from(ORDERS),
    places=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 700)), min_size=1, max_size=8),
)
def test_any_stretch_is_a_slice_of_the_whole(
    pool: TokenPool, order: Order, places: list[tuple[int, int]]
) -> None:
    """Reads at any places, in any sequence, over several epochs, equal slices of one long read."""
    copies = some_copies(2, 40)
    whole = TokenStream(pool, copies, 0, order).read(0, 3700)
    stream = TokenStream(pool, copies, 0, order)
    for start, count in places:
        assert np.array_equal(stream.read(start, count), whole[start : start + count])


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 2500), order=st.sampled_from(ORDERS))
def test_unique_tokens_are_the_distinct_ones_read(pool: TokenPool, count: int, order: Order) -> None:
    """The count equals a plain count over a pool whose tokens are all different."""
    distinct = replace(pool, tokens=np.arange(len(pool.tokens), dtype=np.uint32))
    stream = TokenStream(distinct, some_copies(2, 40), 0, order)
    assert stream.unique_tokens(count) == len(np.unique(stream.read(0, count)))


def test_windows_make_every_token_a_label_once(pool: TokenPool) -> None:
    """Windows are context + 1 long with stride context, within and across steps, without padding."""
    stream = TokenStream(pool, some_copies(3, 40), 0)
    steps = [windows(stream, step, 3, 10) for step in range(20)]
    flat = stream.read(0, 20 * 30 + 1)
    assert all(s.shape == (3, 11) for s in steps)
    assert np.array_equal(np.concatenate([s[:, 1:].ravel() for s in steps]), flat[1:])
    assert np.array_equal(np.concatenate([s[:, :-1].ravel() for s in steps]), flat[:-1])


def test_nothing_selected_is_an_error(pool: TokenPool) -> None:
    """No copies, negative copies and copies of another pool are refused with a reason."""
    for copies in (np.zeros(40, np.int32), np.full(40, -1, np.int32)):
        with pytest.raises(ProxyError, match="selects no document"):
            TokenStream(pool, copies, 0)
    with pytest.raises(ProxyError, match="40 documents"):
        TokenStream(pool, np.ones(39, np.int32), 0)
