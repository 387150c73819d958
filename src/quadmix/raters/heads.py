"""What a head over dense vectors may know of a text's language, as torch modules while it is trained.

plain: nothing. concat: the code of the language stands beside the text's vector. znorm: vectors are taken
about the mean of their language, in its standard deviations. poso: the code gates the hidden layer,
h = C g(code) * gelu(W x + b) (POSO, arXiv 2108.04690, Eq. 11, with GELU; C = 2, W2 ~ N(0, 0.5^2)); the last
layer is not gated. poso-znorm: both. gate-all: the gate reads the text's vector, too, as in a mixture of
experts (the paper's Table 6 has it worse than no gate); it is no table per language, so for comparisons only.

The code of a language is two trained vectors side by side: its own, and that of its tier, the bucket of its
number of training texts, which languages share.

znorm normalises the vectors and not the scores: a score shifted and stretched by language ranks the texts
of that language as before, so it could win no comparison; `offsets.py` moves scores. Moments of a language
with n texts are shrunk to those of all texts by n / (n + 10).

Row 0 of every table is the unknown language, of unknown tier. While training, a share of the texts is told to
be of an unknown language, so that this row is trained, too.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quadmix.annotate.models.rater_head import HeadWeights
from quadmix.errors import InputError
from quadmix.poso import Gate, GateConfig, PersonalizationCode, log2_edges, masking_sensitivity
from quadmix.types import Ints

HeadKind = Literal["plain", "concat", "znorm", "poso", "poso-znorm", "gate-all"]
Numbers = NDArray[np.float32]
CODE = 8  # numbers of a language's vector, and of its tier's
LARGEST_TIER = 2**16  # more texts are one tier
GATE_HIDDEN = 16
SHRINK = 10.0  # texts of a language that weigh as much as all others


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """mean, scale: (1, d), or (1 + L, d) with one row per language and that of all texts first; scale > 0."""

    mean: Numbers
    scale: Numbers


def moments(vectors: Numbers, languages: Ints, count: int, *, by_language: bool) -> Moments:
    """Return mean and standard deviation of vectors (D, d): of all, or of each of `count` languages.

    languages: (D,) 1..count, 0 = unknown. Mean and variance of a language are shrunk to those of all texts by
    n / (n + 10), so a language without texts has those of all.
    """
    wide = vectors.astype(np.float64)
    mean, variance = wide.mean(axis=0), wide.var(axis=0)
    rows = [(mean, variance)]
    for language in range(1, count + 1 if by_language else 1):
        own = wide[languages == language]
        share = len(own) / (len(own) + SHRINK)
        near = (own.mean(axis=0), own.var(axis=0)) if len(own) else (mean, variance)
        rows.append((share * near[0] + (1 - share) * mean, share * near[1] + (1 - share) * variance))
    means, variances = np.stack([m for m, _ in rows]), np.stack([v for _, v in rows])
    scale = np.sqrt(np.where(variances > 0, variances, 1.0))
    return Moments(mean=means.astype(np.float32), scale=scale.astype(np.float32))


class Head(nn.Module):
    """A score of a vector and its language; `hidden` 0 is a linear head."""

    mean: Tensor
    scale: Tensor
    texts: Tensor

    def __init__(self, kind: HeadKind, found: Moments, texts: Ints, *, hidden: int, dropout: float) -> None:
        """texts: (1 + L,) training texts of each language, the unknown one, of no tier, first."""
        super().__init__()
        gated = kind in ("poso", "poso-znorm", "gate-all")
        if gated and not hidden:
            raise InputError(
                f"head {kind!r} gates a hidden layer, but hidden is 0, a linear head; set hidden above 0"
            )
        self.register_buffer("mean", torch.from_numpy(found.mean))
        self.register_buffer("scale", torch.from_numpy(found.scale))
        counts = torch.from_numpy(texts).float()
        counts[0] = torch.nan
        self.register_buffer("texts", counts)
        self.kind, self.dropout, self.beside = kind, dropout, kind == "concat"
        self.codes = _codes(len(texts) - 1) if gated or self.beside else None
        code = self.codes.pc_dim if self.codes is not None else 0
        width = found.mean.shape[1] + (code if self.beside else 0)
        self.hidden = nn.Linear(width, hidden) if hidden else None
        self.gate = None
        if gated:
            read = code + (width if kind == "gate-all" else 0)
            self.gate = Gate(read, hidden, GateConfig(hidden=GATE_HIDDEN))
        self.out = nn.Linear(hidden or width, 1)

    def code(self, languages: Tensor) -> Tensor | None:
        """Return (B, 2 * CODE) of languages (B,), None where the head has no code."""
        if self.codes is None:
            return None
        return self.codes({"language": languages, "tier": self.texts[languages]})

    def last(self, vectors: Tensor, languages: Tensor) -> Tensor:
        """Return what the last layer reads: (B, hidden), or the vector where the head is linear."""
        own = languages if len(self.mean) > 1 else torch.zeros_like(languages)
        x = (vectors - self.mean[own]) / self.scale[own]
        code = self.code(languages)
        read = torch.cat([x, code], dim=1) if self.kind == "gate-all" and code is not None else code
        if self.beside and code is not None:
            x = torch.cat([x, code], dim=1)
        if self.hidden is not None:
            x = nn.functional.gelu(self.hidden(x))
        return x if self.gate is None or read is None else x * self.gate(read)

    def forward(self, vectors: Tensor, languages: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return (B,) scores of vectors (B, d). languages: (B,) int64, 0 = unknown. kept: (B, hidden) bool,
        what dropout keeps; None: no dropout."""
        x = self.last(vectors, languages)
        if kept is not None and self.dropout:
            x = x * kept / (1.0 - self.dropout)
        return self.out(x)[:, 0]

    @torch.no_grad()
    def sensitivity(self, vectors: Tensor, languages: Tensor) -> float:
        """Return S, how far masking the language moves what the last layer reads (0: not at all)."""
        return masking_sensitivity(self.last(vectors, languages), self.last(vectors, 0 * languages))

    @torch.no_grad()
    def weights(self, languages: list[str]) -> HeadWeights:
        """Return the head as arrays; languages: codes of the rows 1, 2, ... of its tables.

        Raises InputError for a gate that is not a function of the language alone.
        """
        if self.kind == "gate-all":
            raise InputError("a head whose gate reads the text has no table per language; take poso instead")
        codes = self.code(torch.arange(len(self.texts), device=self.texts.device))
        gate = _array(self.gate(codes)) if self.gate is not None and codes is not None else None
        hidden = self.hidden
        return HeadWeights(
            languages=tuple(languages), mean=_array(self.mean), scale=_array(self.scale),
            code=_array(codes) if self.beside and codes is not None else None,
            hidden=_array(hidden.weight) if hidden is not None else None,
            hidden_bias=_array(hidden.bias) if hidden is not None else None,
            gate=gate, out=_array(self.out.weight[0]), bias=float(self.out.bias[0]),
        )  # fmt: skip


def _codes(languages: int) -> PersonalizationCode:
    # the trainer withholds languages itself, by seeds of its own
    tiers = {"tier": log2_edges(LARGEST_TIER)}
    return PersonalizationCode({"language": languages}, tiers, dim=CODE, unknown_p=0.0)


def _array(tensor: Tensor) -> Numbers:
    return tensor.detach().cpu().float().numpy().copy()
