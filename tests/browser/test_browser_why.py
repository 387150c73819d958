"""A why card tells what `quadmix explain` tells, number by number, and notices numbers that do not fit."""

import re
from importlib import resources

import numpy as np
import pyarrow as pa
import pytest
from materialise.materialise_run import SIZE, THETA, build_run, documents, write_inputs

from quadmix.io.atomic import read_table, write_json, write_table
from quadmix.materialise.explain import explain
from quadmix.mixing.curve import mean_copies
from quadmix.report import write_report
from quadmix.types import Ranks, Theta


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small real selection, materialised, with its report."""
    home = tmp_path_factory.mktemp("why")
    docs = documents(SIZE)
    run = build_run(home / "run", write_inputs(home / "in", docs), docs)
    write_json(run.folder / "theta.json", THETA)
    run.write()
    write_report(run.folder)
    return run.folder


@pytest.fixture(scope="module")
def samples(folder):
    return read_table(folder / "samples.parquet").to_pylist()


def card(visit, doc_id):
    """Return the words and the table of a document's why card; its id is in one sample or several."""
    visit.page.fill("#f-text", doc_id)
    for place in range(visit.page.locator("#docs details").count()):
        one = visit.page.locator("#docs details").nth(place)
        one.locator("summary").click()
        one.locator(".why").wait_for()
        words = one.locator(".why").inner_text().replace("\u2212", "-")
        if f"id {doc_id} " in words:
            rows = [r.locator("th,td").all_inner_texts() for r in one.locator(".why table tr").all()]
            return words, [[c.replace("\u2212", "-") for c in row] for row in rows]
    raise AssertionError(f"{doc_id} is not listed")


def kinds(samples):
    """Return ids: with and without a missing score, of every domain, with 0, 1 and 2 copies."""
    found = {}
    for sample in samples:
        found.setdefault((sample["domain"], sample["copies"], sample["score:edu"] is None), sample["doc_id"])
    return found


def test_the_card_agrees_with_explain(folder, samples, visitor):
    visit = visitor.open(folder / "report.html")
    wanted = kinds(samples)
    assert {domain for domain, _, _ in wanted} == {"arts", "code", "law"}
    assert {missing for _, _, missing in wanted} == {True, False}
    for doc_id in wanted.values():
        told = explain(folder, doc_id)
        words, rows = card(visit, doc_id)
        draw, curve = told.draw, told.curve
        for criterion, row in zip(told.criteria, rows[1:], strict=False):
            expected = [criterion.normalised, criterion.used, criterion.normalised * criterion.used]
            assert row[0].split() == [criterion.name, "↑" if criterion.declared == "higher" else "↓"]
            assert row[1] == "missing" or float(row[1]) == pytest.approx(criterion.delivered, rel=1e-4)
            for cell, value in zip(row[2:], expected, strict=True):
                assert cell == ("–" if np.isnan(value) else f"{value:.4f}")
        assert rows[-1][-1] == f"{draw.merged:.4f}"
        assert (
            f"covers {draw.rank_low:.6f} to {draw.rank_high:.6f} of the tokens of domain {told.domain}"
            in words
        )
        for name in ("steepness λ", "cutoff ω", "exponent η", "floor ε", "scale"):
            (shown,) = re.findall(rf"{name} ([0-9.e-]*[0-9])", words)
            assert float(shown) == pytest.approx(getattr(curve, name.split()[0]), rel=1e-4)
        assert f"{draw.expected:.6f}, the mean of S over the interval" in words
        sign = "<" if draw.copies > int(draw.expected) else "≥"
        limit = f"{draw.fraction:.6f} × the domain's factor {draw.factor:.6f}"
        assert f"the hash of seed and id is {draw.uniform:.6f} {sign} {limit}" in words
        assert f"Copies {draw.copies}." in words
        assert "do not lead" not in words
    assert visit.harm() == []


WAY = """([curve, low, high, expected]) => {
  const docs = {domain: [0], copies: [Math.floor(expected)], merged: [0.5], low: [low],
    high: [high], expected: [expected], uniform: [0.9999], factor: [1]};
  document.body.replaceChildren();
  whyCard({domains: ["x"], criteria: [], curves: [curve], applied: true, docs, scores: [], norms: []})(
    document.body, 0);
  return [document.body.innerText.replaceAll("\\u2212", "-"),
          document.querySelector("polyline").getAttribute("points"),
          Number(document.querySelector("circle").getAttribute("cy"))];
}"""


def mean(theta, low, high):
    """Return the mean of S over an interval of ranks, by the module that selects."""
    ranks = Ranks(low=np.array([low]), high=np.array([high]))
    return float(mean_copies(ranks, theta, np.array([0]))[0])


@pytest.mark.parametrize(
    ("cutoff", "low", "high", "place"),
    [
        (0.0, 0.0, 0.1, "The window is empty"),
        (0.0, 0.2, 0.3, "The window is empty"),
        (0.1, 0.1, 0.2, "beyond the cutoff"),
        (0.1, 0.15, 0.2, "beyond the cutoff"),
        (0.1, 0.05, 0.15, "across the edge"),
        (0.1, 0.05, 0.1, "inside the window"),
        (0.1, 0.0, 0.01, "inside the window"),
    ],
)
def test_the_curve_at_the_edges_of_its_window(browser, cutoff, low, high, place):
    """Both ends of S are those of the selection: the mean over a sliver of the interval at either end."""
    numbers = {"steepness": 30.0, "cutoff": cutoff, "exponent": 0.7, "floor": 0.01, "scale": 1.5}
    theta = Theta(weights=np.array([[1.0]]), **{k: np.array([v]) for k, v in numbers.items()})
    page = browser.new_page()
    page.add_script_tag(content=resources.files("quadmix.report").joinpath("why.js").read_text("utf-8"))
    curve = numbers | {"weights": []}
    words, points, dot = page.evaluate(WAY, [curve, low, high, mean(theta, low, high)])
    page.close()
    assert place in words
    sliver = (high - low) * 1e-9
    ends = [mean(theta, low, low + sliver), mean(theta, high - sliver, high)]
    said = re.search(r"S (?:goes from (\d+\.\d+) to (\d+\.\d+)|= (?:scale · ε = )?(\d+\.\d+))", words)
    first, last = (said[1], said[2]) if said[1] else (said[3], said[3])
    assert float(first) == pytest.approx(ends[0], abs=2e-6)
    if "inside" not in place:  # there the last rank itself still counts as inside
        assert float(last) == pytest.approx(ends[1], abs=2e-6)
    assert "do not lead" not in words
    heights = {float(p.split(",")[1]) for p in points.split()}
    if cutoff == 0:
        assert len(heights) == 1, "no spike at rank 0"
        assert dot == pytest.approx(heights.pop(), abs=0.06)
    else:
        assert len(heights) > 1


def test_a_card_says_when_its_numbers_do_not_fit(folder, tmp_path, visitor):
    """Copies that the draw does not give are noticed, with and without the draw in the file."""
    samples = read_table(folder / "samples.parquet")
    changed = samples.set_column(
        samples.schema.get_field_index("copies"), "copies", pa.array([7] * len(samples), pa.int32())
    )
    path = folder / "samples.parquet"
    try:
        for table in (changed, changed.drop_columns(["uniform", "factor"])):
            write_table(path, table)
            visit = visitor.open(write_report(folder))
            words, _ = card(visit, samples["doc_id"][0].as_py())
            assert "These numbers do not lead to the stored ones" in words
        assert "not in this samples.parquet; quadmix explain computes it" in words
    finally:
        write_table(path, samples)
        write_report(folder)


def test_a_redacted_page_keeps_ids_and_numbers(folder, samples, visitor):
    try:
        visit = visitor.open(write_report(folder, redact=True))
        assert visit.shown() == [s["doc_id"] for s in samples[:20]]
        words, _ = card(visit, samples[0]["doc_id"])
        assert f"Why {samples[0]['copies']} cop" in words
        assert (
            visit.page.locator("#docs details[open] .text").first.inner_text()
            == "(text left out of this page)"
        )
        content = visit.page.content()
        assert [s["text"] for s in samples if s["text"][:20] in content] == []
        assert visit.harm() == []
    finally:
        write_report(folder)
