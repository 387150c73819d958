"""From parts to the table: oriented, covered, domains merged, held-out documents marked, nothing lost."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotate_world import annotate_all, pool_rows, section_of, small_corpus

from quadmix.annotate import EXCLUDED_REASONS, LoadedAnnotations, load_annotations
from quadmix.annotate.run import part_path
from quadmix.annotate.survey import Survey, load_part, place_labels
from quadmix.errors import IntegrityError, ScoreError
from quadmix.recipe import AnnotateSection, DomainSection
from quadmix.rng import keyed_uniform

EDU = {"name": "edu", "kind": "column", "column": "edu"}
LOWER = {"name": "low", "kind": "column", "column": "meta.score", "direction": "lower"}
BY_KIND = {"kind": "column", "column": "kind"}


def load(
    folder: Path, rows: list[dict[str, Any]], section: AnnotateSection, holdout: float = 0.0
) -> LoadedAnnotations:
    corpus = small_corpus(folder, rows)
    annotate_all(folder, corpus, section)
    return load_annotations(folder, corpus, section, holdout=holdout, seed=5)


def holes(*at: int, count: int = 60) -> list[dict[str, Any]]:
    rows = pool_rows(count)
    for i in at:
        rows[i]["edu"] = None
    return rows


def test_higher_scores_are_negated_lower_ones_kept_and_rows_keep_the_corpus_order(tmp_path: Path) -> None:
    rows = pool_rows()
    loaded = load(tmp_path, rows, section_of(EDU, LOWER, domain=BY_KIND))
    table = loaded.table
    np.testing.assert_array_equal(table.scores[:, 0], -np.array([r["edu"] for r in rows], np.float32))
    np.testing.assert_array_equal(table.scores[:, 1], [r["meta"]["score"] for r in rows])
    assert table.doc_id.to_pylist() == [r["id"] for r in rows]
    assert [table.domains[d] for d in table.domain] == [r["kind"] for r in rows]
    assert [c.declared for c in table.criteria] == ["higher", "lower"]
    assert (np.diff(table.split) >= 0).all()
    assert table.split.max() > 1


def test_small_domains_become_other_and_are_counted(tmp_path: Path) -> None:
    loaded = load(tmp_path, pool_rows(), section_of(EDU, domain={**BY_KIND, "min_documents": 5}))
    assert loaded.table.domains == ("science", "shop", "other")
    assert np.bincount(loaded.table.domain).tolist() == [29, 29, 2]
    assert loaded.surveyed.merged_domains == {"tiny": 2}
    assert any(
        "1 small domains with 2 documents became `other`: tiny (2)" in w for w in loaded.surveyed.warnings
    )
    assert any("`other` has only 2 documents" in w for w in loaded.surveyed.warnings)


def test_domains_small_in_tokens_are_merged_too(tmp_path: Path) -> None:
    rows = pool_rows()
    loaded = load(tmp_path, rows, section_of(EDU, domain={**BY_KIND, "min_token_share": 0.1}))
    assert loaded.surveyed.merged_domains == {"tiny": 2}


def test_the_only_domain_is_never_merged(tmp_path: Path) -> None:
    loaded = load(tmp_path, pool_rows(), section_of(EDU, domain={"min_documents": 1000}))
    assert loaded.table.domains == ("all",)
    assert loaded.surveyed.warnings == ()


def test_held_out_documents_are_a_function_of_seed_and_id(tmp_path: Path) -> None:
    rows = pool_rows()
    loaded = load(tmp_path, rows, section_of(EDU), holdout=0.3)
    expected = keyed_uniform(5, [r["id"] for r in rows], "holdout") < 0.3
    assert 0 < expected.sum() < 60
    np.testing.assert_array_equal(loaded.table.held_out, expected)
    assert loaded.surveyed.dropped == {"held_out": int(expected.sum()), "missing_score": 0}


@pytest.mark.parametrize(("policy", "gone"), [("drop", 3), ("renormalise", 0), ("median", 0)])
def test_every_document_stays_in_the_table_and_has_one_reason(tmp_path: Path, policy: str, gone: int) -> None:
    section = section_of(EDU, LOWER, min_coverage=0.9, missing=policy)
    loaded = load(tmp_path, holes(0, 7, 30), section)
    assert len(loaded.table) == 60
    reasons = Counter(EXCLUDED_REASONS[c] for c in loaded.excluded)
    assert reasons == Counter({"selectable": 60 - gone} | ({"missing_score": gone} if gone else {}))
    assert len(loaded.selectable) == 60 - gone
    assert loaded.surveyed.dropped["missing_score"] == gone
    assert np.isnan(loaded.table.scores).sum() == (0 if policy == "median" else 3)
    assert any("score:edu: null for 3 of 60" in w for w in loaded.surveyed.warnings)


def test_a_document_without_any_score_cannot_be_selected(tmp_path: Path) -> None:
    loaded = load(tmp_path, holes(4), section_of(EDU, min_coverage=0.9))
    assert np.flatnonzero(loaded.excluded).tolist() == [4]


def test_median_is_that_of_the_domain(tmp_path: Path) -> None:
    rows = holes(10, 11)
    loaded = load(tmp_path, rows, section_of(EDU, min_coverage=0.9, missing="median", domain=BY_KIND))
    for i in (10, 11):
        same = [r["edu"] for r in rows if r["kind"] == rows[i]["kind"] and r["edu"] is not None]
        assert loaded.table.scores[i, 0] == pytest.approx(-np.median(same), rel=1e-6)


def test_median_of_a_domain_without_scores_is_refused(tmp_path: Path) -> None:
    section = section_of(EDU, LOWER, min_coverage=0.9, missing="median", domain=BY_KIND)
    with pytest.raises(ScoreError, match=r"'edu' has no score in domain 'tiny'.*renormalise"):
        load(tmp_path, holes(0, 1), section)


def test_coverage_below_the_threshold_stops_with_numbers_and_remedy(tmp_path: Path) -> None:
    message = r"criterion 'edu' covers 95.0000% .* at least 99.0000% \(null: 3\).*lower annotate.min_coverage"
    with pytest.raises(ScoreError, match=message):
        load(tmp_path, holes(1, 2, 3), section_of(EDU, min_coverage=0.99))


def test_coverage_is_reported_per_criterion_and_domain(tmp_path: Path) -> None:
    loaded = load(tmp_path, holes(0, 3), section_of(EDU, LOWER, min_coverage=0.9, domain=BY_KIND))
    assert loaded.surveyed.coverage["edu"] == pytest.approx({"science": 1.0, "shop": 28 / 29, "tiny": 0.5})
    assert set(loaded.surveyed.coverage["low"].values()) == {1.0}


def test_a_criterion_without_any_score_is_refused_even_without_threshold(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match=r"'edu' has a score for no document \(null: 60\)"):
        load(tmp_path, holes(*range(60)), section_of(EDU, LOWER, min_coverage=0.0))


def test_constant_criteria_are_named_overall_and_inside_a_domain(tmp_path: Path) -> None:
    rows = [{**r, "one": 1, "by_kind": len(r["kind"])} for r in pool_rows()]
    flat = {"name": "flat", "kind": "column", "column": "one"}
    steps = {"name": "steps", "kind": "column", "column": "by_kind"}
    warnings = load(tmp_path, rows, section_of(flat, steps, EDU, domain=BY_KIND)).surveyed.warnings
    assert sum("'flat' is constant: it orders nothing" in w for w in warnings) == 1
    assert sum("'steps' is constant in the domains science, shop, tiny" in w for w in warnings) == 1
    assert not any("'edu' is constant" in w for w in warnings)


def test_a_score_that_is_mere_length_is_called_so(tmp_path: Path) -> None:
    rows = [{**r, "size": len(r["text"])} for r in pool_rows()]
    section = section_of({"name": "size", "kind": "column", "column": "size"}, EDU)
    loaded = load(tmp_path, rows, section)
    assert loaded.surveyed.length_bias["size"] > 0.8
    assert any("'size' follows document length" in w for w in loaded.surveyed.warnings)


def test_a_part_that_changed_or_vanished_is_refused(tmp_path: Path) -> None:
    section = section_of(EDU)
    load(tmp_path, pool_rows(), section)
    corpus = small_corpus(tmp_path, pool_rows())
    path = part_path(tmp_path, 1)
    path.write_bytes(part_path(tmp_path, 0).read_bytes())
    with pytest.raises(IntegrityError, match=r"part-00001\.parquet is absent or differs"):
        load_annotations(tmp_path, corpus, section, holdout=0.0, seed=0)
    path.unlink()
    with pytest.raises(IntegrityError, match="is absent or differs"):
        load_annotations(tmp_path, corpus, section, holdout=0.0, seed=0)


def test_annotations_of_other_criteria_are_refused(tmp_path: Path) -> None:
    load(tmp_path, pool_rows(), section_of(EDU))
    corpus = small_corpus(tmp_path, pool_rows())
    with pytest.raises(IntegrityError, match=r"criteria \['edu'\], expected corpus .* with \['low'\]"):
        load_annotations(tmp_path, corpus, section_of(LOWER), holdout=0.0, seed=0)


def test_more_domains_than_can_be_numbered_are_refused() -> None:
    section = DomainSection(min_documents=1, min_token_share=0.0)
    with pytest.raises(ScoreError, match="32768 domains, expected at most 32767"):
        place_labels(counted(32_768), section)
    domains, place = place_labels(counted(32_767), section)
    assert len(domains) == 32_767
    assert place["d00000"] == 0


def counted(labels: int) -> Survey:
    """A survey of one document and token per label."""
    ones = np.ones(labels, dtype=np.int64)
    return Survey(
        labels=tuple(f"d{i:05d}" for i in range(labels)),
        documents=ones,
        tokens=ones,
        open_documents=ones,
        open_tokens=ones,
        known=ones[:, None],
        low=np.zeros((labels, 1)),
        high=np.ones((labels, 1)),
        sample=np.empty((0, 2), dtype=np.float32),
        dropped={},
    )


def test_a_part_read_alone_is_its_slice_of_the_whole_table(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, holes(0, 3), section_of(EDU, LOWER, min_coverage=0.9, missing="median", domain=BY_KIND)
    )
    start = 0
    for task in loaded.surveyed.tasks:
        part = load_part(task)
        rows = slice(start, start + len(part.table))
        assert part.table.doc_id.to_pylist() == loaded.table.doc_id[rows].to_pylist()
        assert np.array_equal(part.table.scores, loaded.table.scores[rows], equal_nan=True)
        assert np.array_equal(part.table.domain, loaded.table.domain[rows])
        assert np.array_equal(part.excluded, loaded.excluded[rows])
        start = rows.stop
    assert start == len(loaded.table)
