"""The engine of every model that reads tokens: windows in, one row of numbers per text out.

In: texts, and four functions that say what a family does with them (see `TokenModel`). Out: `Outputs`.

A family builds a `TokenModel`, which is a `TextModel`, and nothing else:

    TokenModel(card=card, tokenise=..., forward=..., combine=..., width=K, device=device, settings=settings)

What happens to the texts: they are taken in chunks of `CHUNK`; while one is computed, the next is tokenised
in a thread (fast tokenizers release the interpreter's lock). The windows of a chunk are sorted by length,
longest first, and cut into batches of at most `Settings.batch_tokens` tokens with their padding to the right
(on a CPU, `CPU_TOKENS`). Memory that runs out halves the limit for the rest of the call; a window that does
not fit alone costs its document (reason `out_of_memory`). A document with a number that is not finite is NaN
(`not_finite`), one without any token too (`no_tokens`). The batches are a function of the texts alone, so the
same list gives the same bits; a document's row depends on its neighbours by float rounding only.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.models.base import Outputs, Settings, Windows, whole_texts
from quadmix.annotate.models.devices import import_torch, is_out_of_memory, torch_threads
from quadmix.recipe.cards import ModelCard

if TYPE_CHECKING:
    import torch

CHUNK = 256  # texts that are tokenised and sorted together: a call of 1,000 hides three quarters of it
CPU_TOKENS = (
    1_024  # of a batch and per thread; 2,048 are a tenth slower, 8,192 a third: they leave the caches
)
PAD_TO = {"cuda": 8, "cpu": 1}  # lengths become multiples: matrix units want 8, a CPU computes what is there

Numbers = NDArray[np.float32]
Lengths = NDArray[np.int64]
Pieces = Sequence[Sequence[int]]  # of one text: the token ids of every window, special tokens included
Tokenise = Callable[[Sequence[str]], Sequence[Pieces]]
Forward = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
Combine = Callable[[Numbers, Lengths], Numbers]


def only_window(values: Numbers, lengths: Lengths) -> Numbers:
    """Combine for models with one window per text: (1, K) -> (K,)."""
    return values[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenModel:
    """A `WindowModel` over token windows.

    tokenise: texts -> per text its windows (none: the text has no token). Called from one thread that is not
    the caller's, never twice at a time.
    forward: ids (B, T) int64 and mask (B, T) int64 (1 = token, 0 = padding on the right) on `device`
    -> (B, K) of any float type, on `device`. Runs under torch.inference_mode.
    combine: (W, K) float32 of a text's W windows, in order, and their (W,) lengths in tokens -> (K,).
    width: K. frame: special tokens in a window, which weigh nothing. pad: the id that fills up a window; 0
    does for any model, since the mask hides it, unless the model looks for it itself.
    """

    card: ModelCard
    tokenise: Tokenise
    forward: Forward
    width: int
    device: "torch.device"
    settings: Settings
    combine: Combine = only_window
    frame: int = 0
    pad: int = 0

    def outputs(self, texts: Sequence[str]) -> Outputs:
        """Return one row per text, (D, K) float32, NaN with a reason where there is none."""
        return whole_texts(self.windows(texts), len(texts), self.width)

    def windows(self, texts: Sequence[str]) -> Iterator[Windows]:
        """Yield the windows of `CHUNK` texts at a time, and what `combine` makes of those of each."""
        budget = _Budget(self._most_tokens())
        for pieces in _tokenised_ahead(self.tokenise, texts):
            with torch_threads(self.settings.threads):
                chunk = self._chunk(pieces, budget)
            yield chunk

    def _most_tokens(self) -> int:
        asked = self.settings.batch_tokens
        return min(asked, CPU_TOKENS * self.settings.threads) if self.device.type == "cpu" else asked

    def _chunk(self, texts: Sequence[Pieces], budget: "_Budget") -> Windows:
        pieces = [piece for of_text in texts for piece in of_text]
        results, lost = run_pieces(self, pieces, budget)
        lengths = np.array([len(p) for p in pieces], np.int64)
        rows = np.full((len(texts), self.width), np.nan, np.float32)
        reasons: list[str] = []
        at = 0
        for i, of_text in enumerate(texts):
            part = slice(at, at + len(of_text))
            at = part.stop
            reason = _reason(results[part], lost[part])
            if not reason:
                rows[i] = self.combine(results[part], lengths[part])
                reason = "" if np.isfinite(rows[i]).all() else "not_finite"
            if reason:
                rows[i] = np.nan
            reasons.append(reason)
        return Windows(
            values=results, weights=(lengths - self.frame).astype(np.float64), rows=rows, reasons=reasons,
            counts=np.array([len(of_text) for of_text in texts], np.int64),
        )  # fmt: skip


@dataclass(slots=True)
class _Budget:
    """Padded tokens of a batch, halved whenever memory runs out; for one call of `outputs`."""

    tokens: int


def _reason(results: Numbers, lost: NDArray[np.bool_]) -> str:
    if not len(results):
        return "no_tokens"
    if lost.any():
        return "out_of_memory"
    return "" if np.isfinite(results).all() else "not_finite"


def _tokenised_ahead(tokenise: Tokenise, texts: Sequence[str]) -> Iterator[Sequence[Pieces]]:
    """Yield the windows of each chunk in order, the next chunk always under way in a thread."""
    starts = range(0, len(texts), CHUNK)
    with ThreadPoolExecutor(1, "tokenise") as pool:
        waiting = pool.submit(tokenise, texts[:CHUNK])
        for start in starts:
            windows = waiting.result()
            if start + CHUNK < len(texts):
                waiting = pool.submit(tokenise, texts[start + CHUNK : start + 2 * CHUNK])
            yield windows


def run_pieces(
    model: TokenModel, pieces: Sequence[Sequence[int]], budget: _Budget
) -> tuple[Numbers, NDArray[np.bool_]]:
    """Return the outputs (P, K) of windows, in their order, and which (P,) did not fit into memory alone."""
    torch = import_torch("a model of texts")
    results = np.full((len(pieces), model.width), np.nan, np.float32)
    lost = np.zeros(len(pieces), np.bool_)
    order = sorted(range(len(pieces)), key=lambda i: (-len(pieces[i]), i))
    done: list[tuple[list[int], Any]] = []
    at = 0
    with torch.inference_mode():
        while at < len(order):
            longest = _padded(len(pieces[order[at]]), model.device.type)
            rows = order[at : at + max(1, budget.tokens // longest)]
            out = _try_forward(model, [pieces[i] for i in rows], longest)
            if out is not None:
                done.append((rows, out))
            elif len(rows) > 1:
                budget.tokens = longest * (len(rows) // 2)
                continue
            else:
                lost[rows] = True
            at += len(rows)
        for rows, out in done:  # copied at the end of a chunk: a GPU is not waited for between its batches
            results[rows] = out.float().cpu().numpy()
    return results, lost


def _padded(length: int, device: str) -> int:
    to = PAD_TO.get(device, 1)
    return max(1, -(-length // to) * to)


def _try_forward(model: TokenModel, pieces: Sequence[Sequence[int]], longest: int) -> Any:
    """Return the outputs (B, K) of one batch, or None if memory ran out; what it held is free by then."""
    torch = import_torch("a model of texts")
    try:
        ids, mask = _batch(model, pieces, longest)
        return model.forward(ids, mask)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def _batch(model: TokenModel, pieces: Sequence[Sequence[int]], longest: int) -> tuple[Any, Any]:
    torch = import_torch("a model of texts")
    lengths = np.array([len(p) for p in pieces], np.int64)
    mask = np.arange(longest)[None, :] < lengths[:, None]
    ids = np.full(mask.shape, model.pad, np.int64)
    ids[mask] = np.concatenate([np.asarray(p, np.int64) for p in pieces])
    both = torch.from_numpy(np.stack([ids, mask.astype(np.int64)]))
    if model.device.type == "cuda":
        both = both.pin_memory()
    moved = both.to(model.device, non_blocking=True)
    return moved[0], moved[1]
