"""The figures about the search: its progress, the learning curve, effects, shares of the candidates.

Every number is a field of the proposal or a measured loss; the running best is the least so far.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from quadmix.report.origins import PROPOSAL
from quadmix.report.plots import ACCENT, BAR, GREY, INK, LIGHT, ORANGE, RED, Picture, Words, picture, trim
from quadmix.report.search_facts import Shot, group_name, known
from quadmix.report.text import clean, label_name, num, percent
from quadmix.types import Candidate, Effect, Floats, LearningCurve

SHOWN_EFFECTS = 15
SHOWN_DOMAINS = 24
SHOWN_RECIPES = 14
_MARKS = "s^Dv<>pPX*hd8H"
_COLOURS = {"design": GREY, "prior": GREY, "recipe": INK, "batch-2": ORANGE, "batch-3": ACCENT}
_NAMES = {"design": "space-filling design", "prior": "random θ", "reused": "reused from earlier runs"}


def progress(shots: Sequence[Shot], noise_sd: float) -> Picture | None:
    """Measured objective of every trial in order of training, by batch, with the running best."""
    if not shots:
        return None
    best = np.minimum.accumulate([s.measured for s in shots])
    places = [s.place for s in shots]

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        if known(noise_sd):
            band = 1.96 * noise_sd
            axis.fill_between(places, best - band, best + band, step="post", color=LIGHT, alpha=0.8, lw=0,
                              label="running best ± 1.96 noise s.d.")  # fmt: skip
        axis.step(places, best, where="post", color=RED, lw=1.3, label="running best")
        _points(axis, shots)
        axis.set_xlim(0, len(shots) + 1)
        axis.ticklabel_format(axis="y", useOffset=False)
        axis.set_xlabel("trial, in order of training")
        axis.set_ylabel("measured objective, bits per byte")
        axis.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside right upper", fontsize=8)

    least = min(shots, key=lambda s: s.measured)
    noise = f"noise of one trial {num(noise_sd)}" if known(noise_sd) else "noise of one trial unknown"
    words = Words(
        name="search-progress",
        caption="Measured objective of every trial the search used, in order of training (lower is better); "
        f"{noise}. The named recipes are part of the first batch.",
        alt=f"{len(shots)} trials; the least, {num(least.measured)}, is number {least.place}, "
        f"{clean(label_name(least.label.removeprefix('recipe:')))}.",
        source=PROPOSAL,
    )
    columns = ("trial", "trial_id", "batch", "label", "measured", "running_best")
    rows = [
        (s.place, s.trial_id, s.batch, s.label, s.measured, float(b))
        for s, b in zip(shots, best, strict=True)
    ]
    return picture(words, (10.4, 3.7), draw, columns=columns, rows=rows)


def _points(axis: Any, shots: Sequence[Shot]) -> None:
    """Draw the trials: a colour per batch, a mark per named recipe."""
    for batch in dict.fromkeys(s.batch for s in shots if s.batch != "recipe"):
        own = [s for s in shots if s.batch == batch]
        axis.plot(
            [s.place for s in own], [s.measured for s in own], "o", color=_COLOURS.get(batch, INK), ms=4.2,
            mew=0.9 if batch == "reused" else 0, mfc="white" if batch == "reused" else None, alpha=0.9,
            label=trim(clean(_NAMES.get(batch, batch))),
        )  # fmt: skip
    recipes = [s for s in shots if s.batch == "recipe"]
    for i, shot in enumerate(recipes):
        label = trim(clean(label_name(shot.label.removeprefix("recipe:")))) if i < SHOWN_RECIPES else None
        label = f"{len(recipes) - i} more recipes" if i == SHOWN_RECIPES else label
        mark = _MARKS[i] if i < SHOWN_RECIPES else "."
        axis.plot([shot.place], [shot.measured], mark, color=INK, ms=5, mew=0, label=label)


def learning(curve: LearningCurve, noise_sd: float) -> Picture | None:
    """Out-of-fold error of the objective against the number of trials, with the forecast and the noise."""
    points = [p for p in curve.points if known(p.rmse)]
    if not points:
        return None

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        axis.plot([p.trials for p in points], [p.rmse for p in points], "o-", color=ACCENT, lw=1.6, ms=5,
                  label="out of fold")  # fmt: skip
        if curve.forecast:
            ends = (points[-1], curve.forecast)
            axis.plot([p.trials for p in ends], [p.rmse for p in ends], "o--", color=ACCENT, lw=1.3, ms=6,
                      mfc="white", markevery=[1], label="forecast")  # fmt: skip
        if known(noise_sd):
            axis.axhline(noise_sd, color=RED, lw=1, ls=(0, (4, 3)), label="noise of one trial")
        axis.set_ylim(0, 1.15 * max([*(p.rmse for p in points), noise_sd if known(noise_sd) else 0.0]))
        axis.set_xlabel("trials to learn from")
        axis.set_ylabel("RMSE, bits per byte")
        axis.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside right upper", fontsize=8)

    words = Words(
        name="learning-curve",
        caption="Error of the objective on trials that the surrogate had not seen, learnt from fewer and "
        "fewer trials (the member with the most weight). The noise of one trial is the floor of this error.",
        alt="; ".join(f"{p.trials} trials: {num(p.rmse)}" for p in points) + ".",
        source=PROPOSAL,
    )
    rows = [("measured", p.trials, p.rmse, p.r2) for p in points]
    if curve.forecast:
        rows.append(("forecast", curve.forecast.trials, curve.forecast.rmse, curve.forecast.r2))
    return picture(words, (7.6, 2.8), draw, columns=("what", "trials", "rmse", "r2"), rows=rows)


def effect_bars(effects: Sequence[Effect], noise_sd: float) -> Picture | None:
    """The largest effects: how far the objective moves over a group's box, and what the proposal's own values
    do in the prior mean."""
    shown = [e for e in effects if e.range > 0][:SHOWN_EFFECTS]
    if not shown:
        return None
    y = np.arange(len(shown))[::-1]
    middle = np.array([e.difference for e in shown])
    ends = np.array([[e.low, e.high] for e in shown])

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        left.barh(y, [e.range for e in shown], 0.6, color=[BAR if e.flat else ACCENT for e in shown])
        if known(noise_sd):
            left.axvline(noise_sd, color=RED, lw=1, ls=(0, (4, 3)), label="noise of one trial")
            left.legend(loc="lower right")
        left.set_yticks(y, [trim(clean(group_name(e.group, e.domain)), 34) for e in shown])
        left.set_xlabel("range over its box, bits per byte")
        right.axvline(0, color=GREY, lw=1)
        right.hlines(y, ends[:, 0], ends[:, 1], color=INK, lw=1.6)
        right.plot(middle, y, "o", color=INK, ms=4.5)
        right.set_xlabel("θ* − prior mean in this group alone, bits per byte")
        for axis in (left, right):
            axis.locator_params(axis="x", nbins=5)
            axis.grid(axis="x", color=LIGHT, lw=0.6)
            axis.set_axisbelow(True)

    words = Words(
        name="effects",
        caption="Left: predicted objective when the group alone moves through its box around θ*, largest "
        "minus smallest (grey: flat). Right: θ*'s values of the group put into the prior mean, with the 90 % "
        "interval over refits (left of 0: better). Groups overlap: their effects do not add up.",
        alt="; ".join(
            f"{clean(group_name(e.group, e.domain))}: range {num(e.range)}, difference "
            f"{num(e.difference, sign=True)}" for e in shown[:5]
        ) + ".",
        source=PROPOSAL,
    )  # fmt: skip
    columns = ("group", "domain", "range", "difference", "low", "high", "flat")
    rows = [(e.group, e.domain, e.range, e.difference, e.low, e.high, e.flat) for e in effects]
    return picture(words, (10.4, 0.9 + 0.27 * len(shown)), draw, columns=columns, rows=rows)


def shares(candidates: Sequence[Candidate], named: Sequence[str]) -> Picture | None:
    """Expected token share per domain of the named candidates; the CSV has every candidate."""
    stored = [c for c in candidates if c.shares]
    shown = [c for name in named for c in stored if c.name == name][:4]
    if not shown:
        return None
    domains = sorted(shown[0].shares, key=lambda d: -shown[0].shares[d])
    top = domains[:SHOWN_DOMAINS]
    y = np.arange(len(top))[::-1]
    thick = 0.8 / len(shown)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for i, (found, colour) in enumerate(zip(shown, (ACCENT, BAR, ORANGE, INK), strict=False)):
            values: Floats = np.array([100 * found.shares.get(d, 0.0) for d in top])
            place = y + thick * ((len(shown) - 1) / 2 - i)
            axis.barh(place, values, 0.92 * thick, color=colour, label=trim(clean(label_name(found.name))))
        axis.set_yticks(y, [trim(clean(d)) for d in top])
        axis.set_xlabel("expected share of tokens, %")
        axis.grid(axis="x", color=LIGHT, lw=0.6)
        axis.set_axisbelow(True)
        axis.legend(loc="lower right")

    most = top[0]
    words = Words(
        name="candidate-shares",
        caption="Expected share of the tokens per domain under the candidates; the table has all of them.",
        alt="; ".join(
            f"{clean(label_name(c.name))}: {clean(most)} {percent(c.shares.get(most, 0.0))}" for c in shown
        )
        + ".",
        source=PROPOSAL,
    )
    rows = [(d, *(c.shares.get(d, 0.0) for c in stored)) for d in domains]
    size = (10.4, 0.9 + (0.12 + 0.13 * len(shown)) * len(top))
    return picture(words, size, draw, columns=("domain", *(c.name for c in stored)), rows=rows)
