"""The sha256 of files: what a hub and a model's card say of them.

In: a local file. Out: its sha256, read once per process as long as size and time of change stay.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from quadmix.io.atomic import naming


def sha256_file(path: str | Path) -> str:
    """Return the sha256 of a local file's bytes, as 64 hex digits, read piece by piece."""
    with naming(path):
        found = Path(path).stat()
    return _sha256(str(path), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256(path: str, size: int, changed: int) -> str:
    with naming(path), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
