"""Worker processes with one pipe each, so that a death is known at once and blames exactly one task.

The standard pools either hang on a killed worker or fail all tasks without saying which one it held.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from quadmix.errors import QuadmixError

MAX_RETRIES = 2
_GRACE_SECONDS = 3.0
# one thread per worker: sums of floats, and so results, must not depend on the machine's cores
ENVIRONMENT = {
    **dict.fromkeys(
        (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "VECLIB_MAXIMUM_THREADS",
            "NUMEXPR_NUM_THREADS",
            "RAYON_NUM_THREADS",
            "ARROW_IO_THREADS",
        ),
        "1",
    ),
    "TOKENIZERS_PARALLELISM": "false",
    # training takes and frees the same large blocks every step; giving them back each time costs 5 to 13 %
    "MALLOC_TRIM_THRESHOLD_": "2000000000",
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
}


@dataclass(slots=True)
class _Worker:
    process: Any
    pipe: Connection
    gpu: str | None
    task: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception on its way to the parent, in parts: not every class can be rebuilt by calling it."""

    kind: type[Exception]
    args: tuple[Any, ...]
    notes: tuple[str, ...]


def run_in_processes(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    workers: int,
    gpu_ids: Sequence[str] = (),
    on_done: Callable[[int, Any], None],
    on_death: Callable[[Any, int], Any] | None = None,
) -> None:
    """Run all tasks and give each result to `on_done(index, result)`; see `tasks.run_tasks`."""
    tasks, waiting = list(tasks), deque(range(len(tasks)))
    left = len(tasks)
    deaths = [0] * len(tasks)
    pool: list[_Worker] = []
    try:
        for number in range(min(workers, len(tasks))):
            _start(pool, function, gpu_ids[number % len(gpu_ids)] if gpu_ids else None)
        while left:
            for worker in pool:
                if worker.task is None and waiting:
                    worker.task = waiting.popleft()
                    _send(worker, tasks[worker.task])
            for worker in _ready(pool):
                index = cast(int, worker.task)
                answer, alive = _receive(worker)
                if not alive:
                    deaths[index] += 1
                    _check_deaths(function, index, tasks, deaths[index], _bury(pool, worker))
                    if on_death:
                        tasks[index] = on_death(tasks[index], deaths[index])
                    waiting.appendleft(index)
                    _start(pool, function, worker.gpu)
                    continue
                worker.task = None
                if isinstance(answer, Failure):
                    raise rebuilt(answer)
                left -= 1
                on_done(index, answer)
    finally:
        _stop(pool)


def _start(pool: list[_Worker], function: Callable[[Any], Any], gpu: str | None) -> None:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, function), daemon=True)
    with _environment(ENVIRONMENT | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})):
        process.start()
    theirs.close()  # so that the death of the worker closes the pipe
    pool.append(_Worker(process, ours, gpu))


@contextmanager
def _environment(wanted: dict[str, str]) -> Generator[None]:
    """Give the children their environment; it must be there before they import numpy."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _send(worker: _Worker, task: Any) -> None:
    # if it died, the closed pipe is found by `_ready` and the task given out again
    with suppress(BrokenPipeError, ConnectionResetError):
        worker.pipe.send(task)


def _ready(pool: list[_Worker]) -> list[_Worker]:
    """Wait until a busy worker has answered or died."""
    busy = {id(w.pipe): w for w in pool if w.task is not None}
    return [busy[id(pipe)] for pipe in wait([w.pipe for w in busy.values()])]


def _receive(worker: _Worker) -> tuple[Any, bool]:
    try:
        return worker.pipe.recv(), True
    except (EOFError, OSError):
        return None, False


def _bury(pool: list[_Worker], worker: _Worker) -> int | None:
    """Remove a dead worker and return its exit code."""
    pool.remove(worker)
    worker.pipe.close()
    worker.process.join(_GRACE_SECONDS)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    return worker.process.exitcode


def _check_deaths(
    function: Callable[..., Any], index: int, tasks: Sequence[Any], deaths: int, exit_code: int | None
) -> None:
    if deaths <= MAX_RETRIES:
        return
    how = f"signal {-exit_code}" if exit_code and exit_code < 0 else f"exit code {exit_code}"
    hint = (
        "it ran out of memory, probably: use fewer workers (run.workers) or smaller groups (proxy.group)"
        if exit_code == -signal.SIGKILL
        else "its own message is above; a script that calls quadmix needs `if __name__ == '__main__':`"
    )
    raise QuadmixError(
        f"task {index} of {len(tasks)} of {name_of(function)} ended its worker process {deaths} times "
        f"(last: {how}): {repr(tasks[index])[:300]}; {hint}"
    )


def name_of(function: Callable[..., Any]) -> str:
    """Return what a task's function is called in messages."""
    return getattr(getattr(function, "func", function), "__name__", repr(function))


def rebuilt(failure: Failure) -> Exception:
    if issubclass(failure.kind, OSError):
        error: Exception = failure.kind(*failure.args)  # its errno and filename come from the call alone
    else:
        error = failure.kind.__new__(failure.kind)
        error.args = failure.args
    for note in failure.notes:
        error.add_note(note)
    return error


def _stop(pool: list[_Worker]) -> None:
    """End all workers: ask with SIGTERM (they remove their temporary files), then SIGKILL."""
    for worker in pool:
        worker.process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for worker in pool:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()


def _work(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Body of a worker: answer tasks until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(function(task))
        except BrokenPipeError:
            return
        except Exception as error:  # the border between processes: whatever it is, the parent raises it
            pipe.send(packed(error))


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)


def packed(error: Exception) -> Failure:
    """Take an exception apart: ours as they are, others with the worker's trace, odd ones as RuntimeError."""
    notes = tuple(getattr(error, "__notes__", ()))
    if isinstance(error, QuadmixError) and "<" not in type(error).__qualname__:
        return Failure(type(error), tuple(map(str, error.args)), notes)
    notes += ("in a worker process:\n" + "".join(traceback.format_exception(error)),)
    named = isinstance(error, OSError)  # its fourth place is for Windows
    args = (*error.args[:2], error.filename, None, error.filename2) if named else tuple(map(str, error.args))
    same = Failure(type(error), args, notes)
    if type(error).__module__ == "builtins" and str(rebuilt(same)) == str(error):
        return same
    return Failure(RuntimeError, (f"{type(error).__name__}: {error}",), notes)
