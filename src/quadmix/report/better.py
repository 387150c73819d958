"""The section "Is it better?" and the refusal under the verdict: what fresh models measured.

In: the loaded run. Out: HTML. Differences are paired, candidate or selector minus control, in bits per byte
(below 0 = better); an interval that is not known is never a win.
"""

from quadmix.report import trials
from quadmix.report.compared import State, state_of
from quadmix.report.html import Gallery, Html, join, not_run, note, section, show, table, tag
from quadmix.report.ladder import ladder, losses_table, measured_table
from quadmix.report.load import RunFiles
from quadmix.report.origins import COMPARISON, CONFIRM
from quadmix.report.plots import trim
from quadmix.report.text import clean, count, esc, interval, label_name, named, num, short
from quadmix.report.verdict import in_words, plain_reason
from quadmix.types import Comparison, Confirmation

STATES: dict[State, str] = {"beaten": "better", "tied": "not told apart", "worse": "worse"}


def baselines(files: RunFiles, gallery: Gallery) -> Html:
    """Comparison with every baseline, then the confirmation before it."""
    parts: list[Html] = []
    if files.comparison is None:
        parts.append(not_run("the comparison with baselines"))
    else:
        parts += _comparison(files, files.comparison, gallery)
    parts.append(tag("h3", "Confirmation with fresh proxies"))
    if files.confirmation is None:
        parts.append(not_run("the confirmation"))
    else:
        parts += _confirmation(files.confirmation, gallery)
    own = COMPARISON if files.comparison else ()
    own += CONFIRM if files.confirmation else ()
    return section("baselines", "Is it better?", *parts, source=own)


def _cost(comparison: Comparison) -> str:
    """Say how many proxies each searched selector had trained."""
    counts = [f"{label_name(label)} {trained}" for label, trained in comparison.proxies.items()]
    return f" (proxies trained: {', '.join(counts)})" if counts else ""


def _comparison(files: RunFiles, comparison: Comparison, gallery: Gallery) -> list[Html]:
    if comparison.rungs:
        return ladder(comparison, gallery)
    seeds = max((len(m.values) for m in comparison.measured), default=0)
    intro = (
        f"Models of {short(comparison.model_parameters)} parameters, {short(comparison.train_tokens)} "
        f"training tokens each, {seeds} seeds, on {comparison.pool_share:.0%} of the pool; selectors "
        "differ only in which documents they took, and the target rows that judge here did not steer the "
        f"search{_cost(comparison)}. "
        f"{named(comparison.verdict, [p.control for p in comparison.against])}"
    )
    return [
        note(intro),
        show(gallery, trials.dots(comparison.measured, comparison.chosen, "comparison", source=COMPARISON)),
        measured_table(
            comparison.measured,
            comparison.against,
            comparison.chosen,
            predicted=comparison.predicted,
            source=COMPARISON,
        ),
        losses_table(
            "Measured loss per target, bits per byte", comparison.measured, "losses", source=COMPARISON
        ),
        losses_table(
            "Held-out loss per domain, bits per byte", comparison.measured, "heldout", source=COMPARISON
        ),
    ]


def _confirmation(confirmation: Confirmation, gallery: Gallery) -> list[Html]:
    state = "Confirmed" if confirmation.confirmed else "NOT confirmed"
    if confirmation.source:
        state = f"Measured in the run {confirmation.source}, on its own corpus: {state.lower()}"
    parts = [note(f"{state}; best measured: {label_name(confirmation.winner)}. {plain_reason(confirmation)}")]
    if confirmation.measured:
        picture = trials.dots(confirmation.measured, confirmation.winner, "confirmation", source=CONFIRM)
        parts.append(show(gallery, picture))
    parts.append(
        _tried(confirmation)
        if confirmation.confirmed
        else note("The table of all that was tried stands under the verdict.", "absent")
    )
    losses = losses_table("Fresh proxies: loss per target", confirmation.measured, "losses", source=CONFIRM)
    return [*parts, losses]


def refusal(files: RunFiles) -> Html:
    """The block under the strip of a run whose confirmation failed: what was tried and what it would take."""
    confirmation = files.confirmation
    if confirmation is None or confirmation.confirmed:
        return Html("")
    takes = in_words(confirmation, confirmation.needed)
    needed = note(f"What it would take: {takes}") if takes else Html("")
    body = join(note(plain_reason(confirmation)), needed, _tried(confirmation))
    return Html(f'<div class="refused" role="note"><h3>{esc("Why nothing is recommended")}</h3>{body}</div>')


def _tried(confirmation: Confirmation) -> Html:
    """Every label that was trained, best first: rounds, seeds, mean, and the paired difference to the
    control of those that were compared in the end."""
    pairs = {p.label: p for p in confirmation.against}
    control = next((p.control for p in confirmation.against), "control")
    measured = {m.label: m for m in confirmation.measured}
    rows: list[list[str]] = []
    for label, rounds, left in _standings(confirmation):
        m, pair = measured.get(label), pairs.get(label)
        verdict = STATES[state_of(pair)] if pair else "the control"
        rows.append(
            [
                label_name(label), rounds, count(len(m.values)) if m else "0", num(m.mean if m else None),
                interval(m.low, m.high) if m else "–",
                num(pair.difference, sign=True) if pair else "–",
                interval(pair.low, pair.high, sign=True) if pair else "–",
                f"left: {trim(clean(left), 70)}" if left else verdict if pair or label == control else "–",
            ]
        )  # fmt: skip
    other = label_name(control)
    headers = ["candidate", "rounds", "seeds", "measured", "95 % interval", f"it − {other} (below 0: better)",
               "95 % interval", f"than {other}"]  # fmt: skip
    caption = (
        "Fresh proxies, bits per byte (lower is better). Differences are paired over common seeds, "
        "their intervals hold for all candidates together"
    )
    return table(headers, rows, caption=caption, source=CONFIRM)


def _standings(confirmation: Confirmation) -> list[tuple[str, str, str]]:
    """Return (label, rounds, why it left) in the order of the race; by mean where there was none."""
    if confirmation.rounds:
        return [(s.label, count(s.round), s.left) for s in confirmation.rounds]
    return [(m.label, "–", "") for m in sorted(confirmation.measured, key=lambda m: m.mean)]
