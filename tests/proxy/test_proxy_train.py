"""Training a batch of models: independence, failure, determinism, averages, learning."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from proxy_world import MODEL, PUBLISHED, VOCAB, make_job, make_setting, some_copies

from quadmix.proxy import train as room
from quadmix.proxy.device import choose_dtype
from quadmix.proxy.group import train_group
from quadmix.proxy.loader import load
from quadmix.proxy.model import Weights, initial_weights
from quadmix.proxy.optim import rate_factor
from quadmix.proxy.order import TokenStream
from quadmix.proxy.pool import open_pool
from quadmix.proxy.setting import ProxySetting
from quadmix.proxy.train import train_weights
from quadmix.recipe import ModelSection
from quadmix.types import Trial

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def values(trial: Trial) -> list[float]:
    return [loss.bits_per_byte for losses in (trial.losses, trial.heldout) for loss in losses.values()]


@pytest.mark.parametrize(
    ("model", "optimizer", "average"),
    [
        (MODEL, "muon", "none"),
        (MODEL, "adamw", "none"),
        (PUBLISHED, "adamw", "ema"),
        (PUBLISHED, "muon", "last"),
    ],
)
def test_a_model_alone_equals_itself_in_a_batch(
    tmp_path: Path, model: ModelSection, optimizer: str, average: str
) -> None:
    """Losses at K = 1, 3 and 8 agree within 1e-5 in float32, at any place of the batch."""
    setting = make_setting(tmp_path, model, optimizer=optimizer, average=average)
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

    def run(rates: torch.Tensor) -> tuple[Weights, room.Progress]:
        return train_weights(streams_of(setting, 3), [0, 1, 2], setting, rates=rates)

    healthy, _ = run(torch.tensor([0.02, 0.02, 0.02]))
    poisoned, progress = run(torch.tensor([0.02, torch.nan, 0.02]))
    assert progress.alive.tolist() == [True, False, True]
    assert int(progress.died_at[1]) == 1
    for one, two in zip(healthy.named().values(), poisoned.named().values(), strict=True):
        assert torch.equal(one[[0, 2]], two[[0, 2]])


def test_a_poisoned_start_is_a_failed_trial_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failed trial says step and value and has no losses; its neighbours' losses are bit-identical."""
    setting = make_setting(tmp_path)
    jobs = [make_job(name, some_copies(i), i) for i, name in enumerate("abc")]
    healthy = train_group(jobs, setting)

    def poison(*args: object, **named: object) -> Weights:
        weights = initial_weights(*args, **named)  # pyright: ignore[reportArgumentType]
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
    assert trial.unique_tokens == min(selected, trained)


def streams_of(setting: ProxySetting, count: int) -> list[TokenStream]:
    pool = open_pool(setting.pool)
    return [TokenStream(pool, some_copies(i), i) for i in range(count)]


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_passes_add_up_to_the_whole_batch(tmp_path: Path, micro_batch: int) -> None:
    """Loss, norm and every clipped gradient are those of one pass, whatever the micro-batch."""
    setting = make_setting(tmp_path, PUBLISHED, micro_batch=4)
    pieces = make_setting(tmp_path, PUBLISHED, micro_batch=micro_batch)
    batch = load(streams_of(setting, 2), setting, 0).long()
    results = []
    for each in (setting, pieces):
        weights = initial_weights(PUBLISHED, VOCAB, [0, 1], CPU)
        loss, norm = room.gradients(weights, batch, each, torch.float32)
        results.append([loss, norm, *(t.grad for t in weights.named().values())])
    for one, several in zip(*results, strict=True):
        torch.testing.assert_close(one, several, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("model", "everything"), [(MODEL, False), (PUBLISHED, True)])
def test_only_tinyllama_decays_everything(tmp_path: Path, model: ModelSection, everything: bool) -> None:
    """A step with weight decay differs from one without by rate x decay x weights, tables only if asked."""
    ends = []
    for decay in (0.0, 0.5):
        setting = make_setting(tmp_path, model, optimizer="adamw", weight_decay=decay)
        state = room.start(setting, [0], CPU)
        first = {name: t.detach().clone() for name, t in state.weights.named().items()}
        batch = load(streams_of(setting, 1), setting, 0).long()
        room.take_step(state, batch, torch.tensor([0.1]), setting)
        ends.append({name: t.detach() for name, t in state.weights.named().items()})
    for name, weight in first.items():
        decayed = everything or name in ("square", "wide")
        want = 0.1 * 0.5 * weight if decayed else torch.zeros_like(weight)
        torch.testing.assert_close(ends[0][name] - ends[1][name], want, atol=1e-6, rtol=1e-5)


def averaged(kind: str, seen: list[np.ndarray], span: int, stride: int) -> np.ndarray:
    """The average after the last of `seen`, the weights of every step, recomputed in numpy."""
    chosen = seen[::-1][::stride][::-1]
    if kind == "last":
        return np.mean(seen[::-1][:span:stride], axis=0)
    mean = np.zeros_like(seen[0])
    for count, weight in enumerate(chosen, start=1):
        share = max(stride / span, 1 / count)
        mean = (1 - share) * mean + share * weight
    return mean


@pytest.mark.parametrize("kind", ["none", "last", "ema"])
def test_losses_are_of_the_average(tmp_path: Path, kind: str) -> None:
    """Training returns the average, in plain numpy, of the weights met at each step by hand."""
    setting = make_setting(tmp_path, average=kind, average_share=0.3)
    streams = streams_of(setting, 2)
    state = room.start(setting, [0, 1], CPU)
    seen = []
    for step in range(setting.steps):
        rate = torch.full((2,), 0.02) * rate_factor(step, setting.steps, setting.training)
        room.take_step(state, load(streams, setting, step).long(), rate, setting)
        seen.append({name: t.detach().numpy().copy() for name, t in state.weights.named().items()})
    weights, _ = train_weights(streams, [0, 1], setting)
    assert len(seen) == 10
    for name, got in weights.named().items():
        path = [step[name] for step in seen]
        want = path[-1] if kind == "none" else averaged(kind, path, span=3, stride=1)
        np.testing.assert_allclose(got.detach().numpy(), want, atol=0 if kind == "none" else 1e-6)


@pytest.mark.parametrize("kind", ["last", "ema"])
def test_long_averages_take_every_few_steps(tmp_path: Path, kind: str) -> None:
    """Over 1,003 steps the average of half of them takes every fifth, the last step among them."""
    setting = make_setting(tmp_path, tokens=1_003 * 64, average=kind, average_share=0.5)
    state = room.start(setting, [0], CPU)
    rng, seen = np.random.default_rng(0), []
    for _ in range(setting.steps):
        state.step += 1
        seen.append(rng.standard_normal(MODEL.width).astype(np.float32))
        with torch.no_grad():
            state.weights.embedding[0, 0] = torch.from_numpy(seen[-1])
        room.average(state, setting)
    want = averaged(kind, seen, span=502, stride=5)
    np.testing.assert_allclose(state.average["embedding"][0, 0].numpy(), want, atol=1e-5)


def test_bfloat16_stays_near_float32(tmp_path: Path) -> None:
    """The compute type changes losses by less than 2 %."""
    setting = make_setting(tmp_path)
    low = dataclasses.replace(setting, training=setting.training.model_copy(update={"precision": "bfloat16"}))
    jobs = [make_job("a", some_copies(0))]
    assert values(train_group(jobs, low)[0]) == pytest.approx(values(train_group(jobs, setting)[0]), rel=0.02)
    assert choose_dtype("float32", torch.device("cpu")) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
