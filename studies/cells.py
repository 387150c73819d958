"""Numbers, intervals and rows of the tables of docs/reproduction.md as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Result = Mapping[str, Any]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a markdown table, a line per row."""
    return [f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows]]


def number(value: float | None, form: str = ".4f") -> str:
    """Return a number as text, "–" where there is none."""
    return "–" if value is None or np.isnan(value) else format(value, form)


def spread(row: Result | None, form: str = ".4f", key: str = "mean") -> str:
    """Return "value [low, high]" of a row with these fields."""
    if row is None or row.get(key) is None:
        return "–"
    names = ("spearman_low", "spearman_high") if "spearman_low" in row else ("low", "high")
    low, high = (row[name] for name in names)
    inside = "no interval" if low is None or np.isnan(low) else f"{format(low, form)}, {format(high, form)}"
    return f"{format(row[key], form)} [{inside}]"


def difference(
    row: Result | None, form: str = "+.4f", key: str = "difference", bold: bool | None = None
) -> str:
    """Return a difference with its interval, bold where that excludes 0 (or where `bold` says so)."""
    text = spread(row, form, key)
    if row is None or row.get(key) is None or row["low"] is None:
        return text
    beyond = row["low"] > 0 or row["high"] < 0
    return f"**{text}**" if (beyond if bold is None else bold) else text


def transfer_rows(transfers: Sequence[Result]) -> list[str]:
    """Return a row per pair of rungs."""
    rows = [
        [t["small"], t["large"], str(len(t["labels"])), spread(t, ".2f", "spearman"),
         number(t["ceiling"], ".2f"), f"{number(t['decision_accuracy'], '.2f')} ({t['decided']})",
         number(t["all_pairs"], ".2f")]
        for t in transfers
    ]  # fmt: skip
    return table(["from", "to", "selections", "Spearman [95 %, over seeds]", "ceiling",
                  "decision accuracy (decided pairs)", "over all pairs"], rows)  # fmt: skip
