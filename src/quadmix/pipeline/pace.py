"""How fast work goes and how long the rest takes: numbers only, no clock and no output.

In: amounts done at given seconds, planned seconds per stage. Out: rates over the last while, and estimates of
the time left, None as long as nothing is known. What was found done already (loaded) is neither pace nor
work that remains.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

State = Literal["waiting", "running", "done", "loaded", "failed"]

_WHILE, _SHARE = 30.0, 0.2  # seconds that a rate looks back at least; of the time since the work began
_KEPT = 5  # changes that a rate looks back at least: shards may take longer than any number of seconds
_SETTLED, _SEEN = 5.0, 0.02  # seconds, and share of its stage, after which a rate tells how long it takes
_LOADED = 0.05  # of its planned seconds: a stage that took less was loaded, whatever it said
_ENOUGH, _LEAST = 0.03, 2.0  # share of the planned seconds, and seconds, that must have been measured
_PRIOR = 0.02  # of the planned seconds: how long the plan itself counts as a measurement of its pace
_TRAINING = ("swarm", "confirm", "evaluate")  # stages that train models; their pace says nothing of the rest


class Meter:
    """The rate of one growing amount over the last while; times and amounts never decrease."""

    def __init__(self, now: float, amount: float = 0.0) -> None:
        self.restart(now, amount)

    def restart(self, now: float, amount: float) -> None:
        """Forget what came before: it was loaded, not worked."""
        self.began, self.base = now, amount
        self._samples = deque([(now, amount)])

    def record(self, now: float, amount: float) -> None:
        """Note how much is done now."""
        window = max(_WHILE, _SHARE * (now - self.began))
        while len(self._samples) > _KEPT and self._samples[1][0] <= now - window:
            self._samples.popleft()
        last, before = self._samples[-1]
        if amount > before and now - last >= window / 60:
            self._samples.append((now, amount))

    def rate(self, now: float, amount: float) -> float | None:
        """Return the amount per second, None before there is any."""
        began, base = self._samples[0]
        at_work = self.at_work(now, amount)
        return (at_work - base) / (now - began) if now - began >= 1 and at_work > base else None

    def at_work(self, now: float, amount: float) -> float:
        """Return how much is done with what is on its way: as much as the last change brought, at most."""
        (began, base), (last, done) = self._samples[0], self._samples[-1]
        if len(self._samples) < 2:
            return amount
        step = done - self._samples[-2][1]
        return max(amount, done + min(step, (done - base) / (last - began) * (now - last)))


@dataclass(slots=True, kw_only=True)
class Trials:
    """Counts of models in work; see `snapshot.TrialCounts`."""

    done: int = 0
    failed: int = 0
    retried: int = 0
    total: int = 0

    def count(self, n: int, *, failed: bool) -> None:
        """Count models that came to their end."""
        if failed:
            self.failed += n
        else:
            self.done += n


@dataclass(slots=True, kw_only=True)
class Row:
    """One stage as the table shows it, made of steps.

    reused: its result was there when the run began. parts: planned seconds by step. passed: share of a step
    that is over, worked or loaded. worked: planned seconds of what was worked, `took`: seconds that it took.
    own: has any step of its name worked? seconds: in all, set at its end.
    """

    name: str
    state: State = "waiting"
    reused: bool = False
    parts: dict[str, float] = field(default_factory=dict[str, float])
    passed: dict[str, float] = field(default_factory=dict[str, float])
    worked: float = 0.0
    took: float = 0.0
    own: bool = False
    began: float = 0.0
    seconds: float = 0.0
    trials: Trials | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("done", "loaded", "failed")

    @property
    def planned(self) -> float:
        return sum(self.parts.values())

    def left(self, but: str = "") -> float:
        """Return the planned seconds of its steps that are not over, without the step `but`."""
        if self.ended or self.reused:
            return 0.0
        return sum(s * (1 - self.passed.get(n, 0.0)) for n, s in self.parts.items() if n != but)

    def close(self, now: float, *, failed: bool) -> None:
        """End the stage; one that was there and of which nothing was made again counts as loaded."""
        self.seconds += now - self.began
        if self.worked:
            self.took = self.seconds
        self.state = "failed" if failed else "loaded" if self.reused and not self.own else "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The step at work. planned: its seconds in the plan. fraction: of it that is over, loaded: of that,
    what was loaded. took: seconds since it was. rate: units per second, left: units."""

    row: Row
    name: str
    planned: float
    fraction: float
    loaded: float
    took: float
    rate: float | None
    left: float

    def own_left(self) -> float | None:
        """Return the seconds left by its own rate, None before that is known."""
        if self.rate is None or self.took < _SETTLED or self.fraction - self.loaded < _SEEN:
            return None
        return self.left / self.rate


@dataclass(slots=True)
class _Tally:
    planned: float = 0.0
    took: float = 0.0
    left: float = 0.0

    def add(self, planned: float, took: float) -> None:
        if planned and took >= _LOADED * planned:
            self.planned, self.took = self.planned + planned, self.took + took

    @property
    def pace(self) -> float:
        """Return seconds per planned second; the plan counts as a short measurement that met it."""
        prior = _PRIOR * (self.planned + self.left)
        return (self.took + prior) / (self.planned + prior) if self.planned + prior else 1.0

    @property
    def enough(self) -> bool:
        return self.took >= _LEAST and self.planned >= _ENOUGH * (self.planned + self.left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds left. step: of the step at work. run: of the whole run. waiting: of stages that have not begun,
    by name. What is not known yet is None, or absent."""

    step: float | None = None
    run: float | None = None
    waiting: Mapping[str, float] = field(default_factory=dict[str, float])


def estimate(rows: Iterable[Row], step: Step | None) -> Estimate:
    """Say how long the rest takes.

    The step at work goes by its own rate as soon as there is one; what comes after it by the plan, corrected
    by the pace of like stages that were worked, not loaded. Nothing is said of the run before stages like
    those that make up most of what is left have been measured.
    """
    rows, tallies = list(rows), (_Tally(), _Tally())
    for row in rows:
        tally = _of(tallies, row)
        tally.add(row.worked, row.took)
        tally.left += row.left(step.name if step is not None and step.row is row else "")
    if step is not None:
        tally = _of(tallies, step.row)
        tally.add(step.planned * (step.fraction - step.loaded), step.took)
        tally.left += step.planned * (1 - step.fraction)
    own = None if step is None else _step_left(step, _of(tallies, step.row))
    main = max(tallies, key=lambda t: t.left)
    if not (main.enough or _is_rest(step, own, sum(t.left for t in tallies))):
        return Estimate(step=own)
    paced = {r.name: r.left() * _of(tallies, r).pace for r in rows if r.state == "waiting" and r.left()}
    beside = sum(t.left * t.pace for t in tallies)
    if step is not None:
        beside -= step.planned * (1 - step.fraction) * _of(tallies, step.row).pace
    return Estimate(step=own, run=max(beside, 0.0) + (own or 0.0), waiting=paced)


def _of(tallies: tuple[_Tally, _Tally], row: Row) -> _Tally:
    return tallies[row.name in _TRAINING]


def _step_left(step: Step, tally: _Tally) -> float | None:
    own = step.own_left()
    if own is not None or not (tally.enough and step.planned):
        return own
    left = step.planned * (1 - step.loaded) * tally.pace - step.took
    return left if left > 0 else None  # overdue: the plan was wrong here, so it says nothing


def _is_rest(step: Step | None, own: float | None, left: float) -> bool:
    """Does the step at work, whose time left is known, make up all that matters of what is left?"""
    return step is not None and own is not None and step.planned * (1 - step.fraction) >= 0.9 * left > 0
