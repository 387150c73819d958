"""matplotlib figure -> deterministic SVG and PNG with its data beside it; one quiet style for all.

Text of users never reaches the math parser, and marks that XML forbids were made visible by `clean`.
"""

import io
import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import MissingExtraError
from quadmix.types import Floats

ACCENT, GREY, LIGHT, RED, INK, ORANGE = "#2456a6", "#8a94a0", "#d5dae0", "#b3362b", "#1d2733", "#cf7a17"
BAR = GREY  # bars that carry data: 3.1:1 on white (WCAG 1.4.11); LIGHT is for grid lines and bands
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "quadmix",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.formatter.use_mathtext": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A rendered figure: file name stem, caption, text alternative, bytes, the data behind it and the files
    of the run folder that the data comes from."""

    name: str
    caption: str
    alt: str
    svg: bytes
    png: bytes
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    source: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a figure is called, says to someone who does not see it, and the files its data comes from."""

    name: str
    caption: str
    alt: str
    source: tuple[str, ...]


def picture(
    words: Words,
    size: tuple[float, float],
    draw: Callable[[Any], None],
    *,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
) -> Picture:
    """Draw on a fresh figure of `size` inches and return it with its data.

    draw: called with a matplotlib Figure (constrained layout).
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "the report's figures") from error
    svg, png = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():  # pyright: ignore[reportArgumentType]
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # names in any script
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "quadmix"})
        figure.savefig(png, format="png", dpi=144, metadata={"Software": None})
    text = svg.getvalue().replace(b"'DejaVu Sans'", b"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif")
    return Picture(
        name=words.name,
        caption=words.caption,
        alt=words.alt,
        svg=text,
        png=png.getvalue(),
        columns=tuple(columns),
        rows=tuple(tuple(map(_plain, r)) for r in rows),
        source=words.source,
    )


def _plain(cell: object) -> object:
    """Return a number of numpy as one of Python."""
    return cell.item() if isinstance(cell, np.generic) else cell


def grid(figure: Any, n: int, columns: int) -> list[Any]:
    """Return n axes on a grid with that many columns; the cells left over stay empty."""
    columns = min(columns, n)
    rows = -(-n // columns)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[n:]:
        spare.set_axis_off()
    return list(axes[:n])


def grid_size(n: int, columns: int, height: float) -> tuple[float, float]:
    """Return the inches of such a grid."""
    return 10.4, 0.35 + height * -(-n // min(columns, n))


def trim(text: str, limit: int = 26) -> str:
    """Shorten a name for an axis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def trim_middle(names: Sequence[str], limit: int = 26) -> list[str]:
    """Shorten long names in the middle, where addresses and paths differ least; different ones stay so."""
    head = (limit - 1) // 2
    short = [n if len(n) <= limit else f"{n[:head]}…{n[head + 1 - limit :]}" for n in names]
    same = Counter(short)
    return [f"{s} ({place})" if same[s] > 1 else s for place, s in enumerate(short, 1)]


# --------------------------------------------------------------------------- ratios of shares
_WIDE = 20.0
_MOST_DECADES = 5


def ratio_ticks(reach: float) -> list[float]:
    """Return the ticks of a log axis from 1/reach to reach; over a wide range decades only, at most five."""
    if reach <= _WIDE:
        return [t for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if 1 / reach <= t <= reach]
    last = math.floor(math.log10(reach))
    step = math.ceil(last / (_MOST_DECADES // 2))
    return [10.0**k for k in range(-(last // step) * step, last + 1, step)]


def ratio_axis(axis: Any, y: NDArray[Any], ratio: Floats) -> None:
    """Draw ratios of shares (K,) as dots on a log axis around 1, at the heights y.

    A ratio of 0 is no point of the axis: "0" stands at its left end. NaN (nothing before) has no mark.
    """
    seen = (ratio > 0) & np.isfinite(ratio)
    axis.axvline(1, color=GREY, lw=1)
    axis.hlines(y[seen], 1, ratio[seen], color=GREY, lw=2)
    axis.plot(ratio[seen], y[seen], "o", color=ACCENT, ms=5)
    axis.set_xscale("log")
    reach = max(2.0, *(np.maximum(ratio[seen], 1 / ratio[seen]) * 1.4)) if seen.any() else 2.0
    axis.set_xlim(1 / reach, reach)
    for height in y[ratio == 0]:
        axis.text(0.015, height, "0", color=RED, weight="bold", va="center",
                  transform=axis.get_yaxis_transform())  # fmt: skip
    ticks = ratio_ticks(reach)
    axis.set_xticks(ticks, [f"{t:g}×" for t in ticks])
    axis.minorticks_off()
    axis.set_xlabel("share after ÷ share before (log)")


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten in a positive range; over 1000 times the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 1000 else (1,)
    return [m * 10.0**k for k in powers for m in factors if low <= m * 10.0**k <= high]
