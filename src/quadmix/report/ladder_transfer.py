"""Whether the ranking of the selectors holds from rung to rung of the ladder.

In: `Comparison` with rungs and transfers. Out: HTML. Numbers are those of the file.
"""

import math
from collections.abc import Sequence

from quadmix.report import ladder_figures as figures
from quadmix.report.html import Gallery, Html, note, show, table, tag
from quadmix.report.ladder_figures import ranked
from quadmix.report.origins import COMPARISON
from quadmix.report.text import count, interval, label_name, num, percent
from quadmix.types import Comparison, Transfer

TRUSTED = 0.9  # share of decided pairs ordered alike from which the words call the small rung a good guide


def across(comparison: Comparison, gallery: Gallery) -> list[Html]:
    """Return the parts that say whether one rung ranks the selectors as another does."""
    if len(comparison.rungs) < 2:
        return []
    parts = [tag("h3", "Does the ranking hold from rung to rung?")]
    for place, found in enumerate(comparison.transfers):
        parts.append(note(trust(found)))
        parts.append(show(gallery, figures.transfer(found, comparison, f"transfer-{place + 1}")))
    if comparison.transfers:
        parts.append(_transfers(comparison.transfers))
    return [*parts, _ranks(comparison)]


def trust(found: Transfer) -> str:
    """Say what a transfer tells about deciding in the small rung what is to be trained in the large one."""
    pair = f"From {found.small} to {found.large}: "
    if not (math.isfinite(found.spearman) and math.isfinite(found.low)):
        return f"{pair}nothing can be said, since the rank correlation or its interval is not known."
    text = (
        f"{pair}Spearman {num(found.spearman, 2)} ({interval(found.low, found.high, 2)}) over "
        f"{len(found.labels)} selectors. "
    )
    if math.isfinite(found.ceiling):
        text += f"Seed noise alone would leave about {num(found.ceiling, 2)}. "
    else:
        text += "How much seed noise alone would leave is not known: too few seeds. "
    if not math.isfinite(found.decision_accuracy) or not found.decided:
        return (
            f"{text}{found.large} decides no pair beyond its interval, so this is no test of {found.small}."
        )
    text += (
        f"Of the {count(found.decided)} pairs whose order {found.large} decides, {found.small} orders "
        f"{percent(found.decision_accuracy, 0)} alike ({percent(found.all_pairs, 0)} of all pairs). "
    )
    if found.low <= 0:
        return f"{text}That is no evidence that a ranking at {found.small} holds at {found.large}."
    if found.decision_accuracy >= TRUSTED:
        return (
            f"{text}{found.small} is a good guide to differences that {found.large} can see; closer calls "
            "stay open."
        )
    return f"{text}{found.small} is a rough guide only: check at {found.large} what matters."


def _transfers(transfers: Sequence[Transfer]) -> Html:
    rows = [
        [
            f"{t.small} → {t.large}", count(len(t.labels)), num(t.spearman, 2), interval(t.low, t.high, 2),
            num(t.ceiling, 2), percent(t.decision_accuracy, 0), count(t.decided), percent(t.all_pairs, 0),
        ]
        for t in transfers
    ]  # fmt: skip
    headers = ["rungs", "selectors", "Spearman", "interval", "ceiling by seed noise", "decided pairs alike",
               "decided pairs", "all pairs alike"]  # fmt: skip
    caption = "How well one rung orders the selectors as another does"
    return table(headers, rows, caption=caption, source=COMPARISON)


def _ranks(comparison: Comparison) -> Html:
    orders = [ranked(r) for r in comparison.rungs]
    means = [{m.label: m.mean for m in r.measured} for r in comparison.rungs]
    labels = list(dict.fromkeys(label for order in orders for label in order))
    rows = [
        [
            label_name(label),
            *(
                f"{order.index(label) + 1} ({num(mean[label])})" if label in mean else "–"
                for order, mean in zip(orders, means, strict=True)
            ),
        ]
        for label in labels
    ]
    caption = (
        "Rank of every selector (1 = lowest loss) with its mean loss, per rung; neighbours whose intervals "
        "overlap may as well stand the other way round"
    )
    headers = ["selector", *(r.name for r in comparison.rungs)]
    return table(headers, rows, caption=caption, source=COMPARISON)
