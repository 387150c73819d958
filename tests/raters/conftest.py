"""One trained rater for each file of tests that uses it."""

from pathlib import Path

import pytest
from parallel_world import cli, make_world, write_settings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained rater: rater.yaml beside raters/small, and corpus.jsonl."""
    folder = tmp_path_factory.mktemp("training")
    write_settings(folder, make_world(folder, 90))
    done = cli("train", str(folder / "rater.yaml"), "--set", "pairs.count=150")
    assert done.exit_code == 0, done.output
    (folder / "said.txt").write_text(done.output, "utf-8")
    return folder
