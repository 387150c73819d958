"""Small numerical fits side by side in threads: they spend their time in LAPACK and LightGBM, which let go of
the interpreter, and a process would take longer to start than most of them take."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

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


@contextmanager
def one_thread() -> Generator[None]:
    """Run BLAS on one thread inside the block: on small matrices more are slower, and their sums vary."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingExtraError("threadpoolctl", "search", "fits of the surrogate") from error
    with threadpool_limits(limits=1):
        yield
