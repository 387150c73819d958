"""Select and materialise on a real Ray cluster of two nodes, which loses workers, a node, and the driver."""

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from crash_cases import CHILD, ELSEWHERE, MANIFEST, ORDERS, Lab, check_same, content
from crash_child import World, load, produce
from crash_ray import POINTS_OF, Dying, Holding

from quadmix.engine.tasks import Place
from quadmix.io.faults import POINTS

ray = pytest.importorskip("ray")

OF_TASKS = tuple(p for p in POINTS if "manifest" not in p)
DRIVER_KILLS = 3

# the nodes live in their own process: Ray's node starter leaves files open, which is an error here
NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
for line in sys.stdin:
    (lost,) = [node for node in cluster.worker_nodes if node.node_id == line.strip()]
    cluster.remove_node(lost, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    print("replaced", flush=True)
cluster.shutdown()
"""


class Nodes:
    """A cluster of a head without CPUs and two nodes with one CPU each."""

    def __init__(self, log: Path) -> None:
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", NODES], env={**os.environ, "PYTHONPATH": paths()},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
            )  # fmt: skip
        self.address = self.read()
        self.place = Place("ray", 0, self.address)

    def read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def replace(self, node: str) -> str:
        """Take a node away with all that runs on it, and give the cluster another."""
        assert self.process.stdin
        self.process.stdin.write(node + "\n")
        self.process.stdin.flush()
        return self.read()

    def stop(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        self.process.stdout.close()


def paths() -> str:
    return os.pathsep.join(filter(None, [str(CHILD.parent), os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path_factory.mktemp("ray") / "nodes.log")
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def connected(nodes: Nodes) -> Iterator[Nodes]:
    """Connect once, as an embedding program does."""
    before = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        ray.init(address=nodes.address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield nodes
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def world(lab: Lab) -> World:
    return load(lab.world)


@pytest.mark.parametrize(("order", "form"), ORDERS)
def test_workers_that_die_at_every_point_of_their_tasks_change_nothing(
    lab: Lab, world: World, connected: Nodes, tmp_path: Path, order: str, form: str
) -> None:
    folder = lab.new()
    produce(
        world, folder, connected.place, order=order, format=form, wrap=partial(Dying, folder=str(tmp_path))
    )
    check_same(content(folder), lab.expected(order, form))
    assert {p.name for p in tmp_path.iterdir()} == {p for p in OF_TASKS if p not in ELSEWHERE[order]}


def test_every_point_of_a_task_has_its_task() -> None:
    assert sorted(p for points in POINTS_OF.values() for p in points) == sorted(OF_TASKS)


@pytest.mark.parametrize("accident", ["worker", "node"])
def test_a_worker_and_a_node_lost_in_both_steps_change_nothing(
    lab: Lab, world: World, connected: Nodes, tmp_path: Path, accident: str
) -> None:
    """Once in the selection, once in the writing: killed from outside, or with the node it runs on."""
    folder, names = lab.new(), ("select_split", "spill_split")
    losses: list[str] = []

    def lose() -> None:
        for name in names:
            held = tmp_path / f"{name}.held"
            until(held.exists)
            pid, node = held.read_text().split()
            if accident == "node":
                assert connected.replace(node) == "replaced"
            else:
                os.kill(int(pid), signal.SIGKILL)
            losses.append(name)

    thread = threading.Thread(target=lose)
    thread.start()
    produce(world, folder, connected.place, wrap=partial(Holding, folder=str(tmp_path), names=names))
    thread.join()
    assert losses == list(names)
    check_same(content(folder), lab.expected())


def test_the_driver_killed_at_any_moment_the_same_call_ends_alike(
    lab: Lab, world: World, connected: Nodes
) -> None:
    """The second call comes while workers of the first may still be at work: each is killed by its node."""
    dice, start = random.Random(9), time.monotonic()
    produce(world, lab.new(), connected.place)
    whole = time.monotonic() - start
    for _ in range(DRIVER_KILLS):
        folder = lab.new()
        driver = subprocess.Popen(
            [sys.executable, str(CHILD), "drive", str(lab.world), str(folder), connected.address],
            env={**os.environ, "PYTHONPATH": paths()}, start_new_session=True,
        )  # fmt: skip
        until((folder / "selection").exists)
        time.sleep(dice.random() * whole)
        os.killpg(driver.pid, signal.SIGKILL)
        assert driver.wait() in (0, -signal.SIGKILL)
        produce(world, folder, connected.place)
        assert (folder / MANIFEST).exists()
        check_same(content(folder), lab.expected())


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
