"""How long the rest takes: rates over the last while, and a total that is near the truth or not said."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from quadmix.pipeline.pace import Meter, Row, Step, estimate
from quadmix.pipeline.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Part:
    """One stage of a made-up run: planned seconds, true ones, units; told: it says that it was loaded."""

    name: str
    planned: float
    true: float
    units: int = 50
    told: bool = False


@dataclass(frozen=True, kw_only=True)
class Said:
    """What was said of the run at one moment, and what was true."""

    stage: str
    eta: float | None
    truth: float


def lived(
    parts: Sequence[Part], monkeypatch: pytest.MonkeyPatch, *, reused: Sequence[str] = ()
) -> list[Said]:
    """Live through a made-up run second by second."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress(quiet=True)
    progress.expect([p.name for p in parts], reused)
    progress.plan({p.name: p.planned for p in parts})
    end = now[0] + sum(p.true for p in parts)
    said: list[Said] = []
    for part in parts:
        with progress.row(part.name), progress.stage(part.name, part.units, "models") as step:
            for _ in _seconds(now, part.true / part.units, part.units):
                if now[1:]:
                    now.pop()
                    if part.told:
                        step.load()
                    else:
                        step.advance()
                progress.tick()
                said.append(Said(stage=part.name, eta=progress.snapshot().eta_s, truth=end - now[0]))
    return said


def _seconds(now: list[float], each: float, units: int) -> Iterator[None]:
    """Let time pass; a second entry of `now` says that a unit was finished."""
    for _ in range(units):
        for _ in range(round(each)):
            now[0] += 1
            yield
        now[0] += each - round(each)
        now.append(1)
        yield


def check_near(said: Sequence[Said]) -> None:
    for one in said:
        if one.eta is not None and max(one.eta, one.truth) > 20:
            assert 0.5 <= one.eta / max(one.truth, 1e-9) <= 2, one


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("true", [2200.0, 4000.0, 7800.0])
def test_a_resumed_run_says_nothing_before_it_knows_and_then_the_truth(
    monkeypatch: pytest.MonkeyPatch, told: bool, true: float
) -> None:
    """The second stage loads in a second what was planned to take 300."""
    parts = [Part(name="corpus", planned=20, true=40), Part(name="swarm", planned=300, true=1, told=told)]
    said = lived([*parts, Part(name="evaluate", planned=4000, true=true)], monkeypatch, reused=["swarm"])
    assert all(one.eta is None for one in said if one.stage == "corpus")
    assert all(one.eta is None for one in said if one.stage == "swarm")
    check_near(said)
    late = [one for one in said if one.stage == "evaluate" and one.truth < 0.9 * true]
    assert late
    assert all(one.eta is not None for one in late)


def test_a_whole_run_is_estimated_within_a_factor_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    said = lived(
        [
            Part(name="corpus", planned=20, true=40),
            Part(name="swarm", planned=300, true=540),
            Part(name="search", planned=30, true=60, units=1),
            Part(name="evaluate", planned=4000, true=6400),
        ],
        monkeypatch,
    )
    check_near(said)
    known = [one.eta is not None for one in said if one.stage == "swarm"]
    assert known.index(True) < len(known) / 2  # 3 % of what models are to cost has been measured soon
    assert all(one.eta is not None for one in said if one.stage == "evaluate" and one.truth < 6000)


def test_slow_text_stages_say_nothing_of_how_fast_models_train() -> None:
    annotated = Row(name="annotate", state="done", parts={"annotate": 300.0}, worked=300.0, took=2700.0)
    ahead = Row(name="swarm", parts={"swarm": 4000.0})
    assert estimate([annotated, ahead], None).run is None
    trained = Row(name="confirm", state="done", parts={"confirm": 200.0}, worked=200.0, took=220.0)
    assert estimate([annotated, ahead, trained], None).run == pytest.approx(4000 * 1.07, rel=0.01)


def test_what_is_reused_and_what_is_over_does_not_remain() -> None:
    worked = Row(name="swarm", state="done", parts={"swarm": 100.0}, worked=100.0, took=100.0)
    reused = Row(name="confirm", reused=True, parts={"confirm": 900.0})
    open_row = Row(name="evaluate", parts={"evaluate": 50.0, "regmix": 30.0}, passed={"regmix": 0.5})
    assert estimate([worked, reused, open_row], None).run == pytest.approx(65.0)


def test_a_stage_far_faster_than_its_plan_was_loaded_and_is_no_pace() -> None:
    rows = [
        Row(name="swarm", state="done", parts={"swarm": 1000.0}, worked=1000.0, took=3.0),
        Row(name="evaluate", parts={"evaluate": 1000.0}),
    ]
    assert estimate(rows, None).run is None
    rows[0].took = 900.0
    assert estimate(rows, None).run == pytest.approx(900, rel=0.02)


def test_a_step_without_units_goes_by_the_plan_until_it_is_overdue() -> None:
    rows = [Row(name="corpus", state="done", parts={"corpus": 10.0}, worked=10.0, took=20.0)]
    search = Row(name="search", state="running", parts={"search": 60.0})

    def after(seconds: float) -> float | None:
        step = Step(
            row=search, name="search", planned=60, fraction=0, loaded=0, took=seconds, rate=None, left=1
        )
        return estimate([*rows, search], step).step

    early, overdue = after(20), after(300)
    assert early is not None
    assert 80 < early < 100  # the pace is nearly 2
    assert overdue is None


def test_a_rate_looks_back_a_while_not_to_the_beginning() -> None:
    meter = Meter(0.0)
    for second in range(1, 101):
        meter.record(second, 10.0 * second)
    for second in range(101, 201):
        meter.record(second, 1000 + 1.0 * (second - 100))
    assert meter.rate(200, 1100) == pytest.approx(1.0, rel=0.05)


def test_a_rate_of_shards_that_take_minutes_does_not_fall_to_zero_between_them() -> None:
    meter = Meter(0.0)
    for second in range(1, 6001):
        meter.record(second, second // 600)
    assert meter.rate(6000 + 300, 10) == pytest.approx(1 / 600, rel=0.2)


def test_a_rate_is_unknown_before_anything_was_done() -> None:
    meter = Meter(0.0, 7.0)
    meter.record(50, 7.0)
    assert meter.rate(50, 7.0) is None


def test_models_that_go_on_from_a_checkpoint_are_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups of four go on at 90 %: 7.2 models at once, then one every 100 s."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress({"swarm": 1000.0}, quiet=True)
    with progress.stage("swarm", 20, "models", trains=1000) as step:
        for second in range(1, 61):
            now[0] += 1
            step.partly((3.6 if second > 1 else 0) + (3.6 if second > 3 else 0) + second / 100)
            progress.tick()
        shown = step.measured(60.0)
    assert shown.rate == pytest.approx(0.01, rel=0.1)
    assert shown.loaded > 0.3
