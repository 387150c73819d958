"""Kill −9 at every named point, same call again: same digest, same bytes (promise P6)."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from materialise_run import Run

from quadmix.io.atomic import file_digest
from quadmix.io.faults import POINTS

# what a shuffled run comes by after the selection; all points and orders are in tests/crash
SHUFFLED = [p for p in POINTS if p.startswith("materialise.") and not p.endswith("_split")]
CHILD = """
import sys
from quadmix.io.atomic import read_value
from quadmix.materialise.write import materialise
from quadmix.recipe import MaterialiseSection
from quadmix.types import Corpus
folder = sys.argv[1]
materialise(
    read_value(folder + "/corpus/manifest.json", Corpus), folder,
    section=MaterialiseSection(shard_bytes=3000), seed=7, budget=4000, identity="i", theta_label="t",
    mapper=lambda function, tasks: [function(t) for t in tasks],
)
"""


def call(folder: Path, fault: str = "") -> int:
    child = [sys.executable, "-c", CHILD, str(folder)]
    return subprocess.run(
        child, env=os.environ | {"QUADMIX_FAULT": fault}, check=False, timeout=60
    ).returncode


def content(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): file_digest(p) for p in files}


def test_killed_anywhere_then_run_again_gives_the_same_files(run: Run, tmp_path: Path):
    clean = tmp_path / "clean"
    shutil.copytree(run.folder, clean)
    assert call(clean) == 0
    expected = content(clean)
    assert "dataset/manifest.json" in expected
    nth = {"materialise.spill": "@2", "materialise.split": "@2", "materialise.before_part": "@3"}
    folder = tmp_path / "killed"
    for point in SHUFFLED:
        shutil.copytree(run.folder, folder)
        assert call(folder, point + nth.get(point, "")) == -signal.SIGKILL, point
        assert (folder / "dataset" / "manifest.json").exists() == (point == "materialise.after_manifest")
        assert call(folder) == 0, point
        assert content(folder) == expected, point
        shutil.rmtree(folder)


def test_one_run_killed_at_point_after_point_still_ends_alike(run: Run, tmp_path: Path):
    clean = tmp_path / "clean"
    shutil.copytree(run.folder, clean)
    assert call(clean) == 0
    for point in SHUFFLED[::2]:
        assert call(run.folder, point) == -signal.SIGKILL, point
    assert call(run.folder) == 0
    assert content(run.folder) == content(clean)


def test_finished_shards_are_not_written_again(run: Run):
    assert call(run.folder, "materialise.after_part@3") == -signal.SIGKILL
    first = run.folder / "dataset" / "part-00000.parquet"
    stamp = first.stat().st_mtime_ns
    assert call(run.folder) == 0
    assert first.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("fault", ["", "another.point", "materialise.spill@9"])
def test_other_faults_do_not_kill(fault: str, monkeypatch: pytest.MonkeyPatch):
    from quadmix.io import faults

    monkeypatch.setenv("QUADMIX_FAULT", fault)
    monkeypatch.setattr(faults, "_passed", faults.Counter())
    faults.fault_point("materialise.spill")
    assert faults._passed["materialise.spill"] == (1 if "@" in fault else 0)
