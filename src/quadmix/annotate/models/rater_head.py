"""A trained head over dense vectors, as plain arrays: what a rater computes for a text, without torch.

In: vectors and the row of each text's language. Out: one score per text, larger = better. All that depends on
the language alone (moments, code, gate) is a table with one row per language; row 0 is for languages that
the head was not trained on. Where the code names the domain, too, code and gate have a second axis, with one
row per domain and row 0 for domains that are unknown or were not trained on.

    x = (v - mean[l]) / scale[l],  x = [x; code[l, m]],  h = gelu(W x + b),  h *= gate[l, m],  s = w . h + c

gate is C * g(code) of POSO (Dai et al. 2021, arXiv 2108.04690, Eq. 11), computed once per code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.types import Ints

Numbers = NDArray[np.float32]
_TENSORS = ("mean", "scale", "code", "hidden.weight", "hidden.bias", "gate", "out.weight", "out.bias")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadWeights:
    """All float32. languages: (L,) codes of rows 1..L of the tables; domains: (M,) names of rows 1..M of
    their second axis, () where they have none. mean, scale: (1, d) or (1 + L, d); scale > 0. code: (1 + L, e)
    or (1 + L, 1 + M, e). hidden: (h, d + e), hidden_bias: (h,); both None for a linear head. gate: (1 + L, h)
    or (1 + L, 1 + M, h). out: (h,) or (d + e,). bias: the last constant."""

    languages: tuple[str, ...]
    mean: Numbers
    scale: Numbers
    out: Numbers
    bias: float
    code: Numbers | None = None
    hidden: Numbers | None = None
    hidden_bias: Numbers | None = None
    gate: Numbers | None = None
    domains: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Numbers per vector."""
        return self.mean.shape[1]

    @property
    def reads_language(self) -> bool:
        """Does a score depend on the language that a text is said to be in?"""
        return self.code is not None or self.gate is not None or len(self.mean) > 1

    def domain_rows(self, domains: Sequence[str]) -> Ints:
        """Return (D,) the row of each domain, 0 for one that the head was not trained on."""
        row = {name: place for place, name in enumerate(self.domains, start=1)}
        return np.array([row.get(name, 0) for name in domains], np.int64)

    def scores(self, vectors: Numbers, languages: Ints, domains: Ints | None = None) -> Numbers:
        """Return (D,) float32 scores of vectors (D, d); languages, domains: (D,) rows of the tables, 0 =
        unknown. domains: None = all unknown."""
        from scipy.special import erf

        if domains is None:
            domains = np.zeros(len(vectors), np.int64)
        of = (languages, domains) if self.domains else (languages,)
        own = languages if len(self.mean) > 1 else np.zeros(len(vectors), np.int64)
        x = (vectors - self.mean[own]) / self.scale[own]
        if self.code is not None:
            x = np.concatenate([x, self.code[of]], axis=1)
        if self.hidden is not None and self.hidden_bias is not None:
            x = x @ self.hidden.T + self.hidden_bias
            x = 0.5 * x * (1.0 + erf(x * np.float32(2**-0.5)))
        if self.gate is not None:
            x = x * self.gate[of]
        return (x @ self.out + np.float32(self.bias)).astype(np.float32)


def head_tensors(head: HeadWeights) -> dict[str, Numbers]:
    """Return the arrays of a head by the names that a file has."""
    values = (
        head.mean, head.scale, head.code, head.hidden, head.hidden_bias, head.gate, head.out[None],
        np.array([head.bias], np.float32),
    )  # fmt: skip
    return {
        name: np.ascontiguousarray(value, np.float32)
        for name, value in zip(_TENSORS, values, strict=True)
        if value is not None
    }


def head_of(
    tensors: Mapping[str, Any], languages: Sequence[str], domains: Sequence[str] = (), *, where: str
) -> HeadWeights:
    """Undo `head_tensors`; InputError names a tensor that is absent or of another shape."""
    unknown = sorted(set(tensors) - set(_TENSORS))
    lacking = [n for n in ("mean", "scale", "out.weight", "out.bias") if n not in tensors]
    if unknown or lacking:
        what = f"no tensor {lacking[0]!r}" if lacking else f"a tensor {unknown[0]!r}"
        raise InputError(f"{where} has {what}, expected those of a rater's head; train or fetch it again")
    rows, width = 1 + len(languages), tensors["mean"].shape[-1]
    moments = rows if len(tensors["mean"]) > 1 else 1
    table = (rows, 1 + len(domains)) if domains else (rows,)
    inner = width + (tensors["code"].shape[-1] if "code" in tensors else 0)
    last = tensors["hidden.weight"].shape[0] if "hidden.weight" in tensors else inner
    wanted = {
        "mean": (moments, width), "scale": (moments, width), "code": (*table, inner - width),
        "hidden.weight": (last, inner), "hidden.bias": (last,), "gate": (*table, last),
        "out.weight": (1, last), "out.bias": (1,),
    }  # fmt: skip
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != wanted[name]:
            raise InputError(
                f"{where}: tensor {name!r} has shape {tuple(tensor.shape)}, expected {wanted[name]} for "
                f"{len(languages)} languages and {len(domains)} domains; train or fetch it again"
            )
    if ("hidden.weight" in tensors) != ("hidden.bias" in tensors):
        raise InputError(f"{where} has one of hidden.weight and hidden.bias; train or fetch it again")
    return HeadWeights(
        languages=tuple(languages), mean=tensors["mean"], scale=tensors["scale"], code=tensors.get("code"),
        hidden=tensors.get("hidden.weight"), hidden_bias=tensors.get("hidden.bias"),
        gate=tensors.get("gate"), out=tensors["out.weight"][0], bias=float(tensors["out.bias"][0]),
        domains=tuple(domains),
    )  # fmt: skip
