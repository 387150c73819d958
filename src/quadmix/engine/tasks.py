"""Run one function over many tasks, here or in worker processes; the only room that knows where work runs.

In: a module-level function and its tasks. Out: results in task order, whatever finished first. Each worker
is a fresh (spawned) process with one thread for BLAS, torch and Arrow, so that results do not depend on the
number of workers (promise P7). A worker that dies (kill -9, out of memory) loses only the task in its hands,
which is given out again. No worker outlives the parent.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from quadmix.engine.pool import run_in_processes
from quadmix.errors import QuadmixError
from quadmix.io.fs import available_cores

T = TypeVar("T")
R = TypeVar("R")


def resolve_workers(workers: int) -> int:
    """Return the number of worker processes; 0 means one per core that this process may use."""
    if workers < 0:
        raise QuadmixError(f"run.workers is {workers}, expected 0 (one per core) or more")
    return workers or available_cores()


def run_tasks(
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    executor: Literal["serial", "processes"] = "processes",
    workers: int = 0,
    on_done: Callable[[int, R], None] | None = None,
) -> list[R]:
    """Return [function(task) for task in tasks]; `on_done(index, result)` is called here as results arrive.

    An exception of a task ends the run and is raised here as it was. A task whose worker died three times
    is a QuadmixError that names it.
    """
    if executor == "processes":
        _check_importable(function)
        return run_in_processes(function, tasks, workers=resolve_workers(workers), on_done=on_done)
    results: list[R] = []
    for index, task in enumerate(tasks):
        results.append(function(task))
        if on_done:
            on_done(index, results[-1])
    return results


def _check_importable(function: Callable[..., Any]) -> None:
    name = getattr(function, "__qualname__", "")
    if "<" in name:
        raise QuadmixError(
            f"function {name!r} cannot be sent to a worker process; expected a module-level function, "
            "or run with executor 'serial'"
        )
