"""What the annotators of models cost beside the least that their libraries ask for.

    python benchmarks/annotate.py --corpus FOLDER [--only fasttext|encoder ...] [--quick] [--rounds 5]

fasttext: documents a second on one core, on documents of the corpus (*.jsonl or *.jsonl.zst with `text`), of
    a classifier trained on the spot with DCLM's settings (bigrams, 100 dimensions, 2 million rows: 0.8 GB or
    more). `ours` is what a run does with batches of 250 documents: the card's input, the model, one score per
    document. `library` is `model.predict` on one joined line after the other, top label alone, as DCLM's own
    function does it. Both see the same documents in turn, round after round; seconds are processor time of
    this one process, ratios are taken inside a round, medians are given; `docs_per_second_wall` is the
    clock's. The model is one and the same, loaded once.
encoder: `annotate_encoder.py`, as a part of this.
Bars: at least 550 documents a second and core, and 0.9 of the library's own loop.
The last line is one JSON object with all numbers and what passed. --quick: a tenth of the documents and a
smaller table; the bars are stated for the full size.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from quadmix.annotate.models.base import Settings
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.load import forget_models, load_model
from quadmix.annotate.models.rater import Asked, ModelAnnotator
from quadmix.annotate.models.train_fasttext import GOOD, FastTextTraining, train_fasttext
from quadmix.io.rows import read_records
from quadmix.recipe.cards import load_card

DOCS_PER_SECOND, OF_LIBRARY = 550.0, 0.9
BATCH = 250  # several per round: equal batches one after the other are scored once
TRAIN, SCORE = 2_000, 5_000  # documents
Facts = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Work:
    corpus: Path
    quick: bool
    rounds: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, help="folder of *.jsonl or *.jsonl.zst, for fasttext")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if "fasttext" in options.only and options.corpus is None:
        parser.error("--corpus is needed for fasttext: a folder of *.jsonl or *.jsonl.zst files")
    work = Work(corpus=options.corpus or Path(), quick=options.quick, rounds=options.rounds)
    found = {part: PARTS[part](work) for part in options.only}
    passed = {f"{part}.{name}": ok for part in found for name, ok in found[part].get("passed", {}).items()}
    result = {"quick": work.quick, "rounds": work.rounds, "passed": passed, **found, "machine": machine()}
    sys.stdout.write(json.dumps(result) + "\n")


def machine() -> Facts:
    """Return what the numbers depend on."""
    names = ("numpy", "fasttext-numpy2", "torch", "transformers")
    return {
        "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
    }  # fmt: skip


# fastText


def measure_fasttext(work: Work) -> Facts:
    """Ours against the library's own loop, on the same documents."""
    share = 10 if work.quick else 1
    texts = sample(work.corpus, (TRAIN + SCORE) // share)
    train, scored = texts[: TRAIN // share], texts[TRAIN // share :]
    training = FastTextTraining(bucket=100_000 if work.quick else 2_000_000)
    with tempfile.TemporaryDirectory(prefix="quadmix-annotate-") as temporary:
        card_file = Path(temporary) / "rater" / "card.yaml"
        half = len(train) // 2  # which half is called good is of no matter for speed
        train_fasttext(train[:half], train[half:], card_file.parent, name="rater", training=training)
        megabytes = (card_file.parent / "model.bin").stat().st_size / 1e6
        placed = place(load_card(str(card_file)), path=card_file.parent)
        asked = Asked(placed=placed, settings=Settings())
        rater = ModelAnnotator.make("rater", asked)
        library = load_model(placed, asked.settings).model  # the same copy for both: the table is large
        ours, theirs = rounds_of(
            work.rounds, lambda: score_ours(rater, scored), lambda: score_library(library, scored)
        )
        forget_models()
    worst = float(np.abs(ours.scores - theirs.scores).max())
    speed = len(scored) / median(ours.cpu)
    ratio = median(theirs_s / ours_s for ours_s, theirs_s in zip(ours.cpu, theirs.cpu, strict=True))
    return {
        "documents": len(scored),
        "characters_mean": round(sum(map(len, scored)) / len(scored)),
        "model_megabytes": round(megabytes),
        "docs_per_second_core": round(speed),
        "docs_per_second_core_library": round(len(scored) / median(theirs.cpu)),
        "docs_per_second_wall": round(len(scored) / median(ours.wall)),
        "of_library": round(ratio, 3),
        "of_library_rounds": [round(t / o, 3) for o, t in zip(ours.cpu, theirs.cpu, strict=True)],
        "largest_difference": worst,
        "passed": {
            "speed": speed >= DOCS_PER_SECOND, "of_library": ratio >= OF_LIBRARY, "same_scores": worst < 1e-4,
        },
    }  # fmt: skip


@dataclass(frozen=True)
class Timed:
    cpu: list[float]
    wall: list[float]
    scores: Any


def rounds_of(rounds: int, *contenders: Callable[[], Any]) -> list[Timed]:
    """Time the contenders in turn, each round in another order, after one round that is not counted."""
    timed = [Timed([], [], contender()) for contender in contenders]
    for number in range(rounds):
        order = list(zip(contenders, timed, strict=True))
        for contender, kept in order if number % 2 else reversed(order):
            wall, cpu = time.perf_counter(), time.process_time()
            contender()
            kept.cpu.append(time.process_time() - cpu)
            kept.wall.append(time.perf_counter() - wall)
    return timed


def score_ours(rater: ModelAnnotator, texts: list[str]) -> Any:
    nothing = pa.RecordBatch.from_pylist([])
    parts = [rater.score(texts[i : i + BATCH], nothing).values for i in range(0, len(texts), BATCH)]
    return np.concatenate(parts)


def score_library(model: Any, texts: list[str]) -> Any:
    scores: list[float] = []
    for text in texts:
        labels, chances = model.predict(" ".join(text.strip().splitlines()))
        scores.append(chances[0] if labels[0] == GOOD else 1.0 - chances[0])
    return np.clip(scores, 0.0, 1.0)


def sample(corpus: Path, count: int) -> list[str]:
    """Return `count` documents from all files, each file's share by its documents, in mixed order."""
    texts = list(dict.fromkeys(documents(corpus)))  # an equal text could not be good and bad at once
    if len(texts) < count:
        sys.exit(f"{corpus} has {len(texts)} documents, expected at least {count}")
    order = np.random.default_rng(0).permutation(len(texts))[:count]
    return [texts[i][:50_000] for i in order.tolist()]


def documents(corpus: Path) -> Iterator[str]:
    for file in sorted([*corpus.glob("*.jsonl"), *corpus.glob("*.jsonl.zst")]):
        for record in read_records(str(file)):
            if record["text"].strip():
                yield record["text"]


def measure_encoder(work: Work) -> Facts:
    """Encoders against a naive padded loop."""
    return importlib.import_module("annotate_encoder").measure(work.quick)


PARTS: dict[str, Callable[[Work], Facts]] = {"fasttext": measure_fasttext, "encoder": measure_encoder}

if __name__ == "__main__":
    main()
