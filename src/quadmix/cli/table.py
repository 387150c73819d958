"""The end of a run in text: the candidates and the winner, where dataset and report lie, the comparison."""

from pathlib import Path

from quadmix.cli.ladder import difference, ladder_lines
from quadmix.io.atomic import read_value
from quadmix.pipeline.run import RunResult
from quadmix.types import Comparison, Confirmation, Measured, Paired, Proposal


def result_lines(result: RunResult) -> list[str]:
    """Return what a run prints on stdout when it ends."""
    lines: list[str] = []
    if result.confirmation:
        proposal = _proposal(result.folder)
        if proposal:
            lines += candidate_table(proposal, result.confirmation)
        lines += _confirmation(result.confirmation)
    if result.comparison:
        lines += ["", *comparison_table(result.comparison, result.confirmation)]
        lines += ladder_lines(result.comparison)
    if result.manifest:
        ledger = result.manifest.ledger
        lines += [
            "",
            f"dataset  {result.folder / 'dataset'}  ({ledger.copies:,} rows from {ledger.selected:,} "
            f"documents, {ledger.tokens_out:,} tokens, budget {result.manifest.token_budget:,})",
            f"digest   {result.manifest.digest}",
        ]
    if result.report:
        lines.append(f"report   {result.report}")
    return lines or [f"done; see {result.folder}"]


def refusal_lines(folder: Path) -> list[str]:
    """Return what was tried before θ* was refused, and where to read more."""
    proposal, file = _proposal(folder), folder / "search" / "confirm.json"
    if proposal is None or not file.exists():
        return []
    return [*candidate_table(proposal, read_value(file, Confirmation)), f"report   {folder / 'report.html'}"]


def candidate_table(proposal: Proposal, confirmation: Confirmation) -> list[str]:
    """Return the candidates that were tried, best measured first: predicted, measured, difference to the
    control (bits per byte, lower is better), and the winner."""
    predicted = {c.name: c for c in proposal.candidates}
    pairs = {p.label: p for p in confirmation.against}
    control = next((p.control for p in confirmation.against), "control")
    width = max([9, *(len(m.label) for m in confirmation.measured)])
    lines = [
        f"{'candidate':{width}} {'predicted':>9} {'90 % interval':>16} {'measured':>8} {'95 % interval':>16} "
        f"{'seeds':>5}  it minus {control} [95 %]"
    ]
    for m in sorted(confirmation.measured, key=lambda m: (-len(m.values), m.mean)):
        c = predicted.get(m.label)
        row = f"{m.label:{width}} {_number(c.predicted if c else None):>9} "
        row += f"{_span(c.predicted_low, c.predicted_high) if c else '-':>16} {m.mean:>8.4f} "
        row += f"{_span(m.low, m.high):>16} {len(m.values):>5}  {difference(pairs.get(m.label))}"
        lines.append(row + ("  <- winner" if m.label == confirmation.winner else ""))
    if proposal.optimism and proposal.optimism.optimism > 0:
        gap = proposal.optimism.optimism
        lines.append(
            f"predictions of proposals are too good by about {gap:.4f} (half of the trials, each way)"
        )
    return lines


def comparison_table(comparison: Comparison, confirmation: Confirmation | None) -> list[str]:
    """Return the table of measured losses (bits per byte, lower is better) at equal training tokens."""
    head = f"{'selection':16} {'selected':>11} {'unique':>11} {'epochs':>6} {'predicted':>9} {'proxy':>8} "
    level = 100 * (comparison.rungs[0].confidence if comparison.rungs else 0.95)
    head += f"{'larger model':>12} {f'{level:.6g} % interval':>17} {'θ* minus it':>24}"
    against = {p.control: p for p in comparison.against}
    proxies = {m.label: m.mean for m in confirmation.measured} if confirmation else {}
    if confirmation:
        proxies["quadmix"] = proxies.get(confirmation.winner, float("nan"))
    rows = [
        _row(m, comparison.predicted.get(m.label), proxies.get(m.label), against.get(m.label))
        for m in sorted(comparison.measured, key=lambda m: m.mean)
    ]
    seeds = len(comparison.measured[0].values) if comparison.measured else 0
    return [
        f"Target loss in bits per byte (lower is better), {comparison.train_tokens:,} training tokens each, "
        f"{seeds} seeds, model of {comparison.model_parameters:,} parameters",
        head,
        *rows,
        comparison.verdict + ".",
        _circumstances(comparison),
        "predicted and proxy: at proxy size, so compare them with each other, not with the larger model.",
    ]


def _circumstances(comparison: Comparison) -> str:
    """Say on what the selectors worked and what each search had cost."""
    text = f"Every selector worked on {comparison.pool_share:.0%} of the pool's tokens; the target rows that "
    text += "judge here did not steer the search."
    if comparison.proxies:
        text += f" Proxies trained: θ* {comparison.proxies.get('quadmix', 0)}"
        text += f", regmix {comparison.proxies.get('regmix', 0)} of its own."
    return text


def _row(measured: Measured, predicted: float | None, proxy: float | None, paired: Paired | None) -> str:
    interval = f"{measured.low:.4f}..{measured.high:.4f}"
    minus = difference(paired)
    return (
        f"{measured.label:16} {measured.selected_tokens:>11,} {measured.unique_tokens:>11,} "
        f"{measured.epochs:>6.2f} {_number(predicted):>9} {_number(proxy):>8} {measured.mean:>12.4f} "
        f"{interval:>17} {minus:>24}"
    )


def _span(low: float, high: float) -> str:
    return "-" if low != low or high != high else f"{low:.4f}..{high:.4f}"


def _proposal(folder: Path) -> Proposal | None:
    file = folder / "search" / "proposal.json"
    return read_value(file, Proposal) if file.is_file() else None


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}"


def _confirmation(confirmation: Confirmation) -> list[str]:
    state = "confirmed" if confirmation.confirmed else "NOT confirmed"
    reason = confirmation.reason.removeprefix("Confirmed: ").removeprefix("Not confirmed: ")
    lines = [f"θ* = {confirmation.winner}, {state}: {reason}"]
    return [*lines, confirmation.needed] if confirmation.needed else lines
