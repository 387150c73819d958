"""Run one function over many tasks: here, in threads, in worker processes or on a Ray cluster; the only room
that knows where work runs.

In: a module-level function, its tasks, a place. Out: results in task order, whatever finished first. Each
worker has one thread for BLAS, torch and Arrow, so that results do not depend on the number of workers or on
the place (promise P7). A worker that dies (kill -9, out of memory, a lost node) loses only the task in its
hands, which is given out again. No worker outlives the parent.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from quadmix.engine.pool import run_in_processes
from quadmix.engine.threads import run_in_threads
from quadmix.errors import QuadmixError
from quadmix.io.fs import available_cores

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Place:
    """Where tasks run. workers: tasks at once, 0 = one per core (Ray: as many as the cluster holds).

    threads: for tasks that live in Arrow and numpy, which let go of the interpreter; no start, no copies.

    address: of a Ray cluster, None starts a local one. gpu_share: GPUs that one task takes. gpu_ids: local
    GPUs dealt out to the worker processes in turn; empty leaves all visible.
    """

    executor: Literal["serial", "threads", "processes", "ray"] = "processes"
    workers: int = 0
    address: str | None = None
    gpu_share: float = 0.0
    gpu_ids: tuple[str, ...] = ()


LOCAL = Place()


def resolve_workers(workers: int) -> int:
    """Return the number of worker processes; 0 means one per core that this process may use."""
    if workers < 0:
        raise QuadmixError(f"run.workers is {workers}, expected 0 (one per core) or more")
    return workers or available_cores()


def slots(place: Place) -> int:
    """Return how many tasks of one CPU (and the place's share of a GPU) run there at once."""
    if place.executor != "ray":
        return max(1, place.workers)
    from quadmix.engine.cluster import cluster_slots

    there = cluster_slots(place.address, place.workers, place.gpu_share)
    return max(1, min(place.workers or there, there))


def run_tasks(
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    place: Place = LOCAL,
    on_done: Callable[[int, R], None] | None = None,
    on_death: Callable[[T, int], T] | None = None,
    keep: bool = True,
) -> list[R]:
    """Return [function(task) for task in tasks]; `on_done(index, result)` is called here as results arrive,
    `on_death(task, deaths)` when a task's worker died, for the task to give out in its place.

    keep: False gives results to `on_done` alone, so that many large ones need not be held; the list is
    empty then. An exception of a task ends the run and is raised here as it was. A task whose worker died
    three times is a QuadmixError that names it.
    """
    results: dict[int, R] = {}

    def take(index: int, result: R) -> None:
        if keep:
            results[index] = result
        if on_done:
            on_done(index, result)

    _spread(function, tasks, place, take, on_death)
    return [results[i] for i in range(len(tasks))] if keep else []


def _spread(
    function: Callable[[T], R],
    tasks: Sequence[T],
    place: Place,
    take: Callable[[int, R], None],
    on_death: Callable[[T, int], T] | None,
) -> None:
    """Run all tasks at the place; `take(index, result)` is called in this thread, once per task."""
    if place.executor == "serial":
        for index, task in enumerate(tasks):
            take(index, function(task))
        return
    if place.executor == "threads":
        run_in_threads(function, tasks, workers=resolve_workers(place.workers), on_done=take)
        return
    _check_importable(function)
    if place.executor == "ray":
        from quadmix.engine.cluster import run_in_ray

        run_in_ray(function, tasks, address=place.address, workers=place.workers,
                   gpu_share=place.gpu_share, on_done=take, on_death=on_death)  # fmt: skip
        return
    workers = resolve_workers(place.workers)
    run_in_processes(function, tasks, workers=workers, gpu_ids=place.gpu_ids, on_done=take, on_death=on_death)


@contextmanager
def session(place: Place) -> Generator[None]:
    """Keep a Ray cluster connected inside the block, so that many calls of `run_tasks` start it once."""
    if place.executor != "ray":
        yield
        return
    from quadmix.engine.cluster import connection

    with connection(place.address, place.workers):
        yield


def _check_importable(function: Callable[..., Any]) -> None:
    name = getattr(function, "__qualname__", "")
    if "<" in name:
        raise QuadmixError(
            f"function {name!r} cannot be sent to a worker process; expected a module-level function, "
            "or run with executor 'serial'"
        )
