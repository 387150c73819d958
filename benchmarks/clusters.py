"""Domains without labels held against known ones: agreement, names, documents per second.

    python benchmarks/clusters.py FOLDER [--clusters 16 24 48] [--documents N] [--seed 0]

FOLDER holds one JSONL file (.gz, .zst) or Parquet file per known domain, with a column `text`. Half of the
documents, drawn by a hash of the text, train; the other half is labelled by the saved and loaded model and
measured. No label is used in training.

nmi:    normalised mutual information of clusters and known domains (0 = unrelated, 1 = the same).
purity: share of documents whose cluster's commonest domain is their own; more clusters raise it as such.
ari:    adjusted Rand index of two starts, from the card: how much of the clustering is chance.
sure:   share of documents with confidence of at least 0.5 / 0.9, and the purity among these.
docs/s: labelling, one core, of processor time; `train` is seconds of processor time.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from quadmix.annotate.annotator import OTHER
from quadmix.annotate.clusters import ClusterLabeller, load_clusters, save_clusters, train_clusters
from quadmix.io.rows import read_records
from quadmix.rng import doc_keys, keyed_uniform

NO_COLUMNS = pa.RecordBatch.from_pydict({})
BATCH = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--clusters", type=int, nargs="+", default=[16, 24, 48])
    parser.add_argument("--documents", type=int, default=None, help="of both halves, drawn by hash")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    texts, domains = read_corpus(given.folder, given.documents)
    half = keyed_uniform(given.seed, doc_keys(texts), "half") < 0.5
    train = [t for t, h in zip(texts, half.tolist(), strict=True) if h]
    test = [t for t, h in zip(texts, half.tolist(), strict=True) if not h]
    truth = np.asarray(domains)[~half]
    print(f"{len(train)} texts train, {len(test)} are measured, {len(set(domains))} known domains")
    results = [measure(train, test, truth, clusters, given.seed) for clusters in given.clusters]
    print(json.dumps({"benchmark": "clusters", "results": results}))


def read_corpus(folder: str, documents: int | None) -> tuple[list[str], list[str]]:
    """Return texts and the names of their files."""
    pairs = [
        (row["text"], path.name.split(".")[0])
        for path in sorted(Path(folder).iterdir())
        if path.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"))
        for row in read_records(str(path))
    ]
    if not pairs:
        sys.exit(f"{folder} holds no JSONL or Parquet file")
    order = np.argsort(keyed_uniform(0, doc_keys(t for t, _ in pairs), "sample"), kind="stable")[:documents]
    chosen = [pairs[i] for i in sorted(order.tolist())]
    return [t for t, _ in chosen], [d for _, d in chosen]


def measure(
    train: Sequence[str], test: Sequence[str], truth: np.ndarray, clusters: int, seed: int
) -> dict[str, Any]:
    """Train, save, load, label; print and return the numbers."""
    from sklearn.metrics import normalized_mutual_info_score

    start = time.process_time()
    made = train_clusters(train, embed=None, clusters=clusters, seed=seed)
    seconds = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        save_clusters(folder, made)
        loaded = load_clusters(folder)
        labels, rate = label_all(loaded, test, 0.0)
        sure = {level: sure_part(label_all(loaded, test, level)[0], truth) for level in (0.5, 0.9)}
    found = np.asarray(labels)
    row: dict[str, Any] = {
        "clusters": clusters,
        "made": len(made.names),
        "nmi": round(float(normalized_mutual_info_score(truth, found)), 3),
        "purity": round(purity(found, truth), 3),
        "silhouette": round(made.card.metrics["silhouette"], 3),
        "ari": round(made.card.metrics["stability_ari"], 3),
        "kappa": made.concentration,
        "sure": sure,
        "docs_per_second": round(rate),
        "train_seconds": round(seconds, 1),
    }
    print(json.dumps(row))
    for name, count in Counter(labels).most_common():
        inside, n = Counter(truth[found == name].tolist()).most_common(1)[0]
        print(f"  {count:6d}  {name:45s} {inside} {n / count:.2f}")
    return row


def label_all(clusters: Any, texts: Sequence[str], confidence: float) -> tuple[list[str], float]:
    """Return the labels in batches as a worker makes them, and documents per second of processor time."""
    labeller = ClusterLabeller.make(clusters, embed=None, confidence=confidence)
    start, labels = time.process_time(), list[str]()
    for at in range(0, len(texts), BATCH):
        labels += labeller.label(texts[at : at + BATCH], NO_COLUMNS).labels
    return labels, len(texts) / (time.process_time() - start)


def sure_part(labels: Sequence[str], truth: np.ndarray) -> dict[str, float]:
    """Return the share of documents that kept a label, and the purity among them."""
    found = np.asarray(labels)
    kept = found != OTHER
    return {"share": round(float(kept.mean()), 3), "purity": round(purity(found[kept], truth[kept]), 3)}


def purity(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of documents in the commonest domain of their cluster."""
    most = sum(Counter(truth[found == name].tolist()).most_common(1)[0][1] for name in np.unique(found))
    return most / max(1, len(found))


if __name__ == "__main__":
    main()
