"""A quality score from published filter rules: no model, no labels, about 2,000 documents a second.

In: texts. Out: a number in (0, 1) per document, higher = better: the product of smooth ramps, one per
signal, each raised to a weight. The filters the signals come from cut at a threshold; a ramp is 0.1 where
the source would reject and 0.9 where a document is plainly fine, so that documents can be ranked.

Sources: Gopher (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1), C4 (Raffel et al. 2020,
arXiv 1910.10683, section 2.2), FineWeb (Penedo et al. 2024, arXiv 2406.17557, section 3.6).
The stop words are English and words are split at spaces, so the score means little for other languages.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.annotate.annotator import MAX_CHARS, AnnotatorCard, Scored
from quadmix.io.atomic import value_digest


@dataclass(frozen=True, slots=True)
class Ramp:
    """A signal's part of the score: 0.1 at `bad`, 0.5 half way, 0.9 at `good`, raised to `weight`."""

    name: str
    bad: float
    good: float
    weight: float
    source: str


RAMPS = (
    Ramp("log10_words", 1.3, 2.2, 0.5, "Gopher: 50 words at least; no credit for length beyond about 300"),
    Ramp("mean_word_low", 3.0, 4.0, 0.5, "Gopher: mean word length from 3 ..."),
    Ramp("mean_word_high", 10.0, 6.5, 1.0, "... to 10 characters"),
    Ramp("symbols_per_word", 0.1, 0.0, 0.5, "Gopher: '#' and ellipses, at most 0.1 per word"),
    Ramp("alphabetic_words", 0.7, 0.92, 1.0, "Gopher: 0.8 of the words hold a letter"),
    Ramp("bullet_lines", 0.9, 0.3, 0.5, "Gopher: at most 0.9 of the lines begin with a bullet"),
    Ramp("ellipsis_lines", 0.3, 0.0, 0.5, "Gopher: at most 0.3 of the lines end in an ellipsis"),
    Ramp("stop_words", 0.03, 0.15, 1.0, "Gopher: the, be, to, of, and, that, have, with; here their share"),
    Ramp("duplicate_lines", 0.2, 0.0, 0.7, "Gopher and FineWeb: characters in repeated lines, 0.2 and 0.1"),
    Ramp("duplicate_paragraphs", 0.2, 0.0, 0.3, "Gopher: characters in repeated paragraphs, 0.2"),
    Ramp("duplicate_5grams", 0.15, 0.02, 1.0, "Gopher: words in repeated 5-grams, 0.15"),
    Ramp("short_lines", 0.8, 0.2, 0.7, "FineWeb: lines under 30 characters, at most 0.67"),
    Ramp("sentence_lines", 0.05, 0.6, 1.0, "C4, FineWeb: 0.12 of the lines end as sentences do"),
    Ramp("braces", 0.01, 0.0, 0.5, "C4: no page with a curly brace; here braces per character"),
    Ramp("boilerplate", 1.0, 0.0, 0.7, "C4: no javascript, lorem ipsum, policy notices; per 100 words"),
)  # fmt: skip
_BAD = np.array([r.bad for r in RAMPS])
_GOOD = np.array([r.good for r in RAMPS])
_WEIGHT = np.array([r.weight for r in RAMPS])

_STOP = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("-", "*", "•", "●", "‣", "◦", "–", "·", "▪")
_ENDS = (".", "!", "?", '"', "”", "’", ".)", "。", "！", "？")
_ELLIPSES = ("...", "…")
_HAS_LETTER = re.compile(r"\S*?[^\W\d_]\S*")
_MARKS = re.compile(
    r"javascript|lorem ipsum|terms of use|privacy policy|cookie policy|uses? (?:of )?cookies"
    r"|all rights reserved|click here|log ?in to|sign up|subscribe"
)


def heuristic_signals(text: str) -> dict[str, float]:
    """Return the signals of one text by name, in the order of `RAMPS` (at most `MAX_CHARS` are read)."""
    return dict(zip((r.name for r in RAMPS), _signals(text), strict=True))


def heuristic_scores(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return (D,) float32 in (0, 1), higher = better."""
    if not texts:
        return np.empty(0, np.float32)
    signals = np.array([_signals(t) for t in texts])
    place = (signals - _BAD) / (_GOOD - _BAD)
    log_ramp = -np.logaddexp(0.0, -np.log(9.0) * (2.0 * np.clip(place, -1.0, 3.0) - 1.0))
    # one document at a time: the order of a sum must not depend on the batch
    return np.array([np.exp(np.sum(row * _WEIGHT)) for row in log_ramp], np.float32)


def _signals(text: str) -> tuple[float, ...]:
    text = text[:MAX_CHARS]
    lower = text.lower()
    words = lower.split()
    count = max(len(words), 1)
    letters = sum(map(len, words))
    mean_word = letters / count
    lines = [line for raw in text.split("\n") if (line := raw.strip())] or [""]
    paragraphs = [p for raw in text.split("\n\n") if (p := raw.strip())]
    ellipses = text.count("...") + text.count("…")
    return (
        float(np.log10(count)),
        mean_word,
        mean_word,
        (text.count("#") + ellipses) / count,
        len(_HAS_LETTER.findall(text)) / count,
        _share(lines, [x.startswith(_BULLETS) for x in lines]),
        _share(lines, [x.endswith(_ELLIPSES) for x in lines]),
        sum(map(_STOP.__contains__, words)) / count,
        _repeated(lines),
        _repeated(paragraphs),
        _repeated_runs(words),
        _share(lines, [len(x) < 30 for x in lines]),
        _share(lines, [x.endswith(_ENDS) and not x.endswith("...") for x in lines]),
        (text.count("{") + text.count("}")) / max(len(text), 1),
        100.0 * len(_MARKS.findall(lower)) / max(count, 100),
    )


def _share(lines: Sequence[str], marks: Sequence[bool]) -> float:
    return sum(marks) / len(lines)


def _repeated(pieces: Sequence[str]) -> float:
    """Return the share of characters in pieces that stood earlier in the text."""
    total = sum(map(len, pieces))
    return 1.0 - sum(map(len, set(pieces))) / total if total else 0.0


def _repeated_runs(words: Sequence[str]) -> float:
    """Return the share of word 5-grams that stood earlier in the text."""
    runs = max(len(words) - 4, 0)
    distinct = len(set(zip(words, words[1:], words[2:], words[3:], words[4:], strict=False)))
    return 1.0 - distinct / runs if runs else 0.0


@dataclass(frozen=True, slots=True)
class HeuristicAnnotator:
    """The heuristic as an annotator; it reads no columns and is never missing."""

    card: AnnotatorCard

    @staticmethod
    def make(name: str, direction: str = "higher") -> "HeuristicAnnotator":
        settings = {"kind": "heuristic", "direction": direction, "ramps": RAMPS, "chars": MAX_CHARS}
        return HeuristicAnnotator(
            AnnotatorCard(
                name=name,
                kind="heuristic",
                direction="lower" if direction == "lower" else "higher",
                digest=value_digest(settings),
                description=f"Gopher, C4 and FineWeb rules as one score in (0, 1) from {len(RAMPS)} signals",
            )
        )

    def score(self, texts: Sequence[str], rows: pa.RecordBatch) -> Scored:
        """Return (D,) float32 in (0, 1)."""
        return Scored(values=heuristic_scores(texts))
