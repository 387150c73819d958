"""Work side by side in threads of this process, for what spends its time in Arrow, numpy, LAPACK or LightGBM,
which let go of the interpreter: shards of numbers, and small fits that a process would take longer to start
than to do."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from quadmix.errors import MissingExtraError
from quadmix.io.fs import available_cores

T = TypeVar("T")
R = TypeVar("R")


def run_threads(function: Callable[[T], R], tasks: Sequence[T], workers: int = 0) -> list[R]:
    """Return [function(task) for task in tasks], each on one BLAS thread, `workers` (0: one per core) at
    once.

    The results do not depend on `workers`: every task computes with one thread, alone.
    """
    with one_thread():
        many = min(workers or available_cores(), len(tasks))
        if many < 2:
            return [function(task) for task in tasks]
        with ThreadPoolExecutor(many) as pool:
            return list(pool.map(function, tasks))


def run_in_threads(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    workers: int,
    on_done: Callable[[int, Any], None],
) -> None:
    """Run all tasks and give each result to `on_done(index, result)` in this thread; see `tasks.run_tasks`.

    After an error, or Ctrl-C, no further task begins; those that run are waited for.
    """
    waiting = deque(enumerate(tasks))
    with ThreadPoolExecutor(workers, thread_name_prefix="quadmix") as pool:
        running: dict[Future[Any], int] = {}
        while waiting or running:
            while waiting and len(running) < workers:
                index, task = waiting.popleft()
                running[pool.submit(function, task)] = index
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                on_done(running.pop(done), done.result())


@contextmanager
def one_thread() -> Generator[None]:
    """Run BLAS on one thread inside the block: on small matrices more are slower, and their sums vary."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingExtraError("threadpoolctl", "search", "fits of the surrogate") from error
    with threadpool_limits(limits=1):
        yield
