"""One writer per run folder (promise P9): lease.json names the process, a heartbeat says that it lives.

A lease is stale after 60 s without heartbeat, or at once when its process is dead on the same host; then the
next run takes it over, and says so. A process that finds its lease taken (it was suspended, say) stops
with a LeaseError.
"""

import fcntl
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from quadmix.codec import to_json
from quadmix.errors import InputError, LeaseError
from quadmix.io.atomic import read_value, write_json

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who writes to the folder; `token` tells two leases of one process apart."""

    pid: int
    host: str
    started: float
    heartbeat: float
    token: str


@contextmanager
def lease(
    folder: str | Path,
    *,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    stale_seconds: float = STALE_SECONDS,
    note: Callable[[str], None] | None = None,
) -> Generator[Lease]:
    """Hold the folder for the length of the block; LeaseError if another living process holds it.

    note: told in words when a stale lease was taken over.
    """
    path = Path(folder, "lease.json")
    mine = _acquire(path, stale_seconds, note)
    stop, lost = threading.Event(), threading.Event()
    beat = threading.Thread(target=_beat, args=(path, mine, heartbeat_seconds, stop, lost), daemon=True)
    beat.start()
    try:
        yield mine
    except KeyboardInterrupt:
        if not lost.is_set():
            raise
    finally:
        stop.set()
        beat.join()
        if (holder := _holder(path)) and holder.token == mine.token:
            path.unlink(missing_ok=True)
    if lost.is_set():
        raise LeaseError(
            f"{folder} was taken over by another process after {stale_seconds:g} s of silence (suspended?), "
            "or its lease.json was removed; this process stopped. Let the other finish, then run again"
        )


def _acquire(path: Path, stale_seconds: float, note: Callable[[str], None] | None) -> Lease:
    path.parent.mkdir(parents=True, exist_ok=True)
    now, host = time.time(), socket.gethostname()
    mine = Lease(pid=os.getpid(), host=host, started=now, heartbeat=now, token=uuid.uuid4().hex)
    removed = None
    for _ in range(5):
        try:
            with path.open("xb") as file:  # fails if the lease exists: only one of two processes gets it
                file.write(orjson.dumps(to_json(mine)))
        except FileExistsError:
            removed = _remove_stale(path, stale_seconds)
            continue
        if removed and note:
            note(removed)
        return mine
    raise LeaseError(f"{path} is contended by other processes; run the same command again in a minute")


def _remove_stale(path: Path, stale_seconds: float) -> str | None:
    """Remove a stale lease and say whose it was, or raise LeaseError if its holder lives."""
    try:
        with path.open("r+b") as file:
            # of many that find the same stale lease, the second must not remove what the first has created in
            # its place: one at a time, and only the very file that was looked at
            fcntl.flock(file, fcntl.LOCK_EX)
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return None
            holder, written = _holder(path), path.stat().st_mtime
            age = max(0.0, time.time() - (holder.heartbeat if holder else written))
            _refuse_living(path, holder, age, stale_seconds)
            path.unlink()
    except FileNotFoundError:
        return None  # its holder has just released it, or another process was faster
    who = f"process {holder.pid} on {holder.host}" if holder else "a process that did not write its name"
    why = "which is dead" if age <= stale_seconds else f"silent for {age:.0f} s"
    return f"took over {path.parent} from {who}, {why}; what it committed is kept"


def _refuse_living(path: Path, holder: Lease | None, age: float, stale_seconds: float) -> None:
    if age <= stale_seconds and not (holder and _is_dead(holder)):
        who = f"process {holder.pid} on {holder.host}" if holder else "a process that is just starting"
        raise LeaseError(
            f"{path.parent} is in use by {who} (last sign of life {age:.0f} s ago); wait for it or stop it. "
            f"If it is dead, run again after {stale_seconds:g} s, or remove {path}"
        )


def _holder(path: Path) -> Lease | None:
    """Return who holds the lease; None if nobody does or the file cannot be read."""
    try:
        return read_value(path, Lease)
    except (FileNotFoundError, InputError):
        return None


def _is_dead(holder: Lease) -> bool:
    """Is the holder a process of this host that has ended? (Of another host nothing is known.)"""
    if holder.host != socket.gethostname():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _beat(path: Path, mine: Lease, seconds: float, stop: threading.Event, lost: threading.Event) -> None:
    while not stop.wait(seconds):
        try:
            holder = _holder(path)
            if holder is not None and holder.token == mine.token:
                write_json(path, replace(mine, heartbeat=time.time()))
                continue
        except OSError:
            continue  # a full or absent disk passes, or fails the run elsewhere; the lease merely ages
        lost.set()
        # a shell starts background jobs with SIGINT ignored; then only SIGTERM reaches the main thread
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)
        return
