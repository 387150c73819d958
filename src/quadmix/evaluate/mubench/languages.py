"""The 61 languages of MuBench, what stands between words in them, and classes of resources.

Codes are ISO 639-1 and `ceb`; `no` (not nb or nn), `tl` is Filipino, `zh` is in simplified characters.
"""

from collections.abc import Iterable


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LANGUAGES = _codes(
    "af ar az bg bn ca ceb cs da de el en es et fa fi fr ga gu he hi hr hu id is it ja jv kk km kn ko lt lv "
    "ml mr ms my nl no pa pl pt ro ru sk sl sq sr sv sw ta te th tl tr uk ur uz vi zh"
)
"""The released set."""

UNSPACED = frozenset(_codes("zh ja th km my lo bo dz yue wuu cmn zho jpn tha khm mya lao bod dzo qad"))
"""Written without spaces between words; beyond the five released ones, those that a user may bring
(ISO 639-1 or -3), and the unspaced toy language of the stand-in."""

RESOURCES: dict[str, tuple[str, ...]] = {
    "high": _codes("ar ca cs de en es fa fi fr hi hr hu it ja ko nl pl pt ru sr sv tr vi zh"),
    "mid": _codes("af bg bn ceb da el et he id kk lt lv ms ro sk sl ta th tl uk ur uz"),
    "low": _codes("az ga gu is jv km kn ml mr my no pa sq sw te"),
}
"""Class of resources -> languages: classes 4-5, 3 and 0-2 of Joshi et al. 2020, "The State and Fate of
Linguistic Diversity and Inclusion in the NLP World" (lang2tax.txt). MuBench's own assignment, with 26 low
ones, is not published. A setting, not a finding."""


def separator(language: str) -> str:
    """Return what stands between a prompt and its continuation: "" where words are not spaced, else " ".

    language: an ISO code, with or without script or region ("zh-Hans", "zho_Hans").
    """
    return "" if language.replace("_", "-").split("-")[0].lower() in UNSPACED else " "


def resource_groups(languages: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the classes of resources with those of `languages` in them, in their order; a pair needs two."""
    present = tuple(languages)
    groups = {name: tuple(c for c in present if c in members) for name, members in RESOURCES.items()}
    return {name: members for name, members in groups.items() if len(members) >= 2}
