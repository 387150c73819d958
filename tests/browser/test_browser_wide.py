"""Long and wide tables and figures: nothing is cut without a hint, and names stay beside their numbers."""

from pathlib import Path

import numpy as np
import pytest
from browser.checks import lightness
from browser.conftest import Visit, Visitor

from quadmix.report.frame import Frame, render_frame
from quadmix.report.html import Html, figure, section, table
from quadmix.report.plots import Words, picture

PHONES = [
    pytest.param(
        {"viewport": {"width": width, "height": 740}, "color_scheme": scheme}, id=f"{width}-{scheme}"
    )
    for width, scheme in ((360, "light"), (320, "dark"))
]
EDGE = """([element, side]) => {
  const box = element.getBoundingClientRect();
  return {x: side === 'right' ? box.right - 5 : box.left, y: side === 'right' ? box.top : box.bottom - 5,
          width: side === 'right' ? 5 : box.width, height: side === 'right' ? box.height : 5};
}"""


def page_of(path: Path, body: Html) -> Path:
    frame = Frame(name="wide", title="wide", description="wide", links=(("main", "Main"),))
    path.write_text(render_frame(frame, section("s", "Section", body, source=()), None), encoding="utf-8")
    return path


def rows(n: int, columns: int = 3) -> Html:
    names = ["domain", *(f"column {c}" for c in range(1, columns))]
    cells = [[f"domain_{r}", *(f"{1000 * r + c:,}" for c in range(1, columns))] for r in range(n)]
    return table(names, cells, caption="Rows", source=())


def wide_figure() -> Html:
    def draw(canvas) -> None:
        canvas.subplots().plot([0, 1], [0, 1])

    words = Words(name="line", caption="A line from one corner to the other.", alt="A line.", source=("a",))
    return figure(picture(words, (10.4, 3.0), draw, columns=("x",), rows=[(1.0,)]))


def darkness_at(visit: Visit, selector: str, side: str) -> float:
    """Return how far the outermost pixels of a box are from the ground, on average of 0 to 1."""
    element = visit.page.locator(selector).first
    element.scroll_into_view_if_needed()
    clip = visit.page.evaluate(EDGE, [element.element_handle(), side])
    grey = lightness(visit.page.screenshot(clip=clip))
    return float(np.abs(grey - np.median(lightness(visit.page.screenshot()))).mean())


@pytest.mark.parametrize(("n", "whole"), [(18, True), (41, True), (60, False)])
def test_up_to_forty_rows_are_seen_at_once(visitor: Visitor, tmp_path: Path, n: int, whole: bool):
    visit = visitor.open(page_of(tmp_path / "p.html", rows(n)))
    inside, outside = visit.page.evaluate(
        "(() => { const e = document.querySelector('.scroll'); return [e.scrollHeight, e.clientHeight] })()"
    )
    assert (inside <= outside) == whole
    visit.page.emulate_media(media="print")
    assert visit.page.evaluate("getComputedStyle(document.querySelector('.scroll')).maxHeight") == "none"


def test_a_longer_table_has_a_shadow_until_its_end_and_keeps_its_head(visitor: Visitor, tmp_path: Path):
    visit = visitor.open(page_of(tmp_path / "p.html", rows(60)))
    before = darkness_at(visit, ".scroll", "bottom")
    visit.page.evaluate("document.querySelector('.scroll').scrollTop = 1e6")
    assert before > 2 * darkness_at(visit, ".scroll", "bottom") + 0.02
    head, box = (visit.page.locator(s).first.bounding_box() for s in (".scroll thead th", ".scroll"))
    assert head["y"] == pytest.approx(box["y"], abs=2)


@pytest.mark.parametrize("visitor", PHONES, indirect=True)
def test_on_a_phone_names_stay_in_sight_and_an_edge_says_that_there_is_more(visitor: Visitor, tmp_path: Path):
    visit = visitor.open(page_of(tmp_path / "p.html", rows(12, columns=9)))
    name, box = visit.page.locator("tbody th").nth(3), visit.page.locator(".scroll")
    before, place = darkness_at(visit, ".scroll", "right"), name.bounding_box()["x"]
    visit.page.evaluate("document.querySelector('.scroll').scrollLeft = 1e6")
    assert name.bounding_box()["x"] == pytest.approx(place, abs=1)
    assert name.bounding_box()["width"] < 0.6 * box.bounding_box()["width"]
    assert before > darkness_at(visit, ".scroll", "right") + 0.02


@pytest.mark.parametrize("visitor", PHONES, indirect=True)
def test_on_a_phone_a_figure_is_large_enough_and_an_edge_says_that_it_scrolls(
    visitor: Visitor, tmp_path: Path
):
    visit = visitor.open(page_of(tmp_path / "p.html", wide_figure()))
    image, caption = visit.page.locator("figure img"), visit.page.locator("figcaption")
    figure_box = visit.page.locator("figure").bounding_box()
    assert image.bounding_box()["width"] == pytest.approx(640, abs=1)
    assert caption.bounding_box()["width"] <= figure_box["width"] + 1
    before, place = darkness_at(visit, "figure", "right"), caption.bounding_box()["x"]
    visit.page.evaluate("document.querySelector('figure').scrollLeft = 1e6")
    assert before > darkness_at(visit, "figure", "right") + 0.02
    assert caption.bounding_box()["x"] == pytest.approx(place, abs=1), "what stands under it stays"


@pytest.mark.parametrize("visitor", PHONES, indirect=True)
def test_on_a_phone_a_why_table_is_seen_whole(run: Path, visitor: Visitor):
    visit = visitor.open(run / "report.html")
    visit.page.locator("#docs summary").first.click()
    visit.page.locator("#docs .why table").wait_for()
    inside, outside = visit.page.evaluate(
        "(() => { const e = document.querySelector('#docs .why .scroll');"
        " return [e.scrollWidth, e.clientWidth] })()"
    )
    assert inside <= outside
