"""Why does this document have this many copies? Every number of its way, recomputed and cross-checked.

In: a run folder and a document id. Out: an `Explanation`: delivered score -> score (smaller = better) ->
normalised -> weighted and merged (Eq. 1) -> rank in its domain (Eq. 2) -> expected copies (Eq. 3) -> draw.
All is computed again from annotations/, normaliser.json, selection/ranks.parquet and θ; the rank and the
factor of the draw also from all other documents, where that is quick. A number unlike that in selection/ is
an IntegrityError, so an explanation is never a story beside the data. One part is in memory at a time.
"""

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import read_table, read_value
from quadmix.io.tables import read_slice
from quadmix.materialise.card import read_theta
from quadmix.materialise.explanation import CriterionStep, Curve, Draw, Explanation
from quadmix.materialise.ranks import RANKS, read_ranks
from quadmix.materialise.recount import Place, Recount, place_of, recount
from quadmix.materialise.table import SELECTION, SelectionManifest, SelectionTable, read_manifest, read_part
from quadmix.mixing.curve import mean_copies
from quadmix.mixing.merge import merge_scores
from quadmix.mixing.normalise import Normaliser, normalise
from quadmix.mixing.settle import drawn
from quadmix.rng import doc_keys, keyed_uniform
from quadmix.types import Floats, Ranks, Theta

RECOUNT_DOCUMENTS = 5_000_000  # of a domain: up to here all of them are read again without being asked
_NEAR = 5000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    """What all documents of a run are explained with. recount: None = where it is quick."""

    folder: Path
    manifest: SelectionManifest
    theta: Theta
    recount: bool | None


def explain(run_folder: str | Path, doc_id: str, *, recount: bool | None = None) -> Explanation:
    """Recompute one document's copies step by step and compare every step with selection/.

    recount: read all documents of the domain again for its rank and its factor, instead of trusting
    ranks.parquet and the manifest; None = if the domain has at most RECOUNT_DOCUMENTS.
    """
    folder = Path(run_folder)
    manifest = read_manifest(folder)
    theta = read_theta(folder)
    if theta is None:
        raise InputError(
            f"{folder / 'theta.json'} does not exist, so there is no θ to explain with; finish the run"
        )
    run = _Run(folder=folder, manifest=manifest, theta=theta, recount=recount)
    found: list[Explanation] = []
    for split in _splits_with(folder, manifest, doc_id):
        table = read_part(folder, split)
        rows = np.flatnonzero(pc.call_function("equal", [table.doc_id, doc_id]).to_numpy())
        found += [_explain(run, table, int(row)) for row in rows]
    if not found:
        near = ", ".join(_near(folder, manifest, doc_id))
        raise InputError(f"document {doc_id!r} is not in this run; ids that look like it: {near}")
    return dataclasses.replace(found[0], twins=tuple(found[1:]))


def _splits_with(folder: Path, manifest: SelectionManifest, doc_id: str) -> list[int]:
    """Return the splits whose part has the id's hash among its keys."""
    key = doc_keys([doc_id])[0]
    return [
        part.split
        for part in manifest.parts
        if (read_table(folder / SELECTION / part.name, columns=["key"])["key"].to_numpy() == key).any()
    ]


def _near(folder: Path, manifest: SelectionManifest, doc_id: str) -> list[str]:
    """Return up to three ids that look like `doc_id`: among those that begin alike, else among the first."""
    first: list[str] = []
    alike: list[str] = []
    options = pc.MatchSubstringOptions(doc_id[: max(1, len(doc_id) // 2)])
    for part in manifest.parts:
        ids = read_table(folder / SELECTION / part.name, columns=["doc_id"])["doc_id"]
        first = first or ids.slice(0, _NEAR).to_pylist()
        begins = pc.call_function("starts_with", [ids], options)
        alike += ids.filter(begins).slice(0, _NEAR - len(alike)).to_pylist()
        if len(alike) >= _NEAR:
            break
    return difflib.get_close_matches(doc_id, alike or first, n=3, cutoff=0.0)


def _explain(run: _Run, table: SelectionTable, row: int) -> Explanation:
    theta, m = run.theta, int(table.domain[row])
    check = _Check(doc_id=str(table.doc_id[row].as_py()), path=run.folder / SELECTION, table=table, row=row)
    delivered, label = _annotation(run.folder, check)
    excluded = table.excluded[row].as_py()
    norms = table.norms[row]
    draw = None
    if excluded is None:
        norms = _normalised(run.folder, check)
        draw = _draw(run, check, norms)
    known = ~np.isnan(norms)
    used = np.where(known, theta.weights[m], 0.0)
    used = used / used.sum() if used.sum() > 0 else known / max(1, known.sum())
    return Explanation(
        doc_id=check.doc_id,
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


def _curve(theta: Theta, m: int) -> Curve:
    return Curve(
        steepness=float(theta.steepness[m]),
        cutoff=float(theta.cutoff[m]),
        exponent=float(theta.exponent[m]),
        floor=float(theta.floor[m]),
        scale=float(theta.scale[m]),
    )


def _annotation(folder: Path, check: "_Check") -> tuple[list[float], str]:
    """Return the delivered scores and the domain label; check them against the table's scores."""
    table, row = check.table, check.row
    place = int(table.row_in_split[row])
    path = folder / "annotations" / f"part-{int(table.split[row]):05d}.parquet"
    found = read_slice(path, place, place + 1).to_pylist()[0]
    check.same("id", found["doc_id"], check.doc_id)
    check.same("tokens", found["tokens"], int(table.tokens[row]))
    delivered: list[float] = []
    for n, criterion in enumerate(table.info.criteria):
        raw = found[f"score:{criterion.name}"]
        value = float("nan") if raw is None else float(raw)
        score = -value if criterion.declared == "higher" else value
        if not np.isnan(score):
            check.same(f"score {criterion.name}", score, float(table.scores[row, n]))
        delivered.append(value)
    return delivered, str(found["domain"])


def _normalised(folder: Path, check: "_Check") -> np.ndarray:
    normaliser = read_value(folder / "normaliser.json", Normaliser)
    table, one = check.table, slice(check.row, check.row + 1)
    norms = normalise(normaliser, table.scores[one], table.domain[one])[0]
    for n, criterion in enumerate(table.info.criteria):
        check.same(f"normalised {criterion.name}", float(norms[n]), float(table.norms[check.row, n]), 1e-6)
    return norms


def _draw(run: _Run, check: "_Check", norms: np.ndarray) -> Draw:
    table, row, theta = check.table, check.row, run.theta
    m, info = int(table.domain[row]), run.manifest.info
    domain = table.domain[row : row + 1]
    key = table.keys[row : row + 1]
    merged = merge_scores(norms[None, :], theta.weights, domain)
    check.same("merged score", float(merged[0]), float(table.merged[row]), 1e-9)
    place, told = _counted(run, check, m)
    exact, own = _ranks(run, place, told)
    check.same("best rank", float(own.low[0]), float(table.ranks.low[row]), 1e-9)
    check.same("worst rank", float(own.high[0]), float(table.ranks.high[row]), 1e-9)
    expected = mean_copies(own, theta, domain)
    check.same("expected copies", float(expected[0]), float(table.expected[row]), 1e-9)
    # The draw follows the stored number: recomputed sums of floats may differ in the last bit.
    stored, factor = table.expected[row : row + 1], info.factors[m]
    copies = int(drawn(stored, key, np.array([factor]), seed=info.seed)[0])
    check.same("copies", copies, int(table.copies[row]))
    return Draw(
        merged=float(merged[0]),
        rank_low=float(own.low[0]),
        rank_high=float(own.high[0]),
        documents=told.documents if told else None,
        domain_tokens=place.total,
        tokens_before=place.before,
        tokens_of_bin=place.tokens,
        exact=_equal(exact, own) if told else None,
        exact_low=float(exact.low[0]),
        exact_high=float(exact.high[0]),
        expected=float(stored[0]),
        uniform=float(keyed_uniform(info.seed, key, "copies")[0]),
        fraction=float(stored[0] - np.floor(stored[0])),
        factor=factor,
        copies=copies,
    )


def _counted(run: _Run, check: "_Check", m: int) -> tuple[Place, Recount | None]:
    """Return the document's bin by ranks.parquet and, where asked for or quick, the same recounted."""
    table, row = check.table, check.row
    ranks = read_ranks(run.folder)
    merged = float(table.merged[row])
    if not len(ranks.values[m]):
        raise IntegrityError(
            f"document {check.doc_id!r}: {check.path / RANKS} has no bin for its domain "
            f"{table.info.domains[m]!r}; was the file changed? Run `quadmix verify` on the run"
        )
    place = place_of(ranks, m, merged)
    documents = sum(p.domains[m].documents_in for p in run.manifest.parts)
    quick = documents <= RECOUNT_DOCUMENTS or run.manifest.info.rank_mode == "hash-tiebreak"
    if not (quick if run.recount is None else run.recount):
        return place, None
    told = recount(run.folder, run.manifest, m, merged=merged, key=table.keys[row], place=place)
    check.same("tokens of the domain", told.total, place.total, where=RANKS)
    check.same("tokens before its bin", told.before, place.before, where=RANKS)
    check.same("tokens of its bin", told.tokens, place.tokens, where=RANKS)
    check.same(
        "factor of its domain", told.factor, run.manifest.info.factors[m], 1e-12, where="manifest.json"
    )
    return place, told


def _ranks(run: _Run, place: Place, told: Recount | None) -> tuple[Ranks, Ranks]:
    """Return the rank without bins (NaN if not recounted) and the rank that the run's bins give."""
    mode, total = run.manifest.info.rank_mode, max(1, place.total)

    def interval(low: float, high: float) -> Ranks:
        ends: Floats = np.array([low, high], dtype=np.float64) / total
        return Ranks(low=ends[:1] if mode == "interval" else ends[1:], high=ends[1:])

    if told is None:
        return interval(np.nan, np.nan), interval(place.before, place.before + place.tokens)
    if mode == "hash-tiebreak":
        exact = interval(told.through_key, told.through_key)
        return exact, exact
    exact = interval(told.better, told.better + told.tied)
    return exact, interval(place.before, place.before + place.tokens)


def _equal(a: Ranks, b: Ranks) -> bool:
    return bool(np.allclose([a.low, a.high], [b.low, b.high], rtol=0, atol=1e-12))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Check:
    """A document in its part, to compare what is computed again with what is stored. path: selection/."""

    doc_id: str
    path: Path
    table: SelectionTable
    row: int

    def same(
        self, what: str, got: float | str, stored: float | str, tolerance: float = 0.0, where: str = ""
    ) -> None:
        """Raise IntegrityError unless a recomputed value is the stored one (NaN equals NaN)."""
        if isinstance(got, str) or isinstance(stored, str):
            equal = got == stored
        else:
            equal = bool(np.isclose(got, stored, rtol=tolerance, atol=tolerance, equal_nan=True))
        if not equal:
            file = self.path / (where or f"part-{int(self.table.split[self.row]):05d}.parquet")
            raise IntegrityError(
                f"document {self.doc_id!r}: {what} is {got} when computed again, but {file} has {stored}; "
                "was a file of the run changed? Run `quadmix verify` on it"
            )
