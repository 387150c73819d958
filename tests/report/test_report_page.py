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

import pyarrow as pa
import pytest
from facts_fixture import add_facts
from hypothesis import given, settings
from hypothesis import strategies as st
from report_fixture import ATTACK, CRITERIA, NASTY_DOMAINS, RECIPE, make_run

from quadmix.io.atomic import read_table, write_json, write_table, write_text
from quadmix.recipe import check_recipe, dump_recipe
from quadmix.report import documents, write_report
from quadmix.report.text import clean, csv_text, esc, json_block

FIGURES = {"best-trials", "interactions", 
    "comparison", "domain-tokens", "sampling-curves", "criterion-histograms", "merge-weights",
    "criterion-agreement", "criteria-by-domain", "surrogate-parity", "swarm-losses", "proxy-curves",
    "confirmation",
    "search-progress", "learning-curve", "effects", "candidate-shares", "source-shares", "repeated-tokens",
    "language-shares", "language-scores", "timeline",
}  # fmt: skip
ANCHORS = [
    "verdict", "baselines", "domains", "sampling", "criteria", "weights", "sources", "languages", "documents",
    "search", "surrogate", "drivers", "swarm", "health", "run",
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
    add_facts(folder, nasty=True)
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
        assert re.match(r"^(#|[a-z][a-z/._-]*$|figures/)", attributes.get("href", "#"))


def test_hostile_text_and_names_never_appear_raw(nasty, page):
    """Script ends, handlers, escapes and bidirectional marks are inert everywhere."""
    everything = [page] + [p.read_text("utf-8") for p in nasty.glob("figures/*.[sc][vs][gv]")]
    everything.append((nasty / "report.json").read_text("utf-8"))
    for text in everything:
        assert not re.search("[\x00\x1b\u202e]", text)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    parsed = Page(page)
    assert len(parsed.blocks("script")) == 1
    assert all(
        a["src"].startswith("data:image/svg+xml;base64,") and a["alt"] for t, a in parsed.tags if t == "img"
    )


def viewer_data(text):
    """Return the viewer's numbers and the texts of all documents, as its script would read them."""
    blocks = Page(text).blocks("script", "application/json")
    assert not [b for b in blocks if set("<>&") & set(b)]
    *texts, numbers = (json.loads(b) for b in blocks)
    return numbers, [t for block in texts for t in block]


def test_the_viewer_gets_every_document_with_its_text(nasty, page):
    """The data blocks parse back to the rows of samples.parquet, so nothing was lost by escaping."""
    numbers, texts = viewer_data(page)
    samples = read_table(nasty / "samples.parquet").to_pylist()
    docs = numbers["docs"]
    cleaned = ATTACK.replace("\x1b", "⟨U+001B⟩").replace("\u202e", "⟨U+202E⟩").replace("\x00", "⟨U+0000⟩")
    assert texts == [cleaned] * len(samples)
    assert [c["name"] for c in numbers["criteria"]] == list(CRITERIA)
    for i, sample in enumerate(samples):
        assert docs["id"][i] == sample["doc_id"].replace(ATTACK, cleaned)
        assert numbers["domains"][docs["domain"][i]] == clean(sample["domain"])
        assert numbers["strata"][docs["stratum"][i]] == sample["stratum"]
        for name, column in (("low", "rank_low"), ("uniform", "uniform"), ("copies", "copies")):
            assert docs[name][i] == sample[column]
        assert numbers["scores"][1][i] == pytest.approx(-sample["score:fluency"], rel=1e-6)


def test_texts_are_parsed_in_blocks(page, monkeypatch, tmp_path):
    monkeypatch.setattr(documents, "CHUNK", 7)
    folder = make_run(tmp_path / "r", documents=600)
    numbers, texts = viewer_data(write_report(folder).read_text("utf-8"))
    assert numbers["chunk"] == 7
    assert texts == [s["text"] for s in read_table(folder / "samples.parquet").to_pylist()]


def test_redacted_pages_have_no_text_but_all_numbers(tmp_path):
    folder = make_run(tmp_path / "r", documents=600, text="secret words of a document")
    whole = write_report(folder).read_text("utf-8")
    numbers, _ = viewer_data(whole)
    page = write_report(folder, redact=True).read_text("utf-8")
    redacted, texts = viewer_data(page)
    assert "secret words" in whole
    assert not [
        p for p in folder.rglob("*.*") if p.suffix != ".parquet" and b"secret words" in p.read_bytes()
    ]
    assert texts == []
    assert "The texts were left out of this page on request" in page
    assert redacted == {**numbers, "redacted": True}
    assert json.loads((folder / "report.json").read_text("utf-8"))["samples"] == {
        "documents": len(redacted["docs"]["id"]),
        "redacted": True,
    }


def test_the_recipe_can_ask_for_redacted_pages(tmp_path):
    folder = make_run(tmp_path / "r", documents=600, text="secret words of a document")
    recipe = check_recipe({**RECIPE, "report": {"redact_samples": True}})
    write_text(folder / "recipe.resolved.yaml", dump_recipe(recipe))
    assert "secret words" not in write_report(folder).read_text("utf-8")
    assert "secret words" in write_report(folder, redact=False).read_text("utf-8")


def test_the_page_says_of_what_the_samples_are(tmp_path):
    """How many, of how many, which kinds by chance, from what seed: read from files that are changed here."""
    folder = make_run(tmp_path / "r", documents=600)
    samples = read_table(folder / "samples.parquet")
    write_table(folder / "samples.parquet", pa.concat_tables([samples.slice(0, 31), samples.slice(0, 2)]))
    manifest = json.loads((folder / "dataset/manifest.json").read_text("utf-8"))
    write_json(folder / "dataset/manifest.json", {**manifest, "seed": 4711})
    page = write_report(folder).read_text("utf-8")
    assert "33 samples (31 different ones) of 600 selectable documents, chosen by rule, not by hand" in page
    said = page[page.index("chosen by rule") :][:500]
    kept = samples["stratum"].to_pylist()[:31]
    assert "At random, by a hash of their ids and the seed 4711: kept" in said
    assert "The extremes of what they are named for (ties by the hash): top, borderline" in said
    assert ("dropped" in kept) == ("kept, dropped." in said)
    assert "shows its best document" not in said
    assert "top (best rank, 12)" in page


def test_samples_of_an_earlier_version_have_no_draw(tmp_path):
    folder = make_run(tmp_path / "r", documents=600)
    samples = read_table(folder / "samples.parquet").drop_columns(["uniform", "factor"])
    write_table(folder / "samples.parquet", samples)
    numbers, _ = viewer_data(write_report(folder).read_text("utf-8"))
    assert set(numbers["docs"]["uniform"]) == {None}


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
    assert [a["href"][1:] for t, a in parsed.tags if t == "a" and a["href"][0] == "#"][1:] == [
        *ANCHORS,
        "warnings",
    ]
    assert {*ANCHORS, "warnings"} <= ids
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
    """Every & takes six bytes; what is cut off is counted."""
    folder = make_run(tmp_path / "r", documents=300, text="&" * 5_000)
    samples = read_table(folder / "samples.parquet")
    write_table(folder / "samples.parquet", pa.concat_tables([samples] * 80))
    page = write_report(folder)
    assert page.stat().st_size < 15_000_000
    numbers, texts = viewer_data(page.read_text("utf-8"))
    assert len(texts) == 80 * len(samples) > 5000
    assert {len(t) for t in texts} == {5_000 - numbers["docs"]["more"][0]}
    assert 50 < len(texts[0]) < 4000
