"""Domains without labels: groups that are there are found, named and kept, unsure texts not forced in."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from quadmix.annotate import clusters as module
from quadmix.annotate.annotator import OTHER, UNKNOWN
from quadmix.annotate.cluster_names import cluster_names
from quadmix.annotate.clusters import (
    ClusterLabeller,
    Clusters,
    load_clusters,
    place_vectors,
    save_clusters,
    train_clusters,
)
from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.rater import Asked
from quadmix.errors import InputError
from quadmix.recipe import ModelCard

NO_ROWS = None  # clusters read texts only
TOPICS = {
    "kitchen": ["flour", "butter", "oven", "bake", "dough", "sugar", "whisk", "recipe"],
    "astronomy": ["orbit", "telescope", "planet", "galaxy", "comet", "lunar", "eclipse", "nebula"],
    "football": ["striker", "goalkeeper", "penalty", "offside", "midfield", "referee", "league", "stadium"],
}
GLUE = ["the", "of", "and", "in", "to", "with", "for", "from", "this", "that"]


@pytest.fixture(autouse=True)
def small_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOMAIN_FEATURES", 1 << 12)


def talk(rng: np.random.Generator, topic: str, words: int = 40) -> str:
    return " ".join(rng.choice(GLUE if rng.random() < 0.5 else TOPICS[topic]) for _ in range(words))


def world(each: int = 60, seed: int = 0) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    truth = [topic for topic in TOPICS for _ in range(each)]
    return [talk(rng, topic) for topic in truth], truth


def made(**changes: object) -> Clusters:
    settings = {"embed": None, "clusters": 3, "seed": 1} | changes
    return train_clusters(world()[0], **settings)


def directions(texts: Sequence[str]) -> NDArray[np.float32]:
    """An embedding model: which topic's words a text has; a text without any has no vector."""
    counts = [[sum(w in words for w in t.split()) for words in TOPICS.values()] for t in texts]
    out = np.array(counts, np.float32)
    out[out.sum(axis=1) == 0] = np.nan
    return out


def test_groups_that_are_there_are_found_and_named_after_their_own_words() -> None:
    clusters = made()
    texts, truth = world(seed=7)
    labels = ClusterLabeller.make(clusters, embed=None, confidence=0.0).label(texts, NO_ROWS).labels
    pairs = set(zip(truth, labels, strict=True))
    assert len(pairs) == 3
    for topic, label in pairs:
        assert len(label.split("-")) == 3
        assert set(label.split("-")) <= set(TOPICS[topic])


def test_training_twice_gives_the_same_bytes_and_another_seed_another_digest() -> None:
    first, second = made(), made()
    assert first.centres.tobytes() == second.centres.tobytes()
    assert first.projection is not None
    assert second.projection is not None
    assert first.projection.tobytes() == second.projection.tobytes()
    assert (first.card, first.names, first.concentration) == (second.card, second.names, second.concentration)
    assert made(seed=2).card.digest != first.card.digest
    assert made(embed=directions).card.digest != made(embed=directions, embedder="v2").card.digest


@pytest.mark.parametrize("embed", [None, directions])
def test_a_saved_model_labels_new_texts_as_the_model_in_memory_does(
    tmp_path: Path, embed: module.Embed
) -> None:
    clusters = made(embed=embed)
    save_clusters(tmp_path, clusters)
    loaded = load_clusters(tmp_path)
    assert loaded.card == clusters.card
    texts = world(seed=9)[0]
    before, after = (
        ClusterLabeller.make(c, embed=embed, confidence=0.6).label(texts, NO_ROWS) for c in (clusters, loaded)
    )
    assert before == after
    assert {p.suffix for p in tmp_path.iterdir()} == {".npy", ".json"}


def test_a_label_does_not_depend_on_its_batch() -> None:
    labeller = ClusterLabeller.make(made(), embed=None, confidence=0.9)
    rng = np.random.default_rng(3)
    texts = [talk(rng, "kitchen", 5) + " " + talk(rng, "football", 5) for _ in range(80)]
    alone = [labeller.label([t], NO_ROWS).labels[0] for t in texts]
    assert labeller.label(texts, NO_ROWS).labels == alone
    assert labeller.label(texts[::-1], NO_ROWS).labels == alone[::-1]
    assert OTHER in alone


def test_confidence_is_the_softmax_of_cosines_and_below_the_threshold_the_label_is_other() -> None:
    clusters = made()
    two = [talk(np.random.default_rng(4), topic) for topic in ("kitchen", "football")]
    mixed = " ".join(" ".join(pair) for pair in zip(*(t.split() for t in two), strict=True))
    assert clusters.projection is not None
    unit = module._unit(module._project([*two, mixed], clusters.projection))[0]
    exponents = np.exp(clusters.concentration * (unit @ clusters.centres.astype(float).T))
    expected = exponents.max(axis=1) / exponents.sum(axis=1)
    assert place_vectors(clusters, unit)[1] == pytest.approx(expected, rel=1e-5)
    level = float(np.sort(expected)[:2].mean())  # between the mixed text and the others
    found = ClusterLabeller.make(clusters, embed=None, confidence=level).label([*two, mixed], NO_ROWS)
    assert [label == OTHER for label in found.labels] == [False, False, True]
    assert found.missing == {"below_confidence": 1}


def test_mean_confidence_is_the_share_that_stays_together_from_another_start() -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(800, 6)) + 1.2 * np.eye(6)[rng.integers(0, 6, 800)]
    texts = [f"word{i}" for i in range(800)]
    clusters = train_clusters(texts, embed=lambda t: raw[: len(t)].astype(np.float32), clusters=6, seed=0)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    labels, confidence = place_vectors(clusters, unit)
    again = (unit @ module._k_means(unit, 6, module.derived_seed(0, "clusters", "again")).T).argmax(axis=1)
    assert confidence.mean() == pytest.approx(module._agreement(labels, again), abs=0.01)


def test_texts_that_cannot_be_placed_say_why() -> None:
    clusters = made()
    found = ClusterLabeller.make(clusters, embed=None, confidence=0.0).label(["", " \n", "☃"], NO_ROWS)
    assert found.labels == [UNKNOWN, UNKNOWN, OTHER]
    assert found.missing == {"empty_text": 2, "unseen_words": 1}
    model = ClusterLabeller.make(made(embed=directions), embed=directions, confidence=0.0)
    found = model.label(["zzz", "flour and oven"], NO_ROWS)
    assert found.labels[0] == UNKNOWN
    assert found.labels[1] in model.clusters.names
    assert found.missing == {"not_finite": 1}
    assert model.label([], NO_ROWS).labels == []


def asked(language: str | None = "lang", **settings: Any) -> Asked:
    card = ModelCard.model_validate(
        {
            "name": "m", "family": "embedding", "role": "embedding", "model": "m", "licence": "none",
            "source": "here", "description": "a test", "direction": "none", "languages": ["en"],
            "output": {"kind": "vector"},
        }
    )  # fmt: skip
    placed = Placed(card=card, folder=Path("/nowhere"), digest="d")
    return Asked(placed=placed, settings=Settings(device="cpu", **settings), language=language)


def test_documents_in_languages_outside_the_models_card_get_no_domain() -> None:
    clusters, read = made(embed=directions), list[str]()

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        read.extend(texts)
        return directions(texts)

    labeller = ClusterLabeller.make(clusters, embed=embed, confidence=0.0, asked=asked())
    texts = ["flour oven", "oven dough", "bake flour", " ", "sugar"]
    rows = pa.RecordBatch.from_pydict({"lang": ["eng_Latn", "de", None, "en", "de"]})
    found = labeller.label(texts, rows)
    assert found.labels[0] in clusters.names
    assert found.labels[1:] == [UNKNOWN] * 4
    assert found.missing == {"empty_text": 1, "language_outside_card": 2, "language_unknown": 1}
    assert read == ["flour oven"]


def test_the_embedding_model_is_in_the_digest_and_what_its_card_leaves_open_is_told() -> None:
    clusters = made(embed=directions)
    cards = [
        ClusterLabeller.make(clusters, embed=directions, confidence=0.0, asked=one).card
        for one in (None, asked(), asked(language=None), asked(precision="bfloat16"))
    ]
    assert len({card.digest for card in cards}) == 4
    assert [len(card.warnings) - len(clusters.card.warnings) for card in cards] == [0, 0, 1, 0]
    assert "without annotate.language" in cards[2].warnings[-1]


def test_a_tiny_cluster_joins_its_nearest() -> None:
    """Three texts of a fourth kind are a cluster of k-means; they end in the one they lie nearest to."""
    spots = np.repeat(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.9, 0.4, 0]]), [40, 40, 40, 3], axis=0)
    jitter = np.random.default_rng(0).normal(size=spots.shape) * 0.01
    vectors = (spots + jitter).astype(np.float32)
    clusters = train_clusters(["a word"] * 123, embed=lambda t: vectors, clusters=4, seed=0)
    assert clusters.card.facts == {"texts": 123, "left_out": 0, "asked": 4, "clusters": 3, "merged": 1}
    labels, _ = place_vectors(clusters, module._unit(vectors)[0])
    assert set(labels[-3:]) == {labels[0]}
    assert len(set(labels.tolist())) == 3


def test_mini_batches_take_over_where_lloyd_would_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    lloyd = made()
    monkeypatch.setattr(module, "LLOYD", 0)
    assert set(made().names) == set(lloyd.names)
    assert made().centres.tobytes() == made().centres.tobytes()


def test_card_tells_groups_from_noise() -> None:
    clear = made().card
    assert clear.metrics["stability_ari"] == 1.0
    assert clear.warnings == ()
    rng = np.random.default_rng(0)
    noise = [" ".join(rng.choice(GLUE, 40)) for _ in range(300)]
    card = train_clusters(noise, embed=None, clusters=12, seed=0).card
    assert card.metrics["silhouette"] < clear.metrics["silhouette"]
    assert "two starts agree little" in card.warnings[0]


def test_too_few_texts_and_copies_are_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"20 usable texts for 3 clusters.*clusters to at most 2"):
        train_clusters(["flour oven"] * 20 + [" "] * 50, embed=None, clusters=3, seed=0)
    with pytest.raises(InputError, match="one cluster only"):
        train_clusters(["flour oven"] * 60, embed=None, clusters=3, seed=0)


def test_a_model_that_is_not_the_one_of_then_is_refused(tmp_path: Path) -> None:
    built_in, by_model = made(), made(embed=directions)
    with pytest.raises(InputError, match="made with the built-in embedding, got a model"):
        ClusterLabeller.make(built_in, embed=directions, confidence=0.0)
    with pytest.raises(InputError, match="made with an embedding model, got none"):
        ClusterLabeller.make(by_model, embed=None, confidence=0.0)
    wider = ClusterLabeller.make(by_model, embed=lambda t: np.ones((len(t), 5), np.float32), confidence=0.0)
    with pytest.raises(InputError, match="gives 5 numbers per text, the clusters were made with 3"):
        wider.label(["x"], NO_ROWS)
    with pytest.raises(InputError, match=r"has shape \(1,\), expected one row per text"):
        train_clusters(world()[0], embed=lambda t: np.ones(1, np.float32), clusters=3, seed=0)
    save_clusters(tmp_path, replace(built_in, names=("only-one",)))
    with pytest.raises(InputError, match=r"expected \(1, R\)"):
        load_clusters(tmp_path)


def test_names_differ_skip_word_forms_and_never_fail() -> None:
    texts = ["movie movies film actor plot scene"] * 4 + ["movie movies film actor plot scene"] * 4
    texts += ["goal goals keeper league"] * 8 + ["12 34 !"] * 3
    labels = np.repeat([0, 1, 2, 3], [4, 4, 8, 3])
    names = cluster_names(texts, labels, 4)
    assert names == cluster_names(texts, labels, 4)
    assert len(set(names)) == 4
    assert names[0] == "actor-film-movie"
    assert names[1].startswith("actor-film-movie-")
    assert set(names[2].split("-")) == {"goal", "keeper", "league"}
    assert names[3] == "cluster-4"
    assert cluster_names(["1", "2"], np.array([0, 1]), 2) == ("cluster-1", "cluster-2")
