"""n-gram language models of KenLM: how surprising a text is, per token (CCNet, Wenzek et al. 2019,
arXiv 1911.00359).

In: an ARPA file or KenLM's binary. Out: (D, 1) perplexity per token, smaller = more like the model's training
text. Every line of a text is a sentence with its own begin and end: the perplexity is
10 ** (-sum of log10 P / tokens), where a line's tokens are its words and its end. A text on one line (card:
one_line) is one sentence, and its number is that of the library's own `perplexity`.

Words are what stands between blanks. Models over sentence pieces, such as those that CCNet published, would
know hardly any of these and are refused.

Normalisation `ccnet`: lower case; marks on letters are taken off; every digit becomes 0; quotes, dashes, dots
and wide punctuation become their ASCII likeness; control characters go, tabs among them. That is CCNet's
order and table, without its entry for the wide digit one, which the rule for digits precedes. It is done line
by line: CCNet removes line ends with the control characters, which glues the words beside them.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quadmix.annotate.models.base import Outputs, Placed, Settings
from quadmix.errors import InputError, MissingExtraError
from quadmix.recipe.cards import ModelCard

PIECE = "▁"  # the mark of a blank in the vocabulary of sentence pieces
_DIGIT = re.compile(r"\d")
_SAME: dict[str, str] = {
    '"': "„”“«»」「《》", "'": "´’", ",": "，、", ".": "。", ":": "∶：", ";": "；", "?": "？", "!": "！",
    "%": "％", "(": "（", ")": "）", "[": "【", "]": "】", "<": "〈", ">": "〉", "-": "–━►", "~": "～",
    " - ": "—", ". ": "．", "...": "…",
}  # fmt: skip
_CONTROL = {code: "" for code in (*range(32), *range(127, 160))}
_PLAIN: dict[int, str] = {ord(c): plain for plain, marks in _SAME.items() for c in marks} | _CONTROL


@dataclass(frozen=True, slots=True, eq=False)
class NgramModel:
    """A loaded model; it runs on one core."""

    card: ModelCard
    model: Any

    def outputs(self, texts: Sequence[str]) -> Outputs:
        """Return (D, 1) float32 perplexities; NaN rows: `no_tokens`, `not_finite` (beyond float32)."""
        values = np.full((len(texts), 1), np.nan, np.float32)
        counts = {"no_tokens": 0, "not_finite": 0}
        for row, text in enumerate(texts):
            log10, tokens = self._score(text)
            with np.errstate(over="ignore"):
                number = np.float32(np.float64(10.0) ** (-log10 / tokens)) if tokens else np.float32("nan")
            if np.isfinite(number):
                values[row, 0] = number
            else:
                counts["not_finite" if tokens else "no_tokens"] += 1
        return Outputs(values=values, missing={k: n for k, n in counts.items() if n})

    def _score(self, text: str) -> tuple[float, int]:
        """Return log10 P of all lines that have a word, and their tokens."""
        log10, tokens = 0.0, 0
        for line in text.split("\n"):
            plain = normalise_line(line) if self.card.input.normalise == "ccnet" else line
            # a lone surrogate cannot be written as UTF-8 and becomes a question mark; the library would stop
            # at a NUL and call the rest certain
            sentence = plain.encode("utf-8", "replace").replace(b"\0", b" ")
            if words := len(sentence.split()):
                log10 += self.model.score(sentence)
                tokens += words + 1
        return log10, tokens


def load_ngram(placed: Placed, settings: Settings) -> NgramModel:
    """Return the model of a placed card, whatever the settings' device.

    Raises InputError for a file that KenLM cannot read or whose words are sentence pieces, MissingExtraError
    where kenlm is not installed.
    """
    try:
        import kenlm  # pyright: ignore[reportMissingImports]  (an extra of its own: it needs a compiler)
    except ImportError as error:
        raise MissingExtraError("kenlm", "ngram", f"the model of card {placed.card.name!r}") from error
    card, library = placed.card, _untyped(kenlm)
    if not card.files:
        raise InputError(
            f"card {card.name!r}: `files` names none, expected the .arpa or .bin file of the model"
        )
    file = placed.folder / next(iter(card.files))
    config = library.Config()
    config.show_progress = False
    config.arpa_complain = library.ARPALoadComplain.NONE
    try:
        model = library.Model(str(file), config)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"card {card.name!r}: KenLM cannot read {file} ({_first_line(error)}); expected an ARPA file or "
            "KenLM's binary; fetch it again"
        ) from error
    if PIECE in model:
        raise InputError(
            f"card {card.name!r}: the words of {file} are sentence pieces ({PIECE!r} is one), expected words "
            "between blanks; train a model on such text, for instance with KenLM's lmplz"
        )
    return NgramModel(card, model)


def normalise_line(line: str) -> str:
    """Return one line normalised as CCNet's models were trained, see the module's docstring."""
    bare = unicodedata.normalize("NFD", line.strip().lower())
    bare = "".join(c for c in bare if unicodedata.category(c) != "Mn")
    return _DIGIT.sub("0", bare).translate(_PLAIN)


def _untyped(module: Any) -> Any:
    return module


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
