"""The sampled documents as data for the page's viewer, each with the reason for its copies in words.

In: rows of samples.parquet. Out: plain JSON values. Text is shortened so that the page stays small.
"""

import math
from typing import Any

from quadmix.report.figures import cut_of, fits
from quadmix.report.load import RunFiles
from quadmix.report.text import num, sig

STRATA = ("top", "kept", "borderline", "dropped", "dropped_high", "disagree")
TEXT_BUDGET = 6_000_000
TEXT_LIMIT = 4_000


def viewer_data(files: RunFiles) -> dict[str, Any]:
    """Return {"criteria": [...], "docs": [...]} for the viewer; an empty list if nothing was sampled."""
    if not files.samples:
        return {"criteria": [], "docs": []}
    criteria = [n.removeprefix("score:") for n in files.samples[0] if n.startswith("score:")]
    declared = files.table.declared if files.table else {}
    limit = min(TEXT_LIMIT, TEXT_BUDGET // len(files.samples))
    rules = _rules(files)
    directions = ["higher" if declared.get(c) == "higher" else "lower" for c in criteria]
    return {
        "criteria": [{"name": c, "note": f"{d} = better"} for c, d in zip(criteria, directions, strict=True)],
        "docs": [_document(s, criteria, directions, rules, limit) for s in files.samples],
    }


def _rules(files: RunFiles) -> dict[str, dict[str, Any]]:
    """Return per domain the applied cut, and floor and weights where θ is known."""
    if files.table is None:
        return {}
    known = files.theta if fits(files.table, files.theta) else None
    return {
        name: {
            "cut": cut_of(files.table, files.theta, place),
            "floor": float(known.floor[place] * known.scale[place]) if known else None,
            "weights": known.weights[place].tolist() if known else None,
        }
        for place, name in enumerate(files.table.domains)
    }


def _document(
    sample: dict[str, Any], criteria: list[str], directions: list[str], rules: dict[str, Any], limit: int
) -> dict[str, Any]:
    rule = rules.get(str(sample["domain"]), {})
    text = str(sample.get("text") or "")
    signs = [-1.0 if d == "higher" else 1.0 for d in directions]
    return {
        "id": str(sample["doc_id"]),
        "stratum": str(sample["stratum"]),
        "domain": str(sample["domain"]),
        "tokens": sample["tokens"],
        "copies": sample["copies"],
        "scores": [sig(_float(sample[f"score:{c}"]) * s, 4) for c, s in zip(criteria, signs, strict=True)],
        "norms": [num(_float(sample.get(f"norm:{c}"))) for c in criteria],
        "weights": [num(w, 3) for w in rule.get("weights") or [math.nan] * len(criteria)],
        "why": why(sample, cut=rule.get("cut"), floor=rule.get("floor")),
        "text": text[:limit],
        "more": max(0, len(text) - limit),
    }


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def why(sample: dict[str, Any], *, cut: float | None, floor: float | None) -> list[str]:
    """Return the path of one document to its copies, one short sentence per step."""
    low, high = _float(sample["rank_low"]), _float(sample["rank_high"])
    expected, copies, domain = _float(sample["expected"]), int(sample["copies"]), sample["domain"]
    if not (math.isfinite(low) and math.isfinite(high)):
        return ["It has no rank: it was held out or excluded before the selection.", f"Drawn {copies}."]
    rank = num((low + high) / 2)
    steps = [
        f"Merged score {num(_float(sample['merged']))} (weighted mean of the normalised scores, 0 = best).",
        f"It covers {num(low, 6)} to {num(high, 6)} of the tokens of domain {domain}, best first.",
    ]
    where = f"rank {rank}"
    if cut is not None:
        window = f"the window 0..{num(cut)} of domain {domain}"
        place = "is inside" if high <= cut else "is outside" if low >= cut else "lies across the edge of"
        where = f"rank {rank} {place} {window}"
        if low >= cut and floor is not None:
            where += f", where only the floor ε = {sig(floor)} remains"
    steps.append(f"{where} → expected {sig(expected)} copies → drawn {copies}.".replace("rank", "Rank", 1))
    whole, part = math.floor(expected), expected - math.floor(expected)
    if part > 1e-9:
        luck = f"had a chance of {sig(100 * part)} % and {'came' if copies > whole else 'did not come'}"
        steps.append(f"{whole} certain, one more {luck} (a fixed hash of the id and the seed decides).")
    return steps
