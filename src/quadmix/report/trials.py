"""The figures about models: comparison with baselines, surrogate parity, the swarm and its curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from quadmix.report.origins import PROPOSAL, TRIALS
from quadmix.report.plots import (
    ACCENT,
    BAR,
    GREY,
    INK,
    LIGHT,
    RED,
    Picture,
    Words,
    grid,
    grid_size,
    log_ticks,
    picture,
    trim,
)
from quadmix.report.text import clean, label_name, num
from quadmix.types import Measured, SurrogateReport, Trial

SHOWN_TARGETS = 9
SHOWN_CURVES = 200
SHOWN_POINTS = 500  # more would only make the page heavy; the CSV has them all


def dots(
    measured: Sequence[Measured],
    chosen: str,
    name: str,
    *,
    source: tuple[str, ...],
    bars: str = "95 % interval over seeds",
) -> Picture:
    """Objective of every selector: mean with interval (`bars` says which), each seed as a small dot.

    source: the file that `measured` comes from.
    """
    ordered = sorted(measured, key=lambda m: m.mean)
    y = np.arange(len(ordered))[::-1]

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        own = next((m for m in ordered if m.label == chosen), None)
        if own:
            axis.axvspan(own.low, own.high, color=ACCENT, alpha=0.09, lw=0)
        for place, m in zip(y, ordered, strict=True):
            colour = ACCENT if m.label == chosen else GREY
            axis.hlines(place, m.low, m.high, color=colour, lw=2.4)
            axis.plot(m.values, [place + 0.22] * len(m.values), "o", color=colour, ms=2.5, mew=0, alpha=0.7)
            axis.plot([m.mean], [place], "o", color=colour, ms=7)
        axis.set_yticks(y, [trim(clean(label_name(m.label)), 32) for m in ordered])
        axis.set_ylim(-0.6, len(ordered) - 0.4)
        axis.grid(axis="x", color=LIGHT, lw=0.6)
        axis.set_axisbelow(True)
        axis.ticklabel_format(axis="x", useOffset=False)
        axis.set_xlabel("measured loss, bits per byte, weighted over the targets (lower is better)")

    best = clean(label_name(ordered[0].label))
    words = Words(
        name=name,
        caption=f"Large dot: mean; bar: {bars}; small dots: single seeds. "
        "Compare pairs by the table: paired differences are sharper than these bars.",
        alt=f"{len(ordered)} selectors ordered by loss; lowest is {best} at {num(ordered[0].mean)}.",
        source=source,
    )
    rows = [(m.label, m.mean, m.low, m.high, " ".join(map(repr, m.values))) for m in ordered]
    columns = ("label", "mean", "low", "high", "values")
    return picture(words, (10.4, 0.9 + 0.36 * len(ordered)), draw, columns=columns, rows=rows)


def parity(reports: Sequence[SurrogateReport]) -> Picture:
    """Out-of-fold prediction against measurement, one panel per target, with the noise floor as a band."""
    shown = reports[:SHOWN_TARGETS]

    def panel(axis: Any, report: SurrogateReport) -> None:
        points = report.parity[:: 1 + len(report.parity) // SHOWN_POINTS]
        measured = np.array([p.measured for p in points])
        predicted = np.array([p.predicted for p in points])
        error = np.nan_to_num(np.array([p.stderr for p in points]))
        both = np.concatenate([measured, predicted])
        pad = 0.06 * (float(np.ptp(both)) or 1.0)
        ends = np.array([both.min() - pad, both.max() + pad])
        noise = 1.96 * report.noise_sd if np.isfinite(report.noise_sd) else 0.0
        axis.fill_between(ends, ends - noise, ends + noise, color=LIGHT, alpha=0.7, lw=0)
        axis.plot(ends, ends, color=GREY, lw=0.9)
        axis.errorbar(measured, predicted, yerr=1.96 * error, fmt="none", ecolor=ACCENT, alpha=0.25, lw=0.8)
        axis.plot(measured, predicted, "o", color=ACCENT, ms=3.2, mew=0, alpha=0.85)
        axis.set_xlim(*ends)
        axis.set_ylim(*ends)
        axis.locator_params(nbins=4)
        axis.set_title(trim(clean(report.target)))
        label = f"Spearman {num(report.spearman, 2)}"
        axis.text(0.03, 0.97, label, transform=axis.transAxes, va="top", fontsize=8)

    def draw(figure: Any) -> None:
        axes = grid(figure, len(shown), 3)
        for axis, report in zip(axes, shown, strict=True):
            panel(axis, report)
        figure.supxlabel("measured, bits per byte", fontsize=8.5)
        figure.supylabel("predicted out of fold", fontsize=8.5)

    words = Words(
        name="surrogate-parity",
        caption="Every dot is a trial the surrogate had not seen (bars: its 95 % interval). Grey band: the "
        "noise floor, ±1.96 standard deviations between repeats of one θ.",
        alt="; ".join(f"{clean(r.target)}: Spearman {num(r.spearman, 2)}" for r in shown) + ".",
        source=PROPOSAL,
    )
    columns = ("target", "surrogate", "trial_id", "measured", "predicted", "stderr")
    rows = [
        (r.target, r.surrogate, p.trial_id, p.measured, p.predicted, p.stderr)
        for r in reports for p in r.parity
    ]  # fmt: skip
    return picture(words, grid_size(len(shown), 3, 2.7), draw, columns=columns, rows=rows)


def swarm_losses(trials: Sequence[Trial], winner: dict[str, float]) -> Picture | None:
    """Histogram of the swarm's losses per target, repeats as ticks, the confirmation's winner as a line."""
    done = [t for t in trials if t.status == "done" and t.kind in ("prior", "repeat")]
    targets = sorted({name for t in done for name in t.losses})
    if not targets:
        return None
    shown = targets[:SHOWN_TARGETS]
    losses = {
        (kind, target): [
            t.losses[target].bits_per_byte for t in done if t.kind == kind and target in t.losses
        ]
        for kind in ("prior", "repeat")
        for target in targets
    }

    def draw(figure: Any) -> None:
        for axis, target in zip(grid(figure, len(shown), 3), shown, strict=True):
            axis.hist(losses["prior", target], bins=24, color=BAR)
            repeats = losses["repeat", target]
            axis.plot(repeats, [0.04] * len(repeats), "|", color=INK, ms=11, mew=1.4,
                      transform=axis.get_xaxis_transform())  # fmt: skip
            if target in winner:
                axis.axvline(winner[target], color=ACCENT, lw=1.8)
            axis.set_title(trim(clean(target)))
            axis.locator_params(nbins=5)
        figure.supxlabel("bits per byte (lower is better)", fontsize=8.5)
        figure.supylabel("trials", fontsize=8.5)

    words = Words(
        name="swarm-losses",
        caption="Losses of the swarm's θ (bars), repeats of the prior mean (ticks: the noise) and, where "
        "measured, the winner of the confirmation (line).",
        alt=f"Histograms of {len(done)} trials on {len(shown)} targets.",
        source=TRIALS,
    )
    rows = [
        (t.trial_id, t.kind, target, t.losses[target].bits_per_byte, t.losses[target].stderr)
        for t in done for target in targets if target in t.losses
    ]  # fmt: skip
    columns = ("trial_id", "kind", "target", "bits_per_byte", "stderr")
    return picture(words, grid_size(len(shown), 3, 1.9), draw, columns=columns, rows=rows)


def loss_curves(trials: Sequence[Trial]) -> Picture | None:
    """Training loss of the proxies against the step; a diverging one stands out."""
    curves = [t for t in trials if len(t.curve) > 1]
    if not curves:
        return None
    every = max(1, len(curves) // SHOWN_CURVES)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for trial in curves[::every]:
            steps, loss = zip(*trial.curve, strict=True)
            failed = trial.status == "failed"
            axis.plot(
                np.maximum(steps, 1),
                loss,
                color=RED if failed else ACCENT,
                lw=0.7,
                alpha=0.9 if failed else 0.25,
            )
        axis.set_xscale("log")
        ticks = log_ticks(*axis.get_xlim())
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])  # the default writes mathtext, which is off here
        axis.minorticks_off()
        axis.set_xlabel("step (log)")
        axis.set_ylabel("training loss, bits per token")

    words = Words(
        name="proxy-curves",
        caption="Training loss of the proxies (red: failed).",
        alt=f"{len(curves)} training curves.",
        source=TRIALS,
    )
    rows = [(t.trial_id, t.status, step, loss) for t in curves for step, loss in t.curve]
    columns = ("trial_id", "status", "step", "bits_per_token")
    return picture(words, (10.4, 2.9), draw, columns=columns, rows=rows)
