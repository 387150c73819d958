"""Folders that are whole or absent: filled under a hidden name beside the target, then renamed.

In: a path. Out: the same, or an exception and nothing visible. A killed process leaves the hidden folder,
which the next call for the same target empties and fills again.
"""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from quadmix.errors import InputError
from quadmix.io.lease import lease

_WORK = "files"


@contextmanager
def new_folder(path: str | Path) -> Generator[Path]:
    """Yield an empty folder; when the block ends well, flush it to disk and rename it to `path`.

    InputError if `path` is a file or a folder with content; LeaseError while another process fills it.
    """
    target = Path(path).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists and is not empty; expected a new or an empty folder: name another")
    hidden = target.with_name(f".tmp-{target.name}")
    try:
        with lease(hidden):
            shutil.rmtree(hidden / _WORK, ignore_errors=True)
            try:
                yield _fresh(hidden)
                for file in files_in(hidden / _WORK):
                    _sync(file)
                os.rename(hidden / _WORK, target)
                _sync(target.parent)
            finally:
                shutil.rmtree(hidden / _WORK, ignore_errors=True)
    finally:
        if hidden.is_dir() and not any(hidden.iterdir()):  # else another process holds it
            hidden.rmdir()


def _fresh(hidden: Path) -> Path:
    work = hidden / _WORK
    work.mkdir()
    return work


def files_in(folder: str | Path) -> list[Path]:
    """Return all files below a folder in the order of their names."""
    return sorted(p for p in Path(folder).rglob("*") if p.is_file())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
