"""The judge and the API translator from the command line, against a real server on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from judge_world import Server, running
from parallel_world import make_world, write_settings
from typer.testing import CliRunner, Result

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


def test_the_plan_weighs_the_raters_as_the_pairs_do(tmp_path: Path, corpus: Path, server: Server):
    """After the judge has answered all it is asked about, the plan for the same settings asks nothing."""
    words = [*judge(server, "first-weighed"), "pairs.weights={edu: 3}", "run.allow_http=private"]
    made = invoke(tmp_path, corpus, *words)
    assert made.exit_code == 0, made.output
    found = json.loads(invoke(tmp_path, corpus, *words, plan=True).stdout)["judge"]
    assert (found["pairs"], found["estimate"]["pairs"]) == (10, 0)


def test_a_translator_that_refuses_the_key_ends_at_once_and_the_budget_outlives_the_call(
    tmp_path: Path, corpus: Path, server: Server
):
    def settings(mode: str) -> list[str]:
        made = f"{{kind: api, endpoint: '{server.address(mode)}', model: tiny, max_requests: 3, parallel: 1}}"
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


def translator(server: Server, mode: str, more: str) -> list[str]:
    made = f"{{kind: api, endpoint: '{server.address(mode)}', model: tiny, {more}}}"
    return [f"transfer.translator={made}", "run.allow_http=private"]


def invoke(folder: Path, corpus: Path, *overrides: str, plan: bool = False) -> Result:
    path = folder / "rater.yaml" if (folder / "rater.yaml").exists() else write_settings(folder, corpus)
    words = [w for o in ("pairs.count=30", "pairs.holdout=0.3", *overrides) for w in ("--set", o)]
    more = ["--plan", "--json"] if plan else []
    return CliRunner().invoke(app, ["rater", "pairs", str(path), *more, *words])


def test_translations_are_planned_without_a_judge_and_then_cost_what_was_said(
    tmp_path: Path, corpus: Path, server: Server
):
    mode = "translate-plan"
    more = "price_in: 2, price_out: 10, max_requests: 20"
    settings = [*translator(server, mode, more), "transfer.languages=[de, fr]"]
    done = invoke(tmp_path, corpus, *settings, plan=True)
    assert done.exit_code == 0, done.output
    assert server.count(mode) == 0
    assert json.loads(done.stdout)["judge"] is None
    found = json.loads(done.stdout)["translator"]
    said = found["estimate"]
    assert said["left"] == 20 < said["requests"] == found["wanted"]
    assert said["cost"] == pytest.approx((2 * said["tokens_in"] + 10 * said["tokens_out"]) / 1e6)
    lines = invoke(tmp_path, corpus, *settings, plan=True).output
    assert json.loads(lines) == json.loads(done.stdout)
    made = invoke(tmp_path, corpus, *settings[1:], *translator(server, mode, "max_requests: 9000"))
    assert made.exit_code == 0, made.output
    assert server.count(mode) == said["requests"]
    # the server counts every request by itself, rounded down
    spent = server.count(mode, "tokens")
    assert 0 <= said["tokens_in"] + said["tokens_out"] - spent <= 2 * said["requests"] + 1
    again = json.loads(invoke(tmp_path, corpus, *settings, plan=True).stdout)["translator"]
    assert (again["estimate"]["requests"], again["estimate"]["left"]) == (0, 0)
    assert again["wanted"] == found["wanted"]


def test_the_translator_stops_at_its_budget_and_what_was_paid_is_not_paid_again(
    tmp_path: Path, corpus: Path, server: Server
):
    mode = "translate-budget"
    for most, sent in ((7, 7), (7, 7), (9, 9)):
        done = invoke(tmp_path, corpus, *translator(server, mode, f"max_requests: {most}, parallel: 3"),
                      "transfer.languages=[de]")  # fmt: skip
        assert f"max_requests, {most}, is used up" in str(done.exception)
        assert server.count(mode) == sent
        parts = (tmp_path / "raters/small/translations").glob("translations-*.jsonl")
        assert sum(len(p.read_text("utf-8").splitlines()) for p in parts) == sent, "every answer is kept"
    done = invoke(tmp_path, corpus, *translator(server, mode, "max_requests: 999"), "transfer.languages=[de]")
    assert done.exit_code == 0, done.output
    once = server.count(mode)
    done = invoke(tmp_path, corpus, *translator(server, mode, "max_requests: 999"),
                  "transfer.languages=[de, fr]")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert server.count(mode) == 2 * once, "one more language, and none of the old ones again"


def test_a_judge_of_translations_is_planned_before_they_are_made_and_after(
    tmp_path: Path, corpus: Path, server: Server
):
    settings = [*translator(server, "translate-m", "max_requests: 999"), "transfer.languages=[xa]",
                "transfer.direction=M", *judge(server, "first-m")]  # fmt: skip
    before = json.loads(invoke(tmp_path, corpus, *settings, plan=True).stdout)
    assert server.count("translate-m") == server.count("first-m") == 0
    assert (
        before["judge"]["stand_ins"] == before["judge"]["pairs"] == before["judge"]["estimate"]["pairs"] == 10
    )
    done = invoke(tmp_path, corpus, *settings)
    assert done.exit_code == 0, done.output
    assert server.count("translate-m") == before["translator"]["estimate"]["requests"]
    after = json.loads(invoke(tmp_path, corpus, *settings, plan=True).stdout)
    assert after["translator"]["estimate"]["requests"] == 0
    assert (after["judge"]["stand_ins"], after["judge"]["estimate"]["pairs"]) == (0, 0)
    assert after["judge"]["pairs"] == 10


def test_without_judge_or_paid_translator_the_plan_says_that_nothing_is_paid(tmp_path: Path, corpus: Path):
    done = CliRunner().invoke(app, ["rater", "pairs", str(write_settings(tmp_path, corpus)), "--plan"])
    assert done.exit_code == 0, done.output
    assert "nothing would be paid for" in done.output
