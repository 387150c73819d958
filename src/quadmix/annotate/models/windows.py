"""Token windows of a text and the one row that comes out of them, as a card's `input` says.

In: texts, a tokenizer, `CardInput`. Out: per text its windows; a function that joins their outputs. A window
is never longer than `CardInput.window`, special tokens included: a model trained on 512 tokens gives numbers
for longer inputs too, but not the ones it was trained for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from quadmix.annotate.models.batches import Combine, Lengths, Numbers, Tokenise
from quadmix.recipe.cards import CardInput

CHARS_PER_TOKEN = 8  # of a long text, this much is tokenised first; nearly always it holds enough tokens
MARGIN = 32  # tokens next to the cut that are not believed: they could read otherwise with what follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The special tokens before and after a text."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self.before) + len(self.after)


def window_tokeniser(tokenizer: Any, how: CardInput, *, limit: int | None = None) -> Tokenise:
    """Return the function texts -> windows of token ids.

    tokenizer: of transformers. limit: tokens the model can read at most, where the card names no window.
    A text without any token has no window.
    """
    encode = _encoder(tokenizer)
    frame = special_tokens(tokenizer) if how.special_tokens else Frame()
    window = how.window or limit
    content = None if window is None else window - frame.tokens
    most = 1 if how.aggregate == "first" or content is None else how.max_windows

    def tokenise(texts: Sequence[str]) -> list[list[list[int]]]:
        ids = encode(texts) if content is None else first_tokens(encode, texts, content * most)
        return [
            [[*frame.before, *piece, *frame.after] for piece in islice(_pieces(row, content), most)]
            for row in ids
        ]

    return tokenise


def combiner(how: CardInput, frame_tokens: int) -> Combine:
    """Return the function (W, K) and (W,) lengths -> (K,); frame_tokens: of each window, not weighed."""

    def combine(values: Numbers, lengths: Lengths) -> Numbers:
        if len(values) == 1 or how.aggregate == "first":
            return values[0]
        if how.aggregate == "max":
            return values.max(axis=0)
        weights = lengths - frame_tokens if how.aggregate == "length-mean" else np.ones(len(values))
        return np.average(values.astype(np.float64), axis=0, weights=weights).astype(np.float32)

    return combine


def special_tokens(tokenizer: Any) -> Frame:
    """Return what the tokenizer puts around one text."""
    plain, framed = (list(tokenizer("a", add_special_tokens=add)["input_ids"]) for add in (False, True))
    extra = len(framed) - len(plain)
    for start in range(extra + 1):
        if framed[start : start + len(plain)] == plain:
            return Frame(before=tuple(framed[:start]), after=tuple(framed[start + len(plain) :]))
    return Frame()  # special tokens change the text's own: there is nothing to put around it


def first_tokens(encode: Any, texts: Sequence[str], need: int) -> list[list[int]]:
    """Return at least the first `need` tokens of each text, or all it has.

    Of a text that is much longer only the start is tokenised, cut at a blank; where that gives fewer tokens
    than needed (long words, runs of blanks) the whole text is.
    """
    chars = (need + MARGIN) * CHARS_PER_TOKEN
    starts = [_start(text, chars) for text in texts]
    ids = encode(starts)
    short = [
        i
        for i, (text, start) in enumerate(zip(texts, starts, strict=True))
        if len(start) < len(text) and len(ids[i]) < need + MARGIN
    ]
    if short:
        for i, row in zip(short, encode([texts[i] for i in short]), strict=True):
            ids[i] = row
    return ids


def _start(text: str, chars: int) -> str:
    if len(text) <= chars:
        return text
    cut = max(text.rfind(blank, chars // 2, chars) for blank in " \n")
    return text if cut < 0 else text[:cut]


def _pieces(ids: Sequence[int], size: int | None) -> Any:
    if not ids:
        return iter(())
    if size is None:
        return iter([ids])
    return (ids[at : at + size] for at in range(0, len(ids), size))


def _encoder(tokenizer: Any) -> Any:
    """Return texts -> ids without special tokens, uncut; a fast tokenizer's own core where there is one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch_fast"):
        return lambda texts: tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    backend.no_truncation()  # what tokenizer.json says of cutting and padding is for other users
    backend.no_padding()

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [row.ids for row in backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    return encode
