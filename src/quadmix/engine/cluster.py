"""Tasks on a Ray cluster: the same functions, the same bytes, given out again when a worker or node is lost.

Ray finds the free CPUs and GPUs; here is what it cannot know: one thread per task, how many tasks may wait in
its store, which task a lost worker held, and whose errors are whose. quadmix must be installed on every node.
"""

import logging
import os
import signal
import socket
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from quadmix.engine.pool import (
    ENVIRONMENT,
    MAX_RETRIES,
    Failure,
    name_of,
    packed,
    rebuilt,
)
from quadmix.errors import MissingExtraError, QuadmixError
from quadmix.io.door import network_environment
from quadmix.io.fs import available_cores

_PER_CPU = 2  # tasks handed to Ray per CPU: enough that none is idle, few enough for its store
_GRACE_SECONDS = 1.0
_CONNECT_SECONDS = 5.0
# unless the user says otherwise: no usage reports, no working directory sent out under `uv run`, no words on
# stdout about each lost worker
_RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker died or was killed|has been marked dead",
}
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HTTP2_SETTINGS = 4


def run_in_ray(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    address: str | None = None,
    workers: int = 0,
    gpu_share: float = 0.0,
    on_done: Callable[[int, Any], None],
    on_death: Callable[[Any, int], Any] | None = None,
) -> None:
    """Run all tasks and give each result to `on_done(index, result)`; see `tasks.run_tasks`.

    workers: tasks at once, 0 = as many as the cluster holds. gpu_share: GPUs per task, fractions allowed. A
    cluster that this program is connected to already is used as it is. Raises QuadmixError when no cluster
    answers, when no node has the GPUs, or when a task lost its worker too often.
    """
    with connection(address, workers) as ray:
        _check_room(ray, gpu_share)
        attempt = ray.remote(
            num_cpus=1,
            num_gpus=gpu_share,
            max_retries=0,
            runtime_env={"env_vars": ENVIRONMENT | network_environment()},
        )(_attempt)
        tasks = list(tasks)
        waiting, deaths = deque(range(len(tasks))), [0] * len(tasks)
        running = dict[Any, int]()
        try:
            while waiting or running:
                limit = workers or _PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
                while waiting and len(running) < limit:
                    index = waiting.popleft()
                    running[attempt.remote(function, tasks[index])] = index
                for done in ray.wait(list(running), num_returns=1)[0]:
                    index = running.pop(done)
                    answer, lost = _answer(ray, done)
                    if lost is not None:
                        deaths[index] += 1
                        _check_deaths(function, index, tasks, deaths[index], lost)
                        if on_death:
                            tasks[index] = on_death(tasks[index], deaths[index])
                        waiting.appendleft(index)
                        continue
                    on_done(index, answer)
        finally:
            _cancel(ray, list(running))


def cluster_slots(address: str | None, workers: int, gpu_share: float) -> int:
    """Return how many tasks of one CPU and `gpu_share` GPUs the cluster holds at once."""
    with connection(address, workers) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        int(min(node.get("CPU", 0), node.get("GPU", 0) / gpu_share if gpu_share else 1e9)) for node in nodes
    )


def _attempt(function: Callable[[Any], Any], task: Any) -> Any:
    """Body of a Ray task; an error travels in parts, since Ray cannot rebuild every exception."""
    try:
        return function(task)
    except Exception as error:  # the border between processes: whatever it is, the driver raises it
        return packed(error)


def _answer(ray: Any, done: Any) -> tuple[Any, Exception | None]:
    """Return a task's result, or how its worker was lost; raises the task's own error."""
    try:
        answer = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        reason = str(error).strip().splitlines()[-1]
        raise QuadmixError(
            f"a Ray worker could not start a task or send its result: {reason}; is this version of quadmix "
            "installed on every node?"
        ) from error
    except ray.exceptions.RayError as error:
        return None, error
    if isinstance(answer, Failure):
        raise rebuilt(answer)
    return answer, None


def _check_deaths(
    function: Callable[..., Any], index: int, tasks: Sequence[Any], deaths: int, lost: Exception
) -> None:
    if deaths > MAX_RETRIES:
        how = f"{type(lost).__name__}: {(str(lost).strip() or 'no message').splitlines()[0]}"
        raise QuadmixError(
            f"task {index} of {len(tasks)} of {name_of(function)} ended its worker process {deaths} times "
            f"(last: {how}): {repr(tasks[index])[:300]}; if memory ran out, use fewer workers per node"
        ) from lost


def _cancel(ray: Any, running: list[Any]) -> None:
    """End the tasks: interrupt them (they remove their temporary files), then kill their workers."""
    for force in (False, True):
        for reference in running:
            ray.cancel(reference, force=force)
        if running:
            running = ray.wait(running, num_returns=len(running), timeout=_GRACE_SECONDS)[1]


@contextmanager
def connection(address: str | None, workers: int) -> Generator[Any]:
    """Yield the ray module, connected; what was not connected before is not connected after."""
    for name, value in _RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "executor: ray") from error
    if ray.is_initialized():
        yield ray
        return
    try:
        _connect(ray, address, workers)
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None, workers: int) -> None:
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options |= {"num_cpus": workers or available_cores(), "include_dashboard": False}
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address is not None:
            _check_listening(address)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its tips for users of its own API
            ray.init(address=address or "local", **options)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        what = "start Ray here" if address is None else f"use a Ray cluster at run.address {address!r}"
        raise QuadmixError(
            f"cannot {what}: {(str(error).strip() or type(error).__name__).splitlines()[0]}; start a cluster "
            "with `ray start --head` and give its host:port, or leave run.address out for a local one"
        ) from error
    finally:
        if here and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray installs its own


def _check_listening(address: str) -> None:
    """Raise unless a gRPC server answers there: Ray itself waits for minutes."""
    from ray._private.services import canonicalize_bootstrap_address

    found = address.partition("://")[2] or canonicalize_bootstrap_address(address)
    host, _, port = (found or "").rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as link:
        link.sendall(_HTTP2_HELLO)
        if os.environ.get("RAY_USE_TLS", "0") == "0" and link.recv(9)[3:4] != bytes([_HTTP2_SETTINGS]):
            raise ConnectionError("what listens there is not Ray")


def _check_room(ray: Any, gpu_share: float) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpu_share for node in nodes):
        most = max((node.get("GPU", 0) for node in nodes), default=0)
        raise QuadmixError(
            f"a task needs 1 CPU and {gpu_share:g} GPUs of one node; the Ray cluster has {len(nodes)} nodes "
            f"with at most {most:g} GPUs; set run.device to cpu, or add nodes"
        )
