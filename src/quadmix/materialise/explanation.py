"""What `explain` returns: the steps from a document's scores to its copies, and the same in words.

Scores, normalised and merged scores and ranks: smaller = better.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionStep:
    """One criterion of one document. delivered: as its source gave it. score, normalised: smaller = better.
    weight: α of the domain; used: after leaving out what is missing. NaN = missing."""

    name: str
    declared: str
    delivered: float
    score: float
    normalised: float
    weight: float
    used: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The domain's sampling function (Eq. 3)."""

    steepness: float
    cutoff: float
    exponent: float
    floor: float
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """From merged score to copies; rank 0 = best.

    documents, domain_tokens: selectable ones of the domain; documents is None unless they were recounted.
    tokens_before, tokens_of_bin: of the bin of merged scores that gave the rank. exact: whether the rank is
    what Eq. 2 gives without bins, None if not recounted; then exact_low, exact_high (that rank) are NaN.
    fraction: expected - ⌊expected⌋; one copy more where uniform < fraction · factor.
    """

    merged: float
    rank_low: float
    rank_high: float
    documents: int | None
    domain_tokens: int
    tokens_before: int
    tokens_of_bin: int
    exact: bool | None
    exact_low: float
    exact_high: float
    expected: float
    uniform: float
    fraction: float
    factor: float
    copies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One document's way; `draw` is None and `excluded` says why where it could not be chosen.

    twins: the other documents of the corpus with the same id, in corpus order.
    """

    doc_id: str
    split: int
    row_in_split: int
    domain: str
    label: str
    tokens: int
    criteria: tuple[CriterionStep, ...]
    curve: Curve
    excluded: str | None
    draw: Draw | None
    twins: tuple["Explanation", ...] = ()

    def render(self) -> str:
        """Return plain text, one step per line."""
        lines = [
            f"document {self.doc_id}: row {self.row_in_split} of split {self.split}, {self.tokens:,} tokens",
            f"domain {self.domain}" + (f" (labelled {self.label})" if self.label != self.domain else ""),
        ]
        lines += [_criterion_line(c) for c in self.criteria]
        if self.draw is None:
            lines.append(f"excluded: {self.excluded}, so it has no rank and 0 copies")
        else:
            lines += _draw_lines(self.draw, self.curve)
        for twin in self.twins:
            lines += ["", "another document has the same id:", twin.render()]
        return "\n".join(lines)


def _draw_lines(d: Draw, c: Curve) -> list[str]:
    among = f" in {d.documents:,} documents" if d.documents is not None else ""
    return [
        f"merged score (Eq. 1): {d.merged:.6f}, smaller = better",
        f"rank in its domain (Eq. 2): {d.rank_low:.6f} to {d.rank_high:.6f} of {d.domain_tokens:,} "
        f"tokens{among}, 0 = best",
        _exactness(d),
        f"curve (Eq. 3): steepness λ {c.steepness:.6g}, cutoff ω {c.cutoff:.6g}, exponent η "
        f"{c.exponent:.6g}, floor ε {c.floor:.6g}, scale {c.scale:.6g}",
        f"expected copies: {d.expected:.6f}",
        _draw_line(d),
        f"copies: {d.copies}",
    ]


def _exactness(d: Draw) -> str:
    width = f"{d.tokens_of_bin:,} tokens, {d.tokens_of_bin / max(1, d.domain_tokens):.2g} of the domain"
    if d.exact is None:
        return (
            f"this rank is of a bin: {d.tokens_before:,} tokens before it, in it {width}; the document's own "
            "place in the bin was not counted (--recount counts it)"
        )
    if d.exact:
        return f"this rank is exact: {d.tokens_before:,} tokens before it, at it {width}"
    return (
        f"this rank is of a bin: {d.tokens_before:,} tokens before it, in it {width}; without bins it "
        f"would be {d.exact_low:.6f} to {d.exact_high:.6f}"
    )


def _draw_line(d: Draw) -> str:
    whole = int(d.expected)
    more, sign = ("one more", "<") if d.copies > whole else ("no more", ">=")
    threshold = f"{d.fraction:.6f} x the domain's factor {d.factor:.6f}"
    return f"draw: {whole} and {more}, as the document's hash {d.uniform:.6f} {sign} {threshold}"


def _criterion_line(c: CriterionStep) -> str:
    if np.isnan(c.score):
        return f"criterion {c.name}: missing; its weight {c.weight:.4f} goes to the others"
    given = "missing, imputed" if np.isnan(c.delivered) else f"{c.delivered:.6g} ({c.declared} is better)"
    norm = "not computed" if np.isnan(c.normalised) else f"{c.normalised:.6f}"
    return (
        f"criterion {c.name}: delivered {given} -> score {c.score:.6g} -> normalised {norm}, "
        f"weight {c.weight:.4f} (used {c.used:.4f})"
    )
