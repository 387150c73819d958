"""How often unrelated documents share a run of characters: how long it must be in scripts without spaces.

Run: python benchmarks/overlap.py FOLDER [--lengths 13,16,26,39,52]

FOLDER holds ntrex_docs and tico19_docs (news and medical documents) and sib200 (sentences of FLORES), which
share no text. For every language and length: the share of documents with a run of that many characters in
common with a sentence, and how many sentences are too short to have one. Words count in English and German.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from quadmix.annotate.overlap import character_runs, count_shared, ngram_hashes
from quadmix.corpus.scripts import unspaced
from quadmix.io.rows import read_records

SCRIPTS = {"zho": 1, "jpn": 1, "tha": 0, "lao": 0, "khm": 0, "mya": 0}  # which of `unspaced`
WORDS = ("eng", "deu")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lengths", default="13,16,26,39,52")
    arguments = parser.parse_args()
    sets = {
        name: texts(arguments.folder / f"{name}.jsonl.zst")
        for name in ("sib200", "ntrex_docs", "tico19_docs")
    }
    found = [
        row(language, length, sets)
        for language in (*SCRIPTS, *WORDS)
        for length in map(int, arguments.lengths.split(","))
    ]
    for one in found:
        print("  ".join(f"{key} {value}" for key, value in one.items()))
    print(json.dumps(found))


def texts(path: Path) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for record in read_records(str(path)):
        out.setdefault(record["iso3"], []).append(record["text"])
    return out


def runs(language: str, text: str, length: int) -> np.ndarray:
    if language in WORDS:
        return ngram_hashes([text], length)
    return character_runs(unspaced(text)[SCRIPTS[language]], length)


def row(language: str, length: int, sets: dict[str, dict[str, list[str]]]) -> dict[str, object]:
    items = [runs(language, text, length) for text in sets["sib200"][language]]
    known = np.unique(np.concatenate(items))
    out: dict[str, object] = {
        "language": language, "length": length, "short": sum(not len(i) for i in items), "of": len(items),
    }  # fmt: skip
    for name in ("ntrex_docs", "tico19_docs"):
        documents = sets[name].get(language, [])
        hits = [count_shared(runs(language, text, length), known) > 0 for text in documents]
        out[name] = round(float(np.mean(hits)), 4) if hits else None
    return out


if __name__ == "__main__":
    main()
