"""The page of a run at work: it loads itself again when that disturbs nobody, and all is where it was."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from browser.checks import KINDS, figures_fit_the_scheme, violations, walk
from browser.conftest import Visit, Visitor

from quadmix.report.watch import banner, dress

LATER = 120_000  # milliseconds


@pytest.fixture
def renew(run: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return what writes the page of a run at work, as the watch does."""
    plain = (run / "report.html").read_text(encoding="utf-8")

    def write(words: str, *, wait: float = 30.0, age: float = 0.0) -> Path:
        page = tmp_path / "report.html"
        box = banner(words, wait, datetime.now(UTC) - timedelta(seconds=age))
        page.write_text(dress(plain, box), encoding="utf-8")
        return page

    return write


def open_at_leisure(visitor: Visitor, page: Path) -> Visit:
    """Open the page with a clock that the test alone turns."""
    visit = visitor.open(Path("/dev/null"))
    visit.page.clock.install()
    visit.file = page
    visit.requests.clear()
    visit.page.goto(page.as_uri())
    visit.page.clock.pause_at(datetime.now(UTC) + timedelta(seconds=10))
    return visit


def newer(visit: Visit) -> bool:
    """Turn the clock, and return whether the page has loaded itself again."""
    before = loads(visit)
    visit.page.clock.run_for(LATER)
    visit.page.wait_for_timeout(1000)
    visit.page.wait_for_load_state()
    return loads(visit) > before


def loads(visit: Visit) -> int:
    """Return how often the page was asked for."""
    return sum(url.split("#")[0] == visit.file.as_uri() for url in visit.requests)


def test_a_newer_page_is_loaded_with_all_in_its_place(visitor: Visitor, renew: Callable[..., Path]):
    """Open folds and cards, filters, the place and the focus are as before."""
    visit = open_at_leisure(visitor, renew("at work: swarm"))
    page = visit.page
    page.select_option("#f-sort", "rank")
    page.locator("#docs summary").nth(2).click()
    page.locator("#docs .why").first.wait_for()
    fold = page.locator("#search details > summary").first
    fold.click()
    opened = page.evaluate("[...document.querySelectorAll('details')].map((d) => d.open)")
    assert sum(opened) == 2
    before = fold.bounding_box()
    shown, address = visit.shown(), visit.fragment()
    renew("at work: evaluate")
    assert newer(visit)
    page.locator("#docs .why").first.wait_for()
    assert "At work: evaluate." in page.inner_text("#watch")
    assert page.evaluate("[...document.querySelectorAll('details')].map((d) => d.open)") == opened
    assert (visit.shown(), visit.fragment()) == (shown, address)
    assert page.input_value("#f-sort") == "rank"
    page.wait_for_function("document.readyState === 'complete'")
    assert abs(fold.bounding_box()["y"] - before["y"]) < 3
    assert fold.evaluate("(e) => e === document.activeElement")
    assert visit.harm() == []


def test_not_before_a_newer_page_can_be_there(visitor: Visitor, renew: Callable[..., Path]):
    visit = open_at_leisure(visitor, renew("at work", wait=LATER / 1000 + 60))
    assert not newer(visit)
    assert newer(visit)


@pytest.mark.parametrize(
    ("act", "end"),
    [
        (
            "getSelection().selectAllChildren(document.querySelector('h1'))",
            "getSelection().removeAllRanges()",
        ),
        (
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true})",
            "Object.defineProperty(document, 'hidden', {value: false})",
        ),
    ],
    ids=["text is selected", "it is in the background"],
)
def test_nobody_is_disturbed(
    visitor: Visitor, renew: Callable[..., Path], act: str, end: str, request: pytest.FixtureRequest
):
    visit = open_at_leisure(visitor, renew("at work"))
    visit.page.evaluate(act)
    assert not newer(visit)
    reason = request.node.callspec.id
    assert f"not loaded while {reason}" in visit.page.inner_text("#watch-said")
    visit.page.evaluate(end)
    assert newer(visit)


def test_who_types_or_reads_is_left_alone(visitor: Visitor, renew: Callable[..., Path]):
    visit = open_at_leisure(visitor, renew("at work", wait=20))
    for _ in range(10):  # a key now and then, for 40 s in all
        visit.page.locator("#f-text").press("x")
        visit.page.clock.run_for(4000)
    assert visit.page.input_value("#f-text") == "x" * 10
    visit.page.locator("#f-text").blur()
    for _ in range(10):
        visit.page.keyboard.press("PageDown")
        visit.page.clock.run_for(4000)
    assert loads(visit) == 1
    assert newer(visit)


def test_the_button_loads_it_at_once(visitor: Visitor, renew: Callable[..., Path]):
    visit = visitor.open(renew("at work: swarm", wait=600))
    visit.page.locator("#search details > summary").first.click()
    renew("at work: evaluate", wait=600)
    visit.page.locator("#reload").scroll_into_view_if_needed()
    visit.page.click("#reload")
    visit.page.locator("#watch", has_text="At work: evaluate").wait_for()
    assert visit.page.locator("#search details").first.get_attribute("open") is not None
    assert visit.harm() == []


def test_a_browser_that_keeps_nothing_still_loads_it(visitor: Visitor, renew: Callable[..., Path]):
    visit = visitor.open(renew("at work: swarm", wait=600))
    visit.page.evaluate(
        "() => { history.replaceState = () => { throw new DOMException('no', 'SecurityError') } }"
    )
    renew("at work: evaluate", wait=600)
    visit.page.click("#reload")
    visit.page.locator("#watch", has_text="At work: evaluate").wait_for()
    assert visit.harm() == []


def test_a_page_that_nobody_renews_says_so(visitor: Visitor, renew: Callable[..., Path]):
    visit = visitor.open(renew("at work", wait=5, age=720))
    assert "No newer page for 12 minutes" in visit.page.inner_text("#watch-said")
    assert " UTC" in visit.page.inner_text("#watch time")


@pytest.mark.parametrize("visitor", KINDS, indirect=True)
def test_axe_finds_no_serious_violation(visitor: Visitor, renew: Callable[..., Path]):
    visit = visitor.open(renew("at work: swarm, 12 of 40 models", wait=600))
    assert violations(visit) == []
    assert visit.page.locator("meta[http-equiv=refresh]").count() == 0


def test_the_keyboard_reaches_the_button(visitor: Visitor, renew: Callable[..., Path]):
    seen = walk(visitor.open(renew("at work", wait=600)))
    assert next(s["id"] for s in seen if s["id"]) == "reload"


@pytest.mark.parametrize("visitor", [KINDS[1]], indirect=True)
def test_figures_follow_the_colour_scheme(visitor: Visitor, renew: Callable[..., Path]):
    figures_fit_the_scheme(visitor.open(renew("at work", wait=600)))
