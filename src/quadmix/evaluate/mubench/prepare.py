"""A folder of aligned tasks -> what is in it, its split into parts, and on request mixed items.

Writes into `out`: splits.parquet (task, id, part; rows of other tasks stay), prepared.json (counts of the
call), and the files of the mixes. Of an address the files that are needed are copied there first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from quadmix.errors import InputError
from quadmix.evaluate.mubench.languages import LANGUAGES
from quadmix.evaluate.mubench.load import Loaded, load
from quadmix.evaluate.mubench.mix import mix_task, write_mix
from quadmix.evaluate.mubench.read import LanguageFacts
from quadmix.evaluate.mubench.sources import SOURCES, chosen_tasks, restricted, task_files
from quadmix.evaluate.mubench.splits import SHARES, parts_of
from quadmix.io.atomic import read_table, write_bytes, write_json, write_table
from quadmix.io.store import read_bytes
from quadmix.urls import is_remote

SPLITS, COUNTS = "splits.parquet", "prepared.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTask:
    """One task in one mode. parts: name -> items. missing: languages of the release that are not there; none
    for a task of the user's own. lacking: languages that it has in another mode, or another task of the call
    has. mixed: files of mixed items. unmixed: items in them in one language."""

    task: str
    mode: str
    items: int
    facts: tuple[LanguageFacts, ...]
    missing: tuple[str, ...]
    converted: tuple[str, ...]
    parts: dict[str, int]
    strays: tuple[str, ...]
    lacking: tuple[str, ...] = ()
    mixed: int = 0
    unmixed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is in a folder. problems: why a task was refused, file and id named. left_out: task -> why it is
    read only where it is named. restricted: task that was read -> a term of its authors."""

    folder: str
    tasks: tuple[PreparedTask, ...]
    problems: tuple[str, ...]
    left_out: dict[str, str]
    restricted: dict[str, str]


def prepare(
    folder: str | Path,
    out: str | Path,
    *,
    tasks: Sequence[str] = (),
    modes: Sequence[str] = ("lighteval",),
    languages: Sequence[str] | None = None,
    mix: int | None = None,
    seed: int = 0,
) -> Prepared:
    """Check and align tasks, count what is odd, and write splits, counts and mixes into `out`.

    tasks: none takes all that are there, without those of `sources.OFF`. languages: None takes all. mix: most
    other languages in one mixed item; only mode lighteval is mixed. A task that is refused is a problem of
    the result, and has no splits; the others are written. Raises InputError where no task is there.
    """
    work, off = chosen_tasks(str(folder), tasks)
    home = str(folder)
    if is_remote(home):
        for task in work:
            fetch(home, task, out, modes=modes, languages=languages)
        home = str(out)
    done: list[PreparedTask] = []
    problems: list[str] = []
    splits: dict[str, Loaded] = {}
    spoken: set[str] = set()
    for task in work:
        for mode in modes:
            try:
                loaded = load(home, task, mode, languages=languages)
                _check_ids(splits.get(task), loaded)
                done.append(_prepared(loaded, out, mix if mode == "lighteval" else None, seed))
            except InputError as error:
                problems.append(f"{task} ({mode}): {error}")
                continue
            splits.setdefault(task, loaded)
            spoken |= loaded.spoken if languages is None else set(languages)
    found = Prepared(
        folder=home,
        tasks=tuple(
            replace(one, lacking=tuple(sorted(spoken - {f.language for f in one.facts}))) for one in done
        ),
        problems=tuple(problems),
        left_out={task: SOURCES[task].restricted for task in off},
        restricted=restricted(list(splits)),
    )
    if splits:
        write_table(Path(out) / SPLITS, _split_table(splits, Path(out) / SPLITS))
        write_json(Path(out) / COUNTS, found)
    return found


def fetch(
    address: str, task: str, out: str | Path, *, modes: Sequence[str], languages: Sequence[str] | None
) -> list[Path]:
    """Copy the files of a task in these modes into `out`, in the same layout; return them.

    With lighteval local_template comes too, from which lacking languages are made. What is there already is
    not copied again. languages: None takes all.
    """
    files = task_files(address, task)
    wanted = {*modes, *(("local_template",) if "lighteval" in modes else ())}
    copied: list[Path] = []
    for (mode, language, split), path in files.paths.items():
        if mode not in wanted or (languages is not None and language not in languages):
            continue
        if mode not in modes and ("lighteval", language, split) in files.paths:
            continue
        target = Path(out) / Path(files.folder).name / Path(path).name
        copied.append(target)
        if target.exists():
            continue
        data = read_bytes(path)
        if data is None:
            raise InputError(f"{path} is listed but not there; fetch again")
        write_bytes(target, data)
    return copied


def _prepared(loaded: Loaded, out: str | Path, mix: int | None, seed: int) -> PreparedTask:
    task = loaded.task
    parts = parts_of(task.task, task.ids)
    files, unmixed = 0, 0
    if mix is not None:
        mixed = mix_task(task, most=mix, seed=seed)
        files, unmixed = len(write_mix(out, mixed)), sum(mixed.unmixed.values())
    return PreparedTask(
        task=task.task,
        mode=task.mode,
        items=len(task.ids),
        facts=loaded.facts,
        missing=tuple(c for c in LANGUAGES if c not in task.items) if task.task in SOURCES else (),
        converted=task.converted,
        parts={part: int((parts == part).sum()) for part in SHARES},
        strays=loaded.strays,
        mixed=files,
        unmixed=unmixed,
    )


def _check_ids(before: Loaded | None, now: Loaded) -> None:
    """Raise InputError where two modes of a task have other ids: one split could not serve both."""
    if before is not None and before.task.ids != now.task.ids:
        odd = sorted(set(before.task.ids) ^ set(now.task.ids))
        raise InputError(
            f"its {len(now.task.ids)} ids are not the {len(before.task.ids)} of mode {before.task.mode}, as "
            f"{odd[0]!r}; expected the same questions in every mode: fetch both from one release"
        )


def _split_table(splits: dict[str, Loaded], before: Path) -> pa.Table:
    """Return the parts of these tasks, and of those that only `before` has."""
    ids = {task: loaded.task.ids for task, loaded in splits.items()}
    made = pa.table(
        {
            "task": pa.array([task for task, own in ids.items() for _ in own], pa.string()),
            "id": pa.array([i for own in ids.values() for i in own], pa.string()),
            "part": pa.array(np.concatenate([parts_of(task, own) for task, own in ids.items()]), pa.string()),
        }
    )
    if not before.is_file():
        return made
    other = read_table(before)
    keep = [name not in ids for name in other["task"].to_pylist()]
    return pa.concat_tables([other.filter(pa.array(keep, pa.bool_())), made])
