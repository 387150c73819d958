"""From pairs to a rater that a run can use, its report, scores of files, and raters against each other."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from parallel_world import BAD, GOOD, PLAIN, make_world, translate, write_settings
from tiny_encoders import save_encoder
from typer.testing import CliRunner, Result

from quadmix.cli.main import app
from quadmix.errors import InputError, RecipeError
from quadmix.raters import choosing, tiers
from quadmix.raters.coverage import encoder_reader
from quadmix.raters.finetune_batches import FineTuning, batch_order
from quadmix.raters.headruns import compare_heads
from quadmix.raters.making import make_pairs, rater_folder
from quadmix.raters.scored import load_rater_model, score_texts
from quadmix.raters.table import (
    CROSS,
    MONO,
    PARALLEL,
    Pairs,
    Texts,
    read_pairs,
    read_texts,
    write_pairs,
)
from quadmix.raters.tiers import inner_split
from quadmix.raters.training import train_rater
from quadmix.recipe import load_rater


def cli(*words: str) -> Result:
    return CliRunner().invoke(app, ["rater", *words])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained rater: rater.yaml beside raters/small, and corpus.jsonl."""
    folder = tmp_path_factory.mktemp("training")
    write_settings(folder, make_world(folder, 90))
    done = cli("train", str(folder / "rater.yaml"), "--set", "pairs.count=150")
    assert done.exit_code == 0, done.output
    (folder / "said.txt").write_text(done.output, "utf-8")
    return folder


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


def composed_pairs(mono: int, cross: int, parallel: int, strength: float) -> tuple[Texts, Pairs]:
    """Training pairs of 2,000 documents in two languages, in so many of each kind."""
    rng = np.random.default_rng(0)
    many = mono + cross + parallel
    ids = [f"{code}{i}" for i in range(2_000) for code in ("en", "xa")]
    texts = Texts(
        ids=tuple(ids), source=tuple(i[2:] for i in ids), origin=("",) * len(ids),
        language=tuple(i[:2] for i in ids), text=tuple(ids),
    )  # fmt: skip
    kind = np.repeat([MONO, CROSS, PARALLEL], [mono, cross, parallel]).astype(np.int8)
    left = rng.integers(2_000, size=many)
    right = np.where(kind == PARALLEL, left, (left + rng.integers(1, 2_000, size=many)) % 2_000)
    weight = np.where(kind == PARALLEL, 2 * strength * (mono + cross) / parallel, 1.0)
    pairs = Pairs(
        a=(2 * left).astype(np.int32), b=(2 * right + (kind != MONO)).astype(np.int32),
        p=np.where(kind == PARALLEL, 0.5, 1.0), weight=weight, kind=kind, held=np.zeros(many, np.bool_),
    )  # fmt: skip
    return texts, pairs


def effective_lambda(pairs: Pairs) -> float:
    """Return lambda of L_pair + lambda L_par, from the weights: a parallel pair's loss is half of L_par's."""
    parallel = pairs.kind == PARALLEL
    return float(pairs.weight[parallel].sum() / (2 * pairs.weight[~parallel].sum()))


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


def encoder_card(folder: Path) -> Path:
    """Make a tiny encoder in a folder and return its card."""
    save_encoder(folder / "encoder")
    card = folder / "encoder.yaml"
    card.write_text(
        f"name: tiny\nfamily: embedding\nrole: embedding\nmodel: {folder / 'encoder'}\n"
        "licence: none\nsource: made here\ndescription: random\n"
        "input: {pooling: mean}\noutput: {kind: vector}\n",
        "utf-8",
    )
    return card


def test_fine_tuning_reads_the_kinds_so_that_lambda_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch):
    """1,500 monolingual, 1,500 cross-lingual and 150 parallel pairs, lambda 0.5: of all that is read."""
    texts, pairs = composed_pairs(1_500, 1_500, 150, 0.5)
    called: dict[str, Any] = {}

    def record(_: Any, inner: Any, *rest: Any, training: FineTuning, **others: Any) -> None:
        called.update(pairs=inner.take(~inner.held), training=training)

    monkeypatch.setattr(tiers, "finetune", record)
    placed = SimpleNamespace(card=SimpleNamespace(input=SimpleNamespace(window=64)), digest="none")
    monkeypatch.setattr(tiers, "embedder", lambda _: placed)
    encoder = SimpleNamespace(kind="finetune", epochs=2, batch=64, lr=None, pooling="mean")
    recipe: Any = SimpleNamespace(
        encoder=encoder, head="plain", seed=0, name="r", run=SimpleNamespace(device="cpu"), raters=[],
        texts=SimpleNamespace(paths=[]),
    )  # fmt: skip
    tiers.train_tier(recipe, Path("unused"), texts, pairs, None, vectors=Path("unused"))
    read = called["pairs"]
    rows = batch_order(read.kind, np.arange(len(read), dtype=np.uint64), called["training"])
    assert effective_lambda(read.take(rows)) == pytest.approx(effective_lambda(read), rel=0.01)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_the_split_that_chooses_settings_leaves_lambda_as_it_is(share: float):
    texts, pairs = composed_pairs(1_500, 1_500, 400, 0.5)
    inner = inner_split(texts, pairs, 0, share=share)
    assert int((inner.kind != PARALLEL).sum()) < 3_000
    for held in (False, True):
        part = inner.take(inner.held == held)
        assert effective_lambda(part) == pytest.approx(0.5)
        assert (part.weight[part.kind != PARALLEL] == 1).all()


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


def test_a_fine_tuned_encoder_is_trained_saved_and_reported(world: Path, tmp_path: Path):
    save_encoder(tmp_path / "encoder")
    card = tmp_path / "encoder.yaml"
    card.write_text(
        f"name: tiny\nfamily: embedding\nrole: embedding\nmodel: {tmp_path / 'encoder'}\n"
        "licence: none\nsource: made here\ndescription: random\n"
        "input: {pooling: mean, window: 64}\noutput: {kind: vector}\n",
        "utf-8",
    )
    chosen = ("encoder.kind=finetune", f"encoder.model={card}", "encoder.pooling=mean", "encoder.epochs=1",
              "encoder.batch=64", f"folder={tmp_path}")  # fmt: skip
    words = [w for o in chosen for w in ("--set", o)]
    done = cli("train", str(world / "rater.yaml"), *words, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["encoder"] == "finetune"
    assert report["scripts"]["languages"]["xa"]["lost"] == 0
    texts = read_texts(tmp_path / "small/texts.parquet").take(range(6))
    saved = load_rater_model(tmp_path / "small/model/card.yaml")
    assert np.isfinite(score_texts(saved, texts)).all()
    reader = encoder_reader(saved.asked.placed)
    assert reader is not None, "the tokenizer of the encoder in base/"
    assert reader.read(["bal \u2d63"]).lost == 1


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


def test_a_head_on_a_frozen_encoder_is_trained_saved_and_compared(world: Path, tmp_path: Path):
    card = encoder_card(tmp_path)
    own = ["--set", "encoder.kind=frozen", "--set", f"encoder.model={card}", "--set", f"folder={tmp_path}"]
    done = cli("train", str(world / "rater.yaml"), *own, "--set", "encoder.epochs=2", "--set", "head=concat")
    assert done.exit_code == 0, done.output
    rater = load_rater_model(tmp_path / "small/model/card.yaml")
    assert rater.asked.placed.card.reads_language
    again = cli("train", str(world / "rater.yaml"), *own, "--set", "encoder.epochs=3", "--set", "head=concat")
    assert again.exit_code == 0, again.output
    texts = read_texts(tmp_path / "small/texts.parquet")
    stores = list((tmp_path / "small/embeddings").glob("*"))
    assert len(stores) == 1
    kept = sum(pq.read_metadata(p).num_rows for p in stores[0].glob("vectors-*.parquet"))
    assert kept == len(set(texts.text)), "every text stands there once"
    stored = {r["ids"]: r["score"] for r in pq.read_table(tmp_path / "small/scores.parquet").to_pylist()}
    saved = load_rater_model(tmp_path / "small/model/card.yaml")
    some = texts.take(range(0, len(texts), 9))
    found = score_texts(saved, some)
    assert found == pytest.approx([stored[i] for i in some.ids], abs=1e-4)
    done = cli(
        "compare-heads",
        str(world / "rater.yaml"),
        *own,
        "--set",
        "encoder.epochs=1",
        "--set",
        "pairs.count=150",
        "--seeds",
        "1",
        "--tail=en",
        "--tail=xa",
        "--tail=xb",
        "--curve=4,8",
        "--json",
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [p["size"] for p in found["curve"]["points"]] == [4, 8]
    assert {c["arm"] for c in found["calibration"]} == {arm["arm"] for arm in found["arms"]}
    assert set(found["calibration"][0]["languages"]) == {"en", "xa", "xb"}
    assert {g["language"] for g in found["gates"]} == {"en", "xa", "xb"}
    assert (tmp_path / "small/heads_curve.svg").read_bytes().startswith(b"<?xml")
    assert found["chosen"] == "plain"
    assert "asks for 5" in found["why"]
    wrong = cli("compare-heads", str(world / "rater.yaml"), "--curve", "30,x")
    assert wrong.exit_code == 2
    assert "'x': expected numbers of training pairs" in wrong.output
    wrong = cli("compare-heads", str(world / "rater.yaml"))
    assert isinstance(wrong.exception, RecipeError)
    wrong = cli("train", str(world / "rater.yaml"), "--set", "name=x", "--set", "head=poso")
    assert isinstance(wrong.exception, InputError)
    assert "encoder.kind: frozen" in str(wrong.exception)


def test_heads_are_chosen_without_the_documents_that_the_report_is_made_of(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    card = encoder_card(tmp_path)
    own = ["encoder.kind=frozen", f"encoder.model={card}", f"folder={tmp_path}", "pairs.count=150"]
    given: list[Pairs] = []

    def listened(data, training, **more):
        given.append(data.pairs)
        return compare_heads(data, training, arms=("plain",), **more)

    monkeypatch.setattr(choosing, "compare_heads", listened)
    choosing.choose_head(load_rater(str(world / "rater.yaml"), own), seeds=1, tail=["en", "xa", "xb"])
    texts = read_texts(tmp_path / "small/texts.parquet")
    reported = read_pairs(tmp_path / "small/pairs.parquet", texts)
    reported = reported.take(reported.held)
    judged = {texts.source[i] for i in (*reported.a, *reported.b)}
    used = {texts.source[i] for i in (*given[0].a, *given[0].b)}
    assert len(judged) > 5
    assert not judged & used
    assert given[0].held.any()
    assert not given[0].held.all()


def test_an_encoder_reads_no_text_twice_in_a_whole_training(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from quadmix.annotate.models.batches import TokenModel

    card = encoder_card(tmp_path)
    given: list[str] = []
    windows = TokenModel.windows

    def counted(self: TokenModel, texts):
        given.extend(texts)
        return windows(self, texts)

    monkeypatch.setattr(TokenModel, "windows", counted)
    own = ["--set", "encoder.kind=frozen", "--set", f"encoder.model={card}", "--set", f"folder={tmp_path}"]
    done = cli("train", str(world / "rater.yaml"), *own, "--set", "encoder.epochs=1")
    assert done.exit_code == 0, done.output
    assert given
    assert len(given) == len(set(given))


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
