"""run_tasks: results in order, deaths survived, errors unchanged, nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import engine_tasks as work
import pytest

from quadmix.engine.tasks import Place, resolve_workers, run_tasks
from quadmix.errors import InputError, MissingExtraError, QuadmixError


@pytest.mark.parametrize("executor", ["serial", "processes"])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_results_come_in_task_order(executor: Any, count: int) -> None:
    seen: dict[int, int] = {}
    out = run_tasks(work.square, range(count), place=Place(executor, 2), on_done=seen.__setitem__)
    assert out == [n * n for n in range(count)]
    assert seen == dict(enumerate(out))


def test_on_done_is_called_here_as_results_arrive() -> None:
    arrived: list[tuple[int, int]] = []
    out = run_tasks(
        work.slow_first, [0, 1, 2], place=Place("processes", 2),
        on_done=lambda i, _: arrived.append((i, os.getpid())),
    )  # fmt: skip
    assert out == [0, 1, 2]
    assert {pid for _, pid in arrived} == {os.getpid()}
    assert sorted(i for i, _ in arrived) == [0, 1, 2]


def test_workers_are_other_processes_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    (facts,) = run_tasks(work.worker_facts, [0], place=Place("processes", 1))
    assert facts.pop("pid") != str(os.getpid())
    assert facts.pop("TOKENIZERS_PARALLELISM") == "false"
    assert set(facts.values()) == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_a_killed_worker_costs_a_retry_not_the_run(tmp_path: Path) -> None:
    """Each marked task kills its worker once; all tasks are done all the same, in order."""
    tasks = [str(tmp_path / n) for n in ("safe-0", "dies-1", "safe-2", "dies-3", "safe-4")]
    out = run_tasks(work.die_once, tasks, place=Place("processes", 2))
    assert out == [Path(t).name for t in tasks]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dies-1", "dies-3"]


def test_a_task_that_always_kills_its_worker_is_named() -> None:
    with pytest.raises(
        QuadmixError, match=r"task 2 of 4 of die_always ended its worker.* 3 times.*signal 9.*memory"
    ):
        run_tasks(work.die_always, range(4), place=Place("processes", 2))


@pytest.mark.parametrize("executor", ["serial", "processes"])
@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("extra", MissingExtraError, r"training proxies needs the package 'torch'.*quadmix\[proxy\]"),
        ("input", InputError, "^file 'x' is cut"),
        ("key", KeyError, "b"),
        ("value", ValueError, "wrong number"),
    ],
)
def test_errors_of_tasks_are_raised_as_they_were(executor: Any, kind: str, error: Any, text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        run_tasks(work.fail, [kind], place=Place(executor, 1))
    assert type(caught.value) is error
    if kind == "input":
        assert caught.value.__notes__ == ["context"]


def test_what_cannot_travel_is_an_error_with_its_text() -> None:
    with pytest.raises(RuntimeError, match="UnicodeDecodeError: 'utf-8' codec"):
        run_tasks(work.fail, ["unicode"], place=Place("processes", 1))
    with pytest.raises((RuntimeError, AttributeError), match="lambda"):
        run_tasks(work.unpicklable, [1], place=Place("processes", 1))
    with pytest.raises(QuadmixError, match="cannot be sent to a worker process; expected a module-level"):
        run_tasks(lambda n: n, [1], place=Place("processes", 1))


def test_large_tasks_and_results_pass() -> None:
    out = run_tasks(work.big, [1, 2, 3], place=Place("processes", 2))
    assert [(r[0], len(r)) for r in out] == [(1, 5_000_000), (2, 5_000_000), (3, 5_000_000)]
    assert run_tasks(work.length, out, place=Place("processes", 2)) == [5_000_000] * 3


def test_an_error_in_on_done_ends_the_workers(tmp_path: Path) -> None:
    def refuse(_index: int, _result: str) -> None:
        raise InputError("stop here")

    with pytest.raises(InputError, match="stop here"):
        run_tasks(work.die_once, [str(tmp_path / "safe")] * 4, place=Place("processes", 2), on_done=refuse)
    assert not children_of(os.getpid())


def test_resolve_workers() -> None:
    assert resolve_workers(3) == 3
    assert 1 <= resolve_workers(0) <= (os.cpu_count() or 1)
    with pytest.raises(QuadmixError, match=r"run\.workers is -1"):
        resolve_workers(-1)


SCRIPT = """
import signal, sys
import engine_tasks
from quadmix.engine.tasks import Place, run_tasks
def stop(number, frame):
    raise KeyboardInterrupt
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    try:
        run_tasks(engine_tasks.hang, sys.argv[1:], place=Place("processes", 2))
    except KeyboardInterrupt:
        sys.exit(4)
"""


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 4), ("SIGTERM", 4), ("SIGKILL", -9)])
def test_stopping_the_parent_ends_all_workers_promptly(tmp_path: Path, number: str, code: int) -> None:
    """Ctrl-C and SIGTERM let workers remove their temporary files; even after kill -9 no worker stays."""
    (tmp_path / "script.py").write_text(SCRIPT)
    marks = [tmp_path / "a.pid", tmp_path / "b.pid"]
    run = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), *map(str, marks)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(work.__file__).parent), *sys.path[1:]])},
    )
    until(lambda: all(m.with_suffix(".tmp").exists() for m in marks), 30)
    pids = [int(m.read_text()) for m in marks]
    start = time.monotonic()
    run.send_signal(getattr(signal, number))
    assert run.wait(10) == code
    until(lambda: not any(map(is_running, pids)), 5)
    assert time.monotonic() - start < 8
    if number != "SIGKILL":
        assert not any(m.with_suffix(".tmp").exists() for m in marks)


def until(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of(pid: int) -> list[int]:
    """Return living children that run a worker's loop (the resource tracker stays by design)."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            if is_running(child) and b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def test_a_task_that_kills_its_workers_may_be_made_smaller() -> None:
    """Tried as it is twice, then as `on_death` says; the others are not touched."""
    out = run_tasks(work.die_if_large, [1, 8, 2], place=Place("processes", 2), on_death=work.smaller)
    assert out == [1, 2, 2]
