"""`python -m quadmix.annotate.models.fasttext_trainer SETTINGS`: fastText's training in a process of its own.

In: JSON, the arguments of `fasttext.train_supervised` and `out`. Out: the model's file. With one thread the
library sets a tenth of its table and trains the rest from the memory as it finds it, so that a process which
has worked before gives another model each time, or NaN; a fresh one, told to hand out zeros, gives one model.
"""

import json
import os
import subprocess
import sys
from typing import Any

from quadmix.errors import InputError

_ZEROS = "glibc.malloc.perturb=255"  # glibc sets what it hands out to the complement of this byte


def train_apart(settings: dict[str, Any], out: str) -> None:
    """Train and save a model; InputError with the library's message where it could not."""
    tunables = [t for t in (os.environ.get("GLIBC_TUNABLES"), _ZEROS) if t]
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps({**settings, "out": out})],
        env={**os.environ, "GLIBC_TUNABLES": ":".join(tunables)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["it gave no message"])[-1]
        raise InputError(
            f"fastText could not train: {told} (exit code {done.returncode}, lr {settings['lr']}, dim "
            f"{settings['dim']}); a lower lr helps against NaN, a smaller bucket against too little memory"
        )


def main() -> None:
    import fasttext

    settings = json.loads(sys.argv[1])
    out = settings.pop("out")
    fasttext.train_supervised(**settings).save_model(out)


if __name__ == "__main__":
    main()
