"""Contamination: planted passages and shared items are counted, excluded on request, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import demo_rows, tiny_recipe, tiny_settings, write_rows

from quadmix.annotate.run import AnnotationManifest, manifest_path
from quadmix.corpus.benchmarks import BenchmarkItems
from quadmix.corpus.targets import TargetText
from quadmix.errors import InputError
from quadmix.io.atomic import read_json, read_value, write_json
from quadmix.materialise.explain import explain
from quadmix.materialise.selecting import select_corpus
from quadmix.materialise.table import read_selection
from quadmix.materialise.verify import verify_run
from quadmix.materialise.write import materialise
from quadmix.mixing.prior import prior_mean
from quadmix.pipeline import stages
from quadmix.pipeline.contamination import (
    Shared,
    benchmark_target_overlap,
    contamination_warnings,
    overlap_texts,
    overlap_warnings,
    refuse_contained,
    shared_warnings,
    short_counts,
    short_warnings,
)
from quadmix.pipeline.folder import identity_facts, open_run
from quadmix.pipeline.mix import draw_seed
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.run import run
from quadmix.recipe import check_recipe
from quadmix.types import Corpus

LONG = [" ".join(f"s{k}w{i}" for i in range(40)) for k in range(6)]
REASON = "overlaps_target_or_benchmark"


def target(name: str, *rows: str) -> TargetText:
    return TargetText(
        name=name, prompts=("",) * len(rows), answers=rows, score_prompt=True, weight=1.0, rows_in=len(rows)
    )


def benchmark(name: str, *items: tuple[str, str]) -> BenchmarkItems:
    """Items of (question, right answer), with one wrong answer before it."""
    return BenchmarkItems(
        name=name,
        contexts=tuple((question, question) for question, _ in items),
        continuations=tuple((" wrong", f" {answer}") for _, answer in items),
        choices=tuple(("wrong", answer) for _, answer in items),
        gold=(1,) * len(items),
        kind="choices",
        rows_in=len(items),
    )


def words(text: str, start: int, stop: int) -> str:
    return " ".join(text.split()[start:stop])


def test_items_are_found_in_targets_by_passage_and_by_all_their_words() -> None:
    arc = target("arc", LONG[0], "Question: Who? Answer: Me.", LONG[1])
    quiz = benchmark(
        "quiz",
        ("Who?", "me"),  # all words, too short for a passage
        ("Who?", "you"),
        (words(LONG[0], 0, 39), "s0w39"),  # the whole row
        (words(LONG[1], 5, 18) + " and then very much more that is not in it at all", "so it is"),  # one run
        (words(LONG[1], 5, 17), "other"),  # 12 words
    )
    other = target("other", "nothing of that")
    found = benchmark_target_overlap([arc, other], [quiz])
    assert found == {("quiz", "arc"): Shared(items=5, shared=3, inside=2)}
    refuse_contained(found)
    (warning,) = shared_warnings(found)
    assert warning.startswith("benchmark 'quiz': 3 of 5 items share 13 words in a row, or all words, with")
    assert "the target 'arc' (2 stand in it)" in warning


def test_nothing_shared_gives_nothing_and_an_item_without_words_is_in_no_target() -> None:
    assert benchmark_target_overlap([target("a", "!?")], [benchmark("b", ("...", "!"))]) == {}
    assert benchmark_target_overlap([target("a", LONG[0])], []) == {}
    assert benchmark_target_overlap([], [benchmark("b", ("x", "y"))]) == {}


@pytest.mark.parametrize(("inside", "refused"), [(2, False), (3, True), (4, True)])
def test_a_benchmark_of_which_more_than_half_is_in_a_target_is_refused(inside: int, refused: bool) -> None:
    items = [(f"{words(t, 0, 30)}", words(t, 30, 40)) for t in LONG[:4]]
    found = benchmark_target_overlap([target("train", *LONG[:inside])], [benchmark("quiz", *items)])
    if not refused:
        refuse_contained(found)
        return
    with pytest.raises(InputError, match=rf"'quiz': {inside} of 4 items stand in the target 'train'.*split"):
        refuse_contained(found)


def test_a_header_that_all_items_share_with_the_target_is_flagged_but_not_refused() -> None:
    header = "the following are multiple choice questions with answers about the many things of the world "
    quiz = benchmark("quiz", *((header + t, "yes") for t in LONG[:3]))
    found = benchmark_target_overlap([target("train", *(header + t for t in LONG[3:]))], [quiz])
    assert found == {("quiz", "train"): Shared(items=3, shared=3, inside=0)}
    refuse_contained(found)


def test_targets_come_first_and_a_benchmark_of_the_same_name_stays_apart() -> None:
    texts = overlap_texts([target("z", "one"), target("arc", "two")], [benchmark("arc", ("three", "four"))])
    assert texts == {"z": ["one"], "arc": ["two"], "benchmark:arc": ["three four"]}
    assert list(texts) == ["z", "arc", "benchmark:arc"]


def test_a_warning_names_set_count_and_what_is_done() -> None:
    counts = {"arc": 3, "benchmark:quiz": 1, "none": 0}
    plain = overlap_warnings(counts, 200)
    assert plain == [
        "target 'arc': 3 of 200 pool documents (1.50%) share 13 words in a row with it; its loss then partly "
        "measures copying",
        "benchmark 'quiz': 1 of 200 pool documents (0.50%) share 13 words in a row with it; its accuracy "
        "then partly measures memory; annotate.exclude_overlap: true keeps them out",
    ]
    kept_out = overlap_warnings(counts, 200, excluded=True)
    assert all(w.endswith("; annotate.exclude_overlap keeps them out of the selection") for w in kept_out)


def test_a_count_that_several_sets_share_names_them() -> None:
    names = [*(f"t{i}" for i in range(30)), *(f"benchmark:b{i}" for i in range(5))]
    (warning,) = overlap_warnings({"others": 7}, 100, sets=names)
    assert warning.startswith(
        "5 sets counted together (benchmark 'b0', benchmark 'b1', benchmark 'b2' and 2 more): 7 of 100"
    )
    assert overlap_warnings({"others": 7}, 100, sets=["others"])[0].startswith("target 'others'")


def test_items_too_short_to_be_found_are_said() -> None:
    texts = {"arc": ["too short", LONG[0]], "long": [LONG[1]], "benchmark:quiz": ["a", "b"]}
    assert short_counts(texts) == {"arc": 1, "benchmark:quiz": 2}
    (warning,) = short_warnings(texts)
    assert warning.endswith("nothing is known of target 'arc' 1 of 2, benchmark 'quiz' 2 of 2")
    assert short_warnings({"long": [LONG[1]]}) == []


def test_excluding_with_nothing_to_hold_the_pool_against_is_said() -> None:
    (warning,) = contamination_warnings({}, {}, 10, excluded=True)
    assert "nothing was excluded" in warning
    assert contamination_warnings({}, {}, 10, excluded=False) == []


def planted(folder: Path, **changes: Any) -> dict[str, Any]:
    """A tiny run whose target holds passages of pool documents 2 and 7, and a benchmark one of 5."""
    settings = tiny_settings(folder, **changes)
    pool = [row["text"][100:900] for row in demo_rows("pool.jsonl.zst", 8)]
    rows = demo_rows("target_arc_easy.jsonl.zst", 40)
    write_rows(folder / "target.jsonl", [*rows, *({**rows[0], "query": pool[i]} for i in (2, 7))])
    other = [{**r, "query": f"{r['query']} {i} {LONG[i % 6]}"} for i, r in enumerate(rows[:20])]
    write_rows(folder / "quiz.jsonl", [*other, {**rows[0], "query": pool[5]}])
    settings["evaluate"]["benchmarks"] = [
        {"name": "arc", "path": str(folder / "quiz.jsonl"), "choices": "choices", "gold": "gold"}
    ]
    return settings


def test_planted_passages_of_a_target_and_a_benchmark_are_counted_and_excluded(tmp_path: Path) -> None:
    settings = planted(tmp_path, annotate__exclude_overlap=True)
    recipe = check_recipe(settings)
    folder = run(recipe, until="annotate", progress=Progress(quiet=True)).folder
    manifest = read_value(manifest_path(folder), AnnotationManifest)
    notes = read_json(folder / "stages" / "annotate.json")
    corpus = read_value(folder / "corpus" / "manifest.json", Corpus)
    loaded = stages.load_table(folder, corpus, recipe)
    assert manifest.overlap["arc"] >= 2
    assert manifest.overlap["benchmark:arc"] >= 1
    assert {2, 5, 7} <= set(np.flatnonzero(loaded.overlap).tolist())
    assert not np.any((loaded.overlap != 0) & (loaded.excluded == 0))
    assert notes["facts"]["overlap_excluded"] == int((loaded.excluded == 3).sum()) > 0
    assert notes["facts"]["overlap_short"]["arc"] > 0
    warnings = "\n".join(notes["warnings"])
    assert f"target 'arc': {manifest.overlap['arc']} of 360 pool documents" in warnings
    assert f"benchmark 'arc': {manifest.overlap['benchmark:arc']} of 360 pool documents" in warnings
    assert "items of fewer than 13 words" in warnings


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the prior's mean θ, without a search."""
    folder = tmp_path_factory.mktemp("cleaned")
    recipe = check_recipe(planted(folder, annotate__exclude_overlap=True))
    with open_run(recipe, Progress(quiet=True)) as job:
        targets = stages.read_targets(job)
        benchmarks = stages.read_benchmarks(job, targets)
        corpus = stages.open_pool(job)
        loaded = stages.annotate(job, corpus, targets, benchmarks)
        mix = stages.prepare_mixing(job, loaded)
        stages.tokenise(job, corpus, mix, targets)
        theta = mix.whole.calibrate(prior_mean(mix.prior))
        write_json(job.path("theta.json"), theta)
        select_corpus(job.folder, loaded.surveyed, theta, mix.normaliser, seed=draw_seed(recipe.seed))
        materialise(
            corpus, job.folder, section=recipe.materialise, seed=recipe.seed, budget=mix.budget,
            identity=job.identity, theta_label="prior-mean",
            mapper=lambda function, tasks: [function(t) for t in tasks],
        )  # fmt: skip
        return job.folder


def test_excluded_documents_are_in_no_selection_proxy_or_dataset_and_still_counted(cleaned: Path) -> None:
    table = read_selection(cleaned)
    reasons = np.array(table.excluded.to_pylist(), dtype=object)
    kept_out = np.flatnonzero(reasons == REASON)
    assert len(kept_out) >= 2
    assert not table.copies[kept_out].any()
    ledger = read_json(cleaned / "dataset" / "manifest.json")["ledger"]
    assert ledger["dropped"][REASON] == len(kept_out)
    assert ledger["rows_in"] == 360 == ledger["selected"] + sum(ledger["dropped"].values())
    assert all(check.ok for check in verify_run(str(cleaned)).checks)
    name = table.doc_id[int(kept_out[0])].as_py()
    assert f"excluded: {REASON}, so it has no rank and 0 copies" in explain(str(cleaned), name).render()
    card = (cleaned / "dataset" / "README.md").read_text(encoding="utf-8")
    assert f"with a target or benchmark of the run ({len(kept_out):,} of them)" in " ".join(card.split())
    facts = read_json(cleaned / "stages" / "mixing.json")["facts"]
    assert facts["tokens"] == table.tokens[table.selectable].sum()
    pool = read_json(cleaned / "stages" / "pool.json")["facts"]
    assert pool["documents"] <= table.selectable.sum() < 360 - len(kept_out)


def test_a_benchmark_that_is_the_target_is_refused_before_anything_is_annotated(tmp_path: Path) -> None:
    settings = planted(tmp_path)
    settings["evaluate"]["benchmarks"][0]["path"] = str(tmp_path / "target.jsonl")
    with pytest.raises(InputError, match=r"benchmark 'arc': 4\d of 42 items stand in the target 'arc'"):
        run(check_recipe(settings), until="annotate", progress=Progress(quiet=True))
    assert not (tmp_path / "runs" / "tiny" / "annotations").exists()


def test_a_missing_benchmark_is_named_and_its_bytes_are_part_of_the_identity(tmp_path: Path) -> None:
    recipe = check_recipe(planted(tmp_path))
    before = identity_facts(recipe)["files.evaluate.benchmarks.arc"]
    with (tmp_path / "quiz.jsonl").open("ab") as file:
        file.write((tmp_path / "target.jsonl").read_bytes())
    assert identity_facts(recipe)["files.evaluate.benchmarks.arc"] != before
    with open_run(recipe, Progress(quiet=True)) as job:
        (tmp_path / "quiz.jsonl").unlink()
        with pytest.raises(InputError, match=r"benchmark 'arc'.*quiz\.jsonl"):
            stages.read_benchmarks(job, [])


def test_a_recipe_without_benchmarks_has_no_facts_of_them(tmp_path: Path) -> None:
    assert not any("benchmark" in name for name in identity_facts(tiny_recipe(tmp_path)) if "files" in name)
