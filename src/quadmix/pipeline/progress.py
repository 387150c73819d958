"""Live progress with ETA on stderr, `progress.json` for anyone who polls.

On a terminal: one bar for the whole run, whose ETA follows the planned cost of the stages, and one line
for the current stage. Elsewhere (logs, Slurm): a plain line every few seconds.
"""

import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from quadmix.io.atomic import write_json


class Progress:
    """Counts work in planned seconds per stage; the measured pace corrects the plan.

    `weights` maps a stage to its planned seconds; stages without a weight count as one second.
    """

    def __init__(
        self, weights: Mapping[str, float] | None = None, *, out: TextIO | None = None, quiet: bool = False
    ) -> None:
        self._weights = dict(weights or {})
        self._out = out or sys.stderr
        self._quiet = quiet
        self._folder: Path | None = None
        self._started = time.monotonic()
        self._finished = 0.0
        self._last_line = 0.0
        self._last_file = 0.0
        self._bar: Any = None
        self._task: Any = None

    def plan(self, weights: Mapping[str, float]) -> None:
        """Replace the planned seconds per stage."""
        self._weights = dict(weights)

    def attach(self, folder: Path) -> None:
        """Write progress.json into this run folder from now on."""
        self._folder = folder

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Generator["StageProgress"]:
        """Show one stage; call `advance` on the yielded object as work is done."""
        step = StageProgress(self, name, max(total, 1), unit)
        self._show(step, force=True)
        try:
            yield step
        finally:
            self._clear()
        step.done = step.total
        self._show(step, force=True)
        self._clear()
        self._finished += self._weight(name)

    def note(self, text: str) -> None:
        """Print one line of information."""
        self._clear()
        if not self._quiet:
            print(text, file=self._out, flush=True)

    def eta(self, step: "StageProgress") -> float | None:
        """Return the estimated seconds to the end of the run, None while nothing is known."""
        done = self._finished + self._weight(step.name) * step.fraction
        total = max(sum(self._weights.values()), done)
        elapsed = time.monotonic() - self._started
        if done <= 0 or elapsed < 1:
            return None
        return elapsed / done * (total - done)

    def _weight(self, name: str) -> float:
        return self._weights.get(name, 1.0)

    def _show(self, step: "StageProgress", *, force: bool = False) -> None:
        now = time.monotonic()
        eta = self.eta(step)
        if self._folder and (force or now - self._last_file > 2):
            self._last_file = now
            write_json(
                self._folder / "progress.json",
                {"stage": step.name, "done": step.done, "total": step.total, "unit": step.unit,
                 "elapsed_s": round(now - self._started, 1), "eta_s": eta and round(eta, 1)},
            )  # fmt: skip
        if self._quiet:
            return
        if self._out.isatty():
            self._draw(step, eta)
        elif force or now - self._last_line > 10:
            self._last_line = now
            left = f", about {_clock(eta)} left in all" if eta is not None else ""
            clock = _clock(now - self._started)
            count = f"{step.done:,}/{step.total:,} {step.unit} ({step.fraction:.0%})"
            print(f"{step.name}: {count}, {clock} elapsed{left}", file=self._out, flush=True)

    def _draw(self, step: "StageProgress", eta: float | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description:>12}"), BarColumn(), TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(), console=Console(file=self._out), transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task(step.name, total=1.0, state="")
        left = f"about {_clock(eta)} left in all, elapsed" if eta is not None else "elapsed"
        state = f"{step.done:,}/{step.total:,} {step.unit}, {left}"
        self._bar.update(self._task, description=step.name, completed=step.fraction, state=state)

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class StageProgress:
    """Progress of one stage in its own unit."""

    def __init__(self, parent: Progress, name: str, total: int, unit: str) -> None:
        self._parent, self.name, self.total, self.unit = parent, name, total, unit
        self.done, self._partial = 0, 0.0

    @property
    def fraction(self) -> float:
        return min((self.done + self._partial) / self.total, 1.0)

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""
        self.done, self._partial = self.done + n, 0.0
        self._parent._show(self)  # pyright: ignore[reportPrivateUsage]

    def partly(self, units: float) -> None:
        """Say how much of the units in work is done, for the bar and the ETA."""
        self._partial = units
        self._parent._show(self)  # pyright: ignore[reportPrivateUsage]


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return (
        f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
        if whole >= 3600
        else f"{whole // 60}:{whole % 60:02}"
    )
