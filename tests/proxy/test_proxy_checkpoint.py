"""A training that was stopped goes on from its checkpoint as if nothing had happened; nothing else does."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from proxy_world import MODEL, PUBLISHED, make_job, make_setting, some_copies
from safetensors.torch import save_file

from quadmix.engine.tasks import Place
from quadmix.proxy import train as room
from quadmix.proxy.model import Weights
from quadmix.proxy.order import TokenStream
from quadmix.proxy.pool import open_pool
from quadmix.proxy.setting import ProxySetting
from quadmix.proxy.swarm import run_swarm
from quadmix.recipe import ModelSection

SERIAL = Place("serial")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are taken from here on."""
    steps: list[int] = []
    real = room.take_step

    def counting(state: room.TrainState, *rest: object) -> None:
        steps.append(state.step)
        real(state, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(room, "take_step", counting)
    return steps


class Stopped(Exception):
    pass


def train(
    setting: ProxySetting, checkpoint: Path | None, *, key: str = "k", models: int = 2, stop: float = 2.0
) -> tuple[Weights, room.Progress]:
    """Train with a checkpoint after every step; `stop` is the share of the steps after which it is killed."""

    def tell(share: float) -> None:
        if share >= stop:
            raise Stopped

    pool = open_pool(setting.pool)
    streams = [TokenStream(pool, some_copies(i), i) for i in range(models)]
    file = str(checkpoint) if checkpoint else None
    return room.train_weights(streams, range(models), setting, tell=tell, checkpoint=file, every=0, key=key)


def assert_same(one: tuple[Weights, room.Progress], two: tuple[Weights, room.Progress]) -> None:
    for name, tensor in one[0].named().items():
        assert torch.equal(tensor, two[0].named()[name]), name
    assert one[1].points == two[1].points
    assert torch.equal(one[1].total, two[1].total)
    assert torch.equal(one[1].alive, two[1].alive)


@pytest.mark.parametrize(
    ("model", "optimizer", "average"),
    [(MODEL, "muon", "none"), (MODEL, "muon", "ema"), (PUBLISHED, "adamw", "last")],
)
def test_a_stopped_training_goes_on_bit_for_bit(
    tmp_path: Path, taken: list[int], model: ModelSection, optimizer: str, average: str
) -> None:
    """Stopped twice, each step is taken once more at most, and weights and curve are those of one go."""
    setting = make_setting(
        tmp_path, model, optimizer=optimizer, average=average, average_share=0.5, tokens=2624
    )
    whole = train(setting, None)
    taken.clear()
    for stop in (0.45, 0.8):
        with pytest.raises(Stopped):
            train(setting, tmp_path / "c", stop=stop)
    again = train(setting, tmp_path / "c")
    assert taken == [*range(19), *range(18, 33), *range(32, 41)]
    assert_same(again, whole)


def test_a_checkpoint_of_something_else_is_ignored(tmp_path: Path, taken: list[int]) -> None:
    """Another key, other shapes, a torn file and other files: training starts anew and ends as without."""
    setting, file = make_setting(tmp_path), tmp_path / "c"
    whole = train(setting, None)
    with pytest.raises(Stopped):
        train(setting, file, stop=0.5)
    good = file.read_bytes()
    save_file({"weights": torch.zeros(3)}, tmp_path / "other")
    for name, content, key, models in (
        ("key", good, "another", 2),
        ("shapes", good, "k", 3),
        ("torn", good[: len(good) // 2], "k", 2),
        ("empty", b"", "k", 2),
        ("foreign", (tmp_path / "other").read_bytes(), "k", 2),
    ):
        file.write_bytes(content)
        taken.clear()
        result = train(setting, file, key=key, models=models)
        assert taken == list(range(10)), name
        if models == 2:
            assert_same(result, whole)


def train_slowly(folder: str) -> None:
    """What the process does that is killed: a group of two over 400 steps, saved after each."""
    setting = replace(make_setting(Path(folder), tokens=400 * 64), checkpoint_seconds=0)
    run_swarm(two_jobs(), setting, folder=f"{folder}/trials", group=2, place=SERIAL)


def two_jobs() -> list:
    return [make_job(f"t{i}", some_copies(i), seed=i) for i in range(2)]


def test_a_killed_group_goes_on_where_it_was(tmp_path: Path, taken: list[int]) -> None:
    """SIGKILL inside a group, then the same swarm: the same trials, fewer steps, no checkpoint left."""
    process = multiprocessing.get_context("spawn").Process(target=train_slowly, args=(str(tmp_path),))
    process.start()
    deadline = time.monotonic() + 120
    while not (tmp_path / "trials" / ".group-t0-2.safetensors").exists():
        assert process.is_alive(), "the swarm ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    setting = make_setting(tmp_path, tokens=400 * 64)
    trials = run_swarm(two_jobs(), setting, folder=tmp_path / "trials", group=2, place=SERIAL)
    resumed = list(taken)
    taken.clear()
    whole = run_swarm(two_jobs(), setting, folder=tmp_path / "whole", group=2, place=SERIAL)
    assert taken == list(range(400))
    assert resumed == list(range(resumed[0], 400))
    assert resumed[0] > 0
    assert [(t.losses, t.heldout, t.curve) for t in trials] == [(t.losses, t.heldout, t.curve) for t in whole]
    assert not list((tmp_path / "trials").glob(".group-*"))


def test_halves_of_a_group_leave_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that is halved for want of memory removes the checkpoints of both halves."""
    setting = replace(make_setting(tmp_path), checkpoint_seconds=0)
    real = room.start

    def small(setting: ProxySetting, seeds: list[int], device: torch.device) -> room.TrainState:
        if len(seeds) > 1:
            raise MemoryError
        return real(setting, seeds, device)

    monkeypatch.setattr(room, "start", small)
    trials = run_swarm(two_jobs(), setting, folder=tmp_path / "trials", group=2, place=SERIAL)
    assert [t.status for t in trials] == ["done", "done"]
    assert not list((tmp_path / "trials").glob(".group-*"))


def test_a_dead_model_survives_a_stop_as_dead(tmp_path: Path) -> None:
    """Its curve is NaN on both sides of the stop, its neighbour's is that of one go."""
    setting = make_setting(tmp_path)
    pool, rates = open_pool(setting.pool), torch.tensor([0.02, torch.nan])
    file, results = str(tmp_path / "checkpoint"), []

    def stop(share: float) -> None:
        if share >= 0.5:
            raise Stopped

    for tell, path in ((None, None), (stop, file), (None, file)):
        streams = [TokenStream(pool, some_copies(i), i) for i in range(2)]
        try:
            results.append(
                room.train_weights(
                    streams, [0, 1], setting, rates=rates, tell=tell, checkpoint=path, every=0, key="k"
                )
            )
        except Stopped:
            assert Path(file).exists()
    (_, whole), (_, resumed) = results
    assert resumed.alive.tolist() == [True, False]
    assert [at for at, _ in resumed.points] == [at for at, _ in whole.points]
    assert [v[0] for _, v in resumed.points] == [v[0] for _, v in whole.points]
    assert resumed.died_at.tolist() == whole.died_at.tolist()


def test_a_half_goes_on_from_its_own_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: list[int]
) -> None:
    """A group of four runs out of memory, its first half is stopped after a checkpoint: the next attempt at
    the whole fails again and must not cost the half its steps. No checkpoint is left at the end."""
    setting = replace(make_setting(tmp_path), checkpoint_seconds=0.0)
    jobs, folder, real = (
        [make_job(f"t{i}", some_copies(i)) for i in range(4)],
        tmp_path / "trials",
        room.start,
    )

    def small(setting: ProxySetting, seeds: list[int], device: torch.device) -> room.TrainState:
        if len(seeds) > 2:
            raise MemoryError
        return real(setting, seeds, device)

    def stopping(state: room.TrainState, setting: ProxySetting) -> None:
        if state.step == 7:
            raise Stopped

    monkeypatch.setattr(room, "start", small)
    with monkeypatch.context() as patch:
        patch.setattr(room, "average", stopping)
        with pytest.raises(Stopped):
            run_swarm(jobs, setting, folder=folder, group=4, place=SERIAL)
    before = len(taken)
    trials = run_swarm(jobs, setting, folder=folder, group=4, place=SERIAL)
    assert [t.group for t in trials] == [2, 2, 2, 2]
    assert len(taken) - before == (setting.steps - 6) + setting.steps
    assert list(folder.glob(".group-*")) == []
