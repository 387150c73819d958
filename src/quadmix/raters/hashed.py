"""The first tier: a rater that is linear in hashed character n-grams, trained on pairs without any download.

In: texts, pairs. Out: a `HashedScorer` and, in a folder, a card that scores documents. With x the features of
a text (n-grams, scaled to length 1, and surface statistics), s = w . x, and w minimises

    sum_i w_i BCE(sigmoid(s_a - s_b), p_i) / sum_i w_i + penalty / 2 |w|^2

which has one minimum: no draw, no learning rate, and the order of rows and of sides changes nothing, to the
last bit. L-BFGS goes from the strongest penalty to weaker ones, each begun where the last one ended, and
stops where the mean over languages of the accuracy on held pairs no longer grows.

Why linear: on 10,891 excerpts of four lines of NTREX and TICO-19 (8 languages, 15,000 training pairs of all
kinds, votes of three raters of the English side, a quarter of the documents held out), linear weights without
surface statistics had a held-out accuracy of 0.686, and of 0.622 in three languages left out of training,
after 13 seconds of one core per penalty. Embeddings of the same n-grams (32 numbers, summed, GELU, one linear
layer, Adagrad) came to 0.649 and 0.595 after 40 seconds, and lower with dropout. With surface statistics the
linear rater has 0.682 and 0.646: they help where the n-grams are unknown. But parallel texts stand farther
apart with them (mean squared difference over variance 0.31 instead of 0.21), so they can be left out. n-grams
of up to 5 characters gave 0.002 more and cost a quarter more. benchmarks/rater.py says how fast it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.models.char_ngrams import FEATURES, LONGEST, ngram_matrix
from quadmix.annotate.models.rated import (
    FACTS,
    WEIGHTS,
    HashedScorer,
    RaterFacts,
    scaled_surface,
    write_rater,
)
from quadmix.annotate.models.surface import NAMES, surface
from quadmix.errors import InputError
from quadmix.io.hashing import sha256_file
from quadmix.raters.learning import canonical, check_pairs, mean_accuracy, trained_languages, used_texts
from quadmix.raters.loss import pair_gradient, pair_loss
from quadmix.raters.table import Pairs, Texts
from quadmix.recipe.cards import CardOutput, ModelCard, save_card
from quadmix.types import Floats

Progress = Callable[[int, int], None]
SPREAD = 0.1  # standard deviation of a scaled statistic beside n-gram rows of length 1
_BATCH = 2_000  # texts whose n-grams are counted at once
_MEMORY = 8  # updates that L-BFGS remembers


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedTraining:
    """penalties: tried in this order, strongest first. choose: False keeps the last one, whatever the held
    pairs say. iterations: of L-BFGS, at most, per penalty. surface:
    are surface statistics features, too? window: characters of a document that are scored at once, about as
    many as the texts of training have."""

    features: int = FEATURES
    longest: int = LONGEST
    surface: bool = True
    penalties: tuple[float, ...] = (1e-4, 3e-5, 1e-5, 3e-6)
    choose: bool = True
    iterations: int = 40
    window: int = 2_000
    max_windows: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One penalty: training loss without the penalty, mean accuracy on held pairs, iterations taken."""

    penalty: float
    loss: float
    accuracy: float
    iterations: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HashedRater:
    """fits: in the order they were made; chosen: the best of them by held-out accuracy."""

    scorer: HashedScorer
    chosen: Fitted
    fits: tuple[Fitted, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Problem:
    """matrix: (U, F + S) float32 CSR of the texts that occur in pairs; a, b: (P,) its rows."""

    matrix: Any
    pairs: Pairs

    def scores(self, weights: Floats) -> NDArray[np.float32]:
        return np.asarray(self.matrix @ weights.astype(np.float32))

    def loss(self, weights: Floats) -> tuple[float, Floats]:
        """Return the loss and its gradient (F + S,)."""
        scores, size = self.scores(weights).astype(np.float64), self.matrix.shape[0]
        a, b, p, weight = self.pairs.a, self.pairs.b, self.pairs.p, self.pairs.weight
        difference = scores[a] - scores[b]
        slope = pair_gradient(difference, p, weight)
        by_text = np.bincount(a, slope, size) - np.bincount(b, slope, size)
        gradient = np.asarray(self.matrix.T @ by_text.astype(np.float32)).astype(np.float64)
        return pair_loss(difference, p, weight), gradient


def train_hashed(
    texts: Texts, pairs: Pairs, training: HashedTraining | None = None, *, progress: Progress | None = None
) -> HashedRater:
    """Train the first tier on the pairs that are not held, choose the penalty on those that are.

    progress: (penalties tried, penalties). Raises InputError if no pair of either part prefers a side, or a
    text of a pair has no characters.
    """
    training = training or HashedTraining()
    _check(training)
    check_pairs(pairs)
    rows = used_texts(pairs, texts)
    place = np.full(len(texts), -1, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    ordered = canonical(pairs, texts)
    inner = Pairs(
        a=place[ordered.a], b=place[ordered.b], p=ordered.p, weight=ordered.weight, kind=ordered.kind,
        held=ordered.held,
    )  # fmt: skip
    used = [texts.text[i] for i in rows.tolist()]
    own = np.unique(np.concatenate([inner.a, inner.b])[np.tile(~inner.held, 2)])  # held texts decide nothing
    seen = [used[i] for i in own.tolist()]
    means, scales = _moments(seen) if training.surface else (np.empty(0, np.float32),) * 2
    matrix = _features(used, training, means, scales)
    if empty := np.flatnonzero(np.diff(matrix.indptr) <= len(means)).tolist():
        raise InputError(
            f"text {texts.ids[int(rows[empty[0]])]!r} is empty, as are {len(empty)} in all; expected texts "
            "with characters: make the pairs anew"
        )
    languages = [texts.language[i] for i in rows.tolist()]
    weights, fits, chosen = _path(_Problem(matrix=matrix, pairs=inner), languages, training, progress)
    facts = RaterFacts(
        kind="hashed", languages=trained_languages(ordered, texts), window=training.window,
        max_windows=training.max_windows, features=training.features, longest=training.longest,
        surface=list(NAMES) if training.surface else None,
    )  # fmt: skip
    single = weights.astype(np.float32)
    scorer = HashedScorer(
        facts=facts, weights=single[: training.features], statistic_weights=single[training.features :],
        means=means, scales=scales,
    )  # fmt: skip
    return HashedRater(scorer=scorer, chosen=chosen, fits=fits)


def _check(training: HashedTraining) -> None:
    if not training.penalties or min(training.penalties) <= 0:
        raise InputError(f"penalties are {training.penalties}, expected at least one, all above 0")


def _path(
    problem: _Problem, languages: Sequence[str], training: HashedTraining, progress: Progress | None
) -> tuple[Floats, tuple[Fitted, ...], Fitted]:
    from scipy.optimize import minimize

    held = problem.pairs.take(problem.pairs.held)
    train = _Problem(matrix=problem.matrix, pairs=problem.pairs.take(~problem.pairs.held))
    weights = np.zeros(problem.matrix.shape[1])
    best, fits, chosen = weights, list[Fitted](), None
    for done, penalty in enumerate(training.penalties):
        if progress:
            progress(done, len(training.penalties))

        def objective(w: Floats, penalty: float = penalty) -> tuple[float, Floats]:
            loss, gradient = train.loss(w)
            return loss + penalty / 2 * float(w @ w), gradient + penalty * w

        found: Any = minimize(
            objective, weights, jac=True, method="L-BFGS-B",
            options={"maxiter": training.iterations, "maxcor": _MEMORY},
        )  # fmt: skip
        weights = np.asarray(found.x)
        fit = Fitted(
            penalty=penalty, loss=train.loss(weights)[0], iterations=int(found.nit),
            accuracy=mean_accuracy(problem.scores(weights), held, languages),
        )  # fmt: skip
        fits.append(fit)
        if training.choose and chosen is not None and fit.accuracy <= chosen.accuracy:
            break
        best, chosen = weights, fit
    if progress:
        progress(len(training.penalties), len(training.penalties))
    assert chosen is not None  # there is a penalty: the first fit was chosen
    return best, tuple(fits), chosen


def _moments(texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and scale of each surface statistic; a scaled one has the standard deviation SPREAD."""
    shares = surface(texts).astype(np.float64)
    deviation = shares.std(axis=0)
    scales = np.where(deviation > 0, deviation, 1.0) / SPREAD
    return shares.mean(axis=0).astype(np.float32), scales.astype(np.float32)


def _features(
    texts: Sequence[str], training: HashedTraining, means: NDArray[np.float32], scales: NDArray[np.float32]
) -> Any:
    """Return the (U, F + S) float32 CSR matrix; S statistics stand last and are all stored."""
    from scipy.sparse import csr_array, hstack, vstack

    parts: list[Any] = []
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        part = ngram_matrix(batch, features=training.features, longest=training.longest)
        if len(means):
            dense = scaled_surface(surface(batch), means, scales)
            every = np.tile(np.arange(len(means)), len(batch))
            ends = np.arange(len(batch) + 1) * len(means)
            part = hstack([part, csr_array((dense.ravel(), every, ends), shape=dense.shape)], format="csr")
        parts.append(part)
    return vstack(parts, format="csr") if len(parts) > 1 else parts[0]


def save_hashed(
    folder: Path,
    rater: HashedRater,
    *,
    name: str,
    licence: str = "that of the texts it was trained on",
    trained_on: Sequence[str] = (),
) -> ModelCard:
    """Write rater.safetensors, rater.json and card.yaml into a folder, and return the card.

    With the card as `model` of a criterion of kind model, `quadmix run` scores documents of any language.
    """
    write_rater(folder, rater.scorer.facts, rater.scorer)
    card = ModelCard(
        name=name, family="rater", role="quality", model=".", licence=licence,
        files={file: sha256_file(folder / file) for file in (FACTS, WEIGHTS)},
        source="trained with quadmix from votes on pairs of texts (MuRating, arXiv 2507.01785)",
        description="preference of raters, linear in hashed character n-grams; trained in "
        f"{', '.join(rater.scorer.facts.languages)}",
        output=CardOutput(kind="number"), trained_on=tuple(trained_on),
    )  # fmt: skip
    save_card(folder / "card.yaml", card)
    return card
