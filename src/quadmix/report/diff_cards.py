"""The documents of a comparison as data for the page: what is said of each, and its way in both runs.

In: `DiffDocument` values and θ of both runs. Out: data that `diff.js` lists and `why.js` explains, in the
columns of the report's own viewer. Nothing is worked out here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quadmix.materialise.card import read_theta
from quadmix.materialise.table import read_manifest
from quadmix.types.diffing import Card, CardScore, DiffDocument

_NUMBERS = {"merged": "merged", "low": "rank_low", "high": "rank_high", "expected": "expected",
            "uniform": "uniform", "factor": "factor"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """θ of one run as its cards show it. rows: per domain `weights` (in the order of `criteria`),
    `steepness`, `cutoff`, `exponent`, `floor`, `scale`. file: where it stands, "" if there is none; one in
    another than theta.json is from before its cutoffs were scaled to the budget."""

    criteria: tuple[str, ...] = ()
    rows: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    file: str = ""


def read_curves(run_folder: str | Path) -> Curves:
    """Read θ of a run and the names of its domains and criteria; empty where one of them is not there."""
    folder = Path(run_folder)
    if not (folder / "selection" / "manifest.json").is_file():
        return Curves()
    theta, info = read_theta(folder), read_manifest(folder).info
    if theta is None or theta.num_domains != len(info.domains):
        return Curves()
    names = ("steepness", "cutoff", "exponent", "floor", "scale")
    rows = {
        domain: {"weights": theta.weights[m].tolist()} | {n: float(getattr(theta, n)[m]) for n in names}
        for m, domain in enumerate(info.domains)
    }
    criteria = tuple(c.name for c in info.criteria)
    file = "theta.json" if (folder / "theta.json").is_file() else "search/confirm.json"
    return Curves(criteria=criteria, rows=rows, file=file)


def cards_data(documents: Sequence[DiffDocument], curves: tuple[Curves, Curves]) -> dict[str, Any]:
    """Return what `diff.js` reads: the documents, and the columns of their cards in A and in B."""
    return {
        "docs": [_document(d) for d in documents],
        "a": _side([d.a for d in documents], curves[0]),
        "b": _side([d.b for d in documents], curves[1]),
    }


def _document(document: DiffDocument) -> dict[str, Any]:
    own = document.a if document.only == "A" else document.b
    return {
        "id": document.doc_id,
        "only": document.only,
        "domain": own.domain if own else "",
        "tokens": own.tokens if own else 0,
        "text": document.text,
        "more": max(0, document.characters - len(document.text or "")),
        "note": document.note,
        "inA": document.a is not None,
        "inB": document.b is not None,
    }


def _side(cards: Sequence[Card | None], curves: Curves) -> dict[str, Any]:
    """Return the columns of one run's cards, one entry per document of the page; null where it has none."""
    known = [c for c in cards if c is not None]
    domains = list(dict.fromkeys(c.domain for c in known))
    higher = {s.name: s.declared == "higher" for c in known for s in c.scores}
    criteria = list(dict.fromkeys([*curves.criteria, *higher]))
    scores = [{s.name: s for s in c.scores} if c else dict[str, CardScore]() for c in cards]
    place = {name: m for m, name in enumerate(domains)}
    return {
        "domains": domains,
        "criteria": [{"name": name, "higher": higher.get(name, False)} for name in criteria],
        "curves": [_curve(curves.rows.get(name), len(criteria)) for name in domains],
        "applied": curves.file == "theta.json",
        "docs": {
            "domain": [place[c.domain] if c else 0 for c in cards],
            "copies": [c.copies if c else 0 for c in cards],
            "excluded": [c.excluded if c else None for c in cards],
            **{
                name: [_number(getattr(c, source)) if c else None for c in cards]
                for name, source in _NUMBERS.items()
            },
        },
        "scores": [[_delivered(row.get(name)) for row in scores] for name in criteria],
        "norms": [
            [_number(row[name].normalised) if name in row else None for row in scores] for name in criteria
        ],
    }


def _curve(row: dict[str, Any] | None, criteria: int) -> dict[str, Any] | None:
    """Return a domain's row of θ; a criterion that θ does not know weighs nothing."""
    if row is None:
        return None
    return row | {"weights": row["weights"] + [0.0] * (criteria - len(row["weights"]))}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _delivered(score: CardScore | None) -> float | None:
    """Return a float32 score without the false digits of its 64 bits."""
    value = None if score is None else _number(score.delivered)
    return None if value is None else float(f"{value:.7g}")
