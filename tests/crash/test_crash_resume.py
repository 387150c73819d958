"""Kill −9, the same command again: the same dataset. Workers and executor change nothing (P6, P7)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tiny_run import tiny_settings

from quadmix.io.atomic import read_json

QUADMIX = [sys.executable, "-m", "quadmix"]


def write_recipe(folder: Path, **changes: object) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(tiny_settings(folder, **changes)))
    return file


def digest(folder: Path) -> str:
    return read_json(folder / "runs" / "tiny" / "dataset" / "manifest.json")["digest"]


def finish(recipe: Path, *options: str) -> None:
    done = subprocess.run(
        [*QUADMIX, "materialise", str(recipe), "--quiet", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed run with one worker."""
    folder = tmp_path_factory.mktemp("reference")
    finish(write_recipe(folder), "--workers", "1", "--set", "run.executor=processes")
    return digest(folder)


@pytest.mark.parametrize("options", [["--workers", "2", "--set", "run.executor=processes"], []])
def test_two_workers_and_the_serial_executor_give_the_same_dataset(
    tmp_path: Path, reference: str, options: list[str]
) -> None:
    finish(write_recipe(tmp_path), *options)
    assert digest(tmp_path) == reference


def wait_for(path: Path, pattern: str, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while len(list(path.glob(pattern))) < count:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, f"no {count} files {pattern} in {path}"
        time.sleep(0.01)


def test_kill_nine_in_the_swarm_then_the_same_command(tmp_path: Path, reference: str) -> None:
    recipe = write_recipe(tmp_path)
    process = subprocess.Popen(
        [
            *QUADMIX,
            "materialise",
            str(recipe),
            "--quiet",
            "--workers",
            "2",
            "--set",
            "run.executor=processes",
        ],
        start_new_session=True,
    )
    wait_for(tmp_path / "runs" / "tiny" / "trials", "prior-*.json", 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "runs" / "tiny" / "dataset" / "manifest.json").exists()
    finish(recipe)
    assert digest(tmp_path) == reference


@pytest.mark.parametrize("point", ["materialise.before_manifest", "materialise.after_manifest"])
def test_kill_nine_in_materialise_then_the_same_command(tmp_path: Path, reference: str, point: str) -> None:
    recipe = write_recipe(tmp_path)
    killed = subprocess.run(
        [*QUADMIX, "materialise", str(recipe), "--quiet"],
        env={**os.environ, "QUADMIX_FAULT": point},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    finish(recipe)
    assert digest(tmp_path) == reference


def test_an_interrupt_exits_with_four_and_names_the_command(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    process = subprocess.Popen([*QUADMIX, "materialise", str(recipe), "--quiet"], stderr=subprocess.PIPE)
    wait_for(tmp_path / "runs" / "tiny", "tokenizer.json", 1, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 4
    assert f"quadmix materialise {recipe} --quiet" in errors.decode()
