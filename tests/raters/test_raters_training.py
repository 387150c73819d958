"""From pairs to a rater: what is learned, what is kept, what is reported, raters against each other."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import orjson
import pytest
from parallel_world import BAD, GOOD, PLAIN, cli, translate, write_settings

from quadmix.errors import InputError
from quadmix.raters.making import make_pairs, rater_folder
from quadmix.raters.scored import load_rater_model, score_texts
from quadmix.raters.table import (
    read_pairs,
    read_texts,
    write_pairs,
)
from quadmix.raters.tiers import inner_split
from quadmix.raters.training import train_rater
from quadmix.recipe import load_rater


def test_the_rater_orders_unseen_texts_in_every_language(world: Path):
    report = json.loads((world / "raters/small/report.json").read_text("utf-8"))
    assert {one["language"] for one in report["card"]["languages"]} == {"en", "xa", "xb"}
    assert report["card"]["accuracy"]["value"] > 0.75
    assert report["scripts"] is None, "character n-grams have no tokenizer"
    said = (world / "said.txt").read_text("utf-8")
    assert "pair accuracy within languages" in said
    assert "one cut over all languages" in said
    rater = load_rater_model(world / "raters/small/model/card.yaml")
    rng = np.random.default_rng(5)
    good = " ".join(rng.choice(GOOD + PLAIN, 60))
    bad = " ".join(rng.choice(BAD + PLAIN, 60))
    for text in (lambda t: t, lambda t: translate(t, "xa"), lambda t: translate(t, "xb")):
        high, low = rater.score([text(good), text(bad)], _rows(2)).values
        assert high > low


def _rows(n: int):
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.array(["en"] * n)], names=["language"])


def test_the_same_call_loads_and_other_settings_train_anew(world: Path):
    card = world / "raters/small/model/card.yaml"
    stamp = card.stat().st_mtime_ns
    again = cli("train", str(world / "rater.yaml"), "--set", "pairs.count=150", "--json")
    assert card.stat().st_mtime_ns == stamp
    report = json.loads(again.stdout)
    assert report["chosen"]["penalty"] > 0
    recipe = load_rater(str(world / "rater.yaml"), ["name=other", "pairs.count=100"])
    made = make_pairs(recipe, rater_folder(recipe))
    other = train_rater(recipe, rater_folder(recipe), made.digest)
    assert other.request != report["request"]
    assert load_rater(str(rater_folder(recipe) / "recipe.resolved.yaml")) == recipe
    small = load_rater(str(world / "raters/small/recipe.resolved.yaml"))
    assert small == load_rater(str(world / "rater.yaml"), ["pairs.count=150"])


def test_settings_are_chosen_on_sources_of_the_training_part(world: Path):
    folder = world / "raters/small"
    texts = read_texts(folder / "texts.parquet")
    pairs = read_pairs(folder / "pairs.parquet", texts)
    inner = inner_split(texts, pairs, 0)
    drawn = {texts.source[r] for side in (inner.a, inner.b) for r in side[inner.held]}
    rest = {texts.source[r] for side in (inner.a, inner.b) for r in side[~inner.held]}
    held = {texts.source[r] for side in (pairs.a, pairs.b) for r in side[pairs.held]}
    assert drawn
    assert not drawn & rest
    assert not held & (drawn | rest)


def test_held_pairs_decide_nothing(world: Path, tmp_path: Path):
    """The labels of the held pairs turned round change the report but not one number of the rater."""
    own = world / "raters/small"
    folder = tmp_path / "small"
    shutil.copytree(own, folder, ignore=shutil.ignore_patterns("model", "report.json", "lease.json"))
    texts = read_texts(folder / "texts.parquet")
    pairs = read_pairs(folder / "pairs.parquet", texts)
    turned = dataclasses.replace(pairs, p=np.where(pairs.held, 1 - pairs.p, pairs.p))
    write_pairs(folder / "pairs.parquet", turned, texts)
    report = train_rater(load_rater(str(world / "rater.yaml")), folder, "turned")
    weights = [f / "model/rater.safetensors" for f in (own, folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    before = json.loads((own / "report.json").read_text("utf-8"))["card"]["accuracy"]["value"]
    assert report.card.accuracy.value == pytest.approx(1 - before)


def test_raters_are_compared_on_pairs_that_none_has_seen(world: Path):
    own = ["--set", "name=mono", "--set", "transfer.cross=0", "--set", "transfer.parallel=0"]
    done = cli("train", str(world / "rater.yaml"), "--set", "pairs.count=150", *own)
    assert done.exit_code == 0, done.output
    folders = [str(world / "raters/small"), str(world / "raters/mono")]
    done = cli("compare", *folders, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    first, mono = found["raters"]
    texts = read_texts(world / "raters/small/texts.parquet")
    pairs = read_pairs(world / "raters/small/pairs.parquet", texts)
    rater = load_rater_model(world / "raters/small/model/card.yaml")
    scores = score_texts(rater, texts)
    at = pairs.held & (pairs.kind == 0) & (pairs.p != 0.5)
    right = np.sign(scores[pairs.a] - scores[pairs.b])[at] == np.sign(pairs.p - 0.5)[at]
    assert first["within"]["value"] == pytest.approx(right.mean())
    assert first["difference"]["value"] == 0
    assert mono["difference"]["value"] == pytest.approx(mono["within"]["value"] - first["within"]["value"])
    assert found["left_out"] == 0
    lines = cli("compare", *folders).output
    assert "within - first" in lines
    alone = cli("compare", folders[0])
    assert isinstance(alone.exception, InputError)


def test_another_split_shares_no_unseen_pair(world: Path):
    done = cli(
        "train", str(world / "rater.yaml"), "--set", "name=s1", "--set", "seed=1", "--set", "pairs.count=150"
    )
    assert done.exit_code == 0, done.output
    done = cli("compare", str(world / "raters/small"), str(world / "raters/s1"), "--json")
    if done.exit_code == 0:
        assert json.loads(done.stdout)["left_out"] > 0
    else:
        assert "share the split" in str(done.exception)


def test_the_audit_knows_the_domains_of_the_documents(world: Path, tmp_path: Path):
    rows = [orjson.loads(line) for line in (world / "corpus.jsonl").read_bytes().splitlines()]
    for row in rows:
        row["topic"] = "even" if int(row["same"][1:]) % 2 == 0 else "odd"
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes(b"\n".join(orjson.dumps(r) for r in rows))
    settings = write_settings(tmp_path, corpus)
    own = ["--set", "texts.domain=topic", "--set", "texts.human=edu"]
    done = cli("train", str(settings), *own, "--set", "pairs.count=150", "--json")
    assert done.exit_code == 0, done.output
    card = json.loads(done.stdout)["card"]
    assert all(one["human"]["value"] > 0 for one in card["languages"]), "edu follows the quality"
    assert "human" in [scale["reference"] for scale in card["scales"]]
    groups = {s["group"] for s in json.loads(done.stdout)["audit"]["by_language"] if s["kind"] == "domain"}
    assert groups == {"even", "odd"}
    wrong = cli("pairs", str(settings), "--set", "texts.domain=nope")
    assert "no column 'nope'" in str(wrong.exception)
