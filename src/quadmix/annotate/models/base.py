"""What every family of models gives, whatever its architecture.

In: a card, the folder with the model's files, a device. Out: a `TextModel`: texts in, one row of outputs per
text, NaN rows where a document could not be scored, each with its reason (promise P8).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from quadmix.recipe.cards import ModelCard

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


class TextModel(Protocol):
    """A loaded model. `outputs` gets the texts as the card's input template made them."""

    @property
    def card(self) -> ModelCard: ...

    def outputs(self, texts: Sequence[str]) -> Outputs: ...


_AFTER = "\x1e"  # the record separator stands after each part of a code


def with_code(text: str, *code: str) -> str:
    """Return what a card with `reads_language` reads: the text, its language and, where the card names
    domains, its domain in front."""
    return "".join(f"{part.replace(_AFTER, '')}{_AFTER}" for part in code) + text


def split_code(text: str, parts: int) -> tuple[tuple[str, ...], str]:
    """Undo `with_code`; in a text without so many parts in front each of them is ""."""
    *code, rest = text.split(_AFTER, parts)
    return (tuple(code), rest) if len(code) == parts else (("",) * parts, text)
