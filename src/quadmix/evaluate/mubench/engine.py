"""A model on aligned tasks: every (task, mode, language) is scored once and kept, then all is put together.

In: a model folder, a benchmark folder, names. Out: in a results folder
  identity.json        the model that it belongs to
  cells/*.parquet      log-likelihoods per option, one file per task, mode and language (`cells`)
  scores.parquet       `Score` rows: accuracies, their nulls, loss of the right answers, and what taking the
                       shortest or the longest option reaches
  predictions.parquet  what was chosen, for the consistency of languages
  evaluation.json      what was scored and what was left out, by id
A killed call goes on with the next cell. Tasks of an earlier call are kept in the two tables; a task that is
asked for again replaces its rows, with the languages that are asked for now.

Only items that fit into the model's context in every language count: an answer is never cut. A prompt that is
too long loses its beginning, as in lm-evaluation-harness; both are counted by id.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from quadmix.codec import from_json
from quadmix.errors import IdentityError, InputError
from quadmix.evaluate.mubench.cells import (
    Cell,
    cell_key,
    cell_path,
    pair_count,
    read_cell,
    score_cell,
    write_cell,
)
from quadmix.evaluate.mubench.estimators import (
    accuracy_scores,
    common,
    estimators,
    headline,
    loss_scores,
    predicted,
)
from quadmix.evaluate.mubench.forms import is_cloze, questions
from quadmix.evaluate.mubench.items import AlignedTask, Predictions
from quadmix.evaluate.mubench.load import load_task, subset
from quadmix.evaluate.mubench.model import CausalModel, ModelFacts
from quadmix.evaluate.mubench.nulls import FROM_TEXT, text_nulls
from quadmix.evaluate.mubench.sources import source_of
from quadmix.evaluate.mubench.tables import read_predictions, write_predictions
from quadmix.io.atomic import read_table, read_value, sweep, value_digest, write_json, write_table
from quadmix.io.lease import lease
from quadmix.rng import keyed_uniform
from quadmix.types import Score

Tell = Callable[[str, int, int], None]
SCORES, PREDICTIONS, EVALUATION, IDENTITY = (
    "scores.parquet", "predictions.parquet", "evaluation.json", "identity.json",
)  # fmt: skip
MACRO = "macro"
_FIELDS = ("task", "language", "metric", "value", "stderr", "n", "chance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be scored. languages: () takes all that the folder has. split: as `load.load`. limit: items
    per task at most, the same ids in every language. unconditional: also without the prompt."""

    tasks: tuple[str, ...]
    mode: str = "lighteval"
    languages: tuple[str, ...] = ()
    split: str = "report"
    limit: int | None = None
    unconditional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFacts:
    """One cell. cut: items whose prompt lost its beginning. unfit: items with an option that does not fit
    into the context, or without the blank that is to be filled. kept: was it there already? seconds: of
    scoring, 0 for one that was there."""

    language: str
    items: int
    cut: tuple[str, ...]
    unfit: tuple[str, ...]
    kept: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """One task. headline: the estimator that stands for it. items: that count, in every language. left_out:
    those that do not, since they are unfit in some language."""

    task: str
    mode: str
    split: str
    headline: str
    items: int
    left_out: tuple[str, ...]
    cells: tuple[CellFacts, ...]
    converted: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """evaluation.json. packed: were the options of a prompt computed together? None: nothing was scored.
    scores: of the tasks that this call asked for, averages over them last."""

    model: ModelFacts
    packed: bool | None
    tasks: tuple[TaskFacts, ...]
    scores: tuple[Score, ...]
    version: int = field(default=1)


def evaluate_model(
    model: CausalModel, folder: str | Path, out: str | Path, wanted: Wanted, tell: Tell | None = None
) -> Evaluation:
    """Score what is wanted and put it together; see above for the files.

    tell: (what, done, of how many), in pairs of one task. Raises IdentityError for a results folder of
    another model; InputError for unknown tasks, modes or languages, or a task of which no item fits.
    """
    home = Path(out)
    _check_folder(home, model.facts)
    with lease(home):
        _check_folder(home, model.facts)  # again: another process may have made it its own meanwhile
        write_json(home / IDENTITY, model.facts)
        sweep(home / "cells")
        tasks: list[TaskFacts] = []
        scores: list[Score] = []
        chosen: list[Predictions] = []
        for number, name in enumerate(wanted.tasks, start=1):
            task = wanted_task(folder, name, wanted)
            label = f"{name} ({number} of {len(wanted.tasks)})"
            cells, facts = _cells(model, task, home, wanted, partial(tell or _nobody, label))
            found, rows, kept = _together(task, cells, facts, wanted.split)
            tasks.append(found)
            scores += rows
            chosen += kept
            _write_tables(home, rows, kept)
        scores += macro_scores(tasks, scores)
        done = Evaluation(model=model.facts, packed=model.packs, tasks=tuple(tasks), scores=tuple(scores))
        write_json(home / EVALUATION, done)
    return done


def wanted_task(folder: str | Path, name: str, wanted: Wanted) -> AlignedTask:
    """Return a task with the items that are wanted: a part of them by a hash, nested for growing limits."""
    if wanted.limit is not None and wanted.limit < 1:
        raise InputError(f"limit is {wanted.limit}, expected at least one item; leave it out to take all")
    task = load_task(folder, name, wanted.mode, list(wanted.languages) or None, wanted.split)
    if not task.ids:
        raise InputError(f"{name} ({wanted.mode}): the part {wanted.split!r} has no item; take --split test")
    if wanted.limit is None or len(task.ids) <= wanted.limit:
        return task
    order = np.argsort(keyed_uniform(0, [f"{name}\x1f{i}" for i in task.ids], "mubench-limit"), kind="stable")
    return subset(task, sorted(order[: wanted.limit].tolist()))


def macro_scores(tasks: Sequence[TaskFacts], scores: Sequence[Score]) -> list[Score]:
    """Return per language the mean of the tasks' headline accuracies: over tasks of one family (NLI) first,
    then over the families of an ability, then over abilities. n: items of all tasks. One task: none."""
    if len(tasks) < 2:
        return []
    heads = {f"{t.task}_{t.mode}": t for t in tasks}
    found: dict[str, dict[str, Score]] = {}
    for score in scores:
        if (own := heads.get(score.task)) and score.metric == own.headline:
            found.setdefault(score.language, {})[own.task] = score
    out: list[Score] = []
    for language, own in found.items():
        if len(own) < len(tasks):
            continue  # a mean over fewer tasks would stand beside means over all
        shares = task_shares(own)
        error = np.sqrt(sum((shares[name] * score.stderr) ** 2 for name, score in own.items()))
        out.append(
            Score(
                task=f"{MACRO}_{tasks[0].mode}", language=language, metric="accuracy",
                value=sum(shares[name] * score.value for name, score in own.items()), stderr=float(error),
                n=sum(score.n for score in own.values()),
                chance=sum(shares[name] * (score.chance or 0.0) for name, score in own.items()),
            )
        )  # fmt: skip
    return out


def task_shares(tasks: Sequence[str] | Mapping[str, object]) -> dict[str, float]:
    """Return the share of each task in a mean: equal per ability, in it per family, in it per task."""
    abilities: dict[str, dict[str, list[str]]] = {}
    for name in tasks:
        source = source_of(name)
        abilities.setdefault(source.ability, {}).setdefault(source.family, []).append(name)
    return {
        name: 1 / len(abilities) / len(families) / len(members)
        for families in abilities.values()
        for members in families.values()
        for name in members
    }


def read_scores(path: str | Path) -> list[Score]:
    """Return the rows of a scores.parquet."""
    return [from_json(Score, row, where=str(path)) for row in read_table(path).to_pylist()]


def _nobody(_what: str, _done: int, _total: int) -> None:
    pass


def _check_folder(home: Path, facts: ModelFacts) -> None:
    """Refuse a results folder of another model, or a folder with something else in it."""
    file = home / IDENTITY
    if not file.is_file():
        found = sorted(p.name for p in home.iterdir()) if home.is_dir() else []
        if others := [name for name in found if name != "lease.json" and not name.startswith(".tmp-")]:
            raise InputError(
                f"{home} has {others[0]!r} and no {IDENTITY}, so it is no results folder; expected a new or "
                "empty one: name another with --out"
            )
        return
    own, now = asdict(read_value(file, ModelFacts)), asdict(facts)
    differ = [name for name in ("digest", "precision", "context") if own[name] != now[name]]
    if differ:
        shown = "; ".join(f"{n}: folder has {own[n]!r}, now {now[n]!r}" for n in differ)
        raise IdentityError(
            f"{home} holds results of model {own['name']!r}, not of {now['name']!r} ({shown}); scores of two "
            "models in one folder would be mixed: name another with --out"
        )


def _cells(
    model: CausalModel, task: AlignedTask, home: Path, wanted: Wanted, tell: Callable[[int, int], None]
) -> tuple[dict[str, Cell], list[CellFacts]]:
    """Load or score the cells of a task."""
    made_of = value_digest([model.facts.digest, model.facts.precision, model.facts.context])
    asked = {lang: questions(task.task, task.mode, lang, items) for lang, items in task.items.items()}
    total, done = sum(pair_count(q, unconditional=wanted.unconditional) for q in asked.values()), 0

    def advance(pairs: int) -> None:
        nonlocal done
        done += pairs
        tell(done, total)

    cells: dict[str, Cell] = {}
    facts: list[CellFacts] = []
    for language, own in asked.items():
        path = cell_path(home, task.task, task.mode, language)
        key = cell_key(own, made_of, unconditional=wanted.unconditional)
        began, cell = time.monotonic(), read_cell(path, key)
        kept = cell is not None
        if cell is None:
            where = f"{task.task} ({task.mode}, {language})"
            cell = score_cell(model, own, where, unconditional=wanted.unconditional, tell=advance)
            write_cell(path, cell, key)
        else:
            advance(pair_count(own, unconditional=wanted.unconditional))
        cells[language] = cell
        facts.append(
            CellFacts(
                language=language, items=len(cell.ids), cut=cell.cut_ids, kept=kept,
                unfit=tuple(name for name, fits in zip(cell.ids, cell.fits, strict=True) if not fits),
                seconds=0.0 if kept else time.monotonic() - began,
            )
        )  # fmt: skip
    return cells, facts


def _together(
    task: AlignedTask, cells: Mapping[str, Cell], facts: Sequence[CellFacts], split: str
) -> tuple[TaskFacts, list[Score], list[Predictions]]:
    fits = common(task, cells)
    left_out = tuple(name for name, ok in zip(task.ids, fits, strict=True) if not ok)
    if not fits.any():
        raise InputError(
            f"{task.task} ({task.mode}): no item fits into the model's context in every language "
            f"({task.ids[0]!r}, ...): the answers alone are longer; leave the task out with --tasks, or take "
            "a model with a longer context"
        )
    own = subset(task, np.flatnonzero(fits).tolist())
    found = [replace(predicted(own, cells, name), scores=None) for name in estimators(cells)]
    scores = [score for one in found for score in accuracy_scores(one)]
    if is_cloze(task.mode):
        scores += loss_scores(own, cells)
        nulls = [score for null in text_nulls(own) for score in accuracy_scores(null)]
        scores += [score for score in nulls if score.metric in FROM_TEXT]
    done = TaskFacts(
        task=task.task, mode=task.mode, split=split, headline=headline(task.task, cells), items=len(own.ids),
        left_out=left_out, cells=tuple(facts), converted=task.converted,
    )  # fmt: skip
    return done, scores, found


def _write_tables(home: Path, scores: Sequence[Score], chosen: Sequence[Predictions]) -> None:
    """Put a task's rows in place of its earlier ones; the rows of other tasks stay."""
    file = home / SCORES
    names = {score.task for score in scores}
    kept = [row for row in read_scores(file) if row.task not in names] if file.is_file() else []
    rows = [asdict(score) for score in [*kept, *scores]]
    write_table(file, pa.table({name: [row[name] for row in rows] for name in _FIELDS}))
    file = home / PREDICTIONS
    own = {(one.task, one.mode) for one in chosen}
    before = read_predictions(file) if file.is_file() else []
    write_predictions(file, [*(p for p in before if (p.task, p.mode) not in own), *chosen])
