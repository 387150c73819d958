"""What `quadmix mubench` prints: what a folder holds, and consistency tables with the nulls beside them."""

from collections.abc import Mapping, Sequence

from quadmix.evaluate.mubench.languages import LANGUAGES
from quadmix.evaluate.mubench.prepare import Prepared, PreparedTask
from quadmix.types.consistency import Bounds, ConsistencyReport, LanguageConsistency, SetConsistency

_SHOWN_LANGUAGES = 12


def prepared_lines(found: Prepared) -> list[str]:
    """Return what was read, counted, split, left out and refused."""
    lines = [line for task in found.tasks for line in _task_lines(task)]
    lines += restricted_lines(found.restricted)
    lines += [
        f"{task}: left out, {why}; name it with --task to read it" for task, why in found.left_out.items()
    ]
    return [*lines, *(f"refused: {problem}" for problem in found.problems)]


def restricted_lines(found: Mapping[str, str]) -> list[str]:
    """Return a line per task whose rows may not be passed on freely. found: task -> why."""
    return [f"{task}: its rows may not be passed on freely: {why}" for task, why in found.items()]


def _task_lines(task: PreparedTask) -> list[str]:
    parts = ", ".join(f"{part} {count:,}" for part, count in task.parts.items())
    languages = [f.language for f in task.facts]
    lines = [
        f"{task.task} ({task.mode}): {task.items:,} items x {len(languages)} languages "
        f"({_some(languages)}), aligned; {parts}"
    ]
    if task.missing and any(code in LANGUAGES for code in languages):  # toy languages lack all of them
        lines.append(f"  not here, of the release: {_some(task.missing)}")
    if task.lacking:
        lines.append(f"  not here, but in other tasks or modes: {_some(task.lacking)}")
    if task.converted:
        lines.append(f"  made from local_template, for want of lighteval: {_some(task.converted)}")
    for fact in task.facts:
        odd = [
            (
                "duplicated",
                fact.duplicated,
                f"items with equal options, the right one in {fact.tied} of them",
            ),
            ("unparsed", fact.unparsed, "items whose letters stand for nothing in the prompt"),
            ("replaced", fact.replaced, "items with U+FFFD or control characters"),
            ("recoded", fact.recoded, "items with UTF-8 read as Latin-1"),
            ("trimmed", fact.trimmed, "items trimmed of white space"),
        ]
        said = [f"{n} {what}{_named(fact.ids.get(name, ()), n)}" for name, n, what in odd if n]
        if said:
            lines.append(f"  {fact.language}: {'; '.join(said)}")
    if task.mixed:
        lines.append(f"  {task.mixed} files of mixed items; {task.unmixed} items in them are in one language")
    if task.strays:
        lines.append(f"  not of the layout, ignored: {_some(task.strays)}")
    return lines


def _named(ids: Sequence[str], count: int) -> str:
    rest = count - len(ids)
    return f" ({', '.join(ids)}{f' and {rest} more' if rest else ''})" if ids else ""


def consistency_lines(report: ConsistencyReport) -> list[str]:
    """Return the tables of every task, the means, the code-switched items and the notes."""
    lines: list[str] = []
    for t in report.tasks:
        nulls = list(t.pairs.nulls)
        part = f", part {t.part}" if t.part else ""
        lines += [
            f"{t.task} ({t.mode}, {t.estimator}{part}): {t.items:,} items, {len(t.languages)} languages"
        ]
        lines += _table(_set_headers(nulls), [_set_row(s, nulls) for s in t.sets])
        shown = t.by_language[:_SHOWN_LANGUAGES]
        lines += ["", *_table(_language_headers(nulls, t.anchor), [_language_row(r, nulls) for r in shown])]
        if len(shown) < len(t.by_language):
            lines.append(f"  {len(t.by_language) - len(shown)} more languages: --json or --out PAGE")
        lines.append("")
    if report.means:
        nulls = list(dict.fromkeys(n for m in report.means for n in m.nulls))
        rows = [
            [m.name, m.mode, m.estimator, str(len(m.tasks)), _bounds(m.accuracy), _bounds(m.mlc),
             *(_num(m.nulls.get(n)) for n in nulls), _bounds(m.both_right)]
            for m in report.means
        ]  # fmt: skip
        headers = ["mean over", "mode", "estimator", "tasks", "accuracy", "MLC", *nulls, "MLC+"]
        lines += [*_table(headers, rows), ""]
    if report.mixes:
        nulls = list(dict.fromkeys(n for m in report.mixes for n in m.nulls))
        rows = [
            [m.task, m.mode, m.estimator, m.language, _num(m.plain), _num(m.mixed),
             _bounds(m.difference, "+"), _bounds(m.kept), *(_num(m.nulls.get(n)) for n in nulls)]
            for m in report.mixes
        ]  # fmt: skip
        headers = [
            "mixed",
            "mode",
            "estimator",
            "base",
            "accuracy",
            "mixed",
            "difference",
            "same answer",
            *nulls,
        ]
        lines += [*_table(headers, rows), ""]
    lines.append(
        f"[...]: {report.confidence:.0%} of {report.draws:,} resamples of the items. A column named after a "
        "null is what it reaches at that place; MLC beyond it, or MLC+, says something, MLC alone does not."
    )
    return [*lines, *(f"note: {n}" for n in report.notes)]


def _set_headers(nulls: Sequence[str]) -> list[str]:
    return ["languages", "of", "accuracy", "MLC", *nulls, "over best null", "MLC+", "MLC-", "kappa",
            "beyond acc.", "MLC+/min acc.", "MLC/acc."]  # fmt: skip


def _set_row(s: SetConsistency, nulls: Sequence[str]) -> list[str]:
    return [
        s.name, str(len(s.languages)), _bounds(s.accuracy), _bounds(s.mlc),
        *(_num(s.nulls.get(n)) for n in nulls), _bounds(s.over_null, "+"), _bounds(s.both_right),
        _bounds(s.same_wrong), _num(s.kappa),
        _num(s.beyond_accuracy), _num(s.transfer), _num(s.rel),
    ]  # fmt: skip


def _language_headers(nulls: Sequence[str], anchor: str | None) -> list[str]:
    with_anchor = [f"MLC with {anchor}", *nulls, "MLC+"] if anchor else []
    return ["language", "accuracy", "chance", "dealt out", *nulls, "entropy", "MLC with others", *nulls,
            *with_anchor]  # fmt: skip


def _language_row(r: LanguageConsistency, nulls: Sequence[str]) -> list[str]:
    row = [
        r.language, _bounds(r.accuracy), _num(r.chance), _num(r.accuracy_null),
        *(_num(r.accuracy_nulls.get(n)) for n in nulls), _num(r.entropy), _bounds(r.mlc),
        *(_num(r.nulls.get(n)) for n in nulls),
    ]  # fmt: skip
    if r.anchor is not None:
        row += [_bounds(r.anchor), *(_num(r.anchor_nulls.get(n)) for n in nulls), _num(r.anchor_right)]
    return row


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns; a short row ends early."""
    padded = [[*row, *[""] * (len(headers) - len(row))] for row in (headers, *rows)]
    widths = [max(map(len, column)) for column in zip(*padded, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in padded
    ]


def _bounds(value: Bounds, sign: str = "") -> str:
    low, high = (_num(x, sign) for x in (value.low, value.high))
    return f"{_num(value.value, sign)} [{low}, {high}]"


def _num(value: float | None, sign: str = "") -> str:
    return "-" if value is None or value != value else f"{value:{sign}.3f}"


def _some(names: Sequence[str], most: int = 20) -> str:
    rest = len(names) - most
    return " ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
