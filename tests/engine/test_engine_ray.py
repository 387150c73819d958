"""run_tasks on a real Ray cluster: the same results, lost workers and nodes survived, nobody left behind."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import engine_tasks as work
import pytest

ray = pytest.importorskip("ray")

from quadmix.codec import to_json  # noqa: E402
from quadmix.engine.tasks import Place, run_tasks  # noqa: E402
from quadmix.errors import InputError, MissingExtraError, QuadmixError  # noqa: E402

HERE = Path(__file__).parent
PATHS = os.pathsep.join([str(HERE), str(HERE.parent / "proxy"), str(HERE.parent)])

# the nodes live in their own process: Ray's node starter leaves files open, which is an error here
NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=3, num_gpus=1)
print(cluster.address, flush=True)
for line in sys.stdin:
    command, _, name = line.strip().partition(" ")
    if command == "add":
        cluster.add_node(num_cpus=3, num_gpus=1)
    else:
        (lost,) = [node for node in cluster.worker_nodes if node.node_id == name]
        cluster.remove_node(lost, allow_graceful=False)
    print("done", flush=True)
cluster.shutdown()
"""


class Nodes:
    """A cluster of a head without CPUs and a node with 3 CPUs and 1 GPU (declared, not real)."""

    def __init__(self, log: Path) -> None:
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", NODES], env={**os.environ, "PYTHONPATH": PATHS},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
            )  # fmt: skip
        self.address = self.read()
        self.place = Place("ray", 2, self.address)

    def ask(self, command: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        self.process.stdout.close()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path_factory.mktemp("ray") / "nodes.log")
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def connected(nodes: Nodes) -> Iterator[Nodes]:
    """Connect once, as an embedding program does; run_tasks uses that and leaves it."""
    before = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        ray.init(address=nodes.address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield nodes
        assert ray.is_initialized()
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


def test_results_come_in_task_order_whatever_finished_first(connected: Nodes) -> None:
    arrived: list[tuple[int, int, int]] = []
    out = run_tasks(
        work.slow_first, range(7), place=connected.place,
        on_done=lambda i, n: arrived.append((i, n, threading.get_ident())),
    )  # fmt: skip
    assert out == list(range(7))
    assert sorted(arrived) == [(n, n, threading.get_ident()) for n in range(7)]
    assert run_tasks(work.square, [], place=connected.place) == []
    assert ray.is_initialized()  # the connection is this program's


def test_workers_have_one_thread_and_compute_the_same_bytes(connected: Nodes) -> None:
    (facts,) = run_tasks(work.worker_facts, [0], place=connected.place)
    assert facts.pop("pid") != str(os.getpid())
    assert facts.pop("TOKENIZERS_PARALLELISM") == "false"
    assert set(facts.values()) == {"1"}
    apart = run_tasks(work.sums, range(3), place=connected.place)
    assert apart == run_tasks(work.sums, range(3), place=Place("processes", 1))


@pytest.mark.parametrize(("workers", "share", "most"), [(2, 0.0, 2), (0, 0.0, 3), (0, 0.5, 2)])
def test_no_more_tasks_at_once_than_workers_cpus_and_gpus_allow(
    connected: Nodes, tmp_path: Path, workers: int, share: float, most: int
) -> None:
    """Three CPUs and one GPU: two by `workers`, three by CPUs, two by halves of the GPU; the others wait."""
    tasks = [(str(tmp_path), str(n), most) for n in range(4)]
    place = Place("ray", workers, connected.address, share)
    assert max(run_tasks(work.crowd, tasks, place=place)) == most


def test_too_few_gpus_is_an_error_before_anything_runs(connected: Nodes, tmp_path: Path) -> None:
    with pytest.raises(QuadmixError, match=r"needs 1 CPU and 2 GPUs of one node.*at most 1 GPUs; set run\."):
        run_tasks(
            work.die_once, [str(tmp_path / "dies")], place=Place("ray", 0, connected.address, gpu_share=2.0)
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("extra", MissingExtraError, r"training proxies needs the package 'torch'.*quadmix\[proxy\]"),
        ("input", InputError, "^file 'x' is cut"),
        ("key", KeyError, "b"),
        ("value", ValueError, "wrong number"),
        ("unicode", RuntimeError, "UnicodeDecodeError: 'utf-8' codec"),
    ],
)
def test_errors_of_tasks_are_raised_as_they_were(connected: Nodes, kind: str, error: Any, text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        run_tasks(work.fail, [kind, kind, kind], place=connected.place)
    assert type(caught.value) is error
    if kind == "input":
        assert caught.value.__notes__ == ["context"]


def test_an_error_cancels_the_rest(connected: Nodes, tmp_path: Path) -> None:
    mark = tmp_path / "a.pid"
    with pytest.raises(InputError, match="is cut"):
        run_tasks(work.hang_or_fail, [str(mark), f"fail {mark}"], place=connected.place)
    until(lambda: not is_running(int(mark.read_text())) or not mark.with_suffix(".tmp").exists(), 10)


def test_a_task_that_always_kills_its_worker_is_named(connected: Nodes) -> None:
    with pytest.raises(QuadmixError, match=r"task 2 of 4 of die_always ended its worker.* 3 times.*Crashed"):
        run_tasks(work.die_always, range(4), place=connected.place)


@pytest.mark.parametrize("accident", ["worker", "node"])
def test_a_lost_worker_or_node_changes_nothing_in_a_swarm(
    connected: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accident: str
) -> None:
    """Same trials, in memory and on disk, as the serial run, though a task was lost in the middle."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(HERE.parent / "proxy"))
    from proxy_world import make_job, make_setting, some_copies  # pyright: ignore[reportMissingImports]

    from quadmix.io.atomic import read_json
    from quadmix.proxy import swarm

    setting = make_setting(tmp_path)
    jobs = [make_job(f"t{i}", some_copies(i), seed=i % 2) for i in range(5)]

    def trained(name: str, place: Place) -> list[object]:
        trials = swarm.run_swarm(jobs, setting, folder=tmp_path / name, group=2, place=place)
        assert [read_json(tmp_path / name / f"{j.trial_id}.json") for j in jobs] == list(map(to_json, trials))
        return [{k: v for k, v in to_json(t).items() if k != "seconds"} for t in trials]

    expected = trained("serial", Place("serial"))
    if accident == "worker":
        monkeypatch.setattr(swarm, "train_task", work.train_and_die)
        assert trained("ray", connected.place) == expected
        assert (tmp_path / "ray" / "died").exists()
        return
    held = tmp_path / "ray" / "held-node"
    assert connected.ask("add") == "done"
    removed: list[str] = []

    def remove() -> None:
        until(held.exists, 60)
        removed.append(connected.ask(f"remove {held.read_text()}"))

    thread = threading.Thread(target=remove)
    thread.start()
    monkeypatch.setattr(swarm, "train_task", work.train_and_wait)
    assert trained("ray", connected.place) == expected
    thread.join()
    assert removed == ["done"]


ALONE = """
import os, signal, sys
import engine_tasks
from quadmix.engine.tasks import Place, run_tasks
from quadmix.errors import QuadmixError
def stop(number, frame):
    raise KeyboardInterrupt
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    address, function, *tasks = sys.argv[1:]
    try:
        print(run_tasks(getattr(engine_tasks, function), tasks, place=Place("ray", 2, address or None)))
    except KeyboardInterrupt:
        sys.exit(4)
    except QuadmixError as error:
        sys.exit(str(error))
    import ray
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is stop
"""


def alone(folder: Path, address: str, function: str, *tasks: str) -> "subprocess.Popen[str]":
    """Start a program of its own, without a connection; RAY_TEST marks all processes that it starts."""
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", ALONE, address, function, *tasks], cwd=folder,
        env={**os.environ, "PYTHONPATH": PATHS, "RAY_TEST": str(folder)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_without_an_address_ray_starts_here_quietly_and_leaves_nothing(tmp_path: Path) -> None:
    """Also when a worker dies: one line of ours on stdout, no file, no process."""
    tasks = [str(tmp_path / "dies"), str(tmp_path / "safe")]
    run = alone(tmp_path / "cwd", "", "die_once", *tasks)
    out, err = run.communicate(timeout=120)
    assert (out, err, run.returncode) == ("['dies', 'safe']\n", "", 0)
    assert not list((tmp_path / "cwd").iterdir())
    until(lambda: not marked(tmp_path / "cwd"), 10)


@pytest.mark.parametrize(("number", "local"), [("SIGINT", True), ("SIGTERM", False)])
def test_stopping_the_driver_ends_its_tasks(nodes: Nodes, tmp_path: Path, number: str, local: bool) -> None:
    marks = [tmp_path / "a.pid", tmp_path / "b.pid"]
    run = alone(tmp_path / "cwd", "" if local else nodes.address, "hang", *map(str, marks))
    until(lambda: all(m.with_suffix(".tmp").exists() for m in marks), 90)
    pids = [int(m.read_text()) for m in marks]
    run.send_signal(getattr(signal, number))
    out, err = run.communicate(timeout=20)
    assert (out, err, run.returncode) == ("", "", 4)
    until(lambda: not any(map(is_running, pids)), 10)
    until(lambda: not marked(tmp_path / "cwd"), 10)


def test_no_cluster_there_is_an_error_within_seconds(tmp_path: Path) -> None:
    """A closed port, a web server, an unknown host, no address at all: Ray itself would try for minutes."""
    with socket.socket() as closed, HTTPServer(("", 0), BaseHTTPRequestHandler) as web:
        closed.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        ports = closed.getsockname()[1], web.server_port
        addresses = [f"127.0.0.1:{p}" for p in ports] + ["no-such-host.invalid:6379", "x"]
        runs = [alone(tmp_path / str(n), a, "square") for n, a in enumerate(addresses)]
        errors = [run.communicate(timeout=30)[1] for run in runs]
        web.shutdown()
        thread.join()
    for address, error in zip(addresses, errors, strict=True):
        assert error.startswith(f"cannot use a Ray cluster at run.address '{address}': ")
        assert "start a cluster with `ray start --head`" in error
    assert "refused" in errors[0]
    assert "refused" not in errors[1]


def test_ray_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"package 'ray'.*quadmix\[ray\]"):
        run_tasks(work.square, [1], place=Place("ray", 1))


def marked(folder: Path) -> list[int]:
    """Return the processes that `alone` has started, directly or not."""
    found: list[int] = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            mark = f"RAY_TEST={folder}".encode()
            if process.name.isdigit() and mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
