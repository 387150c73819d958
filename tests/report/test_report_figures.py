"""Figures are right as data, in pictures and in words: cells are numbers, labels stay apart, bars show."""

import csv
import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from facts_fixture import add_facts
from ladder_fixture import make_comparison
from matplotlib.figure import Figure
from report_fixture import make_run

from quadmix.io.atomic import read_value, write_json
from quadmix.report import figures, plots, sections, trials
from quadmix.report.html import ROWS, table
from quadmix.report.load import RunFiles, load_run
from quadmix.report.text import csv_text, short
from quadmix.report.write import write_report
from quadmix.types import DatasetManifest, Theta, Trial

TEXTS = {
    "domain", "criterion", "other_criterion", "label", "values", "trial_id", "kind", "target", "surrogate",
    "batch", "status", "group", "what", "other", "source", "part", "language", "stage", "state", "selector",
    "task", "metric", "survives", "seeds of the tasks",
}  # fmt: skip
LUMINANCE = (0.2126, 0.7152, 0.0722)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = add_facts(make_run(tmp_path_factory.mktemp("figures") / "run", documents=1500))
    write_report(run)
    return run


@pytest.fixture
def files(folder: Path) -> RunFiles:
    return load_run(folder)


# --------------------------------------------------------------------------- data
def numeric_cells(folder: Path) -> list[tuple[str, str, str]]:
    """Return (figure, column, cell) of every column that is not named as text above."""
    found: list[tuple[str, str, str]] = []
    for path in sorted((folder / "figures").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found += [(path.stem, c, v) for c, v in row.items() if c not in TEXTS]
    return found


def test_every_numeric_cell_of_every_figure_is_a_number(folder: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "evaluate/comparison.json", make_comparison())
    write_report(tmp_path)
    cells = numeric_cells(folder) + numeric_cells(tmp_path)
    assert {name for name, _, _ in cells} >= {"sampling-curves", "domain-tokens", "accuracy", "forest-2"}
    bad = []
    for name, column, cell in cells:
        parts = cell.split() if column == "seeds" else [cell]  # of a task figure: a value per seed
        try:
            _ = [cell in ("true", "false") or float(part) for part in parts]
        except ValueError:
            bad.append((name, column, cell))
    assert bad == []


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    row = [np.float64(0.5), np.int64(-3), np.float32(0.25), np.bool_(True), np.float64("nan")]
    assert csv_text(["a"] * 5, [row]).splitlines()[1] == "0.5,-3,0.25,true,nan"


def test_shares_are_fractions_in_every_csv(folder: Path) -> None:
    cells = [(f, c, float(v)) for f, c, v in numeric_cells(folder) if c.startswith("share") and v != "nan"]
    assert {f for f, _, _ in cells} >= {"best-trials", "domain-tokens", "source-shares", "repeated-tokens"}
    assert all(0 <= v <= 1 for _, _, v in cells)
    with (folder / "figures/best-trials.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert sum(float(v) for c, v in row.items() if c.startswith("share_")) == pytest.approx(1)


# --------------------------------------------------------------------------- ratios on a log axis
def drawn(ratio: list[float]) -> Any:
    """Return the axis as the figures have it: the right two fifths of ten inches."""
    style: Any = plots.STYLE
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(10.4, 4), layout="constrained")
        _, axis = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        plots.ratio_axis(axis, np.arange(len(ratio)), np.array(ratio))
        figure.canvas.draw()
    return axis


@pytest.mark.parametrize("most", [1.2, 3, 9, 14, 19, 30, 400, 7e3, 2e5, 3e9])
def test_labels_of_ratios_never_overlap_and_1_is_one_of_them(most: float) -> None:
    axis = drawn([most, 1 / most, 0.0])
    labels = [t for t in axis.get_xticklabels() if t.get_text()]
    boxes = [t.get_window_extent() for t in labels]
    assert len(labels) >= 3
    assert "1×" in [t.get_text() for t in labels]
    assert all(a.x1 + 2 < b.x0 for a, b in itertools.pairwise(sorted(boxes, key=lambda b: b.x0)))
    low, high = axis.get_xlim()
    assert low <= 1 / most
    assert high >= most


def test_a_ratio_of_0_is_written_and_an_unknown_one_is_not() -> None:
    axis = drawn([2.0, 0.0, float("nan"), 0.0])
    assert [(t.get_text(), t.get_position()[1]) for t in axis.texts] == [("0", 1), ("0", 3)]
    (dots,) = [line for line in axis.lines if line.get_marker() == "o"]
    assert dots.get_xdata().tolist() == [2.0]


def test_a_domain_without_tokens_has_its_0_in_the_figure(files: RunFiles) -> None:
    assert files.dataset is not None
    assert b">0</text>" not in right_of(figures.domain_tokens(files.dataset).svg)
    first, *rest = files.dataset.domains
    gone = dataclasses.replace(first, tokens_out=0, unique_tokens=0, documents_out=0)
    manifest = dataclasses.replace(files.dataset, domains=(gone, *rest))
    assert right_of(figures.domain_tokens(manifest).svg).count(b">0</text>") == 1


def right_of(svg: bytes) -> bytes:
    """Return the SVG of the right half, which comes second."""
    return svg[svg.index(b'id="axes_2"') :]


# --------------------------------------------------------------------------- contrast
def contrast(colour: str) -> float:
    """Contrast to white as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 1.05 / (sum(w * p for w, p in zip(LUMINANCE, linear, strict=True)) + 0.05)


@pytest.mark.parametrize(
    "name",
    ["domain-tokens", "candidate-shares", "source-shares", "language-shares", "criterion-histograms",
     "criteria-by-domain", "swarm-losses", "repeated-tokens", "effects"],
)  # fmt: skip
def test_bars_that_carry_data_stand_out_from_the_ground(folder: Path, name: str) -> None:
    svg = (folder / f"figures/{name}.svg").read_text("utf-8")
    fills = set(re.findall(r"fill: (#[0-9a-f]{6})", svg)) - {"#ffffff"}
    assert len(fills) >= 2
    assert {f: contrast(f) for f in fills if contrast(f) < 3} == {}


# --------------------------------------------------------------------------- sampling curves
def test_the_words_of_the_sampling_curves_are_those_of_their_data(files: RunFiles) -> None:
    assert files.table is not None
    picture = figures.sampling_curves(files.table, files.theta, files.theta_file)
    curves = [
        [r for r in picture.rows if r[0] == d and r[3]] for d in dict.fromkeys(r[0] for r in picture.rows)
    ]
    best, last = ([float(str(rows[place][4])) for rows in curves] for place in (0, -1))
    gaps = [(abs(float(str(r[4])) - float(str(r[5]))), int(str(r[3]))) for rows in curves for r in rows]
    mean = sum(g * n for g, n in gaps) / sum(n for _, n in gaps)
    assert picture.alt == (
        f"{len(curves)} panels, one per domain. Mean expected copies are {min(best):.2f} to {max(best):.2f} "
        f"in the best bins of ranks and {min(last):.2f} to {max(last):.2f} in the last bins; the drawn means "
        f"differ from them by {mean:.2f} on average over documents, by {max(g for g, _ in gaps):.2f} at most."
    )
    shifted = dataclasses.replace(files.table, copies=files.table.copies + 5)
    assert picture.alt != figures.sampling_curves(shifted, files.theta, files.theta_file).alt


def test_the_cutoff_is_that_of_the_applied_theta_and_the_observed_edge_stands_beside_it(
    folder: Path, files: RunFiles
) -> None:
    """ω is halved on disk, which moves no document: the edge that the data show stays where it is."""
    assert files.theta is not None
    assert files.table is not None
    theta = dataclasses.replace(files.theta, cutoff=files.theta.cutoff / 2)
    own = dataclasses.replace(files, theta=theta)
    rows = rows_of(sections.curves(own, []))
    known = read_value(folder / "theta.json", Theta)
    for place, name in enumerate(files.table.domains):
        mine = files.table.domain == place
        expected = files.table.expected[mine]
        edge = files.table.high[mine][expected > 0.25 * expected.max()].max()
        row = next(r for r in rows if r[0] == name)
        assert float(row[1]) == pytest.approx(known.cutoff[place] / 2, rel=5e-3)
        assert float(row[6]) == pytest.approx(edge, rel=5e-3)
    svg = figures.sampling_curves(files.table, theta, "theta.json").svg.decode()
    assert f"ω {theta.cutoff[0]:.3g}" in svg
    other = figures.sampling_curves(files.table, theta, "search/confirm.json")
    assert "ω" not in other.svg.decode()
    assert "edge 0." in other.svg.decode()
    assert "the observed edge" in other.caption


def rows_of(html: str) -> list[list[str]]:
    """Return the rows of the last table of a section."""
    body = html[html.rindex("<tbody>") : html.rindex("</tbody>")]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in body.split("<tr>")[1:]]


# --------------------------------------------------------------------------- words
def test_only_tables_of_figures_promise_a_csv() -> None:
    rows = [[str(i), "x"] for i in range(ROWS + 43)]
    plain = table(["a", "b"], rows, caption="c", source=["identity.json"])
    assert f"The first {ROWS} of {ROWS + 43} rows; all come from identity.json." in plain
    assert "CSV" not in plain
    assert "all are in the CSV" in table(["a", "b"], rows, caption="c", source=["identity.json"], csv=True)
    assert "The first" not in table(["a", "b"], rows[:ROWS], caption="c", source=["identity.json"])


def test_long_names_are_cut_in_the_middle_and_stay_distinct() -> None:
    names = [f"https://en.wikipedia.org/wiki/Category:Articles/{i}" for i in range(30)]
    names += ["short", f"{'a' * 40}1{'b' * 40}", f"{'a' * 40}2{'b' * 40}"]
    made = plots.trim_middle(names, 38)
    assert len(set(made)) == len(names)
    assert made[7].startswith("https://en.wiki")
    assert made[7].endswith("/7")
    assert made[30] == "short"
    assert all(len(m) <= 38 for m in made[:31])


@pytest.mark.parametrize(
    ("steps", "ticks"),
    [((20, 480), ["20", "50", "100", "200"]), ((1, 40_000), ["1", "10", "100", "1000", "10000"])],
)
def test_training_curves_have_several_ticks(
    files: RunFiles, steps: tuple[int, int], ticks: list[str]
) -> None:
    curve = tuple((s, 9.0) for s in np.linspace(*steps, 20).astype(int).tolist())
    made = [dataclasses.replace(t, curve=curve) for t in files.trials[:3]]
    picture = trials.loss_curves(made)
    assert picture is not None
    svg = picture.svg.decode()
    assert [t for t in ticks if f">{t}</text>" not in svg] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999.4, "999"), (999.6, "1 k"), (6040, "6.04 k"), (999_700, "1 M"), (1.5e12, "1.5 T")],
)
def test_numbers_are_short_without_powers(value: float, text: str) -> None:
    assert short(value) == text


def test_speeds_of_models_have_a_unit(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", documents=300)
    for path in (run / "trials").glob("prior-*.json"):
        trial = read_value(path, Trial)
        write_json(path, dataclasses.replace(trial, train_tokens=12_080, seconds=2.0))
    page = write_report(run).read_text("utf-8")
    assert "e+0" not in page[page.index('<section id="health"') : page.index('<section id="run"')]
    done = [t for t in load_run(run).trials if t.kind == "prior"]
    speed = sum(12_080 for t in done if t.status == "done") / (2.0 * len(done))
    assert f">{speed / 1000:.3g} k</td>" in page
    assert read_value(run / "dataset/manifest.json", DatasetManifest).ledger.rows_in
