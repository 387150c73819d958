"""Heads on real text: which is worth it, and from how many pairs on, with vectors that need no download.

    python studies/rater_heads.py [--seeds 5] [--curve 30,100,300]

Texts, votes and pairs are those of recipes/rater.yaml (26 languages, four collections of documents). A text's
vector is its hashed character n-grams, reduced to 64 numbers by a singular value decomposition that sees no
label: no encoder, but made on the spot. The domain is the collection that a document comes from. Heads are
judged on validation sources, never on the held-out ones of the rater's report. Prints the tables of
docs/poso.md, draws docs/heads_curve.svg where there is a curve, and writes studies/results/rater_heads.json;
results of seeds are kept in runs/rater_heads and the same command goes on.
"""

import argparse
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import HERE

from quadmix.annotate.models.char_ngrams import ngram_matrix
from quadmix.io.atomic import write_bytes, write_json
from quadmix.io.rows import read_records
from quadmix.pipeline.folder import library_versions
from quadmix.raters.arms import HeadData
from quadmix.raters.dense import DenseTraining
from quadmix.raters.headcurve import label_curve, limited
from quadmix.raters.headruns import compare_heads
from quadmix.raters.making import make_pairs, rater_folder
from quadmix.raters.table import PAIRS, TEXTS, read_pairs, read_texts
from quadmix.raters.telling import heads_lines
from quadmix.raters.tiers import inner_split
from quadmix.recipe import load_rater
from quadmix.report.heads import curve_picture

TAIL = ("lao", "ben", "fin", "srp", "ell")  # languages are balanced in the recipe: these are made few
FEW = 100  # training pairs of each of them in the comparison
WIDTH, FEATURES = 64, 1 << 14
ARMS = ("plain", "concat", "znorm", "poso", "placebo")
TRAINING = DenseTraining(hidden=64, batch=512, epochs=6, lr=3e-3)


def vectors_of(texts: tuple[str, ...], seed: int) -> np.ndarray:
    """Return (D, WIDTH) float32, in units of their standard deviation over all texts."""
    from sklearn.decomposition import TruncatedSVD

    made = TruncatedSVD(WIDTH, random_state=seed).fit_transform(ngram_matrix(texts, features=FEATURES))
    return (made / made.std()).astype(np.float32)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--curve", default="30,100,300", help="'': no curve")
    options.add_argument("--recipe", type=Path, default=HERE / "../recipes/rater.yaml")
    options.add_argument("--folder", default="runs")
    args = options.parse_args()
    recipe = load_rater(str(args.recipe), [f"folder={args.folder}", "name=rater_heads"])
    folder = rater_folder(recipe)
    make_pairs(recipe, folder, lambda what, done, total: print(what, done, total, flush=True))
    texts = read_texts(folder / TEXTS)
    inner = inner_split(texts, read_pairs(folder / PAIRS, texts), recipe.seed)
    collection = {
        r["parallel_id"]: Path(f).name.split("_")[0] for f in recipe.texts.paths for r in read_records(f)
    }
    domains = [collection[source] for source in texts.source]
    data = HeadData(vectors=vectors_of(texts.text, recipe.seed), texts=texts, pairs=inner)
    told = {"seeds": args.seeds, "tail": TAIL, "store": folder / "heads"}

    def progress(done: int, total: int) -> None:
        print(f"{done}/{total}", flush=True)

    few = replace(data, pairs=limited(inner, texts, TAIL, FEW, seed=recipe.seed))
    found = {
        "language": compare_heads(few, TRAINING, arms=ARMS, progress=progress, **told),
        "language and domain": compare_heads(
            replace(few, domains=domains), TRAINING, arms=ARMS, progress=progress, **told
        ),
    }
    sizes = [int(n) for n in args.curve.split(",") if n]
    if sizes:
        curve = label_curve(data, TRAINING, sizes=sizes, progress=progress, **told)
        found["language"] = replace(found["language"], curve=curve)
        write_bytes(HERE / "../docs/heads_curve.svg", curve_picture(curve).svg)
    for name, one in found.items():
        print(f"\ncode: {name}\n" + "\n".join(heads_lines(one)))
    made = {
        "command": f"python studies/rater_heads.py --seeds {args.seeds} --curve {args.curve!r}",
        "found": found, "libraries": library_versions(), "python": platform.python_version(),
    }  # fmt: skip
    write_json(HERE / "results/rater_heads.json", made)


if __name__ == "__main__":
    main()
