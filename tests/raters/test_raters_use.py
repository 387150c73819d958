"""A trained rater in use: as a criterion of a run, on files, and what is selected by its scores."""

import json
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from parallel_world import cli
from typer.testing import CliRunner

from quadmix.cli.main import app
from quadmix.errors import InputError, RecipeError


def test_the_rater_is_a_criterion_of_a_run(world: Path, tmp_path: Path):
    settings = tmp_path / "run.yaml"
    settings.write_text(
        f"""
name: mixed
corpus: {{paths: [{world / "corpus.jsonl"}]}}
annotate:
  domain: {{kind: column, column: lang, min_documents: 1}}
  criteria: [{{name: murating, kind: model, model: {world / "raters/small/model/card.yaml"}}}]
budget: {{share: 0.2}}
targets: [{{name: t, path: {world / "corpus.jsonl"}, text: text, limit: 5}}]
run: {{folder: {tmp_path / "runs"}}}
""",
        "utf-8",
    )
    done = CliRunner().invoke(app, ["annotate", str(settings)])
    assert done.exit_code == 0, done.output
    columns = pq.read_table(next((tmp_path / "runs/mixed/annotations").glob("part-*.parquet"))).to_pydict()
    score = next(v for k, v in columns.items() if k.endswith("murating"))
    assert all(np.isfinite(score))


def test_scores_of_files_say_what_gave_them(world: Path, tmp_path: Path):
    card = str(world / "raters/small/model/card.yaml")
    long = " ".join(["theory evidence of the river ."] * 400) + " ".join([" click buy now free ."] * 400)
    rows = [{"id": "a", "text": "theory of history", "lang": "en"}, {"id": "b", "text": long, "lang": "xa"}]
    rows.append({"id": "c", "text": "  ", "lang": None})
    path = tmp_path / "docs.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(r) for r in rows))
    done = cli("score", card, str(path), "--out", str(tmp_path / "s.parquet"), "--language", "lang")
    assert done.exit_code == 0, done.output
    assert "2 of 3 documents have a score" in done.output
    found = {r["id"]: r for r in pq.read_table(tmp_path / "s.parquet").to_pylist()}
    assert found["c"]["score"] is None
    assert (found["a"]["windows"], found["a"]["spread"]) == (1, 0.0)
    assert found["a"]["first"] == found["a"]["least"] == found["a"]["score"]
    assert found["b"]["windows"] > 1
    assert found["b"]["first"] > found["b"]["score"] > found["b"]["least"], (
        "it begins well and ends as an advert"
    )
    assert found["b"]["spread"] > 0
    origin = json.loads((tmp_path / "s.parquet.json").read_text("utf-8"))
    assert origin["missing"] == {"empty_text": 1}
    assert origin["languages"] == {"": 1, "en": 1, "xa": 1}
    reference = json.loads((world / "raters/small/model/reference.json").read_text("utf-8"))
    assert found["a"]["z"] == pytest.approx(
        (found["a"]["score"] - reference["mean"]) / reference["sd"], abs=1e-4
    )
    offsets = json.loads((world / "raters/small/model/offsets.json").read_text("utf-8"))["languages"]
    (xa,) = [one["value"] for one in offsets if one["language"] == "xa"]
    assert xa != 0
    assert found["b"]["calibrated"] == pytest.approx(found["b"]["score"] - xa, abs=1e-5)
    assert found["a"]["calibrated"] == found["a"]["score"], "English is the reference"
    assert found["c"]["calibrated"] is None
    strange = ["--in-language", "qq", "--out", str(tmp_path / "q.parquet")]
    assert cli("score", card, str(path), *strange).exit_code == 0
    assert pq.read_table(tmp_path / "q.parquet")["calibrated"].null_count == 3, "no offset is known"


def test_selection_by_score_takes_the_best_of_every_language(world: Path, tmp_path: Path):
    card, corpus = str(world / "raters/small/model/card.yaml"), str(world / "corpus.jsonl")
    table = tmp_path / "s.parquet"
    assert cli("score", card, corpus, "--out", str(table), "--language", "lang").exit_code == 0
    rows = pq.read_table(table).to_pylist()
    done = cli("select", str(table), "--out", str(tmp_path / "top.parquet"), "--share", "0.2")
    assert done.exit_code == 0, done.output
    taken = {r["id"] for r in pq.read_table(tmp_path / "top.parquet").to_pylist()}
    for code in ("en", "xa", "xb"):
        own = sorted((r for r in rows if r["language"] == code), key=lambda r: -r["score"])
        units, budget, expected = 0, 0.2 * sum(r["units"] for r in own), set[str]()
        for row in own:
            if units < budget:
                expected.add(row["id"])
                units += row["units"]
        assert {r["id"] for r in own} & taken == expected
    equal = ["--units", "3000", "--alpha", "0", "--how", "sample", "--temperature", "2", "--json"]
    found = json.loads(cli("select", str(table), "--out", str(tmp_path / "x.parquet"), *equal).stdout)
    assert all(1000 <= one["tokens"] < 1200 for one in found["languages"])
    half = ["--how", "threshold", "--share", "0.5", "--json"]
    found = json.loads(cli("select", str(table), "--out", str(tmp_path / "y.parquet"), *half).stdout)
    assert [one["documents"] for one in found["languages"]] == [45, 45, 45]
    both = cli("select", str(table), str(table), "--out", str(tmp_path / "z.parquet"))
    assert "twice" in str(both.exception)
    assert cli("select", str(table), "--out", str(tmp_path / "z.parquet"), "--part", "en").exit_code == 2


def test_bad_files_are_refused_by_name(world: Path, tmp_path: Path):
    card = str(world / "raters/small/model/card.yaml")
    path = tmp_path / "docs.jsonl"
    path.write_bytes(orjson.dumps({"id": "a", "body": "x"}))
    done = cli("score", card, str(path), "--out", str(tmp_path / "s.parquet"))
    assert isinstance(done.exception, InputError)
    assert "row 0: there is no column 'text'" in str(done.exception)
    assert not (tmp_path / "s.parquet").exists()
    gone = cli("score", str(tmp_path / "card.yaml"), str(path), "--out", str(tmp_path / "s.parquet"))
    assert isinstance(gone.exception, InputError | RecipeError)


def test_what_would_do_nothing_is_refused(world: Path, tmp_path: Path):
    table = tmp_path / "s.parquet"
    card, corpus = str(world / "raters/small/model/card.yaml"), str(world / "corpus.jsonl")
    done = cli("score", card, corpus, "--out", str(table), "--in-language", "qq")
    assert "qq: 270 documents; the rater was never trained on it" in done.output
    for wrong in (["--share", "2"], ["--share", "0"], ["--temperature", "2"],
                  ["--alpha", "1", "--part", "en=1"], ["--how", "threshold", "--units", "3"]):  # fmt: skip
        done = cli("select", str(table), "--out", str(tmp_path / "x.parquet"), *wrong)
        assert isinstance(done.exception, RecipeError), wrong


def test_help_teaches_every_step():
    text = cli("--help").output
    for word in ("pairs", "train", "score", "compare", "compare-heads"):
        assert word in text
        assert cli(word, "--help").exit_code == 0
