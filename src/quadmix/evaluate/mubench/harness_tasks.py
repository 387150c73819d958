"""Tasks of lm-evaluation-harness for the same items: one per task, mode and language, with groups over them.

In: aligned tasks. Out, in a folder that `lm_eval --include_path FOLDER` takes: a YAML and a JSONL file per
task (rows as in the release, so that the samples can be read back), templates without the suffix .yaml, which
are therefore no tasks themselves (the layout of `belebele`), and groups

  mubench_{task}_{mode}    mubench_{mode}_{language}    mubench_{ability}_{mode}    mubench_small[_{mode}]

Written for lm_eval 0.4.13. Where words are not spaced no space goes before an option, which the harness's own
delimiter would put there. WinoGrande in cloze form is scored by the rest of the sentence, or by the whole one
where the blank comes last; the harness has one form per task, so these are tasks of their own, `..._rest` and
`..._whole`, in a group of the plain name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from quadmix.evaluate.harness import HarnessTask
from quadmix.evaluate.mubench.estimators import SMALL
from quadmix.evaluate.mubench.forms import Question, questions
from quadmix.evaluate.mubench.items import AlignedTask
from quadmix.evaluate.mubench.sources import source_of
from quadmix.io.atomic import write_bytes, write_text

PREFIX = "mubench"
_METRICS = ("acc", "acc_norm", "acc_bytes")
_OPTIONS, _BLANK = "_mubench_options_yaml", "_mubench_blank_yaml"
_TEMPLATES = {
    _OPTIONS: (
        'doc_to_text: "{{prompt}}"',
        "doc_to_target: label",
        "doc_to_choice: choices",
    ),
    # here the harness takes the right index as text and the contexts as choices, whose lengths say nothing
    _BLANK: (
        "doc_to_text: label",
        "doc_to_target: continuation",
        "doc_to_choice: contexts",
    ),
}
_SUFFIX = {"options": "", "blank": "_rest", "whole": "_whole"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written. groups: name -> the tasks and groups in it."""

    tasks: tuple[HarnessTask, ...]
    groups: dict[str, tuple[str, ...]]


def write_harness_tasks(tasks: Sequence[AlignedTask], folder: str | Path) -> Written:
    """Write tasks and groups into `folder` (absolute paths inside: write them again where it is moved)."""
    home, done, groups = Path(folder).absolute(), list[HarnessTask](), dict[str, list[str]]()
    blank = set[str]()
    for name, form in _TEMPLATES.items():
        write_text(home / name, _template(form, _METRICS[:1] if name == _BLANK else _METRICS))
    for task in tasks:
        for language, items in task.items.items():
            name = f"{PREFIX}_{task.task}_{task.mode}_{language}"
            forms = _by_form(questions(task.task, task.mode, language, items))
            parts = [f"{name}{_SUFFIX[form]}" for form in forms]
            done += [_write_task(home, part, q) for part, q in zip(parts, forms.values(), strict=True)]
            if parts != [name]:
                groups[name] = parts
            blank |= {n for n in (name, *parts) if "blank" in forms}
            for group in _groups_of(task, language):
                groups.setdefault(group, []).append(name)
    for group, members in groups.items():
        # a mean by a metric that some tasks lack would be one over other tasks
        metrics = _METRICS[:1] if blank.intersection(members) else _METRICS
        write_text(home / f"_{group}.yaml", _group(group, members, metrics))
    return Written(tasks=tuple(done), groups={name: tuple(members) for name, members in groups.items()})


def _groups_of(task: AlignedTask, language: str) -> list[str]:
    ability, mode = source_of(task.task).ability, task.mode
    found = [f"{PREFIX}_{task.task}_{mode}", f"{PREFIX}_{mode}_{language}", f"{PREFIX}_{ability}_{mode}"]
    if task.task in SMALL:
        found.append(f"{PREFIX}_small" if mode == "lighteval" else f"{PREFIX}_small_{mode}")
    return found


def _by_form(asked: Sequence[Question]) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = {}
    for question in asked:
        if question.form != "unfit":
            found.setdefault(question.form, []).append(question)
    return found


def _write_task(home: Path, name: str, asked: Sequence[Question]) -> HarnessTask:
    blank = asked[0].form == "blank"
    data, file = home / "data" / f"{name}.jsonl", home / f"{name}.yaml"
    rows = [_blank_row(q) if blank else _row(q) for q in asked]
    write_bytes(data, b"".join(orjson.dumps(row) + b"\n" for row in rows))
    gap = "" if blank else asked[0].continuations[0].removesuffix(asked[0].choices[0])
    lines = (
        f"include: {_BLANK if blank else _OPTIONS}",
        f"task: {name}",
        f"dataset_kwargs: {{data_files: {{test: {_text(str(data))}}}}}",
        f"target_delimiter: {_text(gap)}",
    )
    write_text(file, "".join(f"{line}\n" for line in lines))
    chance = float(np.mean([1 / len(q.choices) for q in asked]))
    return HarnessTask(name=name, file=str(file), items=len(asked), chance=chance)


def _row(question: Question) -> dict[str, Any]:
    return {
        "_id": question.id, "prompt": question.contexts[0], "choices": list(question.choices),
        "label": question.label,
    }  # fmt: skip


def _blank_row(question: Question) -> dict[str, Any]:
    return {
        "_id": question.id, "contexts": list(question.contexts), "continuation": question.continuations[0],
        "label": question.label,
    }  # fmt: skip


def _template(form: Sequence[str], metrics: Sequence[str]) -> str:
    lines = [
        "dataset_path: json",
        "output_type: multiple_choice",
        "test_split: test",
        "num_fewshot: 0",
        *form,
        "metric_list:",
        *(f"  - {{metric: {metric}, aggregation: mean, higher_is_better: true}}" for metric in metrics),
        "metadata: {version: 1.0}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _group(name: str, members: Sequence[str], metrics: Sequence[str]) -> str:
    """Return a group. The two forms of one task are weighed by their items, tasks and languages equally."""
    by_size = "true" if all(m.startswith(f"{name}_") for m in members) else "false"
    lines = [
        f"group: {name}",
        "task:",
        *(f"  - {member}" for member in members),
        "aggregate_metric_list:",
        *(f"  - {{metric: {m}, aggregation: mean, weight_by_size: {by_size}}}" for m in metrics),
        "metadata: {version: 1.0}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _text(value: str) -> str:
    return orjson.dumps(value).decode()
