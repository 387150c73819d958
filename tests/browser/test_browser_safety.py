"""A run folder full of attacks is shown as text: no script runs, nothing is asked for, nothing is hidden."""

import re
from importlib import resources
from urllib.parse import quote

import pytest
from browser.hostile import CORPUS, hostile_run

from quadmix.io.atomic import read_table
from quadmix.report import write_report
from quadmix.report.text import clean

HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)
OPEN = """() => {
  const cards = [...document.querySelectorAll('#docs details')];
  for (const card of cards) card.open = true;
  return cards.every((card) => card.querySelector('.why'));
}"""
DANGEROUS = "iframe,object,embed,form[action],base,link,video,math,[onerror],[onload],[onfocus],[ontoggle]"
MARKUP = ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "DOMParser",
          "srcdoc", "createContextualFragment", "setTimeout", "import(")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = hostile_run(tmp_path_factory.mktemp("hostile") / "run")
    write_report(folder)
    return folder


def test_the_attacks_would_work_on_a_page_that_is_not_careful(visitor, tmp_path):
    """The corpus bites and the watch sees it, or the tests below would prove nothing."""
    page = tmp_path / "careless.html"
    page.write_text("<!doctype html>" + "\n".join(CORPUS[3:6]), encoding="utf-8")
    visit = visitor.open(page)
    visit.page.wait_for_function("window.pwned")
    assert "script ran" in visit.harm()
    assert [u for u in visit.harm() if "evil.invalid" in u]


def pages(visit):
    """Open every card of every page of the viewer; yield at each page."""
    while True:
        visit.page.wait_for_function(OPEN)
        yield
        if visit.page.locator("#after").is_disabled():
            return
        visit.page.click("#after")


def test_nothing_runs_and_nothing_is_asked_for(folder, visitor):
    visit = visitor.open(folder / "report.html")
    visit.page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    samples = len(read_table(folder / "samples.parquet"))
    assert len(list(pages(visit))) == -(-samples // 20) >= 5
    for select in ("#f-stratum", "#f-domain", "#f-by", "#f-sort"):
        for option in visit.page.locator(f"{select} option").all():
            visit.page.select_option(select, option.get_attribute("value"))
    visit.page.click("#reset")
    visit.page.wait_for_timeout(300)
    assert visit.harm() == []
    kinds = visit.page.evaluate("[...document.scripts].map((s) => s.type)")
    assert [k for k in kinds if k != "application/json"] == [""]
    assert visit.page.locator(DANGEROUS).count() == 0
    assert "pwned" not in visit.page.title()


@pytest.mark.parametrize("attack", CORPUS)
def test_an_address_that_attacks_only_filters(folder, visitor, attack):
    names = ("text", "stratum", "domain", "by", "sort", "min", "page", "__proto__")
    fragment = "#documents?" + "&".join(f"{name}={quote(attack)}" for name in names)
    visit = visitor.open(folder / "report.html", fragment)
    assert visit.page.input_value("#f-text") == re.sub("[\r\n]", "", attack)
    assert " samples match" in visit.found()
    assert visit.harm() == []


def test_texts_are_shown_whole_and_hidden_marks_are_visible(folder, visitor):
    """Each text of the corpus stands on the page as text, its control and bidirectional marks spelt out."""
    visit = visitor.open(folder / "report.html")
    cards = [visit.page.evaluate("document.getElementById('docs').textContent") for _ in pages(visit)]
    seen = "".join(cards)
    for attack in CORPUS:
        assert clean(attack) in seen
    everything = seen + visit.page.evaluate("document.body.innerText") + visit.page.title()
    assert not HIDDEN.search(everything.replace("\n", ""))
    assert "⟨U+202E⟩" in everything
    assert "⟨U+001B⟩" in everything


def test_a_pretended_direction_does_not_reach_the_neighbours(folder, visitor):
    """Right-to-left text is turned round within its own box only."""
    visit = visitor.open(folder / "report.html")
    spans = "[...document.querySelectorAll('#docs summary span')]"
    ways = visit.page.evaluate(f"{spans}.map((s) => getComputedStyle(s).unicodeBidi)")
    assert set(ways) == {"isolate"}


def test_figures_are_inert_also_when_opened_alone(folder, visitor):
    files = sorted((folder / "figures").glob("*.svg"))
    assert len(files) > 8
    for file in files:
        visit = visitor.open(file)
        assert visit.harm() == [], file.name
        visit.page.close()


@pytest.mark.parametrize("name", ["why.js", "page.js", "diff.js", "watch.js"])
def test_the_script_never_writes_markup(name):
    """Every script of the package, checked for types by its own comments."""
    scripts = resources.files("quadmix.report")
    assert {f.name for f in scripts.iterdir() if f.name.endswith(".js")} == {
        "why.js", "page.js", "diff.js", "watch.js",
    }  # fmt: skip
    script = scripts.joinpath(name).read_text("utf-8")
    assert script.startswith("// @ts-check\n")
    assert [way for way in MARKUP if way in script] == []
    assert "textContent" in script
