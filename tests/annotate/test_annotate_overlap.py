"""Overlap with targets: any shared run of 13 words is found, nothing shorter is; excluded where asked for."""

import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from annotate_world import annotate_all, pool_rows, section_of, small_corpus
from hypothesis import given
from hypothesis import strategies as st

from quadmix.annotate import EXCLUDED_REASONS, LoadedAnnotations, load_annotations, prepare_overlap
from quadmix.annotate.overlap import (
    BITS,
    count_overlap,
    count_shared,
    count_short,
    ngram_hashes,
    overlap_bits,
    plain_words,
)
from quadmix.annotate.survey import OVERLAP, blank_frame, frame_facts, load_part
from quadmix.rng import keyed_uniform
from quadmix.types import to_json

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


def test_short_texts_are_counted_and_words_are_those_of_the_ngrams() -> None:
    texts = [" ".join(WORDS[:12]), " ".join(WORDS[:13]), "", "a-b c_d" + " x" * 9]
    assert [len(ngram_hashes([t])) for t in texts] == [0, 1, 0, 1]
    assert count_short(texts) == 2
    assert plain_words("Is it_so? YES -- 3.5 é") == ("is", "it", "so", "yes", "3", "5", "é")


def test_shared_ngrams_are_counted() -> None:
    hashes = ngram_hashes([" ".join(WORDS)])
    assert count_shared(ngram_hashes([" ".join(WORDS[50:70])]), hashes) == 8
    assert count_shared(ngram_hashes(["short"]), hashes) == 0
    assert count_shared(hashes, ngram_hashes([])) == 0


EDU = {"name": "edu", "kind": "column", "column": "edu"}
COPIED, HELD, NO_SCORE = 10, 0.3, 20


def overlapping(folder: Path, exclude: bool) -> LoadedAnnotations:
    """A corpus of which two targets' texts were copied into documents; one of these has no score either."""
    rows = pool_rows()
    rows[NO_SCORE]["edu"] = None
    corpus = small_corpus(folder, rows)
    copies = [rows[i]["text"] for i in range(COPIED)]
    targets = {"first": copies, "benchmark:second": [rows[NO_SCORE]["text"]], "none": ["not there"]}
    section = section_of(EDU, min_coverage=0.9, exclude_overlap=exclude)
    annotate_all(folder, corpus, section, prepare_overlap(targets, folder))
    return load_annotations(folder, corpus, section, holdout=HELD, seed=5)


def test_overlaps_are_excluded_only_on_request_and_held_out_or_unscored_ones_stay_so(tmp_path: Path) -> None:
    without, loaded = overlapping(tmp_path / "a", False), overlapping(tmp_path / "b", True)
    held_out = keyed_uniform(5, loaded.table.keys, "holdout") < HELD
    shared = np.flatnonzero(loaded.overlap)
    assert {*range(COPIED), NO_SCORE} <= set(shared.tolist())
    assert not np.any(without.excluded == OVERLAP)
    expected = [
        "held_out" if held_out[i] else "missing_score" if i == NO_SCORE
        else "overlaps_target_or_benchmark" if i in shared else "selectable"
        for i in range(60)
    ]  # fmt: skip
    assert [EXCLUDED_REASONS[c] for c in loaded.excluded] == expected
    assert loaded.surveyed.dropped == {r: expected.count(r) for r in EXCLUDED_REASONS[1:]}
    assert 0 < loaded.surveyed.dropped["overlaps_target_or_benchmark"] < len(shared)
    assert sum(loaded.surveyed.dropped.values()) + len(loaded.selectable) == 60
    assert loaded.surveyed.open_documents.sum() == len(loaded.selectable)
    assert loaded.surveyed.open_tokens.sum() == loaded.selectable.tokens.sum()
    parts = [load_part(task, ids=False).excluded for task in loaded.surveyed.tasks]
    assert np.array_equal(np.concatenate(parts), loaded.excluded)


def test_annotations_without_the_switch_are_the_same_bytes_and_counts(tmp_path: Path) -> None:
    without, loaded = overlapping(tmp_path / "a", False), overlapping(tmp_path / "b", True)
    parts = [sorted((tmp_path / f / "annotations").glob("*.parquet")) for f in "ab"]
    assert [p.read_bytes() for p in parts[0]] == [p.read_bytes() for p in parts[1]]
    assert set(without.surveyed.dropped) == {"held_out", "missing_score"}
    assert without.surveyed.digest == loaded.surveyed.digest


def test_a_frame_has_the_digest_of_before_unless_it_excludes() -> None:
    frame = blank_frame((), missing="drop", holdout=0.1, seed=3)
    before = ["criteria", "domains", "place", "missing", "medians", "holdout", "seed"]
    assert list(frame_facts(frame)) == before
    assert frame_facts(frame) == {k: to_json(frame)[k] for k in before}
    assert frame_facts(replace(frame, exclude_overlap=True))["exclude_overlap"] is True
