"""Fine-tuning on pairs: it learns, sides and neighbours do not matter, a kill changes no bit, and the folder
that it writes scores what the trainer scored."""

import math
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from tiny_encoders import ARCHITECTURES, place_encoder, save_encoder, some_pairs, some_texts

from quadmix.annotate.models.base import Settings
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.heads import load_frozen_head
from quadmix.annotate.models.load import forget_models
from quadmix.annotate.models.rater import Asked, ModelAnnotator
from quadmix.errors import IdentityError, InputError, ScoreError
from quadmix.io.atomic import read_value
from quadmix.raters import finetune as room
from quadmix.raters.finetune import TunedMetrics, finetune
from quadmix.raters.finetune_batches import (
    FineTuning,
    language_accuracy,
)
from quadmix.raters.finetune_model import read_ranker, score_texts, tokenise
from quadmix.raters.scored import WindowRule, score_windows, window_rule
from quadmix.raters.table import PARALLEL, Pairs, Texts
from quadmix.recipe.cards import load_card

SETTINGS = Settings(device="cpu", threads=1, batch_tokens=512)
FAST = FineTuning(
    pooling="mean", window=48, encoder_rate=3e-3, head_rate=3e-2, batch_pairs=32, epochs=3, evaluations=4
)
SHORT = replace(
    FAST, epochs=1, encoder_rate=1e-3, head_rate=1e-2, batch_pairs=16, evaluations=3, checkpoint_steps=2
)
TEXTS, SHARE = some_texts(240)
PAIRS = some_pairs(SHARE, 400, held=100)
FEW = some_pairs(SHARE, 120, held=30)
CLOSE = 2e-5  # what neighbours and padding may change in a score: float32 sums in another order


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    for kind in ARCHITECTURES:
        save_encoder(root / kind, kind)
    return {kind: root / kind for kind in ARCHITECTURES}


@pytest.fixture(scope="module")
def tuned(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per architecture: XLM-RoBERTa with the mean over tokens, ModernBERT with the first token."""
    root = tmp_path_factory.mktemp("tuned")
    for kind, folder in encoders.items():
        training = replace(FAST, pooling="cls" if kind == "modernbert" else "mean")
        finetune(
            TEXTS, PAIRS, place_encoder(folder), root / kind, work=root / f"{kind}-work", name="mine",
            settings=SETTINGS, training=training,
        )  # fmt: skip
    return {kind: root / kind for kind in encoders}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "base" / "model.safetensors") | load_file(folder / "head.safetensors")


def assert_same(one: Path, two: Path) -> None:
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(two)[name]), name
    assert (one / "metrics.json").read_bytes() == (two / "metrics.json").read_bytes()


def train(
    encoders: dict[str, Path], out: Path, *, texts: Texts = TEXTS, pairs: Pairs = FEW,
    training: FineTuning = SHORT, settings: Settings = SETTINGS,
) -> Path:  # fmt: skip
    finetune(
        texts, pairs, place_encoder(encoders["xlm-roberta"]), out, work=out.with_name(f"{out.name}-work"),
        name="mine", settings=settings, training=training,
    )  # fmt: skip
    return out


# Learning


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_training_lowers_the_loss_and_orders_pairs_of_unseen_texts(kind: str, tuned: Any) -> None:
    metrics = read_value(tuned[kind] / "metrics.json", TunedMetrics)
    first, last = metrics.history[0].loss, metrics.history[-1].loss
    assert set(first) == {"mono", "cross", "parallel"}
    assert last["mono"] < 0.6 * math.log(2)  # which a constant score has
    assert last["mono"] < first["mono"]
    assert last["cross"] < first["cross"]
    assert metrics.accuracy > 0.9
    assert metrics.steps == metrics.total_steps == 38
    assert metrics.pairs == {"mono": 160, "cross": 160, "parallel": 80}
    assert metrics.passes == {"mono": 3.0, "cross": 3.0, "parallel": 3.0}
    assert (metrics.held, metrics.unread, metrics.cut, metrics.warnings) == (100, 0, 0, ())


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_saved_folder_is_a_card_that_scores_what_the_trainer_scored(kind: str, tuned: Any) -> None:
    """Through place and ModelAnnotator, one text at a time; larger is better."""
    out = tuned[kind]
    forget_models()
    placed = place(load_card(str(out / "card.yaml")), beside=out)
    how = placed.card.input
    assert (how.window, how.aggregate, how.max_windows) == (48, "length-mean", 8)
    rater = ModelAnnotator.make("mine", Asked(placed=placed, settings=SETTINGS))
    assert (rater.card.direction, rater.card.kind) == ("higher", "model:frozen-head")
    found = np.full(240, np.nan, np.float32)
    for row in range(180, 240):  # the texts of the held pairs
        found[row] = rater.score([TEXTS.text[row]], _no_columns(1)).values[0]
    assert spearmanr(found[180:], SHARE[180:]).statistic > 0.85
    metrics = read_value(out / "metrics.json", TunedMetrics)
    held = PAIRS.take(PAIRS.held)
    assert language_accuracy(found, held, TEXTS.language) == metrics.languages
    best = next(point for point in metrics.history if point.step == metrics.best_step)
    assert (best.accuracy, best.languages) == (metrics.accuracy, metrics.languages)
    assert metrics.difference < CLOSE


def _no_columns(rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([""] * rows)], names=[""])


def test_a_document_of_several_windows_scores_their_mean_by_tokens(tuned: Any) -> None:
    """Windows of 46 words between the special tokens: 46 + 46 + 8, each scored as a text of its own."""
    out = tuned["xlm-roberta"]
    placed = place(load_card(str(out / "card.yaml")), beside=out)
    model = load_frozen_head(placed, SETTINGS)
    words = " ".join(TEXTS.text).split()[:100]
    parts = [" ".join(words[:46]), " ".join(words[46:92]), " ".join(words[92:])]
    alone = model.outputs(parts).values[:, 0]
    (whole,) = model.outputs([" ".join(words)]).values[:, 0].tolist()
    assert np.ptp(alone) > 0.1
    assert whole == pytest.approx((46 * alone[0] + 46 * alone[1] + 8 * alone[2]) / 100, abs=CLOSE)
    rater = ModelAnnotator.make("tuned", Asked(placed=placed, settings=SETTINGS))
    found = score_windows(rater, [" ".join(words)], _no_columns(1))
    assert window_rule(placed) == WindowRule(size=48, unit="tokens", most=8)
    assert found.windows.tolist() == [3]
    told = [found.score[0], found.first[0], found.least[0], found.spread[0]]
    assert told == pytest.approx([whole, alone[0], alone.min(), alone.std()], abs=CLOSE)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_score_does_not_depend_on_neighbours_or_padding(kind: str, encoders: Any, tuned: Any) -> None:
    """To 2e-5, in the trainer and in the saved model."""
    ranker = read_ranker(place_encoder(encoders[kind]), SETTINGS, pooling="mean", window=48, seed=0)
    tokens = tokenise(ranker, TEXTS.text, np.ones(240, np.bool_))
    together = score_texts(ranker, tokens, range(240))
    narrow = replace(ranker, batch_tokens=1)
    alone = score_texts(narrow, tokens, range(240))
    assert np.ptp(together) > 0.05
    np.testing.assert_allclose(together, alone, rtol=0, atol=CLOSE)
    mixed = ranker.scores(tokens, [int(tokens.lengths.argmin()), int(tokens.lengths.argmax())])
    np.testing.assert_allclose(mixed.detach()[0], alone[tokens.lengths.argmin()], rtol=0, atol=CLOSE)
    placed = place(load_card(str(tuned[kind] / "card.yaml")), beside=tuned[kind])
    one, many = (
        load_frozen_head(placed, replace(SETTINGS, batch_tokens=size)).outputs(TEXTS.text).values
        for size in (1, 4096)
    )
    np.testing.assert_allclose(one, many, rtol=0, atol=CLOSE)


# Loss and batches


def test_the_gradient_is_that_of_the_weighted_mean_loss(encoders: Any) -> None:
    """Of the head by hand: sum_i w_i (sigma(d_i) - p_i) (h(a_i) - h(b_i)) / sum_i w_i, in three parts."""
    ranker = read_ranker(place_encoder(encoders["modernbert"]), SETTINGS, pooling="mean", window=48, seed=0)
    state = room._start(ranker, TEXTS, FEW, SHORT, "x")
    rows = np.arange(10)
    parts = (rows[:3], rows[3:4], rows[4:])
    told = [room._backward(state, part, float(state.train.weight[rows].sum())) for part in parts]
    some, head = state.train.take(rows), ranker.head.weight.detach().double().numpy()[0]
    read = np.unique([some.a, some.b]).tolist()
    vectors = np.stack([_coordinate(ranker, state.tokens, read, k) for k in range(32)], axis=1)
    apart = (vectors[some.a] - vectors[some.b]).astype(np.float64)
    pull = some.weight * (1 / (1 + np.exp(-apart @ head)) - some.p)
    expected = pull @ apart / some.weight.sum()
    assert len(set(some.weight.tolist())) == 2
    np.testing.assert_allclose(ranker.head.weight.grad[0], expected, atol=1e-6)
    np.testing.assert_allclose(np.concatenate(told), apart @ head, atol=CLOSE)


def _coordinate(ranker: Any, tokens: Any, rows: list[int], k: int) -> Any:
    """Return (240,) a coordinate of the pooled vectors, as a head that picks it would."""
    pick = torch.nn.Linear(32, 1, bias=False)
    with torch.no_grad():
        pick.weight.copy_(torch.eye(32)[k : k + 1])
    return score_texts(replace(ranker, head=pick), tokens, rows)


def test_swapping_a_and_b_changes_neither_loss_nor_weights(
    whole: Path, encoders: Any, tmp_path: Path
) -> None:
    """With dropout on: what a text's noise is does not depend on its side either. Up to float rounding."""
    turned = replace(FEW, a=FEW.b, b=FEW.a, p=1 - FEW.p)
    one, two = whole, train(encoders, tmp_path / "two", pairs=turned)
    own, other = (read_value(out / "metrics.json", TunedMetrics) for out in (one, two))
    for a, b in zip(own.history, other.history, strict=True):
        assert a.loss == pytest.approx(b.loss, abs=1e-4)
    assert other.accuracy == own.accuracy
    assert weights(two)["weight"] == pytest.approx(weights(one)["weight"], abs=1e-3)


def test_the_order_of_rows_changes_no_bit(whole: Path, encoders: Any, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).permutation(150)
    two = train(encoders, tmp_path / "two", pairs=FEW.take(rows))
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(two)[name]), name


def test_the_gradient_of_a_batch_is_the_sum_over_its_micro_batches(encoders: Any, tmp_path: Path) -> None:
    """Without dropout, one step in one piece and in many gives the same weights, to rounding of AdamW."""
    once = replace(SHORT, epochs=1, batch_pairs=120, evaluations=1)
    folder = encoders["modernbert"]  # it has no dropout
    outs: list[Any] = []
    for tokens in (64, 100_000):
        out = tmp_path / str(tokens)
        settings = replace(SETTINGS, batch_tokens=tokens, threads=1)
        finetune(
            TEXTS, FEW, place_encoder(folder), out, work=tmp_path / "w", name="m", settings=settings,
            training=once,
        )  # fmt: skip
        outs.append(read_value(out / "metrics.json", TunedMetrics).history[0].loss)
        assert weights(out)["weight"] == pytest.approx(weights(tmp_path / "64")["weight"], abs=1e-4)
    assert outs[0] == pytest.approx(outs[1], abs=1e-5)


# Interruption and refusals


def _killed(encoders: dict[str, Path], out: Path, at: str) -> None:
    """Die by SIGKILL: inside a step, after the best weights and before the state, or while the result is
    written."""
    if at == "metrics":
        room.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    elif at == "state":
        real, calls = room.write_state, list[int]()

        def write(work: Path, state: Any) -> None:
            calls.append(state.reached.step)
            if len(calls) == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            real(work, state)

        room.write_state = write
    else:
        back = room._backward

        def backward(state: Any, *rest: Any) -> Any:
            if state.reached.step == int(at):
                os.kill(os.getpid(), signal.SIGKILL)
            return back(state, *rest)

        room._backward = backward
    train(encoders, out)


@pytest.fixture(scope="module")
def whole(encoders: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training that nobody stopped."""
    return train(encoders, tmp_path_factory.mktemp("whole") / "m")


@pytest.mark.parametrize(("at", "left"), [("1", 8), ("5", 4), ("state", 4), ("metrics", 0)])
def test_after_a_kill_the_training_goes_on_and_ends_with_the_same_bits(
    at: str, left: int, whole: Path, encoders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_models()
    out = tmp_path / "out"
    child = multiprocessing.get_context("fork").Process(target=_killed, args=(encoders, out, at))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert not out.exists()
    steps: list[int] = []
    real = room._take_step
    monkeypatch.setattr(room, "_take_step", lambda state: (steps.append(state.reached.step), real(state)))
    train(encoders, out)
    assert steps == list(range(8 - left, 8))
    assert_same(out, whole)
    assert not list((tmp_path / "out-work").glob("*"))
    steps.clear()
    train(encoders, out)  # what is done is not done again
    assert steps == []


def test_a_training_without_a_better_evaluation_ends_early(encoders: Any, tmp_path: Path) -> None:
    """Rates of zero: all evaluations are equal, the first is the best, and two more end it."""
    still = replace(SHORT, encoder_rate=0.0, head_rate=0.0, evaluations=8, patience=2, checkpoint_steps=100)
    metrics = read_value(train(encoders, tmp_path / "m", training=still) / "metrics.json", TunedMetrics)
    assert (metrics.best_step, metrics.steps, metrics.total_steps) == (1, 3, 8)
    assert any("of the mono pairs were read" in warning for warning in metrics.warnings)


def test_bfloat16_on_a_cpu_is_used_where_the_settings_say_so(
    whole: Path, encoders: Any, tmp_path: Path
) -> None:
    """Losses near those in float32 and not the same; the weights that are saved are float32."""
    out = train(encoders, tmp_path / "m", settings=replace(SETTINGS, precision="bfloat16"))
    half, full = (read_value(folder / "metrics.json", TunedMetrics) for folder in (out, whole))
    assert (full.computed, half.computed) == (("cpu", "float32"), ("cpu", "bfloat16"))
    assert half.history[0].loss != full.history[0].loss
    assert half.history[0].loss == pytest.approx(full.history[0].loss, abs=0.02)
    assert {tensor.dtype for tensor in weights(out).values()} == {torch.float32}
    assert half.difference < 0.1


def test_scores_that_are_not_finite_stop_the_training(encoders: Any, tmp_path: Path) -> None:
    wild = replace(SHORT, encoder_rate=1e30, head_rate=1e30, warmup=0.0)
    with pytest.raises(ScoreError, match=r"a score in step 1 is not finite; lower the learning rates"):
        train(encoders, tmp_path / "m", training=wild)
    assert not (tmp_path / "m").exists()


def test_another_training_is_not_continued(encoders: Any, tmp_path: Path) -> None:
    out = train(encoders, tmp_path / "m")
    with pytest.raises(IdentityError, match="holds something other than this training"):
        train(encoders, out, training=replace(SHORT, seed=1))
    state = tmp_path / "n-work" / "state.safetensors"
    state.parent.mkdir()
    facts = {"reached": '{"identity": "x", "step": 2, "history": [], "sums": [0, 0, 0], "counts": [0, 0, 0]}'}
    save_file({"a": torch.zeros(1)}, state, metadata=facts)
    with pytest.raises(IdentityError, match=r"state.safetensors is the checkpoint of another training"):
        train(encoders, tmp_path / "n")


def test_texts_without_tokens_or_beyond_the_window_are_counted(encoders: Any, tmp_path: Path) -> None:
    blank = int(FEW.a[3])
    text = list(TEXTS.text)
    text[blank] = " "
    short = replace(SHORT, window=24)
    out = train(encoders, tmp_path / "m", texts=replace(TEXTS, text=tuple(text)), training=short)
    metrics = read_value(out / "metrics.json", TunedMetrics)
    used = np.zeros(240, np.bool_)
    used[FEW.a] = used[FEW.b] = True
    assert metrics.unread == int(((FEW.a == blank) | (FEW.b == blank)).sum())
    assert sum(metrics.pairs.values()) + metrics.held + metrics.unread == len(FEW)
    assert metrics.cut == sum(len(text[row].split()) > 22 for row in np.flatnonzero(used))
    assert any(f"{metrics.cut} texts are longer than 24 tokens" in w for w in metrics.warnings)


def test_what_cannot_be_trained_is_refused(encoders: Any, tmp_path: Path) -> None:
    placed = place_encoder(encoders["xlm-roberta"])
    held = replace(FEW, held=np.ones(150, np.bool_))
    with pytest.raises(InputError, match=r"none of the 150 pairs is for training"):
        train(encoders, tmp_path / "m", pairs=held)
    with pytest.raises(InputError, match=r"input.window is 512 tokens, but the model in"):
        train(encoders, tmp_path / "m", training=FineTuning())
    unlike = FEW.take(FEW.kind != PARALLEL)
    with pytest.raises(InputError, match=r"composition \(0, 0, 1\) leaves nothing to train: .* mono, cross"):
        train(encoders, tmp_path / "m", pairs=unlike, training=replace(SHORT, composition=(0, 0, 1)))

    def read(**update: Any) -> None:
        changed = replace(placed, card=placed.card.model_copy(update=update))
        read_ranker(changed, SETTINGS, pooling="cls", window=48, seed=0)

    with pytest.raises(InputError, match="without remote code"):
        read(remote_code=True)
    with pytest.raises(InputError, match="is for quality, expected one for embedding"):
        read(role="quality")
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"holds no \*.safetensors"):
        read_ranker(replace(placed, folder=tmp_path), SETTINGS, pooling="cls", window=48, seed=0)
