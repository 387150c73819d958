"""Small aligned tasks for the tests of mubench: on disk, written without the code under test, and in
memory, with what a model answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.evaluate.mubench.items import AlignedTask, Item, Predictions
from quadmix.evaluate.mubench.nulls import predictions

Row = dict[str, Any]


def row(
    name: str, label: int = 0, choices: Sequence[str] = ("one", "two", "three"), prompt: str = "Which?"
) -> Row:
    return {"_id": name, "prompt": f"{prompt} {name}", "choices": list(choices), "label": label}


def rows(count: int = 10, language: str = "en") -> list[Row]:
    """Questions q0..q9; the right option is a function of the number alone, so equal in every language."""
    return [row(f"q{n}", n * 7 % 3, [f"{language}{n}{c}" for c in "abc"]) for n in range(count)]


def write_rows(path: Path, content: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in content), encoding="utf-8")
    return path


def write_task(
    folder: Path,
    languages: Mapping[str, Sequence[Row]],
    *,
    task: str = "ARCEasyDataset",
    mode: str = "lighteval",
    split: str = "test",
) -> Path:
    for language, content in languages.items():
        write_rows(folder / task / f"{mode}_{language}_{split}.jsonl", content)
    return folder


def aligned(task: str, languages: str = "en de zh", count: int = 60, options: int = 4) -> AlignedTask:
    """Options whose lengths order them alike in every language, with the right one at a place of its own."""
    rng = np.random.default_rng(len(task))
    lengths = [rng.permutation(options) + 1 for _ in range(count)]
    labels = rng.integers(options, size=count).tolist()
    items = {
        language: tuple(
            Item(
                id=f"{n:03}",
                prompt="?",
                choices=tuple(language[0] * 2 * k + str(k) for k in own),
                label=label,
            )
            for n, (own, label) in enumerate(zip(lengths, labels, strict=True))
        )
        for language in languages.split()
    }
    return AlignedTask(task=task, mode="lighteval", ids=tuple(f"{n:03}" for n in range(count)), items=items)


def answered(task: AlignedTask, knows: float, seed: int = 0, name: str = "acc") -> Predictions:
    """A model that is right on a share of the items, in every language, and guesses otherwise."""
    rng = np.random.default_rng(seed)
    known = rng.random(len(task.ids)) < knows
    chosen: dict[str, NDArray[np.int16]] = {}
    for language, items in task.items.items():
        guess = rng.integers([len(i.choices) for i in items])
        chosen[language] = np.where(known, [i.label for i in items], guess).astype(np.int16)
    return predictions(task, name, chosen)
