"""explain recomputes every number behind a document's copies; a run that does not follow is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from materialise_run import (
    DOMAINS,
    SIZE,
    THETA,
    Run,
    annotate,
    build_run,
    documents,
    factors,
    write_inputs,
    write_parts,
)  # fmt: skip
from numpy.typing import NDArray

from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import read_table, read_value, write_json, write_table
from quadmix.materialise.explain import explain
from quadmix.materialise.ranks import read_ranks, write_ranks
from quadmix.materialise.table import read_manifest, read_selection
from quadmix.mixing.curve import mean_copies
from quadmix.mixing.normalise import Normaliser, normalise
from quadmix.mixing.rank import RankMode
from quadmix.mixing.select import select
from quadmix.mixing.settle import drawn
from quadmix.mixing.tally import RankTable, lookup_ranks
from quadmix.types import Confirmation, Selection


def test_every_document_is_recomputed(run: Run):
    table = read_selection(run.folder)
    kept = 0
    for row in range(0, 150, 7):
        doc_id = table.doc_id[row].as_py()
        told = explain(run.folder, doc_id)
        copies = told.draw.copies if told.draw else 0
        assert copies == table.copies[row]
        assert (told.draw is None) == (told.excluded is not None)
        assert doc_id in told.render()
        assert told.label == told.domain == DOMAINS[table.domain[row]]
        kept += copies
    assert kept > 0


def test_each_number_is_said_in_words(run: Run):
    table = read_selection(run.folder)
    row = int(np.flatnonzero((table.copies > 0) & ~np.isnan(table.scores[:, 0]))[0])
    told = explain(run.folder, table.doc_id[row].as_py())
    text = told.render()
    assert told.criteria[0].delivered == pytest.approx(-told.criteria[0].score)
    assert "(higher is better)" in text
    assert "(lower is better)" in text
    assert f"copies: {table.copies[row]}" in text
    merged = sum(c.normalised * c.used for c in told.criteria)
    assert told.draw is not None
    assert told.draw.merged == pytest.approx(merged, abs=1e-12)
    whole = int(told.draw.expected)
    assert ("and one more" in text) == (told.draw.copies > whole)
    assert told.draw.copies == whole + (told.draw.uniform < told.draw.expected - whole)


def test_of_missing_scores_and_of_excluded_documents(run: Run):
    table = read_selection(run.folder)
    row = int(np.flatnonzero(np.isnan(table.scores[:, 0]) & table.selectable)[0])
    told = explain(run.folder, table.doc_id[row].as_py())
    assert [c.used for c in told.criteria] == [0.0, 1.0]
    assert "criterion edu: missing" in told.render()
    assert "excluded: held_out" in explain(run.folder, "doc-7").render()
    assert "excluded: missing_score" in explain(run.folder, "doc-5").render()


def test_of_an_unknown_id_names_near_ones(run: Run):
    with pytest.raises(InputError, match=r"'doc-1x' is not in this run.*doc-1\b"):
        explain(run.folder, "doc-1x")


def set_column(path: Path, column: str, change) -> None:
    table = read_table(path)
    place = table.schema.get_field_index(column)
    write_table(path, table.set_column(place, table.schema.field(place), change(table[column])))


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("copies", "copies"),
        ("merged", "merged score"),
        ("norm:noise", "normalised noise"),
        ("score:noise", "score noise"),
        ("rank_low", "best rank"),
        ("rank_high", "worst rank"),
        ("expected", "expected copies"),
        ("tokens", "tokens"),
    ],
)
def test_a_part_that_does_not_follow_is_refused(run: Run, column: str, what: str):
    def shifted(values: pa.ChunkedArray) -> pa.ChunkedArray:
        amount = 0.25 if pa.types.is_floating(values.type) else 1
        return pc.add(values, pa.scalar(amount, values.type))

    set_column(run.folder / "selection" / "part-00000.parquet", column, shifted)
    message = f"'doc-1': {what} is .* when computed again, but .*part-00000.parquet has"
    with pytest.raises(IntegrityError, match=message):
        explain(run.folder, "doc-1", recount=False)


def test_ranks_and_factor_that_do_not_follow_from_the_other_documents_are_refused(run: Run):
    """One more token in another document of the domain: seen by the recount alone."""
    domain = read_selection(run.folder).domain[1]
    for split in range(len(read_manifest(run.folder).parts)):

        def heavier(tokens: pa.ChunkedArray, split: int = split) -> pa.Array:
            more = np.arange(len(tokens)) != (1 if split == 0 else -1)
            return pa.array(tokens.to_numpy() + more, pa.int32())

        set_column(run.folder / "selection" / f"part-{split:05d}.parquet", "tokens", heavier)
    assert explain(run.folder, "doc-1", recount=False).draw is not None
    with pytest.raises(IntegrityError, match=r"tokens of the domain is .* but .*ranks.parquet has"):
        explain(run.folder, "doc-1")
    assert DOMAINS[domain] in explain(run.folder, "doc-1", recount=False).render()


def test_a_factor_that_does_not_follow_is_refused(run: Run):
    path = run.folder / "selection" / "manifest.json"
    manifest = read_manifest(run.folder)
    info = dataclasses.replace(manifest.info, factors=tuple(f * 1.0001 for f in manifest.info.factors))
    write_json(path, dataclasses.replace(manifest, info=info))
    with pytest.raises(IntegrityError, match=r"factor of its domain is .* but .*manifest.json has"):
        explain(run.folder, "doc-1")


def test_another_theta_is_refused(run: Run):
    path = run.folder / "search" / "confirm.json"
    confirmation = read_value(path, Confirmation)
    theta = dataclasses.replace(THETA, floor=np.full(3, 0.5))
    write_json(path, dataclasses.replace(confirmation, theta=theta))
    with pytest.raises(IntegrityError, match="expected copies is"):
        explain(run.folder, "doc-1")
    write_json(run.folder / "theta.json", THETA)  # the calibrated θ of the run goes before the confirmed one
    assert explain(run.folder, "doc-1").curve.floor == THETA.floor[read_selection(run.folder).domain[1]]
    (run.folder / "theta.json").unlink()
    path.unlink()
    with pytest.raises(InputError, match="there is no θ to explain with"):
        explain(run.folder, "doc-1")


# --------------------------------------------------------------------------- exact ranks and bins
def test_a_rank_is_exact_where_every_score_has_a_bin_of_its_own(run: Run):
    told = explain(run.folder, "doc-1").draw
    assert told is not None
    assert told.exact is True
    assert (told.rank_low, told.rank_high) == pytest.approx((told.exact_low, told.exact_high))
    table = read_selection(run.folder)
    mine = table.selectable & (table.domain == table.domain[1])
    assert told.documents == mine.sum()
    assert told.tokens_before == table.tokens[mine & (table.merged < table.merged[1])].sum()
    assert "this rank is exact: " in explain(run.folder, "doc-1").render()


def reasons_of(run: Run) -> NDArray[np.int8]:
    reasons = {None: 0, "held_out": 1, "missing_score": 2}
    return np.array([reasons[r] for r in read_selection(run.folder).excluded.to_pylist()], dtype=np.int8)


def coarse(run: Run, width: int) -> None:
    """Write the selection again with bins of `width` scores each."""
    fine = read_ranks(run.folder)
    ranks = RankTable(
        values=tuple(v[::width] for v in fine.values),
        through=tuple(np.append(t[:-1][::width], t[-1]) for t in fine.through),
    )
    table = read_selection(run.folder)
    rows = table.selectable
    chosen = run.annotations.take(rows)
    found = lookup_ranks(ranks, table.merged[rows], chosen.domain)
    expected = mean_copies(found, THETA, chosen.domain)
    selection = Selection(
        normalised=table.norms[rows], merged=table.merged[rows], ranks=found, expected=expected,
        copies=np.zeros(rows.sum(), dtype=np.int32),
    )  # fmt: skip
    factor = np.array(factors(selection, chosen, 3))[chosen.domain]
    copies = drawn(expected, chosen.keys, factor, seed=3)
    write_parts(run.folder, run.annotations, reasons_of(run), dataclasses.replace(selection, copies=copies))
    write_ranks(run.folder, ranks, DOMAINS)


def test_a_rank_of_a_bin_is_said_to_be_one_with_the_rank_without_bins(run: Run):
    before = {i: explain(run.folder, f"doc-{i}").draw for i in (1, 2, 3, 8)}
    coarse(run, 4)
    for i, exact in before.items():
        told = explain(run.folder, f"doc-{i}")
        assert told.draw is not None
        assert exact is not None
        assert told.draw.exact is False
        assert (told.draw.exact_low, told.draw.exact_high) == pytest.approx((exact.rank_low, exact.rank_high))
        assert told.draw.rank_low <= exact.rank_low < exact.rank_high <= told.draw.rank_high
        assert f"in it {told.draw.tokens_of_bin:,} tokens" in told.render()
        assert "without bins it would be" in told.render()


def test_without_a_recount_the_rank_is_that_of_its_bin(run: Run, monkeypatch: pytest.MonkeyPatch):
    coarse(run, 4)
    told = explain(run.folder, "doc-1", recount=False)
    assert told.draw is not None
    assert told.draw.documents is told.draw.exact is None
    assert "was not counted (--recount counts it)" in told.render()
    monkeypatch.setattr("quadmix.materialise.explain.RECOUNT_DOCUMENTS", 10)
    assert explain(run.folder, "doc-1").render() == told.render()
    counted = explain(run.folder, "doc-1", recount=True).draw
    assert counted is not None
    assert counted.exact is False


# --------------------------------------------------------------------------- other modes, other corpora
@pytest.mark.parametrize("mode", ["paper", "hash-tiebreak"])
def test_the_other_rank_modes_are_recomputed_too(tmp_path: Path, mode: RankMode):
    docs = documents(SIZE)
    run = build_run(tmp_path / "run", write_inputs(tmp_path / "in", docs), docs, rank_mode=mode)
    table = read_selection(run.folder)
    ties = 0
    for row in np.flatnonzero(table.selectable)[::5].tolist():
        told = explain(run.folder, table.doc_id[row].as_py()).draw
        assert told is not None
        assert told.exact
        assert told.rank_low == told.rank_high == table.ranks.high[row]
        assert told.copies == table.copies[row]
        ties += 1
    assert ties > 20


def test_documents_with_the_same_id_are_all_explained(run: Run):
    """The scan refuses such a corpus by itself; one of shards that were scanned apart may still have them."""
    table = read_selection(run.folder)
    rows = np.flatnonzero(table.selectable & ~np.isnan(table.scores[:, 0]))[[3, 4, 90]].tolist()
    docs = [d | {"id": "twin" if i in rows else d["id"]} for i, d in enumerate(run.docs)]
    annotations = annotate(run.corpus, docs, run.folder)
    open_rows = table.selectable
    normaliser = read_value(run.folder / "normaliser.json", Normaliser)
    chosen = annotations.take(open_rows)
    norms = normalise(normaliser, chosen.scores, chosen.domain)
    write_parts(run.folder, annotations, reasons_of(run), select(THETA, norms, chosen, seed=3))
    told = explain(run.folder, "twin")
    places = [(t.split, t.row_in_split) for t in (told, *told.twins)]
    assert places == [(table.split[r], table.row_in_split[r]) for r in rows]
    assert told.render().count("document twin: row") == 3
    assert len({t.draw.uniform for t in (told, *told.twins) if t.draw}) == 1
