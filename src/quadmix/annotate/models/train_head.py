"""A linear head on a frozen embedder, trained on the user's own scored texts, held against its held-out part.

In: texts with a number each, an embedder. Out: a folder with `head.safetensors`, `card.yaml` (with the file's
sha256), `base.yaml` (the embedder's card) and `metrics.json`. The head is ridge regression: it has one best
solution, so that the same texts give the same head.

Documents go to the held-out part, and to the folds that choose the penalty inside the rest, by a hash of
their text, so that equal texts stand on one side. The quality is that of the saved file, read back, beside
what the length of a text alone would reach; the learning curve says whether more labels would help.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.models.base import Placed, TextModel
from quadmix.annotate.models.devices import import_torch
from quadmix.annotate.models.heads import read_layers
from quadmix.annotate.models.rater import check_text_alone, prepare_text
from quadmix.annotate.trained import spearman
from quadmix.errors import InputError, MissingExtraError
from quadmix.io.atomic import replacing, write_json
from quadmix.io.folders import new_folder
from quadmix.io.hashing import sha256_file
from quadmix.recipe.cards import CardOutput, ModelCard, card_names, save_card
from quadmix.rng import doc_keys, keyed_uniform
from quadmix.types import Floats

LEAST = 50  # texts with a vector
LEAST_HELD_OUT = 10
SMALLEST = 32  # texts of the learning curve's first point
HEAD = "head.safetensors"
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadTraining:
    """How it is trained. heldout: share of the texts that are kept for the metrics. alphas: penalties tried,
    for vectors of length one; the best over `folds` of the training part is taken."""

    heldout: float = 0.2
    alphas: tuple[float, ...] = (0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Held-out Spearman of a head trained on so many of the texts."""

    texts: int
    spearman: float
    alpha: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadMetrics:
    """spearman: of the saved head on the held-out texts; length_spearman: of their length, the better way
    round; mae, constant_mae: mean absolute error of the head, and of the training part's mean."""

    spearman: float
    length_spearman: float
    mae: float
    constant_mae: float
    alpha: float
    train: int
    heldout: int
    without_vector: dict[str, int]
    curve: tuple[CurvePoint, ...]
    settings: HeadTraining
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Data:
    """vectors: (E, H) float32; scores, lengths: (E,) float64; held: (E,) held out or not; fold, order: (E,)
    in [0, 1), which decide folds and the order of the learning curve."""

    vectors: Vectors
    scores: Floats
    lengths: Floats
    held: NDArray[np.bool_]
    fold: Floats
    order: Floats

    def part(self, rows: NDArray[Any]) -> "_Data":
        return _Data(
            vectors=self.vectors[rows], scores=self.scores[rows], lengths=self.lengths[rows],
            held=self.held[rows], fold=self.fold[rows], order=self.order[rows],
        )  # fmt: skip


def train_head(
    texts: Sequence[str],
    scores: Sequence[float],
    out: str | Path,
    *,
    embedder: TextModel,
    name: str,
    training: HeadTraining | None = None,
    direction: Literal["higher", "lower"] = "higher",
    folder: str | Path | None = None,
    trained_on: Sequence[str] = (),
) -> ModelCard:
    """Train a number like `scores`, write the folder `out` (new or empty) and return its card.

    direction: of the scores. folder: where the embedder's files lie on this machine, written into base.yaml
    in place of its id; None: as its own card says.
    Raises InputError for scores that are not numbers or all equal, and for too few texts.
    """
    training = training or HeadTraining()
    data, lost = _data(texts, scores, embedder, training)
    rest = data.part(np.logical_not(data.held))
    weights, alpha = _fit(rest, training)
    with new_folder(out) as target:
        _save(target / HEAD, weights)
        base = _write_base(target, embedder.card, folder)
        card = _card(name, embedder.card, base, direction, tuple(trained_on))
        card = card.model_copy(update={"files": {HEAD: sha256_file(target / HEAD)}})
        found = _apply(Placed(card=card, folder=target, digest=""), data.part(data.held).vectors)
        metrics = _metrics(data, found, alpha, training)
        write_json(target / "metrics.json", replace(metrics, without_vector=lost))
        save_card(target / "card.yaml", card)
    return card


def _data(
    texts: Sequence[str], scores: Sequence[float], embedder: TextModel, training: HeadTraining
) -> tuple[_Data, dict[str, int]]:
    numbers = np.asarray(scores, np.float64)
    if len(texts) != len(numbers):
        raise InputError(f"{len(texts)} texts and {len(numbers)} scores, expected one score per text")
    if bad := np.flatnonzero(~np.isfinite(numbers)).tolist():
        raise InputError(
            f"the score in row {bad[0]} is {scores[bad[0]]}, expected a number; remove {bad[:5]}"
        )
    if empty := [row for row, text in enumerate(texts) if not text.strip()]:
        raise InputError(f"the text in row {empty[0]} is empty; remove the rows {empty[:5]}")
    check_text_alone(embedder.card)
    outputs = embedder.outputs([prepare_text(embedder.card, text, {}) for text in texts])
    have = np.isfinite(outputs.values).all(axis=1)
    keys = doc_keys(list(texts))
    data = _Data(
        vectors=outputs.values, scores=numbers, lengths=np.array([len(t) for t in texts], np.float64),
        held=keyed_uniform(training.seed, keys, "heldout") < training.heldout,
        fold=keyed_uniform(training.seed, keys, "fold"), order=keyed_uniform(training.seed, keys, "curve"),
    ).part(np.asarray(have))  # fmt: skip
    _check(data, len(texts))
    return data, dict(outputs.missing)


def _check(data: _Data, given: int) -> None:
    held = int(data.held.sum())
    if len(data.scores) < LEAST or held < LEAST_HELD_OUT or len(data.scores) - held < SMALLEST:
        raise InputError(
            f"{len(data.scores)} of {given} texts have a vector, {held} of them are held out; expected at "
            f"least {LEAST}, {LEAST_HELD_OUT} held out and {SMALLEST} to train on: add scored texts"
        )
    for part, scores in (("held-out", data.scores[data.held]), ("training", data.scores[~data.held])):
        if np.ptp(scores) == 0:
            raise InputError(f"all scores of the {part} part are {scores[0]}; expected scores that differ")


def _fit(data: _Data, training: HeadTraining) -> tuple[Floats, float]:
    """Return (H + 1,) weights with the intercept last, and the penalty that was chosen."""
    try:
        from sklearn.linear_model import Ridge, RidgeCV
        from sklearn.model_selection import PredefinedSplit
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "annotate", "training a head") from error
    folds = (data.fold * training.folds).astype(int)
    vectors = data.vectors.astype(np.float64)
    alpha: Any = sorted(training.alphas)[len(training.alphas) // 2]
    if len(training.alphas) > 1 and len(np.unique(folds)) > 1:
        search = RidgeCV(alphas=training.alphas, cv=PredefinedSplit(folds), scoring="neg_mean_squared_error")
        alpha = search.fit(vectors, data.scores).alpha_
    model = Ridge(alpha=alpha).fit(vectors, data.scores)
    return np.append(model.coef_, model.intercept_), float(alpha)


def _metrics(data: _Data, found: Floats, alpha: float, training: HeadTraining) -> HeadMetrics:
    held, rest = data.part(data.held), data.part(~data.held)
    own, length = spearman(held.scores, found), abs(spearman(held.scores, held.lengths))
    warning = f"held-out Spearman {own:.3f} does not beat the length of a text alone ({length:.3f})"
    return HeadMetrics(
        spearman=own, length_spearman=length, mae=float(np.abs(found - held.scores).mean()),
        constant_mae=float(np.abs(rest.scores.mean() - held.scores).mean()), alpha=alpha,
        train=len(rest.scores), heldout=len(held.scores), without_vector={},
        curve=_curve(rest, held, training), settings=training,
        warnings=() if own > length else (warning,),
    )  # fmt: skip


def _curve(rest: _Data, held: _Data, training: HeadTraining) -> tuple[CurvePoint, ...]:
    """Return the points for 32, 64, ... and all texts of the training part, each holding the ones before."""
    total = len(rest.scores)
    sizes = [SMALLEST << k for k in range(30) if SMALLEST << k < total]
    first = np.argsort(rest.order, kind="stable")
    points: list[CurvePoint] = []
    for size in [*sizes, total]:
        weights, alpha = _fit(rest.part(first[:size]), training)
        found = held.vectors.astype(np.float64) @ weights[:-1] + weights[-1]
        rank = spearman(held.scores, found) if np.ptp(found) > 0 else 0.0
        points.append(CurvePoint(texts=size, spearman=rank, alpha=alpha))
    return tuple(points)


def _save(path: Path, weights: Floats) -> None:
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise MissingExtraError("safetensors", "annotate", "saving a head") from error
    single = weights.astype(np.float32)
    with replacing(path) as temporary:
        save_file({"weight": single[None, :-1].copy(), "bias": single[-1:].copy()}, temporary)


def _apply(placed: Placed, vectors: Vectors) -> Floats:
    torch = import_torch("a head")
    with torch.inference_mode():
        return read_layers(placed)(torch.from_numpy(vectors)).numpy()[:, 0].astype(np.float64)


def _write_base(target: Path, card: ModelCard, folder: str | Path | None) -> str:
    """Return what the head's card says as `base`: a card of the package, or the one written beside it."""
    if folder is None and card.name in card_names():
        return card.name
    if folder is not None:
        card = card.model_copy(update={"model": str(Path(folder).absolute())})
    save_card(target / "base.yaml", card)
    return "base.yaml"


def _card(
    name: str,
    base: ModelCard,
    base_name: str,
    direction: Literal["higher", "lower"],
    trained_on: tuple[str, ...],
) -> ModelCard:
    return ModelCard(
        name=name, family="frozen-head", role="quality", model=".", head=HEAD, base=base_name,
        licence=f"that of the scored texts, and of {base.name} ({base.licence})",
        source="trained with quadmix; see metrics.json", direction=direction, languages=base.languages,
        description=f"your own scores, ridge regression on vectors of {base.name}",
        input=base.input, output=CardOutput(kind="number"), trained_on=trained_on,
    )  # fmt: skip
