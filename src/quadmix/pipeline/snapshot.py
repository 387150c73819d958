"""How far a run is, as one value: what the display shows and progress.json holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FILE = "progress.json"
RunState = Literal["running", "finished", "failed", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCounts:
    """Models of a stage. done: finished, loaded ones counted. failed: ended without a result. retried: given
    out again because their worker died. total: of the steps that have begun."""

    done: int
    failed: int
    retried: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """One stage. state: `reused` is one whose result was there and that has not begun yet, `loaded` one that
    was passed without work. seconds: so far or in all, None before it begins. eta_s: that its step at work
    still takes, or that it will take; None where that is not known. trials: None where nothing is trained.
    """

    name: str
    state: Literal["waiting", "reused", "running", "done", "loaded", "failed"]
    seconds: float | None
    eta_s: float | None
    trials: TrialCounts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything about a run at one moment, from the process that works at it.

    state: that of the process; one that was killed leaves `running` behind, and `updated` stands still.
    error: kind of the error that ended it, "" if none. stage: the step at work or the last one, a stage or
    a part of one, such as `swarm 2`; done, total, unit: its work, and fraction (0 to 1) with the units in
    work counted. rates: what passes per second over the last while: `<unit>_per_s`, `documents_per_s`,
    `tokens_per_s`, those that are known. trials: of this step, None where it trains nothing. started,
    updated: UTC, ISO 8601. elapsed_s: seconds of this process. eta_s: seconds left of the run, stage_eta_s:
    of the step; None while too little is known. stages: in order, all that the run will pass.
    """

    state: RunState
    error: str
    pid: int
    host: str
    stage: str
    done: int
    total: int
    unit: str
    fraction: float
    rates: Mapping[str, float]
    trials: TrialCounts | None
    started: str
    updated: str
    elapsed_s: float
    eta_s: float | None
    stage_eta_s: float | None
    stages: tuple[StageState, ...]
    version: int = 1
