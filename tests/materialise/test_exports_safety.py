"""An export is whole and verified or it is not there; what is wrong is refused with its reason."""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from materialise.export_run import LARGE, Run, change_manifest, make_run
from materialise.export_run import run as run
from typer.testing import CliRunner

from quadmix.cli.main import app
from quadmix.errors import IdentityError, InputError, IntegrityError, LeaseError, MissingExtraError
from quadmix.io.atomic import file_digest, read_value, write_json
from quadmix.io.faults import EXPORT_POINTS
from quadmix.io.folders import new_folder
from quadmix.materialise.exports import (
    Document,
    ExportFormat,
    ExportManifest,
    Source,
    export_dataset,
    libraries,
    megatron,
    registry,
)
from quadmix.types import Corpus


def visible(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if not p.name.startswith(".")}


def export_in_process(run: Run, out: Path, fault: str) -> int:
    code = (
        "from quadmix.materialise.exports import export_dataset\n"
        f"export_dataset({str(run.folder)!r}, {str(out)!r}, format='megatron')"
    )
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "QUADMIX_FAULT": fault}, check=False
    ).returncode


@pytest.mark.parametrize("fault", [*EXPORT_POINTS, "export.shard@2"])
def test_a_killed_export_leaves_nothing_visible_and_is_done_again(
    run: Run, tmp_path: Path, fault: str
) -> None:
    out = tmp_path / "out"
    assert export_in_process(run, out, fault) == -9
    assert visible(tmp_path) == {"run"}
    done = export_dataset(run.folder, out, format="megatron")
    whole = export_dataset(run.folder, tmp_path / "undisturbed", format="megatron")
    assert done == whole
    assert {p.name for p in tmp_path.iterdir()} == {"run", "out", "undisturbed"}


def test_the_manifest_says_where_it_came_from_and_names_every_file(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export_dataset(run.folder, out, format="megatron")
    assert read_value(out / "export.json", ExportManifest) == done
    assert (done.format, done.dataset, done.order) == ("megatron", "dataset-digest", "shuffled")
    assert done.tokenizer == file_digest(run.folder / "tokenizer.json")
    assert {f.name for f in done.files} == visible(out) - {"export.json"}
    for file in done.files:
        path = out / file.name
        assert (path.stat().st_size, file_digest(path)) == (file.bytes, file.digest)


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[tuple[str, int]] = []
        self.done = 0

    def stage(self, name: str, total: int, unit: str) -> "Notes":
        self.stages.append((name, total))
        return self

    def __enter__(self) -> "Notes":
        return self

    def __exit__(self, *error: object) -> None: ...

    def advance(self, n: int = 1) -> None:
        self.done += n

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_an_identical_export_is_recognised_and_another_one_refused(run: Run, tmp_path: Path) -> None:
    out, watch = tmp_path / "out", Notes()
    first = export_dataset(run.folder, out, format="olmo")
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    assert export_dataset(run.folder, out, format="olmo", watch=watch) == first
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before
    assert watch.stages == []
    assert "already" in watch.notes[0]
    with pytest.raises(IdentityError, match=r"another export \(format olmo, asked for megatron"):
        export_dataset(run.folder, out, format="megatron")
    with pytest.raises(IdentityError, match=r"eos <\|endoftext\|>, asked for x"):
        export_dataset(run.folder, out, format="olmo", eos="x")
    (out / "part-00000.npy").write_bytes(b"cut")
    with pytest.raises(IntegrityError, match=r"part-00000\.npy is missing or was changed"):
        export_dataset(run.folder, out, format="olmo")


def test_a_folder_with_other_files_is_left_alone(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export_dataset(run.folder, out, format="jsonl")  # an empty one may be there
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        export_dataset(run.folder, other, format="jsonl")
    assert visible(other) == {"thesis.txt"}
    with pytest.raises(InputError, match="local folder"):
        export_dataset(run.folder, "s3://bucket/out", format="jsonl")


def test_two_exports_to_one_place_do_not_mix(run: Run, tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as work:
        (work / "half").write_text("x")
        with pytest.raises(LeaseError):
            export_dataset(run.folder, tmp_path / "out", format="jsonl")
        assert (work / "half").exists()
    assert visible(tmp_path / "out") == {"half"}


def test_progress_counts_every_document_twice(run: Run, tmp_path: Path) -> None:
    watch, count = Notes(), len(run.texts)
    export_dataset(run.folder, tmp_path / "out", format="megatron", watch=watch)
    assert watch.stages == [("export", count), ("verify", count)]
    assert watch.done == 2 * count


def test_a_dataset_in_corpus_order_is_exported_with_a_warning(tmp_path: Path) -> None:
    run, watch = make_run(tmp_path / "run", order="corpus"), Notes()
    done = export_dataset(run.folder, tmp_path / "out", format="jsonl", watch=watch)
    assert done.order == "corpus"
    assert "shuffle before training" in watch.notes[0]


def test_a_changed_part_of_the_dataset_is_refused(run: Run, tmp_path: Path) -> None:
    path = run.folder / "dataset" / "part-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"part-00001\.parquet is missing or not the file"):
        export_dataset(run.folder, tmp_path / "out", format="megatron")
    assert visible(tmp_path) == {"run"}
    path.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        export_dataset(run.folder, tmp_path / "out", format="megatron")


def test_tokens_that_are_not_those_of_the_manifest_are_refused(run: Run, tmp_path: Path) -> None:
    first, *rest = run.manifest.shards
    change_manifest(run, shards=(dataclasses.replace(first, tokens=first.tokens + 1), *rest))
    with pytest.raises(IntegrityError, match=r"rows with .* tokens, its manifest says"):
        export_dataset(run.folder, tmp_path / "out", format="olmo")


def test_counts_from_a_column_of_the_user_are_not_compared_with_the_tokenizer(
    run: Run, tmp_path: Path
) -> None:
    path = run.folder / "corpus" / "manifest.json"
    corpus = read_value(path, Corpus)
    write_json(path, dataclasses.replace(corpus, columns=dataclasses.replace(corpus.columns, tokens="n")))
    first, *rest = run.manifest.shards
    change_manifest(run, shards=(dataclasses.replace(first, tokens=7), *rest))
    assert export_dataset(run.folder, tmp_path / "out", format="olmo").tokens == len(run.stream())


def test_what_cannot_be_exported_is_said(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="format 'tfrecord' is unknown; expected one of megatron, olmo"):
        export_dataset(run.folder, out, format="tfrecord")
    with pytest.raises(InputError, match=r"holds texts; leave out the tokenizer"):
        export_dataset(run.folder, out, format="jsonl", eos="x")
    with pytest.raises(InputError, match=r"holds '\|' or a space"):
        export_dataset(run.folder, out, format="nanotron", tokenizer_name="a|b")
    with pytest.raises(InputError, match="there is no finished dataset"):
        export_dataset(tmp_path, out, format="jsonl")
    change_manifest(run, format="index")
    with pytest.raises(InputError, match="index of documents without their texts"):
        export_dataset(run.folder, out, format="jsonl")


def test_a_wrong_tokenizer_is_refused(run: Run, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "tokenizer.json"
    with pytest.raises(InputError, match="does not exist"):
        export_dataset(run.folder, out, format="megatron", tokenizer=other)
    other.write_text("{}")
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        export_dataset(run.folder, out, format="megatron", tokenizer=other)
    text = (run.folder / "tokenizer.json").read_text().replace("<|endoftext|>", "<|stop|>")
    other.write_text(text)
    with pytest.raises(InputError, match="no end-of-document token"):
        export_dataset(run.folder, out, format="megatron", tokenizer=other)
    with pytest.raises(InputError, match="no end-of-document token, one of <none>"):
        export_dataset(run.folder, out, format="megatron", tokenizer=other, eos="<none>")
    (run.folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer\.json; name one"):
        export_dataset(run.folder, out, format="megatron")
    assert (
        export_dataset(run.folder, out, format="megatron", tokenizer=other, eos="<|stop|>").eos == "<|stop|>"
    )


@pytest.mark.parametrize(("form", "extra"), [("nanotron", "export"), ("mds", "mds"), ("litdata", "litdata")])
def test_a_missing_library_names_its_extra(
    run: Run, tmp_path: Path, form: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

    monkeypatch.setattr(libraries.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=rf"format {form} needs .*pip install 'quadmix\[{extra}\]'"):
        export_dataset(run.folder, tmp_path / "out", format=form)
    assert visible(tmp_path) == {"run"}


def _lossy(source: Source, folder: Path) -> Iterator[Document]:
    for place, document in enumerate(megatron.read(source, folder)):
        assert document.ids is not None
        yield Document(ids=np.zeros(3, np.int64)) if place == 4 else document


def _short(source: Source, folder: Path) -> None:
    for shard in source.shards():
        next(shard.documents)


def _one_shard(source: Source, folder: Path) -> None:
    for _ in next(source.shards()).documents:
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"read": _lossy}, "is another one when it is read back|written were"),
        ({"read": lambda s, f: iter(list(megatron.read(s, f))[:-1])}, "the files hold 9 documents"),
        ({"write": _short}, "went through 1 of its 6 rows"),
        ({"write": _one_shard}, "6 documents passed, the dataset's manifest says 10"),
    ],
)
def test_an_exporter_that_loses_documents_is_caught(
    run: Run, tmp_path: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = dataclasses.replace(megatron.FORMAT, name="wrong", **changes)
    monkeypatch.setitem(registry.BUILT_IN, "wrong", wrong)
    with pytest.raises(IntegrityError, match=message):
        export_dataset(run.folder, tmp_path / "out", format="wrong")
    assert {p.name for p in tmp_path.iterdir()} == {"run"}


def _write_ids(source: Source, folder: Path) -> None:
    lines = [f"{s.name}\t{d.doc_id!r}\t{d.text!r}" for s in source.shards() for d in s.documents]
    (folder / "ids.txt").write_text("\n".join(lines), encoding="utf-8")


def _read_ids(source: Source, folder: Path) -> Iterator[Document]:
    import ast

    for line in (folder / "ids.txt").read_text(encoding="utf-8").split("\n"):
        _, doc_id, text = line.split("\t")
        yield Document(doc_id=ast.literal_eval(doc_id), text=ast.literal_eval(text))


MINE = ExportFormat(name="mine", holds="texts", write=_write_ids, read=_read_ids)
NONE = object()


def test_a_package_adds_a_format_by_entry_point(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = EntryPoints(
        EntryPoint(name=n, value=f"{__name__}:{v}", group=registry.GROUP)
        for n, v in (("mine", "MINE"), ("broken", "NONE"), ("jsonl", "NONE"))
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    done = export_dataset(run.folder, tmp_path / "out", format="mine")
    assert (done.documents, [f.name for f in done.files]) == (len(run.texts), ["ids.txt"])
    with pytest.raises(InputError, match="is object, expected an ExportFormat"):
        export_dataset(run.folder, tmp_path / "other", format="broken")
    assert export_dataset(run.folder, tmp_path / "other", format="jsonl").format == "jsonl"


def test_the_command_says_what_was_chosen(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", large=True)
    result = CliRunner().invoke(app, ["export", str(run.folder), "--format", "megatron", "--quiet"])
    assert result.exit_code == 0, result.output
    assert (run.folder / "exports" / "megatron" / "tokens.bin").is_file()
    assert f"tokens: int32, {LARGE + 1:,} entries" in result.stdout
    assert f"end of document: <|endoftext|> (id {run.eos}), found in the tokenizer" in result.stdout
    assert "verified: all documents read back" in result.stdout
    shutil.rmtree(run.folder / "exports")
    result = CliRunner().invoke(app, ["export", str(run.folder), "--format", "hf", "--json", "--quiet"])
    assert f'"documents": {len(run.texts)}' in result.stdout
