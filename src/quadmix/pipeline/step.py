"""One step of a stage at work: counts in its own unit, documents, tokens and models, and how fast they grow.

Counting changes numbers alone, in the thread that works; another one reads them once a second.
"""

import time

from quadmix.pipeline.pace import Meter, Row, Step, Trials

_SETTLING = 5.0  # seconds from the first sign of models in work: those that go on from a checkpoint jump then


class StageProgress:
    """Progress of one step of the stage `row`. trains: training tokens of each unit, where these are models
    that are trained."""

    def __init__(self, row: Row, name: str, total: int, unit: str, trains: int | None) -> None:
        now = time.monotonic()
        self.name, self.total, self.unit = name, max(total, 1), unit
        self.done, self._partial = 0, 0.0
        self._row, self._trains = row, trains
        self._settled: float | None = None
        self._closed_at: float | None = None
        self._documents = self._tokens = 0
        self._loaded = self._failed = self._retried = 0
        self._meters = {kind: Meter(now) for kind in (unit, "documents", "tokens")}
        self._planned = row.parts.get(name, 0.0) * (1 - row.passed.get(name, 0.0))
        self.trials: Trials | None = None
        if trains is not None:
            row.trials = row.trials or Trials()
            row.trials.total += total
            self.trials = Trials(total=total)

    @property
    def fraction(self) -> float:
        """Return the share that is done, 0 to 1, units in work counted."""
        return min((self.done + self._partial) / self.total, 1.0)

    @property
    def closed(self) -> bool:
        """Is it over?"""
        return self._closed_at is not None

    def advance(self, n: int = 1, *, documents: int = 0, tokens: int = 0, failed: bool = False) -> None:
        """Count `n` more units as done, with the documents and tokens that were in them; models may fail."""
        self.done, self._partial = self.done + n, max(0.0, self._partial - n)
        self._documents += documents
        self._tokens += tokens
        self._failed += n * failed
        self._count(n, failed)

    def load(self, n: int = 1, *, failed: bool = False) -> None:
        """Count `n` more units that were done before this run: no work, and no sign of how fast it goes."""
        self.done, self._loaded = self.done + n, self._loaded + n
        self._count(n, failed)
        self._restart(time.monotonic())

    def partly(self, units: float) -> None:
        """Say how much of the units in work is done, for the bar and the ETA."""
        self._partial = units

    def retry(self, n: int = 1) -> None:
        """Count `n` models that are given out again, because their worker died."""
        self._retried += n
        for trials in filter(None, (self.trials, self._row.trials)):
            trials.retried += n

    def record(self, now: float) -> None:
        """Note for the rates how much is done now; call it every second or so."""
        if self._partial > 0 and self._settled is None:
            self._settled = now + _SETTLING
        if self._settled is not None and now < self._settled:
            self._restart(now)
        for kind, meter in self._meters.items():
            meter.record(now, self._amount(kind))

    def rates(self, now: float) -> dict[str, float]:
        """Return what passes per second over the last while, as far as it is known."""
        at = now if self._closed_at is None else self._closed_at
        found = {kind: meter.rate(at, self._amount(kind)) for kind, meter in self._meters.items()}
        return {f"{kind}_per_s": float(f"{rate:.4g}") for kind, rate in found.items() if rate is not None}

    def counted(self) -> dict[str, float]:
        """Return what was worked by now, for the log: what was loaded is in none of the numbers."""
        worked = self.done - self._loaded
        until = time.monotonic() if self._closed_at is None else self._closed_at
        return {
            "units": worked,
            "documents": self._documents,
            "tokens": self._tokens + worked * (self._trains or 0),
            "seconds": round(until - self._meters[self.unit].began, 2),
            "failed": self._failed,
            "retried": self._retried,
        }

    def measured(self, now: float) -> Step:
        """Return what the estimate of the time left needs to know."""
        meter, done = self._meters[self.unit], self._amount(self.unit)
        left = max(self.total - meter.at_work(now, done), 0.0)
        return Step(
            row=self._row, name=self.name, planned=self._planned, fraction=self.fraction,
            loaded=min(meter.base / self.total, self.fraction), took=now - meter.began,
            rate=meter.rate(now, done), left=left,
        )  # fmt: skip

    def close(self, *, ended: bool) -> None:
        """Enter what was worked into the stage; a step that ended well has done all its units."""
        if ended:
            self.done, self._partial = self.total, 0.0
        self._closed_at, row = time.monotonic(), self._row
        step = self.measured(self._closed_at)
        row.own |= step.fraction > step.loaded and self._is_of_its_own()
        if self._planned:
            row.worked += self._planned * (step.fraction - step.loaded)
            row.took += step.took
            before = row.passed.get(self.name, 0.0)
            row.passed[self.name] = before + (1 - before) * step.fraction

    def _is_of_its_own(self) -> bool:
        """Is this what the stage is there for, not a preparation that every start of the run repeats?"""
        row = self._row
        return self.name == row.name or self.name in row.parts or self.name.startswith(f"{row.name} ")

    def _count(self, n: int, failed: bool) -> None:
        for trials in filter(None, (self.trials, self._row.trials)):
            trials.count(n, failed=failed)

    def _restart(self, now: float) -> None:
        for kind, meter in self._meters.items():
            meter.restart(now, self._amount(kind))

    def _amount(self, kind: str) -> float:
        done = self.done + self._partial
        if kind == self.unit:
            return done
        if kind == "tokens":
            return self._tokens + done * (self._trains or 0)
        return self._documents
