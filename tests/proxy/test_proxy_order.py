"""Clock order: what is seen when, how often, and how it is cut."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy_world import make_pool, some_copies

from quadmix.errors import ProxyError
from quadmix.proxy.order import ClockStream, Windows
from quadmix.proxy.pool import TokenPool, open_pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> TokenPool:
    return open_pool(make_pool(tmp_path_factory.mktemp("pool"), documents=40))


def documents(tokens: np.ndarray) -> list[tuple[int, ...]]:
    """Cut a token sequence at end-of-document (token 0), which stays at the end of each."""
    ends = np.flatnonzero(tokens == 0) + 1
    return [tuple(part.tolist()) for part in np.split(tokens, ends) if len(part)]


def test_an_epoch_holds_every_copy_once(pool: TokenPool) -> None:
    """The documents of one epoch are exactly the copies; the second epoch has them in another order."""
    copies = some_copies(1, 40)
    stream = ClockStream(pool, copies, seed=3)
    first, second = stream.take(stream.selected_tokens), stream.take(stream.selected_tokens)
    want = sorted(
        tuple(pool.tokens[pool.offsets[i] : pool.offsets[i + 1]].tolist())
        for i in range(40)
        for _ in range(copies[i])
    )
    assert sorted(documents(first)) == want
    assert sorted(documents(second)) == want
    assert documents(first) != documents(second)


def test_presence_does_not_move_the_others(pool: TokenPool) -> None:
    """Two mixtures with one seed show their shared documents in the same order; another seed does not."""
    every, half = np.ones(40, np.int32), (np.arange(40) % 2 == 0).astype(np.int32)
    full = ClockStream(pool, every, seed=3)
    part = ClockStream(pool, half, seed=3)
    kept = documents(part.take(part.selected_tokens))
    shown = [d for d in documents(full.take(full.selected_tokens)) if d in set(kept)]
    assert shown == kept
    other = ClockStream(pool, half, seed=4)
    assert documents(other.take(other.selected_tokens)) != kept


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 700), min_size=1, max_size=12))
def test_taking_in_pieces_is_taking_at_once(pool: TokenPool, cuts: list[int]) -> None:
    """However a stream is cut, over however many epochs, the tokens are the same and each piece is full."""
    copies = some_copies(2, 40)
    stream, whole = ClockStream(pool, copies, seed=0), ClockStream(pool, copies, seed=0)
    pieces = [stream.take(n) for n in cuts]
    assert [len(p) for p in pieces] == cuts
    assert np.array_equal(np.concatenate(pieces), whole.take(sum(cuts)))
    assert stream.unique_tokens <= int(pool.lengths[copies > 0].sum())
    if sum(cuts) >= stream.selected_tokens:
        assert stream.unique_tokens == int(pool.lengths[copies > 0].sum())


def test_unique_tokens_of_a_short_training(pool: TokenPool) -> None:
    """Without repetition, every token taken in the first epoch is a new one."""
    stream = ClockStream(pool, np.ones(40, np.int32), seed=0)
    for _ in range(9):
        stream.take(37)
    assert stream.unique_tokens == 9 * 37


def test_windows_make_every_token_a_label_once(pool: TokenPool) -> None:
    """Windows are context + 1 long with stride context, within and across steps, without padding."""
    copies = some_copies(3, 40)
    windows = Windows(ClockStream(pool, copies, seed=0), batch=3, context=10)
    steps = [windows.next_step() for _ in range(20)]
    flat = ClockStream(pool, copies, seed=0).take(20 * 30 + 1)
    assert all(s.shape == (3, 11) for s in steps)
    assert np.array_equal(np.concatenate([s[:, 1:].ravel() for s in steps]), flat[1:])
    assert np.array_equal(np.concatenate([s[:, :-1].ravel() for s in steps]), flat[:-1])


def test_nothing_selected_is_an_error(pool: TokenPool, tmp_path: Path) -> None:
    """No copies, negative copies and copies of another pool are refused with a reason."""
    with pytest.raises(ProxyError, match="selects no document"):
        ClockStream(pool, np.zeros(40, np.int32), seed=0)
    with pytest.raises(ProxyError, match="40 documents"):
        ClockStream(pool, np.ones(39, np.int32), seed=0)
