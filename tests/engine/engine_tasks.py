"""Functions that worker processes import in the tests."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from quadmix.errors import InputError, MissingExtraError


def square(n: int) -> int:
    return n * n


def slow_first(n: int) -> int:
    time.sleep(0.3 if n == 0 else 0.0)
    return n


def worker_facts(_: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM")
    return {"pid": str(os.getpid()), **{n: os.environ.get(n, "") for n in names}}


def die_once(marker: str) -> str:
    """Kill this worker the first time, succeed the second."""
    path = Path(marker)
    if not path.name.startswith("safe") and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def die_always(n: int) -> int:
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def fail(kind: str) -> int:
    if kind == "extra":
        raise MissingExtraError("torch", "proxy", "training proxies")
    if kind == "input":
        error = InputError("file 'x' is cut")
        error.add_note("context")
        raise error
    if kind == "key":
        return {"a": 1}["b"]
    if kind == "unicode":
        b"\xff".decode()
    raise ValueError("wrong number")


def unpicklable(_: int) -> object:
    return lambda: None


def big(n: int) -> bytes:
    return bytes([n]) * 5_000_000


def length(data: bytes) -> int:
    return len(data)


def hang(marker: str) -> None:
    """Say who works, then work for a minute; remove a temporary file on the way out."""
    path = Path(marker)
    path.write_text(str(os.getpid()))
    temporary = path.with_suffix(".tmp")
    temporary.touch()
    try:
        time.sleep(60)
    finally:
        temporary.unlink()


def crowd(task: tuple[str, str, int]) -> int:
    """Wait until `count` tasks have begun, then return how many are at work at the same time."""
    folder, name, count = task
    begun, running = Path(folder, f"begun-{name}"), Path(folder, f"running-{name}")
    begun.touch()
    running.touch()
    deadline = time.monotonic() + 60
    while len(list(Path(folder).glob("begun-*"))) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    most = 0
    for _ in range(20):  # long enough for one too many to show itself
        most = max(most, len(list(Path(folder).glob("running-*"))))
        time.sleep(0.02)
    running.unlink()
    return most


def sums(seed: int) -> tuple[bytes, bytes]:
    """Return float sums whose last bits depend on how many threads add them up."""
    import numpy as np
    import torch

    data = np.random.default_rng(seed).normal(size=(300, 700)).astype(np.float32)
    product = torch.from_numpy(data) @ torch.from_numpy(data).T
    return (data.T @ data).tobytes(), (product.numpy().tobytes() + product.sum().numpy().tobytes())


def train_and_die(group: Any) -> Any:
    """Train a group of proxies; the first worker of all kills itself."""
    from quadmix.proxy.swarm import train_task

    Path(group.folder).mkdir(exist_ok=True)
    die_once(str(Path(group.folder, "died")))
    return train_task(group)


def train_and_wait(group: Any) -> Any:
    """Train a group of proxies; the first task says on which node it is and waits for the end."""
    import ray

    from quadmix.proxy.swarm import train_task

    mark = Path(group.folder, "held-node")
    mark.parent.mkdir(exist_ok=True)
    try:
        os.close(os.open(mark.with_suffix(".lock"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return train_task(group)
    mark.with_suffix(".part").write_text(ray.get_runtime_context().get_node_id())
    mark.with_suffix(".part").rename(mark)
    time.sleep(120)


def hang_or_fail(task: str) -> None:
    """Hang, or, for "fail <marker>", fail as soon as the other hangs."""
    marker = Path(task.removeprefix("fail "))
    if not task.startswith("fail "):
        hang(task)
    deadline = time.monotonic() + 60
    while not marker.with_suffix(".tmp").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    fail("input")


def die_if_large(size: int) -> int:
    """Stand for a task that the kernel kills for want of memory."""
    if size > 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return size


def smaller(size: int, deaths: int) -> int:
    return size if deaths < 2 else size // 4
