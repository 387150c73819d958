"""The main job end to end on real text: every stage's files, the report, refusals, identity, bad input."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import zstandard
from tiny_run import demo_rows, tiny_recipe, tiny_settings, write_rows

from quadmix.cli.table import result_lines
from quadmix.errors import (
    BudgetError,
    IdentityError,
    InputError,
    QuarantineError,
    RecipeError,
    RefusalError,
    ScoreError,
)
from quadmix.io.atomic import read_json, read_value
from quadmix.materialise.explain import explain
from quadmix.materialise.table import read_selection
from quadmix.materialise.verify import verify_run
from quadmix.mixing.prior import prior_mean
from quadmix.pipeline import stages
from quadmix.pipeline.folder import open_run
from quadmix.pipeline.plan import plan
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.run import RunResult, run
from quadmix.recipe import Recipe, check_recipe
from quadmix.types import Comparison, Proposal


def quiet_run(recipe: Recipe, until: str = "report") -> RunResult:
    return run(recipe, until=until, progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe, RunResult]:
    folder = tmp_path_factory.mktemp("whole")
    recipe = tiny_recipe(folder)
    return folder, recipe, quiet_run(recipe)


def test_the_dataset_meets_the_budget_and_conserves_every_document(
    done: tuple[Path, Recipe, RunResult],
) -> None:
    _, _, result = done
    assert result.manifest is not None
    ledger = result.manifest.ledger
    assert ledger.rows_in == 360 == ledger.selected + sum(ledger.dropped.values())
    longest = int(read_selection(result.folder).tokens.max())
    gap = abs(ledger.tokens_out - result.manifest.token_budget)
    assert gap <= longest * len(result.manifest.domains)  # P10: one document per domain
    rows = [
        r for f in sorted((result.folder / "dataset").glob("part-*")) for r in pq.read_table(f).to_pylist()
    ]
    assert len(rows) == ledger.copies
    texts = {r["id"]: r["text"][:1500] for r in demo_rows("pool.jsonl.zst", 360)}
    assert all(texts[r["id"]] == r["text"] for r in rows)
    assert all(r["quadmix"]["copies"] >= 1 for r in rows)


def test_the_run_verifies_and_a_changed_byte_is_found(
    done: tuple[Path, Recipe, RunResult], tmp_path: Path
) -> None:
    _, _, result = done
    assert all(check.ok for check in verify_run(str(result.folder)).checks)
    copy = tmp_path / "copy"
    shutil.copytree(result.folder, copy)
    part = next((copy / "dataset").glob("part-*"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    assert not all(check.ok for check in verify_run(str(copy)).checks)


def test_every_document_can_be_explained(done: tuple[Path, Recipe, RunResult]) -> None:
    _, _, result = done
    table = read_selection(result.folder)
    copies = table.copies
    for row in (int(copies.argmax()), int(copies.argmin())):
        text = explain(str(result.folder), table.doc_id[row].as_py()).render()
        assert str(copies[row]) in text


def test_every_selector_was_compared_at_equal_tokens(done: tuple[Path, Recipe, RunResult]) -> None:
    _, _, result = done
    comparison = read_value(result.folder / "evaluate" / "comparison.json", Comparison)
    labels = {m.label for m in comparison.measured}
    assert labels == {
        "quadmix", "random", "prior-mean", "random-mean", "global-cut", "top:rules", "top:length", "regmix",
    }  # fmt: skip
    trials = [read_json(f) for f in (result.folder / "evaluate" / "trials").glob("*.json")]
    assert len({t["train_tokens"] for t in trials}) == 1
    assert len(trials) == 2 * len(labels)
    longest = int(read_selection(result.folder).tokens.max())
    domains = len(result.manifest.domains) if result.manifest else 0
    selected = np.array([m.selected_tokens for m in comparison.measured])
    assert np.ptp(selected) <= 2 * longest * domains  # each within one document per domain of the budget
    assert 0 < comparison.pool_share < 1
    assert comparison.proxies == {"quadmix": 12 + 2 + 9, "regmix": 8}  # swarm, repeats, confirmation
    table = "\n".join(result_lines(result))
    assert all(label in table for label in labels)
    assert comparison.verdict in table


def test_the_proposal_names_controls_and_out_of_fold_quality(done: tuple[Path, Recipe, RunResult]) -> None:
    _, _, result = done
    proposal = read_value(result.folder / "search" / "proposal.json", Proposal)
    names = [c.name for c in proposal.candidates]
    assert names[0] == "theta-star"
    assert "prior-mean" in names
    assert proposal.trials_used == 12
    assert sum(proposal.target_weights.values()) == pytest.approx(1)
    assert {r.surrogate for r in proposal.diagnostics} >= {"auto", "paper"}


def test_the_report_is_one_file_without_foreign_resources(done: tuple[Path, Recipe, RunResult]) -> None:
    _, _, result = done
    assert result.report is not None
    page = result.report.read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert "<script src" not in page
    assert "<link" not in page
    assert len(page) < 15_000_000


def test_the_same_command_again_loads_everything(done: tuple[Path, Recipe, RunResult]) -> None:
    _, recipe, result = done
    before = {f: f.stat().st_mtime_ns for f in result.folder.glob("**/trials/*.json")}
    again = quiet_run(recipe)
    assert again.manifest is not None
    assert result.manifest is not None
    assert again.manifest.digest == result.manifest.digest
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_another_recipe_in_the_same_folder_is_refused_field_by_field(
    done: tuple[Path, Recipe, RunResult],
) -> None:
    folder, _, _ = done
    with pytest.raises(IdentityError, match=r"recipe\.proxy\.trials: folder has 12, now 13"):
        quiet_run(tiny_recipe(folder, proxy__trials=13))
    with pytest.raises(IdentityError, match=r"recipe\.seed: folder has 0, now 1"):
        plan(tiny_recipe(folder, seed=1))


def test_another_corpus_in_the_same_folder_is_refused(
    done: tuple[Path, Recipe, RunResult], tmp_path: Path
) -> None:
    folder, _, _ = done
    other = tiny_settings(tmp_path)
    other["run"]["folder"] = str(folder / "runs")
    write_rows(tmp_path / "pool-a.jsonl", demo_rows("pool.jsonl.zst", 50))
    with pytest.raises(IdentityError, match=r"files\.corpus"):
        quiet_run(check_recipe(other))


def test_the_run_settings_are_not_part_of_the_identity(done: tuple[Path, Recipe, RunResult]) -> None:
    folder, _, result = done
    again = quiet_run(tiny_recipe(folder, run__workers=2), until="materialise")
    assert again.manifest is not None
    assert result.manifest is not None
    assert again.manifest.digest == result.manifest.digest


def test_the_plan_says_what_is_reused(done: tuple[Path, Recipe, RunResult], tmp_path: Path) -> None:
    _, recipe, _ = done
    assert all(s.reused for s in plan(recipe).stages)
    fresh = plan(tiny_recipe(tmp_path))
    assert not any(s.reused for s in fresh.stages)
    assert fresh.models == {"swarm": 14, "confirm": 9, "regmix": 8, "comparison": 16}
    assert not (tmp_path / "runs").exists()


def test_an_unconfirmed_theta_writes_no_dataset(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, run__accept_unconfirmed=False)
    with pytest.raises(RefusalError, match="accept-unconfirmed"):
        quiet_run(recipe)
    folder = tmp_path / "runs" / "tiny"
    assert not (folder / "dataset").exists()
    assert (folder / "report.html").exists()
    assert "NOT" in (folder / "report.html").read_text(encoding="utf-8")


COLUMN = {"name": "length", "kind": "column", "column": "length_score"}


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    for name in ("pool-a.jsonl", "pool-b.jsonl"):
        rows = [orjson.loads(line) for line in (folder / name).read_bytes().splitlines()]
        write_rows(folder / name, [change(row) for row in rows])


def cut_file(folder: Path) -> None:
    data = zstandard.ZstdCompressor().compress((folder / "pool-a.jsonl").read_bytes())
    (folder / "pool-c.jsonl.zst").write_bytes(data[: len(data) // 2])


def infinite_scores(folder: Path) -> None:
    lines = (folder / "pool-a.jsonl").read_bytes()
    (folder / "pool-a.jsonl").write_bytes(lines.replace(b'"length_score":', b'"length_score":1e999,"was":'))


def empty_files(folder: Path) -> None:
    for name in ("pool-a.jsonl", "pool-b.jsonl"):
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("files", "settings", "error", "message"),
    [
        (empty_files, {}, InputError, "no row that can be read"),
        (cut_file, {"corpus__paths": ["pool-*"]}, InputError, r"pool-c\.jsonl\.zst"),
        (infinite_scores, {}, QuarantineError, "200 of 360 rows are bad.*invalid_json"),
        (
            lambda folder: rewrite(folder, lambda row: {**row, "length_score": None}),
            {},
            ScoreError,
            "length",
        ),
        (None, {"annotate__criteria": [COLUMN | {"column": "nowhere"}]}, InputError, "nowhere"),
        (None, {"corpus__paths": ["none-*.jsonl"]}, InputError, "none-"),
        (None, {"corpus__columns": {"text": "body"}}, InputError, "'body', but the files have"),
        (
            lambda folder: write_rows(folder / "target.jsonl", [{"query": "q", "choices": [""], "gold": 0}]),
            {},
            InputError,
            "target 'arc': no row of .* has text to score",
        ),
        (None, {"budget": {"tokens": 10**9}}, BudgetError, r"1,000,000,000, but the pool holds"),
        (
            None,
            {"budget": {"tokens": 1}},
            BudgetError,
            "the budget is 1 tokens, less than one",
        ),
        (
            None,
            {"mixing": {"min_share": {"sience": 0.1}}},
            RecipeError,
            "names the domain 'sience'.*medical_qa",
        ),
    ],
)
def test_bad_input_gets_one_message_and_leaves_no_dataset(
    tmp_path: Path,
    files: Callable[[Path], None] | None,
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    changed = tiny_settings(tmp_path, **settings)
    changed["corpus"]["paths"] = [str(tmp_path / p) for p in changed["corpus"]["paths"]]
    if files:
        files(tmp_path)
    with pytest.raises(error, match=message):
        quiet_run(check_recipe(changed))
    assert not (tmp_path / "runs" / "tiny" / "dataset").exists()


def test_bad_rows_are_quarantined_and_counted(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    with (tmp_path / "pool-b.jsonl").open("ab") as file:
        file.write(b'{"id": "bad-1", "text": "caf\xe9"}\n{"id": "bad-2"}\n[1]\n{"id": "bad-3", "text": ""}\n')
    result = quiet_run(check_recipe(settings), until="annotate")
    corpus = read_json(result.folder / "corpus" / "manifest.json")
    reasons: dict[str, int] = {}
    for count in corpus["counts"]:
        for reason, number in count["quarantined"].items():
            reasons[reason] = reasons.get(reason, 0) + number
    assert reasons == {"invalid_utf8": 1, "missing_text": 1, "not_an_object": 1, "empty_text": 1}
    assert sum(c["documents"] for c in corpus["counts"]) == 360


def test_a_constant_criterion_is_a_warning_not_a_stop(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    rewrite(tmp_path, lambda row: {**row, "length_score": 1.0})
    result = quiet_run(check_recipe(settings), until="annotate")
    warnings = read_json(result.folder / "stages" / "annotate.json")["warnings"]
    assert any("length" in w and "constant" in w for w in warnings)


def test_target_passages_in_the_pool_are_a_warning(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    copied = demo_rows("pool.jsonl.zst", 3)[2]["text"][:1200]
    rows = demo_rows("target_arc_easy.jsonl.zst", 10)
    write_rows(tmp_path / "target.jsonl", [*rows, {**rows[0], "query": copied}])
    result = quiet_run(check_recipe(settings), until="annotate")
    warnings = read_json(result.folder / "stages" / "annotate.json")["warnings"]
    assert any(w.startswith("target 'arc': 1 of 360 pool documents") for w in warnings)


@pytest.mark.parametrize(
    "change",
    [
        {"budget": {"share": 0.05, "method": "thin"}},
        {"mixing": {"repetition_cap": 1.5, "max_share": {"reference": 0.3}}},
        {
            "mixing": {"rank_mode": "paper", "normaliser": "zscore"},
            "prior": {"steepness": "linear", "sparse": 0.5},
        },
        {
            "materialise": {"format": "jsonl.zst"},
            "annotate__missing": "drop",
            "search": {"candidates": 200, "surrogate": "gp"},
        },
    ],
)  # fmt: skip
def test_other_ways_of_the_method_run_to_a_verified_dataset(tmp_path: Path, change: dict[str, Any]) -> None:
    result = quiet_run(tiny_recipe(tmp_path, **change), until="materialise")
    assert all(check.ok for check in verify_run(str(result.folder)).checks)
    assert result.manifest is not None
    caps = change.get("mixing", {})
    if "max_share" in caps:
        of = {d.domain: d.expected_tokens for d in result.manifest.domains}
        assert of["reference"] / sum(of.values()) <= 0.3 + 1e-6
        assert read_selection(result.folder).expected.max() <= 1.5 + 1e-9


def test_a_multiplier_counts_once_however_often_a_theta_is_fitted(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, mixing={"multipliers": {"reference": 2.0}})
    with open_run(recipe, Progress(quiet=True)) as job:
        corpus = stages.open_pool(job)
        mix = stages.prepare_mixing(job, stages.annotate(job, corpus, stages.read_targets(job)))
    once = mix.whole.calibrate(prior_mean(mix.prior))
    again = mix.whole.calibrate(mix.whole.calibrate(once))
    np.testing.assert_allclose(again.cutoff, once.cutoff, rtol=1e-8)
    favoured = mix.whole.table.domains.index("reference")
    others = np.delete(once.cutoff, favoured)
    np.testing.assert_allclose(once.cutoff[favoured], 2 * others, rtol=1e-9)


def test_models_that_repeat_more_than_the_final_run_are_a_warning(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, budget={"tokens": 6000})
    with open_run(recipe, Progress(quiet=True)) as job:
        corpus, targets = stages.open_pool(job), stages.read_targets(job)
        mix = stages.prepare_mixing(job, stages.annotate(job, corpus, targets))
        stages.tokenise(job, corpus, mix, targets)
    warnings = read_json(tmp_path / "runs" / "tiny" / "stages" / "pool.json")["warnings"]
    assert any("proxy.training.tokens is 8,192, the final training 6,000" in w for w in warnings)
