"""verify finds every kind of damage; explain recomputes; diff counts; each against an independent count."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from materialise_run import DOMAINS, THETA, Run

from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import file_digest, read_table, read_value, write_json, write_table
from quadmix.materialise.diff import diff_runs
from quadmix.materialise.explain import explain
from quadmix.materialise.ledger import manifest_digest
from quadmix.materialise.table import read_selection
from quadmix.materialise.verify import verify_run
from quadmix.recipe import MaterialiseSection
from quadmix.types import Confirmation, DatasetManifest


def failed(run: Run) -> set[str]:
    return {c.name for c in verify_run(run.folder).checks if not c.ok}


@pytest.mark.parametrize("format", ["parquet", "jsonl.zst"])
def test_a_sound_dataset_passes_every_check(run: Run, format: str):
    run.write(section=MaterialiseSection(format=format, shard_bytes=3000))  # pyright: ignore[reportArgumentType]
    report = verify_run(run.folder)
    assert report.ok, [c for c in report.checks if not c.ok]
    assert {
        "rows and tokens recounted", "copies per document", "order", "conservation", "inputs unchanged",
    } <= {c.name for c in report.checks}  # fmt: skip
    assert report.stray == ()


def test_without_a_manifest_there_is_nothing_to_verify(run: Run):
    with pytest.raises(InputError, match=r"manifest.json does not exist"):
        verify_run(run.folder)


def test_a_flipped_byte_and_a_missing_shard_are_named(run: Run):
    run.write()
    path = run.folder / "dataset" / "part-00001.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    (run.folder / "dataset" / "part-00002.parquet").unlink()
    assert failed(run) == {"shard part-00001.parquet", "shard part-00002.parquet"}


def test_a_changed_manifest_changed_input_and_stray_files_are_found(run: Run):
    run.write()
    path = run.folder / "dataset" / "manifest.json"
    path.write_text(path.read_text().replace('"selected": ', '"selected": 1'))
    (run.folder / "dataset" / "part-00099.parquet").write_bytes(b"old")
    Path(run.corpus.files[0].path).write_text("gone\n")
    assert failed(run) == {"manifest digest", "conservation", "inputs unchanged"}
    assert verify_run(run.folder).stray == ("dataset/part-00099.parquet",)


def forge(run: Run, table: pa.Table) -> None:
    """Replace the last shard and make its manifest agree, so that only the content tells."""
    path = run.folder / "dataset" / "manifest.json"
    manifest = read_value(path, DatasetManifest)
    last = run.folder / "dataset" / manifest.shards[-1].name
    write_table(last, table)
    shard = dataclasses.replace(manifest.shards[-1], bytes=last.stat().st_size, digest=file_digest(last))
    manifest = dataclasses.replace(manifest, shards=(*manifest.shards[:-1], shard))
    write_json(path, dataclasses.replace(manifest, digest=manifest_digest(manifest)))


def test_swapped_rows_fail_the_order_and_a_doubled_row_the_copies(run: Run):
    manifest = run.write()
    table = read_table(run.folder / "dataset" / manifest.shards[-1].name)
    places = np.arange(table.num_rows)
    places[:2] = places[1::-1]
    forge(run, table.take(places))
    assert "order" in failed(run)
    assert not failed(run) & {"copies per document", "rows and tokens recounted"}
    places[0] = places[1]
    forge(run, table.take(places))
    assert {"copies per document", "copies apart", "order"} <= failed(run)


def test_explain_recomputes_every_document(run: Run):
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


def test_explain_says_each_number_in_words(run: Run):
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


def test_explain_of_missing_scores_and_of_excluded_documents(run: Run):
    table = read_selection(run.folder)
    row = int(np.flatnonzero(np.isnan(table.scores[:, 0]) & table.selectable)[0])
    told = explain(run.folder, table.doc_id[row].as_py())
    assert [c.used for c in told.criteria] == [0.0, 1.0]
    assert "criterion edu: missing" in told.render()
    assert "excluded: held_out" in explain(run.folder, "doc-7").render()
    assert "excluded: missing_score" in explain(run.folder, "doc-5").render()


def test_explain_of_an_unknown_id_names_near_ones(run: Run):
    with pytest.raises(InputError, match=r"'doc-1x' is not in this run.*doc-1\b"):
        explain(run.folder, "doc-1x")


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("copies", "copies"),
        ("merged", "merged score"),
        ("norm:noise", "normalised noise"),
        ("score:noise", "score noise"),
        ("rank_low", "best rank"),
        ("expected", "expected copies"),
    ],
)
def test_explain_refuses_a_table_that_does_not_follow(run: Run, column: str, what: str):
    path = run.folder / "selection.parquet"
    table = read_table(path)
    changed = pc.add(table[column], pa.scalar(0.25 if "f" in str(table[column].type) else 1))
    place = table.schema.get_field_index(column)
    write_table(path, table.set_column(place, column, changed.cast(table[column].type)))
    with pytest.raises(IntegrityError, match=f"'doc-1': {what} is .* when computed again"):
        explain(run.folder, "doc-1")


def test_explain_refuses_another_theta(run: Run):
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


def test_diff_counts_as_sets_do(run: Run, double: Run):
    diff = diff_runs(run.folder, double.folder)
    a, b = read_selection(run.folder), read_selection(double.folder)
    copies_a = dict(zip(a.doc_id.to_pylist(), a.copies.tolist(), strict=True))
    copies_b = dict(zip(b.doc_id.to_pylist(), b.copies.tolist(), strict=True))
    set_a, set_b = {i for i, c in copies_a.items() if c}, {i for i, c in copies_b.items() if c}
    assert (diff.documents_a, diff.documents_b, diff.both) == (len(set_a), len(set_b), len(set_a & set_b))
    assert (diff.only_a_count, diff.only_b_count) == (len(set_a - set_b), len(set_b - set_a))
    assert set(diff.only_a) <= set_a - set_b
    assert len(diff.only_b) == min(10, len(set_b - set_a))
    assert diff.jaccard == pytest.approx(len(set_a & set_b) / len(set_a | set_b))
    tokens = dict(zip(a.doc_id.to_pylist(), a.tokens.tolist(), strict=True))
    small = sum(tokens[i] * min(copies_a[i], copies_b[i]) for i in tokens)
    large = sum(tokens[i] * max(copies_a[i], copies_b[i]) for i in tokens)
    assert diff.token_jaccard == pytest.approx(small / large)
    assert sum(d.tokens_a for d in diff.domains) == a.tokens_out
    assert "arts" in diff.render()


def test_diff_with_itself_is_nothing(run: Run):
    diff = diff_runs(run.folder, run.folder)
    assert (diff.jaccard, diff.token_jaccard, diff.only_a, diff.only_b) == (1.0, 1.0, (), ())
    assert diff.other_copies == 0


def test_unknown_domain_label_in_the_table_is_an_error(run: Run):
    path = run.folder / "selection.parquet"
    table = read_table(path)
    labels = pa.array(["nowhere"] * table.num_rows)
    write_table(path, table.set_column(table.schema.get_field_index("domain"), "domain", labels))
    with pytest.raises(IntegrityError, match="domain 'nowhere' is not among"):
        read_selection(run.folder)
