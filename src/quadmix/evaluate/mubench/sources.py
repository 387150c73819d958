"""The twelve tasks of MuBench, and which file of a folder holds which mode, language and split.

Layout: FOLDER/ARCEasyDataset/local_template_de_test.jsonl. A task of the user's own has a folder by its name.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from quadmix.errors import InputError
from quadmix.io.door import check_address
from quadmix.io.store import listing

STEMS = ("lighteval", "local_template", "en_template", "mix", "mix_lighteval")
_MODE = re.compile(r"lighteval|local_template|en_template|mix_[1-9]\d*|mix_lighteval_[1-9]\d*")
_LANGUAGE = re.compile(r"[a-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_SUFFIX = ".jsonl"
DEV = ("validation", "train", "dev")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One task. folder: of the release. ability: group of the paper. family: tasks of one family count once
    in a mean. restricted: why its rows may not be passed on freely; "" if no such term is known to us."""

    name: str
    folder: str
    ability: str
    family: str
    restricted: str = ""


def _source(name: str, folder: str, ability: str, *, family: str = "", restricted: str = "") -> Source:
    return Source(name=name, folder=folder, ability=ability, family=family or name, restricted=restricted)


SOURCES: dict[str, Source] = {
    s.name: s
    for s in (
        _source("snli", "SNLIDataset", "understanding", family="nli"),
        _source("mnli", "MNLIDataset", "understanding", family="nli"),
        _source("winogrande", "WinoGrandeDataset", "understanding"),
        _source("hellaswag", "HellaswagDataset", "commonsense"),
        _source("story_cloze", "StoryClozeDataset", "commonsense", restricted="access by request"),
        _source("bmlama", "BMLAMADataset", "factual"),
        _source("mmlu", "MMLUDataset", "knowledge"),
        _source("mmlu_pro", "MMLUProDataset", "knowledge"),
        _source("arc_easy", "ARCEasyDataset", "academic"),
        _source("arc_challenge", "ARCChallengeDataset", "academic"),
        _source(
            "gpqa", "GPQADataset", "academic", restricted="its authors ask not to publish it in clear text"
        ),
        _source("truthfulqa", "TruthfulQADataset", "truthfulness"),
    )
}
OFF = ("gpqa",)
"""Read only where they are named: no command takes them up by itself."""
OWN = "own"


def source_of(task: str) -> Source:
    """Return what is known of a task; one of the user's own is alone in the ability "own".

    Raises InputError for a name that is no snake case.
    """
    if task in SOURCES:
        return SOURCES[task]
    if not _NAME.fullmatch(task):
        raise InputError(f"task {task!r}: expected a name in snake case, as arc_easy; rename it")
    return _source(task, task, OWN)


def check_mode(mode: str) -> str:
    """Return a mode; InputError lists the known ones."""
    if not _MODE.fullmatch(mode):
        raise InputError(
            f"mode {mode!r} is not known; expected lighteval, local_template, en_template, mix_K or "
            "mix_lighteval_K, with K the most other languages in one item, as mix_2"
        )
    return mode


def is_language(code: str) -> bool:
    """Can this stand as a language in a file name?"""
    return _LANGUAGE.fullmatch(code) is not None


def file_name(mode: str, language: str, split: str) -> str:
    """Return the name of the file of one mode, language and split."""
    return f"{mode}_{language}_{split}{_SUFFIX}"


def named(name: str) -> tuple[str, str, str] | None:
    """Return (mode, language, split) of a file name; None if it is none of the layout.

    The release writes the number of a mix at a place that only its listing shows, so it is found anywhere
    before the split: mix_2_de_test, mix_de_2_test and mix_2_lighteval_de_test are all understood.
    """
    parts = name.removesuffix(_SUFFIX).split("_")
    if not name.endswith(_SUFFIX) or len(parts) < 3 or parts[-1] not in ("test", *DEV):
        return None
    words = [p for p in parts[:-1] if not p.isdigit()]
    numbers = [p for p in parts[:-1] if p.isdigit()]
    stem, language = "_".join(words[:-1]), words[-1] if words else ""
    mixed = stem in ("mix", "mix_lighteval")
    if stem not in STEMS or not is_language(language) or len(numbers) != int(mixed):
        return None
    return (f"{stem}_{numbers[0]}" if mixed else stem), language, parts[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What a folder has of one task. paths[mode, language, split]; strays: names outside the layout."""

    task: str
    folder: str
    paths: dict[tuple[str, str, str], str]
    strays: tuple[str, ...]

    def languages(self, mode: str, split: str) -> tuple[str, ...]:
        """Return the languages of a mode and split, sorted."""
        return tuple(sorted(lang for m, lang, s in self.paths if (m, s) == (mode, split)))

    def dev(self, mode: str) -> str:
        """Return the name of the development split ("validation"; "train" for WinoGrande)."""
        found = {s for m, _, s in self.paths if m == mode and s in DEV}
        if len(found) != 1:
            raise InputError(
                f"{self.folder}: mode {mode} has {len(found)} development splits "
                f"({', '.join(sorted(found)) or 'none'}), expected one of {', '.join(DEV)}"
            )
        return found.pop()


def task_files(folder: str, task: str) -> Files:
    """Return the files of a task in a folder or at an address (hf://datasets/aialt/MuBench).

    Nothing is downloaded but the listing. Raises InputError if there are none, or two of one meaning;
    StoreError where the network would be used and is off.
    """
    root = f"{folder.rstrip('/')}/{source_of(task).folder}"
    check_address(root)
    paths: dict[tuple[str, str, str], str] = {}
    strays: list[str] = []
    for name in listing(root):
        key = named(name)
        if key is None:
            strays.append(name)
        elif key in paths:
            raise InputError(
                f"{root}: {name} and {paths[key]} are the same mode, language and split; remove one"
            )
        else:
            paths[key] = f"{root}/{name}"
    if not paths:
        raise InputError(
            f"{root}: no files of task {task}; expected names as {file_name('lighteval', 'en', 'test')}. "
            "Check the folder: it holds one folder per task"
        )
    return Files(task=task, folder=root, paths=paths, strays=tuple(strays))


def tasks_in(folder: str) -> tuple[list[str], list[str]]:
    """Return the tasks that a folder has files of, MuBench's first, and those that are off by default."""
    check_address(folder)
    inside = dict.fromkeys(name.split("/")[0] for name in listing(folder) if named(name.split("/")[-1]))
    known = [s.name for s in SOURCES.values() if s.folder in inside]
    release = {s.folder for s in SOURCES.values()}
    own = [name for name in inside if name not in release and _NAME.fullmatch(name)]
    return [t for t in (*known, *own) if t not in OFF], [t for t in known if t in OFF]


def restricted(tasks: Sequence[str]) -> dict[str, str]:
    """Return those of the tasks whose rows may not be passed on freely, with the reason."""
    return {task: SOURCES[task].restricted for task in tasks if task in SOURCES and SOURCES[task].restricted}


def chosen_tasks(folder: str, tasks: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (the tasks to work on: `tasks`, or all in a folder; those left out that must be named)."""
    if tasks:
        return [source_of(task).name for task in tasks], []
    found, off = tasks_in(folder)
    if not found:
        raise InputError(f"{folder}: no task's files; expected folders as ARCEasyDataset in it")
    return found, off
