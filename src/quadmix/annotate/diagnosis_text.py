"""A `Diagnosis` as lines for people. In: the diagnosis. Out: plain text, 100 characters wide where it can be.

Nothing is computed here; `quadmix.codec.to_json` gives the same numbers to programs.
"""

from collections.abc import Sequence

import numpy as np

from quadmix.annotate.diagnostics import Diagnosis, Group
from quadmix.annotate.drift import CONFIDENCE, Drift
from quadmix.annotate.probes import probe_lines

SHOWN = 10  # domains, and shards per measure
_WIDTH = 18


def diagnosis_lines(d: Diagnosis, *, domains: int = SHOWN) -> list[str]:
    """Return the lines: correlations, length bias and coverage of all and of the largest domains, drift,
    probes where there are any, and the warnings last."""
    groups = d.groups[: 1 + domains]
    lines = [f"{d.groups[0].documents:,} documents, {d.domains} domains, {len(d.drift.shards)} shards"]
    lines += [
        "",
        f"Correlation of criteria (Spearman of goodness, {d.groups[0].sampled:,} documents sampled)",
    ]
    lines += _correlations(groups, d.criteria)
    lines += ["", "Length bias (Spearman of goodness with tokens) and coverage"]
    lines += _per_criterion(groups, d.criteria)
    if len(d.groups) > len(groups) or d.domains > len(d.groups) - 1:
        lines.append(f"  ({d.domains - len(groups) + 1} smaller domains are not shown)")
    lines += ["", "Drift between shards", *_drift(d.drift)]
    if d.probes:
        lines += [
            "",
            "Probe pairs, good text against bad",
            *(f"  {x}" for p in d.probes for x in probe_lines(p)),
        ]
    lines += ["", *_warnings(d.all_warnings)]
    return lines


def _correlations(groups: Sequence[Group], criteria: Sequence[str]) -> list[str]:
    pairs = [(i, j) for i in range(len(criteria)) for j in range(i + 1, len(criteria))]
    if not pairs:
        return ["  one criterion: nothing to compare"]
    lines: list[str] = []
    for i, j in pairs:
        lines.append(f"  {criteria[i]} with {criteria[j]}")
        lines += [f"    {_cut(g.name)} {_number(g.correlation[i, j])}  n = {g.pairs[i, j]:,}" for g in groups]
    return lines


def _per_criterion(groups: Sequence[Group], criteria: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for n, name in enumerate(criteria):
        lines.append(f"  {name}")
        lines += [
            f"    {_cut(g.name)} length {_number(g.length_bias[n])}  coverage {g.coverage[n]:7.2%}  "
            f"{g.documents:,} documents, {g.sampled:,} sampled" + ("  constant" if name in g.constant else "")
            for g in groups
        ]
    return lines


def _drift(drift: Drift) -> list[str]:
    lines = [
        f"  distance 0 to 1 from all documents; flagged above its limit beyond sampling noise "
        f"({CONFIDENCE:.0%} over all shards)"
    ]
    for k, measure in enumerate(drift.measures):
        values = drift.distance[:, k]
        if np.isnan(values).all():
            lines.append(f"  {measure}: no shard has a value")
            continue
        worst = int(np.nanargmax(values))
        lines.append(
            f"  {measure}: median {np.nanmedian(values):.3f}, largest {values[worst]:.3f} in "
            f"{drift.shards[worst]} (n = {drift.documents[worst]:,}), limit {drift.limits[k]:g}, flagged "
            f"{int(drift.flagged[:, k].sum())}"
        )
    return lines


def _warnings(warnings: Sequence[str]) -> list[str]:
    return [f"! {w}" for w in warnings] or ["Nothing to warn of."]


def _cut(name: str) -> str:
    return (name if len(name) <= _WIDTH else name[: _WIDTH - 1] + "…").ljust(_WIDTH)


def _number(value: float) -> str:
    return "    –" if np.isnan(value) else f"{value:+.2f}"
