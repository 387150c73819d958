"""Annotators the tool trains itself: `linear` (good against bad), `regression` (a number), domain labels.

In: texts with labels. Out: weights and a card with held-out quality beside the length-only baseline.

`linear` and `regression` are cross-fitted: the documents fall into five folds by a hash of their text,
one model is trained on each four folds, and every document, labelled or not, is scored by the model
that has not seen its fold. So a labelled or sampled document that stands in the pool is judged like any
other, and the quality on the card is that of the very scores the tool uses.
`linear` is the DCLM recipe (Li et al. 2024, arXiv 2406.11794, section 4.4) with a convex model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from quadmix.annotate.annotator import OTHER, AnnotatorCard, Labelled, Scored
from quadmix.annotate.features import DOMAIN_FEATURES, QUALITY_FEATURES, SETTINGS, hashed_features
from quadmix.errors import InputError
from quadmix.io.atomic import value_digest
from quadmix.rng import doc_keys, keyed_uniform
from quadmix.types import Floats

FOLDS = 5
MIN_EXAMPLES = 10
INVERSE_PENALTY = 10.0  # C of the logistic models; 1 to 1000 differ by 0.01 AUC on 282 human labels
RIDGE_PENALTY = 0.3
ITERATIONS = 200
Weights = NDArray[np.float32]
Direction = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Labelled texts; labels: (E,) float64 (class or number), groups: (E,) which labelled set."""

    texts: list[str]
    labels: Floats
    groups: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TrainedAnnotator:
    """weights: (F + 1, FOLDS) float32, one column per fold that was left out, intercepts in the last row."""

    card: AnnotatorCard
    weights: Weights

    def score(self, texts: Sequence[str], rows: pa.RecordBatch) -> Scored:
        """Return (D,) float32: the logit of good, or the predicted label in standard deviations."""
        return Scored(values=_cross_scores(self.weights, texts))


@dataclass(frozen=True, slots=True, eq=False)
class TrainedLabeller:
    """weights: (F + 1, C + 1) float32: one column per class, intercepts in the last row, and in the last
    column the squared inverse document frequency of each feature. Below `confidence` a text is `other`."""

    card: AnnotatorCard
    weights: Weights
    classes: tuple[str, ...]
    confidence: float

    def label(self, texts: Sequence[str], rows: pa.RecordBatch) -> Labelled:
        """Return the most probable class of every document, or `other`."""
        best, probability = _classify(self.weights, texts)
        sure = probability >= self.confidence
        labels = [self.classes[b] if s else OTHER for b, s in zip(best.tolist(), sure.tolist(), strict=True)]
        unsure = len(labels) - int(sure.sum())
        return Labelled(labels=labels, missing={"below_confidence": unsure} if unsure else {})


def train_linear(name: str, examples: Examples, *, direction: Direction, pool: int) -> TrainedAnnotator:
    """Train good (label 1) against bad (label 0); `pool` says how many of the bad are a pool sample."""
    counts = [int((examples.labels == c).sum()) for c in (0, 1)]
    if min(counts) < MIN_EXAMPLES:
        raise InputError(
            f"criterion {name!r}: {counts[1]} good and {counts[0]} bad texts, expected at least "
            f"{MIN_EXAMPLES} of each; name more text under `good` or `bad`"
        )
    weights, scores = _cross_fit(name, examples, _fit_logistic)
    truth = examples.labels
    length = auc(truth, _lengths(examples.texts))
    metrics = {"heldout_auc": auc(truth, scores), "length_auc": max(length, 1.0 - length)}
    facts = {"good": counts[1], "bad": counts[0] - pool, "bad_from_pool": pool}
    description = "log odds of good text; hashed word 1-2-grams, logistic regression, cross-fitted"
    return _trained(name, "linear", direction, weights, (description, metrics, facts))


def train_regression(name: str, examples: Examples, *, direction: Direction) -> TrainedAnnotator:
    """Train ridge regression on labels standardised within each labelled set."""
    if len(examples.texts) < 2 * MIN_EXAMPLES:
        raise InputError(
            f"criterion {name!r}: {len(examples.texts)} labelled texts, expected at least {2 * MIN_EXAMPLES}"
        )
    standard = _standardised(name, examples)
    weights, scores = _cross_fit(name, standard, _fit_ridge)
    lengths = _lengths(examples.texts)
    sets = [examples.groups == g for g in np.unique(examples.groups)]
    found = [spearman(examples.labels[s], scores[s]) for s in sets]
    base = [abs(spearman(examples.labels[s], lengths[s])) for s in sets]
    sizes = [int(s.sum()) for s in sets]
    metrics = {
        "heldout_spearman": float(np.average(found, weights=sizes)),
        "length_spearman": float(np.average(base, weights=sizes)),
    }
    if len(sets) > 1:
        metrics |= {f"heldout_spearman:{i}": r for i, r in enumerate(found)}
        metrics |= {f"length_spearman:{i}": r for i, r in enumerate(base)}
    facts = {"labelled": len(examples.texts), "sets": len(sets)}
    description = "predicted label in standard deviations; hashed word 1-2-grams, ridge, cross-fitted"
    return _trained(name, "regression", direction, weights, (description, metrics, facts))


def train_labeller(texts: Sequence[str], labels: Sequence[str], *, confidence: float) -> TrainedLabeller:
    """Train a multinomial logistic classifier; accuracy is measured on the fold that was left out first."""
    classes, index = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)
    counts = np.bincount(index)
    if len(classes) < 2 or counts.min() < MIN_EXAMPLES:
        few = f"{str(classes[counts.argmin()])!r} has {counts.min()}"
        raise InputError(
            f"domain classifier: {len(classes)} labels, {few} texts; expected at least 2 labels with "
            f"{MIN_EXAMPLES} texts each. Add labelled text or rename rare labels"
        )
    matrix, held = hashed_features(texts, DOMAIN_FEATURES), _folds(texts) == 0
    if len(np.unique(index[~held])) < len(classes):
        raise InputError("domain classifier: a label has text in one fold only; add differing texts for it")
    trial, truth = _fit_domains(matrix[~held], index[~held]), index[held]
    guesses = _domain_logits(trial, matrix[held]).argmax(axis=1)
    metrics = {
        "heldout_accuracy": float((guesses == truth).mean()) if held.any() else float("nan"),
        "majority_accuracy": float((truth == counts.argmax()).mean()) if held.any() else float("nan"),
    }
    names = tuple(str(c) for c in classes)
    weights = _fit_domains(matrix, index)
    card = AnnotatorCard(
        name="domain", kind="classifier", direction="none", metrics=metrics,
        facts={"labelled": len(texts), "classes": len(names)},
        description=f"most probable of {len(names)} domains; hashed word 1-2-grams, logistic regression",
        digest=_digest(weights, {"classes": names, "confidence": confidence}),
    )  # fmt: skip
    return TrainedLabeller(card, weights, names, confidence)


def _trained(
    name: str,
    kind: str,
    direction: Direction,
    weights: Weights,
    told: tuple[str, dict[str, float], dict[str, int]],
) -> TrainedAnnotator:
    description, metrics, facts = told
    measured, baseline = list(metrics.values())[:2]
    warnings = (
        ()
        if measured > baseline
        else (
            f"criterion {name!r}: held-out {measured:.3f} does not beat text length alone ({baseline:.3f}); "
            "it may carry no more than length. Check the labelled sets",
        )
    )
    card = AnnotatorCard(
        name=name, kind=kind, direction=direction, description=description, metrics=metrics, facts=facts,
        warnings=warnings, digest=_digest(weights, {"kind": kind, "direction": direction}),
    )  # fmt: skip
    return TrainedAnnotator(card, weights)


def _digest(weights: Weights, settings: dict[str, Any]) -> str:
    return value_digest({**settings, **SETTINGS, "weights": xxhash.xxh3_128_hexdigest(weights.tobytes())})


def _folds(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return (E,) the fold of each text, a function of the text alone, so duplicates share it."""
    return (keyed_uniform(0, doc_keys(texts), "fold") * FOLDS).astype(np.int64)


def _cross_fit(name: str, examples: Examples, fit: Any) -> tuple[Weights, NDArray[np.float32]]:
    """Return the (F + 1, FOLDS) weights and the (E,) scores of the examples, each by the model without it."""
    matrix, folds = hashed_features(examples.texts, QUALITY_FEATURES), _folds(examples.texts)
    columns: list[Weights] = []
    for fold in range(FOLDS):
        kept = folds != fold
        if len(np.unique(examples.labels[kept])) < 2:
            raise InputError(
                f"criterion {name!r}: without one fold of five all labels are equal; add texts that differ"
            )
        columns.append(fit(matrix[kept], examples.labels[kept]))
    weights = np.concatenate(columns, axis=1)
    return weights, _own_column(matrix, weights, folds)


def _cross_scores(weights: Weights, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return (D,) float32, each text's product with the column of its own fold."""
    if not texts:
        return np.empty(0, np.float32)
    return _own_column(_batch_features(tuple(texts), len(weights) - 1), weights, _folds(texts))


def _own_column(matrix: Any, weights: Weights, folds: NDArray[np.int64]) -> NDArray[np.float32]:
    products = matrix @ weights[:-1] + weights[-1]
    return products[np.arange(len(folds)), folds].astype(np.float32)


@lru_cache(maxsize=1)
def _batch_features(texts: tuple[str, ...], features: int) -> Any:
    """Features of the batch at hand, hashed once for all criteria."""
    return hashed_features(texts, features)


def _classify(weights: Weights, texts: Sequence[str]) -> tuple[NDArray[np.int64], Floats]:
    if not texts:
        return np.empty(0, np.int64), np.empty(0)
    logits = _domain_logits(weights, hashed_features(texts, len(weights) - 1)).astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return logits.argmax(axis=1), 1.0 / odds.sum(axis=1)


def _fit_domains(matrix: Any, labels: NDArray[Any]) -> Weights:
    """Return (F + 1, C + 1) weights on rows rescaled by inverse document frequency (0.08 more accuracy
    on 23 topics of 3,000 web pages than without)."""
    from sklearn.preprocessing import normalize

    seen = np.bincount(matrix.indices, minlength=matrix.shape[1])
    idf = np.log((1.0 + matrix.shape[0]) / (1.0 + seen)) + 1.0
    weights = _fit_logistic(normalize(matrix.multiply(idf[None, :]).tocsr()), labels, 1e-4)
    if weights.shape[1] == 1:  # two classes share one column; softmax wants one each
        weights = np.hstack([-weights / 2, weights / 2])
    scale = np.append(idf, 1.0)[:, None]
    return np.hstack([weights * scale, scale**2]).astype(np.float32)


def _domain_logits(weights: Weights, matrix: Any) -> Weights:
    """Return (D, C): the product with idf-scaled rows, whose length is divided out afterwards."""
    length = np.sqrt(matrix.multiply(matrix) @ weights[:-1, -1])
    return (matrix @ weights[:-1, :-1]) / np.maximum(length, 1e-12)[:, None] + weights[-1, :-1]


def _fit_logistic(matrix: Any, labels: NDArray[Any], tolerance: float = 1e-5) -> Weights:
    """Return (F + 1, C) weights (C = 1 for two classes), classes weighted equally."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=INVERSE_PENALTY, class_weight="balanced", max_iter=ITERATIONS, tol=tolerance, solver="lbfgs"
    )
    return _fitted(model, matrix, labels)


def _fit_ridge(matrix: Any, labels: Floats) -> Weights:
    from sklearn.linear_model import Ridge

    return _fitted(Ridge(alpha=RIDGE_PENALTY, solver="lsqr", max_iter=ITERATIONS), matrix, labels)


def _fitted(model: Any, matrix: Any, labels: NDArray[Any]) -> Weights:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():  # one thread: sums in one order on every machine
        warnings.simplefilter("ignore", ConvergenceWarning)  # the held-out numbers say how good it is
        model.fit(matrix, labels)
    slopes = np.atleast_2d(model.coef_).T
    return np.vstack([slopes, np.atleast_1d(model.intercept_)[None, :]]).astype(np.float32)


def _standardised(name: str, examples: Examples) -> Examples:
    labels = examples.labels.copy()
    for group in np.unique(examples.groups):
        rows = examples.groups == group
        spread = float(labels[rows].std())
        if spread == 0.0:
            raise InputError(
                f"criterion {name!r}: all labels of labelled set {group} equal {labels[rows][0]:g}; "
                "expected numbers that differ"
            )
        labels[rows] = (labels[rows] - labels[rows].mean()) / spread
    return Examples(texts=examples.texts, labels=labels, groups=examples.groups)


def _lengths(texts: Sequence[str]) -> Floats:
    return np.array([len(t) for t in texts], dtype=np.float64)


def _ranks(values: NDArray[Any]) -> Floats:
    """Return (D,) ranks from 1, ties share their mean: scipy's `rankdata`, whose import takes longer than a
    worker's whole start."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def auc(truth: NDArray[Any], scores: NDArray[Any]) -> float:
    """Return the probability that a good text (truth 1) scores above a bad one, ties counted half."""
    good = int((truth == 1).sum())
    bad = len(truth) - good
    if not good or not bad:
        return float("nan")
    return float((_ranks(scores)[truth == 1].sum() - good * (good + 1) / 2) / (good * bad))


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the rank correlation, 0 where one side is constant (it carries no order)."""
    x, y = _ranks(a), _ranks(b)
    if len(x) < 2 or x.std() == 0.0 or y.std() == 0.0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])
