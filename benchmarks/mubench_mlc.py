"""Speed of the consistency suite: 61 languages x 12,000 items x 10 options.

    PYTHONPATH=src python benchmarks/mubench_mlc.py

Bar: the fast form of MLC (set, pairs, chance, both right) in at most 2 s. The interval of all its numbers, by
1,000 resamples of the items, is timed beside it.
"""

import argparse
import json
import time

import numpy as np

from quadmix.evaluate.mubench.consistency import agreement, pairs, with_others
from quadmix.evaluate.mubench.items import Predictions
from quadmix.evaluate.mubench.languages import LANGUAGES, RESOURCES
from quadmix.evaluate.mubench.measure import Sampling, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--options", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (len(LANGUAGES), args.items)
    common = rng.integers(args.options, size=args.items)
    chosen = np.where(rng.random(shape) < 0.4, common, rng.integers(args.options, size=shape)).astype(
        np.int16
    )
    labels = rng.integers(args.options, size=args.items).astype(np.int16)
    options = np.full(args.items, args.options, dtype=np.int16)

    seconds = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        whole, _ = agreement(chosen, labels, options)
        matrices = pairs(chosen, labels, options)
        with_others(chosen, options)
        seconds.append(time.perf_counter() - start)
    ids = tuple(map(str, range(args.items)))
    tables = [chosen, np.zeros_like(chosen), np.full_like(chosen, 1)]
    found, *nulls = (
        Predictions(
            task="bmlama", mode="lighteval", estimator=name, ids=ids, labels=labels, options=options,
            chosen=dict(zip(LANGUAGES, table, strict=True)),
        )
        for name, table in zip(("acc", "shortest", "longest"), tables, strict=True)
    )  # fmt: skip
    start = time.perf_counter()
    measure(found, nulls, anchor="en", groups=RESOURCES, sampling=Sampling())
    full = time.perf_counter() - start
    upper = np.triu_indices(len(LANGUAGES), 1)
    result = {
        "languages": len(LANGUAGES), "items": args.items, "options": args.options,
        "fast_mlc_seconds": round(min(seconds), 3), "bar_seconds": 2.0,
        "with_nulls_and_intervals_seconds": round(full, 2),
        "set_minus_mean_of_pairs": float(whole.mean() - matrices.mlc[upper].mean()),
    }  # fmt: skip
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
