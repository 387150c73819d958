"""Training a fastText classifier: the same bytes twice, honest numbers, and sets that are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pytest
from fasttext_world import sentences

from quadmix.annotate.models.base import Settings
from quadmix.annotate.models.fasttext import load_fasttext
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.train_fasttext import BAD, GOOD, FastTextTraining, train_fasttext
from quadmix.errors import InputError
from quadmix.recipe.cards import card_folder, load_card

SMALL = FastTextTraining(bucket=90_000, lr=0.5, heldout=0.25)  # 36 MB: the smallest that is accepted
HQ, CC = "__label__hq", "__label__cc"
GOODS, BADS = sentences(HQ, 120), sentences(CC, 100)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "rater"
    train_fasttext(GOODS, BADS, out, name="rater", training=SMALL, trained_on=["mine"])
    return out


def test_the_folder_is_a_card_that_loads(trained: Path) -> None:
    name = str(trained / "card.yaml")
    card = load_card(name)
    found = place(card, beside=card_folder(name))
    assert sorted(p.name for p in trained.iterdir()) == ["card.yaml", "metrics.json", "model.bin"]
    assert card.files == found.card.files  # the sha256 that was saved is the file's
    assert (card.trained_on, card.output.labels) == (("mine",), (GOOD, BAD))
    new = sentences(HQ, 20, seed=5) + sentences(CC, 20, seed=5)
    chances = load_fasttext(found, Settings()).outputs(new).values[:, 0]
    assert chances[:20].min() > 0.5 > chances[20:].max()


def test_the_same_texts_and_seed_give_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    junk = [np.full(50_000, np.nan, np.float32) for _ in range(50)]  # memory that the library could pick up
    del junk
    train_fasttext(GOODS, BADS, tmp_path / "again", name="rater", training=SMALL, trained_on=["mine"])
    for file in ("model.bin", "card.yaml", "metrics.json"):
        assert (tmp_path / "again" / file).read_bytes() == (trained / file).read_bytes()


def test_the_metrics_are_those_of_texts_the_saved_model_has_not_seen(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_bytes())
    counts = [metrics[k] for k in ("train_good", "heldout_good", "train_bad", "heldout_bad")]
    assert (counts[0] + counts[1], counts[2] + counts[3]) == (120, 100)
    assert min(counts) > 0
    words = set(fasttext.load_model(str(trained / "model.bin")).words)
    assert {"theorem", "casino"} <= words
    assert metrics["auc"] > 0.99 > 0.7 > metrics["length_auc"] >= 0.5
    assert sum(b["texts"] for b in metrics["bins"]) == counts[1] + counts[3]
    assert metrics["brier"] < metrics["base_rate_brier"]
    assert metrics["warnings"] == []


def test_a_set_whose_texts_differ_by_length_alone_is_warned_about(tmp_path: Path) -> None:
    """The same words, short against long: a bag of words learns nothing, and length tells everything."""
    both = sentences(HQ, 80, seed=1)
    short, long = [t[:40] for t in both], [f"{t} {u}" for t, u in zip(both, both[::-1], strict=True)]
    train_fasttext(short, long, tmp_path / "out", name="length", training=SMALL)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_bytes())
    assert metrics["length_auc"] == 1.0
    assert "does not beat the length" in metrics["warnings"][0]


def test_a_model_that_has_hardly_moved_says_what_to_raise(tmp_path: Path) -> None:
    slow = replace(SMALL, lr=0.001, epochs=1)
    train_fasttext(GOODS, BADS, tmp_path / "out", name="slow", training=slow)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_bytes())
    assert any("raise epochs (now 1) and lr (now 0.001)" in warning for warning in metrics["warnings"])


def test_words_that_the_library_takes_for_labels_are_no_labels(tmp_path: Path) -> None:
    """A text with `__label__x` in it would else train a third label, one with `</s>` lose its end."""
    goods = [f"{t} __label__third {t} </s> proof" for t in sentences(HQ, 60)]
    train_fasttext(goods, sentences(CC, 60), tmp_path / "out", name="odd", training=SMALL)
    assert set(fasttext.load_model(str(tmp_path / "out" / "model.bin")).labels) == {GOOD, BAD}


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        (GOODS[:19], BADS, "19 good texts, expected at least 20"),
        (GOODS, [*BADS[:3], " \n", *BADS[3:], ""], r"2 of 102 bad texts hold no text \(rows 3, 101\)"),
        (GOODS, [*BADS, GOODS[7]], r"both good and bad \(good row 7 = bad row 100"),
        ([GOODS[0]] * 40, BADS, "the held-out part has"),
    ],
)
def test_sets_that_cannot_teach_are_refused(
    tmp_path: Path, good: list[str], bad: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_fasttext(good, bad, tmp_path / "out", name="rater", training=SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bucket": 1_000}, r"bucket is 1,000 with dim 100; expected at least 86,508"),
        ({"word_ngrams": 1}, "expected at least 2"),
        ({"heldout": 0.0}, "heldout is 0.0"),
    ],
)
def test_settings_that_would_not_be_repeatable_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_fasttext(GOODS, BADS, tmp_path / "out", name="r", training=replace(SMALL, **changes))


def test_a_folder_with_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"mine")
    with pytest.raises(InputError, match="not empty"):
        train_fasttext(GOODS, BADS, tmp_path, name="rater", training=SMALL)
    assert (tmp_path / "model.bin").read_bytes() == b"mine"
