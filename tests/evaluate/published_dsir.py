"""Run the package `data-selection` in a process of its own: it needs the NLTK of tests/readers.txt.

    PYTHONPATH=.venv/readers python published_dsir.py FOLDER '{"ngrams": 2}'

From raw.jsonl and target.jsonl in FOLDER to published.npz: weights (D,), kept (D,) by length, ratio and
features (D, buckets). NLTK 3.10 and later cut words by another regular-expression engine, which takes joiners
and combining marks for parts of a word; the package was published for those before.
"""

import json
import sys
from pathlib import Path

import nltk
import numpy as np
from data_selection import HashedNgramDSIR


def main(folder: Path, options: dict[str, int]) -> None:
    if not nltk.__version__.startswith("3.9."):
        sys.exit(f"NLTK is {nltk.__version__} from {nltk.__file__}, expected 3.9 as in tests/readers.txt")
    raw, target = folder / "raw.jsonl", folder / "target.jsonl"
    dsir = HashedNgramDSIR([str(raw)], [str(target)], str(folder / "cache"), num_proc=1, **options)
    dsir.fit_importance_estimator(num_tokens_to_fit="all")
    dsir.compute_importance_weights()
    lengths = np.load(dsir.perexample_metadata_dir / "0.npy")
    texts = [json.loads(line)["text"] for line in raw.read_text(encoding="utf-8").split("\n") if line]
    np.savez(
        folder / "published.npz",
        weights=np.load(dsir.log_importance_weights_dir / "0.npy"),
        kept=dsir.perexample_metadata_filter(lengths),
        ratio=dsir.log_diff,
        features=np.array([dsir.featurizer(text) for text in texts], np.int32),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
