"""The examples of docs/exports.md, run as they stand (but for the length of a sequence)."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from materialise.consumers import consumer
from materialise.consumers import readers as readers
from materialise.export_run import LARGE, Run, make_run

from quadmix.materialise.exports import export_dataset, registry

PAGE = Path(__file__).parents[2] / "docs" / "exports.md"
SECTIONS = dict(s.split("\n", 1) for s in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.M)[1:])
LIBRARY = {
    "megatron": "megatron.core.datasets.indexed_dataset",
    "olmo": "olmo_core.data",
    "nanotron": "datatrove.utils.dataset",
    "litdata": "litdata",
    "mds": "streaming",
    "hf": "datasets",
    "jsonl": "datasets",
}


def code(section: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", SECTIONS[section], flags=re.S)
    return block.replace("2048", "16")


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    with contextlib.chdir(tmp_path):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(consumer("datasets").config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
        yield make_run(Path("runs/demo"))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:The given buffer is not writable")
@pytest.mark.parametrize("form", list(registry.BUILT_IN))
def test_the_example_of_every_format_runs(form: str, demo: Run, capsys: pytest.CaptureFixture[str]) -> None:
    consumer(LIBRARY[form])
    export_dataset(demo.folder, demo.folder / "exports" / form, format=form)
    exec(compile(code(form), form, "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_format_of_ones_own_round_trips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code("A format of your own"), "own", "exec"), names)
    monkeypatch.setitem(registry.BUILT_IN, "ids", names["FORMAT"])
    run = make_run(tmp_path / "run", large=True)
    done = export_dataset(run.folder, tmp_path / "out", format="ids")
    assert (done.tokens, done.dtype, done.entries) == (len(run.stream()), "uint32", LARGE + 1)
