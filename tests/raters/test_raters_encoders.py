"""Raters on encoders, from pairs to the report: fine-tuned, and heads on a frozen one."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from parallel_world import cli
from tiny_encoders import encoder_card

from quadmix.errors import InputError, RecipeError
from quadmix.raters import choosing, tiers
from quadmix.raters.coverage import encoder_reader
from quadmix.raters.finetune_batches import FineTuning, batch_order
from quadmix.raters.headruns import compare_heads
from quadmix.raters.scored import load_rater_model, score_texts
from quadmix.raters.table import (
    CROSS,
    MONO,
    PARALLEL,
    Pairs,
    Texts,
    read_pairs,
    read_texts,
)
from quadmix.raters.tiers import inner_split
from quadmix.recipe import load_rater


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


def test_a_fine_tuned_encoder_is_trained_saved_and_reported(world: Path, tmp_path: Path):
    card = encoder_card(tmp_path)
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
