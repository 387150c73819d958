"""`quadmix diff --html`, `quadmix report --watch` and `--sink`: what is written, said and refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
import yaml
from report.report_fixture import make_run
from tiny_run import tiny_settings
from typer.testing import CliRunner, Result

from quadmix.cli.main import app, main
from quadmix.errors import QuadmixError
from quadmix.io.atomic import read_json, write_json

runner = CliRunner()


def quadmix(*words: object) -> Result:
    return runner.invoke(app, [str(w) for w in words])


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs over pools of other sizes, with documents of one name in both."""
    return make_run(tmp_path / "a", documents=300), make_run(tmp_path / "b", documents=340)


def test_diff_in_text_writes_no_page(runs: tuple[Path, Path], tmp_path: Path):
    before = sorted(tmp_path.rglob("*"))
    result = quadmix("diff", *runs)
    assert result.exit_code == 0
    assert "Jaccard:" in result.stdout
    assert "page:" not in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_diff_as_a_page_with_figures(runs: tuple[Path, Path], tmp_path: Path):
    page = tmp_path / "out" / "diff.html"
    result = quadmix("diff", *runs, "--html", page, "--sample", 0, "--figures")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == f"page: {page}"
    assert 'id="flow"' in page.read_text(encoding="utf-8")
    assert (page.parent / "figures" / "diff-flow.csv").is_file()
    told = quadmix("diff", *runs, "--html", page, "--sample", 0, "--json")
    numbers = orjson.loads(told.stdout)
    assert numbers["page"] == str(page)
    assert numbers["documents"] == []
    assert sum(f["documents"] for f in numbers["flow"]) == 340


def test_figures_without_a_page_are_a_usage_error(runs: tuple[Path, Path]):
    result = quadmix("diff", *runs, "--figures")
    assert isinstance(result.exception, QuadmixError)
    assert result.exception.exit_code == 2
    assert "expected --html PATH" in str(result.exception)


def test_report_leaves_texts_out_on_request(runs: tuple[Path, Path]):
    page = runs[0] / "report.html"
    assert quadmix("report", runs[0]).stdout.strip() == str(page)
    assert "quick brown fox" in page.read_text(encoding="utf-8")
    quadmix("report", runs[0], "--redact-samples")
    assert "quick brown fox" not in page.read_text(encoding="utf-8")


def test_report_sends_to_a_sink_and_says_so_on_stderr(runs: tuple[Path, Path], tmp_path: Path):
    pytest.importorskip("tensorboardX")
    result = quadmix("report", runs[0], "--sink", f"tensorboard:{tmp_path / 'tb'}", "--offline")
    assert result.exit_code == 0
    assert result.stdout.strip() == str(runs[0] / "report.html")
    assert f"numbers to tensorboard:{tmp_path / 'tb'}" in result.stderr
    assert list((tmp_path / "tb" / "a").glob("events.*"))


@pytest.mark.parametrize("command", ["run", "search", "report"])
def test_a_wrong_sink_is_refused_before_anything_is_done(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(tiny_settings(tmp_path / "in")))
    place = tmp_path if command == "report" else recipe
    monkeypatch.setattr(sys, "argv", ["quadmix", command, str(place), "--sink", "nowhere:x"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "--sink 'nowhere:x' is unknown" in capsys.readouterr().err
    assert not (tmp_path / "in" / "runs").exists()
    assert not (tmp_path / "report.html").exists()


def test_a_search_of_csv_files_has_nothing_to_send(tmp_path: Path):
    file = tmp_path / "ratios.csv"
    file.write_text("run,a,b\n1,0.5,0.5\n")
    result = quadmix("search", "--trials", file, file, "--sink", "tensorboard:x")
    assert isinstance(result.exception, QuadmixError)
    assert "no run folder to send" in str(result.exception)


RELOADS = 'id="reload"'  # the button of a page that is written again


def watching(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "quadmix", "report", str(folder), "--watch", "--every", "0.2", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=os.environ)


def wait_for(page: Path, text: str) -> None:
    deadline = time.monotonic() + 120
    while not (page.is_file() and text in page.read_text(encoding="utf-8")):
        assert time.monotonic() < deadline, f"{text!r} never came"
        time.sleep(0.1)


def test_watch_ends_with_the_run_and_leaves_the_last_page(runs: tuple[Path, Path]):
    folder, page = runs[0], runs[0] / "report.html"
    write_json(folder / "lease.json", {"heartbeat": time.time() + 3600})
    write_json(folder / "progress.json", {"stage": "evaluate", "done": 3, "total": 16, "unit": "models"})
    process = watching(folder, "--redact-samples")
    try:
        wait_for(page, "At work: evaluate, 3 of 16 models")
        assert RELOADS in page.read_text(encoding="utf-8")
        write_json(folder / "stages/report.json", {"stage": "report", "seconds": 1.0})
        (folder / "lease.json").unlink()
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out.strip()) == (0, str(page))
    assert "the run is finished" in err
    text = page.read_text(encoding="utf-8")
    assert RELOADS not in text
    assert "quick brown fox" not in text


def test_ctrl_c_ends_a_watch_and_not_with_an_error(runs: tuple[Path, Path]):
    process = watching(runs[1])
    try:
        wait_for(runs[1] / "report.html", RELOADS)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "stopped watching" in err
    assert RELOADS not in (runs[1] / "report.html").read_text(encoding="utf-8")
    assert read_json(runs[1] / "report.json")["version"] == 1
