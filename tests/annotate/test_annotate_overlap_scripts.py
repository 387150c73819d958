"""Overlap in scripts without spaces between words, held against plain substring search."""

import pytest

from quadmix.annotate.overlap import count_short, ngram_hashes, overlap_bits
from quadmix.corpus.scripts import gap, unspaced

CHINESE = "水在标准大气压下于一百摄氏度沸腾，在零度结冰。"
THAI = "น้ำเดือดที่อุณหภูมิหนึ่งร้อยองศาเซลเซียสและแข็งตัวที่ศูนย์องศา"


def hit(document: str, item: str) -> bool:
    return bool(overlap_bits([document], [ngram_hashes([item])])[0])


@pytest.mark.parametrize(("text", "length"), [(CHINESE, 13), (THAI, 39)])
def test_a_run_of_characters_is_found_from_its_length_on(text: str, length: int) -> None:
    """Other text of the same script stands around it; one character fewer is not found."""
    other = "".join(chr(ord(c) + 1) for c in unspaced(text)[0 if length > 13 else 1])
    letters = "".join(unspaced(text))
    assert len(letters) > length
    for start in (0, len(letters) - length):
        run = letters[start : start + length]
        assert hit(f"{other}{run}{other}", text)
        assert not hit(f"{other}{run[:-1]}{other[::-1]}", text)


def test_punctuation_spaces_and_other_scripts_between_do_not_hide_a_run() -> None:
    spread = "水在（标准）大气压 下于, 一百 degrees 摄氏度沸腾"
    assert hit(spread, CHINESE)


def test_a_run_of_words_is_found_as_before_beside_characters() -> None:
    words = "one two three four five six seven eight nine ten eleven twelve thirteen"
    assert hit(f"水 {words} 火", words)
    assert not hit(f"水 {words.replace('seven', '七')} 火", words)
    # a text without such characters has word hashes alone: 14 words have two runs
    assert len(ngram_hashes([f"{words} fourteen"])) == 2


def test_short_items_are_those_without_any_run() -> None:
    items = ["水在标准大气压", CHINESE, THAI, THAI[:30], "two words", "w " * 13]
    assert count_short(items) == 3
    assert count_short([]) == 0


def test_letters_and_signs_are_kept_apart_in_their_order() -> None:
    assert unspaced("aก火b水ข1") == ("กข", "火水")
    assert unspaced("plain") == ("", "")


@pytest.mark.parametrize(
    ("prompt", "between"),
    [
        ("Where is it?", " "), ("它在哪里？", ""), ("它在哪里?", ""), ("答案：", ""), ("ที่ไหน", ""),
        ("Answer:\n", ""), ("", ""), ("서울은", " "), ("水 freezes", " "), ("?!", " "),
    ],
)  # fmt: skip
def test_an_answer_follows_after_a_space_unless_the_script_has_none(prompt: str, between: str) -> None:
    assert gap(prompt) == between
