"""Every number on the page names the file it comes from; a sample of them is counted again."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from report_fixture import make_run
from scipy.stats import spearmanr

from quadmix.report.write import write_report

VOID = ("img", "meta", "input", "br", "link")
QUOTED = ("pre", "script", "style", "form", "summary", "nav")  # no statements of the page


@dataclass
class Node:
    tag: str
    css: str = ""
    href: str = ""
    text: str = ""
    children: list["Node"] = field(default_factory=list)

    def walk(self, without: tuple[str, ...] = ()) -> Iterator["Node"]:
        yield self
        for child in self.children:
            if child.tag not in without and child.css.split(" ")[0] not in without:
                yield from child.walk(without)


class Tree(HTMLParser):
    """The page as a tree of elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.path = [Node("root")]
        self.feed(text)
        self.root = self.path[0]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        node = Node(tag, found.get("class") or "", found.get("href") or "")
        self.path[-1].children.append(node)
        if tag not in VOID:
            self.path.append(node)

    def handle_endtag(self, tag: str) -> None:
        while self.path[-1].tag != tag:
            self.path.pop()
        self.path.pop()

    def handle_data(self, data: str) -> None:
        self.path[-1].text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("origins") / "run", documents=1500)
    write_report(run)
    return run


@pytest.fixture(scope="module")
def tree(folder: Path) -> Node:
    return Tree((folder / "report.html").read_text(encoding="utf-8")).root


def footnotes(node: Node) -> list[str]:
    return [n.href for part in node.walk() if part.css == "from" for n in part.walk() if n.tag == "a"]


def test_every_table_figure_and_tile_names_files_that_are_there(folder: Path, tree: Node) -> None:
    parts = [n for n in tree.walk() if n.tag in ("table", "figure") or n.css.startswith("tile")]
    assert len(parts) > 40
    for part in parts:
        absent = "absent" in part.css or "not run" in [n.text for n in part.walk()]
        assert footnotes(part) or absent, (part.tag, part.css, [n.text for n in part.walk()][:12])
    for href in footnotes(tree):
        assert (folder / href).exists(), href


def test_a_section_whose_sentences_have_numbers_names_their_files(tree: Node) -> None:
    sections = [n for n in tree.walk() if n.tag in ("section", "header")]
    assert len(sections) > 10
    for section in sections:
        prose = [
            n.text
            for n in section.walk(without=("table", "figure", "tile", *QUOTED))
            if n.tag in ("p", "li", "h1") and any(c.isdigit() for c in n.text)
        ]
        own = [p for p in section.walk() if p.css == "origin"]
        assert not prose or own, (prose[:3],)


def test_a_sample_of_the_numbers_is_counted_again(folder: Path) -> None:
    """From the files that the footnotes name, without the report's own code."""
    facts = {f["name"]: f for f in json.loads((folder / "report.json").read_text())["facts"]}
    dataset = json.loads((folder / "dataset/manifest.json").read_text())
    assert facts["Tokens"]["data"]["tokens_out"] == sum(d["tokens_out"] for d in dataset["domains"])
    assert facts["Documents kept"]["data"]["selected"] == sum(d["documents_out"] for d in dataset["domains"])
    proposal = json.loads((folder / "search/proposal.json").read_text())
    report = next(r for r in proposal["diagnostics"] if r["target"] == "objective" and r["parity"])
    assert facts["Surrogate rank correlation"]["data"]["spearman"] == report["spearman"]
    comparison = json.loads((folder / "evaluate/comparison.json").read_text())
    gains = [-p["difference"] for p in comparison["against"] if p["label"] == comparison["chosen"]]
    assert facts["Gain over best baseline"]["data"]["gain"] == min(gains)

    selected = pq.read_table(sorted((folder / "selection").glob("part-*.parquet"))).to_pandas()
    usable = selected[selected.excluded.isna()]
    coverage = min((~np.isnan(selected[c])).mean() for c in selected if c.startswith("score:"))
    assert facts["Score coverage"]["data"]["coverage"] == pytest.approx(coverage)
    for row in rows(folder, "criterion-agreement")[:5]:
        mine = usable if row["domain"] == "all domains" else usable[usable.domain == row["domain"]]
        pair = mine[[f"score:{row['criterion']}", f"score:{row['other_criterion']}"]]
        complete = mine[[c for c in mine if c.startswith("score:")]].notna().all(axis=1)
        expected = spearmanr(pair[complete]).statistic
        assert float(row["spearman"]) == pytest.approx(expected, abs=1e-6)
    for row in rows(folder, "domain-tokens"):
        mine = usable[usable.domain == row["domain"]]
        assert int(row["tokens_out"]) == (mine.tokens * mine.copies).sum()
        assert int(row["documents_out"]) == (mine.copies > 0).sum()
    table = rows(folder, "merge-weights")
    assert all(sum(float(v) for k, v in r.items() if k != "domain") == pytest.approx(1) for r in table)


def rows(folder: Path, figure: str) -> list[dict[str, str]]:
    with (folder / f"figures/{figure}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
