"""Figures that tell a robust choice from a lucky one: the best trials side by side, and which domains act
together.

In: the proposal, the trials. Every number is a stored one; the band of the swarm is quantiles of its shares.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quadmix.report.figures import heat
from quadmix.report.origins import PROPOSAL, TRIALS
from quadmix.report.plots import ACCENT, GREY, INK, LIGHT, RED, Picture, Words, picture, trim
from quadmix.report.text import clean, num, percent
from quadmix.types import Candidate, Floats, Interaction, Parity

BEST = 10
SHOWN_DOMAINS = 24
SHOWN_PAIRED = 12


def best_trials(
    parity: Sequence[Parity],
    shares: Mapping[str, Sequence[float]],
    domains: Sequence[str],
    star: Candidate | None,
) -> Picture | None:
    """Parallel coordinates: token shares per domain of the ten trials of least measured objective, of θ* and
    of the swarm.

    parity: of the objective. shares: trial id -> (M,) of those trials whose shares are known.
    """
    used = sorted(
        (p for p in parity if len(shares.get(p.trial_id, ())) == len(domains)), key=lambda p: p.measured
    )
    if len(used) < BEST + 1 or not domains:
        return None
    values: Floats = np.array([shares[p.trial_id] for p in used])
    order = np.argsort(-np.median(values[:BEST], axis=0), kind="stable")[:SHOWN_DOMAINS]
    low, high = np.quantile(values, (0.05, 0.95), axis=0)
    own = None if star is None or not star.shares else [star.shares.get(d, 0.0) for d in domains]
    x = np.arange(len(order))

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        axis.fill_between(x, 100 * low[order], 100 * high[order], fc=LIGHT, ec=GREY, lw=0.8,
                          label=f"middle 90 % of {len(used)} trials")  # fmt: skip
        for place in range(BEST):
            axis.plot(x, 100 * values[place, order], "-", color=ACCENT, lw=0.9, alpha=0.75,
                      label=f"the {BEST} trials of least measured loss" if not place else None)  # fmt: skip
        axis.plot(x, 100 * values[0, order], "--", color=INK, lw=1.5, label="the best of them")
        if own is not None:
            axis.plot(x, 100 * np.array(own)[order], "o-", color=RED, lw=1.5, ms=3.5, label="θ*")
        axis.set_xticks(x, [trim(clean(domains[i]), 16) for i in order], rotation=35, ha="right")
        axis.set_ylabel("share of tokens, %")
        axis.set_ylim(0)
        axis.grid(axis="x", color=LIGHT, lw=0.6)
        axis.set_axisbelow(True)
        figure.legend(loc="outside right upper", fontsize=8)

    first = int(order[0])
    words = Words(
        name="best-trials",
        caption=f"What the {BEST} best trials have in common: their shares of the tokens per domain (one "
        "line a trial). Where the lines run together within a wide band, the share matters and θ* should "
        "agree with them; where they fan out, it is free or the trials were lucky.",
        alt=f"Shares of {len(order)} domains in {BEST} trials; {clean(domains[first])}: "
        f"{percent(values[:BEST, first].min())} to {percent(values[:BEST, first].max())}, "
        f"middle 90 % of all trials {percent(low[first])} to {percent(high[first])}.",
        source=(*PROPOSAL, *TRIALS),
    )  # fmt: skip
    rows = [
        (p.trial_id, p.measured, p.predicted, *v.tolist()) for p, v in zip(used[:BEST], values, strict=False)
    ]
    if own is not None and star is not None:
        rows.append((star.name, float("nan"), star.predicted, *own))
    columns = ("trial_id", "measured", "predicted_out_of_fold", *(f"share_{d}" for d in domains))
    return picture(words, (10.4, 3.7), draw, columns=columns, rows=rows)


def interaction_heat(interactions: Sequence[Interaction]) -> Picture | None:
    """Heat map of the strongest interactions between domains, 1/1000 bits per byte; a dot is beyond its
    interval."""
    if not interactions:
        return None
    weight: dict[str, float] = {}
    for i in interactions:
        for name in (i.domain, i.other):
            weight[name] = weight.get(name, 0.0) + abs(i.difference)
    names = sorted(weight, key=lambda n: -weight[n])[:SHOWN_PAIRED]
    place = {name: i for i, name in enumerate(names)}
    matrix = np.full((len(names), len(names)), np.nan)
    clear: list[tuple[int, int]] = []
    for i in interactions:
        if i.domain in place and i.other in place:
            a, b = sorted((place[i.domain], place[i.other]))
            matrix[b, a] = 1000 * i.difference
            if i.low > 0 or i.high < 0:
                clear.append((a, b))
    limit = float(np.nanmax(np.abs(matrix))) or 1.0

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        heat(axis, matrix[1:, :-1], names=(names[1:], names[:-1]), limits=(-limit, limit))
        for a, b in clear:
            axis.plot([a + 0.38], [b - 1 - 0.3], "o", color=INK, ms=3)

    most = interactions[0]
    words = Words(
        name="interactions",
        caption="What the proposal's values of two domains do together beyond the sum of what each does "
        "alone, put into the prior mean: predicted objective, 1/1000 bits per byte (below 0: better "
        "together). A dot: beyond the 90 % interval over refits.",
        alt=f"{len(interactions)} pairs of domains; the strongest, {clean(most.domain)} with "
        f"{clean(most.other)}: {num(1000 * most.difference, 2, sign=True)} in 1/1000 bits per byte.",
        source=PROPOSAL,
    )
    rows = [(i.domain, i.other, i.difference, i.low, i.high) for i in interactions]
    size = (2.4 + 0.66 * len(names), 1.2 + 0.3 * len(names))
    return picture(words, size, draw, columns=("domain", "other", "difference", "low", "high"), rows=rows)
