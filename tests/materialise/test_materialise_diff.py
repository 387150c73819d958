"""diff counts documents, tokens, scores and parameters; each against an independent count."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from materialise_run import CRITERIA, DOMAINS, THETA, Run, build_run, documents, write_inputs

from quadmix.errors import IntegrityError
from quadmix.io.atomic import read_value, write_json
from quadmix.materialise.diff import diff_runs
from quadmix.materialise.overlap import by_buckets, by_parts
from quadmix.materialise.table import read_manifest, read_selection
from quadmix.types import Corpus


def test_it_counts_as_sets_do(run: Run, double: Run):
    diff = diff_runs(run.folder, double.folder)
    a, b = read_selection(run.folder), read_selection(double.folder)
    copies_a = dict(zip(a.doc_id.to_pylist(), a.copies.tolist(), strict=True))
    copies_b = dict(zip(b.doc_id.to_pylist(), b.copies.tolist(), strict=True))
    set_a, set_b = {i for i, c in copies_a.items() if c}, {i for i, c in copies_b.items() if c}
    assert (diff.documents_a, diff.documents_b, diff.both) == (len(set_a), len(set_b), len(set_a & set_b))
    assert (diff.only_a_count, diff.only_b_count) == (len(set_a - set_b), len(set_b - set_a))
    assert set(diff.only_a) <= set_a - set_b
    assert len(diff.only_b) == min(10, len(set_b - set_a))
    assert diff.jaccard == pytest.approx(len(set_a & set_b) / len(set_a | set_b))
    tokens = dict(zip(a.doc_id.to_pylist(), a.tokens.tolist(), strict=True))
    small = sum(tokens[i] * min(copies_a[i], copies_b[i]) for i in tokens)
    large = sum(tokens[i] * max(copies_a[i], copies_b[i]) for i in tokens)
    assert diff.token_jaccard == pytest.approx(small / large)
    assert sum(d.tokens_a for d in diff.domains) == a.tokens_out
    assert "arts" in diff.render()


def test_a_run_and_itself_do_not_differ(run: Run):
    diff = diff_runs(run.folder, run.folder)
    assert (diff.jaccard, diff.token_jaccard, diff.only_a, diff.only_b) == (1.0, 1.0, (), ())
    assert diff.other_copies == 0
    assert diff.theta == ()
    assert all(s.mean_a == s.mean_b for s in diff.scores)
    assert "mean normalised" not in diff.render()


def test_the_mean_scores_of_the_selected_tokens_and_their_shift(run: Run, double: Run):
    found = {(s.domain, s.criterion): s for s in diff_runs(run.folder, double.folder).scores}
    assert len(found) == len(DOMAINS) * len(CRITERIA)
    for m, domain in enumerate(DOMAINS):
        for n, criterion in enumerate(CRITERIA):
            shift = found[domain, criterion.name]
            for folder, mean in ((run.folder, shift.mean_a), (double.folder, shift.mean_b)):
                table = read_selection(folder)
                rows = [
                    r for r in range(len(table))
                    if table.domain[r] == m and table.copies[r] and not np.isnan(table.norms[r, n])
                ]  # fmt: skip
                weight = [int(table.tokens[r]) * int(table.copies[r]) for r in rows]
                total = sum(w * float(table.norms[r, n]) for w, r in zip(weight, rows, strict=True))
                assert mean == pytest.approx(total / sum(weight), rel=1e-9)
    assert (
        "mean normalised score of the selected tokens (0 = best):"
        in diff_runs(run.folder, double.folder).render()
    )


def test_what_changed_in_theta_per_domain(run: Run, double: Run):
    diff = diff_runs(run.folder, double.folder)
    assert [(c.domain, c.parameter, c.a, c.b) for c in diff.theta] == [
        ("arts", "cutoff ω", 0.4, 0.1), ("code", "cutoff ω", 0.6, 0.9),
    ]  # fmt: skip
    assert "arts, cutoff ω: 0.4 -> 0.1" in diff.render()
    assert diff.same_scale
    write_json(double.folder / "theta.json", dataclasses.replace(THETA, weights=np.full((3, 2), 0.5)))
    changed = {(c.domain, c.parameter) for c in diff_runs(run.folder, double.folder).theta}
    assert changed == {(d, f"weight of {c.name}") for d in ("code", "law") for c in CRITERIA}


def test_other_splits_of_the_same_files_give_the_same_numbers(run: Run, double: Run, tmp_path: Path):
    """The corpora have different digests, so documents are matched by the hash of their ids."""
    paths = [f.path for f in run.corpus.files]
    theta = dataclasses.replace(THETA, cutoff=np.array([0.1, 0.9, 0.3]))
    other = build_run(tmp_path / "other", paths, run.docs, theta=theta, split_bytes=2000)
    assert len(other.corpus.splits) > len(double.corpus.splits)
    a, b = diff_runs(run.folder, double.folder), diff_runs(run.folder, other.folder)
    for one, two in zip(a.scores, b.scores, strict=True):
        assert (one.mean_a, one.mean_b) == pytest.approx((two.mean_a, two.mean_b), rel=1e-12)
    assert dataclasses.replace(a, scores=()) == dataclasses.replace(b, scores=())


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_any_number_of_buckets_counts_the_same(run: Run, double: Run, size: int):
    folders = (run.folder, double.folder)
    manifests = (read_manifest(run.folder), read_manifest(double.folder))
    parts, buckets = by_parts(folders, manifests), by_buckets(folders, manifests, bucket_documents=size)
    names = ("both", "only_a", "only_b", "other_copies", "shared", "union", "examples_a", "examples_b")
    assert [getattr(parts, n) for n in names] == [getattr(buckets, n) for n in names]


def test_pools_that_overlap_in_part(tmp_path: Path):
    docs = documents(150)
    first = build_run(tmp_path / "a", write_inputs(tmp_path / "in-a", docs[:100]), docs[:100])
    second = build_run(
        tmp_path / "b", write_inputs(tmp_path / "in-b", docs[:6] + docs[60:]), docs[:6] + docs[60:]
    )
    diff = diff_runs(first.folder, second.folder)
    a, b = read_selection(first.folder), read_selection(second.folder)
    set_a, set_b = ({t.doc_id[int(r)].as_py() for r in np.flatnonzero(t.copies)} for t in (a, b))
    assert (diff.both, diff.only_a_count, diff.only_b_count) == (
        len(set_a & set_b), len(set_a - set_b), len(set_b - set_a),
    )  # fmt: skip
    assert not diff.same_scale
    assert "A and B normalise differently" in diff.render()


def test_parts_that_hold_other_documents_than_their_corpus_says_are_refused(run: Run, tmp_path: Path):
    docs = [d | {"id": f"x{i:03d}"} for i, d in enumerate(documents(150))]
    other = build_run(tmp_path / "other", write_inputs(tmp_path / "in-x", docs), docs, split_bytes=10**9)
    same = build_run(tmp_path / "same", [f.path for f in run.corpus.files], run.docs, split_bytes=10**9)
    digest = read_value(same.folder / "corpus" / "manifest.json", Corpus).digest
    path = other.folder / "corpus" / "manifest.json"
    write_json(path, dataclasses.replace(read_value(path, Corpus), digest=digest))
    with pytest.raises(IntegrityError, match="hold other documents"):
        diff_runs(same.folder, other.folder)
