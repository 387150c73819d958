"""The figures of a comparison of two selections: tokens per domain, fates of documents, means of the scores.

In: a `Diff`. Out: pictures with their data. A is orange and B is blue in all of them; what only one has, and
what both have, is told apart by place and label as well.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from quadmix.report.plots import ACCENT, GREY, LIGHT, ORANGE, Picture, Words, grid, picture, trim
from quadmix.report.text import clean, count, percent, short
from quadmix.types.diffing import Diff, DomainMove, Flow, ScoreShift, State

SHOWN_DOMAINS = 24
BOTH, NEITHER = "#5b6b7d", LIGHT
STATES: tuple[State, ...] = ("kept", "not drawn", "excluded", "absent")
_GAP = 0.035  # between the bars of a column, of its height
_LABEL = 0.085  # least distance of two labels


def moved(diff: Diff) -> list[DomainMove]:
    """Return the domains, the one whose share changed most first."""
    return sorted(diff.domains, key=lambda d: (-abs(d.share_b - d.share_a), d.domain))


def domain_moves(diff: Diff, source: tuple[str, ...]) -> Picture:
    """Shares of the selected tokens in A and in B, and the change."""
    rows = moved(diff)
    shown = rows[:SHOWN_DOMAINS]
    y = np.arange(len(shown))[::-1]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        left.barh(y + 0.19, [100 * d.share_a for d in shown], 0.36, color=ORANGE, label="A")
        left.barh(y - 0.19, [100 * d.share_b for d in shown], 0.36, color=ACCENT, label="B")
        left.set_yticks(y, [trim(clean(d.domain)) for d in shown])
        left.set_xlabel("share of the selected tokens, %")
        left.legend(loc="best")
        change = np.array([100 * (d.share_b - d.share_a) for d in shown])
        right.axvline(0, color=GREY, lw=1)
        right.barh(y, change, 0.5, color=[ACCENT if c > 0 else ORANGE for c in change])
        reach = float(np.abs(change).max(initial=0)) * 1.15 or 1.0
        right.set_xlim(-reach, reach)
        right.set_xlabel("B minus A, percentage points")

    words = Words(
        name="diff-domains",
        caption="Selected tokens per domain, copies counted: shares in A and in B; right: what B has more "
        "(to the right) or less.",
        alt=f"Bars for {len(shown)} domains, the one whose share changed most first.",
        source=source,
    )
    data = [(d.domain, d.tokens_a, d.tokens_b, d.share_a, d.share_b) for d in rows]
    columns = ("domain", "tokens_a", "tokens_b", "share_a", "share_b")
    return picture(words, (10.4, 0.95 + 0.34 * len(shown)), draw, columns=columns, rows=data)


# --------------------------------------------------------------------------- fates
def flow_kind(flow: Flow) -> str:
    """Return "both", "only A", "only B" or "neither"."""
    if flow.a == "kept":
        return "both" if flow.b == "kept" else "only A"
    return "only B" if flow.b == "kept" else "neither"


_COLOURS = {"both": BOTH, "only A": ORANGE, "only B": ACCENT, "neither": NEITHER}


def flow(diff: Diff, source: tuple[str, ...]) -> Picture:
    """Documents from their fate in A to their fate in B, and what of the kept ones is shared."""
    flows = sorted(diff.flow, key=lambda f: (STATES.index(f.a), STATES.index(f.b)))

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _ribbons(left, flows)
        _shared(right, flows)

    kinds = {k: sum(f.documents for f in flows if flow_kind(f) == k) for k in _COLOURS}
    words = Words(
        name="diff-flow",
        caption="Left: every document of the pools, from its fate in A to its fate in B; light grey: kept by "
        "neither. Right: those that at least one keeps, by documents and by their tokens (each document "
        "once).",
        alt="Documents kept by both: {both:,}, only by A: {only A:,}, only by B: {only B:,}, by neither: "
        "{neither:,}.".format(**kinds),
        source=source,
    )
    columns = ("fate_in_a", "fate_in_b", "documents", "tokens")
    rows = [(f.a, f.b, f.documents, f.tokens) for f in flows]
    return picture(words, (10.4, 3.7), draw, columns=columns, rows=rows)


def _ribbons(axis: Any, flows: Sequence[Flow]) -> None:
    """Draw two columns of bars, as high as they have documents, and the ribbons between them."""
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    total = sum(f.documents for f in flows) or 1
    starts: list[dict[str, float]] = []
    for side, x in (("a", 0.0), ("b", 0.96)):
        sums: dict[State, float] = {
            s: sum(f.documents for f in flows if getattr(f, side) == s) / total for s in STATES
        }
        starts.append(_column(axis, sums, x, total, Rectangle))
    for f in flows:
        height = f.documents / total
        top_a, top_b = starts[0][f.a], starts[1][f.b]
        starts[0][f.a], starts[1][f.b] = top_a - height, top_b - height
        ends = [
            (0.04, top_a), (0.5, top_a), (0.5, top_b), (0.96, top_b), (0.96, top_b - height),
            (0.5, top_b - height), (0.5, top_a - height), (0.04, top_a - height), (0.04, top_a),
        ]  # fmt: skip
        curve = [Path.CURVE4] * 3
        codes = [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY]
        kind = flow_kind(f)
        alpha = 0.9 if kind == "neither" else 0.75
        axis.add_patch(PathPatch(Path(ends, codes), fc=_COLOURS[kind], ec="none", alpha=alpha))
    axis.set_xlim(-0.42, 1.42)
    axis.set_ylim(-0.05, 1.1 + _GAP * 3)
    axis.set_axis_off()


def _column(axis: Any, sums: dict[State, float], x: float, total: int, rectangle: Any) -> dict[str, float]:
    """Draw one column of bars with labels; return the upper end of each bar."""
    ends: dict[str, float] = {}
    wanted: list[tuple[float, str]] = []
    top = 1.0 + _GAP * 3
    outside, align = (x - 0.03, "right") if x < 0.5 else (x + 0.07, "left")
    axis.text(outside, top + 0.06, f"in {'A' if x < 0.5 else 'B'}", ha=align, va="bottom", weight="bold")
    for state, share in sums.items():
        ends[state] = top
        if share:
            axis.add_patch(rectangle((x, top - share), 0.04, share, fc="#1d2733", ec="none"))
            documents = round(share * total)
            text = (
                f"{'not in the pool' if state == 'absent' else state}\n{count(documents)} ({percent(share)})"
            )
            wanted.append((top - share / 2, text))
            top -= share + _GAP
    placed = float("inf")
    for middle, text in wanted:
        placed = min(middle, placed - _LABEL * 1.6)
        axis.text(outside, placed, text, ha=align, va="center", fontsize=7.5)
    return ends


def _shared(axis: Any, flows: Sequence[Flow]) -> None:
    """Draw what of the kept documents, and of their tokens, both have or one alone."""
    for y, name in ((1, "documents"), (0, "tokens")):
        parts = {
            k: sum(getattr(f, name) for f in flows if flow_kind(f) == k) for k in ("only A", "both", "only B")
        }
        total, left = sum(parts.values()) or 1, 0.0
        for kind, value in parts.items():
            share = value / total
            label = {"both": "kept by both"}.get(kind, kind) if y else None
            axis.barh(y, 100 * share, 0.55, left=left, color=_COLOURS[kind], label=label)
            if share > 0.13:
                text = f"{short(value) if name == 'tokens' else count(value)}\n{percent(share, 0)}"
                axis.text(left + 50 * share, y, text, ha="center", va="center", color="white", fontsize=7.5)
            left += 100 * share
    axis.set_yticks([1, 0], ["documents", "tokens"])
    axis.set_ylim(-0.5, 1.9)
    axis.set_xlim(0, 100)
    axis.set_xlabel("of what at least one keeps, %")
    axis.legend(loc="upper center", ncols=3, fontsize=7.5, columnspacing=1.2, handlelength=1.2)


# --------------------------------------------------------------------------- scores
def score_shifts(diff: Diff, source: tuple[str, ...]) -> Picture | None:
    """Mean normalised score of the selected tokens, from A to B; None if there is none.

    Where one of them selects nothing that has the score, the other's mark stands alone.
    """
    known = [s for s in diff.scores if not (np.isnan(s.mean_a) and np.isnan(s.mean_b))]
    criteria = list(dict.fromkeys(s.criterion for s in known))
    if not criteria:
        return None
    order = [d.domain for d in moved(diff)]
    domains = [d for d in order if any(s.domain == d for s in known)][:SHOWN_DOMAINS]
    y = {d: len(domains) - 1 - i for i, d in enumerate(domains)}

    def panel(axis: Any, shifts: Sequence[ScoreShift], name: str) -> None:
        places = [y[s.domain] for s in shifts]
        ends = np.array([(s.mean_a, s.mean_b) for s in shifts]).reshape(-1, 2)
        axis.hlines(places, ends[:, 0], ends[:, 1], color=GREY, lw=1.4)
        axis.plot(ends[:, 0], places, "o", color=ORANGE, ms=5.5, label="A")
        axis.plot(ends[:, 1], places, "D", color=ACCENT, ms=4.5, label="B")
        axis.set_title(trim(clean(name)))
        axis.set_yticks(list(y.values()), [trim(clean(d), 20) for d in y])
        axis.set_ylim(-0.6, len(domains) - 0.4)
        axis.grid(axis="y", color=LIGHT, lw=0.6)
        axis.locator_params(axis="x", nbins=5)

    def draw(figure: Any) -> None:
        axes = grid(figure, len(criteria), 3)
        for axis, name in zip(axes, criteria, strict=True):
            panel(axis, [s for s in known if s.criterion == name and s.domain in y], name)
        axes[0].legend(loc="best")
        figure.supxlabel("mean normalised score of the selected tokens (smaller = better)", fontsize=8.5)

    words = Words(
        name="diff-scores",
        caption="Mean normalised score of the selected tokens, copies counted, from A (circle) to B "
        "(diamond); to the left is better. A mark alone: the other selects nothing there that has the score.",
        alt=f"{len(criteria)} panels, one per criterion, with a line from A to B for {len(domains)} domains.",
        source=source,
    )
    rows = [(s.domain, s.criterion, s.mean_a, s.mean_b, s.mean_b - s.mean_a) for s in known]
    size = (10.4, 0.6 + -(-len(criteria) // 3) * (0.75 + 0.26 * len(domains)))
    columns = ("domain", "criterion", "mean_a", "mean_b", "shift")
    return picture(words, size, draw, columns=columns, rows=rows)
