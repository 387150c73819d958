"""Scores of the criteria domain by domain: small histograms before and after, and quantiles.

In: the rows of the selection. Out: a part of the section about criteria. Each column of panels has one scale,
so domains can be compared; criteria are never drawn on a common one, as their scores mean different things.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.report import figures
from quadmix.report.html import Gallery, Html, details, join, show, table
from quadmix.report.origins import SELECTION
from quadmix.report.plots import ACCENT, BAR, Picture, Words, picture, trim
from quadmix.report.selection import Table
from quadmix.report.text import clean, sig
from quadmix.types import Floats

SHOWN_DOMAINS = 8
COLUMNS = 4  # criteria in one figure
BINS = 30


def by_domain(known: Table, gallery: Gallery) -> Html:
    """The figures and, folded, the quantiles of every criterion in every domain."""
    if not len(known.tokens):
        return Html("")
    groups = [
        range(start, min(start + COLUMNS, len(known.criteria)))
        for start in range(0, len(known.criteria), COLUMNS)
    ]
    pictures = [
        show(gallery, domain_histograms(known, group, number)) for number, group in enumerate(groups, start=1)
    ]
    return join(*pictures, details("Quantiles of every criterion in every domain", _quantile_table(known)))


def largest_domains(known: Table) -> list[int]:
    """Return the domains that have tokens, the largest first."""
    tokens = np.bincount(known.domain, known.tokens, len(known.domains))
    return [int(m) for m in np.argsort(-tokens, kind="stable") if tokens[m] > 0]


def domain_histograms(known: Table, criteria: Sequence[int], number: int) -> Picture:
    """Histograms of some criteria in the largest domains, in the pool and in the dataset.

    criteria: places. number: of the figure, from 1.
    """
    scores, notes = figures.oriented(known)
    places, shown = largest_domains(known), largest_domains(known)[:SHOWN_DOMAINS]
    edges = {n: _edges(scores[:, n]) for n in criteria}
    shapes = {(m, n): _shares(known, scores[:, n], edges[n], m) for m in places for n in criteria}

    def panel(axis: Any, m: int, n: int) -> None:
        before, after = shapes[m, n]
        axis.stairs(100 * before, edges[n], fill=True, color=BAR, label="pool")
        axis.stairs(100 * after, edges[n], color=ACCENT, lw=1.4, label="dataset")
        axis.set_yticks([])
        axis.locator_params(axis="x", nbins=4)

    def draw(figure: Any) -> None:
        axes = figure.subplots(len(shown), len(criteria), squeeze=False, sharex="col")
        for row, m in enumerate(shown):
            for column, n in enumerate(criteria):
                panel(axes[row, column], m, n)
            axes[row, 0].set_ylabel(
                trim(clean(known.domains[m]), 18), rotation=0, ha="right", va="center", labelpad=6
            )
        for column, n in enumerate(criteria):
            axes[0, column].set_title(trim(clean(known.criteria[n])))
            axes[-1, column].set_xlabel(f"score ({notes[n]})")
        axes[0, 0].legend(loc="best", fontsize=7)

    names = ", ".join(clean(known.criteria[n]) for n in criteria)
    words = Words(
        name="criteria-by-domain" if number == 1 else f"criteria-by-domain-{number}",
        caption=f"The same domain by domain ({len(shown)} of {len(places)}, the largest), weighted by tokens "
        "and copies; each panel has its own height, a column one scale of scores. The CSV has all domains.",
        alt=f"Small histograms of {names} before and after selection, one row per domain.",
        source=SELECTION,
    )
    data = [
        (known.domains[m], known.criteria[n], *map(float, row))
        for m in places
        for n in criteria
        for row in zip(edges[n][:-1], edges[n][1:], *shapes[m, n], strict=True)
    ]
    columns = ("domain", "criterion", "score_from", "score_to", "share_before", "share_after")
    size = (1.6 + 2.2 * len(criteria), 0.9 + 0.72 * len(shown))
    return picture(words, size, draw, columns=columns, rows=data)


def _edges(values: Floats) -> Floats:
    valid = np.isfinite(values)
    low, high = np.quantile(values[valid], [0.002, 0.998]) if valid.any() else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1.0, BINS + 1)


def _shares(known: Table, values: Floats, edges: Floats, m: int) -> tuple[Floats, Floats]:
    """Return the share of the domain's tokens in each bin, before and after; NaN where there are none."""
    mine = (known.domain == m) & np.isfinite(values)
    inside, tokens = np.clip(values[mine], edges[0], edges[-1]), known.tokens[mine]
    pair = [np.histogram(inside, edges, weights=w)[0] for w in (tokens, tokens * known.copies[mine])]
    before, after = (h / h.sum() if h.sum() else np.full(len(h), np.nan) for h in pair)
    return before, after


def quantile_rows(known: Table) -> list[tuple[str, str, Floats, Floats]]:
    """Return (domain, criterion, pool quantiles, dataset quantiles) over tokens, largest domains first."""
    return [
        (known.domains[m], name, before, after)
        for m in largest_domains(known)
        for name, _, before, after in figures.quantile_rows(_only(known, known.domain == m))
    ]


def _only(known: Table, rows: NDArray[np.bool_]) -> Table:
    return replace(
        known, domain=known.domain[rows], tokens=known.tokens[rows], copies=known.copies[rows],
        scores=known.scores[rows], low=known.low[rows], high=known.high[rows], expected=known.expected[rows],
    )  # fmt: skip


def _quantile_table(known: Table) -> Html:
    rows = [
        [domain, name, *(sig(float(v)) for v in before), *(sig(float(v)) for v in after)]
        for domain, name, before, after in quantile_rows(known)
    ]
    headers = ["domain", "criterion", "pool 10 %", "median", "90 %", "dataset 10 %", "median", "90 %"]
    caption = "Quantiles over tokens, copies counted, domain by domain"
    return table(headers, rows, caption=caption, words=2, source=SELECTION)
