"""What the log of a run says of its processes: when each began and ended, with how many workers.

In: the run folder and the recipe's `run` section. Out: lines in events.jsonl, which `report.passes` reads. It
is a log, not state: nothing is decided by it, and a disk that is full does not end a run here.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from quadmix.io.atomic import append_event
from quadmix.recipe import RunSection

EVENTS = "events.jsonl"
ALIVE_SECONDS = 60.0


@contextmanager
def logged(folder: Path, run: RunSection, workers: int) -> Generator[None]:
    """Log that a process works on this folder during the block, and at its end how it ended."""
    _append(folder, event="open", workers=workers, executor=run.executor, device=run.device)
    how = "finished"
    try:
        yield
    except BaseException as error:
        how = "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
        raise
    finally:
        _append(folder, event="close", how=how)


def log_alive(folder: Path, stage: str) -> None:
    """Log a sign of life from inside a stage; to be called every ALIVE_SECONDS."""
    _append(folder, event="alive", stage=stage)


def log_step(folder: Path, stage: str, step: str, unit: str, **counts: float) -> None:
    """Log what one step of a stage did: units, documents, tokens, seconds, failed, retried."""
    _append(folder, event="step", stage=stage, step=step, unit=unit, **counts)


def _append(folder: Path, **event: str | float) -> None:
    with suppress(OSError):
        append_event(folder / EVENTS, {"time": time.time(), **event})
