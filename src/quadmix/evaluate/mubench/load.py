"""Files of several languages -> one `AlignedTask`, joined by `_id`, or an error that says why not.

Rows are never joined by their number: the order of rows differs between languages. After the join the number
of options and the index of the right one must be equal in every language, which a shifted join cannot give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quadmix.errors import InputError
from quadmix.evaluate.mubench.items import AlignedTask, Item
from quadmix.evaluate.mubench.options import to_cloze
from quadmix.evaluate.mubench.read import LanguageFacts, facts_of, read_items
from quadmix.evaluate.mubench.sources import DEV, Files, check_mode, task_files
from quadmix.evaluate.mubench.splits import SHARES, parts_of

_CLOZE, _FROM = "lighteval", "local_template"
_NAMED = 3  # ids or languages spelt out in a message


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """An aligned task, what its files hold (all rows, before a split), the languages of its files in any
    mode, and names outside the layout."""

    task: AlignedTask
    facts: tuple[LanguageFacts, ...]
    spoken: frozenset[str]
    strays: tuple[str, ...]


def load_task(
    folder: str | Path, task: str, mode: str, languages: Sequence[str] | None = None, split: str = "test"
) -> AlignedTask:
    """Return the items of a task in several languages, sorted by id; see `load`."""
    return load(folder, task, mode, languages=languages, split=split).task


def load(
    folder: str | Path, task: str, mode: str, *, languages: Sequence[str] | None = None, split: str = "test"
) -> Loaded:
    """Read, check and align a task.

    folder: a local folder, or an address as hf://datasets/aialt/MuBench (files are then downloaded now).
    languages: None takes all that are there. split: "test", its parts "target", "select" and "report", or
    "dev". A language without files of `lighteval` gets cloze items made from its local_template, and is
    named in `converted`.
    Raises InputError naming file and id: a language without files, a bad row, id sets, numbers of options or
    labels that differ between languages.
    """
    if split not in ("test", "dev", *SHARES):
        raise InputError(f"split {split!r}: expected test, dev, {', '.join(SHARES)}")
    files = task_files(str(folder), task)
    check_mode(mode)
    stored = _dev(files, mode) if split == "dev" else "test"
    chosen = _languages(files, mode, stored, languages)
    items: dict[str, list[Item]] = {}
    facts: list[LanguageFacts] = []
    for language in chosen:
        own, fact = _read(files, mode, language, stored)
        items[language] = own
        facts.append(fact)
    aligned = align(task, mode, items, {f.language: f.file for f in facts})
    if split in SHARES:
        aligned = part_of_task(aligned, split)
    converted = tuple(f.language for f in facts if f.converted)
    done = AlignedTask(task=task, mode=mode, ids=aligned.ids, items=aligned.items, converted=converted)
    spoken = frozenset(language for _, language, _ in files.paths)
    return Loaded(task=done, facts=tuple(facts), spoken=spoken, strays=files.strays)


def align(
    task: str, mode: str, items: Mapping[str, Sequence[Item]], files: Mapping[str, str] | None = None
) -> AlignedTask:
    """Return the items joined by id, in the order of the ids; see `load` for the errors.

    files: language -> where its items came from, for the messages.
    """
    names = {language: (files or {}).get(language, language) for language in items}
    tables = {language: {i.id: i for i in own} for language, own in items.items()}
    first = next(iter(tables))
    _check_ids(tables, names, first)
    _check_items(tables, names, first)
    ids = tuple(sorted(tables[first]))
    ordered = {language: tuple(table[i] for i in ids) for language, table in tables.items()}
    return AlignedTask(task=task, mode=mode, ids=ids, items=ordered)


def part_of_task(task: AlignedTask, part: str) -> AlignedTask:
    """Return the items of one part of the split ("target", "select" or "report"), in every language."""
    return subset(task, (parts_of(task.task, task.ids) == part).nonzero()[0].tolist())


def subset(task: AlignedTask, places: Sequence[int]) -> AlignedTask:
    """Return the items at these places, in their order."""
    return AlignedTask(
        task=task.task,
        mode=task.mode,
        ids=tuple(task.ids[i] for i in places),
        items={language: tuple(own[i] for i in places) for language, own in task.items.items()},
        converted=task.converted,
    )


def _dev(files: Files, mode: str) -> str:
    known = {m for m, _, s in files.paths if s in DEV}
    return files.dev(_FROM if mode == _CLOZE and _CLOZE not in known and _FROM in known else mode)


def _languages(files: Files, mode: str, split: str, wanted: Sequence[str] | None) -> list[str]:
    there = dict.fromkeys(files.languages(mode, split))
    if mode == _CLOZE:
        there |= dict.fromkeys(files.languages(_FROM, split))
    if lacking := [language for language in wanted or () if language not in there]:
        raise InputError(
            f"{files.folder}: no {mode} {split} file of {_some(lacking)}; there are "
            f"{_some(sorted(there), 70)}. Fetch it, or leave the language out"
        )
    if not there:
        modes = sorted({m for m, _, _ in files.paths})
        raise InputError(f"{files.folder}: no {split} file of mode {mode}; its modes are {', '.join(modes)}")
    return list(dict.fromkeys(wanted)) if wanted else sorted(there)


def _read(files: Files, mode: str, language: str, split: str) -> tuple[list[Item], LanguageFacts]:
    converted = (mode, language, split) not in files.paths
    path = files.paths[_FROM if converted else mode, language, split]
    items, trimmed = read_items(path)
    if converted:
        items = to_cloze(items, path)
    return items, facts_of(items, language=language, file=path, trimmed=trimmed, converted=converted)


def _check_ids(tables: Mapping[str, Mapping[str, Item]], names: Mapping[str, str], first: str) -> None:
    for language, table in tables.items():
        lost, extra = sorted(tables[first].keys() - table.keys()), sorted(table.keys() - tables[first].keys())
        if lost or extra:
            raise InputError(
                f"{names[language]}: its {len(table)} ids are not the {len(tables[first])} of "
                f"{names[first]}: it lacks {len(lost)} ({_some(lost)}) and has {len(extra)} more "
                f"({_some(extra)}). Languages are compared on equal sets: fetch both from one release"
            )


def _check_items(tables: Mapping[str, Mapping[str, Item]], names: Mapping[str, str], first: str) -> None:
    for language, table in tables.items():
        pairs = [(item, table[i]) for i, item in tables[first].items()]
        sizes = [a.id for a, b in pairs if len(a.choices) != len(b.choices)]
        labels = [a.id for a, b in pairs if a.label != b.label]
        for what, ids in (("number of options", sizes), ("index of the right option", labels)):
            if ids:
                share = 1 - len(ids) / len(pairs)
                raise InputError(
                    f"{names[language]}: the {what} differs from {names[first]} on {len(ids)} of "
                    f"{len(pairs)} ids ({_some(sorted(ids))}); equal on {share:.0%}, expected all. Rows "
                    "joined by number and shifted look so; an id must name one question in every language"
                )


def _some(names: Sequence[str], most: int = _NAMED) -> str:
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") if names else "none"
