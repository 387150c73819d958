"""Training a batch of models: independence, failure, determinism, learning."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from proxy_world import MODEL, VOCAB, make_job, make_setting, some_copies

from quadmix.proxy import train as room
from quadmix.proxy.cost import estimate_seconds, measure_speed
from quadmix.proxy.model import Weights, initial_weights
from quadmix.proxy.order import ClockStream
from quadmix.proxy.pool import open_pool
from quadmix.proxy.train import choose_dtype, train_group, train_weights
from quadmix.recipe import TrainingSection
from quadmix.types import Trial


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def values(trial: Trial) -> list[float]:
    return [loss.bits_per_byte for losses in (trial.losses, trial.heldout) for loss in losses.values()]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_model_alone_equals_itself_in_a_batch(tmp_path: Path, optimizer: str) -> None:
    """Losses at K = 1, 3 and 8 agree within 1e-5 in float32, at any place of the batch."""
    setting = make_setting(tmp_path, optimizer=optimizer)
    job = make_job("a", some_copies(0), seed=5)
    others = [make_job(f"o{i}", some_copies(i + 1), seed=i) for i in range(7)]
    alone = train_group([job], setting)[0]
    assert alone.status == "done"
    assert len(values(alone)) == 4
    for k, group in ((1, [others[0], job, others[1]]), (7, [*others, job])):
        batched = train_group(group, setting)[k]
        assert values(batched) == pytest.approx(values(alone), abs=1e-5)
        assert batched.unique_tokens == alone.unique_tokens


def test_equal_jobs_have_equal_losses_and_seeds_matter(tmp_path: Path) -> None:
    """One seed and one selection give one result; another seed or selection another."""
    setting = make_setting(tmp_path)
    copies = some_copies(0)
    jobs = [
        make_job("a", copies, 1),
        make_job("b", some_copies(9), 1),
        make_job("c", copies, 1),
        make_job("d", copies, 2),
    ]
    a, b, c, d = train_group(jobs, setting)
    assert values(a) == values(c)
    assert values(a) != values(b)
    assert values(a) != values(d)
    again = train_group(jobs, setting)
    assert [values(t) for t in again] == [values(t) for t in (a, b, c, d)]


def test_training_learns_the_domain_it_sees(tmp_path: Path) -> None:
    """A model of domain 0 predicts `up` better than a model of domain 1 does, and the reverse."""
    setting = make_setting(tmp_path, tokens=6400)
    domain = open_pool(setting.pool).domain
    zero, one = train_group([make_job("zero", domain == 0), make_job("one", domain == 1)], setting)
    assert zero.losses["up"].bits_per_byte < one.losses["up"].bits_per_byte - 0.1
    assert one.losses["down"].bits_per_byte < zero.losses["down"].bits_per_byte - 0.1
    assert zero.shares == (1.0, 0.0)
    assert zero.curve[-1][1] < zero.curve[0][1]
    assert zero.curve[0][1] == pytest.approx(math.log2(VOCAB), rel=0.2)


def test_a_poisoned_rate_freezes_one_model_and_no_other(tmp_path: Path) -> None:
    """A NaN learning rate kills model 1 at the next step; models 0 and 2 are bit for bit as without it."""
    setting = make_setting(tmp_path)
    pool = open_pool(setting.pool)

    def run(rates: torch.Tensor) -> tuple[Weights, room.Progress]:
        streams = [ClockStream(pool, some_copies(i), i) for i in range(3)]
        return train_weights(streams, [0, 1, 2], setting, rates)

    healthy, _ = run(torch.tensor([0.02, 0.02, 0.02]))
    poisoned, progress = run(torch.tensor([0.02, torch.nan, 0.02]))
    assert progress.alive.tolist() == [True, False, True]
    assert int(progress.died_at[1]) == 1
    for one, two in zip(healthy.all(), poisoned.all(), strict=True):
        assert torch.equal(one[[0, 2]], two[[0, 2]])


def test_a_poisoned_start_is_a_failed_trial_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failed trial says step and value and has no losses; its neighbours' losses are bit-identical."""
    setting = make_setting(tmp_path)
    jobs = [make_job(name, some_copies(i), i) for i, name in enumerate("abc")]
    healthy = train_group(jobs, setting)

    def poison(*args: object) -> Weights:
        weights = initial_weights(*args)  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            weights.square[1, 0, 0, 0] = torch.nan
        return weights

    monkeypatch.setattr(room, "initial_weights", poison)
    trials = train_group(jobs, setting)
    assert trials[1].status == "failed"
    assert "training loss is nan at step 0" in trials[1].reason
    assert trials[1].losses == {}
    assert [values(trials[k]) for k in (0, 2)] == [values(healthy[k]) for k in (0, 2)]


def test_a_job_that_selects_nothing_fails_alone(tmp_path: Path) -> None:
    """It becomes a failed trial with a reason, in its place; the others train."""
    setting = make_setting(tmp_path)
    jobs = [make_job("a", np.zeros(120)), make_job("b", some_copies(0)), make_job("c", np.zeros(120))]
    trials = train_group(jobs, setting)
    assert [t.status for t in trials] == ["failed", "done", "failed"]
    assert "selects no document" in trials[0].reason
    assert values(trials[1]) == pytest.approx(values(train_group(jobs[1:2], setting)[0]), abs=1e-6)
    assert [t.status for t in train_group(jobs[:1], setting)] == ["failed"]


@pytest.mark.parametrize(("asked", "trained"), [(1, 64), (64, 64), (127, 64), (128, 128), (640, 640)])
def test_training_tokens_are_whole_steps(tmp_path: Path, asked: int, trained: int) -> None:
    """Tokens are rounded down to whole steps, at least one; epochs and unique tokens follow."""
    setting = make_setting(tmp_path, tokens=asked)
    copies = np.zeros(120)
    copies[:3] = 1
    trial = train_group([make_job("a", copies)], setting)[0]
    selected = int(open_pool(setting.pool).lengths[:3].sum())
    assert trial.train_tokens == trained
    assert trial.selected_tokens == selected
    assert trial.epochs == pytest.approx(trained / selected)
    assert trial.unique_tokens == min(selected, trained + 1)


def test_bfloat16_stays_near_float32(tmp_path: Path) -> None:
    """The compute type changes losses by less than 2 %."""
    setting = make_setting(tmp_path)
    low = dataclasses.replace(setting, training=setting.training.model_copy(update={"precision": "bfloat16"}))
    jobs = [make_job("a", some_copies(0))]
    assert values(train_group(jobs, low)[0]) == pytest.approx(values(train_group(jobs, setting)[0]), rel=0.02)
    assert choose_dtype("float32", torch.device("cpu")) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16


def test_cost_counts_training_and_evaluation(tmp_path: Path) -> None:
    """Seconds grow with jobs, shrink with workers, and count target windows once they exist."""
    setting = make_setting(tmp_path)
    windows = 2 * 2 * 6 * MODEL.context
    assert estimate_seconds(setting, 10, 100.0) == pytest.approx(10 * (640 + 0.3 * windows) / 100)
    assert estimate_seconds(setting, 10, 100.0, workers=2) == estimate_seconds(setting, 5, 100.0)
    bare = dataclasses.replace(setting, targets=str(tmp_path / "none"), heldout=None)
    assert estimate_seconds(bare, 1, 640.0) == pytest.approx(1.0)
    threads = torch.get_num_threads()
    quick = dataclasses.replace(bare, training=TrainingSection(batch=2, precision="float32"))
    assert measure_speed(quick, group=2, seconds=0.05) > 0
    assert torch.get_num_threads() == threads
