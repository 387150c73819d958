"""A fastText classifier of good text against bad, trained, held against its own held-out part, and saved.

In: good and bad texts. Out: a folder with `model.bin`, `card.yaml` (with the file's sha256) and
`metrics.json`. The recipe is DCLM's (Li et al. 2024, arXiv 2406.11794, section 4.4; baselines of its
repository): bigrams, 100 dimensions, 5 epochs, learning rate 0.1. Documents go to the held-out part by a hash
of their text, so that equal texts stand on one side; the metrics are those of the saved file, read back, on
texts that it has not seen, beside what the length of a text alone would reach.

DCLM has 400,000 texts. A few thousand are not enough for its five slow epochs: on 878 Wikipedia articles it
stays at 0.50 for every text, and 25 epochs at 0.5 take the held-out AUC from 0.63 to 0.85. A model that has
hardly moved is warned about.

One thread and one seed give the same bytes: the library runs in a fresh process that is handed zeros
(`fasttext_trainer.py` says why), and a table below 32 MiB, which other C libraries than glibc may take from
used memory even there, is refused.
"""

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.fasttext import load_fasttext
from quadmix.annotate.models.fasttext_trainer import train_apart
from quadmix.annotate.models.rater import prepare_text
from quadmix.annotate.trained import auc
from quadmix.errors import InputError, MissingExtraError
from quadmix.io.atomic import replacing, write_json
from quadmix.io.folders import new_folder
from quadmix.io.hashing import sha256_file
from quadmix.recipe.cards import CardInput, CardOutput, ModelCard, save_card
from quadmix.rng import doc_keys, keyed_uniform
from quadmix.types import Floats

GOOD, BAD = "__label__good", "__label__bad"
LEAST = 20  # texts of each kind
LEAST_HELD_OUT = 5
BINS = 10
STUCK = 0.01  # standard deviation of the probabilities
_TABLE_BYTES = 33 << 20  # above the largest size that malloc takes from its own, used memory
_NOT_WORDS = re.compile(r"(?<!\S)(?:__label__\S*|</s>(?!\S))")


@dataclass(frozen=True, slots=True, kw_only=True)
class FastTextTraining:
    """How it is trained. bucket: rows of the table of n-grams (the model has (words + bucket) * dim * 4
    bytes). heldout: share of the texts that are kept for the metrics."""

    lr: float = 0.1
    dim: int = 100
    epochs: int = 5
    word_ngrams: int = 2
    min_count: int = 1
    bucket: int = 2_000_000
    heldout: float = 0.1
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Held-out texts with a probability in [low, high): how many, the mean of it, the share that is good."""

    low: float
    high: float
    texts: int
    mean_probability: float
    share_good: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FastTextMetrics:
    """Quality on the held-out part. auc: chance that a good text stands above a bad one; length_auc: the same
    by length alone (the better way round). ece: mean distance of probability and share over the bins, weighed
    by texts. brier: mean squared error of the probability; base_rate_brier: of the share of good for all."""

    auc: float
    length_auc: float
    ece: float
    brier: float
    base_rate_brier: float
    bins: list[Bin]
    train_good: int
    train_bad: int
    heldout_good: int
    heldout_bad: int
    settings: FastTextTraining
    warnings: list[str] = field(default_factory=list[str])


def train_fasttext(
    good: Sequence[str],
    bad: Sequence[str],
    out: str | Path,
    *,
    name: str,
    training: FastTextTraining | None = None,
    trained_on: Sequence[str] = (),
    licence: str = "that of the texts it was trained on",
) -> ModelCard:
    """Train P(good), write the folder `out` (new or empty) and return its card.

    Raises InputError for too few, empty or contradicting texts (the rows are named, from 0) and for settings
    under which the library would not be deterministic; MissingExtraError without fastText.
    """
    training = training or FastTextTraining()
    _check_settings(training)
    card = _card(name, tuple(trained_on), licence)
    lines = [_lines(card, "good", good), _lines(card, "bad", bad)]
    _refuse_overlap(*lines)
    truth = np.repeat([1, 0], [len(good), len(bad)])
    texts = [*lines[0], *lines[1]]
    held = keyed_uniform(training.seed, doc_keys(texts), "heldout") < training.heldout
    _check_counts(truth, held)
    with new_folder(out) as folder:
        file = folder / "model.bin"
        _train(training, [t for t, h in zip(texts, held.tolist(), strict=True) if not h], truth[~held], file)
        card = card.model_copy(update={"files": {file.name: sha256_file(file)}})
        model = load_fasttext(Placed(card=card, folder=folder, digest=""), Settings())
        chances = model.outputs([t for t, h in zip(texts, held.tolist(), strict=True) if h]).values[:, 0]
        lengths = np.array([len(t) for t in (*good, *bad)], np.float64)[held]
        metrics = _metrics(training, truth, held, chances.astype(np.float64), lengths)
        write_json(folder / "metrics.json", metrics)
        save_card(folder / "card.yaml", card)
    return card


def _card(name: str, trained_on: tuple[str, ...], licence: str) -> ModelCard:
    return ModelCard(
        name=name, family="fasttext", role="quality", model="model.bin", licence=licence,
        source="trained with quadmix; see metrics.json",
        description="P(good text), fastText on your own texts",
        input=CardInput(one_line=True), trained_on=trained_on,
        output=CardOutput(kind="classes", labels=(GOOD, BAD), positive=GOOD, clamp=(0.0, 1.0)),
    )  # fmt: skip


def _check_settings(training: FastTextTraining) -> None:
    least = -(-_TABLE_BYTES // (4 * training.dim))
    if training.word_ngrams < 2:
        raise InputError(
            f"word_ngrams is {training.word_ngrams}, expected at least 2 (the table holds n-grams)"
        )
    if training.bucket < least:
        raise InputError(
            f"bucket is {training.bucket:,} with dim {training.dim}; expected at least {least:,}: fastText "
            "trains a smaller table from memory that it has not set, and gives another model each time"
        )
    if not 0.0 < training.heldout < 1.0:
        raise InputError(f"heldout is {training.heldout}, expected a share between 0 and 1, such as 0.1")


def _lines(card: ModelCard, kind: str, texts: Sequence[str]) -> list[str]:
    """Return each text as the model will read it; what the library takes for a label or an end left out."""
    lines = [_NOT_WORDS.sub(" ", prepare_text(card, text, {})).strip() for text in texts]
    if empty := [row for row, line in enumerate(lines) if not line]:
        raise InputError(
            f"{len(empty)} of {len(lines)} {kind} texts hold no text (rows {_rows(empty)}); remove those rows"
        )
    if len(lines) < LEAST:
        raise InputError(f"{len(lines)} {kind} texts, expected at least {LEAST}, better thousands; add texts")
    return lines


def _refuse_overlap(good: Sequence[str], bad: Sequence[str]) -> None:
    first = {line: row for row, line in reversed(list(enumerate(good)))}
    if both := [(first[line], row) for row, line in enumerate(bad) if line in first]:
        raise InputError(
            f"{len(both)} texts are both good and bad (good row {both[0][0]} = bad row {both[0][1]}; bad "
            f"rows {_rows([row for _, row in both])}); remove them from one side"
        )


def _rows(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")


def _check_counts(truth: NDArray[Any], held: NDArray[np.bool_]) -> None:
    counts = [int((truth[held] == kind).sum()) for kind in (1, 0)]
    if min(counts) < LEAST_HELD_OUT or min(np.bincount(truth[~held], minlength=2)) < LEAST_HELD_OUT:
        raise InputError(
            f"the held-out part has {counts[0]} good and {counts[1]} bad of {len(truth)} texts, expected at "
            f"least {LEAST_HELD_OUT} of each there and in the rest; add texts that differ, or set heldout"
        )


def _train(training: FastTextTraining, lines: Sequence[str], truth: NDArray[Any], file: Path) -> None:
    if importlib.util.find_spec("fasttext") is None:
        raise MissingExtraError("fasttext-numpy2", "annotate", "training a fastText classifier")
    written = file.with_name("train.txt")
    with replacing(written, durable=False) as temporary, temporary.open("wb") as out:
        for line, kind in zip(lines, truth.tolist(), strict=True):
            out.write(f"{GOOD if kind else BAD} {line}\n".encode("utf-8", "replace"))
    settings = {
        "input": str(written), "lr": training.lr, "dim": training.dim, "epoch": training.epochs,
        "wordNgrams": training.word_ngrams, "minCount": training.min_count, "bucket": training.bucket,
        "seed": training.seed, "thread": 1, "verbose": 0, "minn": 0, "maxn": 0, "loss": "softmax",
    }  # fmt: skip
    try:
        with replacing(file) as temporary:
            train_apart(settings, str(temporary))
    finally:
        written.unlink()


def _metrics(
    training: FastTextTraining, truth: NDArray[Any], held: NDArray[np.bool_], chances: Floats, lengths: Floats
) -> FastTextMetrics:
    known = truth[held]
    found, length = auc(known, chances), auc(known, lengths)
    length = max(length, 1.0 - length)
    bins = _reliability(known, np.clip(chances, 0.0, 1.0))
    share = float(known.mean())
    warnings: list[str] = []
    if found <= length:
        warnings.append(
            f"held-out AUC {found:.3f} does not beat the length of a text alone ({length:.3f}); check them"
        )
    if float(chances.std()) < STUCK:
        warnings.append(
            f"the probabilities lie between {chances.min():.3f} and {chances.max():.3f}: it has hardly "
            f"learnt; raise epochs (now {training.epochs}) and lr (now {training.lr}), such as 25 and 0.5"
        )
    return FastTextMetrics(
        auc=found, length_auc=length, bins=bins, settings=training, warnings=warnings,
        ece=sum(b.texts * abs(b.mean_probability - b.share_good) for b in bins) / len(known),
        brier=float(np.mean((chances - known) ** 2)), base_rate_brier=share * (1.0 - share),
        train_good=int((truth[~held] == 1).sum()), train_bad=int((truth[~held] == 0).sum()),
        heldout_good=int((known == 1).sum()), heldout_bad=int((known == 0).sum()),
    )  # fmt: skip


def _reliability(truth: NDArray[Any], chances: Floats) -> list[Bin]:
    """Return the bins that hold texts."""
    place = np.minimum((chances * BINS).astype(int), BINS - 1)
    return [
        Bin(
            low=b / BINS, high=(b + 1) / BINS, texts=int((place == b).sum()),
            mean_probability=float(chances[place == b].mean()), share_good=float(truth[place == b].mean()),
        )
        for b in np.unique(place).tolist()
    ]  # fmt: skip
