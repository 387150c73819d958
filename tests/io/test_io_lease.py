"""One writer per run folder (P9)."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from quadmix.errors import LeaseError
from quadmix.io.lease import lease


def plant(folder: Path, **changes: Any) -> Path:
    """Write the lease of another process."""
    now = time.time()
    held = {
        "pid": os.getppid(),
        "host": socket.gethostname(),
        "started": now,
        "heartbeat": now,
        "token": "other",
    }
    (folder / "lease.json").write_text(json.dumps(held | changes))
    return folder / "lease.json"


def test_a_lease_names_this_process_and_is_released(tmp_path: Path) -> None:
    with lease(tmp_path / "run") as mine:
        held = json.loads((tmp_path / "run" / "lease.json").read_text())
        assert (held["pid"], held["host"], held["token"]) == (os.getpid(), socket.gethostname(), mine.token)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_lease_is_released_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lease(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_living_holder_is_named_with_host_age_and_remedy(tmp_path: Path) -> None:
    plant(tmp_path, pid=4242, host="elsewhere", heartbeat=time.time() - 7)
    with (
        pytest.raises(LeaseError, match=r"4242 on elsewhere \(last sign of life 7 s ago\); wait.*remove"),
        lease(tmp_path),
    ):
        pytest.fail("two writers")
    assert json.loads((tmp_path / "lease.json").read_text())["token"] == "other"


def test_the_same_process_cannot_hold_a_folder_twice(tmp_path: Path) -> None:
    with lease(tmp_path), pytest.raises(LeaseError, match="in use by process"), lease(tmp_path):
        pytest.fail("two writers")


def test_a_silent_holder_is_replaced_after_the_limit(tmp_path: Path) -> None:
    plant(tmp_path, host="elsewhere", heartbeat=time.time() - 61)
    with lease(tmp_path) as mine:
        assert json.loads((tmp_path / "lease.json").read_text())["token"] == mine.token


def test_a_dead_process_of_this_host_is_replaced_at_once(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    plant(tmp_path, pid=dead.pid)
    with lease(tmp_path) as mine:
        assert mine.pid == os.getpid()


def test_a_torn_lease_is_respected_while_fresh_and_replaced_when_old(tmp_path: Path) -> None:
    file = tmp_path / "lease.json"
    file.write_bytes(b"")
    with pytest.raises(LeaseError, match="just starting"), lease(tmp_path):
        pytest.fail("two writers")
    os.utime(file, (time.time() - 100, time.time() - 100))
    with lease(tmp_path) as mine:
        assert json.loads(file.read_text())["token"] == mine.token


def test_the_heartbeat_goes_on(tmp_path: Path) -> None:
    with lease(tmp_path, heartbeat_seconds=0.02) as mine:
        deadline = time.monotonic() + 5
        while json.loads((tmp_path / "lease.json").read_text())["heartbeat"] <= mine.heartbeat:
            assert time.monotonic() < deadline, "no heartbeat in 5 s"
            time.sleep(0.01)


def test_a_process_whose_lease_was_taken_stops(tmp_path: Path) -> None:
    with pytest.raises(LeaseError, match="was taken over"), lease(tmp_path, heartbeat_seconds=0.02):
        lose(tmp_path)
    assert json.loads((tmp_path / "lease.json").read_text())["token"] == "other"


def lose(folder: Path) -> None:
    plant(folder)
    time.sleep(5)
    pytest.fail("went on writing")


def test_of_many_processes_that_find_a_stale_lease_one_gets_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom quadmix.errors import LeaseError\nfrom quadmix.io.lease import lease\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    start, folder = line.split(maxsplit=1)\n"
        "    while time.time() < float(start): pass\n"
        "    try:\n"
        "        with lease(folder.strip()):\n            print('held', flush=True); next(sys.stdin)\n"
        "    except LeaseError:\n        print('refused', flush=True); next(sys.stdin)\n"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    runs = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(6)]

    def everyone(line: str) -> list[str]:
        """Send a line to all at the same time; what each answers."""
        for run in runs:
            print(line, file=run.stdin)
        return sorted(str(run.stdout and run.stdout.readline().strip()) for run in runs)

    assert [str(run.stdout and run.stdout.readline().strip()) for run in runs] == ["ready"] * 6
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        plant(folder, heartbeat=0.0)
        assert everyone(f"{time.time() + 0.05} {folder}") == ["held", *["refused"] * 5]
        for run in runs:
            print("", file=run.stdin)  # the round is over
    for run in runs:
        run.communicate()
