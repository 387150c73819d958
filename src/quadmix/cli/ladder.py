"""The ladder of the comparison in text: further rungs, accuracies, whether the ranking holds."""

from quadmix.types import Comparison, Paired, Rung, TaskScore, Transfer

_BEST = 4  # selections whose accuracy is shown


def ladder_lines(comparison: Comparison) -> list[str]:
    """Return what the comparison says beyond the table of its first rung; nothing for old files."""
    lines: list[str] = []
    for number, rung in enumerate(comparison.rungs):
        if number:
            lines += ["", *_rung_table(rung, comparison.chosen)]
        lines += _accuracy(rung)
        lines += [f"left out: {label}: {why}" for label, why in rung.left_out.items()]
        lines += [f"note: {flag}" for flag in rung.flags]
        if rung.detectable == rung.detectable:
            lines.append(
                f"With these seeds true differences from {rung.detectable:.4f} bits per byte on show four "
                "times in five."
            )
    if comparison.transfers:
        lines += ["", *(_transfer(t) for t in comparison.transfers)]
    return lines


def difference(paired: Paired | None) -> str:
    """Return a paired difference with its interval."""
    return f"{paired.difference:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}]" if paired else "-"


def _rung_table(rung: Rung, chosen: str) -> list[str]:
    against = {p.control: p for p in rung.against if p.label == chosen}
    what = f"{rung.name}: {rung.parameters:,} parameters, {rung.train_tokens:,} training tokens each, "
    what += f"{rung.seeds} seeds, learning rate {rung.learning_rate:g}"
    if rung.budget != 1:
        what += f", {rung.budget:g} times the budget at equal {rung.match}"
    level = f"{100 * rung.confidence:.6g} % interval"
    lines = [
        what,
        f"{'selection':18} {'selected':>11} {'measured':>9} {level:>17} {'θ* minus it':>28}",
    ]
    for m in sorted(rung.measured, key=lambda m: m.mean):
        lines.append(
            f"{m.label:18} {m.selected_tokens:>11,} {m.mean:>9.4f} {f'{m.low:.4f}..{m.high:.4f}':>17} "
            f"{difference(against.get(m.label)):>28}"
        )
    return [*lines, f"{rung.verdict}."]


def _accuracy(rung: Rung) -> list[str]:
    """Return the mean accuracy over all benchmarks per selector, best first."""
    found = [s for s in rung.scores if s.kind == "benchmark" and s.metric == "accuracy"]
    own = sorted((s for s in found if s.task == "macro"), key=lambda s: -s.mean)
    if not own:
        return []
    tasks = sorted({s.task for s in found} - {"macro", "micro"})
    chance = f"; chance {own[0].chance:.3f}" if own[0].chance is not None else ""
    best = "  ".join(f"{s.label} {_share(s)}" for s in own[:_BEST])
    return [f"accuracy, mean of {len(tasks)} benchmarks ({', '.join(tasks)}){chance}; best: {best}"]


def _share(score: TaskScore) -> str:
    return f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]"


def _transfer(found: Transfer) -> str:
    decided = (
        f"{found.decision_accuracy:.0%} of {found.decided} decided pairs are ordered alike"
        if found.decided
        else "no pair is decided beyond its interval"
    )
    return (
        f"{found.small} -> {found.large}: rank correlation {found.spearman:.2f} [{found.low:.2f}, "
        f"{found.high:.2f}] over {len(found.labels)} selections (halves of {found.large}'s own seeds: "
        f"{found.ceiling:.2f}); {decided}, {found.all_pairs:.0%} of all"
    )
