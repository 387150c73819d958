"""What the first tier of raters costs: documents a second of one core, minutes for 100,000 pairs, memory.

    python benchmarks/rater.py [--pairs 100000] [--texts 50000] [--characters 2000] [--only score|train ...]

Texts are made on the spot: words drawn by a power law from 18 vocabularies of 20,000 invented words, in four
scripts; a latent quality decides how many words come from a second list. score: `HashedScorer` on documents
of `--characters`, in batches of 250 as a run does, three rounds, the median. train: `train_hashed`, n-grams
included, on excerpts of `--characters`; monolingual, cross-lingual and parallel pairs as 150:150:75, a tenth
of the documents held out. Seconds are processor time of this one process, `wall` the clock's.
Bars: 2,000 documents a second and core; 100,000 pairs within 300 seconds.
The last line is one JSON object with all numbers and what passed.
"""

import argparse
import json
import os
import platform
import resource
import sys
import time
from statistics import median
from typing import Any

import numpy as np

from quadmix.annotate.models.rated import HashedScorer, RaterFacts
from quadmix.raters.hashed import HashedTraining, train_hashed
from quadmix.raters.table import Pairs, Texts

DOCS_PER_SECOND, SECONDS = 2_000.0, 300.0
LANGUAGES, BATCH, SCORED, ROUNDS = 18, 250, 2_000, 3
SCRIPTS = ("abcdefghijklmnopqrstuvwxyz", "абвгдежзиклмнопрстуфхцчшщыэюя", "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
           "अआइईउऊएऐओऔकखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--characters", type=int, default=2_000)
    parser.add_argument("--only", nargs="+", choices=("score", "train"), default=["score", "train"])
    options = parser.parse_args()
    found: dict[str, Any] = {"characters": options.characters}
    if "score" in options.only:
        found |= measure_score(options.characters)
    if "train" in options.only:
        found |= measure_train(options.pairs, options.texts, options.characters)
    found |= {
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(), "numpy": np.__version__,
    }  # fmt: skip
    sys.stdout.write(json.dumps(found) + "\n")


def measure_score(characters: int) -> dict[str, Any]:
    """Return documents a second of one core, n-grams and windows included."""
    texts = make_texts(SCORED, characters)[0].text
    rng = np.random.default_rng(0)
    training = HashedTraining()
    scorer = HashedScorer(
        facts=RaterFacts(kind="hashed", languages=[], features=training.features, window=characters + 1),
        weights=rng.normal(size=training.features).astype(np.float32),
        statistic_weights=rng.normal(size=5).astype(np.float32), means=np.zeros(5, np.float32),
        scales=np.ones(5, np.float32),
    )  # fmt: skip
    scorer.scores(texts[:BATCH])
    seconds: list[float] = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for at in range(0, len(texts), BATCH):
            scorer.scores(texts[at : at + BATCH])
        seconds.append(time.process_time() - start)
    speed = len(texts) / median(seconds)
    return {"docs_per_second_core": round(speed), "score_passed": speed >= DOCS_PER_SECOND}


def measure_train(pairs: int, texts: int, characters: int) -> dict[str, Any]:
    """Return what training takes; the accuracy says that it learnt something."""
    made, quality = make_texts(texts, characters)
    compared = make_pairs(made, quality, pairs)
    wall, cpu = time.perf_counter(), time.process_time()
    rater = train_hashed(made, compared)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "pairs": len(compared), "texts": len(made), "train_seconds_cpu": round(cpu, 1),
        "train_seconds_wall": round(wall, 1), "held_accuracy": round(rater.chosen.accuracy, 4),
        "fits": [[f.penalty, f.iterations, round(f.accuracy, 4)] for f in rater.fits],
        "train_passed": cpu <= SECONDS,
    }  # fmt: skip


def make_texts(count: int, characters: int) -> tuple[Texts, Any]:
    """Return texts, row d * LANGUAGES + l being document d in language l, and their quality."""
    rng = np.random.default_rng(1)
    words = [vocabulary(rng, SCRIPTS[language % len(SCRIPTS)]) for language in range(LANGUAGES)]
    quality = np.repeat(rng.random(-(-count // LANGUAGES)), LANGUAGES)[:count]
    texts = list[str]()
    for row, level in enumerate(quality.tolist()):
        places = np.minimum(rng.zipf(1.3, size=characters // 5) - 1, 9_999)
        places += 10_000 * (rng.random(len(places)) < level)
        texts.append(" ".join(words[row % LANGUAGES][places].tolist())[:characters])
    names = [(f"d{row // LANGUAGES}", f"l{row % LANGUAGES}") for row in range(count)]
    return Texts(
        ids=tuple(f"{d}-{lang}" for d, lang in names), source=tuple(d for d, _ in names),
        origin=("",) * count, language=tuple(lang for _, lang in names), text=tuple(texts),
    ), quality  # fmt: skip


def vocabulary(rng: np.random.Generator, letters: str) -> Any:
    lengths, drawn = rng.integers(2, 9, size=20_000), rng.choice(list(letters), size=(20_000, 8))
    return np.array(["".join(row[:n]) for row, n in zip(drawn, lengths, strict=True)], dtype=object)


def make_pairs(texts: Texts, quality: Any, count: int) -> Pairs:
    """Return pairs of votes of four noisy raters, none of which straddles the split."""
    rng, size = np.random.default_rng(2), len(texts)
    documents = size // LANGUAGES
    ratings = quality[: documents * LANGUAGES : LANGUAGES, None] + rng.normal(scale=0.2, size=(documents, 4))
    held = np.arange(documents) % 10 == 0
    parts = list[Any]()
    for kind, share in enumerate((0.4, 0.4, 0.2)):
        left, right = rng.integers(documents, size=(2, int(count * share)))
        on_its_side = np.where(held[left], right // 10 * 10, right + (right % 10 == 0)) % documents
        right = on_its_side if kind < 2 else left
        first, more = rng.integers(LANGUAGES, size=len(left)), rng.integers(1, LANGUAGES, size=len(left))
        second = first if kind == 0 else (first + more) % LANGUAGES
        keep = ((left != right) & (held[left] == held[right])) | (kind == 2)
        p = (ratings[left] > ratings[right]).mean(axis=1) if kind < 2 else np.full(len(left), 0.5)
        weight, kinds = np.full(len(left), 1.0 + (kind == 2)), np.full(len(left), kind)
        rows = (left * LANGUAGES + first, right * LANGUAGES + second, p, weight, kinds, held[left])
        parts.append([column[keep] for column in rows])
    a, b, p, weight, kind, is_held = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pairs(
        a=a.astype(np.int32), b=b.astype(np.int32), p=p, weight=weight, kind=kind.astype(np.int8),
        held=is_held,
    )  # fmt: skip


if __name__ == "__main__":
    main()
