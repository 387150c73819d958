"""Suffixes, and which files of a folder are the corpus: folders of the datasets library above all."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from quadmix.errors import InputError
from quadmix.io.formats import file_format
from quadmix.io.fs import expand
from quadmix.io.readers import plan_splits, read_arrow

SAVED = (
    Path(__file__).parent / "saved"
)  # written by save_to_disk of datasets 5.2.0, with caches of map and filter


def rows_of(folder: Path) -> list[dict[str, Any]]:
    splits = plan_splits(expand([str(folder)]), 10**9)
    return [row for split in splits for batch in read_arrow(split) for row in batch.table.to_pylist()]


def expected(count: int) -> list[dict[str, Any]]:
    return [{"id": f"{i:05d}", "text": f"text number {i} \u00e9", "score": i / 10} for i in range(count)]


def change_state(folder: Path, **keys: Any) -> None:
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, **keys}))


def saved(tmp_path: Path, name: str) -> Path:
    return Path(shutil.copytree(SAVED / name, tmp_path / name))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.JSONL", "jsonl"),
        ("a.arrow", "arrow"),
        ("a.feather", "arrow"),
        ("a.ipc", "arrow"),
        ("a.wet", "warc"),
        ("CC-MAIN-0.warc.wet.gz", "warc.gz"),
        ("CC-MAIN-0.warc.gz", "warc.gz"),
        ("a.warc", "warc"),
    ],
)
def test_a_suffix_declares_the_format(name: str, kind: str) -> None:
    assert file_format(name) == kind


def test_a_saved_dataset_is_the_files_of_its_state_and_not_the_caches_beside_them() -> None:
    files = [Path(p).name for p in expand([str(SAVED / "plain")])]
    assert files == ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    assert rows_of(SAVED / "plain") == expected(7)


def test_the_splits_of_a_saved_dataset_dict_are_all_taken() -> None:
    files = [str(Path(p).relative_to(SAVED / "dict").parent) for p in expand([str(SAVED / "dict")])]
    assert files == ["train", "validation"]
    assert rows_of(SAVED / "dict") == expected(7) + expected(2)


def test_a_split_that_a_later_save_dropped_is_no_part_of_the_dataset(tmp_path: Path) -> None:
    folder = saved(tmp_path, "dict")
    (folder / "dataset_dict.json").write_text('{"splits": ["validation"]}')
    assert rows_of(folder) == expected(2)


@pytest.mark.parametrize("key", ["_indices_files", "_indices_data_files"])
@pytest.mark.parametrize("path", ["", "/*.arrow", "/data-00000-of-00002.arrow"])
def test_an_indices_file_is_refused_however_the_files_are_named(tmp_path: Path, key: str, path: str) -> None:
    """With an indices file the dataset has other rows, or another order, than its data files."""
    folder = saved(tmp_path, "plain")
    change_state(folder, **{key: [{"filename": "indices.arrow"}]})
    with pytest.raises(InputError, match=r"plain/state\.json .* indices file .* flatten_indices\(\)"):
        expand([f"{folder}{path}"])
    change_state(folder, **{key: []})
    assert expand([f"{folder}{path}"])


def test_a_data_file_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path, "plain")
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(InputError, match=r"state\.json lists .*data-00001-of-00002\.arrow', which is not"):
        expand([str(folder)])


def test_a_state_that_is_no_json_is_named_and_a_foreign_one_ignored(tmp_path: Path) -> None:
    folder = saved(tmp_path, "plain")
    (folder / "state.json").write_text("{")
    with pytest.raises(InputError, match=r"state\.json' is not JSON"):
        expand([str(folder)])
    (folder / "state.json").write_text('{"step": 7}')
    (folder / "dataset_info.json").unlink()
    assert len(expand([str(folder)])) == 5


def test_caches_of_the_library_are_no_corpus_without_a_state_either(tmp_path: Path) -> None:
    """~/.cache/huggingface keeps <name>-train.arrow beside cache-*.arrow, and a dataset_info.json."""
    folder = saved(tmp_path, "plain")
    (folder / "state.json").unlink()
    assert [Path(p).name[:4] for p in expand([str(folder)])] == ["data", "data"]


def test_remote_folders_of_the_library_are_read_alike() -> None:
    import fsspec

    fs: Any = fsspec.filesystem("memory")
    for file in (SAVED / "plain").iterdir():
        fs.pipe_file(f"/formats-test/{file.name}", file.read_bytes())
    paths = expand(["memory://formats-test"])
    assert paths == [f"memory:///formats-test/data-0000{i}-of-00002.arrow" for i in (0, 1)]
    rows = [r for s in plan_splits(paths, 10**9) for b in read_arrow(s) for r in b.table.to_pylist()]
    assert rows == expected(7)


def test_other_files_of_a_folder_stay(tmp_path: Path) -> None:
    folder = saved(tmp_path, "plain")
    (folder / "more.jsonl").write_text('{"text": "t"}\n')
    (tmp_path / "lone.arrow").touch()
    with pa.OSFile(str(tmp_path / "lone.arrow"), "wb") as out, pa.ipc.new_file(out, pa.schema([])):
        pass
    names = [str(Path(p).relative_to(tmp_path)) for p in expand([str(tmp_path)])]
    assert names == [
        "lone.arrow",
        *(f"plain/{n}" for n in ("data-00000-of-00002.arrow", "data-00001-of-00002.arrow", "more.jsonl")),
    ]  # fmt: skip
