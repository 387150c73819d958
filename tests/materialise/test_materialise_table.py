"""The selection table, the samples and the data card."""

import dataclasses

import numpy as np
import pytest
from materialise_run import DOMAINS, THETA, Run

from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import read_table, write_table
from quadmix.materialise.card import budget_sentence, render_card
from quadmix.materialise.sample import STRATA, choose_samples, cutoffs
from quadmix.materialise.table import read_selection, write_selection
from quadmix.types import Ranks, Selection


def test_the_table_holds_the_columns_of_every_document_in_corpus_order(run: Run):
    table = read_table(run.folder / "selection.parquet")
    assert table.column_names == [
        "doc_id", "split", "row_in_split", "domain", "tokens", "held_out", "score:edu", "score:noise",
        "norm:edu", "norm:noise", "merged", "rank_low", "rank_high", "expected", "copies", "excluded",
    ]  # fmt: skip
    assert table["doc_id"].to_pylist() == [d["id"] for d in run.docs]
    splits, rows = table["split"].to_pylist(), table["row_in_split"].to_pylist()
    assert len(set(splits)) > 2
    seen: dict[int, int] = {}
    for split, row in zip(splits, rows, strict=True):
        assert row == seen.get(split, 0)
        seen[split] = row + 1


def test_excluded_documents_have_no_rank_and_no_copy(run: Run):
    table = read_selection(run.folder)
    out = ~table.selectable
    assert table.excluded.to_pylist()[7] == "held_out"
    assert table.excluded.to_pylist()[5] == "missing_score"
    assert np.isnan(table.ranks.low[out]).all()
    assert np.isnan(table.merged[out]).all()
    assert not table.copies[out].any()
    assert not np.isnan(table.ranks.high[~out]).any()


def test_reading_gives_back_what_was_written(run: Run):
    table = read_selection(run.folder)
    assert table.info.criteria == run.annotations.criteria
    assert (table.info.domains, table.info.seed, table.info.rank_mode) == (DOMAINS, 3, "interval")
    np.testing.assert_array_equal(table.scores, run.annotations.scores)
    np.testing.assert_array_equal(table.domain, run.annotations.domain)
    np.testing.assert_array_equal(table.keys, run.annotations.keys)


def blank(size: int) -> Selection:
    zeros = np.zeros(size)
    return Selection(
        normalised=np.zeros((size, 2), dtype=np.float32),
        merged=zeros,
        ranks=Ranks(low=zeros, high=zeros),
        expected=zeros,
        copies=np.zeros(size, dtype=np.int32),
    )


def test_lengths_and_codes_must_fit(run: Run):
    codes = np.zeros(150, dtype=np.int8)
    with pytest.raises(IntegrityError, match="covers 149 documents, expected the 150"):
        write_selection(
            run.folder, run.annotations, excluded=codes, reasons=("a",), selection=blank(149), seed=0
        )
    with pytest.raises(IntegrityError, match=r"excluded spans 0..2, expected 0..1"):
        write_selection(
            run.folder, run.annotations, excluded=codes + (np.arange(150) == 1).astype(np.int8) * 2,
            reasons=("a",), selection=blank(149), seed=0,
        )  # fmt: skip
    with pytest.raises(IntegrityError, match="excluded has 5 rows, expected 150"):
        write_selection(
            run.folder, run.annotations, excluded=codes[:5], reasons=("a",), selection=blank(5), seed=0
        )


def test_a_foreign_or_missing_table_is_refused(run: Run):
    path = run.folder / "selection.parquet"
    write_table(path, read_table(path).replace_schema_metadata(None))
    with pytest.raises(InputError, match="is not a selection table of quadmix"):
        read_selection(run.folder)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_selection(run.folder)


def test_samples_fit_their_strata_and_carry_their_text(run: Run):
    run.write()
    table = read_selection(run.folder)
    samples = read_table(run.folder / "samples.parquet").to_pylist()
    place = {d: i for i, d in enumerate(table.doc_id.to_pylist())}
    text = {d["id"]: d["text"] for d in run.docs}
    assert {s["stratum"] for s in samples} == set(STRATA)
    for sample in samples:
        row = place[sample["doc_id"]]
        assert sample["text"] == text[sample["doc_id"]][:2000]
        assert sample["copies"] == table.copies[row]
        assert table.selectable[row]
        if sample["stratum"] in ("top", "kept"):
            assert sample["copies"] > 0
        if sample["stratum"].startswith("dropped"):
            assert sample["copies"] == 0
    assert max(sum(s["stratum"] == name for s in samples) for name in STRATA) == 30


def test_top_and_disagree_take_the_extremes_of_every_domain(run: Run):
    table = read_selection(run.folder)
    chosen = choose_samples(table, seed=1, n=3)
    rank = (table.ranks.low + table.ranks.high) / 2
    spread = np.abs(table.norms[:, 0] - table.norms[:, 1])
    for m in range(3):
        kept = np.flatnonzero((table.domain == m) & (table.copies > 0))
        assert rank[kept].min() in rank[chosen["top"]]
        mine = np.flatnonzero((table.domain == m) & table.selectable)
        assert np.nanmax(spread[mine]) in spread[chosen["disagree"]]


def test_the_edge_is_found_where_the_curve_ends(run: Run):
    table = read_selection(run.folder)
    np.testing.assert_allclose(cutoffs(table), THETA.cutoff, atol=0.03)
    rank = (table.ranks.low + table.ranks.high) / 2
    rows = choose_samples(table, seed=1, n=12)["borderline"]
    assert np.abs(rank[rows] - THETA.cutoff[table.domain[rows]]).max() < 0.1
    inside = rank[rows] <= cutoffs(table)[table.domain[rows]]
    assert inside.sum() == 6


def test_long_texts_are_cut_in_samples(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("quadmix.materialise.spill.TEXT_CHARACTERS", 11)
    run.write()
    texts = read_table(run.folder / "samples.parquet")["text"].to_pylist()
    assert {len(t) for t in texts} == {11}


def test_the_card_states_what_the_manifest_holds(run: Run):
    manifest = run.write()
    card = (run.folder / "dataset" / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n")
    assert "    path: part-*.parquet\n" in card
    assert "- n<1K\n" in card
    for number in (manifest.ledger.rows_in, manifest.ledger.tokens_out, manifest.ledger.dropped["held_out"]):
        assert f"{number:,}" in card
    for domain in manifest.domains:
        assert f"| {domain.domain} | {domain.documents_in:,} | {domain.tokens_in:,} |" in card
    assert "| edu | column | higher is better | `aa` |" in card
    assert "| law | 0.2000 | 0.8000 | 5 | 0.3 | 0.5 | 0.1 | 1 |" in card
    assert manifest.digest in card
    assert "Text of" not in card, "the card quotes no document"


def test_a_shortfall_is_said_with_its_epochs(run: Run):
    manifest = run.write(budget=10 * run.expected_tokens)
    sentence = budget_sentence(manifest)
    short = 10 * run.expected_tokens - manifest.ledger.tokens_out
    assert f"Shortfall of {short:,} tokens" in sentence
    assert f"{10 * run.expected_tokens / manifest.ledger.tokens_out:.2f} epochs" in sentence
    met = dataclasses.replace(manifest, token_budget=manifest.ledger.tokens_out)
    assert "Shortfall" not in budget_sentence(met)


@pytest.mark.parametrize(("copies", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"),
                                              (999_999_999, "100M<n<1B"), (10**9, "1B<n<10B")])  # fmt: skip
def test_size_category_is_one_the_hub_knows(run: Run, copies: int, size: str):
    manifest = run.write()
    ledger = dataclasses.replace(manifest.ledger, copies=copies)
    card = render_card(dataclasses.replace(manifest, ledger=ledger), read_selection(run.folder), None, "x")
    assert f"size_categories:\n- {size}\n" in card
