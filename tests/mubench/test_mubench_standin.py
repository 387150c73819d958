"""The stand-in has the layout and the quirks of the release; mixes keep questions, options and labels."""

import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from quadmix.errors import InputError
from quadmix.evaluate.mubench.items import AlignedTask
from quadmix.evaluate.mubench.languages import separator
from quadmix.evaluate.mubench.load import load, load_task
from quadmix.evaluate.mubench.mix import assign, mix_task, write_mix
from quadmix.evaluate.mubench.options import to_cloze
from quadmix.evaluate.mubench.sources import SOURCES
from quadmix.evaluate.mubench.standin import MODES, write_standin
from quadmix.io.rows import read_records

LANGUAGES = ("qaa", "qab", "qac", "qad")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("standin") / "toy"
    write_standin(path, items=16)
    return path


def test_every_task_and_mode_is_there_in_every_language_and_aligned(folder: Path) -> None:
    for task in SOURCES:
        for mode in MODES:
            loaded = load(folder, task, mode)
            assert len(loaded.task.ids) == 16
            assert tuple(loaded.task.items) == LANGUAGES
            assert loaded.strays == ()
            assert loaded.task.converted == ()


def test_two_runs_give_the_same_bytes_and_a_folder_with_content_is_kept(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_standin(again, items=16)
    files = sorted(p.relative_to(folder) for p in folder.rglob("*.jsonl"))
    assert files == sorted(p.relative_to(again) for p in again.rglob("*.jsonl"))
    assert all((folder / f).read_bytes() == (again / f).read_bytes() for f in files)
    with pytest.raises(InputError, match="is not empty"):
        write_standin(folder, items=16)


def test_scripts_spaces_and_orders_of_rows_differ(folder: Path) -> None:
    scripts = {}
    for language in LANGUAGES:
        rows = read_records(str(folder / "BMLAMADataset" / f"lighteval_{language}_test.jsonl"))
        letters = Counter(unicodedata.name(c).split()[0] for r in rows for c in r["prompt"] if c.isalpha())
        scripts[language] = letters.most_common(1)[0][0]
        assert all((" " in r["prompt"]) == (separator(language) == " ") for r in rows)
    assert scripts == {"qaa": "LATIN", "qab": "LATIN", "qac": "CYRILLIC", "qad": "HIRAGANA"}
    orders = {
        tuple(
            r["_id"] for r in read_records(str(folder / "BMLAMADataset" / f"lighteval_{language}_test.jsonl"))
        )
        for language in LANGUAGES
    }
    assert len(orders) == 4


def test_letters_turned_into_cloze_are_the_cloze_files(folder: Path) -> None:
    """The two modes are written apart; what the parser makes of one must be the other, in every script."""
    for task in SOURCES:
        letters, cloze = (load_task(folder, task, mode) for mode in ("local_template", "lighteval"))
        if task in ("snli", "mnli"):
            continue  # label words, no letters
        for language in LANGUAGES:
            assert to_cloze(letters.items[language], task) == list(cloze.items[language])


def test_label_words_are_local_even_in_the_english_template(folder: Path) -> None:
    task = load_task(folder, "mnli", "en_template")
    assert all(i.prompt.startswith("Premise: ") and i.prompt.endswith("\nAnswer:") for i in task.items["qac"])
    words = {language: task.items[language][0].choices for language in LANGUAGES}
    assert len(set(words.values())) == 4
    assert {len(set(i.choices)) for i in task.items["qad"]} == {3}


# --------------------------------------------------------------------------- mixes
@pytest.fixture(scope="module")
def bmlama(folder: Path) -> AlignedTask:
    return load_task(folder, "bmlama", "lighteval")


def test_mixed_items_have_the_texts_of_their_languages_and_the_same_label(bmlama: AlignedTask) -> None:
    mixed = mix_task(bmlama, most=2, seed=3)
    assert mixed.task.mode == "mix_lighteval_2"
    for base, items in mixed.task.items.items():
        for place, (item, languages) in enumerate(zip(items, mixed.assigned[base], strict=True)):
            assert item.prompt == bmlama.items[languages[0]][place].prompt
            for c, language in enumerate(languages[1:]):
                assert item.choices[c] == bmlama.items[language][place].choices[c]
            assert (item.id, item.label) == (bmlama.ids[place], bmlama.items[base][place].label)
            assert len(set(languages) - {base}) <= 2


def test_each_item_draws_its_number_of_languages_and_each_component_its_language() -> None:
    ids = [f"i{n}" for n in range(4000)]
    found = assign(ids, [40] * 4000, ("en", "de", "fr", "zh"), most=2, seed=0)
    others = Counter(len(set(own) - {"en"}) for own in found)
    assert set(others) == {1, 2}  # with 40 components no drawn language stays unused
    assert abs(others[1] / 4000 - 0.5) < 0.03
    used = Counter(language for own in found for language in set(own) - {"en"})
    assert max(used.values()) / min(used.values()) < 1.1
    for number, share in ((1, 1 / 2), (2, 2 / 3)):  # of the components in other languages than the base
        own = [a for a in found if len(set(a) - {"en"}) == number]
        mean = sum(x != "en" for a in own for x in a) / sum(map(len, own))
        assert abs(mean - share) < 0.02


def test_an_item_is_mixed_alike_whatever_stands_beside_it() -> None:
    ids = [f"i{n}" for n in range(50)]
    whole = assign(ids, [5] * 50, ("en", "de", "fr", "zh"), most=3, seed=1)
    assert assign(ids[7:9], [5, 5], ("en", "zh", "fr", "de"), most=3, seed=1) == whole[7:9]
    assert assign(ids, [5] * 50, ("en", "de", "fr", "zh"), most=3, seed=2) != whole


def test_the_assignment_stands_in_the_rows_and_other_files_are_not_replaced(
    bmlama: AlignedTask, tmp_path: Path
) -> None:
    mixed = mix_task(bmlama, most=2)
    files = write_mix(tmp_path, mixed)
    assert write_mix(tmp_path, mixed) == files
    read = load_task(tmp_path, "bmlama", "mix_lighteval_2")
    assert read.items == mixed.task.items
    for path, base in zip(files, mixed.task.items, strict=True):
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        assert [tuple(r["languages"]) for r in rows] == list(mixed.assigned[base])
    with pytest.raises(InputError, match=r"mix_lighteval_2_qaa_test.jsonl holds other items"):
        write_mix(tmp_path, mix_task(bmlama, most=2, seed=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: mix_task(t, most=0), "mode 'mix_lighteval_0' is not known"),
        (lambda t: mix_task(t, most=2, bases=["en"]), "no items in 'en'; its languages are qaa"),
        (lambda t: mix_task(mix_task(t, most=2).task, most=2), "expected lighteval in two or more"),
    ],
)
def test_what_cannot_be_mixed(
    bmlama: AlignedTask, change: Callable[[AlignedTask], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        change(bmlama)
