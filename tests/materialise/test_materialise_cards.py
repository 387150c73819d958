"""The fates of documents in two runs, the sample of those that one alone selects, their numbers and texts."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from materialise_run import DOMAINS, THETA, Run, build_run, documents, write_inputs

from quadmix.errors import IntegrityError
from quadmix.io.atomic import read_table, write_json, write_table
from quadmix.materialise.cards import Place, read_cards, read_texts
from quadmix.materialise.diff import diff_runs
from quadmix.materialise.explain import explain
from quadmix.materialise.overlap import by_buckets, by_parts
from quadmix.materialise.table import SelectionTable, read_manifest, read_selection
from quadmix.rng import keyed_uniform


def fates(table: SelectionTable) -> dict[str, str]:
    """Return what became of each document, told apart as a reader would."""
    rows = zip(table.doc_id.to_pylist(), table.copies.tolist(), table.excluded.to_pylist(), strict=True)
    return {i: "kept" if copies else "excluded" if out else "not drawn" for i, copies, out in rows}


def ids(table: SelectionTable) -> set[str]:
    return {i for i, fate in fates(table).items() if fate == "kept"}


def test_every_document_of_both_pools_is_in_one_flow(tmp_path: Path):
    docs = documents(150)
    first = build_run(tmp_path / "a", write_inputs(tmp_path / "in-a", docs[:100]), docs[:100])
    theirs = docs[:6] + docs[60:]
    second = build_run(tmp_path / "b", write_inputs(tmp_path / "in-b", theirs), theirs)
    a, b = fates(read_selection(first.folder)), fates(read_selection(second.folder))
    tokens = {}
    for run in (second, first):  # where both have it, A counts
        table = read_selection(run.folder)
        tokens |= dict(zip(table.doc_id.to_pylist(), table.tokens.tolist(), strict=True))
    wanted: dict[tuple[str, str], list[int]] = {}
    for i in a.keys() | b.keys():
        wanted.setdefault((a.get(i, "absent"), b.get(i, "absent")), []).append(tokens[i])
    diff = diff_runs(first.folder, second.folder)
    assert {(f.a, f.b): (f.documents, f.tokens) for f in diff.flow} == {
        pair: (len(found), sum(found)) for pair, found in wanted.items()
    }
    assert len({f.a for f in diff.flow}) == len({f.b for f in diff.flow}) == 4
    neither = [i for i in a.keys() | b.keys() if a.get(i) != "kept" != b.get(i)]
    assert diff.neither == len(neither)
    assert f"{len(neither)} in neither" in diff.render()


def test_the_sample_is_chosen_by_the_hash_of_seed_and_id(run: Run, double: Run):
    a, b = ids(read_selection(run.folder)), ids(read_selection(double.folder))
    for seed in (0, 1):
        diff = diff_runs(run.folder, double.folder, sample=4, seed=seed)
        for side, only in (("A", a - b), ("B", b - a)):
            luck = dict(zip(sorted(only), keyed_uniform(seed, sorted(only), "diff"), strict=True))
            wanted = sorted(only, key=luck.__getitem__)[:4]
            assert [d.doc_id for d in diff.documents if d.only == side] == wanted
    assert diff.documents != diff_runs(run.folder, double.folder, sample=4).documents
    assert diff_runs(run.folder, double.folder).documents == ()


@pytest.mark.parametrize("size", [1, 40, 1000])
def test_buckets_sample_the_same_documents_in_the_same_flows(run: Run, double: Run, size: int):
    folders = (run.folder, double.folder)
    manifests = (read_manifest(run.folder), read_manifest(double.folder))
    parts = by_parts(folders, manifests, sample=5, seed=2)
    buckets = by_buckets(folders, manifests, sample=5, seed=2, bucket_documents=size)
    assert len(parts.picked_a) == len(parts.picked_b) == 5
    assert (parts.picked_a, parts.picked_b) == (buckets.picked_a, buckets.picked_b)
    assert np.array_equal(parts.documents, buckets.documents)
    assert np.array_equal(parts.tokens, buckets.tokens)


def test_a_card_has_the_numbers_that_explain_works_out_in_both_runs(run: Run, double: Run):
    diff = diff_runs(run.folder, double.folder, sample=6)
    assert len(diff.documents) == 12
    for document in diff.documents:
        for card, folder in ((document.a, run.folder), (document.b, double.folder)):
            told = explain(folder, document.doc_id)
            assert card is not None
            assert (card.domain, card.tokens, card.excluded) == (told.domain, told.tokens, told.excluded)
            names = ("delivered", "normalised", "weight", "used")
            for name in names:
                mine, theirs = ([getattr(s, name) for s in steps] for steps in (card.scores, told.criteria))
                assert mine == pytest.approx(theirs, nan_ok=True)
            if told.draw is not None:
                for name in ("merged", "rank_low", "rank_high", "expected", "uniform", "fraction", "factor"):
                    assert getattr(card, name) == pytest.approx(getattr(told.draw, name), abs=1e-9)
                assert card.copies == told.draw.copies
            curve = THETA if folder == run.folder else dataclasses.replace(THETA, cutoff=[0.1, 0.9, 0.3])
            assert card.cutoff == curve.cutoff[DOMAINS.index(card.domain)]
        kept = document.a if document.only == "A" else document.b
        assert kept is not None
        assert kept.state == "kept"


def test_a_document_that_only_one_pool_has_has_one_card(tmp_path: Path):
    docs = documents(150)
    first = build_run(tmp_path / "a", write_inputs(tmp_path / "in-a", docs[:100]), docs[:100])
    theirs = docs[:6] + docs[60:]
    second = build_run(tmp_path / "b", write_inputs(tmp_path / "in-b", theirs), theirs)
    there = fates(read_selection(second.folder))
    diff = diff_runs(first.folder, second.folder, sample=1000)
    mine = [d for d in diff.documents if d.only == "A"]
    assert {d.doc_id for d in mine if d.b is None} == {d.doc_id for d in mine if d.doc_id not in there}
    assert any(d.b is None for d in mine)
    for document in mine:
        if document.b is not None:
            assert document.b.state == there[document.doc_id]


def test_texts_are_the_beginning_of_the_users_own(run: Run, double: Run):
    texts = {d["id"]: d["text"] for d in run.docs}
    for document in diff_runs(run.folder, double.folder, sample=5).documents:
        assert document.text == texts[document.doc_id]
        assert document.characters == len(texts[document.doc_id])
    for document in diff_runs(run.folder, double.folder, sample=5, texts=False).documents:
        assert (document.text, document.note) == (None, "")


def test_a_text_is_cut_and_says_how_long_it_is(run: Run):
    table = read_selection(run.folder)
    doc_id, place = table.doc_id[7].as_py(), Place(split=int(table.split[7]), row=int(table.row_in_split[7]))
    text = next(d["text"] for d in run.docs if d["id"] == doc_id)
    found = read_texts(run.folder, {doc_id: place}, characters=5)[doc_id]
    assert (found.text, found.characters) == (text[:5], len(text))


def test_samples_of_the_run_are_asked_before_the_users_files(run: Run):
    table = read_selection(run.folder)
    doc_id, place = table.doc_id[7].as_py(), Place(split=int(table.split[7]), row=int(table.row_in_split[7]))
    write_table(run.folder / "samples.parquet", pa.table({"doc_id": [doc_id], "text": ["kept here"]}))
    assert read_texts(run.folder, {doc_id: place})[doc_id].text == "kept here"


def test_a_changed_or_missing_file_gives_a_note_and_the_rest(run: Run, double: Run):
    a, b = (Path(f.path) for f in run.corpus.files)
    a.write_bytes(a.read_bytes() + b'{"id": "new", "text": "t"}\n')
    b.unlink()
    documents = diff_runs(run.folder, double.folder, sample=1000).documents
    notes = {d.note for d in documents}
    assert all(d.text is None and d.a is not None for d in documents)
    assert any("has changed since the run" in n for n in notes)
    assert any("b.jsonl" in n and "could not be read" in n for n in notes)


def test_another_document_in_its_place_is_not_shown_for_it(run: Run, tmp_path: Path):
    """Of the same size, so that only the id tells."""
    docs = [d | {"text": d["text"].upper()} for d in documents(150)]
    named = [d | {"id": d["id"].replace("doc", "cod")} for d in docs]
    files = [Path(f.path) for f in run.corpus.files]
    for file, other in zip(files, write_inputs(tmp_path / "other", named), strict=True):
        assert Path(other).stat().st_size == file.stat().st_size
        file.write_bytes(Path(other).read_bytes())
    table = read_selection(run.folder)
    place = Place(split=int(table.split[3]), row=int(table.row_in_split[3]))
    found = read_texts(run.folder, {table.doc_id[3].as_py(): place})[table.doc_id[3].as_py()]
    assert found.text is None
    assert "is another document now" in found.note


def test_copies_unlike_the_draw_are_an_integrity_error(run: Run):
    manifest = read_manifest(run.folder)
    path = run.folder / "selection" / manifest.parts[0].name
    table = read_table(path)
    copies = table["copies"].to_pylist()
    row = next(k for k, c in enumerate(copies) if c > 0)
    copies[row] += 1
    index = table.schema.get_field_index("copies")
    write_table(path, table.set_column(index, "copies", pa.array(copies, pa.int32())))
    place = Place(split=manifest.parts[0].split, row=row)
    doc_id = table["doc_id"][row].as_py()
    with pytest.raises(IntegrityError, match=f"drawn again it has {copies[row] - 1} copies"):
        read_cards(run.folder, manifest, {doc_id: place})


def test_fields_of_the_identities_that_differ(run: Run, double: Run):
    write_json(run.folder / "identity.json", {"identity": "x", "recipe.seed": 1, "tool": "0.1.0"})
    write_json(
        double.folder / "identity.json", {"identity": "y", "recipe.seed": 2, "tool": "0.1.0", "n": "z"}
    )
    found = [(c.field, c.a, c.b) for c in diff_runs(run.folder, double.folder).settings]
    assert found == [("n", "", "z"), ("recipe.seed", "1", "2")]
