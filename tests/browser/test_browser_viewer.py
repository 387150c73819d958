"""The document viewer: every control has its effect, and a view can be shared by its address."""

import re
from urllib.parse import parse_qs

import pytest

from quadmix.io.atomic import read_table

PAGE = 20


@pytest.fixture
def samples(run):
    return read_table(run / "samples.parquet").to_pylist()


def previews(samples):
    return [s["text"][:160].strip() for s in samples]


def rank(sample):
    return (sample["rank_low"] + sample["rank_high"]) / 2


def check(visit, expected):
    """The page says how many samples match and lists the first of them in order."""
    assert visit.found().startswith(f"{len(expected)} of 120 samples match")
    assert visit.shown() == previews(expected[:PAGE])


def test_all_samples_are_there_at_first(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    check(visit, samples)
    assert visit.found().endswith("1 to 20 shown (page 1 of 6).")
    assert visit.fragment() == ""
    assert visit.harm() == []


@pytest.mark.parametrize("stratum", ["top", "dropped_high"])
def test_filter_by_stratum(run, samples, visitor, stratum):
    visit = visitor.open(run / "report.html")
    visit.page.select_option("#f-stratum", stratum)
    expected = [s for s in samples if s["stratum"] == stratum]
    assert 0 < len(expected) < len(samples)
    check(visit, expected)
    label = visit.page.locator("#f-stratum option:checked").inner_text()
    assert label == f"{stratum.replace('_', ' ')} ({len(expected)})"


def test_filter_by_domain(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    visit.page.select_option("#f-domain", "books")
    check(visit, [s for s in samples if s["domain"] == "books"])


@pytest.mark.parametrize("copies", ["0", "1", "2"])
def test_filter_by_copies(run, samples, visitor, copies):
    visit = visitor.open(run / "report.html")
    visit.page.select_option("#f-copies", copies)
    expected = [s for s in samples if min(s["copies"], 2) == int(copies)]
    assert expected
    check(visit, expected)


@pytest.mark.parametrize(
    ("by", "value"),
    [
        ("rank", rank),
        ("merged", lambda s: s["merged"]),
        ("expected", lambda s: s["expected"]),
        ("tokens", lambda s: s["tokens"]),
        ("score:edu", lambda s: -s["score:edu"]),  # stored with smaller = better, shown as delivered
    ],
)
def test_filter_by_a_range(run, samples, visitor, by, value):
    low, high = sorted(value(s) for s in samples)[30] + 1e-6, sorted(value(s) for s in samples)[70] + 1e-6
    visit = visitor.open(run / "report.html")
    visit.page.select_option("#f-by", by)
    visit.page.fill("#f-min", f"{low:.9f}")
    check(visit, [s for s in samples if value(s) >= low])
    visit.page.fill("#f-max", f"{high:.9f}")
    expected = [s for s in samples if low <= value(s) <= high]
    assert 0 < len(expected) < len(samples)
    check(visit, expected)
    visit.page.fill("#f-min", "")
    check(visit, [s for s in samples if value(s) <= high])


@pytest.mark.parametrize(
    ("sort", "value"), [("rank", rank), ("score:fluency", lambda s: -s["score:fluency"])]
)
def test_sort_in_both_orders(run, samples, visitor, sort, value):
    visit = visitor.open(run / "report.html")
    visit.page.select_option("#f-sort", sort)
    check(visit, sorted(samples, key=value))
    visit.page.select_option("#f-order", "down")
    check(visit, sorted(samples, key=lambda s: -value(s)))


def test_search_in_texts_and_ids(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    visit.page.fill("#f-text", "dOcUmEnT 1")
    check(visit, [s for s in samples if "document 1" in s["text"].lower()])
    visit.page.fill("#f-text", samples[7]["doc_id"])
    check(visit, [samples[7]])
    visit.page.fill("#f-text", "no such words")
    assert visit.found() == "0 of 120 samples match."
    assert visit.shown() == []
    assert visit.page.locator("#pager").is_hidden()


def test_filters_work_together_and_reset_takes_all_back(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    visit.page.select_option("#f-domain", "web")
    visit.page.select_option("#f-copies", "1")
    visit.page.select_option("#f-sort", "tokens")
    visit.page.fill("#f-max", "0.05")
    expected = [s for s in samples if s["domain"] == "web" and s["copies"] == 1 and rank(s) <= 0.05]
    check(visit, sorted(expected, key=lambda s: s["tokens"]))
    visit.page.click("#reset")
    check(visit, samples)
    assert visit.page.input_value("#f-max") == ""
    assert visit.fragment() == "#documents"


def test_pages_turn_and_take_the_reader_to_their_top(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    assert visit.page.locator("#before").is_disabled()
    visit.page.click("#after")
    assert visit.shown() == previews(samples[20:40])
    assert visit.found().endswith("21 to 40 shown (page 2 of 6).")
    assert visit.page.evaluate("document.activeElement === document.querySelector('#docs summary')")
    for _ in range(4):
        visit.page.click("#after")
    assert visit.page.locator("#after").is_disabled()
    visit.page.click("#before")
    assert visit.shown() == previews(samples[80:100])
    visit.page.select_option("#f-copies", "0")
    assert "page 1 of" in visit.found(), "a new filter starts at its first page"


def test_a_view_is_shared_by_its_address(run, visitor):
    first = visitor.open(run / "report.html")
    first.page.select_option("#f-sort", "score:edu")
    first.page.select_option("#f-order", "down")
    first.page.select_option("#f-by", "expected")
    first.page.fill("#f-min", "0.0001")
    first.page.fill("#f-text", "fox & chapter=1 #")
    first.page.fill("#f-text", "the quick")
    first.page.click("#after")
    fragment = first.fragment()
    assert parse_qs(fragment.split("?")[1]) == {
        "sort": ["score:edu"], "order": ["down"], "by": ["expected"], "min": ["0.0001"],
        "text": ["the quick"], "page": ["2"],
    }  # fmt: skip
    second = visitor.open(run / "report.html", fragment)
    assert second.shown() == first.shown()
    assert second.found() == first.found()
    assert second.page.input_value("#f-text") == "the quick"
    top = second.page.evaluate("document.getElementById('documents').getBoundingClientRect().top")
    assert -5 < top < 200, "the shared view is in sight"
    assert second.harm() == []


def test_an_address_typed_into_an_open_page_is_followed(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    visit.page.evaluate("location.hash = '#documents?domain=code'")
    visit.page.wait_for_function("document.getElementById('f-domain').value === 'code'")
    check(visit, [s for s in samples if s["domain"] == "code"])


@pytest.mark.parametrize(
    "fragment",
    ["#documents?domain=none&stratum=%00&page=-7&by=x&sort=y", "#documents?page=1e99&__proto__=1&copies=9",
     "#documents?", "#documents?%E0%A4%A", "#documents?page=Infinity"],
)  # fmt: skip
def test_a_broken_address_shows_all(run, samples, visitor, fragment):
    visit = visitor.open(run / "report.html", fragment)
    assert visit.found().startswith("120 of 120 samples match")
    assert len(visit.shown()) == PAGE
    assert visit.harm() == []


def test_every_card_of_a_page_opens_and_closes(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    for place, line in enumerate(visit.page.locator("#docs summary").all()):
        line.click()
        card = visit.page.locator("#docs details").nth(place)
        card.locator(".why").wait_for()
        assert card.locator(".text").inner_text().startswith(samples[place]["text"][:300].strip())
        words = card.locator(".why").inner_text()
        assert re.search(rf"Why {samples[place]['copies']} cop", words)
        assert f"id {samples[place]['doc_id']}" in words
        assert "do not lead" not in words
        line.click()
        assert card.locator(".why").is_hidden()
    assert visit.harm() == []
