"""The figures about the data: domains before and after, sampling curves, criteria, weights, agreement.

Everything is a count, a mean or a rank correlation of columns of selection/, or a field of a manifest.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from quadmix.report.origins import DATASET, SELECTION
from quadmix.report.plots import (
    ACCENT,
    BAR,
    INK,
    LIGHT,
    RED,
    Picture,
    Words,
    grid,
    grid_size,
    picture,
    ratio_axis,
    trim,
)
from quadmix.report.selection import Table
from quadmix.report.text import clean, num, percent, sig
from quadmix.types import DatasetManifest, DomainTokens, Floats, Theta

SHOWN_DOMAINS = 24
AGREEMENT_ROWS = 100_000
SHOWN_PAIRS = 15
BINS = 36
APPLIED = "theta.json"


def domain_rows(dataset: DatasetManifest) -> list[tuple[DomainTokens, float, float, float]]:
    """Return (domain, share before, share after, their ratio), the largest after first."""
    total_in = sum(d.tokens_in for d in dataset.domains) or 1
    total_out = sum(d.tokens_out for d in dataset.domains) or 1
    rows = [(d, d.tokens_in / total_in, d.tokens_out / total_out) for d in dataset.domains]
    rows.sort(key=lambda r: (-r[2], -r[1], r[0].domain))
    return [(d, a, b, b / a if a else float("nan")) for d, a, b in rows]


def domain_tokens(dataset: DatasetManifest) -> Picture:
    """Shares of the tokens per domain before and after, and their ratio on a log axis."""
    rows = domain_rows(dataset)
    shown = rows[:SHOWN_DOMAINS]
    y = np.arange(len(shown))[::-1]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        left.barh(y + 0.19, [100 * r[1] for r in shown], 0.36, color=BAR, label="pool")
        left.barh(y - 0.19, [100 * r[2] for r in shown], 0.36, color=ACCENT, label="dataset")
        left.set_yticks(y, [trim(clean(r[0].domain)) for r in shown])
        left.set_xlabel("share of tokens, %")
        left.legend(loc="lower right")
        ratio_axis(right, y, np.array([r[3] for r in shown]))

    most = max(shown, key=lambda r: r[3] if np.isfinite(r[3]) else 0.0)
    words = Words(
        name="domain-tokens",
        caption="Tokens per domain before and after; right: how much a domain grew or shrank.",
        alt=f"Bars of token shares for {len(shown)} domains. {clean(most[0].domain)} grew most, "
        f"from {percent(most[1])} to {percent(most[2])}.",
        source=DATASET,
    )
    columns = ("domain", "documents_in", "tokens_in", "documents_out", "unique_tokens", "tokens_out",
               "expected_tokens", "share_before", "share_after", "ratio")  # fmt: skip
    data = [
        (d.domain, d.documents_in, d.tokens_in, d.documents_out, d.unique_tokens, d.tokens_out,
         d.expected_tokens, a, b, r) for d, a, b, r in rows
    ]  # fmt: skip
    return picture(words, (10.4, 1.0 + 0.34 * len(shown)), draw, columns=columns, rows=data)


# --------------------------------------------------------------------------- sampling curves
def curve_rows(table: Table, theta: Theta | None, place: int) -> list[tuple[object, ...]]:
    """Return per rank bin of one domain: low, high, documents, mean expected and mean drawn copies."""
    mine = table.domain == place
    rank, expected, copies = table.rank[mine], table.expected[mine], table.copies[mine]
    cut = cut_of(table, theta, place)
    edges = np.linspace(0, min(1.0, max(2.0 * cut, 0.01)), BINS + 1)
    inside = (rank <= edges[-1]) & np.isfinite(expected)
    index = np.clip(np.searchsorted(edges, rank[inside], side="right") - 1, 0, BINS - 1)
    docs = np.bincount(index, minlength=BINS)
    with np.errstate(invalid="ignore"):
        wanted = np.bincount(index, expected[inside], BINS) / docs
        drawn = np.bincount(index, copies[inside], BINS) / docs
    name = table.domains[place]
    return [
        (name, float(edges[i]), float(edges[i + 1]), int(docs[i]), float(wanted[i]), float(drawn[i]))
        for i in range(BINS)
    ]


def edge_of(table: Table, place: int) -> float:
    """Return the observed edge: the worst rank at which a document of the domain still has at least a quarter
    of the largest expected copies. NaN if nothing falls off.

    Inside the window every document has at least half of the largest expected copies, outside only ε.
    """
    mine = (table.domain == place) & np.isfinite(table.expected)
    expected = table.expected[mine]
    if not len(expected) or expected.max() <= 4 * expected.min():
        return float("nan")
    return float(table.high[mine][expected > expected.max() / 4].max())


def cut_of(table: Table, theta: Theta | None, place: int) -> float:
    """Return where a domain's window ends: the observed edge, else θ's cutoff, else 1."""
    edge = edge_of(table, place)
    if np.isfinite(edge):
        return edge
    return float(theta.cutoff[place]) if fits(table, theta) and theta else 1.0


def fits(table: Table, theta: Theta | None) -> bool:
    """Return whether θ has a row for every domain of the table."""
    return theta is not None and theta.weights.shape == (len(table.domains), len(table.criteria))


def sampling_curves(table: Table, theta: Theta | None, theta_file: str) -> Picture:
    """Expected and drawn copies against rank for every domain, with document density, cut and floor.

    theta_file: where θ stands. The cutoffs of theta.json are those of the selection; others may have been
    scaled afterwards, and the observed edge is marked instead.
    """
    tokens = np.bincount(table.domain, table.tokens, len(table.domains))
    places = [int(i) for i in np.argsort(-tokens, kind="stable") if tokens[i] > 0]
    data = {place: curve_rows(table, theta, place) for place in places}
    shown = places[:SHOWN_DOMAINS]
    applied = theta_file == APPLIED and fits(table, theta)
    mark = {m: float(theta.cutoff[m]) if applied and theta else edge_of(table, m) for m in places}

    def panel(axis: Any, place: int) -> None:
        rows = data[place]
        low, high, docs, wanted, drawn = (np.array([r[i] for r in rows], dtype=float) for i in range(1, 6))
        middle = (low + high) / 2
        back = axis.twinx()
        edges = np.append(low, high[-1])
        back.stairs(docs, edges, fill=True, color=LIGHT)
        back.stairs(docs, edges, color=BAR, lw=0.9)
        back.set_ylim(0, max(docs.max(), 1) * 3)
        back.set_axis_off()
        axis.set_zorder(back.get_zorder() + 1)
        axis.patch.set_visible(False)
        axis.axvline(mark[place], color=RED, lw=0.9, ls=(0, (4, 3)))
        axis.plot(middle[docs > 0], wanted[docs > 0], color=ACCENT, lw=1.8)
        axis.plot(middle, drawn, "o", color=INK, ms=2.6, mew=0)
        axis.set_xlim(0, high[-1])
        axis.set_ylim(-0.06, max(2.15, float(np.nanmax([*wanted, *drawn, 0])) * 1.1))
        axis.locator_params(axis="x", nbins=4)
        axis.set_title(trim(clean(table.domains[place])))
        label = f"{'ω' if applied else 'edge'} {sig(mark[place])}"
        label += f"\nε {sig(float(theta.floor[place]), 2)}" if fits(table, theta) and theta else ""
        axis.text(0.98, 0.95, label, transform=axis.transAxes, ha="right", va="top", fontsize=7.5, color=RED)

    def draw(figure: Any) -> None:
        for axis, place in zip(grid(figure, len(shown), 4), shown, strict=True):
            panel(axis, place)
        figure.supxlabel("rank inside the domain (0 = best)", fontsize=8.5)
        figure.supylabel("copies", fontsize=8.5)

    cut = "the cutoff ω" if applied else "the observed edge (the applied θ is not stored)"
    words = Words(
        name="sampling-curves",
        caption="Copies against rank. Line: expected; dots: mean of the drawn copies; grey: document "
        f"density; dashed: {cut}. Beyond it only the floor ε remains.",
        alt=_curves_said([data[m] for m in shown]),
        source=(*SELECTION, theta_file) if fits(table, theta) else SELECTION,
    )
    columns = ("domain", "rank_from", "rank_to", "documents", "mean_expected", "mean_drawn")
    flat = [row for place in places for row in data[place]]
    return picture(words, grid_size(len(shown), 4, 1.75), draw, columns=columns, rows=flat)


def _curves_said(curves: Sequence[Sequence[tuple[object, ...]]]) -> str:
    """Describe the curves for someone who does not see them; each is the rows of `curve_rows`."""
    kept = [np.array([r[3:6] for r in rows if r[3]], dtype=float) for rows in curves]
    kept = [k for k in kept if len(k)]
    said = f"{len(curves)} panels, one per domain."
    if not kept:
        return said
    docs, wanted, drawn = np.concatenate(kept).T
    gap = np.abs(drawn - wanted)
    ends = [(min(values), max(values)) for values in ([k[0, 1] for k in kept], [k[-1, 1] for k in kept])]
    best, worst = (f"{num(a, 2)} to {num(b, 2)}" for a, b in ends)
    return (
        f"{said} Mean expected copies are {best} in the best bins of ranks and {worst} in the last bins; the "
        f"drawn means differ from them by {num(float(np.average(gap, weights=docs)), 2)} on average over "
        f"documents, by {num(float(gap.max()), 2)} at most."
    )


# --------------------------------------------------------------------------- criteria
def oriented(table: Table) -> tuple[np.ndarray, list[str]]:
    """Return the scores (D, N) as their sources delivered them, and a note on each one's direction."""
    scores, notes = table.scores.astype(np.float64), list[str]()
    for n, name in enumerate(table.criteria):
        if table.declared.get(name) == "higher":
            scores[:, n] = -scores[:, n]
        notes.append("higher = better" if table.declared.get(name) == "higher" else "lower = better")
    return scores, notes


def criterion_histograms(table: Table) -> Picture:
    """Token-weighted histograms of every criterion in the pool and in the dataset (copies counted)."""
    scores, notes = oriented(table)
    after = table.tokens * table.copies
    data: list[tuple[object, ...]] = []
    shapes: list[tuple[Floats, Floats, Floats]] = []
    for n, name in enumerate(table.criteria):
        column = scores[:, n]
        valid = np.isfinite(column)
        low, high = np.quantile(column[valid], [0.002, 0.998]) if valid.any() else (0.0, 1.0)
        edges = np.linspace(low, high if high > low else low + 1.0, 41)
        values = np.clip(column[valid], edges[0], edges[-1])
        before, _ = np.histogram(values, edges, weights=table.tokens[valid])
        kept, _ = np.histogram(values, edges, weights=after[valid])
        before, kept = (h / (h.sum() or 1.0) for h in (before, kept))
        shapes.append((edges, before, kept))
        data += [(name, *map(float, row)) for row in zip(edges[:-1], edges[1:], before, kept, strict=True)]

    def draw(figure: Any) -> None:
        axes = grid(figure, len(shapes), 3)
        for axis, name, note, (edges, before, kept) in zip(axes, table.criteria, notes, shapes, strict=True):
            axis.stairs(100 * before, edges, fill=True, color=BAR, label="pool")
            axis.stairs(100 * kept, edges, color=ACCENT, lw=1.7, label="dataset")
            axis.set_title(trim(clean(name)))
            axis.set_xlabel(f"score ({note})")
        axes[0].set_ylabel("share of tokens, %")
        axes[0].legend(loc="best")

    words = Words(
        name="criterion-histograms",
        caption="Each criterion in the pool (grey) and in the dataset (line), weighted by tokens and copies; "
        "scores as delivered, the outer 0.2 % gathered in the end bins.",
        alt=f"Histograms of {len(table.criteria)} criteria before and after selection.",
        source=SELECTION,
    )
    columns = ("criterion", "score_from", "score_to", "share_before", "share_after")
    return picture(words, grid_size(len(shapes), 3, 2.2), draw, columns=columns, rows=data)


def quantile_rows(table: Table) -> list[tuple[str, str, Floats, Floats]]:
    """Return (criterion, direction, pool quantiles, dataset quantiles) at 10, 50 and 90 % of tokens."""
    scores, notes = oriented(table)
    rows: list[tuple[str, str, Floats, Floats]] = []
    for n, name in enumerate(table.criteria):
        pair = [_quantiles(scores[:, n], w) for w in (table.tokens, table.tokens * table.copies)]
        rows.append((name, notes[n], pair[0], pair[1]))
    return rows


def _quantiles(values: Floats, weights: Floats) -> Floats:
    keep = np.isfinite(values) & (weights > 0)
    if not keep.any():
        return np.full(3, np.nan)
    order = np.argsort(values[keep], kind="stable")
    mass = np.cumsum(weights[keep][order])
    return values[keep][order][np.searchsorted(mass, np.array([0.1, 0.5, 0.9]) * mass[-1])]


def heat(
    axis: Any,
    matrix: Floats,
    *,
    names: Sequence[Sequence[str]],
    limits: tuple[float, float],
    width: int = 16,
) -> None:
    """Draw a matrix with its numbers in the cells.

    names: of the rows, of the columns. width: to which those of the columns are cut.
    """
    colours = "Blues" if limits[0] >= 0 else "RdBu"
    axis.imshow(matrix, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    axis.set_yticks(range(len(names[0])), [trim(clean(n)) for n in names[0]])
    axis.set_xticks(range(len(names[1])), [trim(clean(n), width) for n in names[1]], rotation=30, ha="right")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    for (row, column), value in np.ndenumerate(matrix):
        dark = abs(value) > 0.6 * max(abs(limits[0]), limits[1])
        axis.text(column, row, num(float(value), 2), ha="center", va="center", fontsize=7.5,
                  color="white" if dark else INK)  # fmt: skip


def weights_heat(
    theta: Theta, domains: tuple[str, ...], criteria: tuple[str, ...], source: tuple[str, ...]
) -> Picture:
    """Weights of the criteria in the merged score of every domain (rows sum to 1).

    source: the file that θ comes from.
    """
    shown = range(min(len(domains), 2 * SHOWN_DOMAINS))

    def draw(figure: Any) -> None:
        names = ([domains[i] for i in shown], list(criteria))
        heat(figure.subplots(), theta.weights[: len(shown)], names=names, limits=(0.0, 1.0))

    words = Words(
        name="merge-weights",
        caption="Weight α of every criterion in the merged score of a domain; each row sums to 1.",
        alt=f"Heat map of {len(domains)} domains by {len(criteria)} criteria.",
        source=source,
    )
    rows = [(d, *map(float, theta.weights[i])) for i, d in enumerate(domains)]
    size = (2.6 + 1.15 * len(criteria), 1.1 + 0.3 * len(shown))
    return picture(words, size, draw, columns=("domain", *criteria), rows=rows)


def spearman_matrix(scores: Floats) -> Floats:
    """Return (N, N) rank correlations of the complete rows; NaN where a criterion is constant."""
    from scipy.stats import rankdata  # heavy, and only the report needs it

    complete = scores[np.isfinite(scores).all(axis=1)]
    if len(complete) < 3:
        return np.full((scores.shape[1],) * 2, np.nan)
    ranks = rankdata(complete, axis=0)
    ranks -= ranks.mean(axis=0)
    norms = np.sqrt((ranks**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (ranks.T @ ranks) / np.outer(norms, norms)


def agreement(table: Table) -> Picture:
    """Spearman correlation of every pair of criteria, over all documents and inside every domain."""
    step = max(1, len(table.tokens) // AGREEMENT_ROWS)
    scores, domain = table.scores[::step].astype(np.float64), table.domain[::step]
    pairs = [(i, j) for i in range(len(table.criteria)) for j in range(i + 1, len(table.criteria))]
    sizes = np.bincount(domain, minlength=len(table.domains))
    places = [int(m) for m in np.argsort(-sizes, kind="stable")]
    parts = [spearman_matrix(scores), *(spearman_matrix(scores[domain == m]) for m in places)]
    matrix = np.array([[part[i, j] for i, j in pairs] for part in parts]).reshape(len(parts), len(pairs))
    names = ["all domains", *(table.domains[m] for m in places)]
    shown = _most_different(matrix)

    def draw(figure: Any) -> None:
        columns = [" · ".join(trim(clean(table.criteria[n]), 14) for n in pairs[k]) for k in shown]
        rows = [names[k] for k in range(min(len(names), SHOWN_DOMAINS + 1))]
        axis = figure.subplots()
        heat(axis, matrix[: len(rows), shown], names=(rows, columns), limits=(-1.0, 1.0), width=32)
        axis.axhline(0.5, color=INK, lw=1.2)

    chosen = "" if len(shown) == len(pairs) else f" The {len(shown)} pairs that differ most between domains."
    words = Words(
        name="criterion-agreement",
        caption="Spearman correlation of each pair of criteria, over all documents (first row) and inside "
        f"each domain: 1 = they order documents alike, 0 = they know nothing of each other.{chosen} "
        "Documents on which criteria disagree are in the viewer below, under the sample “disagree”.",
        alt=f"Heat map of rank correlations: {len(pairs)} pairs of criteria, over all documents and in "
        f"{len(places)} domains.",
        source=SELECTION,
    )
    size = (3.2 + 0.75 * len(shown), 1.6 + 0.28 * min(len(names), SHOWN_DOMAINS + 1))
    columns = ("domain", "criterion", "other_criterion", "spearman")
    data = [
        (name, table.criteria[i], table.criteria[j], float(value))
        for name, row in zip(names, matrix, strict=True)
        for (i, j), value in zip(pairs, row, strict=True)
    ]
    return picture(words, size, draw, columns=columns, rows=data)


def _most_different(matrix: Floats) -> list[int]:
    """Return the columns to show, in order: all, or those whose values differ most between the rows."""
    with np.errstate(invalid="ignore"):
        spread = np.nan_to_num(np.fmax.reduce(matrix, axis=0) - np.fmin.reduce(matrix, axis=0), nan=-1.0)
    return sorted(np.argsort(-spread, kind="stable")[:SHOWN_PAIRS].tolist())
