"""Languages are named as models know them, whatever standard their code is of."""

import pytest

from quadmix.annotate.models.languages import language_code
from quadmix.raters.languages import _BY_CODE, language_name


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("en", "English"), ("eng", "English"), ("ENG", "English"), ("zho", "Chinese"), ("cmn", "Chinese"),
        ("swh", "Swahili"), ("pt-BR", "Portuguese (pt-BR)"), ("zho_Hant", "Chinese (zho_Hant)"),
        ("tlh", "tlh"), ("qq-XX", "qq-XX"), ("", ""),
    ],
)  # fmt: skip
def test_codes_have_english_names_and_unknown_ones_stand_for_themselves(code: str, name: str) -> None:
    assert language_name(code) == name


def test_all_codes_of_a_name_are_one_language() -> None:
    """langcodes makes one code of those of both standards and of their macrolanguages."""
    names: dict[str, set[str]] = {}
    for code, name in _BY_CODE.items():
        names.setdefault(name, set()).add(language_code(code))
    assert {name for name, codes in names.items() if len(codes) > 1} == set()
