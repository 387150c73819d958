"""The step `train`: from pairs to a rater with its card, and to the report of what it is worth.

In: the settings, and what `pairs` left in the rater's folder. Out: model/ (card.yaml and the files of its
family) and report.json. The held-out pairs decide nothing: strength of the penalty, number of epochs and best
step are chosen on a part of the training sources, and the rater that is reported on is the saved one, read
back and scored as `quadmix run` would.

The linear rater and the head are trained again on all training pairs once that is chosen; a fine-tuned
encoder is kept as it was chosen, without the pairs that chose it.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.rated import language_rows, read_rater
from quadmix.annotate.models.rater_head import head_of
from quadmix.errors import InputError
from quadmix.io.atomic import read_json, read_value, value_digest, write_json, write_table, write_text
from quadmix.io.door import is_offline
from quadmix.io.folders import new_folder
from quadmix.io.lease import lease
from quadmix.raters.audit import BiasAudit, bias_audit, describe
from quadmix.raters.compared import Tell, telling
from quadmix.raters.coverage import Known, check_encoder
from quadmix.raters.dense import DenseTraining, save_dense, train_dense
from quadmix.raters.embeddings import Vectors, embed
from quadmix.raters.excerpts import unit_spans
from quadmix.raters.finetune import finetune
from quadmix.raters.finetune_batches import FineTuning
from quadmix.raters.hashed import HashedTraining, save_hashed, train_hashed
from quadmix.raters.learning import trained_languages
from quadmix.raters.making import DOMAINS, RESOLVED
from quadmix.raters.offsets import Offsets, align, fit_offsets, unseen_texts
from quadmix.raters.reportcard import ReportCard, report_card
from quadmix.raters.scored import OFFSETS, load_rater_model, score_texts, write_reference
from quadmix.raters.table import PAIRS, RATINGS, TEXTS, Pairs, Texts, read_pairs, read_ratings, read_texts
from quadmix.recipe import RaterRecipe, dump_recipe, load_card, save_card
from quadmix.recipe.cards import ModelCard, card_folder
from quadmix.rng import keyed_uniform
from quadmix.types import Floats

MODEL, REPORT, SCORES = "model", "report.json", "scores.parquet"
CHOOSING = 0.3  # share of the training sources on which settings are chosen, before all are trained on
KEPT_OUT = 0.1  # the same where nothing is trained again: pairs across the split are lost
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterReport:
    """report.json. request: digest of settings and pairs. chosen: what was chosen on validation pairs.
    unread: texts that the encoder could not read, by reason; pairs: used for training. audit: of held-out
    texts, None where they are too few to cut. offsets: by which a threshold over languages can be corrected,
    fitted on held-out texts, None without parallel texts. scripts: what the encoder's tokenizer does not know
    of each language, None for character n-grams."""

    request: str
    name: str
    encoder: str
    head: str
    digest: str
    seed: int
    chosen: dict[str, float]
    pairs: int
    unread: dict[str, int]
    card: ReportCard
    audit: BiasAudit | None
    offsets: Offsets | None
    seconds: float
    scripts: Known | None = None
    warnings: tuple[str, ...] = ()
    version: int = VERSION


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Made:
    """scores: (D,) of the saved rater where the texts were read already, None: they are yet to be scored."""

    pairs: Pairs
    chosen: dict[str, float]
    unread: dict[str, int]
    scores: Floats | None = None


def train_rater(
    recipe: RaterRecipe, folder: Path, pairs_digest: str, tell: Tell | None = None
) -> RaterReport:
    """Train the rater, or return the report of the one that is there from the same settings and pairs.

    pairs_digest: of `making.PairsMade`. Raises InputError for pairs or an encoder that cannot be used.
    """
    request = value_digest(
        {
            "version": VERSION,
            "pairs": pairs_digest,
            "settings": recipe.model_dump(
                mode="json", include={"name", "seed", "encoder", "head"}, exclude={"encoder": {"max_unknown"}}
            ),
        }
    )
    with lease(folder):
        if (folder / REPORT).is_file() and (folder / MODEL / "card.yaml").is_file():
            found = read_value(folder / REPORT, RaterReport)
            if found.request == request:
                return found
            shutil.rmtree(folder / MODEL)  # of other settings
        texts = read_texts(folder / TEXTS)
        pairs = read_pairs(folder / PAIRS, texts)
        started = time.monotonic()
        scripts = known_scripts(recipe, texts, pairs)
        made = _train(recipe, folder, texts, pairs, tell)
        annotator = load_rater_model(folder / MODEL / "card.yaml", recipe.run.device)
        scores = score_texts(annotator, texts, tell) if made.scores is None else made.scores
        _write_scores(folder / SCORES, texts, scores)
        write_reference(folder / MODEL, recipe.transfer.source, texts, scores)
        report = replace(_report(recipe, folder, texts, made, scores), scripts=scripts)
        if report.offsets is not None:
            write_json(folder / MODEL / OFFSETS, report.offsets)
        digest = load_rater_model(folder / MODEL / "card.yaml", recipe.run.device).card.digest
        seconds = time.monotonic() - started
        report = replace(report, request=request, digest=digest, seconds=seconds)
        write_text(folder / RESOLVED, dump_recipe(recipe))
        write_json(folder / REPORT, report)
        return report


def inner_split(texts: Texts, pairs: Pairs, seed: int, *, share: float = CHOOSING) -> Pairs:
    """Return the training pairs alone, those between sources drawn for validation as held; pairs with one
    side there are left out."""
    train = pairs.take(~pairs.held)
    drawn = keyed_uniform(seed, texts.source, "validation") < share
    a, b = drawn[train.a], drawn[train.b]
    kept = train.take(a == b)
    return replace(kept, held=drawn[kept.a])


# --------------------------------------------------------------------------- the three tiers
def _train(recipe: RaterRecipe, folder: Path, texts: Texts, pairs: Pairs, tell: Tell | None) -> _Made:
    kind = recipe.encoder.kind
    if kind == "hashed":
        if recipe.head != "plain":
            raise InputError(
                f"head is {recipe.head!r}, but character n-grams have no head that reads the language; set "
                "head: plain, or encoder.kind: frozen"
            )
        return _hashed(recipe, folder, texts, pairs, tell)
    tier = _frozen if kind == "frozen" else _tuned
    return tier(recipe, folder, texts, pairs, tell)


def _hashed(recipe: RaterRecipe, folder: Path, texts: Texts, pairs: Pairs, tell: Tell | None) -> _Made:
    training, inner = HashedTraining(), inner_split(texts, pairs, recipe.seed)
    first = train_hashed(texts, inner, training, progress=telling(tell, "choose the penalty"))
    path = training.penalties[: [f.penalty for f in first.fits].index(first.chosen.penalty) + 1]
    last = replace(training, penalties=path, choose=False)
    rater = train_hashed(texts, pairs, last, progress=telling(tell, "train"))
    shutil.rmtree(folder / MODEL, ignore_errors=True)  # of a call that was killed before its report
    with new_folder(folder / MODEL) as target:
        save_hashed(target, rater, name=recipe.name, trained_on=_trained_on(recipe))
    chosen = {"penalty": first.chosen.penalty, "validation_accuracy": first.chosen.accuracy}
    return _Made(pairs=pairs, chosen=chosen, unread={})


def embedder(recipe: RaterRecipe) -> Placed:
    """Return the placed embedder of the settings."""
    model = str(recipe.encoder.model)
    card = load_card(model)
    return place(card, path=recipe.encoder.path, offline=is_offline(), beside=card_folder(model))


def known_scripts(recipe: RaterRecipe, texts: Texts, pairs: Pairs) -> Known | None:
    """Return what the encoder's tokenizer knows of the languages, None for character n-grams.

    Raises InputError where it does not know the script of a language that is trained on.
    """
    if recipe.encoder.kind == "hashed":
        return None
    return check_encoder(
        embedder(recipe), texts, trained_languages(pairs, texts), most=recipe.encoder.max_unknown,
        seed=recipe.seed,
    )  # fmt: skip


def embedded(
    recipe: RaterRecipe, folder: Path, texts: Texts, pairs: Pairs, tell: Tell | None
) -> tuple[Vectors, Pairs]:
    """Return the vectors of the texts, and the pairs whose texts both have one."""
    settings = Settings(device=recipe.run.device)
    vectors = embed(texts, embedder(recipe), settings, folder / "embeddings", telling(tell, "embed"))
    return vectors, pairs.take(vectors.known[pairs.a] & vectors.known[pairs.b])


def _frozen(recipe: RaterRecipe, folder: Path, texts: Texts, pairs: Pairs, tell: Tell | None) -> _Made:
    vectors, usable = embedded(recipe, folder, texts, pairs, tell)
    training, inner = dense_training(recipe), inner_split(texts, usable, recipe.seed)
    first = train_dense(
        vectors.values, texts, inner, training, checkpoint=folder / "choose.safetensors",
        progress=telling(tell, "choose the epochs"),
    )  # fmt: skip
    last = replace(training, epochs=first.best.epoch, patience=None)
    rater = train_dense(
        vectors.values, texts, usable, last, checkpoint=folder / "head.safetensors",
        progress=telling(tell, "train"),
    )  # fmt: skip
    model = str(recipe.encoder.model)
    base = load_card(model)
    shutil.rmtree(folder / MODEL, ignore_errors=True)
    with new_folder(folder / MODEL) as target:
        named = model if recipe.encoder.path is None and card_folder(model) is None else "base.yaml"
        if named == "base.yaml":
            _save_base(target / named, base, embedder(recipe).folder)
        save_dense(
            target, rater, name=recipe.name, base=base, base_name=named, trained_on=_trained_on(recipe)
        )
    for name in ("choose.safetensors", "head.safetensors"):
        (folder / name).unlink(missing_ok=True)
    chosen = {"epochs": float(first.best.epoch), "validation_accuracy": first.best.accuracy}
    facts, tensors = read_rater(folder / MODEL)
    saved = head_of(tensors, facts.languages, where=str(folder / MODEL))
    scores = saved.scores(vectors.values, language_rows(texts.language, saved.languages)).astype(np.float64)
    return _Made(pairs=usable, chosen=chosen, unread=vectors.missing, scores=scores)


def dense_training(recipe: RaterRecipe) -> DenseTraining:
    """Return the settings of a head."""
    own = recipe.encoder
    given: dict[str, Any] = {"epochs": own.epochs, "batch": own.batch, "lr": own.lr}
    known = {k: v for k, v in given.items() if v is not None}
    return DenseTraining(head=recipe.head, seed=recipe.seed, **known)


def _tuned(recipe: RaterRecipe, folder: Path, texts: Texts, pairs: Pairs, tell: Tell | None) -> _Made:
    own = recipe.encoder
    if recipe.head != "plain":
        raise InputError(
            f"head is {recipe.head!r}, but a fine-tuned encoder has a plain head; set head: plain, or "
            "encoder.kind: frozen"
        )
    placed = embedder(recipe)
    given: dict[str, Any] = {
        "epochs": own.epochs, "batch_pairs": own.batch, "encoder_rate": own.lr,
        "window": placed.card.input.window,
    }  # fmt: skip
    known = {k: v for k, v in given.items() if v is not None}
    training = FineTuning(pooling=own.pooling, seed=recipe.seed, **known)
    inner = inner_split(texts, pairs, recipe.seed, share=KEPT_OUT)
    finetune(
        texts, inner, placed, folder / MODEL, work=folder / "work", name=recipe.name,
        settings=Settings(device=recipe.run.device), training=training, progress=telling(tell, "train"),
    )  # fmt: skip
    return _Made(pairs=inner, chosen={}, unread={})


def _save_base(path: Path, base: ModelCard, folder: Path) -> None:
    save_card(path, base.model_copy(update={"model": str(folder)}))


def _trained_on(recipe: RaterRecipe) -> tuple[str, ...]:
    sets = [s.path for r in recipe.raters for s in (*r.good, *r.bad, *r.labelled)]
    return tuple(dict.fromkeys(Path(p).name for p in sets))


# --------------------------------------------------------------------------- what it is worth
def _report(recipe: RaterRecipe, folder: Path, texts: Texts, made: _Made, scores: Floats) -> RaterReport:
    ratings, known = read_ratings(folder / RATINGS, texts), np.isfinite(scores)
    pairs = read_pairs(folder / PAIRS, texts)
    pairs = pairs.take(known[pairs.a] & known[pairs.b])
    filled = np.where(known, scores, float(np.nanmean(scores)))
    card = report_card(texts, pairs, filled, ratings=ratings, anchor=recipe.transfer.source, seed=recipe.seed)
    held = np.flatnonzero(unseen_texts(texts, pairs) & known)
    offsets = _offsets(recipe, texts, filled, pairs)
    return RaterReport(
        request="", name=recipe.name, encoder=recipe.encoder.kind, head=recipe.head, digest="",
        seed=recipe.seed, chosen=made.chosen, pairs=int((~made.pairs.held).sum()), unread=made.unread,
        card=card, audit=_audit(folder, texts, scores, held.tolist()), seconds=0.0,
        offsets=offsets if isinstance(offsets, Offsets) else None,
        warnings=(offsets,) if isinstance(offsets, str) else (),
    )  # fmt: skip


def _audit(folder: Path, texts: Texts, scores: Floats, rows: Sequence[int]) -> BiasAudit | None:
    part = texts.take(rows)
    if len(part) < 100:
        return None
    tokens = np.array([max(len(unit_spans(text)), 1) for text in part.text], np.int64)
    known: dict[str, str] = read_json(folder / DOMAINS) if (folder / DOMAINS).is_file() else {}
    domain = [known.get(source, "not said") for source in part.source] if known else None
    return bias_audit(scores[list(rows)], tokens, part.language, part.ids, describe(part.text), domain=domain)


def _offsets(recipe: RaterRecipe, texts: Texts, scores: Floats, pairs: Pairs) -> Offsets | str:
    """Return the offsets, or why there are none."""
    try:
        return fit_offsets(align(texts, scores, unseen_texts(texts, pairs)), reference=recipe.transfer.source)
    except InputError as error:
        return str(error)


def _write_scores(path: Path, texts: Texts, scores: Floats) -> None:
    columns = {"ids": pa.array(list(texts.ids), pa.string()), "score": pa.array(scores, from_pandas=True)}
    write_table(path, pa.table(columns))
