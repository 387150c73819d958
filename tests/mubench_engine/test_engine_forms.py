"""How items are put to a model: spaces, blanks, and what is refused."""

import pytest

from quadmix.errors import InputError
from quadmix.evaluate.mubench.forms import Question, questions
from quadmix.evaluate.mubench.items import Item


def item(prompt: str = "Where is it", *choices: str, label: int = 0) -> Item:
    return Item(id="q1", prompt=prompt, choices=choices or ("here", "there"), label=label)


def ask(one: Item, *, task: str = "arc_easy", mode: str = "lighteval", language: str = "de") -> Question:
    return questions(task, mode, language, [one])[0]


@pytest.mark.parametrize(
    ("mode", "language", "gap"),
    [
        ("lighteval", "de", " "), ("lighteval", "ko", " "), ("lighteval", "zh", ""), ("lighteval", "th", ""),
        ("local_template", "ja", ""), ("local_template", "ar", " "), ("en_template", "zh", " "),
        ("mix_lighteval_2", "km", ""), ("mix_2", "sw", " "),
    ],
)  # fmt: skip
def test_a_space_goes_before_an_option_where_words_are_spaced(mode: str, language: str, gap: str) -> None:
    found = ask(item(), mode=mode, language=language)
    assert found.contexts == ("Where is it",) * 2
    assert found.continuations == (f"{gap}here", f"{gap}there")
    assert (found.form, found.label) == ("options", 0)


def test_options_are_weighed_by_their_bytes_without_the_space() -> None:
    assert ask(item("?", "né", "水ab", "x")).weights == (3, 5, 1)


def test_no_second_space_where_the_prompt_ends_in_one() -> None:
    assert ask(item("Where:\n")).continuations == ("here", "there")


def test_a_blank_is_filled_and_the_rest_of_the_sentence_scored() -> None:
    found = ask(item("The cup fell on _ and broke.", "the floor", "a bed", label=1), task="winogrande")
    assert found.form == "blank"
    assert found.contexts == ("The cup fell on the floor", "The cup fell on a bed")
    assert found.continuations == (" and broke.",) * 2
    assert found.weights == (11, 11)
    assert found.choices == ("the floor", "a bed")


@pytest.mark.parametrize("rest", ["", ".", "。", " ?!"])
def test_whole_sentences_are_scored_per_byte_where_the_blank_comes_last(rest: str) -> None:
    found = ask(item(f"It broke: the ＿＿{rest}", "cup", "bed"), task="winogrande")
    assert found.form == "whole"
    assert found.contexts == ("", "")
    assert found.continuations == (f"It broke: the cup{rest}", f"It broke: the bed{rest}")
    assert found.weights == tuple(len(text.encode()) for text in found.continuations)


def test_blanks_matter_in_cloze_form_of_winogrande_alone() -> None:
    one = item("a _ b", "A", "B")
    assert ask(one, task="winogrande", mode="local_template").form == "options"
    assert ask(one, task="arc_easy").form == "options"


def test_items_whose_blank_was_lost_or_doubled_are_not_scored_among_items_with_blanks() -> None:
    rows = [item("a _ b"), item("a b"), item("a _ b _ c")]
    assert [q.form for q in questions("winogrande", "lighteval", "de", rows)] == ["blank", "unfit", "unfit"]
    # without any blank the options go on from the prompts
    assert [q.form for q in questions("winogrande", "lighteval", "de", rows[1:2])] == ["options"]


def test_an_option_without_text_is_refused_by_id() -> None:
    with pytest.raises(InputError, match=r"arc_easy \(lighteval, de\), id 'q1': option 1 is ' '"):
        ask(item("?", "a", " "))
