"""Commands: exit codes, JSON on stdout, messages on stderr, help that teaches."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import yaml
from tiny_run import demo_rows, tiny_recipe, tiny_settings, write_rows
from typer.testing import CliRunner

from quadmix.cli.main import app
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.run import RunResult, run
from quadmix.recipe import json_schema, load_recipe

runner = CliRunner()


def quadmix(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quadmix", *words], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("cli")
    return run(tiny_recipe(folder), until="materialise", progress=Progress(quiet=True))


def test_a_recipe_error_exits_with_two_and_one_message_on_stderr(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({**tiny_settings(tmp_path), "corpos": {}}))
    result = quadmix("plan", str(file))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("quadmix: ")
    assert "did you mean 'corpus'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_input_exits_with_one(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(tiny_settings(tmp_path, corpus__paths=[str(tmp_path / "none")])))
    result = quadmix("run", str(file), "--quiet")
    assert result.returncode == 1
    assert "none" in result.stderr
    assert "Traceback" not in result.stderr


def test_too_many_bad_rows_exit_with_three(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path, corpus__quarantine_rows=5, corpus__quarantine_share=0.01)
    with (tmp_path / "pool-a.jsonl").open("ab") as out:
        out.write(b"{broken\n" * 40)
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(settings))
    result = quadmix("annotate", str(file), "--quiet")
    assert result.returncode == 3
    assert "invalid_json" in result.stderr


def test_an_unknown_option_exits_with_two() -> None:
    assert quadmix("run", "--wrong").returncode == 2


def test_help_names_every_command_and_the_exit_codes() -> None:
    text = runner.invoke(app, ["--help"]).stdout
    for name in ("demo", "init", "doctor", "plan", "run", "annotate", "search", "materialise", "evaluate"):
        assert name in text
    for name in ("report", "explain", "verify", "diff", "schema", "Exit codes"):
        assert name in text


def test_init_writes_a_recipe_that_loads(tmp_path: Path) -> None:
    rows = [
        {**r, "quality": i / 7, "perplexity": 9.0 - i % 5}
        for i, r in enumerate(demo_rows("pool.jsonl.zst", 200))
    ]
    write_rows(tmp_path / "docs.jsonl", rows)
    write_rows(tmp_path / "arc.jsonl", demo_rows("target_arc_easy.jsonl.zst", 20))
    out = tmp_path / "recipe.yaml"
    words = ["init", str(tmp_path / "docs.jsonl"), "--target", str(tmp_path / "arc.jsonl"), "--out", str(out)]
    result = runner.invoke(app, words, catch_exceptions=False)
    assert "domain    domain_hint" in result.stdout
    recipe = load_recipe(str(out))
    found = {c.name: c.direction for c in recipe.annotate.criteria if c.kind == "column"}
    assert found == {"quality": "higher", "perplexity": "lower"}
    assert (recipe.targets[0].choices, recipe.targets[0].split) == ("choices", "train")
    again = quadmix(*words)
    assert again.returncode == 2
    assert "exists; choose another name" in again.stderr


def test_plan_prints_json(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(tiny_settings(tmp_path)))
    result = runner.invoke(app, ["plan", str(file), "--json"], catch_exceptions=False)
    plan = orjson.loads(result.stdout)
    assert plan["models"]["swarm"] == 14
    assert {s["stage"] for s in plan["stages"]} >= {"annotate", "swarm", "evaluate"}


def test_verify_explain_diff_and_report_work_on_a_run_folder(done: RunResult, tmp_path: Path) -> None:
    folder = str(done.folder)
    verify = runner.invoke(app, ["verify", folder, "--json"], catch_exceptions=False)
    assert verify.exit_code == 0
    assert all(c["ok"] for c in orjson.loads(verify.stdout)["checks"])
    some = demo_rows("pool.jsonl.zst", 1)[0]["id"]
    text = runner.invoke(app, ["explain", folder, some], catch_exceptions=False).stdout
    assert "copies:" in text or "excluded:" in text
    same = runner.invoke(app, ["diff", folder, folder], catch_exceptions=False)
    assert same.exit_code == 0
    page = runner.invoke(app, ["report", folder, "--json"], catch_exceptions=False)
    assert Path(orjson.loads(page.stdout)["report"]).is_file()
    unknown = quadmix("explain", folder, some + "x")
    assert unknown.returncode == 1
    assert some in unknown.stderr  # the nearest id


def test_doctor_and_schema(tmp_path: Path) -> None:
    facts = orjson.loads(runner.invoke(app, ["doctor", "--json"], catch_exceptions=False).stdout)
    assert facts["torch"].startswith("2.")
    assert runner.invoke(app, ["schema"]).stdout == json_schema()
