"""The curve of `quadmix rater compare-heads --curve` as a picture: tail accuracy over training pairs."""

from typing import Any

from quadmix.raters.comparing import HeadCurve
from quadmix.report.plots import ACCENT, GREY, INK, ORANGE, RED, Picture, Words, picture

_COLORS = (INK, ACCENT, ORANGE, RED, GREY)


def curve_picture(curve: HeadCurve) -> Picture:
    """Return the picture: left the accuracies, right the gains over plain with their 95 % intervals.

    Raises MissingExtraError without matplotlib.
    """
    sizes = [p.size for p in curve.points]
    names = [arm.arm for arm in curve.points[0].arms]

    def drawing(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for i, (name, color) in enumerate(zip(names, _COLORS, strict=False)):
            arms = [p.arms[i] for p in curve.points]
            left.plot(sizes, [100 * a.tail for a in arms], "o-", color=color, ms=4, label=name)
            if name == "plain":
                continue
            beside = [size * 1.04 ** (i - 2) for size in sizes]  # intervals of one size stand side by side
            gains = [100 * a.gain.value for a in arms]
            halves = [100 * (a.gain.high - a.gain.low) / 2 for a in arms]
            right.errorbar(beside, gains, halves, fmt="o-", color=color, ms=4, lw=1, capsize=2)
        right.axhline(0.0, color=GREY, lw=1)
        for axes, label in ((left, "tail accuracy, %"), (right, "points gained over plain, 95 %")):
            axes.set_xscale("log")
            axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
            axes.set_xticks([], minor=True)
            axes.set_xlabel("labelled training pairs of each tail language")
            axes.set_ylabel(label)
        left.legend()

    words = Words(
        name="heads_curve",
        caption="Tail accuracy over training pairs per tail language",
        alt="accuracy of each head on the tail's languages, and its gain over plain, by training pairs",
        source=("heads.json",),
    )
    rows = [
        (p.size, a.arm, a.tail, a.gain.value, a.gain.low, a.gain.high) for p in curve.points for a in p.arms
    ]
    columns = ("pairs", "head", "tail", "gain", "low", "high")
    return picture(words, (9.0, 3.2), drawing, columns=columns, rows=rows)
