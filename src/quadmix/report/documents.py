"""The sampled documents as data for the page's viewer: numbers by column, texts in lazily read blocks.

In: rows of samples.parquet, θ and the criteria's directions. Out: data that `page.js` reads. Nothing is
worked out here: scores, ranks, expected copies and draws are those of the files; the viewer multiplies a
normalised score with its weight and evaluates the domain's curve at the document's rank (Eq. 1 and 3).
"""

import math
from collections.abc import Sequence
from typing import Any

from quadmix.report.figures import fits
from quadmix.report.html import Html
from quadmix.report.load import RunFiles
from quadmix.report.text import clean, json_block, json_text

STRATA = {
    "top": "best rank",
    "kept": "kept, at random",
    "borderline": "nearest to the cut, half on each side",
    "dropped": "dropped, at random",
    "dropped_high": "dropped although a criterion rates them high",
    "disagree": "criteria furthest apart",
}
TEXT_LIMIT = 4_000  # characters of one document
TEXT_BYTES = 6_000_000  # of all texts as they stand in the page
CHUNK = 200  # documents whose texts are parsed together
_NUMBERS = {"merged": "merged", "low": "rank_low", "high": "rank_high", "expected": "expected",
            "uniform": "uniform", "factor": "factor"}  # fmt: skip


def viewer_data(files: RunFiles, *, redact: bool, room: int) -> tuple[dict[str, Any] | None, Html]:
    """Return the numbers of all documents (None if nothing was sampled), and blocks with their texts.

    redact: leave the texts out. room: bytes that the page may grow by; texts are cut to what is left of them.
    """
    if not files.samples:
        return None, Html("")
    numbers: dict[str, Any] = {**viewer_numbers(files), "redacted": redact, "chunk": CHUNK}
    if redact:
        numbers["docs"]["more"] = [0] * len(files.samples)
        return numbers, Html("")
    used = len(json_text(numbers).encode())
    share = max(0, min(TEXT_BYTES, room - used)) // len(files.samples)
    texts, numbers["docs"]["more"] = _texts([s.get("text") for s in files.samples], share)
    starts = range(0, len(texts), CHUNK)
    blocks = [json_block(f"texts-{n}", texts[start : start + CHUNK]) for n, start in enumerate(starts)]
    return numbers, Html("\n".join(blocks))


def viewer_numbers(files: RunFiles) -> dict[str, Any]:
    """Return strata, domains, criteria, curves and the numbers of every document in the file's order."""
    samples = files.samples
    criteria = [n.removeprefix("score:") for n in samples[0] if n.startswith("score:")]
    declared = files.table.declared if files.table else {}
    higher = [declared.get(c) == "higher" for c in criteria]
    strata = list(dict.fromkeys(str(s["stratum"]) for s in samples))
    domains = sorted({str(s["domain"]) for s in samples})
    columns = {name: [_number(s.get(source)) for s in samples] for name, source in _NUMBERS.items()}
    return {
        "strata": strata,
        "domains": domains,
        "criteria": [{"name": c, "higher": up} for c, up in zip(criteria, higher, strict=True)],
        "curves": _curves(files, domains, criteria),
        "applied": files.theta_file == "theta.json",
        "docs": {
            "id": [str(s["doc_id"]) for s in samples],
            "stratum": _places([str(s["stratum"]) for s in samples], strata),
            "domain": _places([str(s["domain"]) for s in samples], domains),
            "tokens": [int(s["tokens"]) for s in samples],
            "copies": [int(s["copies"]) for s in samples],
            **columns,
        },
        "scores": [
            [_score(s[f"score:{c}"], up) for s in samples] for c, up in zip(criteria, higher, strict=True)
        ],
        "norms": [[_score(s.get(f"norm:{c}"), False) for s in samples] for c in criteria],
    }


def _places(values: Sequence[str], names: Sequence[str]) -> list[int]:
    index = {name: place for place, name in enumerate(names)}
    return [index[v] for v in values]


def _curves(files: RunFiles, domains: Sequence[str], criteria: Sequence[str]) -> list[dict[str, Any] | None]:
    """Return θ's row of each domain, None where it is not known."""
    table, theta = files.table, files.theta
    if table is None or theta is None or not fits(table, theta) or list(table.criteria) != list(criteria):
        return [None] * len(domains)
    found: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(table.domains):
        found[name] = {"weights": theta.weights[place].tolist()} | {
            key: float(getattr(theta, key)[place])
            for key in ("steepness", "cutoff", "exponent", "floor", "scale")
        }
    return [found.get(name) for name in domains]


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _score(value: Any, higher: bool) -> float | None:
    """Return a float32 score as delivered (stored are scores with smaller = better), without false digits."""
    number = _number(value)
    if number is None:
        return None
    return float(f"{-number if higher else number:.7g}") + 0.0  # + 0.0: no negative zero


def _texts(texts: Sequence[Any], share: int) -> tuple[list[str | None], list[int]]:
    """Return the texts, each at most `share` bytes of the page, and how many characters are cut off."""
    shown: list[str | None] = []
    more: list[int] = []
    for text in texts:
        if text is None:
            shown.append(None)
            more.append(0)
            continue
        kept = _fitting(str(text)[:TEXT_LIMIT], share)
        shown.append(kept)
        more.append(len(str(text)) - len(kept))
    return shown, more


def _fitting(text: str, share: int) -> str:
    """Return the longest beginning of the text that takes at most `share` bytes once it is escaped."""

    def size(length: int) -> int:
        return len(json_text(clean(text[:length])).encode())

    if size(len(text)) <= share:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(middle) <= share else (low, middle - 1)
    return text[:low]


def strata_counts(files: RunFiles) -> list[tuple[str, str, int]]:
    """Return (stratum, what it holds, documents shown of it) in the order of the file."""
    names = [str(s["stratum"]) for s in files.samples]
    return [(name, STRATA.get(name, ""), names.count(name)) for name in dict.fromkeys(names)]
