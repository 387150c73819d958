"""The page is whole, safe and the same every time."""

import base64
import csv
import hashlib
import html
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_fixture import ATTACK, CRITERIA, NASTY_DOMAINS, make_run

from quadmix.report import write_report
from quadmix.report.documents import why
from quadmix.report.text import clean, csv_text, esc, json_block

FIGURES = {
    "comparison", "domain-tokens", "sampling-curves", "criterion-histograms", "merge-weights",
    "criterion-agreement", "surrogate-parity", "swarm-losses", "proxy-curves", "confirmation",
    "search-progress", "learning-curve", "effects", "candidate-shares",
}  # fmt: skip
ANCHORS = [
    "verdict", "baselines", "domains", "sampling", "criteria", "weights", "search", "surrogate", "drivers",
    "swarm", "documents", "run",
]  # fmt: skip


class Page(HTMLParser):
    """Collects tags, attributes and the contents of script and style as a browser would see them."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.raw, self.inside = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.raw.append((tag, dict(attrs), []))
            self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None if tag == self.inside else self.inside

    def handle_data(self, data):
        if self.inside:
            self.raw[-1][2].append(data)

    def blocks(self, tag, kind=None):
        return ["".join(body) for t, a, body in self.raw if t == tag and a.get("type") == kind]


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("nasty") / "run", documents=600, nasty=True)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(nasty):
    return (nasty / "report.html").read_text(encoding="utf-8")


def test_the_policy_allows_exactly_the_script_and_the_style_of_the_page(page):
    """The CSP has the true hashes and nothing unsafe; no inline style, handler or outside address."""
    parsed = Page(page)
    policy = next(a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        (body,) = parsed.blocks(kind)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    for tag, attributes in parsed.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        assert not attributes.get("src", "data:").startswith("http")
        assert re.match(r"^(#|figures/)", attributes.get("href", "#"))


def test_hostile_text_and_names_never_appear_raw(nasty, page):
    """Script ends, handlers, escapes and bidirectional marks are inert everywhere."""
    everything = [page] + [p.read_text("utf-8") for p in nasty.glob("figures/*.[sc][vs][gv]")]
    everything.append((nasty / "report.json").read_text("utf-8"))
    for text in everything:
        assert not re.search("[\x00\x1b\u202e]", text)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    parsed = Page(page)
    assert sum(tag == "script" for tag, _ in parsed.tags) == 2
    assert all(
        a["src"].startswith("data:image/svg+xml;base64,") and a["alt"] for t, a in parsed.tags if t == "img"
    )


def test_the_viewer_gets_every_document_with_its_text(page):
    """The data block parses back to the (cleaned) text, so nothing was lost by escaping."""
    (block,) = Page(page).blocks("script", "application/json")
    assert not set("<>&") & set(block)
    data = json.loads(block)
    assert len(data["docs"]) > 60
    cleaned = ATTACK.replace("\x1b", "⟨U+001B⟩").replace("\u202e", "⟨U+202E⟩").replace("\x00", "⟨U+0000⟩")
    assert {d["text"] for d in data["docs"]} == {cleaned}
    assert [c["name"] for c in data["criteria"]] == list(CRITERIA)


def test_figures_are_sound_xml_with_png_and_csv_beside_them(nasty):
    facts = json.loads((nasty / "report.json").read_text("utf-8"))
    assert set(facts["figures"]) == FIGURES
    for name in FIGURES:
        root = ElementTree.parse(nasty / f"figures/{name}.svg").getroot()
        assert not [e for e in root.iter() if e.tag.endswith("}script")]
        assert (nasty / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len((nasty / f"figures/{name}.csv").read_text("utf-8").splitlines()) > 1


def test_no_label_shows_the_markup_of_formulas(nasty):
    for file in (nasty / "figures").glob("*.svg"):
        assert "mathdefault" not in file.read_text(encoding="utf-8"), file.name


def test_no_csv_cell_is_a_formula(nasty):
    """Text cells that spreadsheets would run start with an apostrophe; numbers stay numbers."""
    with (nasty / "figures/domain-tokens.csv").open(encoding="utf-8", newline="") as file:
        names = [row["domain"] for row in csv.DictReader(file)]
    assert "'" + NASTY_DOMAINS[1] in names
    assert "'-1+1" in names
    assert not [n for n in names if n[0] in "=+-@"]


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_text_survives_escaping_without_markup(text):
    assert not set("<>\"'") & set(esc(text))
    assert html.unescape(esc(text)) == clean(text)
    inside = json_block("d", [text]).removeprefix('<script type="application/json" id="d">')
    inside = inside.removesuffix("</script>")
    assert not set("<>&") & set(inside)
    assert isinstance(json.loads(inside)[0], str)
    cell = next(csv.reader(io.StringIO(csv_text(["c"], [["x" + text, text]]).removeprefix("c\n"))))[1]
    assert cell.lstrip()[:1] not in set("=+-@") or not cell


def test_every_navigation_link_has_its_heading_and_every_figure_its_table(page):
    parsed = Page(page)
    ids = {a["id"] for _, a in parsed.tags if "id" in a}
    assert [a["href"][1:] for t, a in parsed.tags if t == "a" and a["href"][0] == "#"][1:] == ANCHORS
    assert set(ANCHORS) <= ids
    figures = page.split("<figure>")[1:]
    assert len(figures) == len(FIGURES)
    assert all("<table>" in f.split("</figure>")[0] for f in figures)
    assert page.index("<h1>") < page.index("<h2")


def test_the_same_files_give_the_same_bytes(nasty, page):
    before = {p.name: p.read_bytes() for p in nasty.glob("figures/*")}
    write_report(nasty)
    assert (nasty / "report.html").read_text("utf-8") == page
    assert {p.name: p.read_bytes() for p in nasty.glob("figures/*")} == before


def test_an_empty_run_folder_gives_a_page_that_says_not_run(tmp_path):
    text = write_report(tmp_path).read_text("utf-8")
    assert text.count("Not run:") >= 9
    assert not list(tmp_path.glob("figures/*"))


def test_a_page_of_huge_documents_stays_below_the_limit(tmp_path):
    folder = make_run(tmp_path / "r", documents=300, text="&" * 400_000)
    assert write_report(folder).stat().st_size < 15_000_000


SAMPLE = {"rank_low": 0.03, "rank_high": 0.032, "expected": 1.21, "copies": 2, "domain": "web", "merged": 0.2}


def test_the_reason_is_told_in_words():
    text = " ".join(why(SAMPLE, cut=0.084, floor=0.0005))
    assert (
        "Rank 0.0310 is inside the window 0..0.0840 of domain web → expected 1.21 copies → drawn 2." in text
    )
    assert "1 certain, one more had a chance of 21 % and came" in text


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.2, 0.3, "is outside the window 0..0.0840 of domain web, where only the floor ε = 0.0005 remains"),
        (0.08, 0.09, "lies across the edge of the window"),
        (None, None, "It has no rank"),
    ],
)
def test_every_place_of_a_rank_has_its_words(low, high, words):
    sample = {**SAMPLE, "rank_low": low, "rank_high": high, "copies": 0, "expected": 0.0005}
    assert words in " ".join(why(sample, cut=0.084, floor=0.0005))
