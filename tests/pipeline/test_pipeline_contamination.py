"""Contamination: planted passages and shared items are counted, excluded on request, or refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from tiny_run import demo_rows, tiny_recipe, tiny_settings, write_rows

from quadmix.annotate.run import AnnotationManifest, manifest_path
from quadmix.corpus.benchmarks import BenchmarkItems
from quadmix.corpus.targets import TargetText, halve_target, read_target
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
    clean_judges,
    contamination_warnings,
    judge_warnings,
    overlap_texts,
    overlap_warnings,
    refuse_contained,
    refuse_same_rows,
    shared_warnings,
    short_counts,
    short_warnings,
    steering_text,
)
from quadmix.pipeline.folder import identity_facts, open_run
from quadmix.pipeline.mix import draw_seed
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.run import run
from quadmix.proxy.targets import open_targets
from quadmix.recipe import BenchmarkSection, TargetSection, check_recipe
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


def fresh(name: str, count: int) -> list[str]:
    """Rows of 20 words that stand nowhere else."""
    return [" ".join(f"{name}{k}x{i}" for i in range(20)) for k in range(count)]


def test_judging_rows_that_share_a_passage_with_a_steering_row_of_any_target_are_left_out() -> None:
    steering = [target("a", LONG[0], "Question: Who? Answer: Me."), target("b", LONG[1])]
    shared = [f"Is it so? {words(LONG[1], 5, 18)}", words(LONG[0], 0, 13), "who, me"]
    apart = [words(LONG[0], 0, 12), "Who? You."]
    judging = [target("a", *shared, *apart, *fresh("j", 6)), target("b", *fresh("k", 8))]
    judges, counts = clean_judges(steering, judging)
    assert judges[0].answers == (*apart, *fresh("j", 6))
    assert (judges[0].prompts, judges[0].rows_in) == (("",) * 8, 11)
    assert judges[1] == judging[1]
    assert counts == {"a": 3}
    (warning,) = judge_warnings(judging, counts)
    assert warning.startswith("target 'a': 3 of 11 judging rows share 13 words in a row, or all words, with")
    assert warning.endswith("they are left out, 8 judge")


def test_too_few_rows_left_to_judge_are_refused_with_the_numbers() -> None:
    judging = [target("a", LONG[0], *fresh("j", 7))]
    with pytest.raises(
        InputError, match=r"'a': 1 of the 8 rows that would judge.*7 are left.*expected 8.*limit"
    ):
        clean_judges([target("a", LONG[0])], judging)


def test_a_target_of_few_rows_keeps_them_with_a_warning() -> None:
    judging = [target("a", LONG[0], *fresh("j", 6))]
    judges, counts = clean_judges([target("a", LONG[0])], judging)
    assert judges == judging
    (warning,) = judge_warnings(judging, counts)
    assert "'a': 1 of 7 judging rows" in warning
    assert "they are kept, since the target has so few" in warning


def test_rows_without_words_are_shared_only_as_they_stand() -> None:
    judging = [target("a", "!?", "...", *fresh("j", 8))]
    judges, counts = clean_judges([target("a", "!?")], judging)
    assert judges[0].answers[0] == "..."
    assert counts == {"a": 1}


def passages(folder: Path, *, limit: int) -> TargetSection:
    """40 questions on 20 passages, two on each."""
    rows = [{"text": f"{passage} ask {k}"} for passage in fresh("p", 20) for k in range(2)]
    write_rows(folder / "passages.jsonl", rows)
    return TargetSection(name="asked", path=str(folder / "passages.jsonl"), text="text", limit=limit)


def test_halves_share_no_passage_and_the_steering_half_is_as_it_was(tmp_path: Path) -> None:
    whole = read_target(passages(tmp_path, limit=40), seed=0)
    halves = stages.target_halves([whole], True, 0)
    first, second = halve_target(whole, 0)
    assert halves["targets"] == [first]
    steered = {text.rpartition(" ask")[0] for text in first.answers}
    (judges,) = halves["judges"]
    assert judges.answers == tuple(t for t in second.answers if t.rpartition(" ask")[0] not in steered)
    assert 8 <= len(judges.answers) < len(second.answers)
    assert stages.target_halves([whole], False, 0) == {"targets": [whole]}


def test_steering_text_is_every_row_that_neither_judges_nor_shares_a_passage_with_a_judge(
    tmp_path: Path,
) -> None:
    section = passages(tmp_path, limit=30)
    halves = stages.target_halves([read_target(section, seed=0)], True, 0)
    judged = {text.rpartition(" ask")[0] for text in halves["judges"][0].answers}
    (found,) = steering_text([section], halves)
    every = [row["text"] for row in map(orjson.loads, Path(section.path).read_bytes().splitlines())]
    assert list(found.answers) == [text for text in every if text.rpartition(" ask")[0] not in judged]
    assert set(halves["targets"][0].answers) < set(found.answers)


def test_steering_text_of_a_target_with_one_row_is_that_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "one.jsonl", [{"text": LONG[0]}])
    section = TargetSection(name="one", path=str(tmp_path / "one.jsonl"), text="text")
    halves = stages.target_halves([read_target(section, seed=0)], True, 0)
    assert halves["judges"] == halves["targets"]
    assert steering_text([section], halves)[0].answers == (LONG[0],)


@pytest.mark.parametrize(
    ("splits", "path", "refused"),
    [
        (("train", "train"), "q.jsonl", True),
        (("train", "validation"), "q.jsonl", False),
        ((None, "validation"), "q.jsonl", True),
        (("train", None), "q.jsonl", True),
        (("train", "train"), "here/../q.jsonl", True),
        (("train", "train"), "s3://bucket/q.jsonl", False),
    ],
)
def test_a_benchmark_of_the_file_and_split_of_a_target_is_refused(
    splits: tuple[str | None, str | None], path: str, refused: bool
) -> None:
    steer = TargetSection(name="t", path="q.jsonl", text="text", split=splits[0])
    asked = BenchmarkSection(name="b", path=path, answer="text", split=splits[1])
    if not refused:
        refuse_same_rows([steer], [asked])
        return
    with pytest.raises(
        InputError, match=r"'b' reads .*q\.jsonl.*the target 't' the same file.*`split: \.\.\.`"
    ):
        refuse_same_rows([steer], [asked])


def test_both_refusals_come_before_anything_is_annotated(tmp_path: Path) -> None:
    settings = planted(tmp_path)
    settings["evaluate"]["benchmarks"][0] |= {"path": str(tmp_path / "target.jsonl"), "limit": 1}
    with pytest.raises(InputError, match="the target 'arc' the same file"):
        run(check_recipe(settings), until="annotate", progress=Progress(quiet=True))
    settings = tiny_settings(tmp_path, name="repeated")
    write_rows(tmp_path / "target.jsonl", demo_rows("target_arc_easy.jsonl.zst", 1) * 40)
    with pytest.raises(InputError, match="'arc': 20 of the 20 rows that would judge"):
        run(check_recipe(settings), until="annotate", progress=Progress(quiet=True))
    assert not list((tmp_path / "runs").glob("*/annotations"))


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
    first = demo_rows("target_arc_easy.jsonl.zst", 1)[0]
    with (folder / "target.jsonl").open("ab") as file:  # six questions on one passage: both halves have some
        for k in range(6):
            file.write(orjson.dumps({**first, "query": f"{LONG[0]} question {k}"}) + b"\n")
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


def test_the_stage_pool_says_how_many_judging_rows_are_left_out_and_encodes_the_others(cleaned: Path) -> None:
    (warning,) = [w for w in read_json(cleaned / "stages" / "pool.json")["warnings"] if "judging rows" in w]
    found = re.search(r"'arc': (\d) of 24 judging rows share .* left out, (\d+) judge", warning)
    assert found is not None
    left_out, judge = int(found[1]), int(found[2])
    assert 0 < left_out < 6
    assert judge == 24 - left_out
    assert len(open_targets(cleaned / "judges")[0].bytes) == judge
    assert len(open_targets(cleaned / "targets")[0].bytes) == 24


def test_a_benchmark_that_is_the_target_is_refused_before_anything_is_annotated(tmp_path: Path) -> None:
    settings = planted(tmp_path)
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "target.jsonl").read_bytes())
    settings["evaluate"]["benchmarks"][0]["path"] = str(tmp_path / "copy.jsonl")
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
