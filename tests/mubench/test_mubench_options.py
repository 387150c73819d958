"""Options are found in prompts of any language, and cloze items are made from them."""

import pytest

from quadmix.errors import InputError
from quadmix.evaluate.mubench.items import Item
from quadmix.evaluate.mubench.options import is_lettered, option_texts, parse_options, to_cloze

FILE = "local_template_xx_test.jsonl"


def item(prompt: str, count: int = 2, name: str = "q", label: int = 0) -> Item:
    return Item(id=name, prompt=prompt, choices=tuple("ABCDEFGHIJ"[:count]), label=label)


@pytest.mark.parametrize(
    "marks",
    [
        "A:|B:|C:",
        "Option A:|Option B:|Option C:",
        "Izbor A:|Izbor B:|Izbor C:",
        "选项 A:|选项 B:|选项 C:",
        "选项A：|选项B：|选项C：",
        "الخيار A:|الخيار B:|الخيار C:",
        "\u200fאפשרות A\u200f:|\u200fאפשרות B\u200f:|\u200fאפשרות C\u200f:",
        "Choix A\u00a0:|Choix B\u00a0:|Choix C\u00a0:",
        "ตัวเลือก A:|ตัวเลือก B:|ตัวเลือก C:",
        "විකල්පය A :|විකල්පය B :|විකල්පය C :",
    ],
)
def test_marks_of_many_languages_are_found(marks: str) -> None:
    lines = [
        f"{mark} {text}" for mark, text in zip(marks.split("|"), ("eins", "zwei: 2", "drei"), strict=True)
    ]
    prompt = "\n".join(["Frage: was?", *lines, "Antwort:"])
    assert option_texts(item(prompt, 3)) == ("eins", "zwei: 2", "drei")


def test_a_question_that_looks_like_options_does_not_hide_them() -> None:
    prompt = "Vitamin A: what is it?\nVitamin B: too\nA: first\nB: second\nAnswer with A or B:\nAnswer:"
    parsed = parse_options(prompt, 2)
    assert parsed is not None
    assert parsed.before == ("Vitamin A: what is it?", "Vitamin B: too")
    assert parsed.options[0] == ("first",)


def test_an_option_over_several_lines_is_kept_whole() -> None:
    parsed = parse_options("Q\nA: one\nmore of it\nB: two\nAnswer:", 2)
    assert parsed is not None
    assert parsed.options == (("one", "more of it"), ("two", "Answer:"))


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("Q\nA: one\nC: three\nAnswer:", 2),  # a gap
        ("Q\nA: one\nB: two\nC: three\nAnswer:", 2),  # more options than choices
        ("Q\nA: one\nB: two\nAnswer:", 3),  # fewer
        ("Q\na: one\nb: two", 2),  # small letters
        ("Q\nDNA: one\nRNB: two", 2),  # the end of a word
        ("no options here", 2),
    ],
)
def test_no_run_of_that_length_is_no_result(prompt: str, count: int) -> None:
    assert parse_options(prompt, count) is None
    with pytest.raises(
        InputError, match=r"id 'q': the prompt has no question followed by exactly the options A to"
    ):
        option_texts(item(prompt, count))


def test_choices_that_are_words_are_their_own_texts() -> None:
    words = Item(id="n", prompt="Premise: x\nAnswer:", choices=("蕴含", "中立", "矛盾"), label=1)
    assert option_texts(words) == ("蕴含", "中立", "矛盾")
    assert is_lettered("ABC")
    assert not is_lettered(("B", "A"))


# --------------------------------------------------------------------------- cloze
def test_cloze_takes_off_what_all_prompts_share() -> None:
    """Instruction, label, cue and the line before the options are the frame; the rest is the question."""
    items = [
        item(
            f"Choose.\nFrage: Was ist {n}?\nNoch {n}.\nA: x{n}\nB: y{n}\nso {n}\nNur A oder B.\nAntwort:",
            name=f"q{n}",
        )
        for n in range(3)
    ]
    made = to_cloze(items, FILE)
    assert [m.prompt for m in made] == [f"Was ist {n}?\nNoch {n}." for n in range(3)]
    assert [m.choices for m in made] == [(f"x{n}", f"y{n}\nso {n}") for n in range(3)]
    assert [m.label for m in made] == [0, 0, 0]


def test_cloze_of_a_sentence_with_a_blank() -> None:
    """Six lines of the release: sentence, what the blank asks, two options, instruction, cue."""
    items = [
        item(
            f"_ hat {n}.\nWofür steht _?\nOption A: er{n}\nOption B: sie{n}\nNimm A oder B:\nAntwort:",
            name=f"q{n}",
        )
        for n in range(2)
    ]
    made = to_cloze(items, FILE)
    assert [m.prompt for m in made] == ["_ hat 0.", "_ hat 1."]
    assert made[1].choices == ("er1", "sie1")


def test_one_item_alone_keeps_its_lines_but_the_cue() -> None:
    (made,) = to_cloze([item("Q: what?\nA: one\nB: two\nAnswer:")], FILE)
    assert (made.prompt, made.choices) == ("Q: what?", ("one", "two"))


def test_a_label_is_only_what_ends_in_a_colon() -> None:
    items = [item(f"Das Wort {n}\nA: x\nB: y\nAntwort:", name=f"q{n}") for n in range(2)]
    assert [m.prompt for m in to_cloze(items, FILE)] == ["Das Wort 0", "Das Wort 1"]


def test_label_words_stay_and_a_prompt_without_options_names_file_and_id() -> None:
    words = Item(id="n", prompt="Premise: x\nAnswer:", choices=("yes", "no"), label=1)
    assert to_cloze([words], FILE) == [words]
    good = item("Q?\nA: x\nB: y\nAnswer:", name="good")
    with pytest.raises(InputError, match=rf"{FILE}, id 'bad': the prompt has no question"):
        to_cloze([good, item("Q?\nA: x\nAnswer:", name="bad")], FILE)
    with pytest.raises(InputError, match=rf"{FILE}, id 'bare'"):
        to_cloze([good, item("A: x\nB: y\nAnswer:", name="bare")], FILE)
    with pytest.raises(InputError, match=rf"{FILE}, id 'empty': nothing is left"):
        to_cloze([good, item("Q?\nA:\nB: y\nAnswer:", name="empty")], FILE)
