"""The section "How did the run go?": when which stage ran, how fast, what failed, what it took.

In: events.jsonl, stages/, trials, quarantine/, progress.json. Out: HTML and a timeline. What the log of an
earlier version does not hold (workers of a process, the moment of a kill) is left out and said to be unknown.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quadmix.report.html import Gallery, Html, details, join, not_run, note, section, show, table, tag
from quadmix.report.load import STAGES, RunFiles
from quadmix.report.origins import RECIPE
from quadmix.report.passes import History, Pass, Process
from quadmix.report.plots import ACCENT, GREY, LIGHT, RED, Picture, Words, picture
from quadmix.report.records import EVENTS, QUARANTINE
from quadmix.report.text import clean, count, num, percent, short, sig
from quadmix.types import Trial

TITLE = "How did the run go?"
SHOWN_FAILURES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """What a stage worked on, None where it does not count that. source: the file that says so.

    busy: seconds that workers spent on its models, 0 where it trains none.
    """

    documents: int | None
    tokens: int | None
    source: str
    busy: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """Time of one stage. seconds: of all its passes together, as far as they are known; `more`: one of them
    was cut off at an unknown moment, so it took longer."""

    stage: str
    passes: int
    seconds: float
    more: bool


def health(files: RunFiles, gallery: Gallery) -> Html:
    """Timeline, throughput, models that failed, rows in quarantine, cost."""
    history, times = files.records.history, stage_times(files)
    if not times:
        return section("health", TITLE, not_run("no stage has begun"), source=())
    parts = [note(_said(files, times)), show(gallery, timeline(files)), _speed_table(files, times)]
    parts += [_steps_table(history), tag("h3", "What it took"), _cost(files, times)]
    parts += [
        tag("h3", "Models"),
        _models(files),
        tag("h3", "Rows that were no documents"),
        _quarantine(files),
    ]
    return section("health", TITLE, *parts, source=_sources(files))


def _sources(files: RunFiles) -> list[str]:
    return [EVENTS] if files.records.history.passes else ["stages/"]


# --------------------------------------------------------------------------- time
def stage_times(files: RunFiles) -> list[StageTime]:
    """Return the time of every stage that began, in the order of the run."""
    passes = _passes(files)
    if not passes:
        return [StageTime(stage=s.stage, passes=1, seconds=s.seconds, more=False) for s in files.stages]
    names = sorted({p.stage for p in passes}, key=_place)
    return [_time([p for p in passes if p.stage == name]) for name in names]


def _passes(files: RunFiles) -> list[Pass]:
    """Return all passes but that of the page which is being written."""
    return [p for p in files.records.history.passes if (p.stage, p.state) != ("report", "open")]


def _place(stage: str) -> tuple[int, str]:
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), stage)


def _time(passes: list[Pass]) -> StageTime:
    return StageTime(
        stage=passes[0].stage,
        passes=len(passes),
        seconds=sum(p.end - p.start for p in passes if p.end is not None),
        more=any(p.state != "ended" for p in passes),
    )


def _said(files: RunFiles, times: list[StageTime]) -> str:
    history, failed = files.records.history, sum(t.status == "failed" for t in all_trials(files))
    more = any(t.more for t in times)
    said = f"{'At least ' if more else ''}{clock(sum(t.seconds for t in times))} at work"
    if history.processes:
        said += f", in {count(len(history.processes))} process{'es' if len(history.processes) > 1 else ''}"
        cut = sum(p.state == "cut" for p in history.passes)
        said += f"; {count(cut)} {'stage was' if cut == 1 else 'stages were'} cut off" if cut else ""
    said += f". {count(failed)} of {count(len(all_trials(files)))} models failed."
    if history.broken:
        said += f" Lines of the log that cannot be read: {count(history.broken)}."
    return said


def clock(seconds: float) -> str:
    """Return 3900 as 1 h 05 min."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole // 60 % 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{num(seconds, 1)} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """A pass on the axis of time at work: seconds from the first start, without gaps between processes."""

    stage: str
    process: int
    begin: float
    seconds: float
    state: str


def timeline(files: RunFiles) -> Picture:
    """Bars of the passes over the time at work; of a run without a log its stages one after another."""
    bars, starts = _bars(files)
    names = sorted({b.stage for b in bars}, key=_place)
    place = {name: len(names) - 1 - i for i, name in enumerate(names)}
    most = max((b.begin + b.seconds for b in bars), default=0.0)
    unit, size = ("hours", 3600.0) if most >= 7200 else ("minutes", 60.0) if most >= 180 else ("seconds", 1.0)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for number, start in enumerate(starts, start=1):
            if len(starts) > 1:
                axis.axvline(start / size, color=GREY, lw=0.8, ls=(0, (4, 3)))
                axis.text(
                    start / size, len(names) - 0.42, f" {number}", fontsize=7.5, color=GREY, va="bottom"
                )
        for bar in bars:
            colour = {"ended": ACCENT, "open": GREY}.get(bar.state, RED)
            axis.barh(place[bar.stage], max(bar.seconds, most / 600) / size, 0.6, left=bar.begin / size,
                      color=colour, hatch=None if bar.state == "ended" else "////", edgecolor="white",
                      lw=0)  # fmt: skip
            if bar.state != "ended":  # of some nobody knows how long they took
                axis.plot([(bar.begin + bar.seconds) / size], [place[bar.stage]], "x", color=colour, ms=7)
        axis.set_yticks(range(len(names)), [clean(n) for n in reversed(names)])
        axis.set_ylim(-0.6, len(names) - 0.4 + 0.3 * (len(starts) > 1))
        axis.set_xlim(0, most / size * 1.01 or 1.0)
        axis.grid(axis="x", color=LIGHT, lw=0.6)
        axis.set_axisbelow(True)
        axis.set_xlabel(f"time at work, {unit}")

    states = {b.state for b in bars}
    words = Words(
        name="timeline",
        caption="When each stage ran"
        + ("; dashed: another process went on, the time between processes is left out" * (len(starts) > 1))
        + ("; red: cut off (drawn to the last sign of life)" * ("cut" in states))
        + ("; grey: not ended yet" * ("open" in states))
        + ("" if files.records.history.passes else "; without a log: stage after stage by their seconds")
        + ".",
        alt=f"Timeline of {len(names)} stages over {clock(most)}, {len(starts)} processes.",
        source=tuple(_sources(files)),
    )
    rows = [(b.stage, b.process, b.begin, b.seconds, b.state) for b in bars]
    columns = ("stage", "process", "begin_s", "seconds", "state")
    return picture(words, (10.4, 1.1 + 0.27 * len(names)), draw, columns=columns, rows=rows)


def _bars(files: RunFiles) -> tuple[list[_Bar], list[float]]:
    """Return the bars, and where each process begins on the axis."""
    history = files.records.history
    if not history.passes:
        begins = np.cumsum([0.0, *(s.seconds for s in files.stages)]).tolist()
        return [
            _Bar(stage=s.stage, process=1, begin=b, seconds=s.seconds, state="ended")
            for s, b in zip(files.stages, begins, strict=False)
        ], [0.0]
    lasted = [p.end - p.start for p in history.processes]
    starts = np.cumsum([0.0, *lasted[:-1]]).tolist()
    return [
        _Bar(
            stage=p.stage,
            process=p.process,
            begin=starts[p.process - 1] + p.start - history.processes[p.process - 1].start,
            seconds=0.0 if p.end is None else p.end - p.start,
            state=p.state,
        )
        for p in _passes(files)
    ], starts


# --------------------------------------------------------------------------- throughput
def amounts(files: RunFiles) -> dict[str, Amount]:
    """Return what each stage worked on, by the facts it left."""
    facts = {s.stage: s.facts for s in files.stages}
    found = {
        name: Amount(
            documents=_whole(facts[name].get("documents")),
            tokens=_whole(facts[name].get("tokens")),
            source="stages/",
        )
        for name in ("corpus", "annotate", "pool")
        if name in facts
    }
    kinds = {"swarm": ("prior", "repeat"), "confirm": ("confirm",)}
    groups = {name: [t for t in files.trials if t.kind in kind] for name, kind in kinds.items()}
    groups["evaluate"] = [*files.comparison_trials, *(t for t in files.trials if t.kind == "regmix")]
    for name, trials in groups.items():
        if trials:
            tokens = sum(t.train_tokens for t in trials if t.status == "done")
            source = "evaluate/" if name == "evaluate" else "trials/"
            busy = sum(t.seconds for t in trials)
            found[name] = Amount(documents=None, tokens=tokens, source=source, busy=busy)
    if files.dataset is not None:
        ledger = files.dataset.ledger
        found["materialise"] = Amount(
            documents=ledger.copies, tokens=ledger.tokens_out, source="dataset/manifest.json"
        )
    return found


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _speed_table(files: RunFiles, times: list[StageTime]) -> Html:
    known, rows, workers = amounts(files), list[list[str]](), most_workers(files)
    for time in times:
        amount = known.get(time.stage)
        documents, tokens = (amount.documents, amount.tokens) if amount else (None, None)
        rows.append(
            [
                time.stage, count(time.passes), f"{'≥ ' if time.more else ''}{num(time.seconds, 1)}",
                count(documents), count(tokens),
                *(_rate(n, time, amount.busy if amount else 0.0, workers) for n in (documents, tokens)),
            ]
        )  # fmt: skip
    headers = ["stage", "passes", "seconds", "documents", "tokens", "documents/s", "tokens/s"]
    caption = (
        "Throughput over all passes of a stage: documents read or rows written, tokens counted, trained on "
        "or written; ≤ where it took longer than is known, or where models may have been trained before this "
        "log began; – where they were, as more workers than there are would have been at work"
    )
    source = [*_sources(files), *dict.fromkeys(a.source for a in known.values())]
    return table(headers, rows, caption=caption, source=list(dict.fromkeys(source)))


def most_workers(files: RunFiles) -> int:
    """Return how many workers there were at once, by the log or else the recipe; 0 if neither says so."""
    most = max((p.workers for p in files.records.history.processes), default=0)
    return most or (files.recipe.run.workers if files.recipe else 0)


def _rate(amount: int | None, time: StageTime, busy: float, workers: int) -> str:
    """Return what went through per second. Models that took more worker time than the stage had are older."""
    if amount is None or time.seconds <= 0 or (workers and busy > 1.1 * time.seconds * workers + 1):
        return "–"
    unsure = time.more or (busy > time.seconds and not workers)
    return f"{'≤ ' if unsure else ''}{short(amount / time.seconds)}"


def _steps_table(history: History) -> Html:
    if not history.work:
        return Html("")
    rows = [
        [
            w.stage, w.step, f"{count(w.units)} {w.unit}", num(w.seconds, 1),
            short(w.documents / w.seconds) if w.documents and w.seconds else "–",
            short(w.tokens / w.seconds) if w.tokens and w.seconds else "–",
            count(w.retried), count(w.failed),
        ]
        for w in history.work
    ]  # fmt: skip
    headers = ["stage", "step", "work", "seconds", "documents/s", "tokens/s", "retried", "failed"]
    caption = "Every step that ran; retried = given out again because a worker died"
    return details("Step by step", table(headers, rows, caption=caption, words=3, source=[EVENTS]))


# --------------------------------------------------------------------------- cost
def worker_hours(files: RunFiles) -> float | None:
    """Return the hours of all workers by the log, else by the recipe; None if neither knows their number."""
    processes = files.records.history.processes
    if _logged(processes):
        return sum((p.end - p.start) * p.workers for p in processes) / 3600
    workers = files.recipe.run.workers if files.recipe else 0
    return sum(t.seconds for t in stage_times(files)) * workers / 3600 if workers else None


def _logged(processes: Sequence[Process]) -> bool:
    """Return whether the log knows the workers of every process."""
    return bool(processes) and all(p.workers for p in processes)


def _cost(files: RunFiles, times: list[StageTime]) -> Html:
    """Hours by the clock, of workers, and of models in training."""
    wall = sum(t.seconds for t in times)
    rows = [["by the clock", num(wall / 3600, 2), "stages"]]
    processes, hours = files.records.history.processes, worker_hours(files)
    if hours is None:
        how = "unknown: the log does not say how many workers there were"
    elif _logged(processes):
        devices = ", ".join(dict.fromkeys(p.device for p in processes))
        how = f"up to {count(most_workers(files))} at once, device {devices or 'unknown'}"
    else:
        how = f"run.workers = {count(most_workers(files))}"
    rows.append(["of workers", num(hours, 2), how])
    trained = sum(t.seconds for t in all_trials(files)) / 3600
    rows.append(["of models in training", num(trained, 2), "a group's time shared out among its models"])
    source = [*_sources(files), "trials/", *(["evaluate/"] if files.comparison_trials else [])]
    own = files.recipe.report if files.recipe else None
    if own is None or own.price_per_hour is None:
        caption = "Hours; report.price_per_hour in the recipe adds what they cost"
    else:
        cost = f"{num(wall / 3600 * own.price_per_hour, 2)} {own.currency}"
        rows.append(
            ["cost by the clock", cost, f"hours by the clock x {sig(own.price_per_hour)} {own.currency}"]
        )
        caption = "Hours, and what they cost"
        source = [*source, *RECIPE]
    return table(["hours", "number", "counted"], rows, caption=caption, source=source)


# --------------------------------------------------------------------------- what went wrong
def all_trials(files: RunFiles) -> list[Trial]:
    """Return the trials of the search and of the comparison."""
    return [*files.trials, *files.comparison_trials]


def _models(files: RunFiles) -> Html:
    trials = all_trials(files)
    if not trials:
        return not_run("no model has been trained")
    rows: list[list[str]] = []
    for kind in dict.fromkeys(t.kind for t in trials):
        mine = [t for t in trials if t.kind == kind]
        done = [t for t in mine if t.status == "done"]
        seconds = sum(t.seconds for t in mine)
        tokens = sum(t.train_tokens for t in done)
        rows.append(
            [
                kind, count(len(done)), count(len(mine) - len(done)), count(tokens), num(seconds / 3600, 2),
                short(tokens / seconds) if seconds else "–",
            ]
        )  # fmt: skip
    source = ["trials/", *(["evaluate/"] if files.comparison_trials else [])]
    caption = "Models by kind; hours: each model's share of its group's time; tokens per second of these"
    headers = ["kind", "done", "failed", "tokens", "hours", "tokens/s"]
    return join(table(headers, rows, caption=caption, source=source), _failures(trials, source))


def _failures(trials: list[Trial], source: list[str]) -> Html:
    failed = [t for t in trials if t.status == "failed"]
    reasons = Counter(t.reason for t in failed).most_common(SHOWN_FAILURES)
    if not failed:
        return note("No model failed.")
    rows = [
        [
            reason or "no reason given", count(number),
            ", ".join(t.trial_id for t in [t for t in failed if t.reason == reason][:5]),
        ]
        for reason, number in reasons
    ]  # fmt: skip
    caption = "Models that failed, by reason; they are left out of everything that is computed from trials"
    return table(["reason", "models", "for instance"], rows, caption=caption, source=source)


def _quarantine(files: RunFiles) -> Html:
    bad = files.records.bad_rows
    if not bad:
        counted = {} if files.dataset is None else files.dataset.ledger.quarantined
        if sum(counted.values()):
            return note(
                f"{count(sum(counted.values()))} rows were put into quarantine, but {QUARANTINE} is not here."
            )
        return note("None: every row was a document.")
    total = sum(b.rows for b in bad)
    rows = [[b.file, b.reason, count(b.rows), percent(b.rows / total)] for b in bad]
    caption = f"{count(total)} rows in quarantine, by file and reason"
    return table(["file", "reason", "rows", "share"], rows, caption=caption, words=2, source=[QUARANTINE])
