"""What each criterion is and how much of it is length: the cards of the annotators as one table.

In: the facts that the stage `annotate` left: a card per criterion (quality on held-out folds, the same for
text length alone) and the rank correlation of goodness with tokens over the pool. Out: HTML.
"""

import math
from typing import Any, cast

from quadmix.report.html import Html, note, table
from quadmix.report.load import RunFiles
from quadmix.report.text import count, num

STAGE, CARDS, BIAS = "annotate", "cards", "length_bias"
SOURCE = ("stages/annotate.json",)
_LABELS = {
    "good": "good", "bad": "bad", "bad_from_pool": "from the pool as bad", "labelled": "labelled",
    "pairs": "pairs", "sets": "sets",
}  # fmt: skip
_MEASURES = {"auc": "AUC", "spearman": "Spearman", "accuracy": "accuracy"}
HELD, LENGTH = "heldout_", "length_"


def cards(files: RunFiles) -> list[dict[str, Any]]:
    """Return the cards of the criteria as they were stored, [] if the stage left none."""
    found = _facts(files).get(CARDS)
    whole = cast(list[Any], found) if isinstance(found, list) else []
    return [cast(dict[str, Any], c) for c in whole if isinstance(c, dict) and "name" in c]


def cards_table(files: RunFiles) -> Html:
    """Return one row per criterion: kind, labels, held-out and length-only quality, correlation with
    length."""
    found = cards(files)
    if not found:
        return Html("")
    bias = _numbers(_facts(files).get(BIAS))
    rows = [
        [
            str(card["name"]), str(card.get("kind", "–")), _labels(card),
            _quality(card, HELD), _quality(card, LENGTH), num(bias.get(str(card["name"])), 2, sign=True),
        ]
        for card in found
    ]  # fmt: skip
    headers = ["criterion", "kind", "labels", "held-out quality", "length alone", "correlation with length"]
    caption = (
        "What each criterion was made from; held-out quality: on texts that its fit had not seen; length "
        "alone: the same measure for the number of characters (–: not trained here); correlation with "
        "length: Spearman of goodness with tokens over the pool (above 0: longer is better)"
    )
    weak = [str(c["name"]) for c in found if _no_better(c)]
    said = note(f"No better than length alone: {', '.join(weak)}.") if weak else Html("")
    return Html(table(headers, rows, caption=caption, words=3, source=SOURCE) + said)


def _facts(files: RunFiles) -> dict[str, Any]:
    return next((s.facts for s in files.stages if s.stage == STAGE), {})


def _numbers(value: Any) -> dict[str, float]:
    """Return the finite numbers of a mapping."""
    whole = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    return {
        str(k): float(v)
        for k, v in whole.items()
        if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
    }


def _labels(card: dict[str, Any]) -> str:
    facts = _numbers(card.get("facts"))
    if facts.get("sets") == 1:
        del facts["sets"]
    return ", ".join(f"{count(facts[k])} {name}" for k, name in _LABELS.items() if facts.get(k)) or "–"


def _quality(card: dict[str, Any], start: str) -> str:
    found = _measured(card, start)
    return ", ".join(f"{_MEASURES.get(name, name)} {num(value, 3)}" for name, value in found.items()) or "–"


def _measured(card: dict[str, Any], start: str) -> dict[str, float]:
    """Return measure -> value of the metrics that begin so, without those of single labelled sets (`:0`)."""
    metrics = _numbers(card.get("metrics"))
    return {k.removeprefix(start): v for k, v in metrics.items() if k.startswith(start) and ":" not in k}


def _no_better(card: dict[str, Any]) -> bool:
    held, length = _measured(card, HELD), _measured(card, LENGTH)
    return any(held[name] <= length[name] for name in held.keys() & length.keys())
