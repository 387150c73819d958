"""The chosen mixture against every baseline, rung by rung: three states, in words.

In: `Comparison`. Out: sentences. A gain is control minus θ* in bits per byte. "Beaten" means that the whole
interval of the paired difference is on θ*'s side, "worse" that it is on the control's; anything else, an
unknown interval too, is not told apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from quadmix.report.text import interval, label_name, num
from quadmix.types import Comparison, Paired

State = Literal["beaten", "tied", "worse"]
Outcome = Literal["better", "mixed", "not better", "unknown"]
SIGN = (
    "A gain is the baseline's loss minus that of θ*, in bits per byte: above 0, θ* is better. The tables and "
    "figures below show θ* minus the baseline: below 0, θ* is better."
)


def gain_words(pair: Paired) -> str:
    """Return `+0.0123 bits per byte, interval +0.01 to +0.02`."""
    low_high = interval(-pair.high, -pair.low, sign=True)
    return f"{num(-pair.difference, sign=True)} bits per byte, interval {low_high}"


def state_of(pair: Paired) -> State:
    """Return whether the control is beaten, not told apart, or better: "worse" is said of the label.

    An interval that is not known tells nothing apart.
    """
    if not (math.isfinite(pair.low) and math.isfinite(pair.high)):
        return "tied"
    return "beaten" if pair.high < 0 else "worse" if pair.low > 0 else "tied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """The chosen one against every baseline in one rung ("" in files without), its largest loss first."""

    rung: str
    pairs: tuple[Paired, ...]

    def of(self, state: State) -> list[Paired]:
        return [p for p in self.pairs if state_of(p) == state]

    @property
    def tone(self) -> Literal["good", "warn", "bad"]:
        if not self.pairs:
            return "warn"
        if self.of("worse") or not self.of("beaten"):
            return "bad"
        return "warn" if self.of("tied") else "good"


def against(comparison: Comparison | None) -> list[Against]:
    """Return the rungs that compare the chosen one; [] if nothing was compared in any."""
    if comparison is None:
        return []
    every = [("", comparison.against)]
    if comparison.rungs:
        base, *others = comparison.rungs
        every = [(base.name, base.against or comparison.against), *((r.name, r.against) for r in others)]
    found = [
        Against(
            rung=name,
            pairs=tuple(
                sorted((p for p in pairs if p.label == comparison.chosen), key=lambda p: -p.difference)
            ),
        )
        for name, pairs in every
    ]
    return found if any(rung.pairs for rung in found) else []


def other_rung(rung: Against) -> str:
    """Say what a rung after the first showed."""
    if not rung.pairs:
        return f" At {rung.rung} nothing was compared."
    worse, tied = (", ".join(label_name(p.control) for p in rung.of(s)) for s in ("worse", "tied"))
    if not worse and not tied:
        return f" At {rung.rung} it beat all {len(rung.pairs)}."
    said = f"is worse than {worse}" if worse else ""
    said += " and " if worse and tied else ""
    return f" At {rung.rung} it {said}{f'did NOT beat {tied} (not told apart)' if tied else ''}."


def compared(name: str, rung: Against, where: str) -> tuple[Outcome, str]:
    """Return the outcome of a rung that compared something, and its sentence: who won and who was not told
    apart by name, the beaten as a number. where: `on this corpus`."""
    pairs, won, tied, worse = rung.pairs, rung.of("beaten"), rung.of("tied"), rung.of("worse")
    if len(won) == len(pairs):
        closest = won[0]
        control = label_name(closest.control)
        near = control if len(pairs) == 1 else f"the closest, {control}"
        every = "the only baseline" if len(pairs) == 1 else f"all {len(pairs)} baselines"
        return "better", f"{name} beat {every} {where}: {near}, by {gain_words(closest)}."
    said = f"{name} {_of(worse, pairs, 'is worse than')} {where}: {_listed(worse)}." if worse else ""
    if tied and worse:
        said += f" It did NOT beat {len(tied)} more, not told apart from it: {_listed(tied)}."
    elif tied:
        said = f"{name} {_of(tied, pairs, 'did NOT beat')} {where}, not told apart: {_listed(tied)}."
    if won:
        said += f" It beat the other {len(won) if len(won) > 1 else 'one'}."
    return ("mixed" if won else "not better"), said


def _of(some: Sequence[Paired], pairs: Sequence[Paired], verb: str) -> str:
    if len(pairs) == 1:
        return f"{verb} the only baseline"
    if len(some) < len(pairs):
        return f"{verb} {len(some)} of {len(pairs)} baselines"
    return f"{verb} {'any' if 'NOT' in verb else 'all'} of the {len(pairs)} baselines"


def _listed(pairs: Sequence[Paired]) -> str:
    return "; ".join(f"{label_name(p.control)} (gain {gain_words(p)})" for p in pairs)


def beaten_words(comparison: Comparison | None) -> str:
    """Say by how much each baseline was beaten, rung by rung, and what the sign means."""
    rungs, said = against(comparison), ""
    for rung in rungs:
        won = ", ".join(f"{label_name(p.control)} by {num(-p.difference)}" for p in rung.of("beaten"))
        said += f"Beaten{f' at {rung.rung}' if len(rungs) > 1 else ''}: {won or 'none'}. "
    return said + SIGN if rungs else ""


def tally(rung: Against) -> str:
    """Count the states of a rung."""
    if not rung.pairs:
        return "nothing was compared"
    said = f"beats {len(rung.of('beaten'))} of {len(rung.pairs)}"
    said += f", not told apart from {len(rung.of('tied'))}" if rung.of("tied") else ""
    return said + (f", worse than {len(rung.of('worse'))}" if rung.of("worse") else "")
