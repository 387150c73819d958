"""How far the groups in training are: workers leave their share in a file, the parent adds the files up.

Only the progress display reads it; losing a heartbeat loses nothing.
"""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from quadmix.io.atomic import read_text, write_text

SECONDS = 2.0


@contextmanager
def beating(folder: Path, name: str) -> Generator[Callable[[float], None]]:
    """Yield `tell(share)`, which leaves the share done of group `name` every few seconds."""
    file, last = folder / f".beat-{name}", [0.0]

    def tell(share: float) -> None:
        if time.monotonic() - last[0] >= SECONDS:
            last[0] = time.monotonic()
            write_text(file, f"{share:.4f}")

    try:
        yield tell
    finally:
        file.unlink(missing_ok=True)


@contextmanager
def watching(folder: Path, sizes: dict[str, int], on_partial: Callable[[float], None]) -> Generator[None]:
    """Call `on_partial(models)` every second with how many models' work the unfinished groups have done."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            on_partial(sum(sizes[name] * _share(folder / f".beat-{name}") for name in sizes))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for name in sizes:
            (folder / f".beat-{name}").unlink(missing_ok=True)


def _share(file: Path) -> float:
    try:
        return float(read_text(file))
    except (OSError, ValueError):
        return 0.0
