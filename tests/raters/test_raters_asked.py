"""The judge and the API translator from the command line, against a real server on loopback."""

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from judge_world import Server, running
from parallel_world import make_world, write_settings
from typer.testing import CliRunner

from quadmix.cli.main import app


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("asked"), 40)


def pairs(folder: Path, corpus: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run `quadmix rater pairs` in a process of its own: no network but what the settings allow."""
    path = write_settings(folder, corpus)
    words = [w for o in ("pairs.count=30", "pairs.holdout=0.3", *overrides) for w in ("--set", o)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("QUADMIX_")}
    command = [sys.executable, "-m", "quadmix", "rater", "pairs", str(path), *words]
    return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=300)


def judge(server: Server, mode: str) -> list[str]:
    made = f"{{endpoint: '{server.address(mode)}', model: tiny, generations: 1, pairs: 10, timeout: 10}}"
    return [f"judge={made}"]


def test_the_judge_is_asked_only_where_the_settings_allow_the_network(
    tmp_path: Path, corpus: Path, server: Server
):
    refused = pairs(tmp_path, corpus, *judge(server, "first"))
    assert refused.returncode == 1
    assert "allow_http" in refused.stderr
    before = server.count("first")
    done = pairs(tmp_path, corpus, *judge(server, "first"), "run.allow_http=private")
    assert done.returncode == 0, done.stderr
    assert server.count("first") == before + 20, "ten pairs in both orders"
    assert "judge tiny: 10 votes of 10 asked, 0 left by the budget" in done.stdout
    assert "100% for the text shown first" in done.stdout


def test_spending_is_planned_without_asking(tmp_path: Path, corpus: Path, server: Server):
    path = write_settings(tmp_path, corpus)
    words = [
        w for o in ("pairs.count=30", "pairs.holdout=0.3", *judge(server, "second")) for w in ("--set", o)
    ]
    done = CliRunner().invoke(app, ["rater", "pairs", str(path), "--plan", *words])
    assert done.exit_code == 0, done.output
    assert "10 of 10 pairs are not answered yet" in done.output
    assert "20 requests" in done.output
    assert server.count("second") == 0


def test_a_translator_that_refuses_the_key_ends_at_once_and_the_budget_outlives_the_call(
    tmp_path: Path, corpus: Path, server: Server
):
    def settings(mode: str) -> list[str]:
        made = f"{{kind: api, endpoint: '{server.address(mode)}', model: tiny, max_requests: 3}}"
        languages = "transfer.languages=[de]"
        return [f"transfer.translator={made}", languages, "run.allow_http=private"]

    done = pairs(tmp_path, corpus, *settings("auth"))
    assert done.returncode == 1
    assert server.count("auth") == 1
    (tmp_path / "b").mkdir()
    for _ in range(2):
        done = pairs(tmp_path / "b", corpus, *settings("filter"))
        assert "max_requests, 3, is used up" in done.stderr
        assert server.count("filter") == 3, "a restart has no new budget"
