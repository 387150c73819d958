"""Exports of texts: the consumer's own reader gives the same documents in order, and their numbers."""

import io
import math
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
import zstandard
from materialise.consumers import consumer
from materialise.consumers import readers as readers
from materialise.export_run import Run, make_run
from materialise.export_run import run as run

from quadmix.materialise.exports import ExportManifest, export_dataset

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # the libraries leave files open


def export(run: Run, form: str) -> tuple[Path, ExportManifest]:
    out = run.folder.parent / form
    return out, export_dataset(run.folder, out, format=form)


def test_mds_streams_texts_and_numbers(run: Run, tmp_path: Path) -> None:
    streaming = consumer("streaming")
    out, done = export(run, "mds")
    data = streaming.StreamingDataset(
        remote=str(out), local=str(tmp_path / "cache"), shuffle=False, batch_size=1, validate_hash="xxh3_64"
    )
    rows = list(data)
    assert [r["text"] for r in rows] == list(run.texts)
    assert [r["doc_id"] for r in rows] == list(run.ids)
    for row, struct in zip(rows, run.structs, strict=True):
        numbers = ("domain", "tokens", "merged", "rank", "expected_copies", "copies", "copy_index")
        assert {n: row[n] for n in numbers} == {n: struct[n] for n in numbers}
        assert row["score.noise"] == pytest.approx(0.25)
    assert math.isnan(rows[1]["score.edu"])
    assert rows[3]["score.edu"] == 3 / 8
    assert (done.documents, done.tokens, done.tokenizer) == (len(run.texts), 0, "")
    assert done.library == "mosaicml-streaming"


@pytest.mark.parametrize("form", ["parquet", "jsonl.zst"])
def test_datasets_loads_the_folder(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run = make_run(tmp_path / "run", form=form)
    out, done = export(run, "hf")
    datasets = consumer("datasets")
    datasets.disable_progress_bars()
    data = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(data["text"]) == list(run.texts)
    assert [s["doc_id"] for s in data["quadmix"]] == list(run.ids)
    assert [s["scores"]["edu"] for s in data["quadmix"]] == [s["scores"]["edu"] for s in run.structs]
    assert done.documents == len(run.texts)


def test_the_card_for_the_hub_keeps_what_it_said_and_names_the_files(run: Run) -> None:
    out, _ = export(run, "hf")
    _, header, body = (out / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(header)
    assert card["license"] == "other"
    assert card["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert "# Made by a test" in body
    for k, shard in enumerate(run.manifest.shards):
        copy = out / f"data/train-{k:05d}-of-00002.parquet"
        assert copy.read_bytes() == (run.folder / "dataset" / shard.name).read_bytes()


def test_json_lines_hold_the_rows_as_they_are(run: Run) -> None:
    out, _ = export(run, "jsonl")
    rows: list[dict[str, Any]] = []
    for path in sorted(out.glob("*.jsonl.zst")):
        reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes()))
        rows += [orjson.loads(line) for line in reader.read().splitlines()]
    assert [r["text"] for r in rows] == list(run.texts)
    assert [r["quadmix"] for r in rows] == list(run.structs)
    assert [r["url"] for r in rows] == [None if i % 3 else f"http://x/{i}" for i in range(len(run.texts))]
