"""Whole runs in a second: made-up pages, a run whose search is given, recipes that apply its θ*.

Everything from the files to dataset and report is the real pipeline; only the swarm is left out, by a folder
that holds what a finished search leaves behind.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
import zstandard

from quadmix.annotate.table import survey
from quadmix.corpus.read import read_documents
from quadmix.io.atomic import read_json, read_value, write_json
from quadmix.materialise.selecting import fit_corpus_normaliser
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.run import RunResult, run
from quadmix.recipe import Recipe, check_recipe
from quadmix.types import Confirmation, Corpus, DatasetManifest, Theta

DOMAINS = ("arts", "code", "law")
SUFFIXES = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet", "arrow")
WORDS = ("the", "river", "and", "that", "have", "been", "to", "with", "garden", "of", "teachers", "harvest")


def pages(count: int, *, first: int = 0, domains: Sequence[str] = DOMAINS) -> list[dict[str, Any]]:
    """Documents with an id, text, a domain, a score and nested metadata."""
    rng = np.random.default_rng(first)
    return [
        {
            "id": f"page-{i:05d}",
            "text": f"Page {i} é. " + " ".join(rng.choice(WORDS, int(rng.integers(20, 60)))) + ".",
            "domain": domains[i % len(domains)],
            "edu": round(float(rng.normal()), 4),
            "meta": {"n": i, "tags": ["x", str(i)]},
        }
        for i in range(first, first + count)
    ]


def encode(rows: Iterable[Any], suffix: str) -> bytes:
    """Return a file of rows in a format; bytes among them are lines as they are (JSON formats only)."""
    if suffix in ("parquet", "arrow"):
        return encode_table(pa.Table.from_pylist(list(rows)), suffix)
    lines = (r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode() for r in rows)
    data = b"".join(line + b"\n" for line in lines)
    return {"jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}.get(suffix, bytes)(data)


def encode_table(table: pa.Table, suffix: str) -> bytes:
    out = pa.BufferOutputStream()
    if suffix == "parquet":
        pq.write_table(table, out, row_group_size=50)
    else:
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=50)
    return out.getvalue().to_pybytes()


def put(folder: Path, name: str, rows: Iterable[Any]) -> Path:
    """Write rows into folder/in/name, in the format of the suffix."""
    path = folder / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(rows, name.partition(".")[2]))
    return path


def settings(folder: Path, source: Path | None = None, **changes: Any) -> dict[str, Any]:
    """Return the settings of a recipe over folder/in; `corpus__split_bytes=...` changes a nested key."""
    out: dict[str, Any] = {
        "name": "run",
        "corpus": {"paths": [str(folder / "in")], "split_bytes": 20_000},
        "tokenizer": {"vocab_size": 512},
        "annotate": {
            "domain": {"kind": "column", "column": "domain", "min_documents": 1, "min_token_share": 0.0},
            "criteria": [
                {"name": "rules", "kind": "heuristic"},
                {"name": "edu", "kind": "column", "column": "edu"},
            ],
        },
        "budget": {"share": 0.5},
        "materialise": {"shard_bytes": 8_000},
        "run": {"folder": str(folder / "runs"), "workers": 1, "executor": "serial"},
    }
    if source is None:
        put(folder / "target", "t.jsonl", [{"text": p["text"]} for p in pages(10, first=9000)])
        out["targets"] = [{"name": "t", "path": str(folder / "target" / "in" / "t.jsonl"), "text": "text"}]
    else:
        out["mixing"] = {"theta_from": str(source)}
    for path, value in changes.items():
        node = out
        *parents, leaf = path.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return out


def recipe(folder: Path, source: Path | None = None, **changes: Any) -> Recipe:
    return check_recipe(settings(folder, source, **changes))


def quiet(chosen: Recipe, until: str = "report") -> RunResult:
    return run(chosen, until=until, progress=Progress(quiet=True))


def write(folder: Path, source: Path, **changes: Any) -> DatasetManifest:
    """Run to the dataset and return its manifest."""
    manifest = quiet(recipe(folder, source, **changes), "materialise").manifest
    assert manifest is not None
    return manifest


def make_source(folder: Path, domains: Sequence[str] = DOMAINS) -> Path:
    """A run folder as a search leaves it: annotators, tokenizer and normaliser are real, θ* is given."""
    put(folder, "a.jsonl", pages(120, domains=domains))
    chosen = recipe(folder)
    home = quiet(chosen, "annotate").folder
    corpus = read_value(home / "corpus" / "manifest.json", Corpus)
    surveyed = survey(home, corpus, chosen.annotate, holdout=0.0, seed=0)
    write_json(home / "normaliser.json", fit_corpus_normaliser(surveyed))
    size = len(surveyed.frame.domains)
    theta = Theta(
        weights=np.tile([0.4, 0.6], (size, 1)),
        steepness=np.full(size, 30.0),
        cutoff=np.linspace(0.2, 0.5, size),
        exponent=np.ones(size),
        floor=np.full(size, 0.02),
    )
    found = Confirmation(winner="theta-star", theta=theta, confirmed=True, reason="", measured=(), against=())
    write_json(home / "search" / "confirm.json", found)
    return home


def documents(home: Path) -> list[dict[str, Any]]:
    """Return the documents of a run's corpus: doc_id, doc_text and the user's columns."""
    corpus = read_value(home / "corpus" / "manifest.json", Corpus)
    out: list[dict[str, Any]] = []
    for batch in (b for s in corpus.splits for b in read_documents(corpus, s)):
        for identity, text, row in zip(batch.doc_id, batch.text, batch.rows.to_pylist(), strict=True):
            out.append({"doc_id": identity, "doc_text": text, **row})
    return out


def dataset_rows(home: Path) -> list[dict[str, Any]]:
    """Return all rows that the manifest of the dataset makes visible."""
    manifest = read_json(home / "dataset" / "manifest.json")
    return [r for s in manifest["shards"] for r in pq.read_table(home / "dataset" / s["name"]).to_pylist()]


def quarantine(home: Path) -> list[dict[str, Any]]:
    return [r for p in sorted((home / "quarantine").glob("*")) for r in pq.read_table(p).to_pylist()]


def files_of(folder: Path) -> dict[str, bytes]:
    """Return name -> content of all files below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


QUADMIX = [sys.executable, "-m", "quadmix"]
KILL_POINTS = ("materialise.split@2", "materialise.before_part@2", "materialise.before_manifest")


def fill(folder: Path) -> Path:
    """Write 240 documents into two files of two formats; return the folder they lie in."""
    put(folder, "a.jsonl", pages(120))
    return put(folder, "b.jsonl.zst", pages(120, first=500)).parent


def home(folder: Path) -> Path:
    return folder / "runs" / "run"


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What a run left on disk when it ended, or was killed; `again` finishes a copy of it."""

    folder: Path
    pool: Path
    source: Path
    files: dict[str, bytes]

    def copy(self, folder: Path) -> Path:
        """Copy the run folder; the input stays where it is."""
        shutil.copytree(self.folder / "runs", folder / "runs")
        return folder

    def again(self, folder: Path, **changes: Any) -> DatasetManifest:
        return write(folder, self.source, corpus__paths=[str(self.pool)], **changes)


@dataclass(frozen=True, kw_only=True)
class Reference(Begun):
    """An undisturbed run."""

    manifest: DatasetManifest


def command(
    folder: Path, given: dict[str, Any], verb: str, *options: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line on a recipe file with the given settings."""
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(given))
    return subprocess.run(
        [*QUADMIX, verb, str(file), "--quiet", *options],
        env=os.environ | env, capture_output=True, text=True, check=False,
    )  # fmt: skip
