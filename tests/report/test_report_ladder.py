"""The final comparison on the page: every rung, every task, what survives the correction, and the ladder."""

import csv
import dataclasses
import html
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from ladder_fixture import make_comparison
from report_fixture import ATTACK, make_run

from quadmix.cli.ladder import ladder_lines
from quadmix.io.atomic import read_value, write_json
from quadmix.report import ladder as ladder_module
from quadmix.report import write_report
from quadmix.report.ladder import verdicts
from quadmix.report.ladder_figures import GROUPS, beyond_chance, spread, survives, tasks_of
from quadmix.report.ladder_transfer import trust
from quadmix.report.text import label_name
from quadmix.types import Comparison, Measured, Paired, TaskScore

NAN = math.nan


def put(folder: Path, comparison: Comparison) -> str:
    """Write the comparison into a small run and return its page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evaluate/comparison.json", comparison)
    return write_report(folder).read_text("utf-8")


def words_of(page: str) -> str:
    """Return the text of the section, without the data of figures."""
    body = page[page.index('<section id="baselines"') : page.index('<section id="domains"')]
    body = re.sub(r"<summary>Data of this figure</summary>.*?</details>", "", body, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


@pytest.fixture(scope="module")
def comparison():
    return make_comparison()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, comparison):
    path = tmp_path_factory.mktemp("ladder") / "run"
    put(path, comparison)
    return path


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text("utf-8")


def change(comparison: Comparison, place: int, **fields) -> Comparison:
    rungs = list(comparison.rungs)
    rungs[place] = dataclasses.replace(rungs[place], **fields)
    return dataclasses.replace(comparison, rungs=tuple(rungs))


def lone(comparison: Comparison) -> Comparison:
    """The same with its first rung alone."""
    return dataclasses.replace(comparison, rungs=comparison.rungs[:1], transfers=())


def targets_of(comparison: Comparison) -> tuple[TaskScore, ...]:
    """Scores of the first rung's targets: fewer figures to draw."""
    return tuple(s for s in comparison.rungs[0].scores if s.kind == "target")


def test_the_section_begins_with_the_verdict_of_every_rung(page, comparison):
    text = words_of(page)
    start = text.index("Is it better?") + len("Is it better?")
    said = (
        comparison.rungs[0]
        .verdict.replace("top-domain:edu", "top edu per domain")
        .replace("regmix", "RegMix")
    )
    assert text[start:].strip().startswith(f"At 1M: {said}. At 5M: θ* did NOT beat")


def test_every_figure_of_every_rung_is_drawn_with_its_files(folder, page):
    names = {f"{n}{end}" for end in ("", "-2") for n in ("forest", "comparison", *(g.key for g in GROUPS))}
    names |= {"transfer-1"}
    for name in names:
        ElementTree.parse(folder / f"figures/{name}.svg")
        assert (folder / f"figures/{name}.png").is_file()
        assert f'href="figures/{name}.csv"' in page
    assert len(page) < 15_000_000
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == len(names)
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in images)


def test_the_data_of_a_task_figure_has_every_score_with_its_corrected_difference(folder, comparison):
    with (folder / "figures/accuracy.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * (4 + 2 + 1)
    row = next(r for r in rows if (r["task"], r["selector"]) == ("piqa", "random"))
    found = next(d for d in comparison.rungs[0].differences
                 if (d.task, d.metric, d.control) == ("piqa", "accuracy", "random"))  # fmt: skip
    assert float(row["p_holm"]) == found.p_holm
    assert row["survives"] == ("better" if found.better and found.p_holm <= 0.05 else "")


def test_only_what_survives_the_correction_is_marked(tmp_path, comparison):
    """Better beyond the interval but not after Holm: no mark, in words, tables and data alike."""
    weak = tuple(dataclasses.replace(d, better=True, worse=False, p_holm=0.08)
                 for d in comparison.rungs[0].differences)  # fmt: skip
    one = change(lone(comparison), 0, scores=targets_of(comparison))
    text = words_of(put(tmp_path / "r", change(one, 0, differences=weak)))
    assert "✓" not in text.replace("✓ θ* better", "")
    assert "none survives Holm" in text
    assert "✓" in words_of(put(tmp_path / "s", one)).replace("✓ θ* better", "")


def test_a_task_on_which_theta_star_is_worse_is_named(tmp_path, comparison):
    worse = tuple(
        dataclasses.replace(d, better=False, worse=True, p_holm=0.001, difference=0.02)
        if (d.kind, d.task, d.control) == ("target", "wiki", "regmix") else d
        for d in comparison.rungs[0].differences
    )  # fmt: skip
    one = change(lone(comparison), 0, differences=worse, scores=targets_of(comparison))
    text = words_of(put(tmp_path / "r", one))
    assert re.search(r"worse in \d+ \(.*wiki against RegMix", text)
    assert "+0.0200✗" in text


def test_accuracy_at_the_level_of_guessing_is_said_in_words(page):
    text = words_of(page)
    assert re.search(r"Not beyond chance: .*arc-challenge \(every selector\).*winogrande", text)
    assert re.search(r"mmlu 25.0 % 2\d\.\d %°", text)


def test_a_benchmark_has_one_main_accuracy_which_says_how_it_was_reckoned(page, comparison):
    text = words_of(page)
    main = text[text.index("Accuracy per benchmark: means over seeds") :]
    main = main[: main.index("Accuracy per benchmark: differences")]
    for name in (
        "arc-challenge 25.0 %",
        "lambada, greedy –",
        "winogrande, by likelihood 50.0 %",
        "macro mean",
    ):
        assert name in main
    rung = comparison.rungs[0]
    assert [t.title for t in tasks_of(rung, GROUPS[2])][3] == "winogrande"
    without = tuple(s for s in rung.scores if s.metric != "acc_norm")
    assert tasks_of(dataclasses.replace(rung, scores=without), GROUPS[2]) == []


def test_levels_are_those_of_the_rung_and_not_of_the_recipe(tmp_path, comparison):
    one = change(lone(comparison), 0, scores=targets_of(comparison), confidence=0.995)
    page = html.unescape(put(tmp_path / "r", one))
    text = words_of(page)
    assert "Intervals are 99.5 % intervals over seeds" in text
    assert "99.5 % interval θ* − it (below 0: θ* is better) 99.5 % interval" in text
    assert "objective with their 99.5 % intervals" in text
    both = change(comparison, 1, confidence=0.9)
    assert "Intervals are 95 % and 90 % intervals over seeds" in ladder_module._design(both)


def test_the_reach_of_the_correction_is_said(page, comparison):
    said = "correction is over the tasks of one selector and metric, not over all selectors together"
    assert said in words_of(page)
    assert said not in ladder_module._design(change(lone(comparison), 0, differences=()))


def test_the_text_of_the_ladder_shows_the_accuracy_over_all_benchmarks(comparison):
    found = ladder_lines(change(comparison, 1, confidence=0.99))
    (line, _) = (x for x in found if x.startswith("accuracy"))
    names = "arc-challenge, lambada, mmlu, piqa, winogrande"
    assert line.startswith(f"accuracy, mean of 5 benchmarks ({names}); chance 0.300; best: ")
    assert any("99 % interval" in x for x in found)


def test_flags_overlaps_and_left_out_selectors_are_shown(page):
    text = words_of(page)
    assert "Read with care selected tokens differ by 3.1 % between RegMix and θ*" in text
    assert "The pool overlaps 1 of 5 targets and benchmarks: wiki." in text
    assert "top heuristic: reached 1.2 of 2.0 M tokens" in text


def test_the_setting_of_a_rung_is_told_in_words(page, tmp_path, comparison):
    assert (
        "Models of 5.31 M parameters, trained on 60 M tokens each at learning rate 0.002, 5 seeds, equal "
        "tokens." in words_of(page)
    )
    assert "0.0056 bits per byte; before training at least 0.0049 was said." in words_of(page)
    odd = change(lone(comparison), 0, budget=0.5, match="epochs", detectable=math.nan, promised=math.nan,
                 scores=())  # fmt: skip
    text = words_of(put(tmp_path / "r", odd))
    assert "equal passes over the selected data. The selections hold 0.5 times the budget's tokens." in text
    assert "What difference these seeds could show is not known." in text


def test_ranks_stand_beside_each_other_for_all_rungs(page, comparison):
    order = sorted(comparison.rungs[1].measured, key=lambda m: m.mean)
    rank = [m.label for m in order].index("random") + 1
    assert re.search(rf"random \d+ \([\d.]+\) {rank} \(", words_of(page))


def test_what_a_transfer_says_follows_its_numbers():
    found = make_comparison(2).transfers[0]
    assert "1M is a good guide to differences that 5M can see" in trust(found)
    assert "94 % alike (86 % of all pairs)" in trust(found)
    weaker = dataclasses.replace(found, decision_accuracy=0.8, ceiling=math.nan)
    assert "a rough guide only" in trust(weaker)
    assert "not known: too few seeds" in trust(weaker)
    assert "no evidence" in trust(dataclasses.replace(found, low=-0.1))
    assert "no test of 1M" in trust(dataclasses.replace(found, decision_accuracy=math.nan, decided=0))
    assert "nothing can be said" in trust(dataclasses.replace(found, low=math.nan, high=math.nan))


def test_one_rung_has_no_part_about_other_rungs(tmp_path, comparison):
    text = words_of(put(tmp_path / "r", change(lone(comparison), 0, scores=())))
    assert "from rung to rung" not in text
    assert "The ladder" not in text
    assert "At 1M" not in text
    assert not list((tmp_path / "r/figures").glob("transfer*"))


def test_unknown_intervals_claim_nothing(tmp_path, comparison):
    """With one common seed all intervals are NaN, null in the file: no verdict is repeated, no win told."""
    nan = math.nan
    pairs = tuple(dataclasses.replace(p, low=nan, high=nan, stderr=nan) for p in comparison.rungs[0].against)
    scores = tuple(dataclasses.replace(s, low=nan, high=nan) for s in targets_of(comparison))
    differences = tuple(
        dataclasses.replace(d, low=nan, high=nan, p=nan, p_holm=nan, better=False, worse=False)
        for d in comparison.rungs[0].differences
    )
    measured = tuple(dataclasses.replace(m, low=nan, high=nan) for m in comparison.rungs[0].measured)
    blind = change(
        comparison, 0, against=pairs, scores=scores, differences=differences, measured=measured,
        verdict="θ* beat everything", detectable=nan, promised=nan,
    )  # fmt: skip
    page = put(tmp_path / "r", lone(blind))
    text = words_of(page)
    assert "nothing is claimed" in text
    assert "beat everything" not in text
    assert "✓" not in text.replace("✓ θ* better", "")
    assert " beaten" not in text.replace("NOT beaten", "")
    assert read_value(tmp_path / "r/evaluate/comparison.json", Comparison).rungs[0].seeds == 5
    assert verdicts(blind).startswith("At 1M: nothing is claimed")


def test_a_file_without_rungs_is_shown_as_before(tmp_path):
    """The comparison of older versions has neither rungs nor scores: dots, table, losses per target."""
    folder = make_run(tmp_path / "r", documents=300)
    text = words_of(write_report(folder).read_text("utf-8"))
    assert "Models of 1.1 M parameters, 2.1 M training tokens each" in text
    assert "Measured loss per target, bits per byte" in text
    assert not (folder / "figures/forest.svg").exists()


def test_the_table_tells_three_states_apart():
    """Beyond the interval on one side, on the other, and neither; an unknown interval is neither."""
    ends = {"random": (-0.02, -0.01), "top:edu": (-0.004, 0.006), "dsir": (0.01, 0.02), "regmix": (NAN, NAN)}
    measured = [
        Measured(label=label, mean=1.0, low=1.0, high=1.0, values=(1.0,), losses={}, heldout={},
                 selected_tokens=1, unique_tokens=1, epochs=1.0) for label in ("quadmix", *ends)
    ]  # fmt: skip
    pairs = [
        Paired(label="quadmix", control=c, difference=0.0, low=low, high=high, stderr=0.1, pairs=3)
        for c, (low, high) in ends.items()
    ]
    made = ladder_module.measured_table(measured, pairs, "quadmix", predicted={}, source=())
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in made.split("<tr>")[2:]]
    assert {row[0]: row[-1] for row in rows} == {
        "θ*": "–", "random": "beaten", "top edu": "not told apart", "DSIR": "worse",
        "RegMix": "not told apart",
    }  # fmt: skip


def test_hostile_names_are_inert(tmp_path, comparison):
    """Labels, tasks, rungs, flags and reasons come from files: markup in them stays text."""

    def spoil(value):
        if isinstance(value, tuple):
            return tuple(spoil(v) for v in value)
        if not dataclasses.is_dataclass(value):
            return value
        fields = {f.name: spoil(getattr(value, f.name)) for f in dataclasses.fields(value)}
        for name in ("label", "control"):
            fields[name] = f"top:{ATTACK}" if fields.get(name) == "random" else fields.get(name)
        fields["task"] = ATTACK if fields.get("task") == "wiki" else fields.get("task")
        return type(value)(**{k: v for k, v in fields.items() if hasattr(value, k)})

    bad = change(comparison, 1, scores=(), differences=())
    bad = change(bad, 0, name=ATTACK, verdict=ATTACK, flags=(ATTACK,), left_out={ATTACK: ATTACK})
    bad = dataclasses.replace(
        bad, rungs=spoil(bad.rungs), overlaps={ATTACK: 3},
        transfers=(dataclasses.replace(bad.transfers[0], small=ATTACK),),
    )  # fmt: skip
    page = put(tmp_path / "r", bad)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert not re.search("[\x00\x1b\u202e]", page)
    for path in (tmp_path / "r/figures").glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        assert not [e for e in root.iter() if e.tag.endswith("}script")]


def test_the_same_comparison_gives_the_same_bytes(tmp_path, comparison):
    one = change(lone(comparison), 0, scores=targets_of(comparison))
    page = put(tmp_path / "r", one)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("r/figures/*")}
    assert put(tmp_path / "r", one) == page
    assert {p.name: p.read_bytes() for p in tmp_path.glob("r/figures/*")} == before


def test_random_thetas_stand_in_the_ranks_but_not_in_the_task_panels(tmp_path, comparison):
    """They are there for the ranks; a panel of thirty more rows would hide the selectors."""

    def rename(value):
        if isinstance(value, tuple):
            return tuple(rename(v) for v in value)
        names = {n: "theta:007" for n in ("label", "control") if getattr(value, n, "") == "random"}
        return dataclasses.replace(value, **names)

    rung = comparison.rungs[0]
    changed = change(
        comparison, 0, scores=rename(targets_of(comparison)), measured=rename(rung.measured),
        against=rename(rung.against), differences=rename(rung.differences),
    )  # fmt: skip
    found = dataclasses.replace(
        comparison.transfers[0], labels=("theta:001", "theta:002"), small_means=(1.6, 1.7),
        large_means=(1.5, 1.6),
    )  # fmt: skip
    changed = change(dataclasses.replace(changed, transfers=(found,)), 1, scores=())
    text = words_of(put(tmp_path / "r", changed))
    header = text[text.index("micro: mean of items") :][:120]
    assert "top fluency" in header
    assert "007" not in header
    assert re.search(r"random θ 007 5 \(", text)
    assert "Small dots: random θ." in text
    assert "theta:007" in (tmp_path / "r/figures/targets.csv").read_text("utf-8")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("quadmix", "θ*"), ("random", "random"), ("top:edu", "top edu"), ("regmix", "RegMix"),
        ("top-domain:edu", "top edu per domain"), ("criteria-mix", "criteria mix"), ("qurating", "QuRating"),
        ("global-cut", "global cut"), ("upsampling", "quality upsampling"), ("dsir", "DSIR"),
        ("prior-mean", "prior mean"), ("random-mean", "mean of random θ"), ("theta:007", "random θ 007"),
        ("theta-star", "θ* of the search"), ("top:", "top:"),
    ],
)  # fmt: skip
def test_labels_have_readable_names(label, name):
    assert label_name(label) == name


def test_names_beside_a_scatter_keep_their_order_and_their_distance():
    places = spread(np.array([0.1, 0.1, 0.12, 0.9, 0.98, 0.99]), 0.08)
    assert (np.diff(places) >= 0.08 - 1e-12).all()
    assert places.min() >= 0
    assert places.max() <= 1
    crowded = spread(np.full(30, 0.5), 0.08)
    np.testing.assert_allclose(np.diff(crowded), 1 / 29)


def test_chance_and_survival_need_known_intervals(comparison):
    task = tasks_of(comparison.rungs[0], GROUPS[1])[0]
    score = next(iter(task.scores.values()))
    assert not beyond_chance(dataclasses.replace(score, low=math.nan))
    assert not beyond_chance(dataclasses.replace(score, low=0.25, chance=0.25))
    own = next(iter(task.differences.values()))
    assert survives(dataclasses.replace(own, better=True, p_holm=0.05), 0.95)
    assert not survives(dataclasses.replace(own, better=True, p_holm=math.nan), 0.95)
    assert not survives(None, 0.95)


def test_a_mean_over_a_single_task_is_not_shown(comparison):
    rung = comparison.rungs[0]
    alone = tuple(s for s in rung.scores if s.kind != "target" or s.task in ("wiki", "macro"))
    assert [t.name for t in tasks_of(dataclasses.replace(rung, scores=alone), GROUPS[0])] == ["wiki"]
