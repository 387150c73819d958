"""The parts of the selection, the samples and the data card."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from materialise_run import DOMAINS, THETA, Run, build_run, serial
from numpy.typing import NDArray

from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import read_table, write_table
from quadmix.materialise.card import budget_sentence, render_card
from quadmix.materialise.ledger import make_ledger
from quadmix.materialise.sample import STRATA, choose_samples
from quadmix.materialise.table import read_manifest, read_selection, write_part
from quadmix.types import Floats, Ranks, Selection


def test_the_parts_hold_the_columns_of_every_document_in_corpus_order(run: Run):
    manifest = read_manifest(run.folder)
    tables = [read_table(run.folder / "selection" / p.name) for p in manifest.parts]
    assert len(tables) > 2
    for table in tables:
        assert table.column_names == [
            "doc_id", "key", "domain", "tokens", "held_out", "score:edu", "score:noise",
            "norm:edu", "norm:noise", "merged", "rank_low", "rank_high", "expected", "copies", "excluded",
        ]  # fmt: skip
    assert [i for t in tables for i in t["doc_id"].to_pylist()] == [d["id"] for d in run.docs]
    assert [p.split for p in manifest.parts] == [c.split for c in run.corpus.counts]
    assert [p.documents for p in manifest.parts] == [c.documents for c in run.corpus.counts]


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

    def write(excluded: NDArray[np.int8], selection: Selection) -> None:
        write_part(
            run.folder, run.annotations, info=read_manifest(run.folder).info, split=0, excluded=excluded,
            reasons=("a",), selection=selection,
        )  # fmt: skip

    with pytest.raises(IntegrityError, match="covers 149 documents, expected the 150"):
        write(codes, blank(149))
    with pytest.raises(IntegrityError, match=r"excluded spans 0..2, expected 0..1"):
        write(codes + (np.arange(150) == 1).astype(np.int8) * 2, blank(149))
    with pytest.raises(IntegrityError, match="excluded has 5 rows, expected 150"):
        write(codes[:5], blank(5))


def test_a_foreign_or_missing_part_is_refused(run: Run):
    path = run.folder / "selection" / "part-00001.parquet"
    write_table(path, read_table(path).replace_schema_metadata(None))
    with pytest.raises(InputError, match="is not a selection table of quadmix"):
        read_selection(run.folder)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_selection(run.folder)
    (run.folder / "selection" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"manifest.json does not exist"):
        run.write()


def test_a_part_that_the_ledger_does_not_know_breaks_conservation(run: Run):
    selection = read_manifest(run.folder)
    lost = dataclasses.replace(selection, parts=selection.parts[1:])
    with pytest.raises(IntegrityError, match="rows are not conserved"):
        make_ledger(run.corpus, lost)
    first, *rest, last = selection.parts
    assert first.documents != last.documents
    exchanged = (dataclasses.replace(first, split=last.split), *rest, dataclasses.replace(last, split=0))
    with pytest.raises(IntegrityError, match=r"split 0 .* has \d+ documents, but selection/ lists"):
        make_ledger(run.corpus, dataclasses.replace(selection, parts=exchanged))


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
    info = read_manifest(run.folder).info
    factors = dict(zip(info.domains, info.factors, strict=True))
    for sample in samples:  # what a why card replays: one copy more where uniform < frac(expected) · factor
        assert sample["factor"] == factors[sample["domain"]]
        more = sample["uniform"] < sample["expected"] % 1 * sample["factor"]
        assert sample["copies"] == int(sample["expected"]) + more


def test_there_are_as_many_samples_as_asked_for(run: Run):
    run.write(samples=4)
    samples = read_table(run.folder / "samples.parquet").to_pylist()
    assert {sum(s["stratum"] == name for s in samples) for name in STRATA} == {4}


def chosen(run: Run, n: int, cutoffs: Floats | None = THETA.cutoff) -> dict[str, list[int]]:
    """Choose samples part by part; rows of the whole table per stratum."""
    table = read_selection(run.folder)
    ends = np.cumsum(np.bincount(table.split))
    picked = choose_samples(
        str(run.folder), read_manifest(run.folder), cutoffs, seed=1, mapper=serial, n=n
    ).to_pylist()
    found: dict[str, list[int]] = {s: [] for s in STRATA}
    for sample in picked:
        before = ends[sample["split"] - 1] if sample["split"] else 0
        found[sample["stratum"]].append(int(before) + sample["row"])
    return found


def test_top_and_disagree_take_the_extremes_of_every_domain(run: Run):
    table = read_selection(run.folder)
    rows = chosen(run, 3)
    rank = (table.ranks.low + table.ranks.high) / 2
    spread = np.abs(table.norms[:, 0] - table.norms[:, 1])
    for m in range(3):
        kept = np.flatnonzero((table.domain == m) & (table.copies > 0))
        assert rank[kept].min() in rank[rows["top"]]
        mine = np.flatnonzero((table.domain == m) & table.selectable)
        assert np.nanmax(spread[mine]) in spread[rows["disagree"]]


def test_borderline_is_nearest_to_the_cut_half_on_each_side(run: Run):
    table = read_selection(run.folder)
    rank = (table.ranks.low + table.ranks.high) / 2
    rows = chosen(run, 12)["borderline"]
    edge = THETA.cutoff[table.domain[rows]]
    assert np.abs(rank[rows] - edge).max() < 0.1
    assert (rank[rows] <= edge).tolist() == [True] * 6 + [False] * 6
    assert chosen(run, 12, cutoffs=None)["borderline"] == []


@pytest.mark.parametrize("n", [1, 5, 30])
def test_samples_do_not_depend_on_how_the_corpus_is_cut(run: Run, tmp_path: Path, n: int):
    whole = build_run(tmp_path / "whole", [f.path for f in run.corpus.files], run.docs, split_bytes=10**9)
    assert len(whole.corpus.splits) == 2 < len(run.corpus.splits)
    assert chosen(run, n) == chosen(whole, n)
    table = read_selection(run.folder)
    rank = (table.ranks.low + table.ranks.high) / 2
    turn = {m: iter(sorted(rank[(table.domain == m) & (table.copies > 0)])) for m in range(3)}
    rounds = [sorted(next(turn[m]) for m in range(3)) for _ in range(-(-n // 3))]
    np.testing.assert_array_equal(rank[chosen(run, n)["top"]], np.concatenate(rounds)[:n])


def test_long_texts_are_cut_in_samples(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("quadmix.materialise.chosen.TEXT_CHARACTERS", 11)
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
    card = render_card(
        dataclasses.replace(manifest, ledger=ledger), read_manifest(run.folder).info, None, "x"
    )
    assert f"size_categories:\n- {size}\n" in card
