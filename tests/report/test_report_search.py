"""The search's evidence stands on the page as it was stored, and what is missing is said, not invented."""

import csv
import dataclasses
import html
import json
import re

import orjson
import pytest
from report_fixture import ATTACK, DOMAINS, make_run

from quadmix.cli.table import candidate_table
from quadmix.io.atomic import read_json, read_value, write_json
from quadmix.report import write_report
from quadmix.report.load import load_run
from quadmix.report.search_facts import shots
from quadmix.types import Confirmation, LearningCurve, LearningPoint, Proposal, Trial

NAN = float("nan")


def page_of(folder):
    """Return the page's text without markup, one space between words."""
    return flat(write_report(folder).read_text("utf-8"))


def flat(page):
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", page)).split())


def row_of(text, name, cells):
    """Return the first `cells` words behind the row that begins with `name`."""
    return text.split(f" {name} ", 1)[1].split()[:cells]


def rewrite(folder, cls, file, **changes):
    path = folder / "search" / file
    write_json(path, dataclasses.replace(read_value(path, cls), **changes))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("search") / "run", documents=400)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def text(done):
    return flat((done / "report.html").read_text("utf-8"))


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "run", documents=300)


def test_predicted_and_measured_stand_side_by_side_with_their_difference(text):
    """theta-star: predicted 1.9612, measured 1.9700: it promised 0.0088 too much."""
    part = text.split("Candidates, bits per byte", 1)[1]
    row = "θ* of the search 1.9612 1.9500 to 1.9900 1.9700 1.9630 to 1.9770 3 −0.0088"
    assert row in part
    assert "paper 1.9642 1.9500 to 1.9900 not tried" in part
    assert "best observed (the same θ as θ* of the search) 1.9672 1.9500 to 1.9900 1.9700" in part
    assert "promised 0.0122 bits per byte better than the surrogate of the other half confirmed" in part


def test_batches_are_listed_with_what_they_were_expected_to_gain(text):
    assert "batch 1 22 – – – –" in text
    assert "batch 2 12 22 1.9100 0.0213 0.0040" in text
    assert "All planned trials were trained; the search did not stop early." in text


def test_an_early_stop_is_told_in_the_words_of_the_stage(folder):
    stage = read_json(folder / "stages/swarm.json")
    stage["warnings"] = ["the search stopped early: the gain was small; 6 trials were not trained"]
    write_json(folder / "stages/swarm.json", stage)
    batches = read_json(folder / "search/batches.json")
    batches[2]["labels"] = []
    write_json(folder / "search/batches.json", batches)
    text = page_of(folder)
    assert "The search stopped early: the gain was small; 6 trials were not trained." in text
    assert "batch 3: not trained 0 34" in text


def test_the_progress_has_every_trial_once_in_order_with_the_least_so_far(done):
    """The data of the figure: reused ones first, then by number; running best against a plain minimum."""
    with (done / "figures/search-progress.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["trial"]) for r in rows] == list(range(1, 41))
    assert [r["batch"] for r in rows] == ["recipe"] * 3 + ["design"] * 19 + ["batch-2"] * 12 + ["batch-3"] * 6
    measured = [float(r["measured"]) for r in rows]
    assert [float(r["running_best"]) for r in rows] == [min(measured[: i + 1]) for i in range(40)]


def test_a_reused_trial_comes_first_whatever_its_label(folder):
    proposal = read_value(folder / "search/proposal.json", Proposal)
    first = proposal.diagnostics[0]
    parity = (*first.parity[:-1], dataclasses.replace(first.parity[-1], trial_id="reused-0-prior-0003"))
    reports = (dataclasses.replace(first, parity=parity), *proposal.diagnostics[1:])
    rewrite(folder, Proposal, "proposal.json", diagnostics=reports)
    found = shots(load_run(folder))
    assert (found[0].trial_id, found[0].batch) == ("reused-0-prior-0003", "reused")
    assert len(found) == 40


def test_the_surrogate_is_judged_beside_the_noise(text):
    """Spearman, R², RMSE, noise, spread, regret@1 and @5, bias, pairs, coverage; then the members."""
    numbers = "0.86 0.76 to 0.92 0.74 0.0120 0.0040 0.0300 0.0040 0.0021 −0.0067 84 % 91 %"
    for target in ("objective", "arc-easy", "wiki"):
        assert f"{target} {numbers}" in text
    assert "target gp-ard ridge arc-easy 75 % 25 %" in text
    assert "100 more trials are forecast to lower the out-of-fold error from 0.0183 to 0.0127" in text


def test_a_forecast_below_the_noise_is_not_taken_at_its_word(folder):
    points = tuple(LearningPoint(trials=n, rmse=0.009, r2=0.5) for n in (9, 18, 32))
    curve = LearningCurve(points=points, forecast=LearningPoint(trials=132, rmse=0.001, r2=0.9))
    rewrite(folder, Proposal, "proposal.json", learning=curve)
    assert "below the noise of one trial, 0.0040: read it as down to the noise" in page_of(folder)


def test_effects_name_what_matters_and_what_is_free(text):
    assert "cutoff ω of web" in text
    assert f"exponent η: in {', '.join(DOMAINS)}" in text
    assert "−0.0061 −0.0090 to −0.0020" in text
    assert "all of web – –" not in text  # its interval holds 0, so it distinguishes nothing


def test_values_of_a_group_are_those_of_its_domain(done, text):
    """The table shows θ's own cutoff in the order of the features' domains."""
    path = done / "search/proposal.json"
    theta = read_value(path, Proposal).candidates[0].theta
    for name in ("books", "other"):
        shown = float(row_of(text, f"cutoff ω of {name}", 1)[0])
        assert shown == pytest.approx(float(theta.cutoff[DOMAINS.index(name)]), rel=0.01)


def test_shares_of_all_candidates_are_in_the_table(done):
    with (done / "figures/candidate-shares.csv").open(encoding="utf-8", newline="") as file:
        rows = {r["domain"]: r for r in csv.DictReader(file)}
    assert set(rows) == set(DOMAINS)
    assert float(rows["other"]["paper"]) == pytest.approx(6 / 21)


def table_of(folder, figure: str):
    with (folder / f"figures/{figure}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_trials_are_those_of_least_measured_objective_with_their_own_shares(done):
    rows = table_of(done, "best-trials")
    proposal = read_value(done / "search/proposal.json", Proposal)
    report = next(r for r in proposal.diagnostics if r.target == "objective" and r.surrogate != "paper")
    least = sorted(report.parity, key=lambda p: p.measured)[:10]
    assert [r["trial_id"] for r in rows] == [*(p.trial_id for p in least), "theta-star"]
    for row, point in zip(rows, least, strict=False):
        trial = read_value(done / f"trials/{point.trial_id}.json", Trial)
        assert [float(row[f"share_{d}"]) for d in DOMAINS] == pytest.approx(trial.shares)
        assert float(row["predicted_out_of_fold"]) == pytest.approx(point.predicted)


def test_interactions_are_listed_and_only_a_clear_one_is_marked(done, text):
    rows = table_of(done, "interactions")
    assert len(rows) == len(DOMAINS) * (len(DOMAINS) - 1) // 2
    assert float(rows[0]["difference"]) == -0.002
    svg = (done / "figures/interactions.svg").read_text("utf-8")
    assert svg.count("−2.00") == 1
    assert "beyond the 90 % interval over refits" in text


def test_report_json_has_the_numbers_and_no_theta(done):
    facts = json.loads((done / "report.json").read_text("utf-8"))
    search, confirmed = facts["search"], facts["confirmation"]
    assert search["optimism"]["optimism"] == 0.0122
    assert search["learning"]["forecast"]["rmse"] == 0.0127
    assert search["best_observed"] == 1.9077
    assert [b["trials"] for b in search["batches"]] == [22, 12, 6]
    assert [s["target"] for s in search["surrogates"]] == ["objective", "arc-easy", "wiki"]
    star, paper = search["candidates"][:2]
    assert (star["predicted"], star["measured"], paper["measured"]) == (1.9612, 1.97, None)
    assert (confirmed["winner"], confirmed["confirmed"], len(confirmed["rounds"])) == ("theta-star", True, 3)
    assert '"theta":' not in (done / "report.json").read_text("utf-8")


def test_a_refusal_says_what_was_tried_and_what_it_would_take(tmp_path):
    """As after exit code 3: no dataset, no comparison, all candidates with rounds, seeds and differences."""
    folder = make_run(tmp_path / "r", documents=300, confirmed=False)
    for name in (
        "evaluate/comparison.json",
        "dataset/manifest.json",
        "selection/manifest.json",
        "samples.parquet",
    ):
        (folder / name).unlink()
    head = page_of(folder).split("Is it better?")[0]
    assert "Why nothing is recommended The gain is inside the noise." in head
    assert "What it would take: About 77 seeds would show it." in head
    assert "θ* of the search 2 3 1.9700 1.9630 to 1.9770 −0.0010 −0.0070 to +0.0050 not told apart" in head
    assert "prior mean 2 3 1.9710 1.9640 to 1.9780 – – the control" in head
    assert "single edu 1 3 1.9977 1.9907 to 2.0047 – – left: among the worse of 2" in head


def test_a_confirmed_run_shows_no_refusal(text):
    assert "Why nothing is recommended" not in text
    assert "bits per byte, θ* of the search over prior mean, +0.0060 to +0.0180; 3 seeds, 2 tried" in text


def test_an_old_run_without_the_new_parts_is_shown(folder):
    """A proposal of before: target_weights instead of an objective, none of the evidence that came later."""
    path = folder / "search/proposal.json"
    data = read_json(path)
    data["target_weights"] = data.pop("objective")["weights"]
    for name in ("learning", "optimism", "batches", "effects", "surrogate", "best_observed", "interactions"):
        del data[name]
    data["diagnostics"] = [d for d in data["diagnostics"] if d["target"] != "objective"]
    for part in data["diagnostics"]:
        for name in ("regret_at_5", "best_decile_bias", "members"):
            del part[name]
    data["candidates"] = [{k: v for k, v in data["candidates"][0].items() if k != "shares"}]
    write_json(path, data)
    confirm = read_json(folder / "search/confirm.json")
    write_json(
        folder / "search/confirm.json", {k: v for k, v in confirm.items() if k not in ("rounds", "needed")}
    )
    (folder / "search/batches.json").unlink()
    (folder / "stages/confirm.json").unlink()
    text = page_of(folder)
    assert "The effects of the parameters are not stored in this run." in text
    assert "is not known: too few trials to halve them" in text
    assert "paper not proposed – –" in text
    made = json.loads((folder / "report.json").read_text("utf-8"))["figures"]
    absent = {
        "search-progress",
        "learning-curve",
        "effects",
        "candidate-shares",
        "interactions",
        "best-trials",
    }
    assert not absent & set(made)


def test_an_unknown_noise_is_said_and_breaks_nothing(folder):
    proposal = read_value(folder / "search/proposal.json", Proposal)
    reports = tuple(
        dataclasses.replace(r, noise_sd=NAN, regret_at_1=NAN, spearman_low=NAN) for r in proposal.diagnostics
    )
    batches = tuple(dataclasses.replace(b, noise=NAN) for b in proposal.batches)
    learning = LearningCurve(points=proposal.learning.points[:1], forecast=None)
    rewrite(
        folder, Proposal, "proposal.json", noise_sd=NAN, best_observed=NAN, diagnostics=reports,
        batches=batches, learning=learning,
    )  # fmt: skip
    text = page_of(folder)
    assert "noise of one trial unknown" in text
    assert "The noise is unknown, so only groups without any effect are named." in text
    assert "Too few trials to forecast" in text
    assert not re.search(r"\bnan\b", text.split("Facts of the stages")[0])


def test_a_proposal_without_candidates_or_effects_breaks_nothing(folder):
    rewrite(folder, Proposal, "proposal.json", candidates=(), effects=(), diagnostics=(), batches=())
    text = page_of(folder)
    assert "θ* of the search not proposed" in text
    assert "Shares of the domains Not stored in this run." in text


def test_another_kind_of_confirmation_forbids_comparing_levels(folder):
    path = folder / "recipe.resolved.yaml"
    path.write_text(path.read_text("utf-8").replace("confirm:\n", "confirm:\n  model: {size: 1M}\n"), "utf-8")
    data = path.read_text("utf-8")
    assert "size: 1M" in data
    lines = [line for line in data.splitlines() if line != "  model: null"]
    path.write_text("\n".join(lines), "utf-8")
    assert "compare differences between candidates, not the levels" in page_of(folder)


def test_hostile_names_of_candidates_trials_and_domains_are_inert(tmp_path):
    """Names of criteria and domains reach labels, effects, shares and reasons: never as markup."""
    folder = make_run(tmp_path / "r", documents=300, nasty=True, confirmed=False)
    rewrite(folder, Confirmation, "confirm.json", needed=ATTACK, reason=f"Not confirmed: {ATTACK}")
    page = write_report(folder).read_text("utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("single:&lt;/script&gt;") >= 3
    for name in ("search-progress", "effects", "candidate-shares", "confirmation", "interactions"):
        svg = (folder / f"figures/{name}.svg").read_text("utf-8")
        assert "<script" not in svg
        assert not re.search("[\x00\x1b\u202e]", svg)
    cells = orjson.loads((folder / "report.json").read_bytes())["search"]["candidates"][-1]["name"]
    assert not re.search("[\x00\x1b\u202e]", cells)


def test_the_terminal_shows_prediction_measurement_and_winner(done):
    """After `quadmix search`: one line per candidate that was tried, the winner marked."""
    proposal = read_value(done / "search/proposal.json", Proposal)
    confirmation = read_value(done / "search/confirm.json", Confirmation)
    lines = candidate_table(proposal, confirmation)
    assert [line.split()[0] for line in lines[1:4]] == ["theta-star", "prior-mean", "single:edu"]
    assert lines[1].split()[1:] == [
        "1.9612", "1.9500..1.9900", "1.9700", "1.9630..1.9770", "3", "-0.0120", "[-0.0180,", "-0.0060]",
        "<-", "winner",
    ]  # fmt: skip
    assert sum("winner" in line for line in lines) == 1
    assert "too good by about 0.0122" in lines[-1]
    bare = dataclasses.replace(confirmation, against=())
    assert len(candidate_table(dataclasses.replace(proposal, optimism=None, candidates=()), bare)) == 4
