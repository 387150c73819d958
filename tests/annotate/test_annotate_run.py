"""Annotating a corpus split by split: whole, repeatable, resumable, the same however the files are cut."""

import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotate_world import annotate_all, article, pool_rows, section_of, small_corpus, write_rows

from quadmix.annotate import (
    AnnotatorSet,
    annotate_split,
    annotate_tasks,
    finish_annotations,
    prepare_annotators,
    prepare_overlap,
    run,
    trained,
)
from quadmix.annotate.run import part_path
from quadmix.corpus.read import read_documents
from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.engine.tasks import Place, run_tasks
from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import read_table, write_text
from quadmix.recipe import AnnotateSection

COLUMN = {"name": "edu", "kind": "column", "column": "edu"}
NESTED = {"name": "nested", "kind": "column", "column": "meta.score", "direction": "lower"}
RULES = {"name": "rules", "kind": "heuristic"}


@pytest.fixture(autouse=True)
def small_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "QUALITY_FEATURES", 1 << 12)
    monkeypatch.setattr(trained, "DOMAIN_FEATURES", 1 << 12)


def read_parts(folder: Path, splits: int) -> list[dict[str, Any]]:
    return [r for i in range(splits) for r in read_table(part_path(folder, i)).to_pylist()]


def trained_section(folder: Path) -> AnnotateSection:
    rng = np.random.default_rng(9)
    good = write_rows(folder / "good.jsonl", [{"text": article(rng)} for _ in range(30)])
    labelled = write_rows(
        folder / "labelled.jsonl", [{"text": r["text"], "label": r["edu"]} for r in pool_rows(50, 4)]
    )
    kinds = write_rows(
        folder / "kinds.jsonl", [{"text": r["text"], "label": r["kind"]} for r in pool_rows(62, 5)[2:]]
    )
    return section_of(
        {"name": "like", "kind": "linear", "good": [{"path": good}]},
        {"name": "number", "kind": "regression", "labelled": [{"path": labelled}]},
        domain={"kind": "classifier", "labelled": [{"path": kinds}]},
    )


def test_parts_hold_every_document_in_order_with_its_numbers(tmp_path: Path) -> None:
    rows = pool_rows()
    corpus = small_corpus(tmp_path, rows)
    section = section_of(COLUMN, NESTED, RULES, domain={"kind": "column", "column": "kind"})
    _, results, manifest = annotate_all(tmp_path, corpus, section)
    assert len(results) > 2
    found = read_parts(tmp_path, len(results))
    assert [r["doc_id"] for r in found] == [r["id"] for r in rows]
    assert [r["domain"] for r in found] == [r["kind"] for r in rows]
    assert [r["score:edu"] for r in found] == [np.float32(r["edu"]) for r in rows]
    assert [r["score:nested"] for r in found] == [r["meta"]["score"] for r in rows]
    encode = Tokenizer.load(tmp_path / "tokenizer.json").encode
    assert [r["tokens"] for r in found] == [len(ids) for ids in encode([r["text"] for r in rows])]
    assert manifest.documents == 60
    assert manifest.tokens == sum(r["tokens"] for r in found)
    assert manifest.missing == {}
    assert [c.direction for c in manifest.criteria] == ["higher", "lower", "higher"]


def test_trained_annotators_survive_the_way_through_files_and_pickled_tasks(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path, pool_rows())
    section = trained_section(tmp_path)
    made = prepare_annotators(section, corpus, tmp_path, seed=0)
    assert AnnotatorSet.load(tmp_path).digest == made.digest
    tasks = pickle.loads(pickle.dumps(annotate_tasks(corpus, made, tmp_path)))
    results = [annotate_split(t) for t in tasks]
    found = read_parts(tmp_path, len(results))
    assert [r["domain"] for r in found] == ["science" if i % 2 == 0 else "shop" for i in range(60)]
    likes = np.array([r["score:like"] for r in found])
    assert likes[::2].min() > likes[1::2].max()
    card = made.criteria[0].card
    assert card.facts["bad_from_pool"] > 5
    assert card.metrics["heldout_auc"] > 0.6
    stored = [p.name for p in (tmp_path / "annotators").iterdir()]
    assert sorted(stored) == ["criterion-like.npy", "criterion-number.npy", "domain.npy", "manifest.json"]


def test_a_second_prepare_loads_and_a_changed_labelled_file_trains_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = small_corpus(tmp_path, pool_rows())
    section = trained_section(tmp_path)
    first = prepare_annotators(section, corpus, tmp_path, seed=0)
    with monkeypatch.context() as patched:
        patched.setattr("quadmix.annotate.prepare.train_linear", None)  # would raise if called
        again = prepare_annotators(section.model_copy(update={"min_coverage": 0.5}), corpus, tmp_path, seed=0)
    assert again.digest == first.digest
    rng = np.random.default_rng(1)
    write_rows(tmp_path / "good.jsonl", [{"text": article(rng)} for _ in range(30)])
    assert prepare_annotators(section, corpus, tmp_path, seed=0).digest != first.digest


def test_finished_parts_are_not_made_again_and_changed_annotators_make_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = small_corpus(tmp_path, pool_rows())
    annotators, results, _ = annotate_all(tmp_path, corpus, section_of(COLUMN))
    before = [part_path(tmp_path, r.split).read_bytes() for r in results]
    part_path(tmp_path, 1).unlink()
    part_path(tmp_path, 2).write_bytes(b"damaged")
    again = [annotate_split(t) for t in annotate_tasks(corpus, annotators, tmp_path)]
    assert [r.split for r in again if not r.reused] == [1, 2]
    assert [part_path(tmp_path, r.split).read_bytes() for r in results] == before
    assert finish_annotations(corpus, annotators, tmp_path, again).documents == 60
    other = prepare_annotators(section_of(COLUMN, RULES), corpus, tmp_path, seed=0)
    assert not any(annotate_split(t).reused for t in annotate_tasks(corpus, other, tmp_path))


def test_worker_processes_write_the_same_bytes(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path, pool_rows())
    annotators, results, _ = annotate_all(tmp_path, corpus, section_of(RULES, COLUMN))
    before = [part_path(tmp_path, r.split).read_bytes() for r in results]
    for result in results:
        part_path(tmp_path, result.split).unlink()
    tasks = annotate_tasks(corpus, annotators, tmp_path)
    assert run_tasks(annotate_split, tasks, place=Place("processes", 1)) == results
    assert [part_path(tmp_path, r.split).read_bytes() for r in results] == before


def test_missing_scores_and_labels_are_counted_with_reasons_and_never_become_numbers(tmp_path: Path) -> None:
    rows = pool_rows()
    for i, bad in enumerate([None, "high", float("nan")]):
        rows[i]["edu"] = bad  # orjson writes NaN as null
    rows[40]["kind"] = None
    corpus = small_corpus(tmp_path, rows)
    section = section_of(COLUMN, domain={"kind": "column", "column": "kind"})
    _, results, manifest = annotate_all(tmp_path, corpus, section)
    found = read_parts(tmp_path, len(results))
    assert np.flatnonzero(np.isnan([r["score:edu"] for r in found])).tolist() == [0, 1, 2]
    assert sum(manifest.missing["score:edu"].values()) == 3
    assert manifest.missing["score:edu"]["not_a_number"] == 1
    assert manifest.missing["domain"] == {"no_label": 1}
    assert found[40]["domain"] == "unknown"


def test_own_token_counts_are_used_and_unusable_ones_are_counted(tmp_path: Path) -> None:
    rows = [{**r, "n": r["meta"]["n"]} for r in pool_rows()]
    rows[0]["n"], rows[1]["n"], rows[2]["n"] = 0, None, 2**40
    corpus = small_corpus(tmp_path, rows, tokens="n")
    _, results, manifest = annotate_all(tmp_path, corpus, section_of(RULES))
    found = read_parts(tmp_path, len(results))
    assert [r["tokens"] for r in found[3:]] == [r["n"] for r in rows[3:]]
    encode = Tokenizer.load(tmp_path / "tokenizer.json").encode
    assert [r["tokens"] for r in found[:3]] == [len(ids) for ids in encode([r["text"] for r in rows[:3]])]
    assert manifest.missing["tokens"] == {"column_unusable_counted_by_tokenizer": 3}


def test_a_text_without_tokens_counts_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = small_corpus(tmp_path, pool_rows(20))
    monkeypatch.setattr(Tokenizer, "encode", lambda self, texts: [[] for _ in texts])
    _, results, manifest = annotate_all(tmp_path, corpus, section_of(RULES))
    assert {r["tokens"] for r in read_parts(tmp_path, len(results))} == {1}
    assert manifest.missing["tokens"] == {"no_tokens_counted_as_one": 20}


def test_overlap_with_targets_is_marked_and_counted(tmp_path: Path) -> None:
    rows = pool_rows()
    corpus = small_corpus(tmp_path, rows)
    targets = {
        "arc": [rows[4]["text"][:300], "short"],
        "none": ["nothing of this " * 9],
        "both": [rows[4]["text"], rows[8]["text"]],
    }
    overlap = prepare_overlap(targets, tmp_path)
    _, results, manifest = annotate_all(tmp_path, corpus, section_of(RULES), overlap)
    bits = [r["overlap"] for r in read_parts(tmp_path, len(results))]
    assert bits[4] == 0b101
    assert bits[8] == 0b100
    assert sum(b != 0 for b in bits) == 2
    assert manifest.overlap == {"arc": 1, "none": 0, "both": 2}
    assert prepare_overlap({"arc": ["changed"]}, tmp_path).digest != overlap.digest


def test_many_targets_share_the_last_count(tmp_path: Path) -> None:
    rows = pool_rows(20)
    corpus = small_corpus(tmp_path, rows)
    overlap = prepare_overlap({f"t{i}": [rows[0]["text"]] if i == 32 else ["x"] for i in range(33)}, tmp_path)
    *_, manifest = annotate_all(tmp_path, corpus, section_of(RULES), overlap)
    assert manifest.overlap[run.REST] == 1
    assert len(manifest.overlap) == 31


def test_a_huge_document_of_one_character_does_not_stop_the_run(tmp_path: Path) -> None:
    rows = pool_rows(20)
    rows[3]["text"], rows[7]["text"] = "a" * 5_000_000, "a " * 500_000
    write_text(tmp_path / "tokenizer.json", train_tokenizer([r["text"] for r in pool_rows(20)], 512))
    corpus = small_corpus(tmp_path, rows, split_bytes=10_000_000)
    overlap = prepare_overlap({"t": [rows[0]["text"]]}, tmp_path)
    start = time.process_time()
    *_, manifest = annotate_all(tmp_path, corpus, section_of(RULES), overlap)
    assert time.process_time() - start < 10
    assert manifest.documents == 20


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            section_of({**COLUMN, "column": "nope"}),
            r"criterion 'edu'.*no column 'nope', only 'id', 'text', 'edu', 'meta', 'kind'",
        ),
        (section_of({**COLUMN, "column": "meta.nope"}), "no column 'meta.nope'"),
        (
            section_of(RULES, domain={"kind": "column", "column": "topic"}),
            "annotate.domain.*no column 'topic'",
        ),
    ],
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(
    tmp_path: Path, section: AnnotateSection, message: str
) -> None:
    corpus = small_corpus(tmp_path, pool_rows(20))
    with pytest.raises(InputError, match=message):
        prepare_annotators(section, corpus, tmp_path, seed=0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "t"}, r"row 1 has no column 'label'; it has text"),
        ({"text": " ", "label": 1}, "row 1: column 'text' holds str ' ', expected text"),
        ({"text": 5, "label": 1}, "holds int '5', expected text"),
        ({"text": "t", "label": "five"}, "has the label 'five' in column 'label', expected a finite number"),
        ({"text": "t", "label": None}, "has the label None"),
    ],
)
def test_a_labelled_set_with_a_bad_row_is_refused_with_its_row(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    corpus = small_corpus(tmp_path, pool_rows(20))
    path = write_rows(tmp_path / "set.jsonl", [{"text": "fine", "label": 1}, row])
    section = section_of({"name": "q", "kind": "regression", "labelled": [{"path": path}]})
    with pytest.raises(InputError, match=message):
        prepare_annotators(section, corpus, tmp_path, seed=0)


def test_a_split_that_is_not_there_or_changed_stops_the_manifest(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path, pool_rows())
    annotators, results, _ = annotate_all(tmp_path, corpus, section_of(RULES))
    with pytest.raises(IntegrityError, match="split 1 was not annotated"):
        finish_annotations(corpus, annotators, tmp_path, [r for r in results if r.split != 1])
    (tmp_path / "a.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes().split(b"\n")[0] + b"\n")
    part_path(tmp_path, 0).unlink()
    with pytest.raises(IntegrityError, match=r"changed since|input file change"):
        annotate_split(annotate_tasks(corpus, annotators, tmp_path)[0])


def test_pool_sample_never_holds_the_good_texts(tmp_path: Path) -> None:
    rows = pool_rows(80)
    corpus = small_corpus(tmp_path, rows)
    good = write_rows(tmp_path / "good.jsonl", [{"text": r["text"]} for r in rows[::2]])
    section = section_of({"name": "like", "kind": "linear", "good": [{"path": good}]})
    texts = [t for s in corpus.splits for b in read_documents(corpus, s, columns=()) for t in b.text]
    assert len(texts) == 80
    made = prepare_annotators(section, corpus, tmp_path, seed=0)
    assert made.criteria[0].card.metrics["heldout_auc"] == 1.0
