"""The progress display: counts, an ETA from planned costs corrected by the measured pace, progress.json."""

import io
import time
from pathlib import Path

import pytest

from quadmix.io.atomic import read_json
from quadmix.pipeline.progress import Progress


def test_the_eta_follows_the_pace_and_counts_every_stage_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = io.StringIO()
    progress = Progress({"a": 10.0, "b": 30.0}, out=out)
    with progress.stage("a", 4, "models") as step:
        now[0] += 10
        step.advance(2)
        assert progress.eta(step) == pytest.approx(70)  # 5 of 40 planned seconds took 10
        step.partly(1)
        assert step.fraction == 0.75
        now[0] += 10
        step.advance(2)
        assert progress.eta(step) == pytest.approx(60)
    with progress.stage("b", 2, "models") as step:
        assert progress.eta(step) == pytest.approx(60)
    assert "a: 4/4 models (100%), 0:20 elapsed, about 1:00 left in all" in out.getvalue()


def test_progress_json_can_be_polled(tmp_path: Path) -> None:
    progress = Progress({"a": 1.0}, quiet=True)
    progress.attach(tmp_path)
    with progress.stage("a", 2, "pieces") as step:
        step.advance(2)
    facts = read_json(tmp_path / "progress.json")
    assert (facts["stage"], facts["done"], facts["total"], facts["unit"]) == ("a", 2, 2, "pieces")
