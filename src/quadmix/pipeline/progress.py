"""Live progress on stderr: a table on a terminal, plain lines elsewhere; progress.json for anyone who polls.

In: stages (rows of the table) made of steps, each of which counts its work in its own unit, and the planned
seconds of the steps. Out: a `Snapshot` once a second, drawn and written by a thread of its own, so that
counting costs next to nothing, and a step that says nothing for minutes is seen to be alive.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from quadmix.errors import InputError
from quadmix.io.atomic import read_json, write_json
from quadmix.pipeline.events import ALIVE_SECONDS, log_alive, log_step
from quadmix.pipeline.pace import Estimate, Row, Trials, estimate
from quadmix.pipeline.snapshot import FILE, RunState, Snapshot, StageState, TrialCounts
from quadmix.pipeline.step import StageProgress
from quadmix.pipeline.terminal import Display, display

_FILE_SECONDS = 2.0
_TICK_SECONDS = 1.0
_PARTS = {"regmix": "evaluate"}  # steps that belong to a stage without bearing its name


class Progress:
    """Counts work in planned seconds per step; the measured pace corrects the plan (see `pace`).

    `weights` maps a step to its planned seconds; steps without a weight are shown, but not planned for.
    """

    def __init__(
        self, weights: Mapping[str, float] | None = None, *, out: TextIO | None = None, quiet: bool = False
    ) -> None:
        self._lock = threading.RLock()  # around everything but the counting of a step
        self._rows: dict[str, Row] = {}
        self._expected = False
        self._display: Display | None = None if quiet else display(out or sys.stderr)
        self._folder: Path | None = None
        self._began, self._started, self._last_file = time.monotonic(), _utc(), 0.0
        self._last_alive = self._began
        self._state: RunState = "running"
        self._error = ""
        self._open: list[Row] = []
        self._step: StageProgress | None = None
        self._blocks = 0
        self._stop = threading.Event()
        self.plan(weights or {})

    def expect(self, stages: Sequence[str], reused: Sequence[str] = ()) -> None:
        """Show these stages, in this order, from the beginning; `reused` are those whose result is there."""
        with self._lock:
            self._expected = True
            self._rows = {name: Row(name=name, reused=name in reused) for name in stages}

    def plan(self, weights: Mapping[str, float]) -> None:
        """Replace the planned seconds per step; what belongs to no expected stage is left out."""
        with self._lock:
            for row in self._rows.values():
                row.parts = {}
            for name, seconds in weights.items():
                home = self._home(name)
                if home not in self._rows and not self._expected:
                    self._rows[home] = Row(name=home)
                if home in self._rows and seconds > 0:
                    self._rows[home].parts[name] = seconds

    def attach(self, folder: Path) -> None:
        """Write progress.json into this run folder from now on."""
        self._folder = folder

    @contextmanager
    def recording(self, folder: Path) -> Generator[None]:
        """Write progress.json into this run folder during the block, and at its end how it ended."""
        self.attach(folder)
        self._write(self.snapshot())
        with self._awake():
            try:
                yield
            except KeyboardInterrupt:
                self._finish("interrupted")
                raise
            except BaseException as error:
                self._finish("failed", type(error).__name__)
                raise
            self._finish("finished")

    @contextmanager
    def row(self, name: str) -> Generator[None]:
        """Show one stage as at work; the steps inside the block are its own."""
        with self._lock:
            row = self._rows.setdefault(name, Row(name=name))
            row.state, row.began = "running", time.monotonic()
            self._open.append(row)
        ended = False
        with self._awake():
            try:
                yield
                ended = True
            finally:
                with self._lock:
                    self._open.remove(row)
                    row.close(time.monotonic(), failed=not ended)
                    self._tick(force=True)

    @contextmanager
    def stage(
        self, name: str, total: int, unit: str, *, trains: int | None = None
    ) -> Generator[StageProgress]:
        """Show one step; call `advance` on the yielded object as work is done.

        trains: training tokens of each model, where the units are models that are trained.
        """
        if not self._open:
            with self.row(self._home(name)), self.stage(name, total, unit, trains=trains) as step:
                yield step
            return
        with self._lock:
            self._step = step = StageProgress(self._open[-1], name, total, unit, trains)
            self._show(lambda view: view.turn(self.snapshot()))
        ended = False
        try:
            yield step
            ended = True
        finally:
            with self._lock:
                step.close(ended=ended)
                self._step = step
                if self._folder:
                    log_step(self._folder, self._open[-1].name, name, unit, **step.counted())
                self._tick(force=True)
                if ended:
                    self._show(lambda view: view.turn(self.snapshot()))

    def note(self, text: str) -> None:
        """Print one line of information."""
        with self._lock:
            self._show(lambda view: view.note(text))

    def tick(self) -> None:
        """Measure, draw and write what is due; the thread of a run does so every second."""
        with self._lock:
            self._tick()

    def snapshot(self) -> Snapshot:
        """Return how far the run is."""
        now, step = time.monotonic(), self._step
        left = estimate(self._rows.values(), step.measured(now) if step and not step.closed else None)
        if self._state != "running":
            left = Estimate(run=0.0 if self._state == "finished" else None)
        return Snapshot(
            state=self._state, error=self._error, pid=os.getpid(), host=socket.gethostname(),
            stage=step.name if step else self._open[-1].name if self._open else "",
            done=step.done if step else 0,
            total=step.total if step else 0,
            unit=step.unit if step else "",
            fraction=round(step.fraction, 4) if step else 0.0,
            rates=step.rates(now) if step else {},
            trials=_counts(step.trials) if step else None,
            started=self._started, updated=_utc(), elapsed_s=round(now - self._began, 1),
            eta_s=_rounded(left.run), stage_eta_s=_rounded(left.step),
            stages=tuple(_stage(row, left, now) for row in self._rows.values()),
        )  # fmt: skip

    def _home(self, name: str) -> str:
        """Return the stage to which a step belongs by its name: `swarm 2` to swarm."""
        home = _PARTS.get(name, name.partition(" ")[0])
        return name if name in self._rows or home not in self._rows else home

    def _tick(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._step is not None and not self._step.closed:
            self._step.record(now)
        if self._folder and self._open and now - self._last_alive >= ALIVE_SECONDS:
            self._last_alive = now
            log_alive(self._folder, self._open[-1].name)
        shown = self.snapshot()
        if force or now - self._last_file >= _FILE_SECONDS:
            with suppress(OSError):  # a full disk fails the run at what it needs, not at this courtesy
                self._write(shown)
        self._show(lambda view: view.draw(shown))

    def _show(self, what: Callable[[Display], None]) -> None:
        if self._display is not None:
            try:
                what(self._display)
            except (OSError, ValueError):  # the terminal is gone or closed, the run is not
                self._display = None

    def _write(self, shown: Snapshot) -> None:
        if self._folder is not None:
            self._last_file = time.monotonic()
            write_json(self._folder / FILE, shown)

    def _finish(self, state: RunState, error: str = "") -> None:
        with self._lock, suppress(OSError, InputError):
            self._state, self._error = state, error
            found = read_json(self._folder / FILE) if self._folder else {}
            # the folder may have been taken over by another process while this one was suspended
            if (found.get("pid"), found.get("host")) == (os.getpid(), socket.gethostname()):
                self._write(self.snapshot())

    @contextmanager
    def _awake(self) -> Generator[None]:
        """Let the thread draw and write until the outermost block ends."""
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                self._stop = threading.Event()
                threading.Thread(target=self._watch, args=(self._stop,), daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    self._stop.set()
                    self._show(lambda view: view.close(self.snapshot()))

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(_TICK_SECONDS):
            with self._lock:
                if (self._open or self._expected) and not stop.is_set():
                    self._tick()


def _stage(row: Row, left: Estimate, now: float) -> StageState:
    running = row.state == "running"
    seconds = row.seconds + (now - row.began if running else 0.0)
    return StageState(
        name=row.name,
        state="reused" if row.state == "waiting" and row.reused else row.state,
        seconds=None if row.state == "waiting" else round(seconds, 1),
        eta_s=_rounded(left.step if running else left.waiting.get(row.name)),
        trials=_counts(row.trials),
    )


def _counts(trials: Trials | None) -> TrialCounts | None:
    return None if trials is None else TrialCounts(**asdict(trials))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
