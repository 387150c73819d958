"""The order of the dataset: seeded, independent of the order of documents and of the shards, copies apart."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadmix.materialise.order import copy_rows, copy_times, separate, shard_of, shard_order
from quadmix.rng import clock_times, doc_keys


def shards(ids: list[str], copies: list[int], seed: int = 0, many: int = 1) -> list[list[tuple[str, int]]]:
    """Put all copies in order, shard by shard, as (id, copy)."""
    array, keys = np.array(copies, dtype=np.int32), doc_keys(ids)
    rows, copy_index = copy_rows(array)
    times = copy_times(seed, keys[rows], copy_index, array[rows])
    found: list[list[tuple[str, int]]] = []
    for shard in range(many):
        mine = np.flatnonzero(shard_of(times, many) == shard)
        order = mine[shard_order(keys[rows[mine]], copy_index[mine], times[mine])]
        found.append([(ids[rows[i]], int(copy_index[i])) for i in order])
    return found


def sequence(ids: list[str], copies: list[int], seed: int = 0) -> list[tuple[str, int]]:
    return shards(ids, copies, seed)[0]


copy_lists = st.lists(st.integers(0, 6), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(copies=copy_lists, seed=st.integers(0, 5), many=st.integers(1, 9))
def test_every_copy_has_one_place_in_one_shard(copies: list[int], seed: int, many: int):
    ids = [f"d{i}" for i in range(len(copies))]
    placed = [copy for shard in shards(ids, copies, seed, many) for copy in shard]
    assert sorted(placed) == sorted((f"d{i}", j) for i, c in enumerate(copies) for j in range(c))


@settings(max_examples=300, deadline=None)
@given(copies=copy_lists, big=st.integers(0, 60), seed=st.integers(0, 5), many=st.integers(1, 4))
def test_copies_touch_only_when_one_document_is_more_than_half_of_a_shard(
    copies: list[int], big: int, seed: int, many: int
):
    ids = [f"d{i}" for i in range(len(copies) + 1)]
    for shard in shards(ids, [*copies, big], seed, many):
        placed = [d for d, _ in shard]
        touching = sum(a == b for a, b in pairwise(placed))
        most = max((placed.count(d) for d in set(placed)), default=0)
        assert touching == max(0, most - (len(placed) - most) - 1)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), copies=copy_lists, many=st.integers(1, 4))
def test_order_does_not_depend_on_the_order_of_the_input(data: st.DataObject, copies: list[int], many: int):
    ids = [f"d{i}" for i in range(len(copies))]
    shuffled = data.draw(st.permutations(range(len(ids))))
    other = shards([ids[i] for i in shuffled], [copies[i] for i in shuffled], many=many)
    assert shards(ids, copies, many=many) == other


def test_the_order_is_the_clock_cut_into_shards():
    ids = [f"d{i}" for i in range(2000)]
    copies = (np.arange(2000) % 4 == 0).astype(np.int32) * 2 + 1
    rows, times = clock_times(9, doc_keys(ids), copies)
    by_clock = [ids[rows[i]] for i in np.argsort(times)]
    assert sum(a == b for a, b in pairwise(by_clock)) == 0
    assert [d for d, _ in sequence(ids, copies.tolist(), 9)] == by_clock
    cut = shards(ids, copies.tolist(), 9, many=7)
    assert [d for shard in cut for d, _ in shard] == by_clock
    assert [len(shard) for shard in cut] == np.bincount((times * 7).astype(int)).tolist()


def test_times_are_those_of_the_clock_and_the_last_shard_takes_the_end():
    copies = np.array([3, 0, 1, 7], dtype=np.int32)
    keys = doc_keys("abcd")
    rows, copy_index = copy_rows(copies)
    expected_rows, times = clock_times(4, keys, copies)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(copy_times(4, keys[rows], copy_index, copies[rows]), times)
    edge = np.array([0.0, np.nextafter(1 / 3, 0), 1 / 3, np.nextafter(1.0, 0)])
    assert shard_of(edge, 3).tolist() == [0, 0, 1, 2]
    assert shard_of(np.nextafter(np.ones(1), 0), 10**9)[0] == 10**9 - 1


def test_another_seed_is_another_order_and_copies_are_spread_evenly():
    ids = [f"d{i}" for i in range(500)]
    copies = [1] * 499 + [5]
    one, two = sequence(ids, copies, 1), sequence(ids, copies, 2)
    assert one != two
    places = [i for i, (d, _) in enumerate(one) if d == "d499"]
    gaps = np.diff([*places, places[0] + len(one)])
    assert gaps.min() > 60
    assert gaps.max() < 145


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([0, 0, 1], [0, 1, 0]),
        ([1, 0, 0], [0, 1, 0]),
        ([0, 0, 0, 1, 2, 3], [0, 1, 0, 2, 0, 3]),
        ([0, 0, 1, 1], [0, 1, 0, 1]),
        ([0, 1, 2, 2], [2, 0, 1, 2]),
        ([0, 0], [0, 0]),
        ([], []),
    ],
)
def test_separation_by_hand(rows: list[int], expected: list[int]):
    documents = np.array(rows, dtype=np.int64)
    order = separate(documents, np.arange(len(rows), dtype=np.int64))
    got = documents[order].tolist()
    assert sorted(order.tolist()) == list(range(len(rows)))
    if rows == [0, 1, 2, 2]:
        assert got in ([2, 0, 1, 2], [0, 2, 1, 2])
    else:
        assert got == expected
