"""A head trained on scored texts: saved, placed and loaded as any other model, and honest about its worth."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_world import WORDS, card, save_embedder
from scipy.stats import spearmanr

from quadmix.annotate.models.base import Outputs, Settings
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.load import forget_models, load_model
from quadmix.annotate.models.train_head import HeadMetrics, HeadTraining, train_head
from quadmix.errors import InputError
from quadmix.io.atomic import read_value
from quadmix.io.hashing import sha256_file
from quadmix.recipe.cards import load_card

GOOD = set(WORDS[:25])
FAST = HeadTraining(alphas=(0.01, 0.1, 1.0), folds=3)


def labelled(count: int, seed: int = 0) -> tuple[list[str], list[float]]:
    """Return texts and the share of good words in each, which is not their length."""
    rng = np.random.default_rng(seed)
    made, scores = [], []
    for _ in range(count):
        share, length = rng.uniform(), int(rng.integers(5, 40))
        good = rng.uniform(size=length) < share
        words = np.where(good, rng.choice(WORDS[:25], length), rng.choice(WORDS[25:], length))
        made.append(" ".join(words))
        scores.append(float(good.mean() * 5))
    return made, scores


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A placed embedder whose vectors are means over tokens."""
    folder = tmp_path_factory.mktemp("embedder")
    save_embedder(folder)
    made = card("embedding", output={"kind": "vector"}, input={"pooling": "mean"}, model=str(folder))
    return place(made, path=folder)


@pytest.fixture(scope="module")
def trained(embedder: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made, scores = labelled(400)
    out = tmp_path_factory.mktemp("out") / "head"
    model = load_model(embedder, Settings())
    return out, train_head(made, scores, out, embedder=model, name="mine", training=FAST, trained_on=("own",))


def test_the_head_is_loaded_as_any_card_and_scores_texts_it_has_not_seen(trained: Any, embedder: Any) -> None:
    out, returned = trained
    forget_models()
    found = place(load_card(str(out / "card.yaml")), beside=out)
    assert found.card.model_copy(update={"files": returned.files}) == returned
    assert found.card.files.items() >= returned.files.items()
    assert (returned.family, returned.trained_on) == ("frozen-head", ("own",))
    assert returned.files == {"head.safetensors": sha256_file(out / "head.safetensors")}
    assert found.base is not None
    assert found.base.folder == embedder.folder
    fresh, scores = labelled(100, seed=1)
    outputs = load_model(found, Settings()).outputs(fresh)
    assert outputs.missing == {}
    assert spearmanr(scores, outputs.values[:, 0]).statistic > 0.8


def test_the_scores_are_ridge_regression_on_the_training_part(trained: Any, embedder: Any) -> None:
    """By the normal equations, from the texts that the held-out rule leaves."""
    from quadmix.rng import doc_keys, keyed_uniform

    out, _ = trained
    made, scores = labelled(400)
    held = keyed_uniform(0, doc_keys(made), "heldout") < 0.2
    metrics = read_value(out / "metrics.json", HeadMetrics)
    assert (metrics.train, metrics.heldout) == (int((~held).sum()), int(held.sum()))
    vectors = load_model(embedder, Settings()).outputs(made).values.astype(np.float64)
    target = np.array(scores)
    centre, mean = vectors[~held].mean(axis=0), target[~held].mean()
    x, y = vectors[~held] - centre, target[~held] - mean
    weights = np.linalg.solve(x.T @ x + metrics.alpha * np.eye(x.shape[1]), x.T @ y)
    expected = (vectors - centre) @ weights + mean
    head = load_model(place(load_card(str(out / "card.yaml")), beside=out), Settings())
    np.testing.assert_allclose(head.outputs(made).values[:, 0], expected, atol=1e-3)
    assert metrics.spearman == pytest.approx(spearmanr(target[held], expected[held]).statistic, abs=1e-3)
    assert metrics.mae < metrics.constant_mae


def test_the_learning_curve_ends_at_the_whole_training_part_and_beats_length(trained: Any) -> None:
    metrics = read_value(trained[0] / "metrics.json", HeadMetrics)
    sizes = [point.texts for point in metrics.curve]
    assert sizes == [32, 64, 128, 256, metrics.train]
    assert metrics.curve[-1].spearman == pytest.approx(metrics.spearman, abs=1e-3)
    assert metrics.curve[-1].spearman > metrics.curve[0].spearman
    assert metrics.spearman > metrics.length_spearman + 0.5
    assert metrics.warnings == ()


def test_the_same_texts_give_the_same_bytes(trained: Any, embedder: Any, tmp_path: Path) -> None:
    made, scores = labelled(400)
    model = load_model(embedder, Settings())
    train_head(
        made, scores, tmp_path / "again", embedder=model, name="mine", training=FAST, trained_on=("own",)
    )
    for name in ("head.safetensors", "card.yaml", "base.yaml", "metrics.json"):
        assert (tmp_path / "again" / name).read_bytes() == (trained[0] / name).read_bytes(), name


def test_scores_that_are_the_length_are_warned_of(embedder: Any, tmp_path: Path) -> None:
    made, _ = labelled(120)
    lengths = [float(len(t)) for t in made]
    train_head(
        made, lengths, tmp_path / "h", embedder=load_model(embedder, Settings()), name="x", training=FAST
    )
    (warning,) = read_value(tmp_path / "h" / "metrics.json", HeadMetrics).warnings
    assert "does not beat the length of a text alone (1.000)" in warning


def test_a_changed_head_is_refused(trained: Any, tmp_path: Path) -> None:
    shutil.copytree(trained[0], tmp_path / "head")
    weights = tmp_path / "head" / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InputError, match="has the sha256"):
        place(load_card(str(tmp_path / "head" / "card.yaml")), beside=tmp_path / "head")


class Half:
    """An embedder that has no vector for every other text."""

    card = card("embedding", output={"kind": "vector"})

    def outputs(self, texts: Any) -> Outputs:
        values = np.random.default_rng(0).normal(size=(len(texts), 4)).astype(np.float32)
        values[::2] = np.nan
        return Outputs(values=values, missing={"not_finite": len(texts) - len(texts) // 2})


def test_texts_without_a_vector_are_counted_and_left_out(tmp_path: Path) -> None:
    made, scores = labelled(160)
    train_head(made, scores, tmp_path / "h", embedder=Half(), name="x", training=FAST)
    metrics = read_value(tmp_path / "h" / "metrics.json", HeadMetrics)
    assert metrics.without_vector == {"not_finite": 80}
    assert metrics.train + metrics.heldout == 80
    with pytest.raises(
        InputError, match=r"40 of 80 texts have a vector, .*; expected at least 50, 10 held out"
    ):
        train_head(made[:80], scores[:80], tmp_path / "i", embedder=Half(), name="x", training=FAST)


def test_bad_scores_and_texts_are_named(tmp_path: Path) -> None:
    made, scores = labelled(60)

    def attempt(some: list[str], numbers: list[float]) -> None:
        train_head(some, numbers, tmp_path / "h", embedder=Half(), name="x", training=FAST)

    with pytest.raises(InputError, match=r"score in row 1 is nan, expected a number; remove \[1\]"):
        attempt(made, [1.0, float("nan"), *scores[2:]])
    with pytest.raises(InputError, match=r"text in row 2 is empty; remove the rows \[2\]"):
        attempt([*made[:2], " ", *made[3:]], scores)
    with pytest.raises(InputError, match="60 texts and 59 scores"):
        attempt(made, scores[1:])
    with pytest.raises(InputError, match=r"all scores of the .* part are 3.0"):
        attempt(made * 3, [3.0] * 180)
    assert not list(tmp_path.iterdir())
