"""Labels by people: every version of a document has its number, and what is no number is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from quadmix.errors import InputError
from quadmix.raters.human import human_labels, with_labels
from quadmix.raters.table import Texts
from quadmix.recipe.rating import TextsSection

TEXTS = Texts(
    ids=("x", "x/de", "y", "z"), source=("1", "1", "2", "3"), origin=("", "x", "", ""),
    language=("en", "de", "en", "en"), text=("a", "b", "c", "d"),
)  # fmt: skip


def section(folder: Path, grades: list[Any], human: str | None = "grade") -> TextsSection:
    path = folder / "documents.jsonl"
    rows = [{"id": str(i), "text": "words", "grade": grade} for i, grade in enumerate(grades, 1)]
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return TextsSection(paths=[str(path)], in_language="en", human=human)


def test_versions_of_a_document_share_its_number(tmp_path: Path) -> None:
    assert human_labels(section(tmp_path, [2, None, 0.5]), TEXTS) == {"x": 2.0, "x/de": 2.0, "z": 0.5}
    assert human_labels(section(tmp_path, [2, None, 0.5], None), TEXTS) is None


def test_what_is_no_number_or_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 1: column 'grade' \(texts.human\) holds 'good'"):
        human_labels(section(tmp_path, [1, "good"]), TEXTS)
    with pytest.raises(InputError, match="no document of the pairs has a number in column 'nope'"):
        human_labels(section(tmp_path, [1, 2], "nope"), TEXTS)


def test_other_labels_make_another_report(tmp_path: Path) -> None:
    assert with_labels("pairs", section(tmp_path, [1, 2], None)) == "pairs"
    digests = {with_labels("pairs", section(tmp_path, [1, n])) for n in (2, 3)}
    digests.add(with_labels("others", section(tmp_path, [1, 3])))
    assert len(digests - {"pairs"}) == 3
