"""Codes of languages: which language a tag means, and whether a model's card names it.

In: tags as the user's files and cards spell them (en, deu, en-US, eng_Latn). Out: ISO 639 codes.
"""

from functools import lru_cache

from quadmix.errors import InputError, MissingExtraError
from quadmix.recipe.cards import ModelCard

ANY = "*"


def check_languages(card: ModelCard) -> None:
    """Raise InputError if the card names a language by something that is no code, such as English."""
    for tag in card.languages:
        if tag != ANY and not _is_code(tag):
            raise InputError(
                f"card {card.name!r}: languages names {tag!r}, expected codes such as en, deu or eng_Latn, "
                f"or {ANY!r} for any language; correct the card"
            )


def language_reason(value: object, tags: tuple[str, ...]) -> str:
    """Return why a text in this language is not for a card that names `tags`, "" where it is."""
    code = language_code(value) if isinstance(value, str) else ""
    if not code:
        return "language_unknown"
    known = _codes(tags)
    return "" if code in known or _group(code) in known else "language_outside_card"


@lru_cache(maxsize=256)
def _codes(tags: tuple[str, ...]) -> frozenset[str]:
    return frozenset(language_code(tag) for tag in tags)


@lru_cache(maxsize=256)
def _is_code(tag: str) -> bool:
    if not language_code(tag):
        return False
    from langcodes import Language

    return Language.get(tag.strip()).is_valid()


@lru_cache(maxsize=4096)
def _group(code: str) -> str:
    """Return the code that stands for a group of languages with this one (no for nb and nn), "" if none does.

    A group's code that is in use for one of its languages alone (zh for Mandarin, ms for Malay) stands for
    that one: Cantonese is not zh, nor Indonesian ms.
    """
    from langcodes.data_dicts import MACROLANGUAGES, NORMALIZED_MACROLANGUAGES

    group = MACROLANGUAGES.get(code, "")
    return "" if group in NORMALIZED_MACROLANGUAGES.values() else group


@lru_cache(maxsize=4096)
def language_code(tag: str) -> str:
    """Return the ISO 639-1 (or -3) code of a language tag such as en-US or eng_Latn, "" if it is none."""
    try:
        from langcodes import Language
        from langcodes.tag_parser import LanguageTagError
    except ImportError as error:
        raise MissingExtraError("langcodes", "annotate", "annotate.language") from error
    try:
        return Language.get(tag.strip()).prefer_macrolanguage().language or ""
    except LanguageTagError:
        return ""
