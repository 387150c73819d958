"""What a person sees of a run: a live table on a terminal, plain lines in a log.

In: snapshots, notes. Out: text on one stream, on which names and notes can do nothing but stand there:
control characters and direction marks are spelt out.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TextIO

from quadmix.pipeline.snapshot import Snapshot, StageState, TrialCounts

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_OFTEN, _SELDOM = 10.0, 60.0  # seconds between lines where something has changed, and where nothing has
_STYLES = {"running": "bold", "done": "green", "loaded": "green", "failed": "red"}
_MARKS = {"running": "▸", "done": "✓", "loaded": "✓", "reused": "✓", "failed": "✗"}
_PLAIN_MARKS = {"running": ">", "done": "+", "loaded": "+", "reused": "+", "failed": "x"}
_OVER = ("done", "loaded", "failed")
_BAR, _NAME = 12, 24


class Display(Protocol):
    """Shows how far a run is. Raises OSError or ValueError when the stream is gone."""

    def draw(self, shown: Snapshot, /) -> None:
        """Show what is new; called every second or so."""
        ...

    def turn(self, shown: Snapshot, /) -> None:
        """Show that a step has begun or ended."""
        ...

    def note(self, text: str, /) -> None:
        """Print one line of information."""
        ...

    def close(self, shown: Snapshot, /) -> None:
        """Leave the stream as it was, the last state on it."""
        ...


def display(out: TextIO) -> Display:
    """Return a live table where `out` is a terminal that can move its cursor, plain lines elsewhere."""
    dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return LiveTable(out) if out.isatty() and not dumb else Lines(out)


class Lines:
    """A line when a step begins and when it ends, and now and then between."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last, self._said = time.monotonic(), 0.0

    def draw(self, shown: Snapshot) -> None:
        often = min(max(_OFTEN, shown.elapsed_s / 100), _SELDOM)
        wait = _SELDOM if shown.fraction == self._said else often
        if shown.total and shown.fraction < 1 and time.monotonic() - self._last >= wait:
            self.turn(shown)

    def turn(self, shown: Snapshot) -> None:
        self._last, self._said = time.monotonic(), shown.fraction
        self._print(line(shown))

    def note(self, text: str) -> None:
        self._print(_safe(text))

    def close(self, shown: Snapshot) -> None:
        pass

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class LiveTable:
    """One row per stage, redrawn in place; notes go above it."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live: Live | None = None

    def draw(self, shown: Snapshot) -> None:
        if self._live is None:
            self._live = _open_live(self._out)
        console = self._live.console
        self._live.update(table(shown, console.width, console.height, plain=console.options.ascii_only))
        self._live.refresh()

    def turn(self, shown: Snapshot) -> None:
        pass  # the next drawing shows it

    def note(self, text: str) -> None:
        from rich.text import Text

        if self._live is None:
            print(_safe(text), file=self._out, flush=True)
        else:
            self._live.console.print(Text(_safe(text)), soft_wrap=True)

    def close(self, shown: Snapshot) -> None:
        if self._live is None:
            return
        try:
            self.draw(shown)
        finally:
            live, self._live = self._live, None
            over = all(s.state in _OVER or s.state == "reused" for s in shown.stages)
            live.transient = shown.state == "running" and not over  # another table will follow
            live.stop()


def _open_live(out: TextIO) -> "Live":
    from rich.console import Console
    from rich.live import Live

    live = Live(
        console=Console(file=out, highlight=False), auto_refresh=False, vertical_overflow="crop",
        redirect_stdout=sys.stdout.isatty(), redirect_stderr=out is sys.stderr,
    )  # fmt: skip
    live.start()
    return live


def line(shown: Snapshot) -> str:
    """Return a snapshot as one line of a log."""
    share = f"{shown.done:,}/{shown.total:,} {shown.unit} ({shown.fraction:.0%})"
    said = [share, f"{clock(shown.elapsed_s)} elapsed", *_rates(shown)]
    if shown.trials is not None and shown.trials.failed:
        said.append(f"{shown.trials.failed} failed")
    if shown.trials is not None and shown.trials.retried:
        said.append(f"{shown.trials.retried} retried")
    if shown.stage_eta_s is not None:
        said.append(f"about {clock(shown.stage_eta_s)} left of this")
    if shown.eta_s is not None:
        said.append(f"about {clock(shown.eta_s)} left in all")
    return f"{_name(shown.stage)}: {', '.join(said)}"


def clock(seconds: float) -> str:
    """Return seconds as 1:02:03, or 2:03 below an hour."""
    whole = round(seconds)
    minutes = f"{whole // 60 % 60:02}" if whole >= 3600 else f"{whole // 60}"
    return f"{whole // 3600}:{minutes}:{whole % 60:02}" if whole >= 3600 else f"{minutes}:{whole % 60:02}"


def table(shown: Snapshot, width: int, height: int, *, plain: bool = False) -> "Table":
    """Return the table of a run that fits a terminal. plain: in ASCII alone."""
    from rich.table import Table
    from rich.text import Text

    marks, stages = _PLAIN_MARKS if plain else _MARKS, _fitting(shown.stages, height - 4)
    names = ["", "stage", "", "done", "rate", "ok/fail/retry", "time", "left"]
    bar, share, rates = _bar(shown.fraction, "#-" if plain else "━─"), f"{shown.fraction:.0%}", _rates(shown)
    rows: list[list[str]] = []
    for done, speed in ((bar, rates[:2]), (share, rates[:2]), (bar, rates[:1]), (share, rates[:1])):
        rows = [_cells(shown, stage, marks, done, ", ".join(speed)) for stage in stages]
        if len(_columns([names, *rows], width)) == len(_columns([names, *rows], 1000)):
            break  # all columns fit; else first the bar becomes a number, then one rate goes
    kept = _columns([names, *rows], width)
    grid = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim", show_footer=False)
    for column in kept:
        side = "left" if column in (0, 1, 2) else "right"
        grid.add_column(names[column], justify=side, no_wrap=True, overflow="ellipsis")
    for stage, cells in zip(stages, rows, strict=True):
        grid.add_row(*(Text(cells[c]) for c in kept), style=_STYLES.get(stage.state, "dim"))
    return _with_total(grid, _total(shown))


def _with_total(grid: "Table", text: str) -> "Table":
    from rich.table import Table
    from rich.text import Text

    whole = Table.grid()
    whole.add_column(no_wrap=True, overflow="ellipsis")
    whole.add_row(grid)
    whole.add_row(Text(text, style="bold"))
    return whole


def _fitting(stages: Sequence[StageState], height: int) -> Sequence[StageState]:
    """Return the stages for which there is room: those at work and what comes next first of all."""
    if len(stages) <= max(height, 1):
        return stages
    at = next((i for i, s in enumerate(stages) if s.state == "running"), len(stages) - 1)
    start = min(at, len(stages) - max(height, 1))
    return stages[start : start + max(height, 1)]


def _cells(shown: Snapshot, stage: StageState, marks: dict[str, str], bar: str, rate: str) -> list[str]:
    """Return mark, name, bar, count, rate, trials, time and time left of one stage."""
    mark, name = marks.get(stage.state, ""), _cut(_name(stage.name))
    trials = "" if stage.trials is None else _trials(stage.trials)
    seconds = "" if stage.seconds is None else clock(stage.seconds)
    left = "" if stage.eta_s is None else clock(stage.eta_s)
    if stage.state in ("loaded", "reused"):
        return [mark, name, "", "loaded" if stage.state == "loaded" else "there", "", trials, seconds, left]
    if stage.state != "running":
        return [mark, name, "", "", "", trials, seconds, left and f"({left})"]
    name, step = _name(stage.name), _name(shown.stage)
    if step != name:
        name = step if step.startswith(name) else f"{name}: {step}"
    count = f"{shown.done:,}/{shown.total:,} {shown.unit}" if shown.total else ""
    return [mark, _cut(name), bar if shown.total else "", count, rate, trials, seconds, left]


def _bar(fraction: float, ink: str) -> str:
    full = round(fraction * _BAR)
    return ink[0] * full + ink[1] * (_BAR - full)


def _columns(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the columns that are not empty and fit the width; the least telling ones go first."""
    from rich.cells import cell_len

    widest = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    filled = [any(column) for column in zip(*rows[1:], strict=True)]
    kept = [c for c in range(len(widest)) if filled[c]]
    for column in (2, 4, 6, 5, 3):
        if sum(widest[c] + 1 for c in kept) > width and column in kept:
            kept.remove(column)
    return kept


def _total(shown: Snapshot) -> str:
    ended = {"finished": "finished", "failed": "failed", "interrupted": "interrupted"}.get(shown.state)
    if ended:
        return f"{ended} after {clock(shown.elapsed_s)}"
    if all(stage.state in _OVER for stage in shown.stages):
        return f"{clock(shown.elapsed_s)} in all"
    left = "time left not known yet" if shown.eta_s is None else f"about {clock(shown.eta_s)} left in all"
    return f"{clock(shown.elapsed_s)} elapsed, {left}"


def _trials(trials: TrialCounts) -> str:
    return f"{trials.done}/{trials.failed}/{trials.retried}"


def _rates(shown: Snapshot) -> list[str]:
    kinds = ("tokens", "documents", "bytes")
    return [f"{_short(r)} {k}/s" for k in kinds if (r := shown.rates.get(f"{k}_per_s"))]


def _short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _cut(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 3]}..."


def _name(text: str) -> str:
    return " ".join(_safe(text).split())


def _safe(text: str) -> str:
    """Return text that a terminal does not obey."""
    if text.isprintable():
        return text
    from quadmix.report.text import clean

    return clean(text).replace("\t", " ")
