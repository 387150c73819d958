"""Two writers at one run folder: the second is refused and told what to do; a dead one is replaced (P9)."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import tiny_recipe

from quadmix.errors import LeaseError
from quadmix.pipeline.folder import open_run, run_folder
from quadmix.pipeline.progress import Progress

HOLDER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tiny_run import tiny_recipe
from quadmix.pipeline.folder import open_run
from quadmix.pipeline.progress import Progress
with open_run(tiny_recipe(Path(sys.argv[1])), Progress(quiet=True)):
    print("open", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that has the run folder open."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path), str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_second_writer_is_refused_with_the_holder_and_the_remedy(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    recipe = tiny_recipe(tmp_path)
    before = {p: p.read_bytes() for p in run_folder(recipe).iterdir()}
    with (
        pytest.raises(
            LeaseError, match=rf"in use by process {holder.pid} on .*; wait for it or stop it\. .*remove"
        ),
        open_run(recipe, Progress(quiet=True)),
    ):
        pytest.fail("two writers")
    assert {p: p.read_bytes() for p in run_folder(recipe).iterdir()} == before


def test_a_writer_killed_with_the_folder_open_is_replaced_at_once_and_named(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    recipe, out = tiny_recipe(tmp_path), io.StringIO()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with open_run(recipe, Progress(out=out)) as job:
        held = json.loads((job.folder / "lease.json").read_text())
    assert held["pid"] == os.getpid()
    assert out.getvalue() == (
        f"took over {run_folder(recipe)} from process {holder.pid} on {socket.gethostname()}, which is dead; "
        "what it committed is kept\n"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ({"host": "elsewhere"}, "from process 42 on elsewhere, silent for 75 s"),
        ("", "from a process that did not write its name, silent for 75 s"),
    ],
)
def test_a_silent_writer_is_replaced_and_its_silence_told(
    tmp_path: Path, text: "dict[str, str] | str", told: str
) -> None:
    recipe, out, past = tiny_recipe(tmp_path), io.StringIO(), time.time() - 75
    lease = run_folder(recipe) / "lease.json"
    lease.parent.mkdir(parents=True)
    whole = {"pid": 42, "started": past, "heartbeat": past, "token": "other"}
    lease.write_text(json.dumps(whole | text) if isinstance(text, dict) else text)
    os.utime(lease, (past, past))
    with open_run(recipe, Progress(out=out)):
        pass
    assert told in out.getvalue()
    assert not lease.exists()


def test_a_free_folder_is_opened_without_a_word(tmp_path: Path) -> None:
    out = io.StringIO()
    with open_run(tiny_recipe(tmp_path), Progress(out=out)):
        pass
    assert out.getvalue() == ""
