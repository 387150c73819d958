"""The end of a run in text: where the dataset and the report lie, and the comparison table."""

from quadmix.pipeline.run import RunResult
from quadmix.types import Comparison, Confirmation, Measured, Paired


def result_lines(result: RunResult) -> list[str]:
    """Return what a run prints on stdout when it ends."""
    lines: list[str] = []
    if result.confirmation:
        lines += _confirmation(result.confirmation)
    if result.comparison:
        lines += ["", *comparison_table(result.comparison, result.confirmation)]
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


def comparison_table(comparison: Comparison, confirmation: Confirmation | None) -> list[str]:
    """Return the table of measured losses (bits per byte, lower is better) at equal training tokens."""
    head = f"{'selection':16} {'selected':>11} {'unique':>11} {'epochs':>6} {'predicted':>9} {'proxy':>8} "
    head += f"{'larger model':>12} {'95 % interval':>17} {'θ* minus it':>24}"
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
    difference = f"{paired.difference:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}]" if paired else "-"
    return (
        f"{measured.label:16} {measured.selected_tokens:>11,} {measured.unique_tokens:>11,} "
        f"{measured.epochs:>6.2f} {_number(predicted):>9} {_number(proxy):>8} {measured.mean:>12.4f} "
        f"{interval:>17} {difference:>24}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}"


def _confirmation(confirmation: Confirmation) -> list[str]:
    state = "confirmed" if confirmation.confirmed else "NOT confirmed"
    return [f"θ* = {confirmation.winner}, {state}: {confirmation.reason}"]
