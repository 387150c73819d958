"""Values of `quadmix diff`: what one run selects that another does not, and why.

Scores, merged scores and ranks are smaller = better; NaN = missing or never computed. A and B are the runs in
the order in which they were named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

State = Literal["kept", "not drawn", "excluded", "absent"]
Side = Literal["A", "B"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainMove:
    """Selected tokens of one domain in A and in B, copies counted, and their share of each selection."""

    domain: str
    tokens_a: int
    tokens_b: int
    share_a: float
    share_b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreShift:
    """Mean normalised score of the tokens that A and B select in a domain, copies counted; smaller = better.

    NaN where one selects no document of the domain that has the score.
    """

    domain: str
    criterion: str
    mean_a: float
    mean_b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThetaChange:
    """One parameter of θ in one domain that is not the same in A and in B."""

    domain: str
    parameter: str
    a: float
    b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChange:
    """One field of the runs' identities that is not the same; "" where a run does not have it."""

    field: str
    a: str
    b: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How many documents have one fate in A and another (or the same) in B; absent: not in that run's pool.

    tokens: each document once, as A counts them, or B where A does not have the document.
    """

    a: State
    b: State
    documents: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CardScore:
    """One criterion of one document. delivered: as its source gave it. weight: α of the domain; used: after
    the weight of what is missing went to the others."""

    name: str
    declared: str
    delivered: float
    normalised: float
    weight: float
    used: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One document's way to its copies in one run; excluded: why it could not be chosen, then the numbers
    from `merged` on are NaN.

    cutoff, floor: of its domain's curve, floor with the scale. uniform: the document's hash; one copy more
    than ⌊expected⌋ where it is below fraction · factor. Without θ in the run, weight, used, cutoff and floor
    are NaN.
    """

    state: State
    domain: str
    tokens: int
    scores: tuple[CardScore, ...]
    merged: float
    rank_low: float
    rank_high: float
    cutoff: float
    floor: float
    expected: float
    uniform: float
    fraction: float
    factor: float
    copies: int
    excluded: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffDocument:
    """A document that only one of the runs selects. a, b: None where it is not in that run's pool.

    text: its beginning, None where it was not read; `note` says why not.
    """

    doc_id: str
    only: Side
    a: Card | None
    b: Card | None
    text: str | None = None
    characters: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """Two selections. jaccard: shared documents over all selected documents. token_jaccard: the same with
    every document weighted by its tokens and copies (the smaller number over the larger).

    flow: documents by their fate in A and in B. scores: of criteria and domains that both runs have.
    same_scale: whether both normalised with one map; otherwise equal normalised scores do not mean equal
    quality. theta: what differs, of the domains and criteria that both have; empty if a run has no θ.
    settings: what differs in identity.json. documents: a sample of those only in one, chosen by a hash of
    `seed` and id, at most `sample` of each.
    """

    domains: tuple[DomainMove, ...]
    documents_a: int
    documents_b: int
    both: int
    other_copies: int
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    only_a_count: int
    only_b_count: int
    jaccard: float
    token_jaccard: float
    flow: tuple[Flow, ...] = ()
    scores: tuple[ScoreShift, ...] = ()
    same_scale: bool = True
    theta: tuple[ThetaChange, ...] = ()
    settings: tuple[SettingChange, ...] = ()
    sample: int = 0
    seed: int = 0
    documents: tuple[DiffDocument, ...] = ()

    @property
    def neither(self) -> int:
        """Documents of either pool that no run selects."""
        return sum(f.documents for f in self.flow if "kept" not in (f.a, f.b))

    def render(self) -> str:
        """Return plain text, one fact per line."""
        lines = [
            f"{'domain':24} {'tokens A':>14} {'tokens B':>14} {'moved':>14} {'share A':>8} {'share B':>8}"
        ]
        lines += [
            f"{d.domain:24} {d.tokens_a:>14,} {d.tokens_b:>14,} {d.tokens_b - d.tokens_a:>+14,} "
            f"{d.share_a:>8.2%} {d.share_b:>8.2%}"
            for d in self.domains
        ]
        lines += [
            f"documents: {self.documents_a:,} in A, {self.documents_b:,} in B, {self.both:,} in both "
            f"({self.other_copies:,} of them with other copies), {self.neither:,} in neither",
            f"Jaccard: {self.jaccard:.4f} of documents, {self.token_jaccard:.4f} of tokens with copies",
            f"only in A: {self.only_a_count:,}{_such_as(self.only_a)}",
            f"only in B: {self.only_b_count:,}{_such_as(self.only_b)}",
        ]
        return "\n".join([*lines, *_score_lines(self), *_theta_lines(self.theta)])


def _such_as(ids: Sequence[str]) -> str:
    return f", such as {', '.join(ids)}" if ids else ""


def _score_lines(diff: Diff) -> list[str]:
    moved = [s for s in diff.scores if s.mean_a != s.mean_b and not np.isnan(s.mean_a + s.mean_b)]
    if not moved:
        return []
    scale = "" if diff.same_scale else "; A and B normalise differently, so compare with care"
    lines = [f"mean normalised score of the selected tokens (0 = best{scale}):"]
    return lines + [
        f"  {s.domain}, {s.criterion}: {s.mean_a:.4f} -> {s.mean_b:.4f} ({s.mean_b - s.mean_a:+.4f})"
        for s in moved
    ]


def _theta_lines(changes: Sequence[ThetaChange]) -> list[str]:
    head = ["parameters of θ that differ:"] if changes else []
    return head + [f"  {c.domain}, {c.parameter}: {c.a:.6g} -> {c.b:.6g}" for c in changes]
