"""`quadmix mubench evaluate`, `tasks` and `targets` from the command line."""

from pathlib import Path

import orjson
import pytest
import typer
from engine_world import standin, tiny_model
from scipy.stats import binomtest
from typer.testing import CliRunner, Result

from quadmix.cli.mubench_evaluate import evaluate, targets, tasks
from quadmix.cli.mubench_lines import wilson

app = typer.Typer()
for command in (evaluate, targets, tasks):
    app.command()(command)


def call(*words: object, catch: bool = False) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=catch)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cli")
    tiny_model(standin(home / "data"), home / "model")
    return home


def test_evaluate_prints_a_table_per_task_and_goes_on(world: Path) -> None:
    words = ("evaluate", world / "model", world / "data", "--out", world / "r", "--split", "test")
    said = call(*words, "--tasks", "arc_easy,mnli", "--languages", "qaa,qad", "--limit", 6, "--device", "cpu")
    assert said.exit_code == 0, said.output
    assert "arc_easy (lighteval, acc, split test): 6 items" in said.stdout
    assert "mnli (lighteval, acc_cal, split test): 6 items" in said.stdout
    assert "mean over tasks, families and abilities" in said.stdout
    assert said.stdout.splitlines()[-1] == f"predictions: {world / 'r' / 'predictions.parquet'}"
    again = call(*words, "--task", "arc_easy", "--task", "mnli", "--language", "qaa", "--language", "qad",
                 "--limit", 6, "--json")  # fmt: skip
    found = orjson.loads(again.stdout)
    assert all(cell["kept"] for task in found["tasks"] for cell in task["cells"])
    assert {s["language"] for s in found["scores"]} == {"qaa", "qad"}


def test_letters_have_no_loss_columns(world: Path) -> None:
    said = call("evaluate", world / "model", world / "data", "--out", world / "letters", "--mode",
                "local_template", "--task", "arc_easy", "--language", "qaa", "--split", "test")  # fmt: skip
    row = next(line for line in said.stdout.splitlines() if line.startswith("  qaa"))
    assert row.split()[-2:] == ["-", "-"]


def test_tasks_names_its_groups(world: Path) -> None:
    said = call("tasks", world / "data", "--out", world / "tasks", "--task", "arc_easy", "--split", "test")
    assert said.exit_code == 0, said.output
    assert "4 tasks of 48 items" in said.stdout
    assert "  mubench_small  (4)" in said.stdout
    assert (world / "tasks" / "_mubench_small.yaml").is_file()
    assert "passed on" not in said.stdout
    said = call("tasks", world / "data", "--out", world / "tasks", "--task", "gpqa", "--split", "test")
    assert "gpqa: its rows may not be passed on freely: its authors ask not" in said.stdout


def test_targets_takes_weights_and_native_text(world: Path) -> None:
    (world / "own.jsonl").write_text('{"body": "some text"}\n')
    said = call("targets", world / "data", "--out", world / "targets", "--task", "arc_easy", "--weight",
                "qaa=3", "--native", f"qaa={world / 'own.jsonl'}:body")  # fmt: skip
    assert said.exit_code == 0, said.output
    assert "qaa-native: 1 rows, weight 1.5" in said.stdout
    assert said.stdout.splitlines()[-1].endswith("targets.yaml")
    for option, value in (("--weight", "qaa"), ("--weight", "qaa=-1"), ("--native", "qaa")):
        bad = call("targets", world / "data", "--out", world / "x", "--task", "arc_easy", option, value)
        assert bad.exit_code == 2


def test_the_interval_of_a_share_is_wilsons() -> None:
    for right, n in ((0, 12), (3, 12), (12, 12), (487, 1000)):
        own = binomtest(right, n).proportion_ci(0.95, method="wilson")
        assert wilson(right / n, n) == pytest.approx((own.low, own.high), abs=1e-9)
