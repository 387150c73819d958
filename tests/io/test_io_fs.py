"""Finding files, digests, and JSON lines out."""

from pathlib import Path

import pytest
import xxhash
import zstandard

from quadmix.errors import InputError, IntegrityError
from quadmix.io import writers
from quadmix.io.formats import file_format
from quadmix.io.fs import available_cores, expand, file_info, file_size, open_input
from quadmix.io.writers import write_jsonl_zst


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_folders_globs_and_files_are_found_sorted_and_once(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b/z.jsonl",
        "a.parquet",
        "b/c/y.json.gz",
        "info.json",
        "notes.md",
        ".cache/a.jsonl",
        "b/.t.jsonl",
    )
    everything = [str(tmp_path / n) for n in ("a.parquet", "b/c/y.json.gz", "b/z.jsonl")]
    assert expand([str(tmp_path)]) == everything
    assert expand([f"{tmp_path}/b/*.jsonl", str(tmp_path), f"{tmp_path}/a.parquet"]) == everything
    assert expand([f"{tmp_path}/**/*.gz"]) == everything[1:2]
    assert expand([str(tmp_path / "info.json")]) == [str(tmp_path / "info.json")]


def test_a_file_with_glob_characters_in_its_name_is_itself(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].jsonl", "a1.jsonl")
    assert expand([str(tmp_path / "a[1].jsonl")]) == [str(tmp_path / "a[1].jsonl")]


@pytest.mark.parametrize("name", ["none.jsonl", "*.parquet", "empty"])
def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"matches no file; expected .*\.parquet"):
        expand([str(tmp_path / name)])


def test_fsspec_urls_work() -> None:
    import fsspec

    with fsspec.open("memory://pool/a.jsonl", "wb") as file:
        file.write(b"{}\n")  # pyright: ignore
    assert expand(["memory://pool"]) == ["memory:///pool/a.jsonl"]
    assert file_size("memory:///pool/a.jsonl") == 3
    with open_input("memory:///pool/a.jsonl") as file:
        assert file.read() == b"{}\n"


def test_unknown_suffix_and_protocol_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'a\.csv' has no known suffix; expected one of"):
        file_format("a.csv")
    with pytest.raises(InputError, match="has the scheme 'nosuch'"):
        expand(["nosuch://x/a.jsonl"])
    with pytest.raises(InputError, match="cannot be read"):
        open_input(str(tmp_path / "gone.jsonl"))


def test_file_info_is_size_and_hash_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "a.jsonl").write_bytes(data)
    info = file_info(str(tmp_path / "a.jsonl"))
    assert (info.bytes, info.digest) == (len(data), xxhash.xxh3_128_hexdigest(data))


def test_available_cores_is_at_least_one() -> None:
    assert available_cores() >= 1


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_jsonl_zst_holds_the_lines_and_its_bytes_repeat(tmp_path: Path, count: int) -> None:
    lines = [b'{"n":%d}' % i for i in range(count)]
    assert write_jsonl_zst(tmp_path / "a.jsonl.zst", iter(lines)) == count
    write_jsonl_zst(tmp_path / "b.jsonl.zst", lines)
    data = (tmp_path / "a.jsonl.zst").read_bytes()
    assert data == (tmp_path / "b.jsonl.zst").read_bytes()
    with zstandard.open(tmp_path / "a.jsonl.zst", "rb") as file:
        assert file.read() == b"".join(line + b"\n" for line in lines)


def test_an_exception_or_a_wrong_count_commits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken():
        yield b"{}"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_jsonl_zst(tmp_path / "a.jsonl.zst", broken())
    monkeypatch.setattr(writers, "_count_lines", lambda _: 1)
    with pytest.raises(IntegrityError, match="1 lines came back, expected the 2 written"):
        write_jsonl_zst(tmp_path / "a.jsonl.zst", [b"{}", b"{}"])
    assert list(tmp_path.iterdir()) == []
