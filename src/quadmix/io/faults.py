"""Named crash points for tests: with QUADMIX_FAULT=<name> in the environment, the process kills itself there.

`QUADMIX_FAULT=spill@3` dies at the third passage. Without the variable a point costs one look-up. The crash
tests of promise P6 kill a run at every point in `POINTS` and compare the digest after the same call again.
"""

import os
import signal
from collections import Counter

POINTS = (
    "select.merged",
    "select.part",
    "select.before_manifest",
    "materialise.spill",
    "materialise.split",
    "materialise.before_split",
    "materialise.after_split",
    "materialise.before_part",
    "materialise.after_part",
    "materialise.before_manifest",
    "materialise.after_manifest",
)
PUBLISH_POINTS = ("publish.after_shard", "publish.before_manifest")  # the same, with a store at the other end
EXPORT_POINTS = ("export.shard", "export.before_rename")  # an export starts again from the beginning
_passed: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """Kill this process (SIGKILL) if the environment asks for a crash at `name`."""
    wanted = os.environ.get("QUADMIX_FAULT")
    if not wanted:
        return
    point, _, nth = wanted.partition("@")
    if point == name:
        _passed[name] += 1
        if _passed[name] == int(nth or 1):
            os.kill(os.getpid(), signal.SIGKILL)
