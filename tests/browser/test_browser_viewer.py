"""The document viewer: every control has its effect, and a view can be shared by its address.

Of any run folder with samples: what is filtered by is taken from them, and expected values are counted in
samples.parquet. Where a folder has nothing to tell apart (one domain, say), the test of that is skipped.
"""

import re
from urllib.parse import parse_qs

import pytest

from quadmix.io.atomic import read_json, read_table
from quadmix.report.text import clean

PAGE = 20


@pytest.fixture
def samples(run):
    return read_table(run / "samples.parquet").to_pylist()


@pytest.fixture
def criteria(run):
    """Return the names of the criteria with the sign that turns a stored score into the delivered one."""
    declared = read_json(run / "selection/manifest.json")["info"]["criteria"]
    return {c["name"]: -1 if c["declared"] == "higher" else 1 for c in declared}


def beginning(sample):
    """Return what a row shows of a document: 160 UTF-16 units of the text, hidden marks spelt out."""
    units = clean(sample["text"]).encode("utf-16-le")[:320]
    return re.sub(r"\s+", " ", units.decode("utf-16-le", "replace")).strip()


def previews(samples):
    return [beginning(s) for s in samples]


def rank(sample):
    return (sample["rank_low"] + sample["rank_high"]) / 2


def value_of(measure, criteria):
    """Return the function that gives a sample's number, by the name that the page has for it."""
    if measure.startswith("score:"):
        return lambda s: s[measure] if s[measure] is None else criteria[measure[6:]] * s[measure]
    return rank if measure == "rank" else lambda s: s[measure]


def rarest(samples, name):
    """Return the value of a column that the fewest samples have."""
    values = [s[name] for s in samples]
    found = min(set(values), key=lambda v: (values.count(v), str(v)))
    if values.count(found) == len(values):
        pytest.skip(f"all samples of this run have the same {name}")
    return found


def check(visit, expected, samples):
    """The page says how many samples match and lists the first of them in order."""
    assert visit.found().startswith(f"{len(expected):,} of {len(samples):,} samples match")
    assert visit.shown() == previews(expected[:PAGE])


def test_all_samples_are_there_at_first(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    check(visit, samples, samples)
    last, pages = min(PAGE, len(samples)), -(-len(samples) // PAGE)
    assert visit.found().endswith(f"1 to {last} shown (page 1 of {pages}).")
    assert visit.fragment() == ""
    assert visit.harm() == []


@pytest.mark.parametrize("name", ["stratum", "domain"])
def test_filter_by_stratum_and_domain(run, samples, visitor, name):
    wanted = rarest(samples, name)
    visit = visitor.open(run / "report.html")
    visit.page.select_option(f"#f-{name}", wanted)
    expected = [s for s in samples if s[name] == wanted]
    check(visit, expected, samples)
    label = visit.page.locator(f"#f-{name} option:checked").inner_text()
    assert label == f"{wanted.replace('_', ' ')} ({len(expected)})"


@pytest.mark.parametrize("copies", ["0", "1", "2"])
def test_filter_by_copies(run, samples, visitor, copies):
    visit = visitor.open(run / "report.html")
    visit.page.select_option("#f-copies", copies)
    check(visit, [s for s in samples if min(s["copies"], 2) == int(copies)], samples)


MEASURES = ("rank", "merged", "expected", "tokens", "score")  # score: of the first criterion


def measure_of(kind, criteria):
    return f"score:{next(iter(criteria))}" if kind == "score" else kind


@pytest.mark.parametrize("kind", MEASURES)
def test_filter_by_a_range(run, samples, criteria, visitor, kind):
    by = measure_of(kind, criteria)
    value = value_of(by, criteria)
    known = sorted(value(s) for s in samples if value(s) is not None)
    low, high = known[len(known) // 4], known[(3 * len(known)) // 5]
    if not known[0] < low < high < known[-1]:
        pytest.skip(f"the samples of this run hardly differ in {by}")
    low, high = (known[known.index(v) - 1] / 2 + v / 2 for v in (low, high))  # between two of them
    visit = visitor.open(run / "report.html")
    visit.page.select_option("#f-by", by)
    visit.page.fill("#f-min", repr(low))
    at_least = [s for s in samples if value(s) is not None and value(s) >= low]
    check(visit, at_least, samples)
    visit.page.fill("#f-max", repr(high))
    expected = [s for s in at_least if value(s) <= high]
    assert 0 < len(expected) < len(samples)
    check(visit, expected, samples)
    visit.page.fill("#f-min", "")
    check(visit, [s for s in samples if value(s) is not None and value(s) <= high], samples)


@pytest.mark.parametrize("kind", MEASURES)
def test_sort_in_both_orders(run, samples, criteria, visitor, kind):
    """Documents without the number stand last in both orders."""
    sort = measure_of(kind, criteria)
    value = value_of(sort, criteria)
    known = [s for s in samples if value(s) is not None]
    rest = [s for s in samples if value(s) is None]
    visit = visitor.open(run / "report.html")
    visit.page.select_option("#f-sort", sort)
    check(visit, [*sorted(known, key=value), *rest], samples)
    visit.page.select_option("#f-order", "down")
    check(visit, [*sorted(known, key=lambda s: -value(s)), *rest], samples)


def number(text):
    return float(text.replace("\u2212", "-"))


@pytest.mark.parametrize("kind", MEASURES)
def test_rows_show_the_number_they_are_sorted_by(run, samples, criteria, visitor, kind):
    sort = measure_of(kind, criteria)
    value = value_of(sort, criteria)
    visit = visitor.open(run / "report.html")
    assert visit.page.locator("#docs .measure").count() == 0
    visit.page.select_option("#f-sort", sort)
    shown = [text.rpartition(" ") for text in visit.page.locator("#docs .measure").all_inner_texts()]
    names = {"merged": "merged score", "expected": "expected copies"}
    assert {name for name, _, _ in shown} == {names.get(kind, sort.removeprefix("score:"))}
    wanted = sorted(value(s) for s in samples if value(s) is not None)[: len(shown)]
    assert [number(text) for _, _, text in shown] == pytest.approx(wanted, rel=1e-3, abs=1e-12)


def test_rows_show_the_number_they_are_filtered_by(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    visit.page.fill("#f-max", "0.5")
    assert all(re.fullmatch(r"rank 0\S*", t) for t in visit.page.locator("#docs .measure").all_inner_texts())
    visit.page.select_option("#f-sort", "tokens")
    both = visit.page.locator("#docs .measure").first.inner_text()
    assert re.fullmatch(r"tokens \d+ · rank 0\S*", both)
    visit.page.click("#reset")
    assert visit.page.locator("#docs .measure").count() == 0


def test_search_in_texts_and_ids(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    words = " ".join(clean(samples[0]["text"]).split()[:2])
    visit.page.fill("#f-text", words.upper())
    wanted = words.lower()
    expected = [s for s in samples if wanted in f"{s['doc_id']}\n{clean(s['text'])}".lower()]
    assert expected
    check(visit, expected, samples)
    visit.page.fill("#f-text", samples[7]["doc_id"])
    check(visit, [s for s in samples if s["doc_id"] == samples[7]["doc_id"]], samples)
    visit.page.fill("#f-text", "no such words ⊗")
    assert visit.found() == f"0 of {len(samples):,} samples match."
    assert visit.shown() == []
    assert visit.page.locator("#pager").is_hidden()


def test_filters_work_together_and_reset_takes_all_back(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    chosen = next(s for s in samples if s["copies"] == 1)
    visit.page.select_option("#f-domain", chosen["domain"])
    visit.page.select_option("#f-copies", "1")
    visit.page.select_option("#f-sort", "tokens")
    visit.page.fill("#f-max", repr(rank(chosen)))
    expected = [
        s for s in samples if s["domain"] == chosen["domain"] and s["copies"] == 1 and rank(s) <= rank(chosen)
    ]
    check(visit, sorted(expected, key=lambda s: s["tokens"]), samples)
    visit.page.click("#reset")
    check(visit, samples, samples)
    assert visit.page.input_value("#f-max") == ""
    assert visit.fragment() == "#documents"


def test_pages_turn_and_take_the_reader_to_their_top(run, samples, visitor):
    pages = -(-len(samples) // PAGE)
    if pages < 3:
        pytest.skip("this run has two pages of samples at most")
    visit = visitor.open(run / "report.html")
    assert visit.page.locator("#before").is_disabled()
    visit.page.click("#after")
    assert visit.shown() == previews(samples[PAGE : 2 * PAGE])
    assert visit.found().endswith(f"21 to 40 shown (page 2 of {pages}).")
    assert visit.page.evaluate("document.activeElement === document.querySelector('#docs summary')")
    for _ in range(pages - 2):
        visit.page.click("#after")
    assert visit.page.locator("#after").is_disabled()
    visit.page.click("#before")
    assert visit.shown() == previews(samples[(pages - 2) * PAGE : (pages - 1) * PAGE])
    visit.page.select_option("#f-copies", "0")
    assert "page 1 of" in visit.found(), "a new filter starts at its first page"


def test_a_view_is_shared_by_its_address(run, samples, criteria, visitor):
    if len(samples) <= PAGE:
        pytest.skip("this run has one page of samples")
    sort, letter = measure_of("score", criteria), min(clean(samples[0]["text"]).split()[0].lower())
    first = visitor.open(run / "report.html")
    first.page.select_option("#f-sort", sort)
    first.page.select_option("#f-order", "down")
    first.page.select_option("#f-by", "expected")
    first.page.fill("#f-min", "0")
    first.page.fill("#f-text", "fox & chapter=1 #")
    first.page.fill("#f-text", letter)
    first.page.click("#after")
    fragment = first.fragment()
    assert parse_qs(fragment.split("?")[1]) == {
        "sort": [sort], "order": ["down"], "by": ["expected"], "min": ["0"], "text": [letter], "page": ["2"],
    }  # fmt: skip
    second = visitor.open(run / "report.html", fragment)
    assert second.shown() == first.shown()
    assert second.found() == first.found()
    assert second.page.input_value("#f-text") == letter
    top = second.page.evaluate("document.getElementById('documents').getBoundingClientRect().top")
    assert -5 < top < 200, "the shared view is in sight"
    assert second.harm() == []


def test_an_address_typed_into_an_open_page_is_followed(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    domain = samples[-1]["domain"]
    visit.page.evaluate(
        "(domain) => { location.hash = '#documents?' + new URLSearchParams({domain}) }", domain
    )
    visit.page.wait_for_function(
        "(domain) => document.getElementById('f-domain').value === domain", arg=domain
    )
    check(visit, [s for s in samples if s["domain"] == domain], samples)


@pytest.mark.parametrize(
    "fragment",
    ["#documents?domain=none&stratum=%00&page=-7&by=x&sort=y", "#documents?page=1e99&__proto__=1&copies=9",
     "#documents?", "#documents?%E0%A4%A", "#documents?page=Infinity"],
)  # fmt: skip
def test_a_broken_address_shows_all(run, samples, visitor, fragment):
    visit = visitor.open(run / "report.html", fragment)
    assert visit.found().startswith(f"{len(samples):,} of {len(samples):,} samples match")
    assert len(visit.shown()) == min(PAGE, len(samples))
    assert visit.harm() == []


def test_every_card_of_a_page_opens_and_closes(run, samples, visitor):
    visit = visitor.open(run / "report.html")
    for place, line in enumerate(visit.page.locator("#docs summary").all()):
        line.click()
        card = visit.page.locator("#docs details").nth(place)
        card.locator(".why").wait_for()
        begins = card.locator(".text").inner_text().split()[:20]
        assert begins == clean(samples[place]["text"]).split()[:20]
        words = card.locator(".why").inner_text()
        assert re.search(rf"Why {samples[place]['copies']} cop", words)
        assert f"id {clean(samples[place]['doc_id'])}" in words
        assert "do not lead" not in words
        line.click()
        assert card.locator(".why").is_hidden()
    assert visit.harm() == []
