"""A proposal by shares in text: which runs were used, how far to trust it, what it gains, what to do next."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quadmix.search.exchange import MixtureTable, ShareWishes
    from quadmix.types import Candidate, Floats, Proposal

SEEDS = 3
_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """A proposal with what it was made from, and the folder it was written to."""

    proposal: "Proposal"
    table: "MixtureTable"
    wishes: "ShareWishes"
    notes: tuple[str, ...]
    folder: Path

    def candidate(self, name: str) -> "Candidate | None":
        """Return a candidate by name, None if there is no such one."""
        return next((c for c in self.proposal.candidates if c.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        from quadmix.codec import to_json

        return {
            "folder": str(self.folder), "notes": list(self.notes), "runs_used": len(self.table),
            "natural": dict(zip(self.table.domains, self.wishes.natural.tolist(), strict=True)),
            "proposal": to_json(self.proposal),
        }  # fmt: skip


def found_lines(found: Found) -> list[str]:
    """Return the summary of a proposal as text."""
    proposal, table = found.proposal, found.table
    lines = [
        f"{len(table)} of {len(table) + len(table.excluded)} runs used ({proposal.trials_used} different "
        f"mixtures), {len(table.domains)} domains, {len(table.metrics)} metrics",
        *excluded_lines(table.excluded),
        "",
        *_quality(proposal),
        "",
        *_gain(found),
        *_learning(proposal),
        "",
        *_share_table(found),
        "",
        *(f"note: {n}" for n in found.notes),
        *(f"warning: {w}" for w in proposal.warnings),
    ]
    rivals = [n for n in ("best-observed", "natural", "current") if found.candidate(n)] or ["natural"]
    return [
        *lines,
        f"Nothing is confirmed yet. Train the proposal, {' and '.join(rivals)} with {SEEDS} seeds each, at "
        "the largest size you can afford, and keep the proposal only if it wins beyond their spread.",
        f"wrote    {found.folder / 'shares.csv'}, {found.folder / 'proposal.json'}",
    ]


def excluded_lines(excluded: dict[str, str]) -> list[str]:
    """Return the runs that are left out, one line per reason, the first ten reasons."""
    by_reason: dict[str, list[str]] = {}
    for run, why in excluded.items():
        by_reason.setdefault(why, []).append(run)
    lines: list[str] = []
    for why, runs in list(by_reason.items())[:_SHOWN]:
        some = ", ".join(runs[:5]) + (", ..." if len(runs) > 5 else "")
        lines.append(f"  left out {some}{f' ({len(runs)} runs)' if len(runs) > 1 else ''}: {why}")
    more = sum(map(len, list(by_reason.values())[_SHOWN:]))
    return lines + ([f"  ... and {more} runs more, each for a reason of its own"] if more else [])


def _quality(proposal: "Proposal") -> list[str]:
    """The surrogate on runs that it had not seen, per target, beside the noise of one run."""
    rows = [r for r in proposal.diagnostics if r.surrogate == proposal.surrogate] or list(
        proposal.diagnostics
    )
    width = max([9, *(len(r.target) for r in rows)])
    head = f"{'out of fold':{width}} {'Spearman':>8} {'95 %':>14} {'R²':>6} {'rmse':>8} {'noise':>8} "
    lines = [head + f"{'spread':>8} {'regret@1':>8} {'regret@5':>8} {'in 90 %':>7}"]
    for r in rows:
        span = "-" if math.isnan(r.spearman_low) else f"{r.spearman_low:.3f}..{r.spearman_high:.3f}"
        lines.append(
            f"{r.target:{width}} {_n(r.spearman, 3):>8} {span:>14} {_n(r.r2, 3):>6} {_n(r.rmse):>8} "
            f"{_n(r.noise_sd):>8} {_n(r.spread_sd):>8} {_n(r.regret_at_1):>8} {_n(r.regret_at_5):>8} "
            f"{'-' if math.isnan(r.interval_coverage) else format(r.interval_coverage, '.0%'):>7}"
        )
    lines.append(f"surrogate {proposal.surrogate}; objective = {_objective(proposal)}")
    if math.isnan(proposal.noise_sd):
        lines.append("noise is not known: no mixture was run more than once")
    return lines


def _objective(proposal: "Proposal") -> str:
    weights = sorted(proposal.objective.weights.items(), key=lambda w: -w[1])
    named = ", ".join(f"{name} {weight:.3f}" for name, weight in weights[:_SHOWN])
    how = "weighted mean" if proposal.objective.how == "mean" else "the target worst off"
    return f"{how}: {named}" + (", ..." if len(weights) > _SHOWN else "")


def _gain(found: Found) -> list[str]:
    """Predicted objective of the candidates, and the gain of the proposal over them (above 0 = better)."""
    proposal = found.proposal
    best = proposal.candidates[0]
    lines = [f"{'predicted objective':29} {'90 % interval':>20} {'gain of proposal':>17} {'90 %':>20}"]
    for c in proposal.candidates:
        name = f"proposal ({c.name})" if c is best else c.name
        row = f"{name:21} {c.predicted:>7.4f} {_span(c.predicted_low, c.predicted_high):>20}"
        if c is not best:
            gain = c.predicted - best.predicted
            half = math.hypot(_half(best), _half(c))  # errors taken as independent
            row += f" {gain:>17.4f} {_span(gain - half, gain + half):>20}"
        lines.append(row)
    lines.append(f"least measured objective of a run: {_n(proposal.best_observed)}")
    if optimism := proposal.optimism:
        lines.append(
            f"optimism: proposals made on half of the runs were promised {optimism.promised:.4f} and judged "
            f"{optimism.judged:.4f} by the other half"
        )
    taken = max(proposal.optimism.optimism, 0.0) if proposal.optimism else 0.0
    gains = [
        f"{c.predicted - best.predicted - taken:+.4f} over {name}"
        for name in ("natural", "best-observed", "current") if (c := found.candidate(name))
    ]  # fmt: skip
    less = " less optimism" if proposal.optimism else ""
    return [*lines, f"expected gain{less}: {', '.join(gains)}"] if gains else lines


def _learning(proposal: "Proposal") -> list[str]:
    if proposal.learning is None:
        return []
    points = ", ".join(f"{p.trials} runs {_n(p.rmse)}" for p in proposal.learning.points)
    forecast = proposal.learning.forecast
    more = (
        f"; forecast for {forecast.trials}: {_n(forecast.rmse)} (R² {_n(forecast.r2, 3)})" if forecast else ""
    )
    return [f"learning curve, rmse of the objective: {points}{more}"]


def _columns(found: Found) -> dict[str, "Floats"]:
    """Return the mixtures that are shown and written, (M,) each: natural, proposal, the other candidates."""
    import numpy as np

    first = found.proposal.candidates[0]
    columns = {"natural": found.wishes.natural}
    for c in found.proposal.candidates:
        name = "proposal" if c is first else c.name.replace("-", "_")
        if name != "natural":
            columns[name] = np.array([c.shares.get(d, 0.0) for d in found.table.domains])
    return columns


def _share_table(found: Found) -> list[str]:
    columns = _columns(found)
    width = max([6, *(len(d) for d in found.table.domains)])
    order = sorted(range(len(found.table.domains)), key=lambda m: -columns["proposal"][m])
    head = f"{'domain':{width}} " + " ".join(f"{name:>13}" for name in columns)
    rows = [
        f"{found.table.domains[m]:{width}} " + " ".join(f"{shares[m]:>13.2%}" for shares in columns.values())
        for m in order
    ]
    return [head, *rows]


def write_shares(found: Found) -> None:
    """Write DIR/shares.csv: domain, natural, proposal, the other candidates."""
    from quadmix.io.csv import write_csv

    columns = _columns(found)
    rows = zip(found.table.domains, *(shares.tolist() for shares in columns.values()), strict=True)
    write_csv(found.folder / "shares.csv", ["domain", *columns], [list(row) for row in rows])


def _half(candidate: "Candidate") -> float:
    return (candidate.predicted_high - candidate.predicted_low) / 2


def _span(low: float, high: float) -> str:
    return "-" if math.isnan(low) or math.isnan(high) else f"{low:.4f}..{high:.4f}"


def _n(value: float, digits: int = 4) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
