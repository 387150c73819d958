"""Differences, tables and the picture of `language_ratio.py`, from its result alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import Result, difference, number, table
from common import pair_interval

from quadmix.io.atomic import replacing
from quadmix.report.plots import ACCENT, BAR, ORANGE, RED, Words, picture

MEASURES = (
    "bpb_english", "bpb_second", "bpb_flores-english", "bpb_flores-second", "acc_english", "acc_second",
    "mlc", "mlc_right", "mlc_wrong", "kappa",
)  # fmt: skip
KINDS = {"none": ("no parallel text", BAR), "apart": ("the same text, languages apart", ORANGE),
         "parallel": ("parallel text, in pairs", ACCENT)}  # fmt: skip
Values = Mapping[str, Sequence[float | None]]


def contrast(pairs: Sequence[tuple[str, str]], cells: Mapping[str, Values]) -> dict[str, Any]:
    """Return cell -> measure -> difference to its other cell with the 95 % t interval over seeds.

    The row `all` takes, seed by seed, the mean of the differences over the cells first.
    """
    gaps = {
        one: {m: gap(cells[one][m], cells[other][m]) for m in cells[one] if m in cells[other]}
        for one, other in pairs
    }
    out = {
        cell: {m: pair_interval(g, dict.fromkeys(g, 0.0)) for m, g in row.items()}
        for cell, row in gaps.items()
    }
    measures = set[str].intersection(*(set(row) for row in gaps.values()))
    out["all"] = {}
    for m in sorted(measures):
        seeds = set[int].intersection(*(set(row[m]) for row in gaps.values()))
        means = {s: float(np.mean([row[m][s] for row in gaps.values()])) for s in seeds}
        out["all"][m] = pair_interval(means, dict.fromkeys(means, 0.0))
    return out


def gap(one: Sequence[float | None], other: Sequence[float | None]) -> dict[int, float]:
    """Return seed -> difference, for the seeds of which both models are there."""
    return {
        s: a - b for s, (a, b) in enumerate(zip(one, other, strict=True)) if a is not None and b is not None
    }


def lines(result: Result) -> list[str]:
    """Return the tables of docs/mubench.md: means over seeds, then every contrast with its intervals."""
    rows = [
        [*words_of(name), *(number(mean(values, m), ".3f") for m in MEASURES)]
        for name, values in ordered(result["cells"])
    ]
    for name, null in sorted(result["nulls"].items()):
        rows.append([name, "", *(number(null.get(m), ".3f") for m in MEASURES)])
    out = table(["English", "parallel", *MEASURES], rows)
    for name, found in sorted(result["contrasts"].items()):
        changed = [
            [*words_of(cell), *(difference(row.get(m), "+.3f") for m in MEASURES)]
            for cell, row in ordered(found)
        ]
        out += ["", f"{name}:", "", *table(["English", "parallel", *MEASURES], changed)]
    return out


def ordered(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what belongs to cells, the most English first, `all` last."""
    return sorted(found.items(), key=lambda row: (-int(row[0][:3]), row[0]) if row[0] != "all" else (1, ""))


def words_of(cell: str) -> list[str]:
    """Return the two first columns of a row: share of English, share and kind of parallel text."""
    if cell == "all":
        return ["all", ""]
    english, parallel = cell.removesuffix("a").split("-")
    return [f"{int(english)}%", f"{int(parallel) / 10:g}%{' apart' if cell.endswith('a') else ''}"]


def mean(values: Values, measure: str) -> float:
    return float(np.mean([v for v in values.get(measure, []) if v is not None] or [np.nan]))


def draw(result: Result, path: Path) -> None:
    """Draw bits per byte of FLORES, accuracy and the parts of MLC against the share of English.

    Cells without parallel text and those with the largest share of it; a dot per model.
    """
    cells: Mapping[str, Values] = result["cells"]
    largest = max(name.removesuffix("a").split("-")[1] for name in cells)
    shown = {
        kind: {int(n[:3]): v for n, v in cells.items() if n[4:] == tail}
        for kind, tail in (("none", "000"), ("apart", f"{largest}a"), ("parallel", largest))
    }
    panels = {
        "bits per byte, English": "bpb_flores-english", "bits per byte, second language": "bpb_flores-second",
        "accuracy, English": "acc_english", "accuracy, second language": "acc_second",
        "MLC: same answer": "mlc", "MLC+: both right": "mlc_right",
    }  # fmt: skip

    def drawing(figure: Any) -> None:
        for axes, (title, measure) in zip(
            figure.subplots(2, 3, sharex=True).T.flat, panels.items(), strict=True
        ):
            for kind, row in shown.items():
                if not row:
                    continue
                label, color = KINDS[kind]
                at = sorted(row)
                axes.plot(at, [mean(row[x], measure) for x in at], "-", color=color, label=label)
                dots = [(x, v) for x in at for v in row[x][measure] if v is not None]
                axes.plot(*zip(*dots, strict=True), ".", color=color, ms=4)
            best = max((n[measure] for n in result["nulls"].values() if measure in n), default=None)
            if best is not None:
                axes.axhline(best, color=RED, ls=":", lw=1, label="best null")
            axes.set_title(title)
        for axes in figure.axes[3:]:
            axes.set_xlabel("English, % of the rest")
        handles = {
            label: h
            for axes in figure.axes
            for h, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)

    made = picture(
        Words(name="mubench", caption="", alt="", source=()), (10.4, 5.2), drawing, columns=(), rows=()
    )
    with replacing(path) as temporary:
        temporary.write_bytes(made.svg)
