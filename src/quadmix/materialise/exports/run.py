"""Dataset -> the files that a training framework reads, verified by reading them back (promise P12).

In: a finished run folder. Out: a folder in the wanted format with export.json, written last, as an
`ExportManifest`. The folder is whole or absent: it is filled beside its place under a hidden name, read back,
compared with the dataset and then renamed. A killed export starts again from the beginning.
"""

import dataclasses
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from quadmix import __version__
from quadmix.corpus.tokenizer import Tokenizer
from quadmix.errors import IdentityError, InputError, IntegrityError
from quadmix.io.atomic import copy_file, file_digest, read_value, value_digest, write_json
from quadmix.io.faults import fault_point
from quadmix.io.folders import files_in, new_folder
from quadmix.materialise.exports.check import Tally, check_export, sample_places
from quadmix.materialise.exports.kinds import (
    ExportFile,
    ExportFormat,
    ExportManifest,
    Step,
    Vocabulary,
    Watch,
)
from quadmix.materialise.exports.libraries import library_version
from quadmix.materialise.exports.registry import find_format
from quadmix.materialise.exports.source import DatasetSource
from quadmix.types import Corpus, DatasetManifest
from quadmix.urls import is_remote

MANIFEST = "export.json"
_TOKENIZER = "tokenizer.json"


class _Silent:
    """Tells nobody."""

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Generator[Step]:
        yield self

    def advance(self, n: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


def export_dataset(
    run_folder: str | Path,
    out: str | Path,
    *,
    format: str,
    tokenizer: str | Path | None = None,
    eos: str | None = None,
    tokenizer_name: str = "",
    watch: Watch | None = None,
) -> ExportManifest:
    """Write the dataset of a run to the folder `out` in a format, check it by reading, and say what it holds.

    tokenizer: a tokenizer.json, None for that of the run. eos: its end-of-document token, None to find it.
    tokenizer_name: what the consumer loads the tokenizer by (nanotron's metadata). An identical export
    that is there already is left as it is; anything else in `out` is refused: IdentityError, InputError.
    IntegrityError if the dataset or what was written is not what it should be: then nothing is left in `out`.
    """
    watch = watch or _Silent()
    folder, target = Path(run_folder), _local(out)
    manifest = _dataset(folder)
    kind = find_format(format)
    words = _vocabulary(kind, folder, tokenizer, eos, tokenizer_name)
    wanted = _asked(kind, manifest, words)
    if (done := _finished(target, wanted)) is not None:
        watch.note(f"{target} holds this very export already; nothing to do")
        return done
    if manifest.order == "corpus":
        watch.note(
            "warning: the dataset is in corpus order, so copies of a document are neighbours, and so are "
            "documents of one source; shuffle before training, or materialise with order: shuffled"
        )
    corpus = read_value(folder / "corpus" / "manifest.json", Corpus)
    tally = Tally(
        sample_places(manifest.ledger.copies, manifest.seed), words.tokenizer.end_of_document if words else -1
    )
    source = DatasetSource(
        dataset=folder / "dataset",
        manifest=manifest,
        text=corpus.columns.text,
        words=words,
        counted=words is not None
        and corpus.columns.tokens is None
        and _run_tokenizer(folder) == words.tokenizer.digest,
        tally=tally,
        advance=lambda n: None,
    )
    return _export(kind, source, target, wanted, watch, tokenizer or folder / _TOKENIZER)


def _export(
    kind: ExportFormat,
    source: DatasetSource,
    target: Path,
    wanted: ExportManifest,
    watch: Watch,
    tokenizer: str | Path,
) -> ExportManifest:
    total = source.manifest.ledger.copies
    with new_folder(target) as work:
        with watch.stage("export", total, "documents") as step:
            source.advance = step.advance
            kind.write(source, work)
        if source.tally.documents != total:
            raise IntegrityError(
                f"{source.tally.documents:,} documents passed, the dataset's manifest says {total:,}; "
                "run `quadmix verify`"
            )
        if source.words is not None:
            copy_file(tokenizer, work / _TOKENIZER)
        with watch.stage("verify", total, "documents") as step:
            exact = check_export(source.tally, kind.read(source, work), source.words, step.advance)
        done = dataclasses.replace(
            wanted,
            documents=source.tally.documents,
            tokens=source.tally.tokens,
            eos_inside=source.tally.eos_inside,
            sampled=len(source.tally.kept),
            exact=exact,
            files=tuple(_file(work, path) for path in files_in(work)),
        )
        write_json(work / MANIFEST, done)
        fault_point("export.before_rename")
    return done


def _file(folder: Path, path: Path) -> ExportFile:
    name = path.relative_to(folder).as_posix()
    return ExportFile(name=name, bytes=path.stat().st_size, digest=file_digest(path))


def _local(out: str | Path) -> Path:
    if is_remote(str(out)):
        raise InputError(
            f"out is {str(out)!r}, expected a local folder; export to a disk, then copy the folder"
        )
    return Path(out)


def _dataset(folder: Path) -> DatasetManifest:
    path = folder / "dataset" / "manifest.json"
    if not path.is_file():
        raise InputError(
            f"{path} does not exist, so there is no finished dataset; run `quadmix run` to its end"
        )
    manifest = read_value(path, DatasetManifest)
    if manifest.format == "index":
        raise InputError(
            f"{path.parent} is an index of documents without their texts; write a dataset with "
            "materialise.format: parquet and export that"
        )
    return manifest


def _run_tokenizer(folder: Path) -> str:
    path = folder / _TOKENIZER
    return file_digest(path) if path.is_file() else ""


def _vocabulary(
    kind: ExportFormat, folder: Path, tokenizer: str | Path | None, eos: str | None, name: str
) -> Vocabulary | None:
    if kind.holds == "texts":
        if tokenizer is not None or eos is not None or name:
            raise InputError(f"format {kind.name} holds texts; leave out the tokenizer and its options")
        return None
    if tokenizer is None and not _run_tokenizer(folder):
        raise InputError(f"{folder} has no {_TOKENIZER}; name one with --tokenizer path/to/tokenizer.json")
    if "|" in name or re.search(r"\s", name):
        raise InputError(
            f"tokenizer name {name!r} holds '|' or a space; expected a name of the hub or a path"
        )
    loaded = Tokenizer.load(tokenizer or folder / _TOKENIZER, eos)
    return Vocabulary(
        tokenizer=loaded,
        eos=str(loaded.backend.id_to_token(loaded.end_of_document)),
        dtype=kind.dtype(loaded.vocab_size),
        name=name,
    )


def _asked(kind: ExportFormat, manifest: DatasetManifest, words: Vocabulary | None) -> ExportManifest:
    """Return the manifest without what only the files can say."""
    asked = [kind.name, manifest.digest]
    known = ExportManifest(
        format=kind.name,
        library=kind.package or "quadmix",
        library_version=library_version(kind.package) if kind.package else __version__,
        quadmix=__version__,
        dataset=manifest.digest,
        order=manifest.order,
        documents=0,
        plan=value_digest(asked),
    )
    if words is None:
        return known
    loaded = words.tokenizer
    asked += [loaded.digest, words.eos, words.dtype.name, words.name]
    return dataclasses.replace(
        known,
        dtype=words.dtype.name,
        tokenizer=loaded.digest,
        entries=loaded.vocab_size,
        eos=words.eos,
        eos_id=loaded.end_of_document,
        plan=value_digest(asked),
    )


def _finished(target: Path, wanted: ExportManifest) -> ExportManifest | None:
    """Return the manifest of an identical export; refuse to touch any other one."""
    path = target / MANIFEST
    if not path.is_file():
        return None
    there = read_value(path, ExportManifest)
    if there.plan != wanted.plan:
        raise IdentityError(
            f"{target} holds another export ({_difference(there, wanted)}); name another folder"
        )
    for file in there.files:
        found = target / file.name
        if not found.is_file() or found.stat().st_size != file.bytes:
            raise IntegrityError(
                f"{found} is missing or was changed (expected {file.bytes:,} bytes); remove {target} and "
                "export again"
            )
    return there


def _difference(there: ExportManifest, wanted: ExportManifest) -> str:
    names = ("format", "dataset", "tokenizer", "eos", "dtype")
    differ = [n for n in names if getattr(there, n) != getattr(wanted, n)]
    return ", ".join(f"{n} {getattr(there, n)}, asked for {getattr(wanted, n)}" for n in differ) or "options"
