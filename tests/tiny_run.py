"""A run small enough for tests: 360 real documents of the demo, models of a few thousand parameters."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import zstandard

import quadmix
from quadmix.corpus.read import read_documents
from quadmix.recipe import Recipe, check_recipe
from quadmix.rng import doc_keys
from quadmix.types import Annotations, Corpus

DEMO = Path(quadmix.__file__).parent / "data" / "demo"


def demo_rows(name: str, count: int) -> list[dict[str, Any]]:
    data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO((DEMO / name).read_bytes())).read()
    return [orjson.loads(line) for line in data.split(b"\n")[:count]]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in rows))


def tiny_settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Write corpus and target files into `folder` and return the settings of a recipe over them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = demo_rows("pool.jsonl.zst", 360)
    for row in rows:
        row["length_score"] = float(len(row["text"]) % 97)
        row["text"] = row["text"][:1500]
    write_rows(folder / "pool-a.jsonl", rows[:200])
    write_rows(folder / "pool-b.jsonl", rows[200:])
    write_rows(folder / "target.jsonl", demo_rows("target_arc_easy.jsonl.zst", 40))
    model = {"layers": 1, "width": 16, "heads": 1, "mlp": 32, "context": 32}
    training = {"tokens": 8_192, "batch": 8, "precision": "float32"}
    settings: dict[str, Any] = {
        "name": "tiny",
        "corpus": {"paths": [str(folder / "pool-*.jsonl")], "split_bytes": 80_000},
        "tokenizer": {"vocab_size": 512},
        "annotate": {
            "domain": {"kind": "column", "column": "domain_hint", "min_documents": 20},
            "criteria": [
                {"name": "rules", "kind": "heuristic"},
                {"name": "length", "kind": "column", "column": "length_score"},
            ],
        },
        "budget": {"share": 0.2},
        "targets": [
            {
                "name": "arc", "path": str(folder / "target.jsonl"), "prompt": "query",
                "choices": "choices", "gold": "gold", "loss": "all",
            }
        ],
        "proxy": {"trials": 12, "repeats": 2, "group": 4, "model": model, "training": training},
        "search": {"candidates": 200},
        "confirm": {"candidates": ["theta-star", "best-observed"]},
        "evaluate": {
            "holdout": 0.05, "seeds": 2, "regmix_trials": 8, "model": model, "training": training,
        },
        "run": {
            "folder": str(folder / "runs"), "workers": 1, "executor": "serial", "accept_unconfirmed": True,
        },
    }  # fmt: skip
    for path, value in changes.items():
        node = settings
        *parents, leaf = path.split("__")
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return settings


def bare_table(corpus: Corpus) -> Annotations:
    """The documents of a corpus without any score, in one domain."""
    batches = [(split.index, batch) for split in corpus.splits for batch in read_documents(corpus, split)]
    ids = [i for _, batch in batches for i in batch.doc_id]
    return Annotations(
        doc_id=pa.chunked_array([pa.array(ids)]),
        keys=doc_keys(ids),
        tokens=np.ones(len(ids), np.int32),
        domain=np.zeros(len(ids), np.int16),
        scores=np.zeros((len(ids), 0), np.float32),
        held_out=np.zeros(len(ids), np.bool_),
        split=np.repeat([s for s, _ in batches], [len(b.text) for _, b in batches]).astype(np.int32),
        criteria=(),
        domains=("all",),
    )


def tiny_recipe(folder: Path, **changes: Any) -> Recipe:
    """Return the checked recipe; `proxy__trials=8` changes a nested key."""
    return check_recipe(tiny_settings(folder, **changes))
