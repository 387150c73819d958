"""`quadmix trials` and `quadmix recalibrate` on a run folder: what they print, write and refuse."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from tiny_run import tiny_recipe
from typer.testing import CliRunner

from quadmix.cli.main import app
from quadmix.errors import InputError, LeaseError, QuadmixError
from quadmix.io.atomic import read_json, read_value, write_json
from quadmix.io.lease import lease
from quadmix.materialise.verify import verify_run
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.recalibrate import recalibrate
from quadmix.pipeline.run import run
from quadmix.pipeline.trials import apply_dropped, drop_trials, restore_trials, retry_trials
from quadmix.report.load import load_run
from quadmix.types import Confirmation, Theta, Trial

runner = CliRunner()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe(
        tmp_path_factory.mktemp("trials"), proxy__trials=8, evaluate__enabled=False,
        mixing={"repetition_cap": 6.0},
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quadmix.pipeline.stages.plan_progress", lambda _job: None)  # measures for seconds
        return run(recipe, until="materialise", progress=Progress(quiet=True)).folder


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    """A copy that a test may change, in which prior-0002 failed."""
    copy = shutil.copytree(done, tmp_path / "run")
    file = copy / "trials" / "prior-0002.json"
    write_json(file, replace(read_value(file, Trial), status="failed", reason="it diverged", losses={}))
    return copy


def call(*words: str) -> Any:
    result = runner.invoke(app, [*words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return orjson.loads(result.stdout)


def test_list_shows_every_trial_with_its_losses_and_reason(folder: Path) -> None:
    listed = call("trials", "list", str(folder))
    by_id = {t["trial_id"]: t for t in listed["trials"]}
    assert set(by_id) == {p.stem for p in (folder / "trials").glob("[!.]*.json")}
    assert {t["kind"] for t in listed["trials"]} >= {"prior", "repeat", "confirm"}
    stored = read_json(folder / "trials" / "prior-0000.json")
    assert by_id["prior-0000"]["losses"] == {"arc": stored["losses"]["arc"]["bits_per_byte"]}
    assert (by_id["prior-0002"]["status"], by_id["prior-0002"]["reason"]) == ("failed", "it diverged")
    assert (listed["failed"], listed["dropped"]) == (1, 0)
    text = runner.invoke(app, ["trials", "list", str(folder)], catch_exceptions=False).stdout
    assert "(it diverged)" in text
    assert text.rstrip().endswith("1 failed, 0 dropped")


def test_a_dropped_trial_is_excluded_by_name_and_can_be_restored(folder: Path) -> None:
    file = folder / "trials" / "prior-0003.json"
    before = file.read_bytes()
    words = ("trials", "drop", str(folder), "prior-0003", "prior-0004", "--why", "bad disk")
    assert call(*words) == {"dropped": ["prior-0003", "prior-0004"]}
    assert file.read_bytes() == before
    trials = [read_value(folder / "trials" / f"prior-000{i}.json", Trial) for i in (1, 3)]
    marked = apply_dropped(folder, trials)
    assert [(t.status, t.reason) for t in marked] == [("done", ""), ("failed", "dropped: bad disk")]
    shown = {t.trial_id: t.reason for t in load_run(folder).trials if t.status == "failed"}
    assert shown == {"prior-0002": "it diverged", "prior-0003": "dropped: bad disk",
                     "prior-0004": "dropped: bad disk"}  # fmt: skip
    assert call("trials", "list", str(folder))["dropped"] == 2
    assert verify_run(folder).stray == ()
    words = ["trials", "restore", str(folder), "prior-0003"]
    text = runner.invoke(app, words, catch_exceptions=False).stdout
    assert text.startswith("still dropped: prior-0004\n")
    assert "dataset holds the dataset of the present one: move it away" in text
    assert [t.status for t in apply_dropped(folder, trials)] == ["done", "done"]


def test_retry_removes_failed_records_and_no_good_ones(folder: Path) -> None:
    with pytest.raises(InputError, match=r"'prior-0000' did not fail; to train it again .* --force"):
        retry_trials(folder, ["prior-0000", "prior-0002"])
    assert (folder / "trials" / "prior-0002.json").exists()
    assert call("trials", "retry", str(folder), "--failed") == {"removed": ["prior-0002"]}
    assert not (folder / "trials" / "prior-0002.json").exists()
    assert call("trials", "retry", str(folder), "--failed") == {"removed": []}
    assert call("trials", "retry", str(folder), "prior-0000", "--force") == {"removed": ["prior-0000"]}
    drop_trials(folder, ["prior-0001"], "odd")
    with pytest.raises(InputError, match="prior-0001' did not fail; it is dropped: to have it back, restore"):
        retry_trials(folder, ["prior-0001"])


def test_unknown_ids_are_refused_with_the_nearest(folder: Path) -> None:
    for change in (
        lambda: drop_trials(folder, ["prior-003"], "odd"),
        lambda: restore_trials(folder, ["prior-003"]),
        lambda: retry_trials(folder, ["prior-003"]),
    ):
        with pytest.raises(
            InputError, match=r"trial 'prior-003' is not in .*trials; did you mean prior-0003"
        ):
            change()
    assert not (folder / "trials" / "dropped.json").exists()
    with pytest.raises(InputError, match=r"'prior-0001' is not dropped, .* dropped: none"):
        restore_trials(folder, ["prior-0001"])
    with pytest.raises(InputError, match="--why is empty"):
        drop_trials(folder, ["prior-0001"], " ")
    with pytest.raises(InputError, match="no trial is named; expected ids, or --failed"):
        retry_trials(folder)


def test_no_run_folder_and_a_folder_in_use_are_refused(folder: Path, tmp_path: Path) -> None:
    for words in (["list"], ["drop", "prior-0000", "--why", "odd"], ["restore", "prior-0000"]):
        result = runner.invoke(app, ["trials", words[0], str(tmp_path / "none"), *words[1:]])
        assert isinstance(result.exception, InputError)
        assert "is no run folder" in str(result.exception)
    with lease(folder), pytest.raises(LeaseError, match="is in use"):
        drop_trials(folder, ["prior-0000"], "odd")
    assert not (folder / "trials" / "dropped.json").exists()


def test_recalibrating_to_the_runs_own_budget_changes_nothing(folder: Path) -> None:
    facts = read_json(folder / "stages" / "mixing.json")["facts"]
    same = recalibrate(folder, facts["budget"])
    stored, fitted = (read_value(f, Theta) for f in (folder / "theta.json", Path(same.file)))
    assert fitted.cutoff == pytest.approx(stored.cutoff, rel=1e-12)
    manifest = read_json(folder / "dataset" / "manifest.json")
    assert [d.after.tokens for d in same.domains] == [d["tokens_out"] for d in manifest["domains"]]
    assert all(d.before == d.after for d in same.domains)


def test_recalibrate_meets_another_budget_and_says_what_is_not_known(folder: Path) -> None:
    facts = read_json(folder / "stages" / "mixing.json")["facts"]
    tokens = 2 * facts["budget"]
    answer = call("recalibrate", str(folder), "--tokens", str(tokens), "--train-tokens", str(5 * tokens))
    got = sum(d["after"]["tokens"] for d in answer["domains"])
    longest = 3_000 * len(answer["domains"])
    assert abs(got - tokens) < longest
    assert sum(d["after"]["share"] for d in answer["domains"]) == pytest.approx(1)
    assert Path(answer["file"]).name == f"theta-{tokens}.json"
    theta = read_value(answer["file"], Theta)
    # the recipe's cap of 6 per document over 5 epochs: at most 1.2 expected copies
    assert (theta.scale * (2.0**theta.exponent + theta.floor)).max() <= 1.2 + 1e-9
    said = " ".join(answer["warnings"])
    assert "more than 4 times in" in said
    assert f"is not confirmed at {tokens:,}" in said
    text = runner.invoke(app, ["recalibrate", str(folder), "--tokens", str(tokens)], catch_exceptions=False)
    assert "epochs" in text.stdout
    assert "warning: the proxies were measured at a budget of" in text.stdout


def test_recalibrate_warns_where_every_document_is_in(folder: Path) -> None:
    tokens = read_json(folder / "stages" / "mixing.json")["facts"]["tokens"]
    file = folder / "search" / "confirm.json"
    found = read_value(file, Confirmation)  # the winner of a tiny run may leave domains out altogether
    theta = replace(found.theta, cutoff=np.maximum(found.theta.cutoff, 0.1))
    write_json(file, replace(found, theta=theta))
    said = " ".join(recalibrate(folder, tokens - 100).warnings)
    assert "the cutoff is 1 in " in said


def test_recalibrate_refuses_what_cannot_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(QuadmixError, match=r"budget\.tokens is 99,999,999, but the pool holds"):
        recalibrate(folder, 99_999_999)
    with pytest.raises(QuadmixError, match="less than one average document for each"):
        recalibrate(folder, 10)
    with pytest.raises(InputError, match="is no run folder"):
        recalibrate(tmp_path / "none", 1000)
    (folder / "theta.json").unlink()
    (folder / "search" / "confirm.json").unlink()
    with pytest.raises(InputError, match=r"has no θ\* yet"):
        recalibrate(folder, 50_000)
    assert not list(folder.glob("theta-*.json"))
