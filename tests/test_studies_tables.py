"""The page docs/reproduction.md: small results of the studies' own functions -> its tables."""

import json
import sys

import pytest
from small_results import MADE, ROOT

sys.path.insert(0, str(ROOT / "studies"))

import cells
import common
import tables

PAGE = "\n\n".join(["# Page", *(f"<!-- table:{n} -->\nold\n<!-- /table -->" for n in tables.BLOCKS), "end\n"])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the studies' `save` writes of small results, read back as the page's command reads it."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "RESULTS", folder)
        patch.setattr(sys, "argv", ["/somewhere/studies/r0.py", "--tokens", "2000"])
        for name, make in MADE.items():
            common.save(name, make())
    return tables.read_results(folder)


def block(page, name):
    return page.partition(f"<!-- table:{name} -->")[2].partition("<!-- /table -->")[0].strip().splitlines()


def cells_of(lines, first):
    """Return the cells of the row that begins with `first`."""
    row = next(line for line in lines if line.startswith(f"| {first} |"))
    return row.removeprefix("| ").removesuffix(" |").split(" | ")


@pytest.fixture(scope="module")
def page(results):
    return tables.render(PAGE, results)


def test_every_table_has_one_width_and_every_block_its_command(page):
    for name in tables.BLOCKS:
        lines = block(page, name)
        assert lines[-1].startswith("Made by `python studies/r0.py --tokens 2000`, torch 2."), name
        widths = 0
        for line in lines:
            columns = line.count(" | ")
            widths = columns if line.startswith("|") and not widths else widths
            assert not line.startswith("|") or columns == widths, f"{name}: {line}"
            widths = widths if line.startswith("|") else 0
    assert "None" not in page
    assert "nan" not in page.replace("finance", "")


def test_text_between_blocks_is_kept_and_a_second_time_changes_nothing(page, results):
    assert page.startswith("# Page\n")
    assert page.endswith("end\n")
    assert "old" not in page.splitlines()
    assert tables.render(page, results) == page


def test_blocks_without_a_result_name_the_command():
    page = tables.render(PAGE, {})
    assert block(page, "r3_main") == ["not run yet: `python studies/r3_main.py`"]
    assert all(len(block(page, name)) == 1 for name in tables.BLOCKS)


def test_parts_of_r8_that_were_not_run_are_named(results):
    some = {k: v for k, v in results["r8_ablations"].items() if k not in ("rank", "noise")}
    page = tables.render(PAGE, {"r8_ablations": some})
    missing = [n for n in tables.BLOCKS if n.startswith("r8") and len(block(page, n)) == 1]
    assert missing == ["r8_rank", "r8_rounded", "r8_noise"]


def test_both_rungs_are_preferred_to_the_first_alone(results):
    base = json.loads(json.dumps(results["r3_main"]))
    base["comparison"]["rungs"], base["comparison"]["transfers"] = base["comparison"]["rungs"][:1], []
    alone = tables.render(PAGE, {"r3_base": base})
    assert not any("**5M**" in line for line in block(alone, "r3_main"))
    assert block(alone, "r3_transfer")[0].startswith("One rung")
    both = tables.render(PAGE, {"r3_base": base, "r3_main": results["r3_main"]})
    assert any("**5M**" in line for line in block(both, "r3_main"))


def test_differences_are_bold_only_beyond_their_interval():
    row = {"difference": -0.0186, "low": -0.0492, "high": 0.012}
    assert cells.difference(row) == "-0.0186 [-0.0492, +0.0120]"
    assert cells.difference({**row, "high": -0.0001}) == "**-0.0186 [-0.0492, -0.0001]**"
    assert cells.difference({**row, "low": None, "high": None}) == "-0.0186 [no interval]"
    assert cells.difference(None) == "–"
    assert cells.difference({"n": 0}, key="mean") == "–"
    assert cells.number(None) == cells.number(float("nan")) == "–"


def test_r2_shows_the_means_and_what_refuses(page, results):
    row = next(r for r in results["r2_surrogate"]["rows"] if r["surrogate"] == "ridge" and r["trials"] == 30)
    lines = block(page, "r2_spearman")
    assert cells_of(lines, "ridge")[3] == cells.spread(row["spearman"], ".2f")
    assert cells_of(lines, "svr-linear")[2] == "–"  # 8 trials are too few
    assert f"{results['r2_surrogate']['mae_of_the_mean']:.4f}" in block(page, "r2_error")[0]


def test_r3_rung_holds_verdict_detectable_difference_and_percent(page, results):
    rung, lines = results["r3_main"]["comparison"]["rungs"][0], block(page, "r3_main")
    assert rung["verdict"] in lines
    pair = next(p for p in rung["against"] if p["control"] == "top:edu")
    loss = next(m["mean"] for m in rung["measured"] if m["label"] == "quadmix")
    row = cells_of(lines, "top:edu")
    assert row[3] == f"{pair['difference']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]"
    assert float(row[4]) == pytest.approx(100 * pair["high"] / loss, abs=0.005)
    assert cells_of(lines, "random")[3].startswith("**-0.1")
    assert any(
        f"{rung['detectable']:.4f} bits per byte; said before training: at least 0.0300" in x for x in lines
    )
    assert "- left out: dsir: it reached 10 of 20 tokens" in lines


def test_r3_benchmarks_stand_beside_chance_and_tasks_are_bold_after_holm_alone(page):
    lines = block(page, "r3_benchmarks")
    assert "accuracy (chance 0.2500)" in lines[2]
    assert cells_of(lines, "random")[2].startswith("**+0.3")
    tasks = block(page, "r3_tasks")
    arc, csqa = cells_of(tasks, "arc"), cells_of(tasks, "csqa")
    assert arc[5].startswith("**+0.")
    assert not csqa[5].startswith("**")


def test_r4_row_is_the_summary_s(page, results):
    lines = block(page, "r4_criteria")
    first = next(r for r in results["r4_criteria"]["rows"] if r["label"] == "a")
    assert cells_of(lines, "a")[2:5] == ["1.0000", "2.0000", cells.spread(first)]
    assert cells_of(lines, "top:a")[1:4] == ["top cut", "–", "–"]
    assert cells_of(lines, "quadmix")[1] == "all, full search"
    assert cells_of(lines, "a+b")[5] == "–"
    assert cells_of(block(page, "r4_count"), "2")[3].startswith("**-0.1996")


def test_r5_compares_with_random_by_seed(page):
    fixed, epochs = block(page, "r5_tokens"), block(page, "r5_epochs")
    assert cells_of(fixed, "x1")[6] == "–"
    assert cells_of(fixed, "x2")[6].startswith("**+0.0")
    assert cells_of(fixed, "x1")[9].startswith("**-0.1")
    assert cells_of(epochs, "x1")[7] == cells_of(fixed, "x1")[9]
    own = cells_of(block(page, "r5_contrasts"), "x1 minus x2")
    flipped = cells_of(fixed, "x2")[6].strip("*").partition(" ")[0].replace("+", "-")
    assert own[1].strip("*").partition(" ")[0] == flipped, "x2 minus x1, turned round"
    assert float(own[2].strip("*").partition(" ")[0]) == pytest.approx((2.0 - 2.1) - (2.05 - 2.06), abs=0.02)


def test_r6_signs_and_the_surrogate_s_own_quality(page):
    lines = block(page, "r6_tasks")
    assert cells_of(lines, "boolq")[1:3] == ["0.70 [0.50, 0.80]", "+0.1000"]
    assert cells_of(lines, "boolq")[4] == "yes"
    assert cells_of(lines, "answers")[4] == "no"
    pair = cells_of(block(page, "r6_contrasts"), "theta-answers minus theta-benchmarks")
    family = cells_of(block(page, "r6_families"), "theta-answers minus theta-benchmarks")
    heads = [
        cells_of(block(page, n), first)
        for n, first in (("r6_contrasts", "selections"), ("r6_families", "selection"))
    ]
    assert [p.partition(" ")[0] for p in pair[1:]] == [
        family[heads[1].index(h)].partition(" ")[0] for h in heads[0][1:]
    ]
    assert cells_of(block(page, "r6_search"), "share of web")[1:] == ["50.0 %", "60.0 %"]
    assert cells_of(block(page, "r6_targets"), "boolq")[1:] == ["500", "400", "100"]


def test_r7_and_r8_rows(page, results):
    pair = results["r7_transfer"]["sizes"][0]
    row = cells_of(block(page, "r7_sizes"), "1M")
    assert row[1:4] == ["5M", "3", f"{pair['spearman']:.2f} [{pair['low']:.2f}, {pair['high']:.2f}]"]
    assert cells_of(block(page, "r7_rungs"), "5M")[7].startswith("**-0.1")
    assert cells_of(block(page, "r8_rank"), "paper")[3].startswith("**+0.0150")
    assert cells_of(block(page, "r8_selected"), "2000")[2:] == ["–"] * 4


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (PAGE.replace("<!-- /table -->", "", 1), "must end with"),
        (PAGE + PAGE, "stand there once"),
        (PAGE.replace("table:r3_main", "table:r3_mian"), "r3_main, r3_mian"),
    ],
)
def test_a_broken_page_is_refused(page, words):
    with pytest.raises(SystemExit, match=words):
        tables.render(page, {})


def test_a_result_of_another_version_names_its_command(results):
    old = {k: v for k, v in results["r5_tokens"].items() if k != "rows"}
    with pytest.raises(SystemExit, match=r"KeyError\('rows'\).*python studies/r5_tokens.py"):
        tables.render(PAGE, {"r5_tokens": old})


def test_check_fails_until_the_page_is_rewritten(tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text(PAGE, encoding="utf-8")
    options = ["tables.py", "--page", str(tmp_path / "page.md"), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*options, "--check"])
    with pytest.raises(SystemExit) as stop:
        tables.main()
    assert "python studies/tables.py" in str(stop.value.code)  # a message, so the exit code is 1
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == PAGE
    monkeypatch.setattr(sys, "argv", options)
    tables.main()
    monkeypatch.setattr(sys, "argv", [*options, "--check"])
    tables.main()


def test_the_page_of_the_documentation_is_what_the_results_give():
    text = tables.PAGE.read_text(encoding="utf-8")
    assert tables.render(text, tables.read_results(tables.RESULTS)) == text, "run python studies/tables.py"


def test_r3_likeness_shows_the_weights_beside_the_comparison(page):
    assert block(page, "r3_likeness")[-3] == "θ*'s weights, mean over the domains: likeness 0.75, rules 0.25."
    assert block(page, "r3_likeness")[:-4] == block(page, "r3_main")[:-2]
