"""Why does this document have this many copies? Every number of its way, recomputed and cross-checked.

In: a run folder and a document id. Out: an `Explanation`: delivered score -> score (smaller = better) ->
normalised -> weighted and merged (Eq. 1) -> rank in its domain (Eq. 2) -> expected copies (Eq. 3) -> draw.
Everything is computed again from annotations/, normaliser.json and θ; a number that differs from
selection.parquet is an IntegrityError, so an explanation is never a story beside the data.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import read_value
from quadmix.io.tables import read_slice
from quadmix.materialise.card import read_theta
from quadmix.materialise.table import SelectionTable, read_selection
from quadmix.mixing.curve import mean_copies
from quadmix.mixing.draw import settle_copies
from quadmix.mixing.merge import merge_scores
from quadmix.mixing.normalise import Normaliser, normalise
from quadmix.mixing.rank import rank_within_domain
from quadmix.rng import keyed_uniform
from quadmix.types import Ranks, Theta


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
    """From merged score to copies; rank 0 = best of `documents` selectable documents of the domain."""

    merged: float
    rank_low: float
    rank_high: float
    documents: int
    domain_tokens: int
    expected: float
    uniform: float
    factor: float
    copies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One document's way; `draw` is None and `excluded` says why where it could not be chosen."""

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

    def render(self) -> str:
        """Return plain text, one step per line."""
        lines = [
            f"document {self.doc_id}: row {self.row_in_split} of split {self.split}, {self.tokens:,} tokens",
            f"domain {self.domain}" + (f" (labelled {self.label})" if self.label != self.domain else ""),
        ]
        lines += [_criterion_line(c) for c in self.criteria]
        if self.draw is None:
            return "\n".join([*lines, f"excluded: {self.excluded}, so it has no rank and 0 copies"])
        d, c = self.draw, self.curve
        lines += [
            f"merged score (Eq. 1): {d.merged:.6f}, smaller = better",
            f"rank in its domain (Eq. 2): {d.rank_low:.6f} to {d.rank_high:.6f} of {d.domain_tokens:,} "
            f"tokens in {d.documents:,} documents, 0 = best",
            f"curve (Eq. 3): steepness λ {c.steepness:.6g}, cutoff ω {c.cutoff:.6g}, exponent η "
            f"{c.exponent:.6g}, floor ε {c.floor:.6g}, scale {c.scale:.6g}",
            f"expected copies: {d.expected:.6f}",
            _draw_line(d),
            f"copies: {d.copies}",
        ]
        return "\n".join(lines)


def _draw_line(d: Draw) -> str:
    whole = int(d.expected)
    more, sign = ("one more", "<") if d.copies > whole else ("no more", ">=")
    threshold = f"{d.expected - whole:.6f} x the domain's factor {d.factor:.6f}"
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


def explain(run_folder: str | Path, doc_id: str) -> Explanation:
    """Recompute one document's copies step by step and compare every step with selection.parquet."""
    folder = Path(run_folder)
    table = read_selection(folder)
    row = _find(table, doc_id)
    theta = read_theta(folder)
    if theta is None:
        raise InputError(
            f"{folder / 'theta.json'} does not exist, so there is no θ to explain with; finish the run"
        )
    m = int(table.domain[row])
    delivered, label = _annotation(folder, table, row)
    excluded = table.excluded[row].as_py()
    norms = table.norms[row]
    draw = None
    if excluded is None:
        norms = _normalised(folder, table, row)
        draw = _draw(table, theta, row, norms)
    used = np.where(np.isnan(norms), 0.0, theta.weights[m])
    known = ~np.isnan(norms)
    used = used / used.sum() if used.sum() > 0 else known / max(1, known.sum())
    return Explanation(
        doc_id=doc_id,
        split=int(table.split[row]),
        row_in_split=int(table.row_in_split[row]),
        domain=table.info.domains[m],
        label=label,
        tokens=int(table.tokens[row]),
        criteria=tuple(
            CriterionStep(
                name=criterion.name,
                declared=criterion.declared,
                delivered=delivered[n],
                score=float(table.scores[row, n]),
                normalised=float(norms[n]),
                weight=float(theta.weights[m, n]),
                used=float(used[n]),
            )
            for n, criterion in enumerate(table.info.criteria)
        ),
        curve=_curve(theta, m),
        excluded=excluded,
        draw=draw,
    )


def _find(table: SelectionTable, doc_id: str) -> int:
    row = pc.index(table.doc_id, doc_id).as_py()
    if row >= 0:
        return row
    alike = pc.call_function(
        "starts_with", [table.doc_id], pc.MatchSubstringOptions(doc_id[: max(1, len(doc_id) // 2)])
    )
    near = table.doc_id.filter(alike).slice(0, 5000).to_pylist() or table.doc_id.slice(0, 5000).to_pylist()
    names = ", ".join(difflib.get_close_matches(doc_id, near, n=3, cutoff=0.0))
    raise InputError(f"document {doc_id!r} is not in this run; ids that look like it: {names}")


def _curve(theta: Theta, m: int) -> Curve:
    return Curve(
        steepness=float(theta.steepness[m]),
        cutoff=float(theta.cutoff[m]),
        exponent=float(theta.exponent[m]),
        floor=float(theta.floor[m]),
        scale=float(theta.scale[m]),
    )


def _annotation(folder: Path, table: SelectionTable, row: int) -> tuple[list[float], str]:
    """Return the delivered scores and the domain label; check them against the table's scores."""
    place = int(table.row_in_split[row])
    path = folder / "annotations" / f"part-{int(table.split[row]):05d}.parquet"
    found = read_slice(path, place, place + 1).to_pylist()[0]
    _same(table, row, "id", found["doc_id"], table.doc_id[row].as_py())
    _same(table, row, "tokens", found["tokens"], int(table.tokens[row]))
    delivered: list[float] = []
    for n, criterion in enumerate(table.info.criteria):
        raw = found[f"score:{criterion.name}"]
        value = float("nan") if raw is None else float(raw)
        score = -value if criterion.declared == "higher" else value
        if not np.isnan(score):
            _same(table, row, f"score {criterion.name}", score, float(table.scores[row, n]))
        delivered.append(value)
    return delivered, str(found["domain"])


def _normalised(folder: Path, table: SelectionTable, row: int) -> np.ndarray:
    normaliser = read_value(folder / "normaliser.json", Normaliser)
    one = slice(row, row + 1)
    norms = normalise(normaliser, table.scores[one], table.domain[one])[0]
    for n, criterion in enumerate(table.info.criteria):
        _same(table, row, f"normalised {criterion.name}", float(norms[n]), float(table.norms[row, n]), 1e-6)
    return norms


def _draw(table: SelectionTable, theta: Theta, row: int, norms: np.ndarray) -> Draw:
    rows = np.flatnonzero(table.selectable & (table.domain == table.domain[row]))
    mine = int(np.searchsorted(rows, row))
    domain = table.domain[row : row + 1]
    merged = merge_scores(norms[None, :], theta.weights, domain)
    _same(table, row, "merged score", float(merged[0]), float(table.merged[row]), 1e-9)
    ranks = rank_within_domain(
        table.merged[rows],
        table.tokens[rows],
        np.zeros(len(rows), dtype=np.int16),
        mode=table.info.rank_mode,
        keys=table.keys[rows],
    )
    own = Ranks(low=ranks.low[mine : mine + 1], high=ranks.high[mine : mine + 1])
    _same(table, row, "best rank", float(own.low[0]), float(table.ranks.low[row]), 1e-9)
    _same(table, row, "worst rank", float(own.high[0]), float(table.ranks.high[row]), 1e-9)
    expected = mean_copies(own, theta, domain)
    _same(table, row, "expected copies", float(expected[0]), float(table.expected[row]), 1e-9)
    drawn = settle_copies(
        table.expected[rows],
        table.keys[rows],
        table.tokens[rows],
        np.zeros(len(rows), dtype=np.int16),
        num_domains=1,
        seed=table.info.seed,
    )
    _same(table, row, "copies", int(drawn.copies[mine]), int(table.copies[row]))
    return Draw(
        merged=float(merged[0]),
        rank_low=float(own.low[0]),
        rank_high=float(own.high[0]),
        documents=len(rows),
        domain_tokens=int(table.tokens[rows].sum(dtype=np.int64)),
        expected=float(expected[0]),
        uniform=float(keyed_uniform(table.info.seed, table.keys[row : row + 1], "copies")[0]),
        factor=float(drawn.factor[0]),
        copies=int(drawn.copies[mine]),
    )


def _same(
    table: SelectionTable, row: int, what: str, got: float | str, stored: float | str, tolerance: float = 0.0
) -> None:
    """Raise IntegrityError unless a recomputed value is the stored one (NaN equals NaN)."""
    if isinstance(got, str) or isinstance(stored, str):
        equal = got == stored
    else:
        equal = bool(np.isclose(got, stored, rtol=tolerance, atol=tolerance, equal_nan=True))
    if not equal:
        raise IntegrityError(
            f"document {table.doc_id[row].as_py()!r}: {what} is {got} when computed again, but "
            f"selection.parquet has {stored}; was a file of the run changed? Run `quadmix verify` on it"
        )
