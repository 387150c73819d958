"""fastText classifiers: the probabilities of all labels of one line per text.

In: the .bin (or quantised .ftz) of a supervised model. Out: (D, K) probabilities in the order of the card's
labels, the same numbers as the library's own `predict` gives for the same line.

A text is one line: its line feeds become blanks (the library refuses them). The library splits at ASCII
blanks and NUL only, stops reading at a word `</s>`, and ignores words that begin with `__label__`; so do we,
since the published models were used that way. Probabilities of softmax models sum to 1 + K / 100,000 (the
library adds that much before it takes the logarithm); those of one-vs-all models need not sum to anything.
A model lies in memory as large as its file (Ultra-FineWeb 1.9 GB, Dolma 3 about 4 GB), once per process: the
library cannot map it, so workers do not share it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.models.base import Outputs, Placed, Settings
from quadmix.annotate.models.segment import segmenter
from quadmix.errors import InputError, MissingExtraError
from quadmix.io.raw import map_raw
from quadmix.recipe.cards import ModelCard

Numbers = NDArray[np.float32]
BATCH = 128  # texts of one call into the library
_MAGIC = 793_712_314
_SUPERVISED = 3  # of the library's model kinds; 1 and 2 are word vectors
_NUMBERS = (
    "magic", "version", "dim", "ws", "epoch", "min_count", "neg", "ngrams", "loss", "model", "bucket", "minn",
    "maxn", "rate",
)  # fmt: skip
# the settings, then of the dictionary: entries, words, labels, tokens, size of the pruned index
_HEADER = np.dtype(
    [(name, "<i4") for name in _NUMBERS]
    + [("t", "<f8"), ("size", "<i4"), ("words", "<i4"), ("labels", "<i4"), ("tokens", "<i8")]
    + [("pruned", "<i8")]
)
_MATRIX = np.dtype([("quantised", "u1"), ("rows", "<i8"), ("columns", "<i8")])


@dataclass(frozen=True, slots=True, eq=False)
class FastTextModel:
    """A loaded classifier; `place` maps a label to its column."""

    card: ModelCard
    model: Any
    place: dict[str, int]
    segment: Callable[[str], str] | None = None

    def outputs(self, texts: Sequence[str]) -> Outputs:
        """Return (D, K) float32 probabilities; NaN rows: `not_finite`, `no_known_words`."""
        parts = [
            self._batch([self._line(t) for t in texts[i : i + BATCH]]) for i in range(0, len(texts), BATCH)
        ]
        values = np.concatenate(
            [np.empty((0, len(self.place)), np.float32), *(values for values, _ in parts)]
        )
        unknown = sum(count for _, count in parts)
        bad = ~np.isfinite(values).all(axis=1)
        values[bad] = np.nan
        counts = {"no_known_words": unknown, "not_finite": int(bad.sum()) - unknown}
        return Outputs(values=values, missing={k: n for k, n in counts.items() if n})

    def _line(self, text: str) -> bytes:
        text = self.segment(text) if self.segment else text
        # a lone surrogate cannot be written as UTF-8 and becomes a question mark
        return text.replace("\n", " ").encode("utf-8", "replace") + b"\n"

    def _batch(self, lines: Sequence[bytes]) -> tuple[Numbers, int]:
        """Return (B, K) probabilities, and how many lines hold no word that the library knows (NaN)."""
        try:
            labels, chances = self.model.f.multilinePredict(lines, -1, 0.0, "strict")
        except RuntimeError:  # "Encountered NaN.", for the whole batch
            if len(lines) == 1:
                return np.full((1, len(self.place)), np.nan, np.float32), 0
            parts = [self._batch([line]) for line in lines]
            return np.concatenate([values for values, _ in parts]), sum(count for _, count in parts)
        values = np.full((len(lines), len(self.place)), np.nan, np.float32)
        told = [row for row, found in enumerate(labels) if found]  # the others are answered with nothing
        columns = np.array([[self.place[label] for label in labels[row]] for row in told], np.intp)
        if told:
            values[np.array(told)[:, None], columns] = np.array([chances[row] for row in told], np.float32)
        return values, len(lines) - len(told)


def load_fasttext(placed: Placed, settings: Settings) -> FastTextModel:
    """Return the model of a placed card; it runs on one core, whatever the settings' device.

    Raises InputError for a file that is cut, damaged or no classifier, and for labels that the card has not.
    """
    try:
        import fasttext
    except ImportError as error:
        raise MissingExtraError(
            "fasttext-numpy2", "annotate", f"the model of card {placed.card.name!r}"
        ) from error
    card = placed.card
    file = placed.folder / min(card.files, key=lambda name: not name.endswith((".bin", ".ftz")))
    check_file(file)
    try:
        model = fasttext.load_model(str(file))
        labels = [str(label) for label in model.labels]
    except (ValueError, MemoryError, RuntimeError) as error:
        raise InputError(f"card {card.name!r}: {file} cannot be loaded: {error}; fetch it again") from error
    expected = card.output.labels or tuple(sorted(labels))
    if set(labels) != set(expected):
        raise InputError(
            f"card {card.name!r}: {file} has the labels {_shown(labels)}, expected {_shown(expected)}; copy "
            "the card (`quadmix raters show`), put the model's own labels into output.labels and name it"
        )
    segment = segmenter(placed.folder / card.input.segment) if card.input.segment else None
    return FastTextModel(card, model, {label: i for i, label in enumerate(expected)}, segment)


def check_file(file: Path) -> None:
    """Raise InputError unless this is a whole fastText classifier; the library itself does not notice a cut.

    A file that is not quantised ends with its two matrices, whose sizes follow from its header. Of quantised
    ones (.ftz) only the header is checked.
    """
    size = file.stat().st_size
    head = map_raw(file, _HEADER, count=1)[0] if size >= _HEADER.itemsize else None
    if head is None or head["magic"] != _MAGIC:
        raise InputError(f"{file} is not a fastText model ({size:,} bytes); expected the .bin that it saved")
    if head["model"] != _SUPERVISED:
        raise InputError(f"{file} holds word vectors; expected a fastText classifier (trained `supervised`)")
    if file.suffix == ".ftz":
        return
    shapes = (
        (int(head["words"]) + int(head["bucket"]), int(head["dim"])),
        (int(head["labels"]), int(head["dim"])),
    )
    offset = size - sum(_MATRIX.itemsize + 4 * rows * columns for rows, columns in shapes)
    whole = offset >= _HEADER.itemsize
    for rows, columns in shapes:
        if whole:
            found = map_raw(file, _MATRIX, offset=offset, count=1)[0]
            whole = (int(found["quantised"]), int(found["rows"]), int(found["columns"])) == (0, rows, columns)
            offset += _MATRIX.itemsize + 4 * rows * columns
    if not whole:
        raise InputError(
            f"{file} is cut or damaged: {size:,} bytes do not end with the matrices that its header "
            "announces; fetch it again (a quantised model needs the suffix .ftz)"
        )


def _shown(labels: Sequence[str]) -> str:
    names = sorted(labels)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
