"""The page of `quadmix diff` in Chromium: cards open, filters filter, and nothing of a document runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser.checks import KINDS, OPEN, figures_fit_the_scheme, sideways, violations, walk
from browser.conftest import Visitor
from browser.hostile import CORPUS
from materialise.materialise_run import THETA, build_run, documents, write_inputs
from report.test_report_diff import CARD, DROPPED, make_diff

from quadmix.io.atomic import write_json
from quadmix.materialise.diff import diff_runs
from quadmix.materialise.explain import explain
from quadmix.report.diff_page import write_diff
from quadmix.types.diffing import DiffDocument, Flow


def hostile_page(folder: Path) -> Path:
    """Write a page whose domains, criteria, ids, texts and reasons attack."""
    documents = tuple(
        DiffDocument(
            doc_id=f"{place} {text}", only="A" if place % 2 else "B", text=text, characters=len(text),
            a=replace(CARD, domain=text, scores=(replace(CARD.scores[0], name=text, declared=text),)),
            b=replace(DROPPED, excluded=text) if place % 3 else None, note=text,
        )
        for place, text in enumerate(CORPUS)
    )  # fmt: skip
    base = make_diff()
    domains = tuple(replace(base.domains[0], domain=text) for text in CORPUS)
    scores = tuple(replace(base.scores[0], domain=text, criterion=text) for text in CORPUS[:4])
    theta = tuple(replace(base.theta[0], domain=text, parameter=text) for text in CORPUS)
    settings = tuple(replace(base.settings[0], field=text, a=text, b=text) for text in CORPUS)
    diff = make_diff(domains=domains, scores=scores, theta=theta, settings=settings, documents=documents)
    return write_diff(diff, (folder / "<a>", folder / "b"), folder / "diff.html")


def test_nothing_of_a_hostile_diff_runs_or_is_fetched(visitor: Visitor, tmp_path: Path):
    visit = visitor.open(hostile_page(tmp_path))
    more = visit.page.locator("#more")
    if more.is_visible():
        more.click()
    for summary in visit.page.locator("#docs summary").all():
        summary.click()
    assert visit.page.locator("#docs .pair").count() == len(CORPUS)
    assert visit.harm() == []
    assert visit.page.locator("#docs img, #docs script, #docs iframe, #docs a, #docs form").count() == 0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two real selections of the same documents, the second without a window in one domain; their page."""
    home = tmp_path_factory.mktemp("pair")
    docs = documents(150)
    other = replace(THETA, cutoff=np.array([0.0, 0.3, 0.8]), floor=np.array([0.3, 0.0, 0.1]))
    folders = []
    for name, theta in (("first", THETA), ("second", other)):
        run = build_run(home / name, write_inputs(home / f"in-{name}", docs), docs, theta=theta)
        write_json(run.folder / "theta.json", theta)
        folders.append(run.folder)
    diff = diff_runs(*folders, sample=25, seed=0)
    page = write_diff(diff, (folders[0], folders[1]), home / "diff.html", figures=True)
    return folders[0], folders[1], page


def test_a_card_says_of_both_runs_what_explain_says(pair: tuple[Path, Path, Path], visitor: Visitor):
    """Scores with their directions and parts, parameters and place on the curve, draw; of every document."""
    visit = visitor.open(pair[2])
    visit.page.wait_for_function(OPEN)
    cards = visit.page.locator("#docs .doc")
    assert cards.count() >= 10
    seen = set()
    for place in range(min(cards.count(), 12)):
        card = cards.nth(place)
        doc_id = card.locator(".hint").last.inner_text().removeprefix("id ")
        for folder, side, letter in ((pair[0], ".a", "A"), (pair[1], ".b", "B")):
            told = explain(folder, doc_id)
            draw, curve = told.draw, told.curve
            box = card.locator(f".why{side}")
            words = box.inner_text().replace("\u2212", "-")
            copies = f"{draw.copies} {'copy' if draw.copies == 1 else 'copies'}"
            assert box.locator("h3").inner_text() == f"{letter}: why {copies}?"
            rows = [r.locator("th,td").all_inner_texts() for r in box.locator("table tr").all()]
            assert rows[0] == ["criterion", "score", "normalised", "× weight", "= part"]
            for criterion, row in zip(told.criteria, rows[1:], strict=False):
                assert row[0] == f"{criterion.name} {'↑' if criterion.declared == 'higher' else '↓'}"
                part = criterion.normalised * criterion.used
                assert row[4] == ("–" if np.isnan(part) else f"{part:.4f}")
            assert rows[-1][4] == f"{draw.merged:.4f}"
            for name, value in (("λ", curve.steepness), ("ω", curve.cutoff), ("η", curve.exponent)):
                assert f"{name} {value:g}," in words
            assert f"the hash of seed and id is {draw.uniform:.6f}" in words
            assert "do not lead" not in words
            assert box.locator("svg.curve").count() == 1
            seen.add((letter, "window is empty" in words))
    assert ("B", True) in seen
    assert ("A", True) not in seen
    assert visit.harm() == []


def test_what_is_not_in_a_pool_or_excluded_is_said(visitor: Visitor, tmp_path: Path):
    visit = visitor.open(write_diff(make_diff(), (tmp_path / "a", tmp_path / "b"), tmp_path / "diff.html"))
    assert visit.found() == "3 of 3 documents; 3 shown."
    visit.page.wait_for_function(OPEN)
    cards = visit.page.locator("#docs .doc")
    assert cards.nth(0).locator("h3").all_inner_texts() == ["A: why 2 copies?", "B: why 0 copies?"]
    assert "The first text\n… 6 more characters" in cards.nth(0).inner_text()
    assert "covers 0.062500 to 0.087500" in cards.nth(0).locator(".why.a").inner_text()
    assert cards.nth(1).locator(".why.a").inner_text() == "A: not in this run's pool"
    assert "excluded before the selection (held_out)" in cards.nth(2).locator(".why.a").inner_text()
    assert visit.harm() == []


@pytest.mark.parametrize("visitor", KINDS, indirect=True)
@pytest.mark.parametrize("folds", ["closed", "open"])
def test_axe_finds_no_serious_violation(pair: tuple[Path, Path, Path], visitor: Visitor, folds: str):
    visit = visitor.open(pair[2])
    if folds == "open":
        visit.page.wait_for_function(OPEN)
    assert violations(visit) == []


def test_the_keyboard_reaches_and_shows_everything(pair: tuple[Path, Path, Path], visitor: Visitor):
    visit = visitor.open(pair[2])
    seen = walk(visit)
    controls = ["f-only", "f-domain", "f-text"]
    more = visit.page.locator("#more").is_visible()
    assert [s["id"] for s in seen if s["id"]] == [*controls, *(["more"] if more else [])]
    visit.page.locator("#docs summary").first.focus()
    visit.page.keyboard.press("Enter")
    visit.page.locator("#docs .pair").first.wait_for()
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.className") == "text wide-text"
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.getAttribute('aria-label')") == (
        "Scores of this document in A"
    )
    assert visit.harm() == []


def test_more_documents_take_the_reader_to_the_first_of_them(visitor: Visitor, tmp_path: Path):
    one = make_diff().documents[0]
    many = tuple(replace(one, doc_id=f"d-{n}", text=f"text {n}") for n in range(45))
    page = write_diff(make_diff(documents=many), (tmp_path / "a", tmp_path / "b"), tmp_path / "diff.html")
    visit = visitor.open(page)
    assert visit.found() == "45 of 45 documents; 20 shown."
    visit.page.focus("#more")
    visit.page.keyboard.press("Enter")
    assert visit.found() == "45 of 45 documents; 40 shown."
    assert "text 20" in visit.page.evaluate("document.activeElement.textContent")
    visit.page.click("#more")
    assert visit.found() == "45 of 45 documents; 45 shown."
    assert visit.page.locator("#more").is_hidden()


@pytest.mark.parametrize("visitor", KINDS[:2], indirect=True)
def test_figures_follow_the_colour_scheme(pair: tuple[Path, Path, Path], visitor: Visitor):
    figures_fit_the_scheme(visitor.open(pair[2]))


@pytest.mark.parametrize("visitor", KINDS[2:], indirect=True)
def test_no_sideways_scrolling_of_the_page(pair: tuple[Path, Path, Path], visitor: Visitor):
    visit = visitor.open(pair[2])
    visit.page.wait_for_function(OPEN)
    content, window = sideways(visit)
    assert content <= window


def test_filters_by_run_and_text(visitor: Visitor, tmp_path: Path):
    visit = visitor.open(write_diff(make_diff(), (tmp_path / "a", tmp_path / "b"), tmp_path / "diff.html"))
    visit.page.select_option("#f-only", "B")
    assert visit.found() == "2 of 3 documents; 2 shown."
    visit.page.fill("#f-text", "d-3")
    assert visit.found() == "1 of 3 documents; 1 shown."
    visit.page.fill("#f-text", "no such words")
    assert visit.found() == "0 of 3 documents; 0 shown."


@pytest.mark.parametrize("visitor", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_a_phone_scrolls_only_downwards(visitor: Visitor, tmp_path: Path):
    flows = (Flow(a="kept", b="absent", documents=3, tokens=30),)
    page = write_diff(make_diff(flow=flows), (tmp_path / "a", tmp_path / "b"), tmp_path / "diff.html")
    visit = visitor.open(page)
    visit.page.locator("#docs summary").first.click()
    wide = visit.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
