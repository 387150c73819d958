"""Small aligned tasks on disk for the tests of mubench, written without the code under test."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
