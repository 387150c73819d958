"""Functions that worker processes import in the tests."""

import os
import signal
import time
from pathlib import Path

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
