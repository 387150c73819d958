"""Files of several languages become one aligned task, or an error that names the file and the id."""

from pathlib import Path

import numpy as np
import pytest
from mubench_files import row, rows, write_rows, write_task

from quadmix.errors import InputError, StoreError
from quadmix.evaluate.mubench.languages import LANGUAGES, RESOURCES, separator
from quadmix.evaluate.mubench.load import load, load_task, subset
from quadmix.evaluate.mubench.nulls import predictions
from quadmix.evaluate.mubench.prepare import fetch, prepare
from quadmix.evaluate.mubench.sources import SOURCES, chosen_tasks, named, task_files
from quadmix.evaluate.mubench.splits import SHARES, parts_of
from quadmix.io.atomic import read_json, read_table
from quadmix.io.door import network


def test_languages_are_joined_by_id_whatever_the_order_of_rows(tmp_path: Path) -> None:
    write_task(tmp_path, {"en": rows(), "de": list(reversed(rows(language="de")))})
    task = load_task(tmp_path, "arc_easy", "lighteval")
    assert task.ids == tuple(sorted(f"q{n}" for n in range(10)))
    for n in range(10):
        place = task.ids.index(f"q{n}")
        assert task.items["de"][place].choices == (f"de{n}a", f"de{n}b", f"de{n}c")
        assert task.items["de"][place].label == task.items["en"][place].label == n * 7 % 3


def test_rows_joined_by_number_and_shifted_are_refused_with_their_agreement(tmp_path: Path) -> None:
    """The release's rows under the ids of their neighbours, as after a join by row number."""
    good = rows(30)
    shifted = [{**r, "_id": other["_id"]} for r, other in zip(good, good[1:] + good[:1], strict=True)]
    write_task(tmp_path, {"en": good, "nl": shifted})
    equal = sum(n * 7 % 3 == (n - 1) % 30 * 7 % 3 for n in range(30)) / 30
    with pytest.raises(
        InputError, match=rf"lighteval_nl_test.*index of the right option.*equal on {equal:.0%}"
    ):
        load_task(tmp_path, "arc_easy", "lighteval", ["en", "nl"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 3}, r"de_test\.jsonl, row 5 \(id 'q4'\): label is 3"),
        ({"label": "1"}, r"row 5 \(id 'q4'\): label is '1'"),
        ({"label": True}, r"row 5 \(id 'q4'\): label is True"),
        ({"choices": ["a", " ", "c"]}, r"row 5 \(id 'q4'\): choice 1 is ' '"),
        ({"choices": ["a", None, "c"]}, r"row 5 \(id 'q4'\): choice 1 is None"),
        ({"choices": ["a"]}, r"row 5 \(id 'q4'\): choices is \['a'\]"),
        ({"choices": "abc"}, r"row 5 \(id 'q4'\): choices is 'abc'"),
        ({"prompt": "\n"}, r"row 5 \(id 'q4'\): prompt"),
        ({"_id": None}, r"row 5 \(id None\): _id"),
        ({"_id": "q3"}, r"1 ids are there more than once, as 'q3'"),
        ({"_id": "q99"}, r"lacks 1 \(q4\) and has 1 more \(q99\)"),
        ({"choices": ["a", "b", "c", "d"], "label": 1}, r"number of options differs.*\(q4\)"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused_with_file_row_and_id(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    bad = rows(language="de")
    bad[4] |= change
    write_task(tmp_path, {"en": rows(), "de": bad})
    with pytest.raises(InputError, match=message):
        load_task(tmp_path, "arc_easy", "lighteval", ["en", "de"])


def test_a_row_without_a_field_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path, {"en": [{k: v for k, v in row("q").items() if k != "label"}]})
    with pytest.raises(InputError, match=r"row 1 \(id 'q'\): no field 'label'"):
        load_task(tmp_path, "arc_easy", "lighteval")
    write_task(tmp_path, {"en": []})
    with pytest.raises(InputError, match=r"lighteval_en_test\.jsonl has no rows"):
        load_task(tmp_path, "arc_easy", "lighteval")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_of_mixed_encodings_is_refused_with_its_line(tmp_path: Path, encoding: str) -> None:
    path = write_task(tmp_path, {"de": rows(3)}) / "ARCEasyDataset" / "lighteval_de_test.jsonl"
    line = '{"_id": "x", "prompt": "größer?", "choices": ["a", "b"], "label": 0}\n'.encode(encoding)
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(InputError, match=r"lighteval_de_test\.jsonl, line 4: not valid JSON"):
        load_task(tmp_path, "arc_easy", "lighteval")


def test_equal_options_replaced_letters_and_white_space_are_counted(tmp_path: Path) -> None:
    own = rows(5, "nl")
    own[0]["choices"], own[0]["label"] = ["Ja", "ja ", "nee"], 1  # the right one is there twice
    own[1]["choices"], own[1]["label"] = ["nee", "NEE", "ja"], 2
    own[2]["prompt"] = "caf\ufffd?"
    own[3]["prompt"] = "a\u0000b?"
    own[4]["choices"][2] = "größer “é".encode().decode("cp1252")
    en = rows(5)
    for n in range(2):
        en[n]["label"] = own[n]["label"]
    write_task(tmp_path, {"en": en, "nl": own})
    fact = next(f for f in load(tmp_path, "arc_easy", "lighteval").facts if f.language == "nl")
    assert (fact.rows, fact.duplicated, fact.tied, fact.replaced, fact.trimmed) == (5, 2, 1, 2, 1)
    assert fact.recoded == 1
    assert fact.ids == {"duplicated": ("q0", "q1"), "replaced": ("q2", "q3"), "recoded": ("q4",)}
    assert load_task(tmp_path, "arc_easy", "lighteval").items["nl"][0].choices == ("Ja", "ja", "nee")


def test_options_of_letters_are_those_in_the_prompt(tmp_path: Path) -> None:
    own = [
        row(f"q{n}", 1, "AB", f"Q?\nA: {a}\nB: {b}\nAnswer:") for n, (a, b) in enumerate(["xy", "zz", "uu"])
    ]
    own = [r | {"prompt": r["prompt"].removesuffix(f" {r['_id']}")} for r in own]
    own[2]["prompt"] = "Q?\nA: u\nC: u\nAnswer:"
    write_task(tmp_path, {"de": own}, mode="local_template")
    loaded = load(tmp_path, "arc_easy", "local_template")
    (fact,) = loaded.facts
    assert (fact.duplicated, fact.tied, fact.unparsed) == (1, 1, 1)
    assert fact.ids == {"duplicated": ("q1",), "unparsed": ("q2",)}
    task = subset(loaded.task, [0, 1])
    found = predictions(task, "acc", {"de": np.array([0, 0], dtype=np.int16)})
    assert found.chosen["de"].tolist() == [0, 1]  # A and B of q1 cannot be told apart: A counts as right


@pytest.mark.parametrize(
    "text",
    ["größer als “é”", "«CAFÉ»", "ESPAÑA, Ñandú", "ÄÖÜ", "水の力", "Привет, мир", "50 °C ± 3", "\u00a0é"],
)
def test_proper_text_does_not_count_as_decoded_twice(tmp_path: Path, text: str) -> None:
    own = rows(2)
    own[0]["prompt"] = text
    write_task(tmp_path, {"de": own})
    (fact,) = load(tmp_path, "arc_easy", "lighteval").facts
    assert (fact.recoded, fact.replaced, fact.ids) == (0, 0, {})


@pytest.mark.parametrize("text", ["\u200b", "\u200e \u200f", "\u00a0", "\ufeff"])
def test_a_choice_of_which_nothing_is_seen_is_empty(tmp_path: Path, text: str) -> None:
    own = rows(2)
    own[1]["choices"][0] = text
    write_task(tmp_path, {"de": own})
    with pytest.raises(InputError, match=r"row 2 \(id 'q1'\): choice 0 is .* expected a text"):
        load_task(tmp_path, "arc_easy", "lighteval")


def test_a_language_without_files_and_an_unknown_mode_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path, {"en": rows(), "de": rows()})
    with pytest.raises(InputError, match=r"no lighteval test file of fr; there are de, en"):
        load_task(tmp_path, "arc_easy", "lighteval", ["en", "fr"])
    with pytest.raises(InputError, match=r"no test file of mode en_template; its modes are lighteval"):
        load_task(tmp_path, "arc_easy", "en_template")
    with pytest.raises(InputError, match="mode 'lighteva' is not known"):
        load_task(tmp_path, "arc_easy", "lighteva")
    with pytest.raises(InputError, match=r"SNLIDataset: no files of task snli"):
        load_task(tmp_path, "snli", "lighteval")
    with pytest.raises(InputError, match="split 'train'"):
        load_task(tmp_path, "arc_easy", "lighteval", split="train")


def test_lacking_cloze_files_are_made_from_letters_and_named(tmp_path: Path) -> None:
    letters = [
        {**row(f"q{n}", n % 2, "AB"), "prompt": f"Frage: Was ist {n}?\nA: x{n}\nB: y{n}\nAntwort:"}
        for n in range(4)
    ]
    cloze = [
        {"_id": f"q{n}", "prompt": f"What is {n}?", "choices": [f"x{n}", f"y{n}"], "label": n % 2}
        for n in range(4)
    ]
    write_task(tmp_path, {"en": cloze})
    write_task(tmp_path, {"de": letters}, mode="local_template")
    task = load_task(tmp_path, "arc_easy", "lighteval")
    assert task.converted == ("de",)
    assert task.items["de"][1].prompt == "Was ist 1?"
    assert task.items["de"][1].choices == ("x1", "y1")


# --------------------------------------------------------------------------- names, splits, addresses
@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("local_template_de_test.jsonl", ("local_template", "de", "test")),
        ("lighteval_ceb_validation.jsonl", ("lighteval", "ceb", "validation")),
        ("mix_2_no_test.jsonl", ("mix_2", "no", "test")),
        ("mix_no_2_test.jsonl", ("mix_2", "no", "test")),
        ("mix_lighteval_2_de_test.jsonl", ("mix_lighteval_2", "de", "test")),
        ("mix_2_lighteval_de_test.jsonl", ("mix_lighteval_2", "de", "test")),
        ("mix_lighteval_de_2_train.jsonl", ("mix_lighteval_2", "de", "train")),
        ("en_template_zh-Hans_test.jsonl", ("en_template", "zh-Hans", "test")),
        ("mix_de_test.jsonl", None),
        ("lighteval_2_de_test.jsonl", None),
        ("lighteval_de.jsonl", None),
        ("lighteval_de_test.json", None),
        ("README.md", None),
    ],
)
def test_what_a_file_name_means(name: str, meaning: tuple[str, str, str] | None) -> None:
    assert named(name) == meaning


def test_two_files_of_one_meaning_are_refused_and_strays_are_listed(tmp_path: Path) -> None:
    write_task(tmp_path, {"de": rows()}, mode="mix_2")
    (tmp_path / "ARCEasyDataset" / "notes.txt").write_text("x")
    assert task_files(str(tmp_path), "arc_easy").strays == ("notes.txt",)
    write_rows(tmp_path / "ARCEasyDataset" / "mix_de_2_test.jsonl", rows())
    with pytest.raises(InputError, match="are the same mode, language and split"):
        task_files(str(tmp_path), "arc_easy")


def test_dev_splits_are_found_by_either_name(tmp_path: Path) -> None:
    write_task(tmp_path, {"en": rows(3)}, task="WinoGrandeDataset", split="train")
    write_task(tmp_path, {"en": rows(4)}, split="validation")
    assert len(load_task(tmp_path, "winogrande", "lighteval", split="dev").ids) == 3
    assert len(load_task(tmp_path, "arc_easy", "lighteval", split="dev").ids) == 4
    write_task(tmp_path, {"en": rows()}, task="TruthfulQADataset")
    with pytest.raises(InputError, match="mode lighteval has 0 development splits"):
        load_task(tmp_path, "truthfulqa", "lighteval", split="dev")


def test_parts_are_a_partition_equal_in_every_language_and_mode(tmp_path: Path) -> None:
    write_task(tmp_path, {"en": rows(60), "de": list(reversed(rows(60, "de")))})
    parts = {p: load_task(tmp_path, "arc_easy", "lighteval", split=p) for p in SHARES}
    ids = [i for part in parts.values() for i in part.ids]
    assert sorted(ids) == sorted(f"q{n}" for n in range(60))
    assert len(set(ids)) == 60
    for part in parts.values():
        assert [i.id for i in part.items["de"]] == [i.id for i in part.items["en"]] == list(part.ids)


def test_shares_of_parts_and_their_independence_of_the_other_items() -> None:
    ids = [f"item-{n}" for n in range(20_000)]
    parts = parts_of("mmlu", ids)
    for part, share in SHARES.items():
        assert abs((parts == part).mean() - share) < 0.01
    assert list(parts_of("mmlu", ids[::-7])) == list(parts[::-7])
    assert (parts_of("arc_easy", ids) != parts).mean() > 0.4  # the task is in the hash


def test_the_split_never_moves() -> None:
    """What was reported on stays reported on: these values are of the first version."""
    found = dict(zip("abcdefgh", parts_of("arc_easy", list("abcdefgh")), strict=True))
    assert found == FROZEN


def test_only_the_release_folder_names_and_no_gpqa_by_itself(tmp_path: Path) -> None:
    write_task(tmp_path, {"en": rows()}, task="GPQADataset")
    write_task(tmp_path, {"en": rows()}, task="MMLUProDataset")
    write_task(tmp_path, {"en": rows()}, task="my_set")
    assert chosen_tasks(str(tmp_path), []) == (["mmlu_pro", "my_set"], ["gpqa"])
    assert chosen_tasks(str(tmp_path), ["gpqa"]) == (["gpqa"], [])
    assert len(SOURCES) == 12
    with pytest.raises(InputError, match="task 'My Set'"):
        load_task(tmp_path, "My Set", "lighteval")


def test_languages_of_the_release() -> None:
    assert len(set(LANGUAGES)) == 61
    classes = [c for own in RESOURCES.values() for c in own]
    assert sorted(classes) == sorted(LANGUAGES)
    unspaced = {c for c in LANGUAGES if separator(c) == ""}
    assert unspaced == {"zh", "ja", "th", "km", "my"}
    assert separator("zho_Hans") == separator("zh-Hant") == separator("lo") == ""
    assert separator("deu-Latn") == separator("ko") == " "


def test_an_address_needs_the_network_and_says_so() -> None:
    with network(offline=True), pytest.raises(StoreError, match="would use the network"):
        load_task("hf://datasets/aialt/MuBench", "arc_easy", "lighteval", ["en"])


# --------------------------------------------------------------------------- prepare
def test_prepare_writes_counts_and_the_split_and_names_what_it_refused(tmp_path: Path) -> None:
    write_task(tmp_path, {"en": rows(40), "de": rows(40, "de")})
    write_task(tmp_path, {"en": rows(40), "de": rows(39)}, task="MMLUDataset")
    write_task(tmp_path, {"en": rows(5)}, task="GPQADataset")
    out = tmp_path / "out"
    found = prepare(tmp_path, out)
    (task,) = found.tasks
    assert (task.task, task.items, [f.language for f in task.facts]) == ("arc_easy", 40, ["de", "en"])
    assert set(task.missing) == set(LANGUAGES) - {"de", "en"}
    assert len(found.problems) == 1
    assert "mmlu (lighteval)" in found.problems[0]
    assert "lacks 0 (none) and has 1 more (q39)" in found.problems[0]
    assert list(found.left_out) == ["gpqa"]
    table = read_table(out / "splits.parquet").to_pylist()
    assert {r["task"] for r in table} == {"arc_easy"}
    assert {r["id"]: r["part"] for r in table} == dict(zip(FORTY, parts_of("arc_easy", FORTY), strict=True))
    assert sum(task.parts.values()) == 40
    assert read_json(out / "prepared.json")["tasks"][0]["parts"] == task.parts


def test_prepare_names_languages_that_other_tasks_or_modes_have(tmp_path: Path) -> None:
    write_task(tmp_path, {"en": rows(5), "de": rows(5)})
    write_task(tmp_path, {"nl": rows(5)}, mode="en_template")
    write_task(tmp_path, {"en": rows(5), "de": rows(5), "fr": rows(5)}, task="MMLUDataset")
    assert {t.task: t.lacking for t in prepare(tmp_path, tmp_path).tasks} == {
        "arc_easy": ("fr", "nl"), "mmlu": ("nl",),
    }  # fmt: skip
    named = prepare(tmp_path, tmp_path, languages=["en", "de"])
    assert {t.lacking for t in named.tasks} == {()}


def test_prepare_keeps_the_split_of_tasks_that_it_was_not_asked_for(tmp_path: Path) -> None:
    for task in ("ARCEasyDataset", "MMLUDataset"):
        write_task(tmp_path, {"en": rows(5), "de": rows(5)}, task=task)
    for task in ("arc_easy", "mmlu", "arc_easy"):
        prepare(tmp_path, tmp_path, tasks=[task])
    found = read_table(tmp_path / "splits.parquet").to_pylist()
    assert sorted((r["task"], r["id"]) for r in found) == [
        (task, f"q{n}") for task in ("arc_easy", "mmlu") for n in range(5)
    ]


def test_prepare_refuses_modes_of_other_questions(tmp_path: Path) -> None:
    write_task(tmp_path, {"en": rows(10), "de": rows(10)})
    write_task(tmp_path, {"en": rows(9), "de": rows(9)}, mode="en_template")
    found = prepare(tmp_path, tmp_path, modes=("lighteval", "en_template"))
    assert [t.mode for t in found.tasks] == ["lighteval"]
    assert "its 9 ids are not the 10 of mode lighteval, as 'q9'" in found.problems[0]


def test_fetch_copies_what_is_needed_in_the_same_layout(tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    write_task(store, {"en": rows(), "de": rows(), "fr": rows()})
    write_task(store, {"en": rows(), "nl": rows()}, mode="local_template")
    write_task(store, {"en": rows()}, mode="en_template")
    copied = fetch(str(store), "arc_easy", out, modes=("lighteval",), languages=["en", "de", "nl"])
    names = {p.relative_to(out).as_posix() for p in copied}
    assert names == {
        f"ARCEasyDataset/{n}_test.jsonl" for n in ("lighteval_en", "lighteval_de", "local_template_nl")
    }
    for path in copied:
        assert path.read_bytes() == (store / path.relative_to(out)).read_bytes()


FORTY = [f"q{n}" for n in range(40)]
# recomputed in plain integers: xxh3-64 of "arc_easy\x1f" + id, SplitMix64's finaliser twice, below 0.2 or 0.4
FROZEN = {
    "a": "target", "b": "report", "c": "report", "d": "report", "e": "select", "f": "target", "g": "report",
    "h": "report",
}  # fmt: skip
