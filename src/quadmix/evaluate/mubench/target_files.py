"""A benchmark as targets of a search: files and a piece of recipe, one target per language and ability.

In: a benchmark folder. Out, in a folder: `<language>-<ability>.jsonl`, rows of prompt and answer of the part
`target` alone; `targets.yaml`, which lists them as a recipe does; and `texts-<language>.jsonl`, all texts of
all parts, which the pool is to be held against.

Models of a search are far too small to answer questions, so their accuracy says nothing; the loss of the
right answer does, in bits per byte, which any tokenizer and script can be compared by. Only the answer is
scored. Every target weighs the same in its language and every language the same, unless weights are given;
tasks of one family (SNLI and MNLI) share the rows of one task. Native text can stand beside, as one more
target per language: a benchmark in many languages is translated, and a search on it alone may come to prefer
text that reads translated.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from quadmix.errors import InputError
from quadmix.evaluate.mubench.engine import Wanted, task_shares, wanted_task
from quadmix.evaluate.mubench.forms import Question, questions
from quadmix.evaluate.mubench.items import AlignedTask
from quadmix.evaluate.mubench.load import load_task
from quadmix.evaluate.mubench.sources import source_of, task_files
from quadmix.io.atomic import write_bytes, write_text
from quadmix.io.rows import read_records

ROWS = 400  # of a target; the default of a recipe's `limit` is larger
FRAGMENT = "targets.yaml"
_MODE, _FROM = "lighteval", "local_template"


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """Held-out text of a language: a JSONL or Parquet file and its column."""

    path: str
    column: str = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFile:
    """One target. rows: of the file. unfit: items without the blank that is to be filled, left out."""

    name: str
    language: str
    weight: float
    rows: int
    unfit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFiles:
    """What was written. fragment: the piece of recipe. texts: language -> texts to hold the pool against."""

    targets: tuple[TargetFile, ...]
    fragment: str
    texts: dict[str, int]


def write_targets(
    folder: str | Path,
    out: str | Path,
    *,
    tasks: Sequence[str],
    languages: Sequence[str] = (),
    rows: int = ROWS,
    weights: Mapping[str, float] | None = None,
    native: Mapping[str, Native] | None = None,
    texts: bool = True,
) -> TargetFiles:
    """Write the files of all languages and abilities; see above.

    rows: of a target at most, the same ids in every language. weights: language -> its weight, 1 if left out.
    Raises InputError for a weight or native text of a language that is not there, or text without rows.
    """
    home, native = Path(out), native or {}
    loaded = [_part(folder, name, tasks, languages, rows) for name in tasks]
    spoken = sorted({language for task in loaded for language in task.items})
    _check_languages(spoken, {**(weights or {}), **native})
    made: list[TargetFile] = []
    lines: list[str] = []
    for language in spoken:
        parts = _abilities(loaded, language)
        share = (weights or {}).get(language, 1.0) / (len(parts) + (language in native))
        for ability, asked in parts.items():
            one, line = _write_target(home, language, ability, asked, share)
            made.append(one)
            lines.append(line)
        if language in native:
            one, line = _native(native[language], language, share)
            made.append(one)
            lines.append(line)
    counts = {language: _write_texts(home, folder, tasks, language) for language in spoken} if texts else {}
    fragment = home / FRAGMENT
    write_text(fragment, _fragment(home, lines, list(counts)))
    return TargetFiles(targets=tuple(made), fragment=str(fragment), texts=counts)


def _part(
    folder: str | Path, name: str, tasks: Sequence[str], languages: Sequence[str], rows: int
) -> AlignedTask:
    """Return the steering items of a task; families, and in them tasks, have equal parts of a target."""
    own = [task for task in tasks if source_of(task).ability == source_of(name).ability]
    limit = max(1, round(rows * task_shares(own)[name]))
    return wanted_task(
        folder, name, Wanted(tasks=(name,), languages=tuple(languages), split="target", limit=limit)
    )


def _check_languages(spoken: Sequence[str], named: Mapping[str, object]) -> None:
    if lacking := [language for language in named if language not in spoken]:
        raise InputError(
            f"language {lacking[0]!r} is given a weight or native text, but is not among those of the "
            f"targets ({', '.join(spoken)}); add it with --language, or leave it out"
        )


def _abilities(tasks: Sequence[AlignedTask], language: str) -> dict[str, list[tuple[str, Question]]]:
    found: dict[str, list[tuple[str, Question]]] = {}
    for task in tasks:
        if language in task.items:
            asked = questions(task.task, task.mode, language, task.items[language])
            found.setdefault(source_of(task.task).ability, []).extend((task.task, q) for q in asked)
    return found


def _write_target(
    home: Path, language: str, ability: str, asked: Sequence[tuple[str, Question]], weight: float
) -> tuple[TargetFile, str]:
    name = f"{language}-{ability}"
    whole = [(task, q) for task, q in asked if q.form != "unfit"]
    rows = [
        {"id": q.id, "task": task, "prompt": q.contexts[q.label], "answer": q.continuations[q.label]}
        for task, q in whole
    ]
    file = f"{name}.jsonl"
    write_bytes(home / file, b"".join(orjson.dumps(row) + b"\n" for row in rows))
    entry = {
        "name": name, "path": str((home / file).absolute()), "prompt": "prompt", "answer": "answer",
        "weight": round(weight, 6),
    }  # fmt: skip
    found = TargetFile(
        name=name, language=language, weight=weight, rows=len(rows), unfit=len(asked) - len(rows)
    )
    return found, orjson.dumps({**entry, "limit": max(len(rows), 1)}).decode()


def _native(text: Native, language: str, weight: float) -> tuple[TargetFile, str]:
    rows = read_records(text.path)
    if not rows or text.column not in rows[0]:
        raise InputError(
            f"native text of {language!r}: {text.path} has {'no rows' if not rows else 'no column'} "
            f"{text.column!r}; expected rows of text held out from the pool, as LANGUAGE=FILE or "
            "LANGUAGE=FILE:COLUMN"
        )
    name = f"{language}-native"
    entry = {
        "name": name, "path": str(Path(text.path).absolute()), "text": text.column,
        "weight": round(weight, 6), "limit": ROWS,
    }  # fmt: skip
    found = TargetFile(name=name, language=language, weight=weight, rows=min(len(rows), ROWS))
    return found, orjson.dumps(entry).decode()


def _write_texts(home: Path, folder: str | Path, tasks: Sequence[str], language: str) -> int:
    """Write every item of all tasks that the language has, of the test and the development split."""
    found = [text for task in tasks for text in _all_texts(folder, task, language)]
    rows = (orjson.dumps({"text": text}) + b"\n" for text in found)
    write_bytes(home / f"texts-{language}.jsonl", b"".join(rows))
    return len(found)


def _all_texts(folder: str | Path, task: str, language: str) -> Iterator[str]:
    paths = task_files(str(folder), task).paths
    stored = {split for mode, own, split in paths if own == language and mode in (_MODE, _FROM)}
    for split in (*(("test",) if "test" in stored else ()), *(("dev",) if stored - {"test"} else ())):
        items = load_task(folder, task, _MODE, [language], split).items[language]
        for q in questions(task, _MODE, language, items):
            yield q.contexts[q.label] + q.continuations[q.label]


def _fragment(home: Path, targets: Sequence[str], languages: Sequence[str]) -> str:
    """Return the piece of recipe; JSON objects are YAML too."""
    lines = [
        "# Written by `quadmix mubench targets`: put both keys into a recipe. Paths are absolute:",
        "# write this again where the folder moves.",
        "# Only the part `target` of the items steers; report results on the part `report`.",
        "targets:",
        *(f"  - {line}" for line in targets),
    ]
    if languages:
        sets = [
            orjson.dumps(
                {"name": f"mubench-{code}", "path": str((home / f"texts-{code}.jsonl").absolute())}
            ).decode()
            for code in languages
        ]
        lines += [
            "annotate:",
            "  exclude_overlap: true",
            "  overlap_with:",
            *(f"    - {one}" for one in sets),
        ]
    return "".join(f"{line}\n" for line in lines)
