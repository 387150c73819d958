"""The 61 languages of MuBench, what stands between words in them, and classes of resources.

Codes are ISO 639-1 and `ceb`; `no` (not nb or nn), `tl` is Filipino, `zh` is in simplified characters.
"""

from collections.abc import Iterable

LANGUAGES: tuple[str, ...] = tuple(
    "af ar az bg bn ca ceb cs da de el en es et fa fi fr ga gu he hi hr hu id is it ja jv kk km kn ko lt lv "
    "ml mr ms my nl no pa pl pt ro ru sk sl sq sr sv sw ta te th tl tr uk ur uz vi zh".split()
)
"""The released set."""

UNSPACED = frozenset("zh ja th km my lo bo dz yue wuu cmn zho jpn tha khm mya lao bod dzo qad".split())
"""Written without spaces between words; beyond the five released ones, those that a user may bring
(ISO 639-1 or -3), and the unspaced toy language of the stand-in."""

# Joshi et al. 2020, "The State and Fate of Linguistic Diversity and Inclusion in the NLP World", classes of
# lang2tax.txt: high = 4-5, mid = 3, low = 0-2. MuBench's own assignment (26 low) is not published.
RESOURCES: dict[str, tuple[str, ...]] = {
    "high": tuple("ar ca cs de en es fa fi fr hi hr hu it ja ko nl pl pt ru sr sv tr vi zh".split()),
    "mid": tuple("af bg bn ceb da el et he id kk lt lv ms ro sk sl ta th tl uk ur uz".split()),
    "low": tuple("az ga gu is jv km kn ml mr my no pa sq sw te".split()),
}
"""Class of resources -> languages. A setting, not a finding: `--group` names others."""


def separator(language: str) -> str:
    """Return what stands between a prompt and its continuation: "" where words are not spaced, else " ".

    language: an ISO code, with or without script or region ("zh-Hans", "zho_Hans").
    """
    return "" if language.replace("_", "-").split("-")[0].lower() in UNSPACED else " "


def resource_groups(languages: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the classes of resources with those of `languages` in them, in their order; pairs need two."""
    present = tuple(languages)
    groups = {name: tuple(c for c in present if c in members) for name, members in RESOURCES.items()}
    return {name: members for name, members in groups.items() if len(members) >= 2}
