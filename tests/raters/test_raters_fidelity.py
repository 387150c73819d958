"""The gate of translations: each fault by its own reason, good translations through, counts that add up."""

import numpy as np
import pytest

from quadmix.errors import InputError
from quadmix.raters.fidelity import (
    FidelityLimits,
    check_fidelity,
    copied_share,
    numbers,
    script_shares,
    scripts_of,
    urls,
)
from quadmix.raters.table import Texts

ENGLISH = (
    "The committee met in 1998 and 2004 and counted 12,500 members; see https://example.org/report for more."
)
GERMAN = "Der Ausschuss trat 1998 und 2004 zusammen und zählte 12.500 Mitglieder; siehe https://example.org/report."
RUSSIAN = (
    "Комитет собирался в 1998 и 2004 годах и насчитал 12 500 членов; подробнее https://example.org/report."
)
JAPANESE = (
    "委員会は1998年と2004年に開かれ、会員は12,500人であった。詳しくはhttps://example.org/reportを見よ。"
)
CHINESE = "委员会于一九九八年和二零零四年召开会议，共有一千二百五十名成员，详情请参阅相关报告和附件内容。"


def pairs(*given: tuple[str, str, str, str]) -> Texts:
    """(source language, source, target language, translation) -> originals and translations."""
    count = len(given)
    return Texts(
        ids=(*(f"o{i}" for i in range(count)), *(f"t{i}" for i in range(count))),
        source=tuple(f"s{i}" for i in range(count)) * 2,
        origin=(*[""] * count, *(f"o{i}" for i in range(count))),
        language=(*(g[0] for g in given), *(g[2] for g in given)),
        text=(*(g[1] for g in given), *(g[3] for g in given)),
    )


def reasons(*given: tuple[str, str, str, str], limits: FidelityLimits | None = None) -> list[str]:
    found = check_fidelity(pairs(*given), limits)
    assert found.kept.tolist() == [not reason for reason in found.reasons]
    assert found.kept[: len(given)].all()  # originals are never judged
    return list(found.reasons[len(given) :])


def test_good_translations_pass() -> None:
    given = [("de", GERMAN), ("ru", RUSSIAN), ("ja", JAPANESE), ("xx", GERMAN)]
    assert reasons(*(("en", ENGLISH, language, text) for language, text in given)) == [""] * 4


@pytest.mark.parametrize(
    ("language", "text", "reason"),
    [
        ("de", " \n", "empty"),
        ("de", "Der", "length ratio"),
        ("de", ENGLISH, "untranslated copy"),
        ("de", ENGLISH.upper(), "untranslated copy"),
        ("ru", GERMAN, "wrong script"),
        ("de", RUSSIAN, "wrong script"),
        ("ja", CHINESE, "wrong script"),
        ("zh", GERMAN, "wrong script"),
        ("sr-Latn", RUSSIAN, "wrong script"),
        (
            "de",
            "Der Ausschuss trat mehrfach zusammen; siehe https://example.org/report im Anhang.",
            "numbers lost",
        ),
        ("de", GERMAN.replace("https://example.org/report", "den Bericht"), "addresses lost"),
    ],
)
def test_each_fault_has_its_reason(language: str, text: str, reason: str) -> None:
    assert reasons(("en", ENGLISH, language, text)) == [reason]


def test_unknown_languages_and_other_spellings_of_one_pass() -> None:
    assert scripts_of("xx") == ()
    assert scripts_of("sr") == ()  # Latin and Cyrillic
    assert scripts_of("sr_Cyrl") == ("CYRILLIC",)
    assert scripts_of("pt_BR") == scripts_of("por") == ("LATIN",)
    assert reasons(("en", ENGLISH, "xx", RUSSIAN)) == [""]
    assert reasons(("en", ENGLISH, "en-GB", ENGLISH)) == [""]  # the same language: a copy is right


def test_names_and_code_of_the_source_do_not_count_as_wrong_script() -> None:
    source = "Run the program: docker container inspect alpine busybox ubuntu fedora debian gentoo archlinux"
    text = (
        "Запустите программу: docker container inspect alpine busybox ubuntu fedora debian gentoo archlinux"
    )
    shares = script_shares(text.split())
    assert shares["LATIN"] > 0.5  # by plain counting it would be Latin
    assert reasons(("en", source, "ru", text), limits=FidelityLimits(copied=1.0)) == [""]


def test_length_is_judged_against_the_routes_own_median() -> None:
    """Chinese is a third as long as English and passes; one that is cut in half beside it does not."""
    english = ["a" + "b" * n for n in (90, 120, 150, 180, 210, 240)]
    chinese = ["漢" * round(len(text) / 3) for text in english]
    chinese[2] = "漢" * 20
    found = check_fidelity(pairs(*(("en", e, "zh", c) for e, c in zip(english, chinese, strict=True))))
    assert [bool(r) for r in found.reasons[6:]] == [False, False, True, False, False, False]
    (route,) = found.routes
    ratios = [len(c) / len(e) for e, c in zip(english, chinese, strict=True)]
    assert route.ratio == pytest.approx(float(np.median(ratios)))
    assert (route.source, route.target, route.given, route.kept) == ("en", "zh", 6, 5)
    assert route.dropped == {"length ratio": 1}


def test_counts_are_kept_per_route_and_add_up() -> None:
    texts = pairs(
        ("en", ENGLISH, "de", GERMAN), ("en", ENGLISH, "de", ""), ("en", ENGLISH, "ru", GERMAN),
        ("ru", RUSSIAN, "en", ENGLISH), ("ja", JAPANESE, "en", JAPANESE),
    )  # fmt: skip
    found = {(r.source, r.target): r for r in check_fidelity(texts).routes}
    assert found[("en", "de")].dropped == {"empty": 1}
    assert found[("en", "ru")].dropped == {"wrong script": 1}
    assert found[("ja", "en")].dropped == {"untranslated copy": 1}
    assert found[("ru", "en")].dropped == {}
    assert sum(r.given for r in found.values()) == 5
    assert all(r.given == r.kept + sum(r.dropped.values()) for r in found.values())


def test_numbers_are_compared_whatever_their_digits_and_separators() -> None:
    assert numbers("1,250.75 and ٢٠٢٤ or ९९, 7 not") == ["250", "75", "2024", "99"]
    assert numbers("007 0042") == ["7", "42"]
    assert urls("see (https://a.org/x?y=1), www.b.org.") == ["https://a.org/x?y=1", "www.b.org"]


def test_the_copied_share_is_that_of_a_plain_count() -> None:
    text, source, limits = (
        "the cat sat on the mat today",
        "a dog sat on the mat yesterday",
        FidelityLimits(gram=5),
    )
    grams = [text[i : i + 5] for i in range(len(text) - 4)]
    assert copied_share(text, source, limits) == sum(source.count(g) > 0 for g in grams) / len(grams)
    assert 0 < copied_share(text, source, limits) < 1


def test_bad_limits_and_missing_originals_are_refused() -> None:
    with pytest.raises(InputError, match="ratio is 1, far 8; expected factors above 1"):
        FidelityLimits(ratio=1.0)
    with pytest.raises(InputError, match=r"copied is 1\.5, expected a share"):
        FidelityLimits(copied=1.5)
    texts = pairs(("en", ENGLISH, "de", GERMAN))
    with pytest.raises(InputError, match="text 't0' translates 'o0', which is not among the texts"):
        check_fidelity(texts.take([1]))
