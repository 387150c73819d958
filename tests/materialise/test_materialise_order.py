"""The order of the dataset: a permutation, seeded, independent of document order, copies apart."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadmix.materialise.order import output_order, separate
from quadmix.rng import clock_times, doc_keys


def sequence(ids: list[str], copies: list[int], seed: int = 0) -> list[tuple[str, int]]:
    order = output_order(doc_keys(ids), np.array(copies, dtype=np.int32), seed=seed)
    out: list[tuple[str, int]] = [("", -1)] * len(order.position)
    for row, copy, place in zip(order.row, order.copy_index, order.position, strict=True):
        out[place] = (ids[row], int(copy))
    return out


copy_lists = st.lists(st.integers(0, 6), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(copies=copy_lists, seed=st.integers(0, 5))
def test_every_copy_has_one_place(copies: list[int], seed: int):
    ids = [f"d{i}" for i in range(len(copies))]
    placed = sequence(ids, copies, seed)
    assert sorted(placed) == sorted((f"d{i}", j) for i, c in enumerate(copies) for j in range(c))


@settings(max_examples=300, deadline=None)
@given(copies=copy_lists, big=st.integers(0, 60), seed=st.integers(0, 5))
def test_copies_touch_only_when_one_document_is_more_than_half(copies: list[int], big: int, seed: int):
    ids = [f"d{i}" for i in range(len(copies) + 1)]
    placed = [d for d, _ in sequence(ids, [*copies, big], seed)]
    touching = sum(a == b for a, b in pairwise(placed))
    most = max([*copies, big])
    assert touching == max(0, most - (len(placed) - most) - 1)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), copies=copy_lists)
def test_order_does_not_depend_on_the_order_of_the_input(data: st.DataObject, copies: list[int]):
    ids = [f"d{i}" for i in range(len(copies))]
    shuffled = data.draw(st.permutations(range(len(ids))))
    assert sequence(ids, copies) == sequence([ids[i] for i in shuffled], [copies[i] for i in shuffled])


def test_without_touching_copies_the_order_is_the_clock():
    ids = [f"d{i}" for i in range(2000)]
    copies = (np.arange(2000) % 4 == 0).astype(np.int32) * 2 + 1
    rows, times = clock_times(9, doc_keys(ids), copies)
    by_clock = [ids[rows[i]] for i in np.argsort(times)]
    got = [d for d, _ in sequence(ids, copies.tolist(), 9)]
    touching = sum(a == b for a, b in pairwise(by_clock))
    assert touching == 0
    assert got == by_clock


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
