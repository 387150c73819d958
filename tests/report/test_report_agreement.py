"""Criteria against each other and domain by domain, compared with plain computations."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fixture import CRITERIA, make_run
from scipy.stats import spearmanr

from quadmix.report import criteria_domains, figures
from quadmix.report.load import load_run
from quadmix.report.plots import Picture
from quadmix.report.selection import Table


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Table:
    table = load_run(make_run(tmp_path_factory.mktemp("agreement"), documents=900)).table
    assert table is not None
    return table


def test_every_domain_has_a_row_and_the_first_is_of_all(known: Table):
    picture = figures.agreement(known)
    rows = picture.rows
    sizes = np.bincount(known.domain, minlength=len(known.domains))
    by_size = [known.domains[m] for m in np.argsort(-sizes, kind="stable")]
    assert list(dict.fromkeys(r[0] for r in rows)) == ["all domains", *by_size]
    assert len(rows) == 3 * (1 + len(known.domains))
    for domain, one, other, value in rows:
        mine = slice(None) if domain == "all domains" else known.domain == known.domains.index(str(domain))
        pair = known.scores[mine][:, [CRITERIA.index(str(one)), CRITERIA.index(str(other))]]
        expected: Any = spearmanr(pair[:, 0], pair[:, 1])
        assert value == pytest.approx(expected.statistic, abs=1e-9)
    assert "under the sample “disagree”" in picture.caption


def test_agreement_inside_domains_may_be_hidden_by_the_mean(known: Table):
    """Two criteria that agree in one domain and contradict each other in another."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=known.scores.shape).astype(np.float32)
    scores[:, 1] = np.where(known.domain == 0, scores[:, 0], -scores[:, 0])
    rows = figures.agreement(dataclasses.replace(known, scores=scores)).rows
    found = {str(r[0]): r[3] for r in rows if r[1:3] == CRITERIA[:2]}
    assert found["web"] == pytest.approx(1)
    assert found["books"] == pytest.approx(-1)
    assert abs(float(str(found["all domains"]))) < 0.9


def test_of_many_pairs_those_that_differ_most_are_drawn_and_all_are_in_the_data(known: Table):
    rng = np.random.default_rng(2)
    names = tuple(f"c{i}" for i in range(8))
    scores = rng.normal(size=(len(known.tokens), 8)).astype(np.float32)
    scores[:, 7] = np.where(known.domain == 0, scores[:, 6], -scores[:, 6])
    many = dataclasses.replace(known, criteria=names, scores=scores, declared=dict.fromkeys(names, "lower"))
    picture = figures.agreement(many)
    assert f"The {figures.SHOWN_PAIRS} pairs that differ most between domains" in picture.caption
    assert b"c6 \xc2\xb7 c7" in picture.svg
    assert len(picture.rows) == 28 * (1 + len(known.domains))


def test_a_criterion_that_is_missing_in_a_domain_has_no_correlation_there(known: Table):
    scores = known.scores.copy()
    scores[known.domain == 0, 0] = np.nan
    rows = figures.agreement(dataclasses.replace(known, scores=scores)).rows
    web = {r[1:3]: float(str(r[3])) for r in rows if r[0] == "web"}
    assert np.isnan(web["edu", "fluency"])
    assert np.isnan(web["edu", "heuristic"])


# --------------------------------------------------------------------------- domain by domain
def test_histograms_per_domain_are_shares_of_its_tokens(known: Table):
    gallery: list[Picture] = []
    html = criteria_domains.by_domain(known, gallery)
    (picture,) = gallery
    assert "Quantiles of every criterion in every domain" in html
    books, edu = known.domains.index("books"), -known.scores[:, 0].astype(np.float64)
    mine = known.domain == books
    rows = [r for r in picture.rows if r[:2] == ("books", "edu")]
    assert len(rows) == criteria_domains.BINS
    edges = [float(str(r[2])) for r in rows]
    inside = np.clip(edu[mine], edges[0], float(str(rows[-1][3])))
    place = np.clip(np.searchsorted(edges, inside, side="right") - 1, 0, len(edges) - 1)
    for column, weights in ((4, known.tokens), (5, known.tokens * known.copies)):
        expected = np.bincount(place, weights[mine], len(edges)) / weights[mine].sum()
        np.testing.assert_allclose([float(str(r[column])) for r in rows], expected, atol=1e-12)
    assert picture.source == ("selection/manifest.json",)


def test_quantiles_per_domain_weigh_tokens_and_copies(known: Table):
    rows = {(d, c): (before, after) for d, c, before, after in criteria_domains.quantile_rows(known)}
    assert len(rows) == len(known.domains) * len(CRITERIA)
    mine = known.domain == known.domains.index("code")
    values = -known.scores[mine, 1].astype(np.float64)
    for place, weights in enumerate((known.tokens[mine], (known.tokens * known.copies)[mine])):
        long = np.sort(np.repeat(values, weights.astype(int)))
        expected = [long[int(np.ceil(q * len(long))) - 1] for q in (0.1, 0.5, 0.9)]
        np.testing.assert_allclose(rows["code", "fluency"][place], expected)


def test_many_criteria_take_several_figures_and_unselected_domains_have_no_line(known: Table):
    names = tuple(f"c{i}" for i in range(6))
    scores = np.tile(known.scores, 2)
    copies = np.where(known.domain == 0, 0.0, known.copies)
    many = dataclasses.replace(
        known, criteria=names, scores=scores, declared=dict.fromkeys(names, "lower"), copies=copies
    )
    gallery: list[Picture] = []
    criteria_domains.by_domain(many, gallery)
    assert [p.name for p in gallery] == ["criteria-by-domain", "criteria-by-domain-2"]
    assert {r[1] for r in gallery[1].rows} == {"c4", "c5"}
    assert all(np.isnan(float(str(r[5]))) for r in gallery[0].rows if r[0] == "web")
    assert criteria_domains.quantile_rows(many)[0][:2] == ("web", "c0")
    assert np.isnan(criteria_domains.quantile_rows(many)[0][3]).all()


def test_without_documents_there_is_nothing(known: Table):
    none = known.domain < 0
    empty = dataclasses.replace(
        known, domain=known.domain[none], tokens=known.tokens[none], copies=known.copies[none],
        scores=known.scores[none], low=known.low[none], high=known.high[none], expected=known.expected[none],
    )  # fmt: skip
    gallery: list[Picture] = []
    assert criteria_domains.by_domain(empty, gallery) == ""
    assert gallery == []


def test_the_page_of_a_folder_without_selection_loads(tmp_path: Path):
    assert load_run(tmp_path).table is None
