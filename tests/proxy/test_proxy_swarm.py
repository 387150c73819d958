"""The swarm: trials on disk, resume, worker count, crashes of torch."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from proxy_world import make_job, make_setting, some_copies

from quadmix.codec import to_json
from quadmix.engine.tasks import Place
from quadmix.errors import InputError
from quadmix.io.atomic import read_json
from quadmix.proxy import group as group_room
from quadmix.proxy import train as train_room
from quadmix.proxy.heartbeat import beating, watching
from quadmix.proxy.setting import ProxyJob, ProxySetting
from quadmix.proxy.swarm import run_swarm
from quadmix.types import Trial

SERIAL = Place("serial")


def jobs_of(count: int) -> list[ProxyJob]:
    return [make_job(f"t{i}", some_copies(i), seed=i % 2) for i in range(count)]


def without_time(trials: Sequence[Trial]) -> list[object]:
    return [{k: v for k, v in to_json(t).items() if k != "seconds"} for t in trials]


def test_workers_and_executor_change_nothing(tmp_path: Path) -> None:
    """Two processes, one process and no process give the same trials, returned and on disk, in job order."""
    setting, jobs = make_setting(tmp_path), jobs_of(5)
    results = {}
    for name, executor, workers in (("none", "serial", 1), ("two", "processes", 2)):
        folder = tmp_path / name
        trials = run_swarm(jobs, setting, folder=folder, group=2, place=Place(executor, workers))
        assert [t.trial_id for t in trials] == [j.trial_id for j in jobs]
        stored = [read_json(folder / f"{j.trial_id}.json") for j in jobs]
        assert stored == [to_json(t) for t in trials]
        results[name] = without_time(trials)
    assert results["none"] == results["two"]


def test_resume_trains_only_incomplete_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole groups are read back; a group that misses one trial is trained again to the same losses."""
    setting, jobs = make_setting(tmp_path), jobs_of(5)
    seen: list[str] = []
    first = run_swarm(jobs, setting, folder=tmp_path / "trials", group=2, place=SERIAL)
    (tmp_path / "trials" / "t3.json").unlink()
    trained: list[str] = []
    real = group_room.train_group

    def counting(part: Sequence[ProxyJob], setting: ProxySetting, tell: Any, **keys: Any) -> list[Trial]:
        trained.extend(j.trial_id for j in part)
        return real(part, setting, tell, **keys)

    monkeypatch.setattr(group_room, "train_group", counting)
    again = run_swarm(
        jobs,
        setting,
        folder=tmp_path / "trials",
        group=2,
        place=SERIAL,
        on_trial=lambda t: seen.append(t.trial_id),
    )
    assert trained == ["t2", "t3"]
    assert sorted(seen) == ["t0", "t1", "t2", "t3", "t4"]
    assert without_time(again) == without_time(first)


OUT_OF_MEMORY = [
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cpu", "cuda", "python"])
def test_a_group_that_does_not_fit_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """More than two models run out of memory: the eight are trained two by two, to the same losses."""
    setting, jobs = make_setting(tmp_path), jobs_of(8)
    whole = run_swarm(jobs, setting, folder=tmp_path / "whole", group=8, place=SERIAL)
    assert {t.group for t in whole} == {8}
    real, tried = train_room.start, []

    def small(setting: ProxySetting, seeds: Sequence[int], device: torch.device) -> train_room.TrainState:
        tried.append(len(seeds))
        if len(seeds) > 2:
            raise error
        return real(setting, seeds, device)

    monkeypatch.setattr(train_room, "start", small)
    trials = run_swarm(jobs, setting, folder=tmp_path / "trials", group=8, place=SERIAL)
    assert tried == [8, 4, 2, 2, 4, 2, 2]
    assert {t.group for t in trials} == {2}
    for trial, other in zip(trials, whole, strict=True):
        assert trial.status == "done"
        for name, loss in trial.losses.items():
            assert loss.bits_per_byte == pytest.approx(other.losses[name].bits_per_byte, abs=1e-5)


@pytest.mark.parametrize("error", [*OUT_OF_MEMORY, RuntimeError("an operator failed")])
def test_what_cannot_be_trained_is_a_failed_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Where not even one model fits, the trials fail with numbers and remedy; the next group is trained."""
    setting, jobs = make_setting(tmp_path), jobs_of(4)
    real = group_room.train_group

    def broken(part: Sequence[ProxyJob], setting: ProxySetting, tell: Any, **keys: Any) -> list[Trial]:
        if part[0].trial_id in ("t0", "t1"):
            raise error
        return real(part, setting, tell, **keys)

    monkeypatch.setattr(group_room, "train_group", broken)
    trials = run_swarm(jobs, setting, folder=tmp_path / "trials", group=2, place=SERIAL)
    assert [t.status for t in trials] == ["failed", "failed", "done", "done"]
    assert type(error).__name__ in trials[0].reason
    remedy = re.search(r"one model needs about 0.0\d GB, [\d.]+ GB are free: use fewer", trials[0].reason)
    assert (remedy is not None) == (error in OUT_OF_MEMORY)
    assert read_json(tmp_path / "trials" / "t1.json")["status"] == "failed"


def test_two_jobs_of_one_name_are_refused(tmp_path: Path) -> None:
    """A trial id names a file, so it must be used once."""
    with pytest.raises(InputError, match="'t0' is used by two jobs"):
        run_swarm([*jobs_of(1), *jobs_of(1)], make_setting(tmp_path), folder=tmp_path, group=2)


def test_the_share_of_groups_in_training_is_told_while_they_train(tmp_path: Path) -> None:
    """Half of a group of four is two models; no heartbeat file is left."""
    heard: list[float] = []
    with watching(tmp_path, {"a": 4, "b": 2}, heard.append), beating(tmp_path, "a") as tell:
        tell(0.5)
        while not heard:
            time.sleep(0.05)
    assert heard[0] == 2.0
    assert list(tmp_path.iterdir()) == []


def test_a_trial_of_another_job_is_trained_again(tmp_path: Path) -> None:
    """Same names, other copies: what lies on disk is not taken for the new job's result."""
    setting = make_setting(tmp_path)
    one, two = make_job("t0", some_copies(0), seed=1), make_job("t0", some_copies(5), seed=1)
    first = run_swarm([one], setting, folder=tmp_path / "trials", group=2, place=SERIAL)[0]
    other = run_swarm([two], setting, folder=tmp_path / "trials", group=2, place=SERIAL)[0]
    assert other.job != first.job
    assert other.losses != first.losses
    assert without_time(run_swarm([one], setting, folder=tmp_path / "trials", group=2, place=SERIAL)) == (
        without_time([first])
    )


def test_a_failure_of_the_environment_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed for want of memory is no result: the same command trains it."""
    setting, jobs = make_setting(tmp_path), jobs_of(2)

    def broken(part: Sequence[ProxyJob], setting: ProxySetting, tell: Any, **keys: Any) -> list[Trial]:
        raise MemoryError("for now")

    with monkeypatch.context() as patch:
        patch.setattr(group_room, "train_group", broken)
        failed = run_swarm(jobs, setting, folder=tmp_path / "trials", group=2, place=SERIAL)
    assert [t.status for t in failed] == ["failed", "failed"]
    again = run_swarm(jobs, setting, folder=tmp_path / "trials", group=2, place=SERIAL)
    assert [t.status for t in again] == ["done", "done"]
