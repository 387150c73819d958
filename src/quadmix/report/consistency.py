"""Consistency over languages as one page: what a model agrees with itself on, beside what nothing reaches.

In: a `ConsistencyReport`. Out: one self-contained HTML file, and beside it a CSV of all pairs of languages.
Everything shown is a number of the report; wherever a consistency stands, the nulls stand beside it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quadmix.io.atomic import write_text
from quadmix.report.frame import Frame, render_frame
from quadmix.report.html import Html, details, figure, items, join, note, section, table
from quadmix.report.plots import INK, Picture, Words, picture
from quadmix.report.text import clean, count, csv_text, esc, num
from quadmix.types.arrays import Floats
from quadmix.types.consistency import Bounds, ConsistencyReport, SetConsistency, TaskConsistency

_NUMBERED = 16  # languages up to which the cells of a heat map hold their numbers
PAIR_COLUMNS = (
    "task", "mode", "estimator", "language", "other_language", "mlc", "both_right", "same_wrong", "kappa",
    "beyond_accuracy",
)  # fmt: skip
_READING = (
    "MLC is the share of items on which two languages get the same answer. It is high without any knowledge: "
    "for a model that takes short answers, or one place. So every MLC stands beside the same number of "
    "predictors that know nothing, and MLC+ counts only items that both languages get right. It is a "
    "reading, not an aim: do not choose data or models by it."
)


def write_consistency(report: ConsistencyReport, page: str | Path) -> tuple[Path, Path]:
    """Write the page and the table of pairs beside it (same name, .csv); return both paths."""
    path = Path(page)
    pairs = path.with_suffix(".csv")
    write_text(pairs, csv_text(*pair_table(report)))
    write_text(path, render_consistency(report, pairs.name))
    return path, pairs


def pair_table(report: ConsistencyReport) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Return columns and rows: one per task, mode, estimator and unordered pair of languages."""
    nulls = list(dict.fromkeys(null for t in report.tasks for null in t.pairs.nulls))
    rows: list[tuple[object, ...]] = []
    for t in report.tasks:
        p = t.pairs
        for i, j in zip(*np.triu_indices(len(t.languages), 1), strict=True):
            measured = (
                float(m[i, j]) for m in (p.mlc, p.both_right, p.same_wrong, p.kappa, p.beyond_accuracy)
            )
            beside = (float(p.nulls[n][i, j]) if n in p.nulls else None for n in nulls)
            names = (t.task, t.mode, t.estimator, t.languages[i], t.languages[j])
            rows.append((*names, *measured, *beside))
    return (*PAIR_COLUMNS, *(f"null_{n}" for n in nulls)), rows


def render_consistency(report: ConsistencyReport, source: str) -> str:
    """Return the page's HTML. source: name of the table of pairs, which stands beside it."""
    files = (source,)
    names = dict.fromkeys(t.task for t in report.tasks)
    most = max((len(t.languages) for t in report.tasks), default=0)
    title = f"{count(len(names))} tasks in up to {most} languages"
    sections = [_task(t, place, files) for place, t in enumerate(report.tasks)]
    links = [
        (f"task-{place}", f"{t.task} · {t.mode} · {t.estimator}") for place, t in enumerate(report.tasks)
    ]
    body = join(
        Html(f'<header id="verdict"><h1>Consistency over languages: {esc(title)}</h1></header>'),
        note(_READING),
        _overview(report, files),
        *sections,
        _mixes(report, files),
        _notes(report),
    )
    frame = Frame(
        name="consistency",
        title="Consistency over languages · quadmix mubench mlc",
        description=f"Multilingual consistency of one model: {title}",
        links=[("overview", "Overview"), *links, ("notes", "Notes")],
    )
    return render_frame(frame, body, {})


def bounds(value: Bounds | None, digits: int = 3, *, sign: bool = False) -> str:
    """Return `0.512 [0.497, 0.527]`; a dash for none."""
    if value is None:
        return "–"
    low, high = (num(x, digits, sign=sign) for x in (value.low, value.high))
    return f"{num(value.value, digits, sign=sign)} [{low}, {high}]"


# --------------------------------------------------------------------------- all tasks
def _overview(report: ConsistencyReport, files: Sequence[str]) -> Html:
    nulls = list(dict.fromkeys(n for t in report.tasks for n in t.sets[0].nulls))
    rows = [
        [t.task, t.mode, t.estimator, count(t.items), count(len(t.languages)), *_set_cells(t.sets[0], nulls)]
        for t in report.tasks
    ]
    headers = ["task", "mode", "estimator", "items", "languages", *_set_headers(nulls)]
    parts = [table(headers, rows, caption="All languages of each task", source=files, words=3)]
    if report.means:
        mean_nulls = list(dict.fromkeys(n for m in report.means for n in m.nulls))
        means = [
            [m.name, m.mode, m.estimator, count(len(m.tasks)), bounds(m.accuracy), bounds(m.mlc),
             *(num(m.nulls.get(n), 3) for n in mean_nulls), bounds(m.both_right)]
            for m in report.means
        ]  # fmt: skip
        headers = ["mean over", "mode", "estimator", "tasks", "accuracy", "MLC"]
        headers += [*(f"MLC of {n}" for n in mean_nulls), "MLC+"]
        caption = "Means of tasks, the NLI tasks counted once; items are never pooled"
        parts.append(table(headers, means, caption=caption, source=files, words=3))
    return section("overview", "Overview", *parts, source=())


def _set_headers(nulls: Sequence[str]) -> list[str]:
    return ["accuracy", "MLC", *(f"MLC of {n}" for n in nulls), "MLC − best null", "MLC+", "MLC−",
            "κ (beyond chance)", "beyond accuracy", "MLC+ / smaller accuracy", "MLC / accuracy"]  # fmt: skip


def _set_cells(s: SetConsistency, nulls: Sequence[str]) -> list[str]:
    return [
        bounds(s.accuracy), bounds(s.mlc), *(num(s.nulls.get(n), 3) for n in nulls),
        bounds(s.over_null, sign=True), bounds(s.both_right), bounds(s.same_wrong), num(s.kappa, 3),
        num(s.beyond_accuracy, 3), num(s.transfer, 3), num(s.rel, 2),
    ]  # fmt: skip


# --------------------------------------------------------------------------- one task
def _task(t: TaskConsistency, place: int, files: Sequence[str]) -> Html:
    nulls = list(t.pairs.nulls)
    sets = [[s.name, count(len(s.languages)), *_set_cells(s, nulls)] for s in t.sets]
    headers = ["languages", "number", *_set_headers(nulls)]
    members = [f"{s.name}: {', '.join(s.languages)}" for s in t.sets]
    part = f", part {t.part}" if t.part else ""
    return section(
        f"task-{place}",
        f"{t.task} · {t.mode} · {t.estimator}{part}",
        figure(heat_map(t, place, tuple(files)), linked=False),
        table(headers, sets, caption="Sets of languages, means over their pairs", source=files),
        items(members),
        details("Every language", _languages(t, nulls, files)),
        source=(),
    )


def _languages(t: TaskConsistency, nulls: Sequence[str], files: Sequence[str]) -> Html:
    anchor = t.anchor or "none"
    headers = [
        "language", "accuracy", "chance", "accuracy, dealt out", *(f"accuracy of {n}" for n in nulls),
        "entropy, bits", "no answer", "equal options", "MLC with the others", *(f"{n}" for n in nulls),
        f"MLC with {anchor}", *(f"{n}" for n in nulls), "MLC+", "MLC+ / smaller accuracy",
    ]  # fmt: skip
    rows = [
        [
            r.language, bounds(r.accuracy), num(r.chance, 3), num(r.accuracy_null, 3),
            *(num(r.accuracy_nulls.get(n), 3) for n in nulls), num(r.entropy, 2), count(r.unanswered),
            count(r.settled) if r.settled >= 0 else "–", bounds(r.mlc),
            *(num(r.nulls.get(n), 3) for n in nulls), bounds(r.anchor),
            *(num(r.anchor_nulls.get(n), 3) for n in nulls), num(r.anchor_right, 3),
            num(r.anchor_transfer, 3),
        ]
        for r in t.by_language
    ]  # fmt: skip
    caption = (
        "Languages; dealt out: accuracy of the same answers on random items; equal options: choices that "
        "count as right because their text is that of the right option"
    )
    return table(headers, rows, caption=caption, source=files)


def heat_map(t: TaskConsistency, place: int, files: tuple[str, ...]) -> Picture:
    """Return the pair matrix of the model beside that of the strongest null, on one scale."""
    strongest = max(t.pairs.nulls, key=lambda n: t.sets[0].nulls[n])
    panels = [(f"{t.estimator}: MLC", t.pairs.mlc), (f"null: {strongest}", t.pairs.nulls[strongest])]
    names = [clean(language) for language in t.languages]

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, 2)
        images = [_matrix(axis, m, names) for axis, (_, m) in zip(axes, panels, strict=True)]
        for axis, (name, _) in zip(axes, panels, strict=True):
            axis.set_title(clean(name))
        figure.colorbar(images[0], ax=list(axes), shrink=0.7, label="share of items with the same answer")

    best, worst = _ends(t)
    words = Words(
        name=f"consistency-{place}",
        caption="Share of items on which two languages get the same answer; left the model, right the "
        "strongest of the predictors that know nothing.",
        alt=f"Two heat maps of {len(names)} languages. Highest pair {best}, lowest {worst}; mean "
        f"{num(t.sets[0].mlc.value, 3)} against {num(t.sets[0].nulls[strongest], 3)} of {strongest}.",
        source=files,
    )
    rows = [
        (t.languages[i], t.languages[j], *(float(m[i, j]) for _, m in panels))
        for i, j in zip(*np.triu_indices(len(names), 1), strict=True)
    ]
    side = min(0.6 + 0.34 * len(names), 6.6) if len(names) <= _NUMBERED else 6.6
    columns = ("language", "other_language", "mlc", f"null_{strongest}")
    return picture(words, (2 * max(side, 2.8) + 1.2, max(side, 2.4)), draw, columns=columns, rows=rows)


def _matrix(axis: Any, matrix: Floats, names: Sequence[str]) -> Any:
    image = axis.imshow(matrix, cmap="Blues", vmin=0.0, vmax=1.0)
    size = 7.5 if len(names) <= _NUMBERED else 4.5
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axis.set_yticks(range(len(names)), names, fontsize=size)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    for (row, column), value in np.ndenumerate(matrix) if len(names) <= _NUMBERED else ():
        colour = "white" if value > 0.6 else INK
        text = num(float(value), 2).removeprefix("0")
        axis.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)
    return image


def _ends(t: TaskConsistency) -> tuple[str, str]:
    """Return the pairs with the highest and the lowest MLC, in words."""
    rows, columns = np.triu_indices(len(t.languages), 1)
    values = t.pairs.mlc[rows, columns]

    def said(k: int) -> str:
        pair = f"{t.languages[rows[k]]} and {t.languages[columns[k]]}"
        return f"{pair} ({num(float(values[k]), 3)})"

    return said(int(values.argmax())), said(int(values.argmin()))


# --------------------------------------------------------------------------- the rest
def _mixes(report: ConsistencyReport, files: Sequence[str]) -> Html:
    if not report.mixes:
        return Html("")
    nulls = list(dict.fromkeys(n for m in report.mixes for n in m.nulls))
    rows = [
        [m.task, m.mode, m.estimator, m.language, count(m.items), num(m.plain, 3), num(m.mixed, 3),
         bounds(m.difference, sign=True), bounds(m.kept), *(num(m.nulls.get(n), 3) for n in nulls)]
        for m in report.mixes
    ]  # fmt: skip
    headers = ["task", "mode", "estimator", "base language", "items", "accuracy", "accuracy, mixed",
               "difference", "same answer", *(f"same answer of {n}" for n in nulls)]  # fmt: skip
    caption = "Code-switched items against the same items in the base language"
    return section(
        "mixes",
        "Code-switched items",
        table(headers, rows, caption=caption, source=files, words=4),
        source=(),
    )


def _notes(report: ConsistencyReport) -> Html:
    about = (
        f"Intervals: {report.confidence:.0%} of {count(report.draws)} resamples of the items, all languages "
        f"of an item together (seed {report.seed}). κ and “beyond accuracy” are (MLC − e) / (1 − e): e is "
        "what answers dealt out at random agree on, or two independent models of these accuracies. MLC / "
        "accuracy gets smaller as models get better, so it ranks nothing."
    )
    return section("notes", "Notes", note(about), items(report.notes), source=())
