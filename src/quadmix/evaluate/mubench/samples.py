"""What lm-evaluation-harness logged -> predictions: samples_mubench_{task}_{mode}_{lang}_{time}.jsonl.

Written by `lm_eval --log_samples --output_path OUT` (0.4.13). Scores are strings there, one pair of
(log-likelihood, greedy) per option; with the metric acc_mutual_info as many again without the prompt, which
are the null "unconditional". Items are joined by doc._id, never by doc_id, which counts rows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.evaluate.mubench.items import AlignedTask, Item, Predictions
from quadmix.evaluate.mubench.load import align
from quadmix.evaluate.mubench.tables import Answers, join_answers
from quadmix.io.rows import read_records
from quadmix.types.arrays import Floats

_FILE = re.compile(r"samples_mubench_(.+)_\d{4}-\d\d-\d\dT[\d.-]+\.jsonl")
_TASK = re.compile(r"(.+?)_(lighteval|local_template|en_template|mix_\d+|mix_lighteval_\d+)_([^_]+)")
_NEEDED = ("doc", "filtered_resps", "target")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Predictions by acc, acc_norm (per character), acc_bytes (per byte), and where logged acc_mutual_info
    and unconditional; the items they are of; names of other files of samples, which were not read."""

    predictions: list[Predictions]
    items: dict[tuple[str, str], AlignedTask]
    ignored: tuple[str, ...]


def read_samples(paths: Sequence[str | Path]) -> Samples:
    """Read files of samples, one per task, mode and language.

    Raises InputError naming file and row for a row without its fields, scores that are no numbers or not one
    per option, a target that is not the label, two files of one task, and ids, labels or numbers of options
    that differ between languages.
    """
    found: dict[tuple[str, str], dict[str, Path]] = {}
    ignored: list[str] = []
    for path in map(Path, paths):
        named = _FILE.fullmatch(path.name)
        parts = _TASK.fullmatch(named[1]) if named else None
        if parts is None:
            ignored.append(path.name)
            continue
        languages = found.setdefault((parts[1], parts[2]), {})
        if parts[3] in languages:
            raise InputError(
                f"{path} and {languages[parts[3]]} are runs of the same task; expected one: name the files, "
                "or keep each run in a folder of its own"
            )
        languages[parts[3]] = path
    predictions: list[Predictions] = []
    items: dict[tuple[str, str], AlignedTask] = {}
    for (task, mode), files in found.items():
        rows = {language: [_row(r, path, n) for n, r in _rows(path)] for language, path in files.items()}
        names = {language: str(path) for language, path in files.items()}
        items[task, mode] = align(task, mode, {k: [r.item for r in own] for k, own in rows.items()}, names)
        predictions += _predictions(task, mode, rows, str(next(iter(files.values())).parent))
    return Samples(predictions=predictions, items=items, ignored=tuple(ignored))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Row:
    """scores: (K,) log-likelihoods; unconditional: the same without the prompt, or None."""

    item: Item
    scores: Floats
    unconditional: Floats | None


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows with their numbers, each item once: a task with filters has it once per filter."""
    rows = list(enumerate(read_records(str(path)), start=1))
    if not rows:
        raise InputError(f"{path} has no rows; run the harness again with --log_samples")
    filters = dict.fromkeys(row.get("filter") for _, row in rows)
    return [(number, row) for number, row in rows if row.get("filter") == next(iter(filters))]


def _row(row: dict[str, Any], path: Path, number: int) -> _Row:
    where = f"{path}, row {number}"
    if lacking := [name for name in _NEEDED if name not in row]:
        raise InputError(f"{where}: no field {lacking[0]!r}; expected a sample of lm-evaluation-harness")
    doc = cast(dict[str, Any], row["doc"])
    try:
        choices = tuple(map(str, doc["choices"]))
        item = Item(id=str(doc["_id"]), prompt=str(doc["prompt"]), choices=choices, label=int(doc["label"]))
        scores = np.array([float(pair[0]) for pair in row["filtered_resps"]])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{where}: {error!r}; expected doc with _id, prompt, choices and label, and filtered_resps with "
            "[log-likelihood, greedy] per option: is it a multiple_choice task of MuBench?"
        ) from error
    count = len(choices)
    if len(scores) not in (count, 2 * count) or np.isnan(scores).any():
        raise InputError(
            f"{where} (id {item.id!r}): {len(scores)} scores for {count} options, or one is NaN; expected "
            "one log-likelihood per option, or twice as many with acc_mutual_info"
        )
    if str(row["target"]) != str(item.label):
        raise InputError(
            f"{where} (id {item.id!r}): target {row['target']!r}, but the label is {item.label}; the task "
            "was not run on these rows"
        )
    rest = scores[count:] if len(scores) > count else None
    return _Row(item=item, scores=scores[:count], unconditional=rest)


def _predictions(task: str, mode: str, rows: Mapping[str, Sequence[_Row]], source: str) -> list[Predictions]:
    """Return one per estimator that all rows have."""
    estimators = {"acc": _plain, "acc_norm": _per_character, "acc_bytes": _per_byte}
    if all(row.unconditional is not None for own in rows.values() for row in own):
        estimators |= {"acc_mutual_info": _information, "unconditional": _without_prompt}
    found: list[Predictions] = []
    for name, score in estimators.items():
        answers: dict[str, Answers] = {}
        for language, own in rows.items():
            answers[language] = Answers(
                ids=tuple(r.item.id for r in own),
                chosen=_int16([int(np.argmax(score(r))) for r in own]),
                labels=_int16([r.item.label for r in own]),
                options=_int16([len(r.item.choices) for r in own]),
            )
        found.append(join_answers(source, (task, mode, name), answers))
    return found


def _int16(values: Sequence[int]) -> NDArray[np.int16]:
    return np.array(values, dtype=np.int16)


def _plain(row: _Row) -> Floats:
    return row.scores


def _per_character(row: _Row) -> Floats:
    return row.scores / [len(c) for c in row.item.choices]


def _per_byte(row: _Row) -> Floats:
    return row.scores / [len(c.encode()) for c in row.item.choices]


def _without_prompt(row: _Row) -> Floats:
    assert row.unconditional is not None
    return row.unconditional


def _information(row: _Row) -> Floats:
    return row.scores - _without_prompt(row)
