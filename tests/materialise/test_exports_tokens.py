"""Exports of tokens: the consumer's own reader gives the same documents in the same order as the same ids."""

import gzip
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from materialise.consumers import consumer
from materialise.consumers import readers as readers  # a fixture of this module
from materialise.export_run import LARGE, SPLIT, Run, make_run
from materialise.export_run import run as run
from materialise.export_run import sized as sized

from quadmix.materialise.exports import ExportManifest, export_dataset

BLOCK = 16  # shorter than most documents


def export(run: Run, form: str, **options: Any) -> tuple[Path, ExportManifest]:
    out = run.folder.parent / form
    return out, export_dataset(run.folder, out, format=form, **options)


def blocks(tokens: list[int], size: int = BLOCK) -> list[list[int]]:
    """Whole blocks; what is left at the end is dropped, as trainers do."""
    return [tokens[i : i + size] for i in range(0, len(tokens) - size + 1, size)]


def check_manifest(run: Run, done: ExportManifest, itemsize: int) -> None:
    assert done.documents == len(run.texts)
    assert done.tokens == len(run.stream())
    assert (done.eos, done.eos_id) == ("<|endoftext|>", run.eos)
    assert np.dtype(done.dtype).itemsize == itemsize
    assert done.sampled == done.exact > 2
    assert {f.name for f in done.files} >= {"tokenizer.json"}


def expected_size(run: Run) -> int:
    return 4 if LARGE in run.stream() else 2


def test_megatron_reads_every_document(sized: Run) -> None:
    out, done = export(sized, "megatron")
    module = consumer("megatron.core.datasets.indexed_dataset")
    data = module.IndexedDataset(str(out / "tokens"))
    assert [data[i].tolist() for i in range(len(data))] == sized.tokens()
    assert data.document_indices.tolist() == list(range(len(sized.texts) + 1))
    assert data.index.dtype == (np.int32 if expected_size(sized) == 4 else np.uint16)
    check_manifest(sized, done, expected_size(sized))


def test_megatron_files_are_those_of_its_own_builder(sized: Run, tmp_path: Path) -> None:
    out, done = export(sized, "megatron")
    module = consumer("megatron.core.datasets.indexed_dataset")
    kind = module.DType.optimal_dtype(done.entries)
    builder = module.IndexedDatasetBuilder(str(tmp_path / "own.bin"), dtype=kind)
    for ids in sized.tokens():
        builder.add_item(torch.tensor(ids))
        builder.end_document()
    builder.finalize(str(tmp_path / "own.idx"))
    for end in ("bin", "idx"):
        assert (out / f"tokens.{end}").read_bytes() == (tmp_path / f"own.{end}").read_bytes()


@pytest.mark.parametrize(("entries", "dtype"), [(65_499, "uint16"), (65_500, "int32")])
def test_megatron_dtype_changes_where_the_library_changes_it(entries: int, dtype: str) -> None:
    from quadmix.materialise.exports.megatron import dtype as choose

    module = consumer("megatron.core.datasets.indexed_dataset")
    assert choose(entries) == np.dtype(dtype) == np.dtype(module.DType.optimal_dtype(entries))


def test_olmo_core_reads_the_parts_one_after_the_other(sized: Run) -> None:
    out, done = export(sized, "olmo")
    data = consumer("olmo_core.data").NumpyFSLDataset(
        *sorted(out.glob("*.npy")),
        sequence_length=BLOCK,
        pad_token_id=sized.eos,
        eos_token_id=sized.eos,
        vocab_size=done.entries,
        dtype=np.dtype(done.dtype).type,
    )
    found = [data[i]["input_ids"].tolist() for i in range(len(data))]
    assert found == list(chain.from_iterable(blocks(s) for s in sized.streams()))
    check_manifest(sized, done, expected_size(sized))


def test_olmo_core_finds_the_documents_by_the_end_token_and_by_the_metadata(sized: Run) -> None:
    out, done = export(sized, "olmo")
    utils = consumer("olmo_core.data.utils")
    for k, part in enumerate((sized.tokens()[:SPLIT], sized.tokens()[SPLIT:])):
        path = out / f"part-{k:05d}.npy"
        ends = np.cumsum([len(ids) for ids in part]).tolist()
        expected = list(zip([0, *ends[:-1]], ends, strict=True))
        kind = np.dtype(done.dtype).type
        by_token = utils.iter_document_indices(path, eos_token_id=sized.eos, dtype=kind)
        assert [(int(a), int(b)) for a, b in by_token] == expected
        assert list(utils.iter_document_indices(path, use_array_if_local=False, dtype=kind)) == expected


def test_olmo_metadata_names_document_and_place_on_one_line_each(run: Run) -> None:
    out, _ = export(run, "olmo")
    lines = gzip.decompress((out / "part-00001.csv.gz").read_bytes()).decode().splitlines()
    assert len(lines) == len(run.texts) - SPLIT
    length = len(run.tokens()[SPLIT])
    assert lines[0] == f'0,{length},"doc ""{SPLIT}"", ",part-00001.parquet,1'


def test_nanotron_reads_the_folder(sized: Run) -> None:
    out, done = export(sized, "nanotron", tokenizer_name="me/mine")
    size = expected_size(sized)
    data = consumer("datatrove.utils.dataset").DatatroveFolderDataset(
        str(out),
        seq_len=BLOCK,
        filename_pattern="*.ds",
        recursive=False,
        token_size=size,
        return_positions=True,
    )
    items = [data[i] for i in range(len(data))]
    expected = list(chain.from_iterable(blocks(s, BLOCK + 1) for s in sized.streams()))
    assert [i["input_ids"].tolist() for i in items] == expected
    starts = items[0]["positions"].tolist()
    assert starts[: len(sized.tokens()[0])] == list(range(min(len(sized.tokens()[0]), BLOCK + 1)))
    tokens = len(sized.streams()[0])
    metadata = (out / "00000_tokens.ds.metadata").read_text().splitlines()
    assert metadata[:2] == [f"me/mine|{size}", str(tokens)]
    check_manifest(sized, done, size)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable", "ignore::ResourceWarning")
def test_litdata_streams_the_blocks(sized: Run) -> None:
    litdata = consumer("litdata")
    out, done = export(sized, "litdata")
    data = litdata.StreamingDataset(
        str(out), item_loader=litdata.TokensLoader(block_size=BLOCK), shuffle=False
    )
    assert [block.tolist() for block in data] == blocks(sized.stream())
    check_manifest(sized, done, expected_size(sized))


@pytest.mark.parametrize("form", ["megatron", "olmo", "nanotron", "litdata"])
def test_the_same_export_gives_the_same_bytes(form: str, run: Run) -> None:
    first, one = export(run, form)
    second = run.folder.parent / "again"
    two = export_dataset(run.folder, second, format=form)
    assert one == two
    assert {p.name for p in second.iterdir()} == {p.name for p in first.iterdir()}


def test_another_tokenizer_and_end_token_are_used_and_named(run: Run, tmp_path: Path) -> None:
    tokenizer = run.tokenizer
    tokenizer.add_special_tokens(["<stop>"])
    tokenizer.save(str(tmp_path / "other.json"))
    out, done = export(run, "olmo", tokenizer=tmp_path / "other.json", eos="<stop>")
    stop = tokenizer.token_to_id("<stop>")
    assert (done.eos, done.eos_id) == ("<stop>", stop)
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "other.json").read_bytes()
    tokens = np.fromfile(out / "part-00000.npy", dtype=np.uint16)
    assert int((tokens == stop).sum()) == SPLIT


def test_a_tokenizer_that_loses_characters_is_told_apart(run: Run, tmp_path: Path) -> None:
    from tokenizers import normalizers

    tokenizer = run.tokenizer
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(tmp_path / "lower.json"))
    _, done = export(run, "megatron", tokenizer=tmp_path / "lower.json")
    assert 0 < done.exact < done.sampled


def test_texts_that_hold_the_end_token_are_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    tokenizer = run.tokenizer
    x = tokenizer.token_to_id("x")
    _, done = export(run, "megatron", eos="x")
    assert done.eos_inside == sum(x in ids[:-1] for ids in run.tokens())


def test_lines_and_nested_text_give_the_same_tokens(tmp_path: Path) -> None:
    plain = make_run(tmp_path / "a" / "run")
    lines = make_run(tmp_path / "b" / "run", form="jsonl.zst", text="data.body")
    nested = make_run(tmp_path / "c" / "run", text="data.body")
    files = [(export(r, "megatron")[0] / "tokens.bin").read_bytes() for r in (plain, lines, nested)]
    assert files[0] == files[1] == files[2]
