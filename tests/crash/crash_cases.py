"""What all crash tests share: the server of `crash_child.py`, and what a run folder must look like."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from quadmix.io.atomic import file_digest

CHILD = Path(__file__).with_name("crash_child.py")
MANIFEST = "dataset/manifest.json"
ORDERS = (("shuffled", "parquet"), ("corpus", "jsonl.zst"))
ELSEWHERE = {  # points that an order does not come by: the run would end there, and not be killed again
    "shuffled": ("materialise.before_split", "materialise.after_split"),
    "corpus": ("materialise.spill", "materialise.split", "materialise.before_part", "materialise.after_part"),
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a case ended. status: exit status, negative for a signal. killed: was there somebody to kill?

    calls: of each kind, on files of the lab. failed: path of the call that was made to fail, "" for none.
    """

    status: int
    killed: bool
    seconds: float
    error: str = ""
    trace: str = ""
    calls: Sequence[int] = ()
    failed: str = ""


class Server:
    """A process that runs cases, one after the other, in forks of itself."""

    def __init__(self, world: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), "serve", str(world)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        self.read()

    def read(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def run(self, folder: Path, **case: Any) -> Answer:
        """Run one case; see `crash_child.work` and `crash_child.watch` for what `case` may hold."""
        whole = {
            "folder": str(folder), "executor": "serial", "workers": 2, "order": "shuffled",
            "format": "parquet", "start": "fork",
        } | case  # fmt: skip
        assert self.process.stdin
        self.process.stdin.write(json.dumps(whole) + "\n")
        self.process.stdin.flush()
        return Answer(**self.read())

    def stop(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        self.process.stdout.close()


class Lab:
    """A world, two servers of it (cases run side by side), and the files of undisturbed serial runs."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.world = folder, folder / "world"
        self._made = 0
        self._expected: dict[tuple[str, str], dict[str, str]] = {}
        command(["build", str(self.world)])
        self.servers = [Server(self.world, **environment) for _ in range(2)]
        self._idle: SimpleQueue[Server] = SimpleQueue()
        for server in self.servers:
            self._idle.put(server)

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def new(self) -> Path:
        """Return a run folder as it is before the selection."""
        self._made += 1
        return Path(shutil.copytree(self.world / "base", self.folder / f"run-{self._made}"))

    def run(self, folder: Path, **case: Any) -> Answer:
        server = self._idle.get()
        try:
            return server.run(folder, **case)
        finally:
            self._idle.put(server)

    def expected(self, order: str = "shuffled", format: str = "parquet") -> dict[str, str]:
        """Return the digest of every file of an undisturbed serial run, which `verify_run` finds sound."""
        if (order, format) not in self._expected:
            folder = self.new()
            answer = self.run(folder, order=order, format=format)
            assert answer.status == 0, answer.trace
            assert json.loads(command(["check", str(folder)])) == {"failed": [], "stray": []}
            self._expected[order, format] = content(folder)
        return self._expected[order, format]

    def finish(self, folder: Path, **case: Any) -> None:
        """Run the same call again; the folder then holds what an undisturbed run leaves, and nothing else."""
        expected = self.expected(case.get("order", "shuffled"), case.get("format", "parquet"))
        answer = self.run(folder, **case)
        assert answer.status == 0, answer.trace
        check_same(content(folder), expected)
        shutil.rmtree(folder)

    def check_visible(self, folder: Path, **case: Any) -> None:
        """Every file that can be seen is whole: it holds what it will hold in the end (promises P2, P3)."""
        expected = self.expected(case.get("order", "shuffled"), case.get("format", "parquet"))
        found = visible_part(content(folder))
        check_same(found, {n: d for n, d in expected.items() if n in found})
        if MANIFEST in found:
            check_same(found, visible_part(expected))

    def side_by_side(self, case: Callable[[Any], None], cases: Sequence[Any]) -> None:
        """Call `case` for each, two at a time; the first failure is raised."""
        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(case, cases))


@contextmanager
def laboratory(**environment: str) -> Generator[Lab]:
    """Give a lab in memory where the system has such a folder: a disk's own fsync is not what is tested."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**29 else None
    with tempfile.TemporaryDirectory(prefix="quadmix-crash-", dir=place) as folder:
        lab = Lab(Path(folder), **{k: v.format(folder=folder) for k, v in environment.items()})
        try:
            yield lab
        finally:
            lab.stop()


def command(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, str(CHILD), *arguments], check=True, capture_output=True, text=True, timeout=300,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    return done.stdout


def content(folder: Path) -> dict[str, str]:
    """Return the digest of every file, by its path in the folder."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): file_digest(p) for p in files}


def check_same(found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Fail with the names of what is missing, too much or different."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    changed = sorted(n for n in found.keys() & expected.keys() if found[n] != expected[n])
    assert (missing, extra, changed) == ([], [], [])


def visible_part(files: Mapping[str, str]) -> dict[str, str]:
    """Return what a reader may take for data: the files of selection/ and dataset/ without hidden ones."""
    return {
        name: digest
        for name, digest in files.items()
        if name.split("/")[0] in ("selection", "dataset") and "/." not in name
    }
