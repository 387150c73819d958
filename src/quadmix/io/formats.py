"""Which files are read and how: suffix -> format, and which files of a folder belong to a corpus.

In: file names, and for folders of the `datasets` library the JSON files beside the data. Out: formats, and
the names that count. Nothing is opened here; the caller hands in how to look at a file.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import orjson

from quadmix.errors import InputError
from quadmix.types import FileFormat

_STEMS = (".jsonl", ".ndjson", ".json")
_FORMATS: dict[str, FileFormat] = {
    **{stem: "jsonl" for stem in _STEMS},
    **{stem + ".gz": "jsonl.gz" for stem in _STEMS},
    **{stem + ".zst": "jsonl.zst" for stem in _STEMS},
    ".parquet": "parquet",
    **{stem: "arrow" for stem in (".arrow", ".feather", ".ipc")},
    **{stem: "warc" for stem in (".warc", ".wet")},
    **{stem + ".gz": "warc.gz" for stem in (".warc", ".wet")},
}
SUFFIXES = tuple(sorted(_FORMATS))
_BY_LENGTH = sorted(_FORMATS, key=len, reverse=True)
# what `datasets.save_to_disk` has called the file that maps rows, in different versions of the library
_INDICES = ("_indices_files", "_indices_data_files")

Peek = Callable[[str], bytes | None]


def file_format(path: str) -> FileFormat:
    """Return the format that a file's suffix declares; InputError lists the suffixes there are."""
    suffix = _suffix(path)
    if suffix is None:
        raise InputError(f"file {path!r} has no known suffix; expected one of {', '.join(SUFFIXES)}")
    return _FORMATS[suffix]


def is_columnar(kind: FileFormat) -> bool:
    """Are rows of this format read as Arrow batches (and not as objects)?"""
    return kind in ("parquet", "arrow")


def _suffix(path: str) -> str | None:
    lower = path.lower()
    return next((s for s in _BY_LENGTH if lower.endswith(s)), None)


def members(root: str, names: Iterable[str], peek: Peek) -> list[str]:
    """Return the files of a folder that belong to a corpus, of all `names` below `root`.

    Hidden files and a bare `.json` (usually metadata) do not. Of a folder that `datasets.save_to_disk`
    wrote only the files of its state.json do: caches of later operations lie there too. peek: bytes of a
    small file, None if there is none.
    """
    known = [n for n in names if _belongs(n[len(root) :])]
    return _saved(known, peek)


def check_named(names: Sequence[str], peek: Peek) -> list[str]:
    """Return the files as they were named, unless a state.json beside one says that they hold other rows."""
    for folder in {_folder(n) for n in names if _suffix(n) and file_format(n) == "arrow"}:
        _saved_state(folder, peek)
    return list(names)


def _belongs(inside: str) -> bool:
    if any(part.startswith(".") for part in inside.split("/")) or inside.lower().endswith(".json"):
        return False
    return _suffix(inside) is not None


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _saved(names: Sequence[str], peek: Peek) -> list[str]:
    folders = {_folder(n) for n in names if file_format(n) == "arrow"}
    listed = {folder: _data_files(folder, names, peek) for folder in folders}
    listed |= {
        folder: set[str]()
        for parent in {_folder(f) for f in folders}
        for folder in _dropped_splits(parent, folders, peek)
    }
    return [n for n in names if _counts(n, listed.get(_folder(n)))]


def _counts(name: str, listed: set[str] | None) -> bool:
    return listed is None or name in listed or file_format(name) != "arrow"


def _data_files(folder: str, names: Sequence[str], peek: Peek) -> set[str] | None:
    """Return the files that a saved dataset consists of; None if the folder is no such dataset."""
    state = _saved_state(folder, peek)
    if state is None:
        if peek(f"{folder}/dataset_info.json") is None:
            return None
        # the library's own cache: results of map and filter lie beside the data
        return {n for n in names if not n.startswith(f"{folder}/cache-")}
    entries: list[dict[str, Any]] = state.get("_data_files") or []
    files = {f"{folder}/{entry.get('filename')}" for entry in entries}
    if missing := sorted(files - set(names)):
        raise InputError(
            f"{folder}/state.json lists {missing[0]!r}, which is not there; expected the whole folder that "
            "datasets.save_to_disk wrote. Copy it again, or name the .arrow files in corpus.paths"
        )
    return files


def _saved_state(folder: str, peek: Peek) -> dict[str, Any] | None:
    state = _json(f"{folder}/state.json", peek)
    if state is None or "_data_files" not in state:
        return None
    if any(state.get(key) for key in _INDICES):
        raise InputError(
            f"{folder}/state.json says that an indices file selects or reorders the rows, so the data files "
            "hold other rows than the dataset; expected a dataset without one. Load it with the datasets "
            "library, call flatten_indices() and save_to_disk() to a new folder"
        )
    return state


def _dropped_splits(parent: str, folders: set[str], peek: Peek) -> set[str]:
    """Return the folders of splits that dataset_dict.json does not name: left over from an earlier save."""
    state = _json(f"{parent}/dataset_dict.json", peek)
    if state is None or not isinstance(state.get("splits"), list):
        return set()
    kept = {f"{parent}/{split}" for split in cast(list[Any], state["splits"])}
    return {f for f in folders if _folder(f) == parent and f not in kept}


def _json(path: str, peek: Peek) -> dict[str, Any] | None:
    data = peek(path)
    if data is None:
        return None
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InputError(
            f"file {path!r} is not JSON ({error}); copy the folder again, or remove the file if it is not "
            "from the datasets library"
        ) from error
    return cast(dict[str, Any], value) if isinstance(value, dict) else None
