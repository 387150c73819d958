"""The page is usable by keyboard, on a phone, at 400 % zoom, in the dark, and by who does not see it."""

from urllib.parse import unquote

import pytest
from browser.checks import KINDS, OPEN, figures_fit_the_scheme, sideways, violations, walk

from quadmix.io.atomic import read_table

AROUND = """(fold) => {
  let around = fold;
  while ((around = around.parentElement.closest('details'))) around.open = true;
}"""


@pytest.mark.parametrize("visitor", KINDS, indirect=True)
@pytest.mark.parametrize("folds", ["closed", "open"])
def test_axe_finds_no_serious_violation(run, visitor, folds):
    visit = visitor.open(run / "report.html")
    if folds == "open":
        visit.page.wait_for_function(OPEN)
    assert violations(visit) == []


@pytest.mark.parametrize("visitor", [KINDS[2], KINDS[3]], indirect=True)
def test_no_sideways_scrolling_of_the_page(run, visitor):
    """Also with every fold and card open; wide tables and figures scroll inside their own boxes."""
    visit = visitor.open(run / "report.html")
    visit.page.wait_for_function(OPEN)
    content, window = sideways(visit)
    assert content <= window


@pytest.mark.parametrize("visitor", [KINDS[0], KINDS[2]], indirect=True)
def test_every_link_of_the_navigation_leads_to_its_section(run, visitor):
    visit = visitor.open(run / "report.html")
    links = visit.page.locator("nav a")
    assert links.count() >= 12
    for place in range(links.count()):
        link = links.nth(place)
        link.click()
        anchor = link.get_attribute("href")
        assert visit.fragment() == anchor
        box = visit.page.locator(anchor).bounding_box()
        bar = visit.page.locator("nav").bounding_box()
        last = visit.page.evaluate("scrollY + innerHeight >= document.documentElement.scrollHeight - 2")
        assert last or bar["y"] + bar["height"] - 2 <= box["y"] + 16 <= 200, anchor
    assert visit.harm() == []


def test_every_file_that_the_page_links_to_is_in_the_run_folder(run, visitor):
    """Figures as SVG, PNG and CSV, and the files that the numbers come from."""
    visit = visitor.open(run / "report.html")
    links = {a.get_attribute("href") for a in visit.page.locator("main a[href]").all()}
    files = {unquote(link) for link in links if not link.startswith("#")}
    assert len(files) > 30
    assert [f for f in files if not (run / f).exists()] == []


def test_every_fold_opens_and_closes(run, visitor):
    visit = visitor.open(run / "report.html")
    folds = visit.page.locator("main section details:not(.doc)")
    assert folds.count() > 12
    for place in range(folds.count()):
        fold = folds.nth(place)
        fold.evaluate(AROUND)
        inside = fold.locator(":scope > :not(summary)").first
        assert inside.is_hidden()
        fold.locator("summary").first.click()
        assert inside.is_visible()
        fold.locator("summary").first.click()
        assert inside.is_hidden()


def test_every_figure_has_words_and_a_table(run, visitor):
    visit = visitor.open(run / "report.html")
    figures = visit.page.locator("figure")
    assert figures.count() >= 12
    for place in range(figures.count()):
        figure = figures.nth(place)
        assert len(figure.locator("img").get_attribute("alt")) > 15
        assert figure.locator("details table tbody tr").count() > 0
        assert figure.locator("img").evaluate("(i) => i.decode().then(() => i.naturalWidth)") > 100


def test_the_keyboard_reaches_and_shows_everything(run, visitor):
    """Tab goes through every control in order; each is in sight with a visible outline."""
    visit = visitor.open(run / "report.html")
    seen = walk(visit)
    samples = len(read_table(run / "samples.parquet", columns=["doc_id"]))
    controls = ["f-stratum", "f-domain", "f-copies", "f-by", "f-min", "f-max", "f-sort", "f-order", "f-text"]
    assert [s["id"] for s in seen if s["id"]] == [*controls, "reset", *(["after"] if samples > 20 else [])]
    assert sum(s["card"] for s in seen) == min(samples, 20)


def test_the_viewer_works_by_keyboard_alone(run, visitor):
    page = (visit := visitor.open(run / "report.html")).page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert visit.fragment() == "#main"
    page.focus("#f-copies")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#f-copies") == "0"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("dro")
    assert page.input_value("#f-stratum") == "dropped"
    text = page.locator("#docs .preview").first.inner_text()
    page.focus("#f-text")
    page.keyboard.type(text.split()[0])
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#docs .why").first.wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "text"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "scroll"
    assert visit.harm() == []


@pytest.mark.parametrize("visitor", KINDS[:2], indirect=True)
def test_figures_follow_the_colour_scheme(run, visitor):
    """Their ground is that of the page around them, and marks stand out from it."""
    visit = visitor.open(run / "report.html")
    visit.page.wait_for_function(OPEN)
    figures_fit_the_scheme(visit)


def test_print_shows_the_page_without_its_controls(run, visitor):
    visit = visitor.open(run / "report.html")
    visit.page.emulate_media(media="print")
    assert visit.page.locator("nav").is_hidden()
    assert visit.page.locator("#filters").is_hidden()
    assert visit.page.locator("h1").is_visible()
