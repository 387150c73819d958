"""What a selection must respect besides its budget: domain multipliers, share bounds, a repetition cap.

In: the recipe's `mixing` section, the domain names, the planned epochs. Out: checked `Limits`.
The paper has none of these: its domain shares are a by-product of ω, λ and η.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quadmix.errors import RecipeError
from quadmix.recipe import MixingSection
from quadmix.types import Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Limits:
    """multipliers: (M,) factor on a domain's tokens relative to what the common k gives.
    min_share, max_share: (M,) bounds on a domain's share of the selected tokens, in [0, 1].
    max_copies: most expected copies of any document, or None. domains: names for error texts.
    """

    multipliers: Floats
    min_share: Floats
    max_share: Floats
    max_copies: float | None = None
    domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_values(self)
        crossed = np.flatnonzero(self.min_share > self.max_share)
        if len(crossed):
            m = int(crossed[0])
            raise RecipeError(
                f"min_share of domain {self.name(m)} is {self.min_share[m]:g}, above its max_share "
                f"{self.max_share[m]:g}; expected min_share <= max_share"
            )
        if self.min_share.sum() > 1 + 1e-9:
            raise RecipeError(
                f"min_share adds up to {self.min_share.sum():g} ({self._list(self.min_share, 0.0)}), "
                "expected at most 1; lower some"
            )
        if self.max_share.sum() < 1 - 1e-9:
            raise RecipeError(
                f"max_share adds up to {self.max_share.sum():g} ({self._list(self.max_share, 1.0)}), "
                "expected at least 1; raise some or leave a domain without a bound"
            )

    def name(self, m: int) -> str:
        return repr(self.domains[m]) if self.domains else str(m)

    def _list(self, shares: Floats, neutral: float) -> str:
        return ", ".join(f"{self.name(int(m))} {shares[m]:g}" for m in np.flatnonzero(shares != neutral))


def _check_values(limits: Limits) -> None:
    size = len(limits.multipliers)
    for field in ("multipliers", "min_share", "max_share"):
        array = getattr(limits, field)
        if array.shape != (size,) or not np.isfinite(array).all():
            raise RecipeError(f"limits.{field} has shape {array.shape}, expected ({size},) finite numbers")
    if (limits.multipliers <= 0).any():
        m = int(np.argmin(limits.multipliers))
        raise RecipeError(f"multiplier of domain {limits.name(m)} is {limits.multipliers[m]:g}, expected > 0")
    if min(limits.min_share.min(), limits.max_share.min()) < 0 or limits.max_share.max() > 1:
        raise RecipeError("limits.min_share and limits.max_share must lie in [0, 1]")
    if limits.max_copies is not None and not limits.max_copies > 0:
        raise RecipeError(f"limits.max_copies is {limits.max_copies}, expected > 0 or None")


def limits_from(section: MixingSection, domains: tuple[str, ...], epochs: float) -> Limits | None:
    """Return the limits of the recipe's `mixing` section, or None where it sets none.

    epochs: how often the final training passes over the dataset; the repetition cap counts
    copies x epochs, so expected copies are capped at repetition_cap / epochs.
    """
    if not epochs > 0:
        raise RecipeError(f"epochs is {epochs}, expected > 0")
    given = (section.multipliers, section.min_share, section.max_share)
    if not any(given) and section.repetition_cap is None:
        return None
    return Limits(
        multipliers=_per_domain("multipliers", section.multipliers, domains, 1.0),
        min_share=_per_domain("min_share", section.min_share, domains, 0.0),
        max_share=_per_domain("max_share", section.max_share, domains, 1.0),
        max_copies=None if section.repetition_cap is None else section.repetition_cap / epochs,
        domains=domains,
    )


def _per_domain(key: str, values: Mapping[str, float], domains: tuple[str, ...], default: float) -> Floats:
    for name in values:
        if name not in domains:
            near = difflib.get_close_matches(name, domains, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(domains[:20])}"
            raise RecipeError(
                f"mixing.{key} names the domain {name!r}, which the corpus does not have; {hint}"
            )
    return np.array([values.get(name, default) for name in domains], dtype=np.float64)
