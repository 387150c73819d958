"""The final comparison rung by rung: what was measured, on every task, and whether rankings hold above.

In: `evaluate/comparison.json` with rungs. Out: HTML. Numbers are those of the file; a difference is marked
only where it is beyond its interval and survives Holm's correction over tasks.
"""

import math
from collections.abc import Sequence

from quadmix.report import ladder_figures as figures
from quadmix.report import trials
from quadmix.report.compared import State, state_of
from quadmix.report.html import Gallery, Html, details, items, join, note, show, table, tag
from quadmix.report.ladder_figures import MEANS, Group, Task, beyond_chance, ranked, shown, survives, tasks_of
from quadmix.report.ladder_transfer import across
from quadmix.report.origins import COMPARISON
from quadmix.report.text import count, interval, label_name, named, num, percent, short, sig
from quadmix.types import Comparison, Measured, Paired, Rung

_CORRECTION = (
    " Holm's correction is over the tasks of one selector and metric, not over all selectors together: with "
    "many selectors a few marks may still be luck."
)
_STATES: dict[State, str] = {"beaten": "beaten", "tied": "not told apart", "worse": "worse"}
BETTER, WORSE, GUESS = "✓", "✗", "°"


def ladder(comparison: Comparison, gallery: Gallery) -> list[Html]:
    """Return the parts of the section for a comparison with rungs."""
    base, *others = comparison.rungs
    parts = [note(verdicts(comparison)), note(_design(comparison)), *_overlaps(comparison)]
    if others:
        parts.append(_overview(comparison))
    for place, rung in enumerate(comparison.rungs):
        if others:
            parts.append(tag("h3", f"At {rung.name}" + (", the first rung" if rung is base else "")))
        parts += _rung(comparison, rung, gallery, place=place, head="h4" if others else "h3")
    return [*parts, *across(comparison, gallery)]


def verdicts(comparison: Comparison) -> str:
    """Return the verdict of the first rung, then those of the others; unknown intervals claim nothing."""
    base, *others = comparison.rungs
    first = _verdict(comparison, base)
    if not others:
        return first
    return " ".join(
        [f"At {base.name}: {first}", *(f"At {r.name}: {_verdict(comparison, r)}" for r in others)]
    )


def _verdict(comparison: Comparison, rung: Rung) -> str:
    pairs = figures.pairs_of(rung, comparison.chosen)
    if not any(figures.known(p) for p in pairs):
        return (
            "nothing is claimed, since no interval is known (it takes two seeds that both selectors share)."
        )
    text = named(rung.verdict.strip(), [p.control for p in pairs]) or "no verdict was written."
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _design(comparison: Comparison) -> str:
    names = {label: label_name(label) for label in comparison.proxies}
    cost = ", ".join(f"{names[label]} {n}" for label, n in comparison.proxies.items())
    return (
        f"Selectors differ only in which documents they took, on {percent(comparison.pool_share, 0)} of "
        "the pool; the target rows that judge here did not steer the search"
        + (f" (proxies trained: {cost})" if cost else "")
        + f". Intervals are {_levels(comparison.rungs)} intervals over seeds, and over items where "
        "there are any; differences are paired, each over the seeds that both selectors finished."
        + (_CORRECTION if any(r.differences for r in comparison.rungs) else "")
    )


def _levels(rungs: Sequence[Rung]) -> str:
    """Return the level of the rungs' intervals, "95 %"; all of them where they differ."""
    return " and ".join(dict.fromkeys(figures.level_name(r.confidence) for r in rungs))


def _overlaps(comparison: Comparison) -> list[Html]:
    if not comparison.overlaps:
        return []
    rows = [[name, count(n)] for name, n in sorted(comparison.overlaps.items(), key=lambda o: (-o[1], o[0]))]
    found = [name for name, n in comparison.overlaps.items() if n]
    if not found:
        said = note(
            "No document that could be selected shares 13 words in a row with a target or benchmark; what "
            "was found in the pool and excluded, if anything, is in the warnings of annotate, under Run."
        )
        return [said]
    text = (
        f"The pool overlaps {len(found)} of {len(rows)} targets and benchmarks: {', '.join(found)}. "
        "Documents that share 13 words in a row with them may have been learnt by heart."
    )
    caption = "Documents of the pool that share 13 words in a row with a target or benchmark"
    return [
        _warning([text]),
        details(caption, table(["task", "documents"], rows, caption=caption, source=COMPARISON)),
    ]


def _warning(texts: Sequence[str]) -> Html:
    head = tag("b", "Read with care")
    return Html(f'<div class="refused" role="note">{head}{items(texts)}</div>')


def _overview(comparison: Comparison) -> Html:
    own = label_name(comparison.chosen)
    varied = any(r.budget != 1 or r.match != "tokens" for r in comparison.rungs)
    rows: list[list[str]] = []
    for r in comparison.rungs:
        pairs = figures.pairs_of(r, comparison.chosen)
        last = pairs[-1:]  # the selector with the least gain over it
        rows.append(
            [
                r.name, short(r.parameters), short(r.train_tokens), sig(r.learning_rate),
                *([sig(r.budget) + "×", r.match] if varied else []), count(r.seeds),
                f"{sum(p.high < 0 for p in pairs)} of {len(pairs)}", count(sum(p.low > 0 for p in pairs)),
                *(label_name(p.control) for p in last), *(num(p.difference, sign=True) for p in last),
                *(interval(p.low, p.high, sign=True) for p in last),
            ]
        )  # fmt: skip
    headers = ["rung", "parameters", "tokens", "learning rate", *(["budget", "equal"] if varied else []),
               "seeds", f"beaten by {own}", f"better than {own}", "hardest to beat",
               f"{own} − it (below 0: {own} is better)",
               "interval"]  # fmt: skip
    caption = "The ladder; beaten and better count only what is beyond its interval"
    return table(headers, rows, caption=caption, source=COMPARISON)


# --------------------------------------------------------------------------- one rung
def _rung(comparison: Comparison, rung: Rung, gallery: Gallery, *, place: int, head: str) -> list[Html]:
    """Return the parts of one rung. head: the element of its sub-headings, one below the heading above."""
    level = rung.confidence
    end = f"-{place + 1}" if place else ""
    chosen, bars = comparison.chosen, f"{figures.level_name(level)} interval over seeds and items"
    parts = [note(_setting(rung))]
    if rung.flags:
        labels = [comparison.chosen, *(m.label for m in rung.measured), *rung.left_out]
        parts.append(_warning([named(flag, labels) for flag in rung.flags]))
    if not rung.measured:
        return [*parts, *_left_out(rung)]
    parts.append(show(gallery, figures.forest(rung, chosen, f"forest{end}", level)))
    predicted = {} if place else comparison.predicted
    parts += [
        show(gallery, trials.dots(rung.measured, chosen, f"comparison{end}", bars=bars, source=COMPARISON)),
        measured_table(
            rung.measured, rung.against, chosen, predicted=predicted, level=level, source=COMPARISON
        ),
        *_left_out(rung),
    ]
    if not rung.scores:
        parts += [
            losses_table(
                "Measured loss per target, bits per byte", rung.measured, "losses", source=COMPARISON
            ),
            losses_table(
                "Held-out loss per domain, bits per byte", rung.measured, "heldout", source=COMPARISON
            ),
        ]
    for group in figures.GROUPS:
        open_here = not place and group.key in ("targets", "accuracy")
        parts.append(
            _group(
                rung,
                chosen,
                group,
                gallery,
                name=f"{group.key}{end}",
                level=level,
                head=head if open_here else "",
            )
        )
    return parts


def _setting(rung: Rung) -> str:
    equal = "tokens" if rung.match == "tokens" else "passes over the selected data"
    budget = "" if rung.budget == 1 else f" The selections hold {sig(rung.budget)} times the budget's tokens."
    detect = (
        " The smallest true difference that these seeds show four times in five (median selector) is "
        f"{num(rung.detectable)} bits per byte"
        if math.isfinite(rung.detectable)
        else " What difference these seeds could show is not known"
    )
    said = f"; before training at least {num(rung.promised)} was said" if math.isfinite(rung.promised) else ""
    return (
        f"Models of {short(rung.parameters)} parameters, trained on {short(rung.train_tokens)} tokens each "
        f"at learning rate {sig(rung.learning_rate)}, {count(rung.seeds)} seeds, equal {equal}."
        f"{budget}{detect}{said}."
    )


def _left_out(rung: Rung) -> list[Html]:
    if not rung.left_out:
        return []
    texts = [f"{label_name(label)}: {why}" for label, why in rung.left_out.items()]
    return [note("Left out of this comparison:"), items(texts)]


def measured_table(
    measured: Sequence[Measured], against: Sequence[Paired], chosen: str, *,
    predicted: dict[str, float], source: Sequence[str], level: float = 0.95,
) -> Html:  # fmt: skip
    """Return the selectors by measured loss with their paired differences to the chosen one."""
    pairs = {p.control: p for p in against if p.label == chosen}
    rows: list[list[str]] = []
    for m in sorted(measured, key=lambda m: m.mean):
        pair = pairs.get(m.label)
        rows.append(
            [
                label_name(m.label), count(m.selected_tokens), count(m.unique_tokens), num(m.epochs, 2),
                num(predicted.get(m.label)), num(m.mean), interval(m.low, m.high),
                num(pair.difference, sign=True) if pair else "–",
                interval(pair.low, pair.high, sign=True) if pair else "–",
                _STATES[state_of(pair)] if pair else "–",
            ]
        )  # fmt: skip
    name = label_name(chosen)
    headers = ["selector", "selected tokens", "unique tokens", "epochs", "predicted", "measured",
               f"{figures.level_name(level)} interval", f"{name} − it (below 0: {name} is better)",
               f"{figures.level_name(level)} interval", f"{name} against it"]  # fmt: skip
    caption = "Selectors by measured loss (lower is better), paired differences"
    return table(headers, rows, caption=caption, source=source)


def losses_table(caption: str, measured: Sequence[Measured], which: str, *, source: Sequence[str]) -> Html:
    """Return a fold with the means per target (`losses`) or domain (`heldout`) of every selector."""
    ordered = sorted(measured, key=lambda m: m.mean)
    losses: list[dict[str, float]] = [m.losses if which == "losses" else m.heldout for m in ordered]
    names = sorted({n for row in losses for n in row})
    if not names:
        return Html("")
    rows = [[n, *(num(row.get(n)) for row in losses)] for n in names]
    what = "target" if which == "losses" else "domain"
    headers = [what, *(label_name(m.label) for m in ordered)]
    return details(caption, table(headers, rows, caption=caption, source=source))


# --------------------------------------------------------------------------- every task
def _group(
    rung: Rung, chosen: str, group: Group, gallery: Gallery, *, name: str, level: float, head: str
) -> Html:
    """Figure, what survives in words, and the tables of scores and differences of one group of tasks.

    head: the element of its heading; without one it is a closed fold.
    """
    tasks = tasks_of(rung, group)
    if not tasks:
        return Html("")
    labels = shown(ranked(rung))
    parts = [
        note(" ".join(filter(None, (_surviving(tasks, chosen, level), _chance_words(tasks, labels))))),
        show(gallery, figures.task_dots(rung, chosen, group, name, level)),
        _scores_table(group, tasks, labels),
        _differences_table(group, tasks, chosen, labels=labels, level=level),
    ]
    return join(tag(head, group.title), *parts) if head else details(group.title, *parts)


def _surviving(tasks: Sequence[Task], chosen: str, level: float) -> str:
    """Say on how many pairs of task and selector the chosen one is better or worse beyond the correction."""
    own = label_name(chosen)
    found = [(t, d) for t in tasks if t.name not in MEANS for d in t.differences.values()]
    if not found:
        return "No differences were computed."
    kept = [(t, d) for t, d in found if survives(d, level)]
    worse = [f"{t.title} against {label_name(d.control)}" for t, d in kept if d.worse]
    single = f"Of {len(found)} differences on single tasks "
    if not kept:
        return f"{single}none survives Holm's correction over the tasks."
    better = len(kept) - len(worse)
    text = f"{single}{len(kept)} survive Holm's correction over the tasks: {own} is better in {better}"
    return f"{text} and worse in {len(worse)}" + (f" ({_some(worse)})." if worse else ".")


def _some(texts: Sequence[str], most: int = 8) -> str:
    rest = len(texts) - most
    return "; ".join(texts[:most]) + (f"; and {rest} more" if rest > 0 else "")


def _chance_words(tasks: Sequence[Task], labels: Sequence[str]) -> str:
    """Name the tasks on which selectors are not beyond chance: differences there say little."""
    said: list[str] = []
    for t in tasks:
        scored = [label for label in labels if label in t.scores]
        guess = [label_name(label) for label in scored if not beyond_chance(t.scores[label])]
        if t.chance is None or not guess or t.name in MEANS:
            continue
        who = "every selector" if len(guess) == len(scored) else ", ".join(guess)
        said.append(f"{t.title} ({who})" if len(guess) <= 3 or who == "every selector"
                    else f"{t.title} ({len(guess)} of {len(scored)} selectors)")  # fmt: skip
    return f"Not beyond chance: {'; '.join(said)}." if said else ""


def _scores_table(group: Group, tasks: Sequence[Task], labels: Sequence[str]) -> Html:
    rows: list[list[str]] = []
    chance = any(t.chance is not None for t in tasks)
    for t in tasks:
        cells = [_score(t, label) for label in labels]
        level = [percent(t.chance)] if chance else []
        rows.append([t.title, *level, *cells])
    headers = [_what(group), *(["chance"] if chance else []), *map(label_name, labels)]
    caption = f"{group.title}: means over seeds; macro: mean of tasks, micro: mean of items"
    caption += f"; {GUESS} not beyond chance" if chance else ""
    return table(headers, rows, caption=caption, source=COMPARISON)


def _what(group: Group) -> str:
    return "domain" if group.kind == "heldout" else group.kind


def _score(task: Task, label: str) -> str:
    score = task.scores.get(label)
    if score is None:
        return "–"
    if task.metric == "bits_per_byte":
        return num(score.mean)
    guess = score.chance is not None and not beyond_chance(score)
    return percent(score.mean) + (GUESS if guess else "")


def _differences_table(
    group: Group, tasks: Sequence[Task], chosen: str, *, labels: Sequence[str], level: float
) -> Html:
    controls = [label for label in labels if label != chosen]
    if not any(t.differences for t in tasks):
        return Html("")
    rows = [[t.title, *(_difference(t, label, level) for label in controls)] for t in tasks]
    own = label_name(chosen)
    unit = "percentage points, above 0" if group.share else "bits per byte, below 0"
    caption = (
        f"{own} minus each selector ({unit}: {own} is better). {BETTER} {own} better, {WORSE} {own} worse, "
        "after Holm's correction over the tasks; unmarked: not shown to differ"
    )
    return details(
        f"{group.title}: differences, marked where they survive the correction",
        table([_what(group), *map(label_name, controls)], rows, caption=caption, source=COMPARISON),
    )


def _difference(task: Task, label: str, level: float) -> str:
    found = task.differences.get(label)
    if found is None:
        return "–"
    losses = task.metric == "bits_per_byte"
    text = num(found.difference if losses else 100 * found.difference, 4 if losses else 1, sign=True)
    if not survives(found, level):
        return text
    return f"{text}{BETTER if found.better else WORSE}"
