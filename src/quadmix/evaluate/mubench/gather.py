"""Files named on the command line -> the predictions of one model and the items they are of.

A file is a Parquet of predictions (`tables`) or the harness' samples; a folder stands for those in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quadmix.errors import InputError
from quadmix.evaluate.mubench.estimators import HEADLINES
from quadmix.evaluate.mubench.items import AlignedTask, Predictions
from quadmix.evaluate.mubench.load import load_task
from quadmix.evaluate.mubench.nulls import NULLS
from quadmix.evaluate.mubench.samples import read_samples
from quadmix.evaluate.mubench.tables import COLUMNS, Answers, join_answers, read_predictions
from quadmix.io.atomic import table_columns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gathered:
    """items: (task, mode) -> the items, where they are at hand. ignored: files of samples of other tasks."""

    predictions: list[Predictions]
    items: dict[tuple[str, str], AlignedTask]
    ignored: tuple[str, ...]


def gather(
    paths: Sequence[str | Path],
    *,
    data: str | Path | None = None,
    tasks: Sequence[str] = (),
    estimators: Sequence[str] = (),
) -> Gathered:
    """Read predictions; languages of one task may stand in several files.

    data: folder of the items, for predictions in Parquet (samples have theirs inside). tasks: those to keep;
    none keeps all. estimators: those to keep beside the nulls; none keeps the one that stands for a task
    (`HEADLINES`), `acc` where that was not predicted; "all" keeps all. Raises InputError where nothing is
    found, a language is there twice, or files do not fit.
    """
    tables, samples = _files(paths)
    logged = read_samples(samples)
    found = [*(p for path in tables for p in read_predictions(path)), *logged.predictions]
    merged = _kept(_merged([p for p in found if not tasks or p.task in tasks]), estimators)
    if not merged:
        named = f" of {', '.join(tasks)}" if tasks else ""
        raise InputError(
            f"no predictions{named} in {', '.join(map(str, paths))}; expected a Parquet of `quadmix mubench "
            "evaluate`, or samples_mubench_*.jsonl of lm_eval --log_samples"
        )
    items = {key: task for key, task in logged.items.items() if not tasks or key[0] in tasks}
    if data is not None:
        for key, languages in _needed(merged).items():
            if key not in items:
                items[key] = load_task(data, *key, languages)
    return Gathered(predictions=merged, items=items, ignored=logged.ignored)


def _files(paths: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """Return the tables and the files of samples."""
    tables: list[Path] = []
    samples: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            samples += sorted(path.rglob("samples_*.jsonl"))
            tables += [p for p in sorted(path.glob("*.parquet")) if set(COLUMNS) <= set(table_columns(p))]
        elif not path.is_file():
            raise InputError(f"{path} does not exist; expected predictions: a file, or a folder with them")
        elif path.suffix == ".parquet":
            tables.append(path)
        else:
            samples.append(path)
    return tables, samples


def _merged(found: Sequence[Predictions]) -> list[Predictions]:
    """Return one per task, mode and estimator, joined by id over files."""
    groups: dict[tuple[str, str, str], dict[str, Answers]] = {}
    for one in found:
        languages = groups.setdefault((one.task, one.mode, one.estimator), {})
        for language, chosen in one.chosen.items():
            if language in languages:
                raise InputError(
                    f"{one.task} ({one.mode}, {one.estimator}): {language} is predicted in two files; "
                    "expected one model: name the files of one"
                )
            languages[language] = Answers(ids=one.ids, chosen=chosen, labels=one.labels, options=one.options)
    return [join_answers("predictions", key, languages) for key, languages in groups.items()]


def _kept(found: list[Predictions], estimators: Sequence[str]) -> list[Predictions]:
    """Return the nulls and the predictions by the estimators asked for, in the order they came in."""
    if "all" in estimators:
        return found
    there: dict[tuple[str, str], list[str]] = {}
    for one in found:
        if one.estimator not in NULLS:
            there.setdefault((one.task, one.mode), []).append(one.estimator)
    if lacking := sorted(set(estimators) - {name for names in there.values() for name in names}):
        known = sorted({name for names in there.values() for name in names})
        raise InputError(f"no predictions by estimator {lacking[0]!r}; there are {', '.join(known)}")
    wanted = {key: estimators or _standing(key[0], names) for key, names in there.items()}
    return [p for p in found if p.estimator in NULLS or p.estimator in wanted[p.task, p.mode]]


def _standing(task: str, names: Sequence[str]) -> Sequence[str]:
    """Return the estimator that stands for the task; all names where neither it nor acc is there."""
    return next(([name] for name in (HEADLINES.get(task, "acc"), "acc") if name in names), names)


def _needed(found: Sequence[Predictions]) -> dict[tuple[str, str], list[str]]:
    """Return the languages that were predicted, per task and mode."""
    needed: dict[tuple[str, str], dict[str, None]] = {}
    for one in found:
        needed.setdefault((one.task, one.mode), {}).update(dict.fromkeys(one.chosen))
    return {key: list(languages) for key, languages in needed.items()}
