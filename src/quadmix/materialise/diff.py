"""Two runs: what does one select that the other does not?

In: two run folders. Out: a `Diff`, with tokens per domain, documents only in one, how much they share, how
the scores of the selected tokens moved and which parameters of θ differ. Memory is bounded, see `overlap`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quadmix.io.atomic import file_digest, read_value
from quadmix.materialise.card import read_theta
from quadmix.materialise.ledger import domain_tokens
from quadmix.materialise.overlap import Overlap, by_buckets, by_parts
from quadmix.materialise.table import SelectionManifest, read_manifest
from quadmix.types import Corpus, Floats, Theta


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
class Diff:
    """Two selections. jaccard: shared documents over all selected documents. token_jaccard: the same with
    every document weighted by its tokens and copies (the smaller number over the larger).

    scores: of criteria and domains that both runs have. same_scale: whether both normalised with one map;
    otherwise equal normalised scores do not mean equal quality. theta: what differs, of the domains and
    criteria that both have; empty if a run has no θ.
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
    scores: tuple[ScoreShift, ...] = ()
    same_scale: bool = True
    theta: tuple[ThetaChange, ...] = ()

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
            f"({self.other_copies:,} of them with other copies)",
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


def diff_runs(run_a: str | Path, run_b: str | Path) -> Diff:
    """Compare two selections document by document, found by id; the pools may differ.

    Documents of one corpus that have the same id count as one where the pools differ.
    """
    folders = (Path(run_a), Path(run_b))
    a, b = read_manifest(folders[0]), read_manifest(folders[1])
    found = by_parts(folders, (a, b)) if _same_pool(folders, (a, b)) else by_buckets(folders, (a, b))
    documents = found.both + found.only_a + found.only_b
    return Diff(
        domains=_moves(a, b),
        documents_a=found.both + found.only_a,
        documents_b=found.both + found.only_b,
        both=found.both,
        other_copies=found.other_copies,
        only_a=found.examples_a,
        only_b=found.examples_b,
        only_a_count=found.only_a,
        only_b_count=found.only_b,
        jaccard=found.both / documents if documents else 1.0,
        token_jaccard=found.shared / found.union if found.union else 1.0,
        scores=_shifts(a, b, found),
        same_scale=_digest(folders[0] / "normaliser.json") == _digest(folders[1] / "normaliser.json"),
        theta=_theta_changes(folders, (a, b)),
    )


def _same_pool(folders: tuple[Path, Path], manifests: tuple[SelectionManifest, SelectionManifest]) -> bool:
    """Return whether row k of part p is the same document in both runs."""
    parts = [[(p.split, p.documents) for p in m.parts] for m in manifests]
    paths = [folder / "corpus" / "manifest.json" for folder in folders]
    if parts[0] != parts[1] or not all(p.is_file() for p in paths):
        return False
    return read_value(paths[0], Corpus).digest == read_value(paths[1], Corpus).digest


def _digest(path: Path) -> str:
    return file_digest(path) if path.is_file() else ""


def _moves(a: SelectionManifest, b: SelectionManifest) -> tuple[DomainMove, ...]:
    tokens_a = {d.domain: d.tokens_out for d in domain_tokens(a)}
    tokens_b = {d.domain: d.tokens_out for d in domain_tokens(b)}
    total_a, total_b = max(1, sum(tokens_a.values())), max(1, sum(tokens_b.values()))
    return tuple(
        DomainMove(
            domain=name,
            tokens_a=tokens_a.get(name, 0),
            tokens_b=tokens_b.get(name, 0),
            share_a=tokens_a.get(name, 0) / total_a,
            share_b=tokens_b.get(name, 0) / total_b,
        )
        for name in dict.fromkeys((*a.info.domains, *b.info.domains))
    )


def _names(manifest: SelectionManifest) -> tuple[list[str], list[str]]:
    return list(manifest.info.domains), [c.name for c in manifest.info.criteria]


def _shifts(a: SelectionManifest, b: SelectionManifest, found: Overlap) -> tuple[ScoreShift, ...]:
    (domains_a, criteria_a), (domains_b, criteria_b) = _names(a), _names(b)

    def mean(scores: Floats, weights: Floats, place: tuple[int, int]) -> float:
        return float(scores[place] / weights[place]) if weights[place] else float("nan")

    return tuple(
        ScoreShift(
            domain=domain,
            criterion=criterion,
            mean_a=mean(
                found.scores_a, found.weights_a, (domains_a.index(domain), criteria_a.index(criterion))
            ),
            mean_b=mean(
                found.scores_b, found.weights_b, (domains_b.index(domain), criteria_b.index(criterion))
            ),
        )
        for domain in domains_a
        for criterion in criteria_a
        if domain in domains_b and criterion in criteria_b
    )


def _theta_changes(
    folders: tuple[Path, Path], manifests: tuple[SelectionManifest, SelectionManifest]
) -> tuple[ThetaChange, ...]:
    thetas = [read_theta(folder) for folder in folders]
    if thetas[0] is None or thetas[1] is None:
        return ()
    a, b = _parameters(thetas[0], manifests[0]), _parameters(thetas[1], manifests[1])
    return tuple(
        ThetaChange(domain=domain, parameter=parameter, a=value, b=b[domain, parameter])
        for (domain, parameter), value in a.items()
        if (domain, parameter) in b and b[domain, parameter] != value
    )


def _parameters(theta: Theta, manifest: SelectionManifest) -> dict[tuple[str, str], float]:
    domains, criteria = _names(manifest)
    curve = (("steepness λ", theta.steepness), ("cutoff ω", theta.cutoff), ("exponent η", theta.exponent),
             ("floor ε", theta.floor), ("scale", theta.scale))  # fmt: skip
    found: dict[tuple[str, str], float] = {}
    for m, domain in enumerate(domains):
        for n, criterion in enumerate(criteria):
            found[domain, f"weight of {criterion}"] = float(theta.weights[m, n])
        found.update(((domain, name), float(values[m])) for name, values in curve)
    return found
