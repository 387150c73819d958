"""Aligned benchmarks of one's own: one file with columns becomes a task in the layout of the release."""

import json
from pathlib import Path
from typing import Any

import pytest

from quadmix.errors import InputError
from quadmix.evaluate.mubench.convert import Columns, convert_file, write_task
from quadmix.evaluate.mubench.load import load_task

CHOICES = Columns(id="item", language="lang", prompt="{query} ({relation})", label="gold", choices="choices")
TOPICS = Columns(id="item", language="lang", prompt="{query}", label="topic", choices=None)


def rows(languages: tuple[str, ...] = ("et", "zho_Hans"), count: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "item": f"test-{n}", "lang": language, "query": f"{language} {n}.", "relation": "cause",
            "gold": n % 2, "choices": [f"{language}{n}a", f"{language}{n}b"],
            "topic": ("sports", "travel", "health")[n % 3], "answers": [f"{n * n}"],
        }
        for language in languages
        for n in range(count)
    ]  # fmt: skip


def written(folder: Path, content: list[dict[str, Any]]) -> str:
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in content), encoding="utf-8")
    return str(path)


def test_a_set_with_choices_goes_through_the_layout_and_back(tmp_path: Path) -> None:
    made = convert_file(written(tmp_path, rows()), "xcopa", CHOICES)
    assert made.dropped == 0
    assert write_task(tmp_path / "out", made.task) == 2
    task = load_task(tmp_path / "out", "xcopa", "lighteval")
    assert list(task.items) == ["et", "zho-Hans"]
    item = task.items["zho-Hans"][3]
    assert (item.id, item.prompt, item.choices, item.label) == (
        "test-3", "zho_Hans 3. (cause)", ("zho_Hans3a", "zho_Hans3b"), 1
    )  # fmt: skip
    with pytest.raises(InputError, match="is not empty"):
        write_task(tmp_path / "out", made.task)


def test_labels_that_occur_become_the_options(tmp_path: Path) -> None:
    task = convert_file(written(tmp_path, rows()), "sib", TOPICS).task
    assert {i.choices for own in task.items.values() for i in own} == {("health", "sports", "travel")}
    assert [i.label for i in task.items["et"]] == [1, 2, 0, 1]


def test_numbered_classes_are_themselves_not_places_in_their_order(tmp_path: Path) -> None:
    content = [row | {"topic": n} for n, row in enumerate(rows(("et",), 12))]
    items = convert_file(written(tmp_path, content), "classes", TOPICS).task.items["et"]
    assert {i.id: i.choices[i.label] for i in items} == {f"test-{n}": str(n) for n in range(12)}


@pytest.mark.parametrize(("gold", "label"), [(1, 1), ("B", 1), ("et0b", 1), (" A ", 0)])
def test_a_label_is_an_index_a_letter_or_the_text(tmp_path: Path, gold: object, label: int) -> None:
    content = rows(("et",), 1)
    content[0]["gold"] = gold
    assert convert_file(written(tmp_path, content), "xcopa", CHOICES).task.items["et"][0].label == label


def test_distractors_are_other_answers_alike_in_every_language(tmp_path: Path) -> None:
    content = rows(("de", "fr"), 12)
    for r in content:
        r["answers"] = [f"{r['lang']}-{int(r['item'].split('-')[1]) % 8}"]  # four answers are there twice
    columns = Columns(
        id="item", language="lang", prompt="{query}", label="answers", choices=None, distractors=3
    )
    task = convert_file(written(tmp_path, content), "answers", columns, seed=2).task
    places = set()
    for name, german, french in zip(task.ids, task.items["de"], task.items["fr"], strict=True):
        number = int(name.split("-")[1]) % 8
        assert len(set(german.choices)) == 4
        assert german.choices[german.label] == f"de-{number}"
        assert [c[3:] for c in german.choices] == [c[3:] for c in french.choices]
        places.add(german.label)
    assert len(places) > 1
    assert convert_file(written(tmp_path, content), "answers", columns, seed=2).task.items == task.items
    more = Columns(id="item", language="lang", prompt="{query}", label="answers", choices=None, distractors=8)
    with pytest.raises(InputError, match="7 different answers beside that of id 'test-0', expected 8"):
        convert_file(written(tmp_path, content), "answers", more)


def test_questions_that_a_language_lacks_are_an_error_or_dropped_and_counted(tmp_path: Path) -> None:
    path = written(tmp_path, rows()[:-1])
    with pytest.raises(
        InputError, match=r"3 of 4 ids in column 'item' are in all of 2 languages \(et 4, zho-Hans 3"
    ):
        convert_file(path, "xcopa", CHOICES)
    made = convert_file(path, "xcopa", CHOICES, common=True)
    assert (made.task.ids, made.dropped) == (("test-0", "test-1", "test-2"), 1)
    assert convert_file(path, "xcopa", CHOICES, languages=["et"]).task.ids[-1] == "test-3"
    with pytest.raises(InputError, match=r"no rows in 'fi'; its languages are et, zho-Hans"):
        convert_file(path, "xcopa", CHOICES, languages=["fi", "et", "zho-Hans"], common=True)


def test_a_set_that_shares_no_ids_is_refused_even_so(tmp_path: Path) -> None:
    content = [{**r, "item": f"{r['lang']}-{n}"} for n, r in enumerate(rows())]
    for common in (False, True):
        with pytest.raises(InputError, match="0 of 8 ids in column 'item' are in all of 2 languages"):
            convert_file(written(tmp_path, content), "xwinograd", CHOICES, common=common)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gold": 2}, r"row 6 \(id 'test-1'\): label 2 is none of the 2 options"),
        ({"gold": "C"}, "label 'C' is none of the 2 options"),
        ({"gold": None}, "row 6: nothing in column 'gold'"),
        ({"choices": ["x"]}, r"row 6: column 'choices' holds \['x'\]"),
        ({"choices": ["x", ""]}, "row 6: column 'choices'"),
        ({"lang": "Eesti keel"}, "row 6: column 'lang' holds 'Eesti keel', expected a code"),
        ({"item": "test-0"}, r"row 6: id 'test-0' is there twice in zho-Hans; first in .*row 5"),
        ({"gold": 0}, "index of the right option differs"),
        ({"choices": ["x", "y", "z"]}, "number of options differs"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = rows()
    content[5] |= change
    with pytest.raises(InputError, match=message):
        convert_file(written(tmp_path, content), "xcopa", CHOICES)


def test_columns_that_are_not_there_and_names_that_are_taken(tmp_path: Path) -> None:
    path = written(tmp_path, rows())
    with pytest.raises(InputError, match="row 1: no column 'question'; the row has item, lang"):
        convert_file(path, "xcopa", Columns(id="item", language="lang", prompt="{question}", label="gold"))
    with pytest.raises(InputError, match="task 'mmlu' is one of MuBench"):
        convert_file(path, "mmlu", CHOICES)
    many = [{**r, "topic": f"t{n}"} for n, r in enumerate(rows(("et",), 60))]
    with pytest.raises(InputError, match="60 different labels, expected 2 to 50"):
        convert_file(written(tmp_path, many), "sib", TOPICS)
    with pytest.raises(InputError, match="has no rows"):
        convert_file(written(tmp_path, []), "xcopa", CHOICES)
