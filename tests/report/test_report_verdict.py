"""The verdict is honest: it names every baseline that θ* does not beat and every promise that broke."""

import dataclasses

import pytest
from report_fixture import make_pair, make_run

from quadmix.errors import InputError
from quadmix.io.atomic import read_value, write_json
from quadmix.report import verdict
from quadmix.types import Comparison, Confirmation, DatasetManifest, Proposal, Rung


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "run", documents=600)


def tiles(result):
    return {fact.name: fact for fact in result.facts}


def rewrite(path, cls, **changes):
    """Change fields of a stored value."""
    write_json(path, dataclasses.replace(read_value(path, cls), **changes))


def test_a_baseline_inside_the_interval_is_named_as_not_beaten(folder):
    """top:edu is 0.004 behind with an interval of ±0.006: the sentence must not claim a win over it."""
    result = verdict(folder)
    assert result.outcome == "mixed"
    assert result.sentence == (
        "θ* did NOT beat 1 of 4 baselines on this corpus, not told apart: top edu (gain +0.0040 bits per "
        "byte, interval −0.0020 to +0.0100). It beat the other 3."
    )
    assert result.beaten.startswith(
        "Beaten: prior mean by 0.0130, RegMix by 0.0210, random by 0.0520. A gain is"
    )
    assert tiles(result)["Gain over best baseline"].tone == "warn"


def test_a_baseline_that_is_better_comes_first_and_is_red(tmp_path):
    """Of four baselines one is better by 0.025 ± 0.006, one is not told apart, two are beaten."""
    gains = {"random": 0.05, "top:edu": 0.004, "dsir": -0.025, "regmix": 0.02}
    result = verdict(make_run(tmp_path / "r", documents=300, gains=gains))
    assert result.outcome == "mixed"
    assert result.sentence.startswith(
        "θ* is worse than 1 of 4 baselines on this corpus: DSIR (gain −0.0250 bits per byte, interval "
        "−0.0310 to −0.0190). It did NOT beat 1 more, not told apart from it: top edu ("
    )
    assert result.sentence.endswith("). It beat the other 2.")
    tile = tiles(result)["Gain over best baseline"]
    assert (tile.tone, tile.value) == ("bad", "−0.0250")
    assert tile.note.endswith("beats 2 of 4, not told apart from 1, worse than 1")
    assert "above 0, θ* is better" in result.beaten
    assert "below 0, θ* is better" in result.beaten


def rungs(folder, *gains):
    """Give the comparison a rung for each mapping of baselines to gains, named A, B, …"""
    path = folder / "evaluate/comparison.json"
    stored = read_value(path, Comparison)
    made = tuple(
        Rung(
            name=name, parameters=1, train_tokens=1, learning_rate=1.0, budget=1.0, match="tokens", seeds=3,
            measured=(), against=tuple(make_pair("quadmix", c, g) for c, g in own.items()), verdict="",
            detectable=0.01,
        )
        for name, own in zip("ABC", gains, strict=False)
    )  # fmt: skip
    write_json(path, dataclasses.replace(stored, rungs=made, against=made[0].against))


@pytest.mark.parametrize(
    ("second", "tone", "said"),
    [
        ({"random": -0.03, "dsir": -0.01}, "bad", "At B it is worse than random, DSIR."),
        ({"random": 0.05, "dsir": 0.001}, "warn", "At B it did NOT beat DSIR (not told apart)."),
        ({"random": 0.001, "dsir": 0.001}, "bad", "At B it did NOT beat random, DSIR (not told apart)."),
        ({"random": 0.03, "dsir": -0.01}, "bad", "At B it is worse than DSIR."),
        ({"random": 0.05, "dsir": 0.015}, "good", "At B it beat all 2."),
        ({}, "warn", "At B nothing was compared."),
    ],
)
def test_the_tile_is_of_the_worst_rung_and_names_it(folder, second, tone, said):
    rungs(folder, {"random": 0.05, "dsir": 0.02}, second)
    result = verdict(folder)
    tile = tiles(result)["Gain over best baseline"]
    assert tile.tone == tone
    assert result.sentence.startswith("θ* beat all 2 baselines on this corpus at A: the closest, DSIR, by")
    assert said in result.sentence
    assert result.outcome == ("better" if tone == "good" else "mixed")
    least = min(second.values(), default=0.02)
    assert tile.data["gain"] == pytest.approx(least)
    assert ("at B: " in tile.note) == bool(second)


def test_a_first_rung_without_pairs_hides_no_other(folder):
    rungs(folder, {}, {"random": -0.03})
    result = verdict(folder)
    assert result.sentence.startswith(
        "θ* is worse than the only baseline on this corpus at B: random (gain −0.03"
    )
    assert "At A nothing was compared." in result.sentence
    assert tiles(result)["Gain over best baseline"].tone == "bad"


def test_beating_all_reports_the_smallest_gain(tmp_path):
    result = verdict(make_run(tmp_path / "r", documents=300, gains={"random": 0.05, "regmix": 0.01}))
    assert result.outcome == "better"
    assert "θ* beat all 2 baselines on this corpus: the closest, RegMix, by +0.0100" in result.sentence
    assert "NOT" not in result.sentence


def test_beating_none_says_so_and_so_does_the_missing_confirmation(tmp_path):
    folder = make_run(tmp_path / "r", documents=300, gains={"random": -0.02}, confirmed=False)
    result = verdict(folder)
    assert result.outcome == "not better"
    assert result.sentence.startswith(
        "θ* is worse than the only baseline on this corpus: random (gain −0.0200"
    )
    assert "had NOT confirmed θ*" in result.sentence
    assert any("unconfirmed" in text for text in result.broken)
    assert tiles(result)["Confirmed gain"].tone == "bad"


def test_an_unknown_interval_is_never_a_win(folder):
    """With one seed the interval is NaN (null in JSON); that is not evidence."""
    path = folder / "evaluate/comparison.json"
    pairs = read_value(path, Comparison).against
    nan = float("nan")
    rewrite(path, Comparison, against=tuple(dataclasses.replace(p, low=nan, high=nan) for p in pairs))
    assert verdict(folder).outcome == "not better"


def test_without_comparison_the_confirmation_decides_and_the_gap_is_said(folder):
    (folder / "evaluate/comparison.json").unlink()
    result = verdict(folder)
    assert "beat its control in fresh proxies" in result.sentence
    assert "No comparison with baselines has been run" in result.sentence
    assert tiles(result)["Gain over best baseline"].tone == "absent"


def test_a_sound_run_breaks_no_promise(folder):
    result = verdict(folder)
    assert result.broken == ()
    assert {f.name: f.tone for f in result.facts}["Documents kept"] == "good"


def test_a_ledger_that_does_not_add_up_is_red(folder):
    path = folder / "dataset/manifest.json"
    ledger = read_value(path, DatasetManifest).ledger
    rewrite(path, DatasetManifest, ledger=dataclasses.replace(ledger, rows_in=ledger.rows_in + 1))
    result = verdict(folder)
    assert len(result.broken) == 1
    assert result.broken[0].startswith("P4 ledger: rows in 604, but selected + dropped + quarantined 603")
    assert tiles(result)["Documents kept"].tone == "bad"


def test_a_missed_budget_is_red(folder):
    path = folder / "dataset/manifest.json"
    rewrite(path, DatasetManifest, token_budget=3 * read_value(path, DatasetManifest).token_budget)
    result = verdict(folder)
    assert [text[:18] for text in result.broken] == ["P10 budget missed:"]


def test_a_surrogate_below_one_half_is_red_whatever_a_rejected_one_says(folder):
    """Only surrogates stored with their parity steered the search; the objective counts, else the weakest."""
    path = folder / "search/proposal.json"
    reports = [r for r in read_value(path, Proposal).diagnostics if r.target != "objective"]
    low = [
        dataclasses.replace(r, spearman=0.3, parity=()) if r.surrogate == "lightgbm" else r for r in reports
    ]
    rewrite(path, Proposal, diagnostics=tuple(low))
    assert verdict(folder).broken == ()
    low = [dataclasses.replace(r, spearman=0.3) if r.target == "wiki" else r for r in reports]
    rewrite(path, Proposal, diagnostics=tuple(low))
    result = verdict(folder)
    assert tiles(result)["Surrogate rank correlation"].data["target"] == "wiki"
    assert "Spearman 0.30 < 0.5" in result.broken[0]
    rewrite(path, Proposal, diagnostics=(*low, dataclasses.replace(reports[0], target="objective")))
    assert verdict(folder).broken == ()


def test_the_control_is_never_called_theta_star(folder):
    """If the prior mean won the confirmation, what was compared is the prior mean."""
    rewrite(folder / "search/confirm.json", Confirmation, winner="prior-mean", confirmed=False)
    assert verdict(folder).sentence.startswith("The chosen mixture, prior mean itself, did NOT beat 1 of 4")


def test_warnings_of_stages_and_failed_trials_are_counted(folder):
    result = verdict(folder)
    assert result.warnings == (
        "annotate: domain 'news' has 12 documents and was merged into 'other'",
        "swarm: 2 of 48 trials failed (prior-0046, prior-0047)",
    )
    assert tiles(result)["Warnings"].value == "2"
    assert tiles(result)["Warnings"].link == "warnings"


def test_a_warning_names_its_stage_once(folder):
    """The stage `evaluate` writes its name into its warnings itself."""
    path = folder / "stages/evaluate.json"
    write_json(path, {"stage": "evaluate", "seconds": 1.0, "warnings": ["evaluate: one item only", "two"]})
    said = [w for w in verdict(folder).warnings if "evaluate" in w]
    assert said == ["evaluate: one item only", "evaluate: two"]


def test_an_empty_run_is_not_decided_and_a_missing_one_is_an_error(tmp_path):
    result = verdict(tmp_path)
    assert result.outcome == "unknown"
    assert {f.tone for f in result.facts[:6]} == {"absent"}
    with pytest.raises(InputError, match="does not exist"):
        verdict(tmp_path / "none")
