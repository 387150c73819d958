"""The page is usable by keyboard, on a phone, at 400 % zoom, in the dark, and by who does not see it."""

import io
from urllib.parse import unquote

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

WINDOWS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
    "zoom": {"viewport": {"width": 320, "height": 256}, "color_scheme": "dark"},  # 1280 x 1024 at 400 %
}
KINDS = [pytest.param(options, id=name) for name, options in WINDOWS.items()]
OPEN = """() => {
  for (const fold of document.querySelectorAll('details')) fold.open = true;
  return [...document.querySelectorAll('#docs details')].every((card) => card.querySelector('.why'));
}"""
AROUND = """(fold) => {
  let around = fold;
  while ((around = around.parentElement.closest('details'))) around.open = true;
}"""
FOCUS = """() => {
  const e = document.activeElement, style = getComputedStyle(e);
  const box = e.getBoundingClientRect();
  return {tag: e.tagName, text: e.textContent.slice(0, 40), id: e.id, outline: style.outlineStyle !== 'none',
          seen: box.bottom > 0 && box.top < innerHeight && box.width > 0, card: !!e.closest('#docs')};
}"""


@pytest.mark.parametrize("visitor", KINDS, indirect=True)
@pytest.mark.parametrize("folds", ["closed", "open"])
def test_axe_finds_no_serious_violation(run, visitor, folds):
    visit = visitor.open(run / "report.html")
    if folds == "open":
        visit.page.wait_for_function(OPEN)
    found = Axe().run(visit.page).response
    bad = [
        (v["id"], v["impact"], [n["html"][:120] for n in v["nodes"][:3]])
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    assert bad == []
    assert found["testEngine"]["name"] == "axe-core"


@pytest.mark.parametrize("visitor", [KINDS[2], KINDS[3]], indirect=True)
def test_no_sideways_scrolling_of_the_page(run, visitor):
    """Also with every fold and card open; wide tables and figures scroll inside their own boxes."""
    visit = visitor.open(run / "report.html")
    visit.page.wait_for_function(OPEN)
    widths = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]


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
    total = visit.page.evaluate(
        "[...document.querySelectorAll('a[href],button,input,select,summary,[tabindex]')]"
        ".filter((e) => e.checkVisibility() && !e.disabled).length"
    )
    seen = []
    for _ in range(total):
        visit.page.keyboard.press("Tab")
        seen.append(visit.page.evaluate(FOCUS))
    assert seen[0]["text"] == "Skip to content"
    assert [s for s in seen if not s["outline"] or not s["seen"]] == []
    controls = ["f-stratum", "f-domain", "f-copies", "f-by", "f-min", "f-max", "f-sort", "f-order", "f-text"]
    assert [s["id"] for s in seen if s["id"]] == [*controls, "reset", "after"]
    assert sum(s["card"] for s in seen) == 20


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
    page.focus("#f-text")
    page.keyboard.type("document")
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
    dark = visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    figures = visit.page.locator("figure img")
    for place in range(figures.count()):
        shot = Image.open(io.BytesIO(figures.nth(place).screenshot())).convert("L")
        grey = np.asarray(shot, dtype=np.float64) / 255
        ground = grey[-8, -8]
        assert ground < 0.25 if dark else ground > 0.9
        assert np.abs(grey - ground).max() > 0.5


def test_print_shows_the_page_without_its_controls(run, visitor):
    visit = visitor.open(run / "report.html")
    visit.page.emulate_media(media="print")
    assert visit.page.locator("nav").is_hidden()
    assert visit.page.locator("#filters").is_hidden()
    assert visit.page.locator("h1").is_visible()
