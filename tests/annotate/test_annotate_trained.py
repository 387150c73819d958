"""Annotators the tool trains: they separate what can be separated and never see what they score."""

import numpy as np
import pytest
from annotate_world import article, menu
from scipy import stats
from sklearn.metrics import roc_auc_score

from quadmix.annotate import trained
from quadmix.annotate.annotator import OTHER
from quadmix.annotate.features import hashed_features
from quadmix.annotate.trained import Examples, auc, spearman, train_labeller, train_linear, train_regression
from quadmix.errors import InputError

NO_ROWS = None  # trained annotators read texts only


@pytest.fixture(autouse=True)
def small_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "QUALITY_FEATURES", 1 << 12)
    monkeypatch.setattr(trained, "DOMAIN_FEATURES", 1 << 12)


def examples(texts: list[str], labels: list[float], groups: list[int] | None = None) -> Examples:
    return Examples(texts=texts, labels=np.array(labels, float), groups=np.array(groups or [0] * len(texts)))


def good_and_bad(count: int = 60) -> Examples:
    rng = np.random.default_rng(3)
    texts = [article(rng) for _ in range(count)] + [menu(rng) for _ in range(count)]
    return examples(texts, [1.0] * count + [0.0] * count)


def test_linear_separates_and_its_card_holds_the_auc_of_the_very_scores() -> None:
    data = good_and_bad()
    made = train_linear("edu", data, direction="higher", pool=0)
    scores = made.score(data.texts, NO_ROWS).values
    assert made.card.metrics["heldout_auc"] == pytest.approx(roc_auc_score(data.labels, scores))
    assert made.card.metrics["heldout_auc"] > 0.99
    assert made.card.facts == {"good": 60, "bad": 60, "bad_from_pool": 0}


def test_a_text_is_scored_by_a_model_that_has_not_seen_it() -> None:
    """With labels that are noise a model that saw them separates them; the scores must not."""
    rng = np.random.default_rng(0)
    texts = [article(rng) for _ in range(200)]
    data = examples(texts, [float(i % 2) for i in range(200)])
    made = train_linear("noise", data, direction="higher", pool=0)
    assert 0.35 < made.card.metrics["heldout_auc"] < 0.65
    columns = hashed_features(texts, 1 << 12) @ made.weights[:-1]
    assert roc_auc_score(data.labels, columns.mean(axis=1)) > 0.9  # the other four models did see it


def test_a_criterion_no_better_than_length_is_reported() -> None:
    rng = np.random.default_rng(0)
    texts = [article(rng, 3) for _ in range(40)] + [article(rng, 30) for _ in range(40)]
    made = train_linear("long", examples(texts, [0.0] * 40 + [1.0] * 40), direction="higher", pool=0)
    assert made.card.metrics["length_auc"] == 1.0
    assert "does not beat text length" in made.card.warnings[0]


def test_training_twice_gives_the_same_bytes_and_digest() -> None:
    first, second = (train_linear("e", good_and_bad(), direction="higher", pool=0) for _ in range(2))
    assert first.weights.tobytes() == second.weights.tobytes()
    assert first.card == second.card
    assert train_linear("e", good_and_bad(), direction="lower", pool=0).card.digest != first.card.digest


def test_a_score_does_not_depend_on_its_batch() -> None:
    data = good_and_bad()
    made = train_linear("e", data, direction="higher", pool=0)
    alone = np.concatenate([made.score([t], NO_ROWS).values for t in data.texts])
    assert made.score(data.texts, NO_ROWS).values.tobytes() == alone.tobytes()


def test_regression_mixes_sets_of_different_scales() -> None:
    rng = np.random.default_rng(1)
    shares = rng.uniform(0, 1, 160)
    texts = [
        "\n".join(article(rng, 3) if u < s else menu(rng, 3) for u in rng.uniform(0, 1, 8)) for s in shares
    ]
    labels = [*(shares[:80] * 5), *(1000 + 300 * shares[80:])]
    made = train_regression("q", examples(texts, labels, [0] * 80 + [1] * 80), direction="higher")
    metrics = made.card.metrics
    assert metrics["heldout_spearman"] > 0.7
    per_set = [metrics["heldout_spearman:0"], metrics["heldout_spearman:1"]]
    assert metrics["heldout_spearman"] == pytest.approx(np.mean(per_set))
    assert stats.spearmanr(made.score(texts, NO_ROWS).values, shares).statistic > 0.7


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [(5, 50, "5 good and 50 bad texts, expected at least 10"), (50, 0, "50 good and 0 bad")],
)
def test_too_few_examples_are_refused(good: int, bad: int, message: str) -> None:
    rng = np.random.default_rng(0)
    data = examples([article(rng) for _ in range(good + bad)], [1.0] * good + [0.0] * bad)
    with pytest.raises(InputError, match=message):
        train_linear("e", data, direction="higher", pool=0)


def test_constant_labels_and_copies_of_one_text_are_refused() -> None:
    rng = np.random.default_rng(0)
    texts = [article(rng) for _ in range(30)]
    with pytest.raises(InputError, match="all labels of labelled set 0 equal 3"):
        train_regression("q", examples(texts, [3.0] * 30), direction="higher")
    with pytest.raises(InputError, match="without one fold of five all labels are equal"):
        train_linear(
            "q", examples(["same"] * 15 + texts[:15], [1.0] * 15 + [0.0] * 15), direction="higher", pool=0
        )


def test_domains_are_learned_and_unsure_texts_become_other() -> None:
    rng = np.random.default_rng(2)
    texts = [article(rng) for _ in range(40)] + [menu(rng) for _ in range(40)] + ["10 24 58 ! ? " * 9] * 10
    texts = [f"{t} {i}" for i, t in enumerate(texts)]
    labels = ["prose"] * 40 + ["shop"] * 40 + ["numbers"] * 10
    made = train_labeller(texts, labels, confidence=0.0)
    assert made.classes == ("numbers", "prose", "shop")
    assert made.card.metrics["heldout_accuracy"] > 0.9 > made.card.metrics["majority_accuracy"]
    assert made.label(texts, NO_ROWS).labels == labels
    strict = train_labeller(texts, labels, confidence=0.9999).label(["zebra"], NO_ROWS)
    assert strict.labels == [OTHER]
    assert strict.missing == {"below_confidence": 1}


def test_two_domains_have_probabilities_that_sum_to_one() -> None:
    rng = np.random.default_rng(2)
    texts = [article(rng) for _ in range(20)] + [menu(rng) for _ in range(20)]
    made = train_labeller(texts, ["a"] * 20 + ["b"] * 20, confidence=0.5)
    assert (
        made.label(texts, NO_ROWS).labels == ["a"] * 20 + ["b"] * 20
    )  # the winner of two is never below a half


def test_domain_scores_are_those_of_rows_scaled_by_document_frequency() -> None:
    """Oracle: scikit-learn's own pipeline on dense, rescaled, normalised rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    rng = np.random.default_rng(4)
    texts = (
        [article(rng) for _ in range(20)]
        + [menu(rng) for _ in range(20)]
        + ["7 8 9 " * 5 + str(i) for i in range(20)]
    )
    labels = np.repeat([0, 1, 2], 20)
    dense = hashed_features(texts, 1 << 12).toarray()
    idf = np.log(61.0 / (1.0 + (dense > 0).sum(axis=0))) + 1.0
    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=200, tol=1e-4)
    expected = model.fit(normalize(dense * idf), labels).decision_function(normalize(dense * idf))
    weights = trained._fit_domains(hashed_features(texts, 1 << 12), labels)
    got = trained._domain_logits(weights, hashed_features(texts, 1 << 12))
    np.testing.assert_allclose(got, expected, atol=0.02)


def test_rare_labels_are_refused_with_their_name() -> None:
    texts = [f"text {i}" for i in range(30)]
    with pytest.raises(InputError, match="'rare' has 2 texts"):
        train_labeller(texts, ["common"] * 28 + ["rare"] * 2, confidence=0.0)


def test_auc_and_spearman_agree_with_the_libraries_on_ties() -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.integers(0, 2, 200), rng.integers(0, 9, 200)
    assert auc(truth, scores) == pytest.approx(roc_auc_score(truth, scores))
    assert spearman(truth, scores) == pytest.approx(stats.spearmanr(truth, scores).statistic)
    assert spearman(np.ones(5), np.arange(5)) == 0.0


def test_features_of_a_huge_text_are_bounded() -> None:
    matrix = hashed_features(["a" * 5_000_000, "b " * 2_500_000, "x" * 50_000 + " unseen"], 1 << 12)
    assert matrix.shape == (3, 1 << 12)
    assert matrix[2].nnz == 1  # the words after the first 50,000 characters are not read
