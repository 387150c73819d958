"""Benchmarks as local tasks of lm-evaluation-harness, so that its CLI scores exported models on our items.

In: `BenchmarkItems`. Out: one YAML and one JSONL file per benchmark; `lm_eval --include_path FOLDER` finds
them. The pairs of context and continuation that the harness scores are ours (written for lm_eval 0.4.13):
it takes the white space at the end of a context into the continuation, so a choice is written without the
space before it, and its length, which `acc_norm` divides by, is that of the choice alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from quadmix.corpus.benchmarks import BenchmarkItems
from quadmix.errors import InputError
from quadmix.io.atomic import write_bytes, write_text

PREFIX = "quadmix_"  # the harness has tasks of its own by the names of the well-known sets
TAG = "quadmix"


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessTask:
    """One task on disk: the name that `--tasks` takes, its YAML file, how many items it has, the accuracy of
    guessing. longest: tokens of the longest choice, 0 where the tokenizer is not known; the harness stops at
    a choice that is longer than the model's context."""

    name: str
    file: str
    items: int
    chance: float | None
    longest: int = 0


def write_tasks(benchmarks: Sequence[BenchmarkItems], folder: str | Path) -> list[HarnessTask]:
    """Write the benchmarks into `folder` (absolute paths inside: write them again where it is moved).

    Raises InputError for items that the harness has no form for.
    """
    home, out = Path(folder).absolute(), list[HarnessTask]()
    for benchmark in benchmarks:
        name = f"{PREFIX}{benchmark.name}"
        rows, file = task_rows(benchmark), home / f"{name}.yaml"
        write_bytes(home / f"{name}.jsonl", b"".join(orjson.dumps(row) + b"\n" for row in rows))
        write_text(file, _yaml(benchmark, name, str(home / f"{name}.jsonl")))
        out.append(HarnessTask(name=name, file=str(file), items=len(rows), chance=benchmark.chance))
    return out


def task_rows(benchmark: BenchmarkItems) -> list[dict[str, Any]]:
    """Return the items in order as the rows of the JSONL file."""
    make = _greedy_row if benchmark.kind == "greedy" else _blank_row if benchmark.blank else _choices_row
    return [{"id": index, **make(benchmark, index)} for index in range(len(benchmark.gold))]


def _choices_row(benchmark: BenchmarkItems, index: int) -> dict[str, Any]:
    contexts, choices = benchmark.contexts[index], benchmark.choices[index]
    whole = [c + k for c, k in zip(contexts, benchmark.continuations[index], strict=True)]
    before = [text.removesuffix(choice) for text, choice in zip(whole, choices, strict=True)]
    if len(set(before)) > 1 or before[0].rstrip() != contexts[0].rstrip():
        raise InputError(
            f"benchmark {benchmark.name!r}, item {index}: what stands before the choices differs between "
            "them, and the harness has no form for that; expected one context, then white space at most"
        )
    return {"context": before[0], "choices": list(choices), "gold": benchmark.gold[index]}


def _blank_row(benchmark: BenchmarkItems, index: int) -> dict[str, Any]:
    rest = set(benchmark.continuations[index])
    if len(rest) > 1:
        raise InputError(
            f"benchmark {benchmark.name!r}, item {index}: {len(rest)} different texts after the blank, and "
            "the harness has no form for that; expected the same one for every choice"
        )
    return {
        "contexts": list(benchmark.contexts[index]),
        "continuation": rest.pop(),
        "gold": benchmark.gold[index],
    }


def _greedy_row(benchmark: BenchmarkItems, index: int) -> dict[str, Any]:
    return {"context": benchmark.contexts[index][0], "continuation": benchmark.continuations[index][0]}


def _yaml(benchmark: BenchmarkItems, name: str, data: str) -> str:
    """Return the task; a JSON string is a YAML string too."""
    form, metrics = {"output_type": "multiple_choice"}, ["acc"]
    if benchmark.kind == "greedy":
        form = {"output_type": "loglikelihood", "doc_to_text": "context", "doc_to_target": "continuation"}
    elif benchmark.blank:  # here the harness takes the right index as text, the contexts as choices
        form |= {"doc_to_text": "gold", "doc_to_choice": "contexts", "doc_to_target": "continuation"}
    else:
        form |= {"doc_to_text": "context", "doc_to_choice": "choices", "doc_to_target": "gold"}
        metrics.append("acc_norm")
    lines = [
        f"task: {_text(name)}",
        f"tag: {TAG}",
        "dataset_path: json",
        f"dataset_kwargs: {{data_files: {{validation: {_text(data)}}}}}",
        "validation_split: validation",
        *(f"{key}: {value}" for key, value in form.items()),
        'target_delimiter: ""',
        "num_fewshot: 0",
        "metric_list:",
        *(f"  - {{metric: {metric}, aggregation: mean, higher_is_better: true}}" for metric in metrics),
        "metadata: {version: 1.0}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _text(value: str) -> str:
    return orjson.dumps(value).decode()
