"""A tiny finished run: a dataset of two parts with its manifest, a corpus manifest and a tokenizer."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from quadmix.corpus.tokenizer import END_OF_DOCUMENT, train_tokenizer
from quadmix.io.atomic import file_digest, write_json, write_table
from quadmix.io.writers import write_jsonl_zst
from quadmix.types import ColumnMap, Corpus, DatasetManifest, Ledger, ShardInfo

TEXTS = (
    "A first document, plain.",
    "Ünïcödé, 漢字かな, עברית and an emoji: 👩‍👩‍👧‍👦🏳️‍🌈 é",
    " \n\t ",
    "A long one: " + "the quick brown fox jumps over the lazy dog; " * 90,
    "line one\r\nline two\x0bthree\u2028four",
    "A first document, plain.",
    'quotes " and, commas\n\nand a paragraph',
    "x",
    "Übung macht den Meister. " * 7,
    "the last of all 🙂",
)
SPLIT = 6  # rows in the first part
LARGE = 70_000


@dataclass(frozen=True, kw_only=True)
class Run:
    folder: Path
    texts: tuple[str, ...]
    ids: tuple[str, ...]
    structs: tuple[dict[str, Any], ...]
    manifest: DatasetManifest

    @property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    @property
    def eos(self) -> int:
        return self.tokenizer.token_to_id(END_OF_DOCUMENT)

    def tokens(self) -> list[list[int]]:
        """The oracle: every text by the tokenizer alone, then the end of the document."""
        return [[*self.tokenizer.encode(t, add_special_tokens=False).ids, self.eos] for t in self.texts]

    def stream(self) -> list[int]:
        return [i for ids in self.tokens() for i in ids]

    def streams(self) -> list[list[int]]:
        """The tokens of each part of the dataset."""
        tokens = self.tokens()
        return [[i for ids in part for i in ids] for part in (tokens[:SPLIT], tokens[SPLIT:])]


def write_tokenizer(path: Path, *, large: bool = False) -> None:
    """A byte-level BPE; `large` gives its last entry, which the texts use, an id beyond two bytes."""
    made = orjson.loads(train_tokenizer(TEXTS, 320))
    if large:
        vocabulary = made["model"]["vocab"]
        vocabulary[max(vocabulary, key=vocabulary.get)] = LARGE
    path.write_bytes(orjson.dumps(made))


def make_run(
    folder: Path, *, form: str = "parquet", large: bool = False, order: str = "shuffled", text: str = "text"
) -> Run:
    """Write a run folder. text: "text", or a dotted name for a nested column."""
    folder.mkdir(parents=True)
    write_tokenizer(folder / "tokenizer.json", large=large)
    ids = tuple(f'doc "{i}",\n{"é" * (i % 2)}' for i in range(len(TEXTS)))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    counts = [len(tokenizer.encode(t, add_special_tokens=False).ids) for t in TEXTS]
    structs = tuple(_struct(i, doc_id, n) for i, (doc_id, n) in enumerate(zip(ids, counts, strict=True)))
    root, _, leaf = text.partition(".")
    rows = [
        {root: {leaf: t} if leaf else t, "url": None if i % 3 else f"http://x/{i}", "quadmix": struct}
        for i, (t, struct) in enumerate(zip(TEXTS, structs, strict=True))
    ]
    shards = [_part(folder / "dataset", k, part, form) for k, part in enumerate((rows[:SPLIT], rows[SPLIT:]))]
    manifest = DatasetManifest(
        format=form,  # pyright: ignore[reportArgumentType]
        shards=tuple(shards),
        ledger=Ledger(
            rows_in=len(TEXTS), selected=len(TEXTS), dropped={}, quarantined={}, copies=len(TEXTS),
            tokens_in=sum(counts), unique_tokens=sum(counts), tokens_out=sum(counts),
        ),
        domains=(), token_budget=100, identity="i", theta_label="θ*", seed=3, digest="dataset-digest",
        order=order,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    write_json(folder / "dataset" / "manifest.json", manifest)
    (folder / "dataset" / "README.md").write_text(_CARD.format(form), encoding="utf-8")
    corpus = Corpus(files=(), splits=(), columns=ColumnMap(text=text), counts=(), schema="", digest="c")
    write_json(folder / "corpus" / "manifest.json", corpus)
    return Run(folder=folder, texts=TEXTS, ids=ids, structs=structs, manifest=manifest)


_CARD = """---
license: other
configs:
- config_name: default
  data_files:
  - split: train
    path: part-*.{}
---

# Made by a test
"""


def _struct(i: int, doc_id: str, tokens: int) -> dict[str, Any]:
    return {
        "doc_id": doc_id, "domain": ("code", "law")[i % 2], "tokens": tokens,
        "scores": {"edu": None if i == 1 else i / 8, "noise": 0.25}, "merged": i / 16, "rank": i / 32,
        "expected_copies": 1.5, "copies": 1, "copy_index": 0,
    }  # fmt: skip


def _part(folder: Path, number: int, rows: list[dict[str, Any]], form: str) -> ShardInfo:
    path = folder / f"part-{number:05d}.{form}"
    if form == "parquet":
        write_table(path, pa.Table.from_pylist(rows), row_group_size=4)
    else:
        write_jsonl_zst(path, [orjson.dumps(r) for r in rows])
    tokens = sum(r["quadmix"]["tokens"] for r in rows)
    size = path.stat().st_size
    return ShardInfo(name=path.name, rows=len(rows), bytes=size, digest=file_digest(path), tokens=tokens)


def change_manifest(run: Run, **changes: Any) -> None:
    write_json(run.folder / "dataset" / "manifest.json", dataclasses.replace(run.manifest, **changes))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


@pytest.fixture(params=[False, True], ids=["two bytes", "four bytes"])
def sized(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """A run whose ids fit into two bytes, and one whose ids do not."""
    return make_run(tmp_path / "run", large=request.param)
