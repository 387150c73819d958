"""Strings and numbers made safe and readable for the page, the figures and the CSV files.

Document text and names come from the web: everything passes `clean` (control and bidirectional marks
become visible) and then the escape of the place it goes to: `esc` for HTML, `json_block` for data that a
script reads, `csv_text` for spreadsheets.
"""

import csv
import html
import io
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson

# Zero-width joiners stay: scripts and emoji need them. Tags (U+E0000 on) can hide a text inside another.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)
MINUS = "\u2212"


def clean(value: object) -> str:
    """Return text in which control, bidirectional and other invisible marks are spelt out as ⟨U+202E⟩."""
    text = str(value).replace("\r\n", "\n")
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def esc(value: object) -> str:
    """Return `value` as text for HTML, quotes escaped too (so it may stand in an attribute)."""
    return html.escape(clean(value), quote=True)


def clean_json(value: Any) -> Any:
    """Return plain JSON values with every string (and key) cleaned."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(k): clean_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any) -> str:
    """Return cleaned JSON that no parser can mistake for markup: <, > and & are written as \\u00XX."""
    data = orjson.dumps(clean_json(value)).decode()
    return data.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def json_block(element_id: str, value: Any) -> str:
    """Return a data block for the page's script."""
    return f'<script type="application/json" id="{element_id}">{json_text(value)}</script>'


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return CSV in which no text cell can be taken for a formula by a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_csv_cell(c) for c in columns])
    writer.writerows([_csv_cell(c) for c in row] for row in rows)
    return out.getvalue()


def _csv_cell(value: object) -> str:
    if isinstance(value, np.generic):
        value = value.item()  # else the cell would read np.float64(0.5)
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = clean(value)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text


def count(value: float | None) -> str:
    """Return 1234567 as 1,234,567."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.0f}"


def short(value: float) -> str:
    """Return a number of tokens with three digits and a unit: 1.23 M."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:  # 999,700 is 1 M, not 1e+03 k
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def num(value: float | None, digits: int = 4, *, sign: bool = False) -> str:
    """Return a number with fixed decimals and a true minus sign; a missing one as a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", MINUS)


def sig(value: float | None, digits: int = 3) -> str:
    """Return a number with that many significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}g}".replace("-", MINUS)


def percent(value: float | None, digits: int = 1) -> str:
    """Return 0.123 as 12.3 %."""
    return "–" if value is None or not math.isfinite(value) else f"{num(100 * value, digits)} %"


def interval(low: float, high: float, digits: int = 4, *, sign: bool = False) -> str:
    """Return `low to high`, or that it is unknown."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unknown"
    return f"{num(low, digits, sign=sign)} to {num(high, digits, sign=sign)}"


_NAMES = {
    "quadmix": "θ*", "theta": "θ*", "criteria-mix": "criteria mix", "qurating": "QuRating",
    "qurating-language": "QuRating per language", "fineweb2-hq": "FineWeb2-HQ style",
    "global-cut": "global cut", "upsampling": "quality upsampling", "dsir": "DSIR", "regmix": "RegMix",
    "prior-mean": "prior mean", "random-mean": "mean of random θ", "theta-star": "θ* of the search",
    "best-observed": "best observed", "equal-domains": "equal domains", "uniform-weights": "uniform weights",
}  # fmt: skip


def label_name(label: str) -> str:
    """Return a selector's or candidate's label as the page says it: `quadmix`, the confirmed choice, is θ*;
    `theta-star` is what the search proposed, which is another one where another candidate was confirmed."""
    kind, _, rest = label.partition(":")
    if rest and kind == "top":
        return f"top {rest}"
    if rest and kind == "single":
        return f"single {rest}"
    if rest and kind == "top-domain":
        return f"top {rest} per domain"
    if rest and kind == "top-language":
        return f"top {rest} per language"
    if rest and kind == "theta":
        return f"random θ {rest}"
    return _NAMES.get(label, label)


def named(text: str, labels: Iterable[str]) -> str:
    """Return a sentence in which the selectors' labels are written as the page says them."""
    words = sorted((re.escape(label) for label in labels), key=len, reverse=True)
    return (
        re.sub(rf"(?<![\w:.-])({'|'.join(words)})(?![\w-]|:\w)", lambda m: label_name(m[0]), text)
        if words
        else text
    )
