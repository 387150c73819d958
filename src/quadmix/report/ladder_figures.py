"""The figures of the final comparison: differences to every selector, dots per task, rung against rung.

Every number is a field of `Rung` or `Transfer`. A hollow dot is a difference that its interval, or the
correction over tasks, does not tell from zero; colour never says anything alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quadmix.report.origins import COMPARISON
from quadmix.report.plots import ACCENT, GREY, INK, LIGHT, ORANGE, RED, Picture, Words, grid, picture, trim
from quadmix.report.text import clean, label_name, num, percent
from quadmix.types import Comparison, Floats, Measured, Paired, Rung, TaskDifference, TaskScore, Transfer

SHOWN_TASKS = 12
MEANS = {"macro": "macro mean", "micro": "micro mean"}  # of tasks, of items
_FORMS = {"acc_norm": "", "acc": ", by likelihood", "greedy": ", greedy"}  # of an accuracy, best first
_RANDOM = "theta:"  # random θ: many, and there for the ranks between rungs alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tasks that share a scale and so a figure and a table. note: what the scale is, for captions."""

    key: str
    title: str
    kind: Literal["target", "benchmark", "heldout"]
    metrics: tuple[str, ...]
    note: str

    @property
    def share(self) -> bool:
        """Whether the scores are shares of right answers, where higher is better."""
        return "bits_per_byte" not in self.metrics


GROUPS = (
    Group(key="targets", title="Loss per target", kind="target", metrics=("bits_per_byte",),
          note="bits per byte, lower is better"),
    Group(key="accuracy", title="Accuracy per benchmark", kind="benchmark", metrics=("accuracy",),
          note="right answers, %, higher is better: the answer likeliest per character; by likelihood: where "
          "a blank is filled, the likeliest; greedy: the answer that decoding gives"),
    Group(key="acc", title="Accuracy without the length correction", kind="benchmark", metrics=("acc",),
          note="right answers, %, higher is better: the likeliest answer, whatever its length"),
    Group(key="answers", title="Loss on the right answers of the benchmarks", kind="benchmark",
          metrics=("bits_per_byte",), note="bits per byte of the right answer, lower is better"),
    Group(key="heldout", title="Loss per held-out domain", kind="heldout", metrics=("bits_per_byte",),
          note="bits per byte, lower is better"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row of a group: every selector's score on it, and what the chosen one minus each was. form: how an
    accuracy was reckoned where it is not the usual way."""

    name: str
    metric: str
    scores: dict[str, TaskScore]
    differences: dict[str, TaskDifference]
    form: str = ""

    @property
    def title(self) -> str:
        """How the page calls the task."""
        return MEANS.get(self.name, self.name) + self.form

    @property
    def any(self) -> TaskScore:
        """A score of the task, for what all of them share."""
        return next(iter(self.scores.values()))

    @property
    def chance(self) -> float | None:
        """What guessing scores."""
        return self.any.chance


def level_name(level: float) -> str:
    """Return a level of intervals for captions: 0.95 as "95 %", 0.995 as "99.5 %"."""
    return f"{100 * level:.6g} %"


def tasks_of(rung: Rung, group: Group) -> list[Task]:
    """Return the group's tasks by name, means last; a mean over a single task says nothing new.

    Accuracies without length correction are none where no benchmark has the correction: they are in the group
    of accuracies then.
    """
    forms = {m: {s.task for s in rung.scores if s.metric == m} - MEANS.keys() for m in _FORMS}
    if group.metrics == ("acc",) and not forms["acc_norm"]:
        return []
    found: list[Task] = []
    for metric in group.metrics:
        scores = [s for s in rung.scores if s.kind == group.kind and s.metric == metric]
        names = sorted({s.task for s in scores} - MEANS.keys())
        means = [m for m in MEANS if len(names) > 1 and any(s.task == m for s in scores)]
        for name in [*names, *means]:
            own = [d for d in rung.differences if (d.kind, d.metric, d.task) == (group.kind, metric, name)]
            form = next((f for f in _FORMS if metric == "accuracy" and name in forms[f]), "acc_norm")
            found.append(
                Task(
                    name=name, metric=metric, scores={s.label: s for s in scores if s.task == name},
                    differences={d.control: d for d in own}, form=_FORMS[form],
                )
            )  # fmt: skip
    return sorted(found, key=lambda t: t.name in MEANS)


def ranked(rung: Rung) -> list[str]:
    """Return the rung's selectors by mean objective, best first."""
    return [m.label for m in sorted(rung.measured, key=lambda m: m.mean)]


def shown(labels: Sequence[str]) -> list[str]:
    """Return the labels without random θ."""
    return [label for label in labels if not label.startswith(_RANDOM)]


def survives(difference: TaskDifference | None, level: float) -> bool:
    """Return whether the difference is beyond its interval and still there after Holm's correction."""
    if difference is None or not (difference.better or difference.worse):
        return False
    return math.isfinite(difference.p_holm) and difference.p_holm <= 1 - level + 1e-12


def beyond_chance(score: TaskScore) -> bool:
    """Return whether the whole interval lies above the chance level; unknown intervals never do."""
    return score.chance is not None and score.low > score.chance


def known(pair: Paired) -> bool:
    """Return whether the interval of the difference is known."""
    return math.isfinite(pair.low) and math.isfinite(pair.high)


def pairs_of(rung: Rung, chosen: str) -> list[Paired]:
    """Return what the chosen one minus each selector was, its largest gain first."""
    return sorted((p for p in rung.against if p.label == chosen), key=lambda p: p.difference)


# --------------------------------------------------------------------------- differences on the objective
def forest(rung: Rung, chosen: str, name: str, level: float) -> Picture | None:
    """Differences with intervals, the zero line, and what these seeds can and were said to detect."""
    pairs = pairs_of(rung, chosen)
    if not pairs:
        return None
    own = label_name(chosen)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        if math.isfinite(rung.detectable):
            axis.axvspan(-rung.detectable, rung.detectable, color=LIGHT, alpha=0.6, lw=0,
                         label=f"detectable with {rung.seeds} seeds: {num(rung.detectable)}")  # fmt: skip
        if math.isfinite(rung.promised):
            said = f"said before training: at least {num(rung.promised)}"
            for side, label in ((-1, said), (1, None)):
                axis.axvline(side * rung.promised, color=GREY, lw=1, ls=(0, (4, 3)), label=label)
        axis.axvline(0, color=INK, lw=1)
        for y, pair in zip(range(len(pairs))[::-1], pairs, strict=True):
            colour = ACCENT if pair.high < 0 else RED if pair.low > 0 else GREY
            if known(pair):
                axis.hlines(y, pair.low, pair.high, color=colour, lw=2.2)
            face = "white" if colour == GREY else colour
            axis.plot([pair.difference], [y], "o", color=colour, mfc=face, mew=1.6, ms=7)
        axis.set_yticks(range(len(pairs))[::-1], [_axis_name(p.control) for p in pairs])
        axis.set_ylim(-0.6, len(pairs) - 0.4)
        axis.grid(axis="x", color=LIGHT, lw=0.6)
        axis.set_axisbelow(True)
        axis.set_xlabel(f"{own} minus the selector, bits per byte (left of the line: {own} is better)")
        if axis.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", ncols=2)

    words = Words(
        name=name,
        caption=f"Paired differences of the objective with their {level_name(level)} intervals; filled: "
        "beyond the interval, hollow: not shown to differ. Grey band: smaller true differences than this "
        "are missed by these seeds more than one time in five; dashed: its lower bound said before training.",
        alt=f"{len(pairs)} differences; {own} is better than {sum(p.high < 0 for p in pairs)} selectors "
        f"beyond the interval and worse than {sum(p.low > 0 for p in pairs)}.",
        source=COMPARISON,
    )
    columns = ("selector", "difference", "low", "high", "standard_error", "seeds")
    rows = [(p.control, p.difference, p.low, p.high, p.stderr, p.pairs) for p in pairs]
    return picture(words, (10.4, 1.35 + 0.3 * len(pairs)), draw, columns=columns, rows=rows)


def _axis_name(label: str) -> str:
    return trim(clean(label_name(label)), 28)


# --------------------------------------------------------------------------- every task
def task_dots(rung: Rung, chosen: str, group: Group, name: str, level: float) -> Picture | None:
    """One panel per task: every selector's mean, interval and seeds, with the chance level."""
    tasks = tasks_of(rung, group)
    labels = shown(ranked(rung))
    if not tasks or not labels:
        return None
    panels = (
        sorted(tasks, key=lambda t: t.name not in MEANS)[:SHOWN_TASKS] if len(tasks) > SHOWN_TASKS else tasks
    )
    columns = min((4, 3), key=lambda c: (-len(panels) % c, -c)) if len(panels) > 4 else len(panels)
    lines = -(-len(panels) // columns)

    def draw(figure: Any) -> None:
        axes = grid(figure, len(panels), columns)
        heights = range(len(labels))[::-1]
        for place, (axis, task) in enumerate(zip(axes, panels, strict=True)):
            _panel(axis, task, labels, group=group, chosen=chosen, level=level)
            if place % columns:  # every tick costs milliseconds, and only the first column names the rows
                axis.set_yticks([])
            else:
                axis.set_yticks(heights, [trim(clean(label_name(label)), 22) for label in labels])
        figure.supxlabel(group.note.split(":")[0], fontsize=8.5)

    rest = f" The first {len(panels)} of {len(tasks)} tasks." if len(panels) < len(tasks) else ""
    chance = " Dotted: what guessing scores." if any(t.chance is not None for t in tasks) else ""
    own = label_name(chosen)
    words = Words(
        name=name,
        caption=f"{group.title} ({group.note}). Dots: means; bars: {level_name(level)} intervals over "
        f"seeds and items; small dots: single seeds. Filled: {own}, and what differs from it after Holm's "
        f"correction over the tasks; hollow: not shown to differ.{chance}{rest}",
        alt=f"{len(panels)} panels of {len(labels)} selectors. " + "; ".join(_best(t) for t in panels) + ".",
        source=COMPARISON,
    )
    columns_of_data = (
        "task", "metric", "selector", "mean", "low", "high", "chance", "items", "chosen_minus_it",
        "difference_low", "difference_high", "p", "p_holm", "survives", "seeds",
    )  # fmt: skip
    rows = [
        row for t in tasks for label in ranked(rung) if label in t.scores
        for row in [_row(t, label, level)]
    ]  # fmt: skip
    size = (10.4, 0.5 + lines * (0.62 + 0.165 * len(labels)))
    return picture(words, size, draw, columns=columns_of_data, rows=rows)


def _row(task: Task, label: str, level: float) -> tuple[object, ...]:
    score, own = task.scores[label], task.differences.get(label)
    nan = float("nan")
    between = (own.difference, own.low, own.high, own.p, own.p_holm) if own else (nan,) * 5
    mark = "" if not survives(own, level) or own is None else "better" if own.better else "worse"
    chance = nan if score.chance is None else score.chance
    return (
        task.name, task.metric, label, score.mean, score.low, score.high, chance, score.items, *between,
        mark, " ".join(map(repr, score.values)),
    )  # fmt: skip


def _best(task: Task) -> str:
    """Say who is best on a task; in the text alternative."""
    top = min if task.metric == "bits_per_byte" else max
    best = top(task.scores.values(), key=lambda s: s.mean)
    value = num(best.mean, 3) if task.metric == "bits_per_byte" else percent(best.mean)
    return f"{clean(task.title)}: best {clean(label_name(best.label))} {value}"


def _panel(axis: Any, task: Task, labels: Sequence[str], *, group: Group, chosen: str, level: float) -> None:
    unit = 100 if group.share else 1
    if task.chance is not None:
        axis.axvline(unit * task.chance, color=ORANGE, lw=1.4, ls=(0, (1, 1.5)))
    if chosen in task.scores:
        axis.axvline(unit * task.scores[chosen].mean, color=ACCENT, lw=0.8, alpha=0.5)
    rows = [(y, label) for y, label in enumerate(reversed(labels)) if label in task.scores]
    seeds = [(unit * v, y + 0.3) for y, label in rows for v in task.scores[label].values]
    axis.plot(*zip(*seeds, strict=True), "o", color=INK, ms=1.7, mew=0, alpha=0.6, zorder=3)
    solid = {label for _, label in rows if survives(task.differences.get(label), level)}
    for colour, filled, names in (
        (ACCENT, True, {chosen}),
        (GREY, True, solid - {chosen}),
        (GREY, False, set(labels) - solid - {chosen}),
    ):  # one call for all dots of a kind: hundreds of calls would take most of the report's time
        found = [(y, task.scores[label]) for y, label in rows if label in names]
        heights = [y for y, _ in found]
        axis.hlines(heights, [unit * s.low for _, s in found], [unit * s.high for _, s in found],
                    color=colour, lw=1.3)  # fmt: skip
        axis.plot([unit * s.mean for _, s in found], heights, "o", color=colour, ms=4.6, mew=1.1,
                  mfc=colour if filled else "white")  # fmt: skip
    axis.set_ylim(-0.7, len(labels) - 0.3)
    axis.set_title(trim(clean(task.title), 26), fontsize=8.5)
    axis.tick_params(axis="y", length=0)
    axis.locator_params(axis="x", nbins=3)
    axis.ticklabel_format(axis="x", useOffset=False)
    axis.hlines(range(len(labels)), 0, 1, color=LIGHT, lw=0.4, zorder=0, transform=axis.get_yaxis_transform())
    if task.chance is not None:
        beyond = sum(beyond_chance(task.scores[label]) for label in labels if label in task.scores)
        axis.set_xlabel(f"{beyond} of {len(labels)} beyond chance ({unit * task.chance:.3g} %)", fontsize=7.5)


# --------------------------------------------------------------------------- rung against rung
def transfer(found: Transfer, comparison: Comparison, name: str) -> Picture | None:
    """Objective in the small rung against the large one, with intervals; names in a column beside it."""
    if not found.labels:
        return None
    points = list(zip(found.labels, found.small_means, found.large_means, strict=True))
    named = sorted((p for p in points if p[0] in shown(found.labels)), key=lambda p: p[2])
    measured = {r.name: {m.label: m for m in r.measured} for r in comparison.rungs}
    small, large = measured.get(found.small, {}), measured.get(found.large, {})
    chosen = comparison.chosen
    both = [r.confidence for r in comparison.rungs if r.name in (found.small, found.large)] or [0.95]
    levels = " and ".join(dict.fromkeys(map(level_name, both)))
    height = max(3.8, 0.9 + 0.2 * len(named))

    def draw(figure: Any) -> None:
        axis, side = figure.subplots(1, 2, width_ratios=(4, 0.95))
        side.set_axis_off()
        for label, x, y in points:
            colour = ACCENT if label == chosen else GREY
            for own, flat in ((small.get(label), True), (large.get(label), False)):
                if own and math.isfinite(own.low):
                    (axis.hlines if flat else axis.vlines)(y if flat else x, own.low, own.high, color=colour,
                                                           lw=1, alpha=0.7)  # fmt: skip
            axis.plot([x], [y], "o", color=colour, ms=6 if label in shown([label]) else 3)
        axis.set_xlabel(f"loss at {trim(clean(found.small))}, bits per byte")
        axis.set_ylabel(f"loss at {trim(clean(found.large))}, bits per byte")
        axis.ticklabel_format(useOffset=False)
        axis.grid(color=LIGHT, lw=0.6)
        axis.set_axisbelow(True)
        _names(axis, named, chosen, 0.19 / (height - 0.7))

    words = Words(
        name=name,
        caption=f"Every selector's loss at {found.small} and at {found.large}; bars: {levels} "
        "intervals. From the lower left to the upper right: both rungs rank alike."
        + (" Small dots: random θ." if len(named) < len(points) else ""),
        alt=f"{len(points)} selectors; rank correlation {num(found.spearman, 2)} between "
        f"{clean(found.small)} and {clean(found.large)}.",
        source=COMPARISON,
    )
    columns = ("selector", "small_mean", "small_low", "small_high", "large_mean", "large_low", "large_high")
    rows = [(label, x, *_ends(small, label), y, *_ends(large, label)) for label, x, y in points]
    return picture(words, (10.4, height), draw, columns=columns, rows=rows)


def _ends(found: dict[str, Measured], label: str) -> tuple[float, float]:
    return (found[label].low, found[label].high) if label in found else (float("nan"), float("nan"))


def _names(axis: Any, named: Sequence[tuple[str, float, float]], chosen: str, gap: float) -> None:
    """Write the names right of the axis, each at its dot's height or as near as the others leave room."""
    low, high = axis.get_ylim()
    wanted = np.array([(y - low) / (high - low) for _, _, y in named])
    for (label, x, y), place in zip(named, spread(wanted, gap), strict=True):
        colour = ACCENT if label == chosen else INK
        axis.annotate(
            _axis_name(label), xy=(x, y), xytext=(1.03, place), textcoords="axes fraction", va="center",
            color=colour, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.5, "alpha": 0.6, "shrinkB": 4,
                "relpos": (0, 0.5)},
        ).set_in_layout(False)  # fmt: skip


def spread(wanted: Floats, gap: float) -> Floats:
    """Return ascending places in 0..1, near the ascending `wanted` (K,) and at least `gap` apart (less if
    there is no room)."""
    steps = min(gap, 1 / max(len(wanted) - 1, 1)) * np.arange(len(wanted))
    free = wanted - steps
    up, down = np.maximum.accumulate(free), np.minimum.accumulate(free[::-1])[::-1]
    return np.minimum(np.maximum((up + down) / 2, 0.0) + steps, 1.0 - steps[::-1])
