"""DSIR's importance weights against the authors' package `data-selection`, on one core.

    python benchmarks/dsir.py FILE [--megabytes 14] [--readers .venv/readers]

FILE: *.jsonl or *.jsonl.zst with `text`. Pool and target are its documents and the first hundred. They are
cut into batches as a run cuts them; each batch is counted and weighed (the two passes of a run) by ours and
by the package in turn, every other batch in the other order. Seconds are processor time of this process,
ratios are taken inside a batch, medians are given. Reading files is left out. The package is the one of
tests/readers.txt with its NLTK, from the folder `readers` of the tests' environment.
Bars: at least twice the package's speed, and weights that agree to 1e-9.
The last line is one JSON object with all numbers and what passed.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from quadmix.evaluate.dsir import NgramSettings, bucket_counts, hash_ngrams, log_ratio, log_weights
from quadmix.io.rows import read_records
from quadmix.pipeline.importance import BATCH_CHARACTERS
from quadmix.types import Floats, Ints

SETTINGS = NgramSettings(min_words=0)
TIMES, AGREE = 2.0, 1e-9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--megabytes", type=float, default=14.0)
    parser.add_argument("--readers", type=Path, default=Path(sys.prefix) / "readers")
    options = parser.parse_args()
    sys.path.insert(0, str(options.readers))
    package = importlib.import_module("data_selection.hashed_ngram_dsir")
    batches = sample(options.file, options.megabytes * 1e6)
    texts = [text for batch in batches for text in batch]
    ratio = log_ratio(count_ours(texts[:100]), count_ours(texts))
    found = measure(batches, ratio, package)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    passed = {"speed": found["times"] >= TIMES, "same_weights": found["largest_difference"] <= AGREE}
    facts = {"documents": len(texts), "megabytes": round(megabytes, 2)}
    for name in ("ours", "package"):
        seconds = found.pop(name)
        facts |= {
            f"{name}_documents_per_second": round(len(texts) / seconds),
            f"{name}_megabytes_per_second": round(megabytes / seconds, 2),
        }
    sys.stdout.write(json.dumps({**facts, **found, "passed": passed, "machine": machine()}) + "\n")


def sample(file: Path, most: float) -> list[list[str]]:
    """Return about `most` bytes of documents in batches of about `BATCH_CHARACTERS`."""
    batches: list[list[str]] = [[]]
    size, all_bytes = 0, 0
    for record in read_records(str(file)):
        if size >= BATCH_CHARACTERS:
            batches.append([])
            size = 0
        batches[-1].append(record["text"])
        size += len(record["text"])
        all_bytes += len(record["text"].encode())
        if all_bytes >= most:
            break
    return batches


def measure(batches: list[list[str]], ratio: Floats, package: Any) -> dict[str, Any]:
    def ours(texts: list[str]) -> Floats:
        count_ours(texts)
        return log_weights(hash_ngrams(texts, SETTINGS), ratio, SETTINGS)

    def theirs(texts: list[str]) -> Floats:
        counts = np.zeros(SETTINGS.buckets, int)
        for text in texts:
            package.get_ngram_counts(text, counts=counts)
        return np.array([np.dot(ratio, package.get_ngram_counts(text)) for text in texts])

    seconds: dict[str, list[float]] = {"ours": [], "package": []}
    worst = 0.0
    for number, texts in enumerate(batches):
        contenders: list[tuple[str, Callable[[list[str]], Floats]]] = [("ours", ours), ("package", theirs)]
        results = dict[str, Floats]()
        for name, contender in contenders[:: 1 if number % 2 else -1]:
            begin = time.process_time()
            results[name] = contender(texts)
            seconds[name].append(time.process_time() - begin)
        some = np.isfinite(results["ours"])
        difference = np.abs(results["ours"] - results["package"])[some]
        worst = max(worst, float((difference / np.abs(results["package"][some])).max()))
    times = [t / o for o, t in zip(seconds["ours"], seconds["package"], strict=True)]
    return {
        "ours": sum(seconds["ours"]), "package": sum(seconds["package"]),
        "times": round(median(times), 2), "times_per_batch": [round(t, 2) for t in times],
        "largest_difference": worst,
    }  # fmt: skip


def count_ours(texts: list[str]) -> Ints:
    return bucket_counts(hash_ngrams(texts, SETTINGS), SETTINGS)


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "data-selection", "nltk")}
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
    }


if __name__ == "__main__":
    main()
