"""Which translations can carry the label of their original: a gate with counts.

In: `Texts` with originals and translations. Out: which are kept, why the others are not, and counts per route
(from a language to a language). Nothing here needs a model: lengths against the route's median, copies of the
source, the script of the output, numbers and addresses that must survive.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.raters.table import Texts

EMPTY, RATIO, COPY = "empty", "length ratio", "untranslated copy"
SCRIPT, NUMBERS, URLS = "wrong script", "numbers lost", "addresses lost"
REASONS = (EMPTY, RATIO, COPY, SCRIPT, NUMBERS, URLS)  # the first that applies is given
_GRAMS = 256
_RUN = re.compile(r"\d{2,}")
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"']+")
_WORD = re.compile(r"[^\W\d_]+")
_BEHIND_URL = ".,;:!?)]}`*。，、।؟"
# Languages that are written in one script alone, ISO 639-1 and 639-3; scripts by the first word of their
# letters' names. Languages of several scripts (sr, uz, kk, ckb, ms, pa, ...) are absent and pass.
_ONE_SCRIPT = {
    "LATIN": (
        "en eng de deu fr fra es spa it ita pt por nl nld pl pol cs ces sk slk sl slv hr hrv ro ron hu "
        "hun fi fin et est lv lav lvs lt lit sv swe da dan nb nob nn nno no nor is isl ga gle cy cym eu "
        "eus ca cat gl glg tr tur vi vie id ind tl tgl fil sw swa swh yo yor ig ibo zu zul xh xho af afr "
        "sq sqi mt mlt so som rw kin st sot tn tsn sn sna ny nya ee ewe"
    ),
    "CYRILLIC": "ru rus uk ukr bg bul be bel mk mkd ky kir tg tgk ba bak cv chv os oss",
    "ARABIC": "ar ara arb ary arz apc fa fas pes prs ur urd ps pus pbt",
    "HEBREW": "he heb yi yid",
    "GREEK": "el ell",
    "ARMENIAN": "hy hye",
    "GEORGIAN": "ka kat",
    "DEVANAGARI": "hi hin mr mar ne nep npi bho mai",
    "BENGALI": "bn ben as asm",
    "GUJARATI": "gu guj",
    "ORIYA": "or ori ory",
    "TAMIL": "ta tam",
    "TELUGU": "te tel",
    "KANNADA": "kn kan",
    "MALAYALAM": "ml mal",
    "SINHALA": "si sin",
    "THAI": "th tha",
    "LAO": "lo lao",
    "KHMER": "km khm",
    "MYANMAR": "my mya",
    "TIBETAN": "bo bod dz dzo",
    "ETHIOPIC": "am amh ti tir",
    "THAANA": "dv div",
    "HANGUL": "ko kor",
    "CJK": "zh zho cmn yue",
    "HIRAGANA KATAKANA CJK": "ja jpn",
}
_SUBTAGS = {
    "Latn": "LATIN", "Cyrl": "CYRILLIC", "Arab": "ARABIC", "Hebr": "HEBREW", "Grek": "GREEK",
    "Deva": "DEVANAGARI", "Beng": "BENGALI", "Guru": "GURMUKHI", "Thai": "THAI", "Ethi": "ETHIOPIC",
    "Hans": "CJK", "Hant": "CJK", "Jpan": "HIRAGANA KATAKANA CJK", "Hang": "HANGUL", "Mong": "MONGOLIAN",
    "Tfng": "TIFINAGH", "Geor": "GEORGIAN", "Armn": "ARMENIAN",
}  # fmt: skip
_SCRIPTS = {code: names for names, codes in _ONE_SCRIPT.items() for code in codes.split()}
_MUST_HAVE = {"ja": ("HIRAGANA", "KATAKANA"), "jpn": ("HIRAGANA", "KATAKANA")}  # else Chinese would pass


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityLimits:
    """What a translation must fulfil; shares lie in [0, 1].

    ratio: factor by which the length ratio (characters of the translation per character of the source) may
    lie off its route's median, either way. far: the same off 1, for every route; it alone counts where a
    route has fewer than `least_texts`. copied: share of the translation's character n-grams (`gram` long,
    lower case) that the source has too, at most. script: share of letters in the language's script, at least;
    words that the source has too (names, code) are not counted. must: share of letters that must be kana in
    Japanese. least_letters: fewer letters are not judged by copy or script. numbers: share of the source's
    numbers of two digits or more that are found again, at least, judged from `least_numbers` on. urls: the
    same of addresses.
    """

    ratio: float = 2.0
    far: float = 8.0
    least_texts: int = 5
    copied: float = 0.8
    gram: int = 8
    script: float = 0.5
    must: float = 0.1
    least_letters: int = 20
    numbers: float = 0.3
    least_numbers: int = 4
    urls: float = 0.5

    def __post_init__(self) -> None:
        if self.ratio <= 1 or self.far <= 1:
            raise InputError(
                f"limits of fidelity: ratio is {self.ratio:g}, far {self.far:g}; expected factors above 1"
            )
        for name in ("copied", "script", "must", "numbers", "urls"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"limits of fidelity: {name} is {getattr(self, name):g}, expected a share in [0, 1]"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Translations from a language to another: given = kept + all of dropped (reason -> number). ratio: the
    median length ratio of those that are not empty, NaN where there is none."""

    source: str
    target: str
    given: int
    kept: int
    dropped: dict[str, int]
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fidelity:
    """kept: (D,) bool, originals among them. reasons: (D,) one of REASONS, "" for what is kept."""

    kept: NDArray[np.bool_]
    reasons: tuple[str, ...]
    routes: tuple[Route, ...]


def check_fidelity(texts: Texts, limits: FidelityLimits | None = None) -> Fidelity:
    """Hold every translation against its original; originals pass.

    Raises InputError for a translation whose original is not among the texts.
    """
    limits = limits or FidelityLimits()
    place = {id_: row for row, id_ in enumerate(texts.ids)}
    routes: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row, origin in enumerate(texts.origin):
        if not origin:
            continue
        if origin not in place:
            raise InputError(
                f"text {texts.ids[row]!r} translates {origin!r}, which is not among the texts; pass "
                "originals and translations together"
            )
        key = (texts.language[place[origin]], texts.language[row])
        routes.setdefault(key, []).append((row, place[origin]))
    reasons = [""] * len(texts)
    found = tuple(_route(texts, key, routes[key], reasons, limits) for key in sorted(routes))
    return Fidelity(
        kept=np.array([not reason for reason in reasons], np.bool_), reasons=tuple(reasons), routes=found
    )


def _route(
    texts: Texts,
    key: tuple[str, str],
    rows: Sequence[tuple[int, int]],
    reasons: list[str],
    limits: FidelityLimits,
) -> Route:
    """Judge one route; fills in the reasons of its rows."""
    full = [(row, origin) for row, origin in rows if texts.text[row].strip() and texts.text[origin].strip()]
    ratios = {row: len(texts.text[row]) / len(texts.text[origin]) for row, origin in full}
    median = float(np.median(list(ratios.values()))) if ratios else float("nan")
    for row, origin in rows:
        if row not in ratios:
            reasons[row] = EMPTY
        elif not _length_fits(ratios[row], median, len(ratios), limits):
            reasons[row] = RATIO
        else:
            reasons[row] = _content(texts.text[row], texts.text[origin], key, limits)
    counts = Counter(reasons[row] for row, _ in rows)
    return Route(
        source=key[0], target=key[1], given=len(rows), kept=counts[""],
        dropped={reason: counts[reason] for reason in REASONS if counts[reason]}, ratio=median,
    )  # fmt: skip


def _length_fits(ratio: float, median: float, texts: int, limits: FidelityLimits) -> bool:
    if max(ratio, 1 / ratio) > limits.far:
        return False
    return texts < limits.least_texts or max(ratio / median, median / ratio) <= limits.ratio


def _content(text: str, source: str, key: tuple[str, str], limits: FidelityLimits) -> str:
    if _base(key[0]) != _base(key[1]) and copied_share(text, source, limits) > limits.copied:
        return COPY
    if not _script_fits(text, source, key[1], limits):
        return SCRIPT
    wanted = Counter(numbers(source))
    if wanted.total() >= limits.least_numbers:
        kept = (wanted & Counter(numbers(text))).total() / wanted.total()
        if kept < limits.numbers:
            return NUMBERS
    addresses = urls(source)
    if addresses and sum(address in text for address in addresses) / len(addresses) < limits.urls:
        return URLS
    return ""


def copied_share(text: str, source: str, limits: FidelityLimits) -> float:
    """Return the share of the text's character n-grams that the source has too; 0 if it has few letters.

    Of a long text some 256 n-grams are looked at, evenly spaced.
    """
    if sum(map(str.isalpha, text)) < limits.least_letters:
        return 0.0
    given, known = (" ".join(side.lower().split()) for side in (text, source))
    starts = range(0, len(given) - limits.gram + 1, max(1, len(given) // _GRAMS))
    return sum(given[i : i + limits.gram] in known for i in starts) / max(1, len(starts))


def numbers(text: str) -> list[str]:
    """Return the runs of two or more digits, of any script, as ASCII digits without leading zeros.

    Separators part runs, so that 1,234.5 and 1.234,5 have the same; single digits are often spelt out.
    """
    return [str(int(run)) for run in _RUN.findall(text)]


def urls(text: str) -> list[str]:
    """Return the web addresses in a text without the punctuation behind them."""
    return [address.rstrip(_BEHIND_URL) for address in _URL.findall(text)]


def scripts_of(language: str) -> tuple[str, ...]:
    """Return the scripts a language may be written in, () if not known: its script subtag (sr-Latn) says it,
    else the table of languages with one script."""
    parts = re.split(r"[-_]", language)
    for part in parts[1:]:
        if part.title() in _SUBTAGS and len(part) == 4:
            return tuple(_SUBTAGS[part.title()].split())
    return tuple(_SCRIPTS.get(parts[0].lower(), "").split())


def script_shares(words: Iterable[str]) -> dict[str, float]:
    """Return script -> share of the letters of some words."""
    counts = Counter[str]()
    for letter, count in Counter("".join(words)).items():
        counts[_script(letter)] += count
    total = counts.total()
    return {script: count / total for script, count in counts.items()}


def _script_fits(text: str, source: str, language: str, limits: FidelityLimits) -> bool:
    expected = scripts_of(language)
    if not expected:
        return True
    taken = set(_WORD.findall(source))
    words = [word for word in _WORD.findall(text) if word not in taken]
    if sum(map(len, words)) < limits.least_letters:
        return True
    shares = script_shares(words)
    if sum(shares.get(script, 0.0) for script in expected) < limits.script:
        return False
    needed = _MUST_HAVE.get(_base(language), ())
    return not needed or sum(shares.get(script, 0.0) for script in needed) >= limits.must


@lru_cache(maxsize=65_536)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split(" ")[0].split("-")[0]


def _base(language: str) -> str:
    return re.split(r"[-_]", language)[0].lower()
