"""Are a head's probabilities those of the votes? Expected against observed votes, by group of languages.

In: scores' differences and labels of held pairs. Out: `Calibration`. A pair has no order of its own, so it is
turned so that the head prefers its first side: with d = |s(a) - s(b)| and the vote v of that side,

    gap  = mean(sigmoid(d) - v)                                above 0: surer than the votes, below: less sure
    ECE  = sum_b n_b / n |mean over bin b of (sigmoid(d) - v)|         10 bins of d with as many pairs each

Pairs that the voters are split on (v = 0.5) count: without them no head could be too sure. ECE is never
negative, so a calibrated head of few pairs has one, too: `noise` is its mean, sum_b n_b / n sqrt(2 / pi) sd_b
/ sqrt(n_b), with sd_b the standard deviation in the bin, pairs taken as independent. An ECE near it says
nothing against a head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from quadmix.types import Floats

BINS = 10
_NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """gap, error (ECE), noise: as above; of several seeds the means. NaN: gap without a pair, the others with
    fewer than 2 pairs per bin."""

    pairs: int
    gap: float
    error: float
    noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Of one arm: over all pairs of the tail's languages, of the others, of all; and by language."""

    arm: str
    tail: Reliability
    head: Reliability
    every: Reliability
    languages: dict[str, Reliability]


def reliability(difference: Floats, p: Floats) -> Reliability:
    """Return the reliability of one head. difference: (P,) s(a) - s(b). p: (P,) share of votes for a."""
    sure = expit(np.abs(difference.astype(np.float64)))
    vote = np.where(difference > 0, p, np.where(difference < 0, 1.0 - p, 0.5))
    excess = (sure - vote)[np.argsort(sure, kind="stable")]
    if len(p) < 2 * BINS:
        gap = float(excess.mean()) if len(p) else _NAN
        return Reliability(pairs=len(p), gap=gap, error=_NAN, noise=_NAN)
    bins = np.array_split(excess, BINS)
    error = sum(abs(float(own.sum())) for own in bins) / len(p)
    spread = sum(len(own) ** 0.5 * float(own.std(ddof=1)) for own in bins)
    noise = (2 / np.pi) ** 0.5 * spread / len(p)
    return Reliability(pairs=len(p), gap=float(excess.mean()), error=error, noise=noise)


def calibrate(
    arm: str, differences: Floats, p: Floats, language: NDArray[np.str_], tail: Sequence[str]
) -> Calibration:
    """Return the calibration of an arm, the mean over its seeds. differences: (S, P). p, language: (P,)."""

    def of(mask: NDArray[np.bool_]) -> Reliability:
        found = [reliability(row[mask], p[mask]) for row in differences]
        means = {
            name: float(np.mean([getattr(f, name) for f in found])) for name in ("gap", "error", "noise")
        }
        return Reliability(pairs=int(mask.sum()), **means)

    inside = np.isin(language, list(tail))
    return Calibration(
        arm=arm, tail=of(inside), head=of(~inside), every=of(np.ones(len(p), np.bool_)),
        languages={code: of(language == code) for code in sorted(set(language.tolist()))},
    )  # fmt: skip


def calibration_lines(found: Sequence[Calibration]) -> list[str]:
    """Return a table: groups and languages in rows, arms in columns, each cell gap / ECE."""
    if not found:
        return []
    groups: list[Mapping[str, Reliability]] = [
        {"tail": c.tail, "others": c.head, "all": c.every} | c.languages for c in found
    ]
    lines = [
        "calibration: how much surer than the votes (predicted - observed vote of the preferred side) / ECE; "
        "chance: mean ECE of a calibrated head on as many pairs",
        f"{'':<10}{'pairs':>8}{'chance':>8}  " + "".join(f"{c.arm:<14}" for c in found).rstrip(),
    ]
    for name, first in groups[0].items():
        cells = "".join(f"{_signed(g[name].gap)} /{_plain(g[name].error):<6} " for g in groups)
        lines.append(f"{name:<10}{first.pairs:>8,}{_plain(first.noise):>8}  {cells}".rstrip())
    return lines


def _signed(value: float) -> str:
    return f"{value:+.3f}" if value == value else "   –  "


def _plain(value: float) -> str:
    return f"{value:.3f}" if value == value else "–"
