"""The rows that figures are drawn from: all of a small run, a stated sample by hash of a large one."""

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from report_fixture import make_run

import quadmix.report.load
from quadmix.errors import InputError
from quadmix.io.atomic import read_json, read_table, write_json, write_table
from quadmix.materialise.table import read_selection
from quadmix.report import write_report
from quadmix.report.selection import load_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("selection") / "run", documents=4001)


def places(table):
    """Return (domain, best rank) of every row, which no two documents share."""
    return set(zip(table.domain.tolist(), table.low.tolist(), strict=True))


def test_a_small_run_is_loaded_whole_and_in_order(folder):
    table, whole = load_table(folder), read_selection(folder)
    assert not table.sampled
    assert table.documents == len(table.tokens) == 4001
    assert np.array_equal(table.domain, whole.domain)
    assert np.array_equal(table.scores, whole.scores)
    assert np.array_equal(table.rank, (whole.ranks.low + whole.ranks.high) / 2)
    assert table.declared == {c.name: "higher" for c in whole.info.criteria}


def test_a_sample_is_of_the_asked_size_and_counts_stay_those_of_all_documents(folder):
    whole, table = load_table(folder), load_table(folder, sample=1000)
    assert table.sampled
    assert table.documents == 4001
    assert abs(len(table.tokens) - 1000) < 4 * 1000**0.5
    assert np.array_equal(table.coverage, whole.coverage)
    assert np.array_equal(table.longest, whole.longest)
    assert places(table) <= places(whole)
    # Without bias: the mean expected copies of the sample lie within 5 standard errors of the pool's.
    error = whole.expected.std() / len(table.tokens) ** 0.5
    assert abs(table.expected.mean() - whole.expected.mean()) < 5 * error


def test_a_larger_sample_holds_the_smaller_one(folder):
    small, large = (places(load_table(folder, sample=n)) for n in (300, 900))
    assert len(small) > 200
    assert small <= large


def test_excluded_documents_are_not_drawn_but_count_for_the_coverage(tmp_path):
    folder = make_run(tmp_path / "run", documents=200)
    path = folder / "selection" / "part-00001.parquet"
    part = read_table(path)
    mask = pa.array(np.arange(100) < 30)
    lost = pc.if_else(mask, pa.scalar(float("nan"), pa.float32()), part["score:edu"])
    reasons = pc.if_else(mask, pa.scalar("missing_score"), part["excluded"])
    for name, column in (("score:edu", lost), ("excluded", reasons)):
        part = part.set_column(part.schema.get_field_index(name), name, column)
    write_table(path, part)
    table = load_table(folder)
    assert len(table.tokens) == 170
    assert not np.isnan(table.scores).any()
    assert table.coverage.tolist() == [170 / 200, 1.0, 1.0]


def test_the_page_states_the_size_of_the_sample(folder, monkeypatch):
    assert "Drawn from a sample" not in write_report(folder).read_text("utf-8")
    monkeypatch.setattr(quadmix.report.load, "load_table", functools.partial(load_table, sample=1000))
    page = write_report(folder).read_text("utf-8")
    size = len(load_table(folder, sample=1000).tokens)
    assert page.count(f"Drawn from a sample of {size:,} of the 4,001 selectable documents") == 3


def test_a_run_without_a_finished_selection_has_no_table_and_a_foreign_manifest_is_named(tmp_path):
    folder = make_run(tmp_path / "run", documents=60)
    path = folder / "selection" / "manifest.json"
    data = read_json(path)
    path.unlink()
    assert load_table(folder) is None
    write_json(path, {"parts": data["parts"]})
    with pytest.raises(InputError, match=r"manifest.json is not a manifest of a selection \(KeyError"):
        load_table(folder)
    data["info"]["domains"] = ["web"]
    write_json(path, data)
    with pytest.raises(InputError, match=r"part-00000.parquet: domain .* is not among those of its manifest"):
        load_table(folder)
