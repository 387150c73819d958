"""What every family of models gives, whatever its architecture.

In: a card, the folder with the model's files, a device. Out: a `TextModel`: texts in, one row of outputs per
text, NaN rows where a document could not be scored, each with its reason (promise P8).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from quadmix.recipe.cards import ModelCard
from quadmix.types import Floats, Ints

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A card whose files lie here and were checked. folder: of the files (a local folder). base: of the
    embedder of a frozen head. digest: of the card's settings and of all files that are read."""

    card: ModelCard
    folder: Path
    digest: str
    base: "Placed | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where and how a model runs. batch_tokens: padded tokens of one forward pass at most."""

    device: Device = "auto"
    precision: Precision = "auto"
    batch_tokens: int = 16_384
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outputs:
    """values: (D, K) float32: numbers, probabilities or a vector per text, K as the card's labels (1 where it
    has none); a row is finite or all NaN. missing: reason -> rows of NaN."""

    values: NDArray[np.float32]
    missing: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """What a model gives for D texts that it reads in windows, one text's windows after another's.

    values: (W, K) float32 of each window. weights: (W,) float64, by which a mean is weighed: the text's own
    tokens or characters in it. counts: (D,) windows of each text, 0: nothing of it was read. rows: (D, K)
    float32 of each whole text, a row finite or all NaN. reasons: (D,) why a row is NaN, "" where it is not.
    """

    values: NDArray[np.float32]
    weights: Floats
    counts: Ints
    rows: NDArray[np.float32]
    reasons: Sequence[str]


def whole_texts(chunks: Iterable[Windows], texts: int, width: int) -> Outputs:
    """Return the rows of all texts, of `width` numbers; chunks: theirs, in order."""
    values, missing, at = np.full((texts, width), np.nan, np.float32), Counter[str](), 0
    for chunk in chunks:
        values[at : at + len(chunk.rows)] = chunk.rows
        missing.update(reason for reason in chunk.reasons if reason)
        at += len(chunk.rows)
    return Outputs(values=values, missing=dict(sorted(missing.items())))


def mean_of_windows(values: Floats, weights: Floats, counts: Ints) -> Floats:
    """Return (D,) the weighed mean of each text's windows: values, weights (W,) and counts (D,) as in
    `Windows`; windows that are NaN are left out, and a text without any other is NaN."""
    owner, read = np.repeat(np.arange(len(counts)), counts), ~np.isnan(values)
    owner, weights, values = owner[read], weights[read], values[read]
    with np.errstate(invalid="ignore"):
        total = np.bincount(owner, weights, minlength=len(counts))
        return np.bincount(owner, weights * values, minlength=len(counts)) / total


class TextModel(Protocol):
    """A loaded model. `outputs` gets the texts as the card's input template made them."""

    @property
    def card(self) -> ModelCard: ...

    def outputs(self, texts: Sequence[str]) -> Outputs: ...


@runtime_checkable
class WindowModel(TextModel, Protocol):
    """A `TextModel` that reads a long text in windows; `outputs` are the rows of its `windows`, which come
    some texts at a time, in order."""

    def windows(self, texts: Sequence[str]) -> Iterator[Windows]: ...


_AFTER = "\x1e"  # the record separator stands after each part of a code


def with_code(text: str, *code: str) -> str:
    """Return what a card with `reads_language` reads: the text, its language and, where the card names
    domains, its domain in front."""
    return "".join(f"{part.replace(_AFTER, '')}{_AFTER}" for part in code) + text


def split_code(text: str, parts: int) -> tuple[tuple[str, ...], str]:
    """Undo `with_code`; in a text without so many parts in front each of them is ""."""
    *code, rest = text.split(_AFTER, parts)
    return (tuple(code), rest) if len(code) == parts else (("",) * parts, text)
