"""The progress display: counts, plain lines, progress.json, and that counting costs next to nothing."""

import io
import itertools
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quadmix.io.atomic import read_json, write_json
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.stages import count_result


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock; its only entry are the seconds."""
    at = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: at[0])
    return at


def test_a_log_has_lines_with_counts_rates_and_time_left(now: list[float]) -> None:
    out = io.StringIO()
    progress = Progress({"a": 100.0, "b": 300.0}, out=out)
    with progress.stage("a", 10, "models", trains=1000) as step:
        for _ in range(6):
            now[0] += 20
            step.advance()
            progress.tick()
        step.retry(2)
        now[0] += 20
        step.advance(failed=True)
        progress.tick()
        now[0] += 60
        step.advance(3)
    lines = out.getvalue().splitlines()
    assert lines[0] == "a: 0/10 models (0%), 0:00 elapsed"
    assert lines[1] == "a: 1/10 models (10%), 0:20 elapsed, 50 tokens/s, about 3:00 left of this"
    assert (
        "a: 7/10 models (70%), 2:20 elapsed, 50 tokens/s, 1 failed, 2 retried, about 1:00 left of" in lines[7]
    )
    assert lines[8].startswith("a: 10/10 models (100%), 3:20 elapsed, 50 tokens/s, 1 failed, 2 retried")
    left = [text.rpartition("about ")[2] for text in lines[2:8]]
    assert all(text.endswith(" left in all") for text in left)
    # 160 s of this, and 300 planned ones at 1.71 times: 20 took 40, and 8 by which the plan is trusted
    assert left[0] == "11:14 left in all"
    assert len(lines) == 9


def test_a_log_is_not_flooded(now: list[float]) -> None:
    out = io.StringIO()
    progress = Progress({"a": 1.0}, out=out)
    with progress.stage("a", 3600, "pieces") as step:
        for _ in range(3600):
            now[0] += 1
            step.advance()
            progress.tick()
    assert 60 < len(out.getvalue().splitlines()) < 250
    out.truncate(0)
    with progress.stage("silent", 1, "proposal"):
        for _ in range(3600):
            now[0] += 1
            progress.tick()
    assert 50 < len(out.getvalue().splitlines()) < 63  # alive, once a minute


def test_units_in_work_count_for_the_share_but_not_as_done(now: list[float]) -> None:
    with Progress({"a": 1.0}, quiet=True).stage("a", 4, "models") as step:
        step.advance()
        step.partly(1.5)
        assert (step.done, step.fraction) == (1, 0.625)
        step.advance()
        assert (step.done, step.fraction) == (2, 0.625)  # what was half done and the rest of it


def test_progress_json_says_all_that_a_poller_needs(tmp_path: Path, now: list[float]) -> None:
    progress = Progress(quiet=True)
    progress.expect(["corpus", "swarm", "evaluate"], reused=["corpus"])
    progress.plan({"corpus": 10.0, "swarm": 100.0, "evaluate": 50.0, "materialise": 70.0})
    with progress.recording(tmp_path):
        assert read_json(tmp_path / "progress.json")["stages"][0]["state"] == "reused"
        with progress.row("corpus"):
            pass
        with progress.row("swarm"), progress.stage("swarm 2", 20, "models", trains=500) as step:
            step.load(4)
            step.load(failed=True)
            for _ in range(10):
                now[0] += 7
                step.advance(failed=False)
                progress.tick()
            step.retry(4)
            now[0] += 2
            progress.tick()
            facts = read_json(tmp_path / "progress.json")
    assert (facts["version"], facts["state"], facts["error"]) == (1, "running", "")
    assert (facts["pid"], facts["stage"]) == (os.getpid(), "swarm 2")
    assert (facts["done"], facts["total"], facts["unit"], facts["fraction"]) == (15, 20, "models", 0.75)
    assert facts["trials"] == {"done": 14, "failed": 1, "retried": 4, "total": 20}
    assert facts["rates"]["models_per_s"] == pytest.approx(1 / 7, rel=0.01)
    assert facts["rates"]["tokens_per_s"] == pytest.approx(500 / 7, rel=0.01)
    assert facts["stage_eta_s"] == pytest.approx(33, abs=0.5)
    assert facts["started"].endswith("+00:00")
    assert facts["updated"] >= facts["started"]
    assert facts["elapsed_s"] == 72
    assert [(s["name"], s["state"]) for s in facts["stages"]] == [
        ("corpus", "loaded"), ("swarm", "running"), ("evaluate", "waiting"),
    ]  # fmt: skip
    assert facts["stages"][1]["trials"] == facts["trials"]
    assert facts["stages"][1]["seconds"] == 72
    after = read_json(tmp_path / "progress.json")
    assert (after["state"], after["eta_s"], after["stage"]) == ("finished", 0.0, "swarm 2")
    assert after["stages"][1]["state"] == "done"


def test_progress_json_is_written_at_the_end_of_every_stage_and_every_two_seconds_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: list[float]
) -> None:
    written: list[tuple[float, str, int]] = []

    def note(_path: Path, shown: Any) -> None:
        written.append((now[0], shown.stage, shown.done))

    monkeypatch.setattr("quadmix.pipeline.progress.write_json", note)
    progress = Progress({"a": 1.0}, quiet=True)
    progress.attach(tmp_path)
    with progress.stage("a", 40, "pieces") as step:
        for _ in range(40):
            now[0] += 0.25
            step.advance()
            progress.tick()
    inside = [at for at, _, done in written if done < 40]
    assert len(inside) == 5
    assert all(b - a >= 2 for a, b in itertools.pairwise(inside))
    assert written[-1] == (now[0], "a", 40)


@pytest.mark.parametrize(
    ("error", "state", "kind"),
    [(KeyboardInterrupt(), "interrupted", ""), (ValueError("secret"), "failed", "ValueError")],
)
def test_progress_json_says_how_the_run_ended(
    tmp_path: Path, error: BaseException, state: str, kind: str
) -> None:
    progress = Progress({"a": 1.0}, quiet=True)
    with (  # noqa: PT012
        pytest.raises(type(error)),
        progress.recording(tmp_path),
        progress.stage("a", 2, "pieces") as step,
    ):
        step.advance()
        raise error
    facts = read_json(tmp_path / "progress.json")
    assert (facts["state"], facts["error"], facts["done"], facts["eta_s"]) == (state, kind, 1, None)
    assert facts["stages"][0]["state"] == "failed"
    assert "secret" not in str(facts)


def test_a_folder_that_another_process_took_over_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Progress(quiet=True).recording(tmp_path):  # noqa: PT012
        write_json(tmp_path / "progress.json", {"pid": -1, "host": "elsewhere", "state": "running"})
        raise KeyboardInterrupt
    assert read_json(tmp_path / "progress.json")["pid"] == -1


def test_a_reader_never_meets_half_a_file_and_a_silent_step_stays_fresh(tmp_path: Path) -> None:
    progress = Progress({"a": 1.0}, quiet=True)
    with progress.recording(tmp_path), progress.stage("a", 1, "proposal"):
        first = read_json(tmp_path / "progress.json")
        deadline = time.monotonic() + 30
        while read_json(tmp_path / "progress.json")["elapsed_s"] < first["elapsed_s"] + 2:
            assert time.monotonic() < deadline
    assert not list(tmp_path.glob(".tmp-*"))


def test_results_say_what_was_in_them(now: list[float]) -> None:
    with Progress({"a": 1.0}, quiet=True).stage("a", 4, "pieces") as step:
        now[0] += 10
        step.record(now[0])
        count_result(step, SimpleNamespace(documents=30, tokens=500, reused=True))
        now[0] += 10
        count_result(step, SimpleNamespace(documents=30, tokens=500, reused=False))
        count_result(step, SimpleNamespace(rows=20, tokens=100))
        count_result(step, [1, 2])
        assert step.done == 4
        assert step.rates(now[0]) == {"pieces_per_s": 0.3, "documents_per_s": 5.0, "tokens_per_s": 60.0}


def test_counting_costs_microseconds(tmp_path: Path) -> None:
    progress = Progress({"a": 1.0}, out=io.StringIO())
    with progress.recording(tmp_path), progress.stage("a", 100_000, "documents") as step:
        start = time.thread_time()
        for _ in range(100_000):
            step.advance()
        each = (time.thread_time() - start) / 100_000
    assert each < 20e-6


def test_a_closed_terminal_does_not_end_the_run() -> None:
    out = io.StringIO()
    progress = Progress({"a": 1.0}, out=out)
    with progress.stage("a", 2, "pieces") as step:
        out.close()
        step.advance(2)
        progress.note("hello")
        progress.tick()
    assert step.done == 2
