"""Overlap with targets: any shared run of 13 words is found, nothing shorter is."""

import re
import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quadmix.annotate.overlap import BITS, count_overlap, ngram_hashes, overlap_bits

WORDS = [f"w{i}" for i in range(200)]


def shares_run(a: str, b: str, n: int) -> bool:
    """The slow obvious version, on tuples of words."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.sub(r"[^a-z0-9]+", " ", text.lower()).split()
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    return bool(runs(a) & runs(b))


@given(st.lists(st.sampled_from("ab"), max_size=12), st.lists(st.sampled_from("ab"), max_size=12))
def test_agrees_with_sets_of_word_tuples(a: list[str], b: list[str]) -> None:
    first, second = " ".join(a), ", ".join(b).upper()
    found = bool(count_overlap([first], ngram_hashes([second], 4), 4)[0])
    assert found == shares_run(first, second, 4)


def test_thirteen_words_match_across_case_and_punctuation_and_twelve_do_not() -> None:
    hashes = ngram_hashes(["x " + " ".join(WORDS[:13]) + " y"])
    inside = "Before: " + "; ".join(WORDS[:13]).upper() + "! after"
    short = "Before: " + " ".join(WORDS[:12]) + " after"
    assert count_overlap([inside, short, ""], hashes).tolist() == [True, False, False]


def test_hashes_are_sorted_distinct_and_empty_for_short_texts() -> None:
    hashes = ngram_hashes([" ".join(WORDS), " ".join(WORDS)])
    assert hashes.dtype == np.uint64
    assert len(hashes) == 200 - 12
    assert (np.diff(hashes.astype(object)) > 0).all()
    assert len(ngram_hashes(["too short"])) == 0
    assert len(ngram_hashes([])) == 0


def test_word_order_matters() -> None:
    hashes = ngram_hashes([" ".join(WORDS[:13])])
    assert not count_overlap([" ".join(WORDS[:13][::-1])], hashes)[0]


def test_every_target_has_its_bit_and_those_beyond_the_last_share_it() -> None:
    texts = [" ".join(f"t{j}x{i}" for i in range(13)) for j in range(BITS + 2)]
    bits = overlap_bits(texts, [ngram_hashes([t]) for t in texts])
    assert bits.dtype == np.int32
    assert bits.tolist() == [1 << min(j, 30) for j in range(BITS + 2)]


def test_a_run_across_the_cut_of_a_huge_document_is_found_quickly() -> None:
    run = " ".join(WORDS[:13])
    hashes = ngram_hashes([run])
    start = time.perf_counter()
    for before in (999_950, 999_990, 2_499_000):
        text = "a" * (before - 1) + " " + run + " " + "b" * 1_000_000
        assert count_overlap([text], hashes)[0]
    assert time.perf_counter() - start < 5.0
