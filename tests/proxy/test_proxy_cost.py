"""Devices, memory and time: what is refused, what fits, how long a swarm takes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from proxy_world import make_setting

from quadmix.engine.tasks import Place, run_tasks
from quadmix.errors import ProxyError
from quadmix.proxy import cost, memory
from quadmix.proxy.cost import Speed, measure_here, swarm_seconds
from quadmix.proxy.device import choose_device
from quadmix.proxy.memory import PROCESS_BYTES, fitting_group, group_bytes
from quadmix.proxy.setting import ProxySetting
from quadmix.proxy.train import start, take_step
from quadmix.recipe import ModelSection, TrainingSection

MODEL = ModelSection(layers=2, width=128, heads=4, mlp=352, context=128)


def made_up(vocab: int = 4_096, batch: int = 8) -> ProxySetting:
    return ProxySetting(
        pool="", targets="", heldout=None, model=MODEL, vocab_size=vocab, domains=("any",),
        training=TrainingSection(batch=batch, precision="float32"), device="cpu",
    )  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    """Asked for cuda, the error says what this process sees and what to do; auto takes the CPU."""
    with pytest.raises(ProxyError, match=r"sees 0 GPUs .* set run\.device to cpu or auto, or install"):
        choose_device("cuda")
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("workers", "room_for", "models"), [(1, 12, 8), (2, 5, 5), (4, 2, 2), (8, 1, 1)])
def test_as_many_models_as_fit_are_trained_together(
    monkeypatch: pytest.MonkeyPatch, workers: int, room_for: int, models: int
) -> None:
    """Free memory, less a tenth, is shared by the workers, each of which has torch loaded first."""
    setting = made_up()
    free = int(workers * (PROCESS_BYTES + group_bytes(setting, room_for) + 1_000) / 0.9)
    monkeypatch.setattr(memory, "available_bytes", lambda device: free)
    assert fitting_group(setting, 8, workers) == models


def test_a_model_that_does_not_fit_is_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names parameters, need, what each worker has, and the settings that help."""
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1_000_000_000)
    setting = made_up(vocab=200_000)
    need = f"{group_bytes(setting, 1) / 1e9:.2f}"
    message = (
        rf"26,001,408 parameters needs about {need} GB .* each of 2 workers has 0\.10 GB on cpu: use fewer"
    )
    with pytest.raises(ProxyError, match=message):
        fitting_group(setting, 8, 2)


def growth(models: int) -> int:
    """In a fresh process: by how much two training steps raise the peak of its memory."""
    torch.set_num_threads(1)
    setting, cpu = made_up(), torch.device("cpu")
    before = cost._peak(cpu)
    state = start(setting, [0] * models, cpu)
    batch = torch.ones(models, setting.training.batch, MODEL.context + 1, dtype=torch.int64)
    for _ in range(2):
        take_step(state, batch, torch.full((models,), 1e-3), setting)
    return cost._peak(cpu) - before


def test_memory_of_a_group_is_what_was_estimated() -> None:
    """Eight models of 0.9 M parameters raise a process's peak by the estimate, within a factor of two."""
    held = np.ones(2**26)  # 0.5 GB of this process, which a worker must not count as its own
    (grown,) = run_tasks(growth, [8], place=Place("processes", 1))
    del held
    assert 0.5 < grown / group_bytes(made_up(), 8) < 2


def test_peak_is_of_the_whole_group_though_fewer_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time for eight models one sequence is measured, and the estimate of what is missing added."""
    monkeypatch.setattr(cost, "_peak", lambda device: 10**9)
    speed = measure_here(cost._Measurement(setting=made_up(), group=8, seconds=0.0))
    assert speed.peak_bytes == 10**9 + group_bytes(made_up(), 8) - group_bytes(made_up(batch=1), 1)


def test_measuring_gives_numbers_and_leaves_the_threads(tmp_path: Path) -> None:
    """Speed and memory are positive and finite; torch has as many threads as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        speed = measure_here(cost._Measurement(setting=make_setting(tmp_path), group=3, seconds=0.1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    for value in (speed.training, speed.evaluation, speed.peak_bytes):
        assert math.isfinite(value)
        assert value > 0


def test_swarm_seconds_are_rounds_of_groups(tmp_path: Path) -> None:
    """Ten models by fours over two workers are two rounds of 10/3 models, trained and evaluated."""
    setting, speed = make_setting(tmp_path), Speed(training=100.0, evaluation=50.0, peak_bytes=1)
    training, start = 640 / 100, 4.0
    two_rounds = 2 * 10 / 3
    assert swarm_seconds(setting, 10, speed, group=4, workers=2, evaluated=500) == pytest.approx(
        start + two_rounds * (training + 500 / 50)
    )
    windows = 2 * 12 * 16  # of both folders
    assert swarm_seconds(setting, 10, speed, group=4, workers=2) == pytest.approx(
        start + two_rounds * (training + windows / 50)
    )
    assert swarm_seconds(made_up(), 1, speed, group=4, workers=9) == pytest.approx(
        start + made_up().tokens / 100
    )
