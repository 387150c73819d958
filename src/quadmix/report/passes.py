"""events.jsonl -> which processes worked on a run, and when each of its stages was passed.

In: lines of the log: `start` and `end` of a stage; `open` and `close` of a process; `alive` and `step` from
inside a stage (versions before these have the first two alone; then a process begins where the first stage is
started again). Out: `Process` and `Pass` values. Times are seconds since 1970.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

FIRST_STAGE = "corpus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One time that a stage was passed. end: None if nothing says when.

    state: "cut" if another process came before it ended; "open" if the log ends before it does: it is at
    work, or was killed. Then `end` is the last sign of life after its start, if there was one.
    """

    stage: str
    process: int
    start: float
    end: float | None
    state: Literal["ended", "cut", "open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process. end: its last sign of life. workers: 0 if not recorded. how: "finished", the kind of error
    that ended it, or "" if it ended without a word."""

    start: float
    end: float
    workers: int = 0
    device: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one step of a stage did: units, documents and tokens that went through it, in seconds; models that
    failed or were given out again because their worker died."""

    stage: str
    step: str
    unit: str
    units: int
    documents: int
    tokens: int
    seconds: float
    failed: int
    retried: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The whole log. broken: lines that could not be read."""

    processes: tuple[Process, ...] = ()
    passes: tuple[Pass, ...] = ()
    work: tuple[Work, ...] = ()
    broken: int = 0


@dataclass(slots=True, kw_only=True)
class _Open:
    """A process that is being read. running: stage -> its start."""

    start: float
    last: float
    opened: bool
    workers: int = 0
    device: str = ""
    how: str = ""
    running: dict[str, float] = field(default_factory=dict[str, float])
    passed: list[str] = field(default_factory=list[str])


def read_history(lines: Iterable[Any], broken: int = 0) -> History:
    """Return what the lines of a log say, in their order; those that are no events are counted."""
    found: list[_Open] = []
    passes: list[Pass] = []
    work: list[Work] = []
    for line in lines:
        event = _event(line)
        if event is None:
            broken += 1
            continue
        time, kind, stage = event
        if not found or _is_new(found[-1], kind, stage):
            _cut(found, passes, "cut")
            found.append(_Open(start=time, last=time, opened=kind == "open"))
        now = found[-1]
        now.last = max(now.last, time)
        if kind == "open":
            now.workers, now.device = _whole(line, "workers"), str(line.get("device") or "")
        elif kind == "close":
            now.how = str(line.get("how") or "finished")
        elif kind == "start":
            now.running[stage] = time
            now.passed.append(stage)
        elif kind == "end" and stage in now.running:
            passes.append(
                Pass(stage=stage, process=len(found), start=now.running.pop(stage), end=time, state="ended")
            )
        elif kind == "step":
            work.append(_work(line, stage))
    _cut(found, passes, "cut" if found and found[-1].how else "open")
    passes.sort(key=lambda p: (p.start, p.process))
    return History(
        processes=tuple(
            Process(start=p.start, end=p.last, workers=p.workers, device=p.device, how=p.how) for p in found
        ),
        passes=tuple(passes),
        work=tuple(work),
        broken=broken,
    )


def _event(line: Any) -> tuple[float, str, str] | None:
    if not isinstance(line, dict):
        return None
    record = cast(dict[str, Any], line)
    time = record.get("time")
    if not isinstance(time, int | float) or isinstance(time, bool):
        return None
    return float(time), str(record.get("event")), str(record.get("stage") or "")


def _is_new(now: _Open, kind: str, stage: str) -> bool:
    """Does this event belong to another process? Without `open` the first stage comes once in each."""
    if kind == "open" or (now.how and kind == "start"):
        return True
    return not now.opened and kind == "start" and stage == FIRST_STAGE and FIRST_STAGE in now.passed


def _cut(found: list[_Open], passes: list[Pass], state: Literal["cut", "open"]) -> None:
    """Close what the last process left open."""
    if found:
        now = found[-1]
        for stage, start in now.running.items():
            end = now.last if now.last > start else None
            passes.append(Pass(stage=stage, process=len(found), start=start, end=end, state=state))
        now.running = {}


def _whole(line: dict[str, Any], name: str) -> int:
    value = line.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _work(line: dict[str, Any], stage: str) -> Work:
    seconds = line.get("seconds")
    return Work(
        stage=stage,
        step=str(line.get("step") or stage),
        unit=str(line.get("unit") or ""),
        units=_whole(line, "units"),
        documents=_whole(line, "documents"),
        tokens=_whole(line, "tokens"),
        seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        failed=_whole(line, "failed"),
        retried=_whole(line, "retried"),
    )
