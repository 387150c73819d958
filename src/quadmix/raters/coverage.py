"""What an encoder's tokenizer does not know of texts, language by language.

In: a placed encoder, texts. Out: `Coverage`: tokens and signs (letters, digits and marks; blanks and
punctuation tell no script) that are known, with counts. A script outside the vocabulary becomes one unknown
token, or pieces of a byte each, or nothing at all: a rater then learns from votes on texts that it cannot
read. Unknown tokens alone understate it, since one may stand for a word or a line; signs do not.

A tokenizer made of bytes knows every sign. That it was trained on the script is then not known.
"""

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.models.base import Placed
from quadmix.annotate.models.devices import NEURAL
from quadmix.annotate.models.pretrained import read_tokenizer
from quadmix.errors import InputError
from quadmix.raters.table import Texts
from quadmix.rng import keyed_uniform

Kind = Literal["unknown token", "byte fallback", "bytes", "left out"]
WARN = 0.05  # share of a language's signs from which on a warning is given
LOOKED_AT = 2_000  # texts per language
CHARACTERS = 20_000  # of a text: encoders read no more of it
_RARE = "\U00013000 \U000103a0 \U00010300"  # Egyptian, Old Persian, Old Italic: in no vocabulary of words


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """texts: looked at. tokens: of them; unknown: the unknown token, or one byte of a sign. signs: letters,
    digits and marks; lost: of them, those under unknown tokens or under none. A tokenizer that does not say
    where its tokens stand has signs = lost = 0."""

    texts: int = 0
    tokens: int = 0
    unknown: int = 0
    signs: int = 0
    lost: int = 0

    @property
    def share(self) -> float:
        """Of the signs that are lost, in [0, 1]; of the tokens where signs cannot be counted; 0 of none."""
        part, whole = (self.lost, self.signs) if self.signs else (self.unknown, self.tokens)
        return part / whole if whole else 0.0

    def __add__(self, other: "Coverage") -> "Coverage":
        return Coverage(
            texts=self.texts + other.texts, tokens=self.tokens + other.tokens,
            unknown=self.unknown + other.unknown, signs=self.signs + other.signs, lost=self.lost + other.lost,
        )  # fmt: skip

    def __str__(self) -> str:
        signs = f"{self.lost:,} of {self.signs:,} letters, digits and marks, " if self.signs else ""
        return f"{self.share:.1%} ({signs}{self.unknown:,} of {self.tokens:,} tokens; {self.texts:,} texts)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """kind: what becomes of a sign that the tokenizer does not know. languages: by code."""

    kind: Kind
    languages: dict[str, Coverage]

    def lines(self) -> list[str]:
        """Return it as text, the language with the most unknown signs first, and a warning for each above
        `WARN`."""
        if self.kind == "bytes":
            return [
                "the encoder's tokenizer is made of bytes: no sign is unknown to it, which does not say that "
                "the encoder was trained on a script"
            ]
        order = sorted(self.languages.items(), key=lambda item: (-item[1].share, item[0]))
        return [
            f"what the encoder's tokenizer does not know of each language ({self.kind})",
            *(f"  {code or 'not said':<8} {one}" for code, one in order),
            *(
                f"warning: {code or 'not said'}: {one.share:.1%} of it is not known to the encoder's "
                "tokenizer; its scores say that much less"
                for code, one in order
                if one.share > WARN
            ),
        ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reader:
    """The tokenizer of an encoder. kind: what becomes of a sign that it does not know ("left out": nothing
    stands for it; "bytes": there is no such sign). unknown: ids of its unknown token and of byte pieces."""

    kind: Kind
    lower: bool
    unknown: NDArray[np.int64]
    tokenizer: Any

    def read(self, texts: Iterable[str]) -> Coverage:
        """Return what the tokenizer knows of the first `CHARACTERS` of each text."""
        cut = [unicodedata.normalize("NFC", text[:CHARACTERS]) for text in texts]
        cut = [text.lower() for text in cut] if self.lower else cut
        total = Coverage()
        for text, (ids, spans) in zip(cut, _encode(self.tokenizer, cut), strict=True):
            unknown = np.isin(ids, self.unknown)
            signs = lost = 0
            if spans is not None:
                signs, lost = _count_signs(text, spans, unknown)
            total += Coverage(texts=1, tokens=len(ids), unknown=int(unknown.sum()), signs=signs, lost=lost)
        return total


def encoder_reader(placed: Placed) -> Reader | None:
    """Return the tokenizer of the encoder below a rater, or of an encoder itself; None where there is none,
    as for character n-grams, which read every character."""
    encoder = placed.base if placed.card.family in ("rater", "frozen-head") else placed
    if encoder is None or encoder.card.family not in NEURAL:
        return None
    tokenizer = read_tokenizer(encoder)
    names = [tokenizer.unk_token, getattr(_core(tokenizer, "model"), "unk_token", None)]
    words: Mapping[str, int] = tokenizer.get_vocab()
    bytes_ = [words[n] for n in (f"<0x{byte:02X}>" for byte in range(256)) if n in words]
    unknown = np.array(sorted({words[str(n)] for n in names if n in words} | set(bytes_)), np.int64)
    ids, spans = _encode(tokenizer, [_RARE])[0]
    kind: Kind = "bytes"
    if np.isin(ids, bytes_).any():
        kind = "byte fallback"
    elif np.isin(ids, unknown).any():
        kind = "unknown token"
    elif spans is not None and _count_signs(_RARE, spans, np.zeros(len(ids), np.bool_))[1]:
        kind = "left out"
    return Reader(kind=kind, lower=encoder.card.input.lower, unknown=unknown, tokenizer=tokenizer)


def check_encoder(
    placed: Placed, texts: Texts, trained: Collection[str], *, most: float, seed: int
) -> Known | None:
    """Return what the encoder's tokenizer knows of each language, None where the encoder has none.

    At most `LOOKED_AT` texts of a language are read, drawn by their ids. Raises InputError where more than
    `most` of the signs of a language of `trained` are not known.
    """
    reader = encoder_reader(placed)
    if reader is None:
        return None
    found = _by_language(reader, texts, seed)
    _refuse_unknown(found, trained, most, placed.card.name)
    return Known(kind=reader.kind, languages=found)


def _by_language(reader: Reader, texts: Texts, seed: int) -> dict[str, Coverage]:
    luck, codes = keyed_uniform(seed, texts.ids, "coverage"), np.asarray(texts.language, np.str_)
    found: dict[str, Coverage] = {}
    for code in sorted(set(texts.language)):
        rows = np.flatnonzero(codes == code)
        rows = rows[np.argsort(luck[rows], kind="stable")[:LOOKED_AT]]
        found[code] = reader.read(texts.text[i] for i in rows.tolist())
    return found


def _refuse_unknown(
    found: Mapping[str, Coverage], trained: Collection[str], most: float, encoder: str
) -> None:
    over = {code: one for code, one in found.items() if code in trained and one.share > most}
    if over:
        named = "; ".join(f"{code!r}: {one}" for code, one in over.items())
        highest = max(one.share for one in over.values())
        raise InputError(
            f"encoder {encoder!r}: its tokenizer does not know {named}; expected at most {most:.0%} "
            "(encoder.max_unknown): the rater would learn from votes on what it cannot read. Take another "
            f"encoder, name the languages in transfer.without, or accept it: encoder.max_unknown: "
            f"{min(1.0, np.ceil(highest * 100) / 100):g}"
        )


def _core(tokenizer: Any, part: str) -> Any:
    return getattr(getattr(tokenizer, "backend_tokenizer", None), part, None)


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[tuple[NDArray[np.int64], NDArray[np.int64] | None]]:
    """Return per text its token ids (T,) and where they stand in it (T, 2), None where nobody says so."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        rows = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        return [(np.array(row, np.int64), None) for row in rows]
    core.no_truncation()  # what tokenizer.json says of cutting and padding is for other users
    core.no_padding()
    rows = core.encode_batch(list(texts), add_special_tokens=False)
    return [(np.array(r.ids, np.int64), np.array(r.offsets, np.int64).reshape(-1, 2)) for r in rows]


def _count_signs(text: str, spans: NDArray[np.int64], unknown: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the signs of a text, and how many of them lie under unknown tokens or under none."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    signs = _signs()[points]
    lost = ~_under(spans, len(points)) | _under(spans[unknown], len(points))
    return int(signs.sum()), int((signs & lost).sum())


def _under(spans: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    starts, ends = (np.bincount(side, minlength=size + 1) for side in spans.T)
    return np.cumsum(starts - ends)[:size] > 0


@cache
def _signs() -> NDArray[np.bool_]:
    """Return (1,114,112,): is the code point a letter, a digit or a mark?"""
    size = 0x110000
    return np.fromiter((unicodedata.category(chr(c))[0] in "LNM" for c in range(size)), np.bool_, size)
