"""The page of two selections: every number is one of the diff, nothing is markup, the sample is stated."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from report.test_report_origins import QUOTED, Node, Tree, footnotes

from quadmix.report.diff_cards import Curves
from quadmix.report.diff_page import Sides, render_diff, write_diff
from quadmix.types.diffing import (
    Card,
    CardScore,
    Diff,
    DiffDocument,
    DomainMove,
    Flow,
    ScoreShift,
    SettingChange,
    ThetaChange,
)

ATTACK = "</script><script>window.pwned=1</script><img src=x onerror=alert(1)>\u202e"
NAN = float("nan")
CURVE = {"weights": [0.75], "steepness": 40.0, "cutoff": 0.1, "exponent": 0.5, "floor": 0.001, "scale": 1.5}
THETA = Curves(criteria=("edu",), rows={"web": CURVE}, file="theta.json")
SIDES = Sides(names=("one", "two"), places=("../one", "../two"), curves=(THETA, Curves()))
CARD = Card(
    state="kept", domain="web", tokens=321,
    scores=(
        CardScore(name="edu", declared="higher", delivered=3.25, normalised=0.125, weight=0.75, used=0.75),
    ),
    merged=0.1875, rank_low=0.0625, rank_high=0.0875, cutoff=0.1, floor=0.001, expected=1.25, uniform=0.1125,
    fraction=0.25, factor=0.9, copies=2,
)  # fmt: skip
DROPPED = replace(
    CARD,
    state="not drawn",
    rank_low=0.4,
    rank_high=0.5,
    expected=0.001,
    fraction=0.001,
    uniform=0.7,
    copies=0,
)
OUT = replace(
    CARD,
    state="excluded",
    excluded="held_out",
    copies=0,
    merged=NAN,
    rank_low=NAN,
    rank_high=NAN,
    expected=NAN,
)


def make_diff(**changes: object) -> Diff:
    documents = (
        DiffDocument(doc_id="d-1", only="A", a=CARD, b=DROPPED, text="The first text", characters=20),
        DiffDocument(doc_id=ATTACK, only="B", a=None, b=CARD, text=ATTACK, characters=len(ATTACK)),
        DiffDocument(doc_id="d-3", only="B", a=OUT, b=CARD, note="the text could not be read: gone"),
    )
    values = {
        "domains": (
            DomainMove(domain="web", tokens_a=700, tokens_b=1500, share_a=0.7, share_b=0.5),
            DomainMove(domain=ATTACK, tokens_a=300, tokens_b=1500, share_a=0.3, share_b=0.5),
        ),
        "documents_a": 40, "documents_b": 57, "both": 30, "other_copies": 4, "only_a": ("d-1",),
        "only_b": ("d-3",), "only_a_count": 10, "only_b_count": 27, "jaccard": 30 / 67, "token_jaccard": 0.41,
        "flow": (
            Flow(a="kept", b="kept", documents=30, tokens=3000),
            Flow(a="kept", b="not drawn", documents=10, tokens=1100),
            Flow(a="not drawn", b="kept", documents=20, tokens=2100),
            Flow(a="absent", b="kept", documents=7, tokens=700),
            Flow(a="not drawn", b="not drawn", documents=4321, tokens=43210),
        ),
        "scores": (
            ScoreShift(domain="web", criterion="edu", mean_a=0.25, mean_b=0.125),
            ScoreShift(domain=ATTACK, criterion="edu", mean_a=NAN, mean_b=0.5),
        ),
        "theta": (ThetaChange(domain="web", parameter="cutoff ω", a=0.1, b=0.3),),
        "settings": (SettingChange(field="recipe.seed", a="1", b="2"),),
        "sample": 25, "seed": 9, "documents": documents,
    }  # fmt: skip
    return Diff(**(values | changes))  # type: ignore[arg-type]


def page_of(diff: Diff, *, figures: bool = False) -> str:
    return render_diff(diff, SIDES, figures=figures)[0]


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def rows_after(page: str, caption: str) -> list[list[str]]:
    """Return the cells of the table with that caption."""
    table = page.split(f"<caption>{caption}", 1)[1].split("</table>", 1)[0]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[2:]]


def test_the_verdict_says_both_jaccards_and_the_counts():
    page = page_of(make_diff())
    sentence = (
        "B leaves out 10 of the 40 documents that A selects and takes 27 others: Jaccard 0.448 of documents, "
        "0.410 of tokens."
    )
    assert f"<h1>{sentence}</h1>" in page
    assert f'<meta name="description" content="{sentence}">' in page
    same = make_diff(only_a_count=0, only_b_count=0, jaccard=1.0, token_jaccard=0.9, documents=())
    assert "A and B select the same 30 documents with other copies of 4: Jaccard 1.000" in page_of(same)
    assert "No documents: there are none." in page_of(same)


def test_the_tables_have_the_numbers_of_the_diff():
    page = page_of(make_diff())
    domains = rows_after(page, "Selected tokens per domain")
    assert domains[1] == ["web", "700", "1,500", "+800", "70.0 %", "50.0 %", "−20.0"]
    flow = rows_after(page, "Every document of the pools by its fate")
    assert ["not in the pool", "kept", "7", "0.16 %", "700"] in flow
    assert ["not drawn", "not drawn", "4,321", "98.47 %", "43,210"] in flow
    assert len(flow) == 5
    scores = rows_after(page, "Mean normalised score")
    assert ["web", "0.250 → 0.125 (−0.125)"] in scores
    assert [row[1] for row in scores if row[0] != "web"] == ["– → 0.500"]  # A selects nothing there
    assert rows_after(page, "Parameters of θ that differ (1)") == [["web", "0.1 → 0.3"]]
    assert rows_after(page, "Fields of the runs&#x27; identities that differ (1)") == [
        ["recipe.seed", "1", "2"]
    ]


def test_runs_that_normalise_differently_are_marked():
    assert "two maps" not in page_of(make_diff())
    page = page_of(make_diff(same_scale=False))
    assert "two maps" in page
    assert "equal numbers do not mean equal quality" in page


@pytest.mark.parametrize("figures", [False, True])
def test_every_number_names_the_files_of_both_runs(figures: bool):
    """Sentence, tiles, tables, figures and running text, as on the page of one run."""
    tree = Tree(page_of(make_diff(), figures=figures)).root
    parts = [n for n in tree.walk() if n.tag in ("table", "figcaption") or n.css.startswith("tile")]
    assert sum(p.css.startswith("tile") for p in parts) == 8
    assert sum(p.tag == "figcaption" for p in parts) == 3
    for part in parts:
        assert {href.split("/")[1] for href in footnotes(part)} == {"one", "two"}, (part.tag, part.css)
    sections = [n for n in tree.walk() if n.tag in ("section", "header")]
    assert len(sections) == 7
    for section in sections:
        prose = [
            n.text
            for n in section.walk(without=("table", "figure", "tile", *QUOTED))
            if n.tag in ("p", "li", "h1") and any(c.isdigit() for c in n.text)
        ]
        own = next((n for n in section.walk() if n.css == "origin"), Node("none"))
        assert not prose or footnotes(own), prose[:3]


def test_numbers_name_the_files_they_come_from():
    page = page_of(make_diff())
    for file in ("selection/manifest.json", "theta.json", "identity.json", "annotations/manifest.json"):
        for run in ("one", "two"):
            assert f'<a href="../{run}/{file}">../{run}/{file}</a>' in page


def test_nothing_in_the_page_is_markup_or_remote():
    page = page_of(make_diff())
    assert "<img src=x" not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert "\u202e" not in page
    assert "⟨U+202E⟩" in page
    assert re.search(
        r"default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'; img-src data:", page
    )
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert " style=" not in page
    assert " onclick" not in page


def test_cards_of_both_runs_come_as_data():
    data = data_of(page_of(make_diff()))
    docs, a, b = data["docs"], data["a"], data["b"]
    assert [d["only"] for d in docs] == ["A", "B", "B"]
    assert (docs[0]["domain"], docs[0]["tokens"], docs[0]["more"]) == ("web", 321, 6)
    assert [(d["inA"], d["inB"]) for d in docs] == [(True, True), (False, True), (True, True)]
    assert (docs[2]["text"], docs[2]["note"]) == (None, "the text could not be read: gone")
    assert a["criteria"] == b["criteria"] == [{"name": "edu", "higher": True}]
    assert a["scores"] == [[3.25, None, 3.25]]
    assert a["norms"] == [[0.125, None, 0.125]]
    assert a["docs"]["copies"] == [2, 0, 0]
    assert a["docs"]["low"] == [0.0625, None, None]
    assert a["docs"]["excluded"] == [None, None, "held_out"]
    assert b["docs"]["expected"] == [0.001, 1.25, 1.25]
    assert (b["docs"]["uniform"][0], b["docs"]["factor"][0]) == (0.7, 0.9)
    assert a["curves"] == [CURVE]
    assert (a["applied"], b["curves"], b["applied"]) == (True, [None], False)


def test_a_criterion_that_theta_does_not_know_weighs_nothing():
    other = replace(CARD, scores=(*CARD.scores, replace(CARD.scores[0], name="new", declared="lower")))
    document = replace(make_diff().documents[0], a=other)
    data = data_of(page_of(make_diff(documents=(document,))))
    assert data["a"]["criteria"] == [{"name": "edu", "higher": True}, {"name": "new", "higher": False}]
    assert data["a"]["curves"][0]["weights"] == [0.75, 0.0]


def test_a_mark_alone_where_one_selects_nothing(tmp_path: Path):
    runs = (tmp_path / "a", tmp_path / "b")
    page = write_diff(make_diff(), runs, tmp_path / "diff.html", figures=True)
    rows = list(
        csv.reader(io.StringIO((page.parent / "figures/diff-scores.csv").read_text(encoding="utf-8")))
    )
    assert [row[2:] for row in rows[1:]] == [["0.25", "0.125", "-0.125"], ["nan", "0.5", "nan"]]


def test_the_sample_is_said_and_texts_left_out_are_said():
    page = page_of(make_diff())
    assert "1 of the 10 documents only in A and 2 of the 27 only in B, at most 25 of each" in page
    assert "seed 9 and id (not hand-picked)" in page
    assert "redact samples" not in page
    bare = tuple(replace(d, text=None, note="") for d in make_diff().documents)
    page = page_of(make_diff(documents=bare))
    assert "redact samples" in page
    assert all(d["text"] is None for d in data_of(page)["docs"])


def test_figures_are_files_only_if_asked(tmp_path: Path):
    runs = (tmp_path / "runs" / "x", tmp_path / "other" / "x")
    page = write_diff(make_diff(), runs, tmp_path / "out" / "diff.html")
    assert [p.name for p in page.parent.iterdir()] == ["diff.html"]
    text = page.read_text(encoding="utf-8")
    assert "figures/" not in text
    assert text.count("data:image/svg+xml;base64,") == 3
    assert "<li>A: runs/x</li><li>B: other/x</li>" in text
    assert '"../runs/x/theta.json"' in text
    again = write_diff(make_diff(), runs, tmp_path / "out" / "diff.html", figures=True)
    names = {p.name for p in (again.parent / "figures").iterdir()}
    assert names == {f"diff-{n}.{k}" for n in ("domains", "flow", "scores") for k in ("svg", "png", "csv")}
    assert 'href="figures/diff-flow.csv"' in again.read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO((again.parent / "figures/diff-flow.csv").read_text())))
    assert ["not drawn", "kept", "20", "2100"] in rows


def test_the_same_diff_gives_the_same_bytes():
    assert page_of(make_diff()) == page_of(make_diff())


@pytest.mark.parametrize("flow", [(), (Flow(a="excluded", b="excluded", documents=3, tokens=9),)])
def test_empty_selections_have_a_page(flow: tuple[Flow, ...]):
    empty = make_diff(
        domains=(), documents_a=0, documents_b=0, both=0, other_copies=0, only_a_count=0, only_b_count=0,
        flow=flow, scores=(), theta=(), settings=(), documents=(), jaccard=1.0, token_jaccard=1.0,
    )  # fmt: skip
    page = page_of(empty)
    assert "A and B select the same 0 documents" in page
    assert "A and B share no domain and criterion." in page
