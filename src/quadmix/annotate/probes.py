"""A guard of orientation: sixteen pairs of a good and a bad text that a rater must rank the right way round.

In: an annotator that scores text. Out: how often the good text of a pair is ranked better, in the direction
that the annotator declares, with its Wilson interval. A label order read backwards, a `lower` declared as
`higher` or a head loaded in the wrong place shows here before it selects a corpus. The texts are English and
as often shorter as longer on the good side, so that counting characters gains nothing.
"""

import math
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.annotate.annotator import Annotator
from quadmix.annotate.models.languages import ANY
from quadmix.annotate.models.rater import ModelAnnotator
from quadmix.annotate.probe_texts import PAIRS

Z = 1.959964  # 95 %
ENGLISH = "en"
LEAST_PAIRS = 8  # scored on both sides, below which nothing is said

Verdict = Literal["right", "wrong", "unclear", "not probed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """share: of the `pairs` that were scored, those in the right order (ties half); low, high: its 95 %
    interval. failed: names of the pairs in the wrong order. reason: why nothing could be said."""

    name: str
    verdict: Verdict
    pairs: int
    share: float
    low: float
    high: float
    failed: tuple[str, ...] = ()
    reason: str = ""


def probe(annotator: Annotator) -> ProbeResult:
    """Score the built-in pairs; columns of the user's have no text to score and are not probed.

    right: the interval lies above one half. wrong: it lies below. unclear: it holds one half.
    """
    card = annotator.card
    if card.kind == "column":
        return _unprobed(card.name, "a column of the user's: it cannot score other text")
    if card.direction == "none":
        return _unprobed(card.name, "it declares no direction")
    spoken = annotator.asked.placed.card.languages if isinstance(annotator, ModelAnnotator) else (ANY,)
    if not {ANY, ENGLISH} & set(spoken):
        return _unprobed(card.name, f"its languages are {', '.join(spoken)}, and the pairs are English")
    texts = [text for pair in PAIRS for text in (pair.good, pair.bad)]
    scored = annotator.score(texts, _rows(annotator, texts)).values.astype(np.float64).reshape(-1, 2)
    known = cast(NDArray[np.bool_], np.isfinite(scored).all(axis=1))
    if int(known.sum()) < LEAST_PAIRS:
        return _unprobed(card.name, f"it scored {int(known.sum())} of {len(PAIRS)} pairs")
    gain = (scored[known, 0] - scored[known, 1]) * (-1.0 if card.direction == "lower" else 1.0)
    pairs, right = len(gain), float((gain > 0).sum() + (gain == 0).sum() / 2)
    low, high = wilson(right, pairs)
    names = [pair.name for pair, k in zip(PAIRS, known.tolist(), strict=True) if k]
    return ProbeResult(
        name=card.name,
        verdict="right" if low > 0.5 else "wrong" if high < 0.5 else "unclear",
        pairs=pairs,
        share=right / pairs,
        low=low,
        high=high,
        failed=tuple(n for n, g in zip(names, gain.tolist(), strict=True) if g < 0),
    )


def probe_warnings(result: ProbeResult) -> list[str]:
    """Return what to say about a result that is wrong or unclear."""
    told = (
        f"criterion {result.name!r} ranks {result.share:.0%} of {result.pairs} probe pairs the right way "
        f"round (95 %: {result.low:.0%} to {result.high:.0%})"
    )
    if result.verdict == "wrong":
        return [f"{told}: its direction is probably declared the wrong way round, or its labels are swapped"]
    if result.verdict == "unclear":
        return [f"{told}: it tells prose from boilerplate, spam or debris no better than chance; check it"]
    return []


def probe_lines(result: ProbeResult) -> list[str]:
    """Return one line for people."""
    if result.verdict == "not probed":
        return [f"{result.name}: not probed ({result.reason})"]
    failed = f"; wrong: {', '.join(result.failed)}" if result.failed else ""
    return [
        f"{result.name}: {result.verdict}, {result.share:.0%} of {result.pairs} pairs "
        f"({result.low:.0%} to {result.high:.0%}){failed}"
    ]


def wilson(successes: float, trials: int, z: float = Z) -> tuple[float, float]:
    """Return Wilson's interval of a share (Wilson 1927); trials > 0."""
    share = successes / trials
    scale = 1.0 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1.0 - share) / trials + z * z / (4 * trials * trials))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _unprobed(name: str, reason: str) -> ProbeResult:
    nan = float("nan")
    return ProbeResult(name=name, verdict="not probed", pairs=0, share=nan, low=nan, high=nan, reason=reason)


def _rows(annotator: Annotator, texts: list[str]) -> pa.RecordBatch:
    """The texts and the columns that a model reads besides: the language, others of its template empty."""
    columns = {"text": texts}
    if isinstance(annotator, ModelAnnotator):
        language = annotator.asked.language
        columns |= {n: [ENGLISH if n == language else ""] * len(texts) for n in annotator.asked.columns}
    return pa.RecordBatch.from_pydict(columns)
