"""matplotlib figure -> deterministic SVG and PNG with its data beside it; one quiet style for all.

Text of users never reaches the math parser, and marks that XML forbids were made visible by `clean`.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quadmix.errors import MissingExtraError

ACCENT, GREY, LIGHT, RED, INK, ORANGE = "#2456a6", "#8a94a0", "#d5dae0", "#b3362b", "#1d2733", "#cf7a17"
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
        rows=tuple(tuple(r) for r in rows),
        source=words.source,
    )


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
