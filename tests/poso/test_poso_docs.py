"""The examples of docs/poso.md, each in a fresh interpreter."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import quadmix

PAGE = Path(__file__).parents[2] / "docs" / "poso.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)


def test_page_has_its_examples() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_example_runs(block: str) -> None:
    path = f"import sys; sys.path.insert(0, {str(Path(quadmix.__file__).parent.parent)!r})\n"
    done = subprocess.run([sys.executable, "-c", path + block], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
