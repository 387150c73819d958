"""What the Ray workers of the crash tests import: tasks that die, and tasks that hold still to be killed."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quadmix.engine.pool import name_of
from quadmix.io import faults

# which task comes by which point
POINTS_OF = {
    "merge_split": ("select.merged",),
    "select_split": ("select.part",),
    "spill_split": ("materialise.spill", "materialise.split"),
    "write_part": ("materialise.before_part", "materialise.after_part"),
    "write_split": ("materialise.before_split", "materialise.after_split"),
}


@dataclass(frozen=True)
class Dying:
    """The function, whose worker is killed once at each of its points. folder: of marks, shared by all."""

    function: Any
    folder: str

    def __call__(self, task: Any) -> Any:
        points = POINTS_OF.get(name_of(self.function), ())
        point = next((p for p in points if _first(Path(self.folder, p))), "")
        os.environ["QUADMIX_FAULT"] = point
        faults._passed.clear()  # pyright: ignore[reportPrivateUsage]
        try:
            return self.function(task)
        finally:
            os.environ["QUADMIX_FAULT"] = ""
            if point:
                Path(self.folder, f"{point}.survived").touch()


@dataclass(frozen=True)
class Holding:
    """The function; if it is one of `names`, its first task says where it is and waits to be killed."""

    function: Any
    folder: str
    names: tuple[str, ...]

    def __call__(self, task: Any) -> Any:
        import ray

        name = name_of(self.function)
        if name in self.names and _first(Path(self.folder, name)):
            node = ray.get_runtime_context().get_node_id()
            Path(self.folder, f"{name}.part").write_text(f"{os.getpid()} {node}")
            Path(self.folder, f"{name}.part").rename(Path(self.folder, f"{name}.held"))
            time.sleep(120)
        return self.function(task)


def _first(mark: Path) -> bool:
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
