"""What a head over dense vectors may know of a text's language and domain, as torch modules in training.

plain: nothing. concat: the code of the language stands beside the text's vector. znorm: vectors are taken
about the mean of their language, in its standard deviations. poso: the code gates the hidden layer,
h = C g(code) * gelu(W x + b) (POSO, arXiv 2108.04690, Eq. 11, with GELU; C = 2, W2 ~ N(0, 0.5^2)); the last
layer is not gated. poso-znorm: both. gate-all: the gate reads the text's vector, too, as in a mixture of
experts (the paper's Table 6 has it worse than no gate); it is no table per language, so for comparisons only.

The code of a text is trained vectors side by side: of its language, of its domain where domains are given,
and of the language's tier, the bucket of its number of training texts, which languages share.

znorm normalises the vectors and not the scores: a score shifted and stretched by language ranks the texts
of that language as before, so it could win no comparison; `offsets.py` moves scores. Moments of a language
with n texts are shrunk to those of all texts by n / (n + 10).

Row 0 of every table is the unknown language, of unknown tier, or the unknown domain. While training, language
and domain are withheld from a share of the texts each, independently, so that these rows are trained, too.
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
Masked = Literal["language", "domain"]
Numbers = NDArray[np.float32]
CODE = 8  # numbers of a language's vector, of its tier's, and of a domain's
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

    def __init__(
        self, kind: HeadKind, found: Moments, texts: Ints, *, hidden: int, dropout: float, domains: int = 0
    ) -> None:
        """texts: (1 + L,) training texts of each language, the unknown one, of no tier, first. domains: M of
        the code, 0: it has none."""
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
        self.codes = _codes(len(texts) - 1, domains) if gated or self.beside else None
        self.domains = domains if self.codes is not None else 0
        code = self.codes.pc_dim if self.codes is not None else 0
        width = found.mean.shape[1] + (code if self.beside else 0)
        self.hidden = nn.Linear(width, hidden) if hidden else None
        self.gate = None
        if gated:
            read = code + (width if kind == "gate-all" else 0)
            self.gate = Gate(read, hidden, GateConfig(hidden=GATE_HIDDEN))
        self.out = nn.Linear(hidden or width, 1)

    def code(self, languages: Tensor, domains: Tensor | None = None) -> Tensor | None:
        """Return (B, pc_dim) of languages and domains (B,), None where the head has no code. domains: None =
        all unknown."""
        if self.codes is None:
            return None
        features = {"language": languages, "tier": self.texts[languages]}
        if self.domains:
            features["domain"] = torch.zeros_like(languages) if domains is None else domains
        return self.codes(features)

    def last(self, vectors: Tensor, languages: Tensor, domains: Tensor | None = None) -> Tensor:
        """Return what the last layer reads: (B, hidden), or the vector where the head is linear."""
        own = languages if len(self.mean) > 1 else torch.zeros_like(languages)
        x = (vectors - self.mean[own]) / self.scale[own]
        code = self.code(languages, domains)
        read = torch.cat([x, code], dim=1) if self.kind == "gate-all" and code is not None else code
        if self.beside and code is not None:
            x = torch.cat([x, code], dim=1)
        if self.hidden is not None:
            x = nn.functional.gelu(self.hidden(x))
        return x if self.gate is None or read is None else x * self.gate(read)

    def forward(
        self,
        vectors: Tensor,
        languages: Tensor,
        domains: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) scores of vectors (B, d). languages, domains: (B,) int64, 0 = unknown; domains: None =
        all unknown. kept: (B, hidden) bool, what dropout keeps; None: no dropout."""
        x = self.last(vectors, languages, domains)
        if kept is not None and self.dropout:
            x = x * kept / (1.0 - self.dropout)
        return self.out(x)[:, 0]

    @torch.no_grad()
    def sensitivity(
        self, vectors: Tensor, languages: Tensor, domains: Tensor | None = None, *, of: Masked = "language"
    ) -> float:
        """Return S, how far masking the language, or the domain, moves what the last layer reads (0: not at
        all)."""
        if of == "language":
            masked = self.last(vectors, 0 * languages, domains)
        else:
            masked = self.last(vectors, languages)
        return masking_sensitivity(self.last(vectors, languages, domains), masked)

    @torch.no_grad()
    def factors(self, domains: Tensor | None = None) -> Tensor | None:
        """Return (1 + L, h) factors of the gate of each language, None where it is no function of the code
        alone. domains: (1 + L,) of each row; None = all unknown."""
        codes = self.code(torch.arange(len(self.texts), device=self.texts.device), domains)
        return None if self.gate is None or codes is None or self.kind == "gate-all" else self.gate(codes)

    @torch.no_grad()
    def weights(self, languages: list[str], domains: list[str] | None = None) -> HeadWeights:
        """Return the head as arrays; languages, domains: names of the rows 1, 2, ... of its tables.

        Raises InputError for a gate that is not a function of the code alone.
        """
        if self.kind == "gate-all":
            raise InputError("a head whose gate reads the text has no table per language; take poso instead")
        codes, hidden = self._every_code(), self.hidden
        gate = None
        if self.gate is not None and codes is not None:
            gate = _array(self.gate(codes.flatten(0, -2)).unflatten(0, codes.shape[:-1]))
        return HeadWeights(
            languages=tuple(languages), mean=_array(self.mean), scale=_array(self.scale),
            code=_array(codes) if self.beside and codes is not None else None,
            hidden=_array(hidden.weight) if hidden is not None else None,
            hidden_bias=_array(hidden.bias) if hidden is not None else None,
            gate=gate, out=_array(self.out.weight[0]), bias=float(self.out.bias[0]),
            domains=tuple(domains or ()) if self.domains else (),
        )  # fmt: skip

    def _every_code(self) -> Tensor | None:
        """Return (1 + L, pc_dim), or (1 + L, 1 + M, pc_dim) of every language and domain."""
        rows = torch.arange(len(self.texts), device=self.texts.device)
        if not self.domains:
            return self.code(rows)
        of = torch.arange(1 + self.domains, device=rows.device)
        codes = self.code(rows.repeat_interleave(len(of)), of.repeat(len(rows)))
        return None if codes is None else codes.unflatten(0, (len(rows), len(of)))


def _codes(languages: int, domains: int) -> PersonalizationCode:
    # the trainer withholds languages and domains itself, by seeds of its own
    tiers = {"tier": log2_edges(LARGEST_TIER)}
    features = {"language": languages} | ({"domain": domains} if domains else {})
    return PersonalizationCode(features, tiers, dim=CODE, unknown_p=0.0)


def _array(tensor: Tensor) -> Numbers:
    return tensor.detach().cpu().float().numpy().copy()
