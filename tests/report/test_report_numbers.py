"""report.json has the numbers of the page for programs: per baseline, per domain, the ledger, the health."""

import json
from pathlib import Path
from typing import Any

import pytest
from facts_fixture import add_facts
from ladder_fixture import make_comparison
from report_fixture import GAINS, make_run

from quadmix.io.atomic import write_json
from quadmix.report.write import write_report


def facts_of(run: Path) -> dict[str, Any]:
    write_report(run)
    return json.loads((run / "report.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers") / "run"
    return add_facts(make_run(folder, documents=600, text="words of a text"))


@pytest.fixture(scope="module")
def facts(run: Path) -> dict[str, Any]:
    return facts_of(run)


def test_every_baseline_has_its_difference_and_its_state(facts: dict[str, Any]) -> None:
    """The fixture's intervals reach 0.006 to both sides of the gain."""
    (rung,) = facts["comparison"]["rungs"]
    found = {s["label"]: s["against"] for s in rung["selectors"]}
    assert found.pop("quadmix") is None
    assert {label: -pair["difference"] for label, pair in found.items()} == GAINS
    assert {n: p["state"] for n, p in found.items()} == {
        n: "beaten" if gain > 0.006 else "tied" for n, gain in GAINS.items()
    }
    assert [s["mean"] for s in rung["selectors"]] == sorted(s["mean"] for s in rung["selectors"])


def test_every_rung_is_there_with_null_for_the_unknown(tmp_path: Path) -> None:
    write_json(tmp_path / "evaluate/comparison.json", make_comparison())
    stored = json.loads((tmp_path / "evaluate/comparison.json").read_text())
    stored["rungs"][1]["against"][0] |= {"low": None, "high": None}
    write_json(tmp_path / "evaluate/comparison.json", stored)
    rungs = facts_of(tmp_path)["comparison"]["rungs"]
    assert [r["name"] for r in rungs] == ["1M", "5M"]
    for mine, kept in zip(rungs, stored["rungs"], strict=True):
        pairs = {p["control"]: p for p in kept["against"]}
        for own in mine["selectors"]:
            if own["label"] != "quadmix":
                pair = pairs[own["label"]]
                worse = pair["low"] is not None and pair["low"] > 0
                beaten = pair["high"] is not None and pair["high"] < 0
                state = "worse" if worse else "beaten" if beaten else "tied"
                expected = {k: pair[k] for k in ("difference", "low", "high", "stderr")}
                assert own["against"] == {**expected, "seeds": pair["pairs"], "state": state}


def test_domains_and_ledger_are_those_of_the_manifest(run: Path, facts: dict[str, Any]) -> None:
    manifest = json.loads((run / "dataset/manifest.json").read_text())
    ledger = manifest["ledger"]
    assert {k: facts["ledger"][k] for k in ledger} == ledger
    assert facts["ledger"]["token_budget"] == manifest["token_budget"]
    found = {d["domain"]: d for d in facts["domains"]}
    assert list(found) == [d["domain"] for d in sorted(manifest["domains"], key=lambda d: -d["tokens_out"])]
    for d in manifest["domains"]:
        assert {k: found[d["domain"]][k] for k in d} == d
        share = d["tokens_out"] / ledger["tokens_out"]
        assert found[d["domain"]]["share_after"] == pytest.approx(share)
        assert found[d["domain"]]["ratio"] == pytest.approx(share / (d["tokens_in"] / ledger["tokens_in"]))


def test_health_counts_models_time_and_bad_rows(run: Path, facts: dict[str, Any]) -> None:
    health = facts["health"]
    trials = [json.loads(p.read_text()) for p in (run / "trials").glob("*.json")]
    for row in health["models"]:
        mine = [t for t in trials if t["kind"] == row["kind"]]
        assert row["done"] + row["failed"] == len(mine)
        assert row["failed"] == sum(t["status"] == "failed" for t in mine)
        assert row["hours"] == pytest.approx(sum(t["seconds"] for t in mine) / 3600)
    assert health["quarantine"] == {"invalid_json": 2, "empty_text": 1}
    assert health["processes"] == 2
    assert health["hours"] == pytest.approx(93 / 3600)
    assert health["worker_hours"] == pytest.approx((72 * 4 + 22 * 2) / 3600)
    swarm = next(s for s in health["stages"] if s["stage"] == "swarm")
    assert (swarm["passes"], swarm["took_longer"]) == (2, True)


def test_there_is_no_text_of_a_document_and_an_empty_run_has_empty_parts(
    run: Path, facts: dict[str, Any], tmp_path: Path
) -> None:
    assert "words of a text" in (run / "report.html").read_text("utf-8")
    assert "words of a text" not in json.dumps(facts)
    empty = facts_of(tmp_path)
    assert [empty[n] for n in ("comparison", "domains", "ledger", "health")] == [{}, [], {}, {}]
