"""The page of `quadmix diff` in Chromium: cards open, filters filter, and nothing of a document runs."""

from dataclasses import replace
from pathlib import Path

import pytest
from browser.conftest import Visitor
from browser.hostile import CORPUS
from report.test_report_diff import CARD, DROPPED, make_diff

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


def test_a_card_shows_the_document_in_both_runs(visitor: Visitor, tmp_path: Path):
    visit = visitor.open(write_diff(make_diff(), (tmp_path / "a", tmp_path / "b"), tmp_path / "diff.html"))
    assert visit.found() == "3 of 3 documents; 3 shown."
    visit.page.locator("#docs summary").first.click()
    card = visit.page.locator("#docs .doc").first
    heads = card.locator("h4").all_inner_texts()
    assert heads == ["A: 2 copies", "B: 0 copies"]
    assert "The first text\n… 6 more characters" in card.inner_text()
    assert "Rank 0.0750" in card.locator(".why.a").inner_text()
    assert "Rank 0.4500" in card.locator(".why.b").inner_text()
    assert visit.harm() == []


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
