"""The three tiers of encoders under one call: pairs -> a folder `model` with a rater and its card.

In: settings, texts, pairs. Out: `Trained`. The held-out pairs decide nothing: strength of the penalty, number
of epochs and best step are chosen on a part of the training sources.

The linear rater and the head are trained again on all training pairs once that is chosen; a fine-tuned
encoder is kept as it was chosen, without the pairs that chose it.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.rated import by_windows, language_rows, read_rater
from quadmix.annotate.models.rater_head import head_of
from quadmix.errors import InputError
from quadmix.io.door import is_offline
from quadmix.io.folders import new_folder
from quadmix.io.fs import expand
from quadmix.raters.compared import Tell, telling
from quadmix.raters.coverage import Known, check_encoder
from quadmix.raters.dense import DenseTraining, save_dense, train_dense
from quadmix.raters.domains import check_code, code_domains
from quadmix.raters.embeddings import Vectors, embed
from quadmix.raters.finetune import finetune, holds_training, training_identity
from quadmix.raters.finetune_batches import FineTuning
from quadmix.raters.hashed import HashedTraining, save_hashed, train_hashed
from quadmix.raters.learning import trained_languages
from quadmix.raters.related import related_sources
from quadmix.raters.table import PARALLEL, Pairs, Texts
from quadmix.recipe import RaterRecipe, load_card, save_card
from quadmix.recipe.cards import ModelCard, card_folder
from quadmix.rng import keyed_uniform
from quadmix.types import Floats
from quadmix.urls import redact

MODEL, EMBEDDINGS = "model", "embeddings"
CHOOSING = 0.3  # share of the training sources on which settings are chosen, before all are trained on
KEPT_OUT = 0.1  # the same where nothing is trained again: pairs across the split are lost


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """pairs: trained on, with their held ones. chosen: what was chosen on validation pairs. unread: reason ->
    texts. scores: (D,) of the saved rater where the texts were read already, None: they are yet to be
    scored."""

    pairs: Pairs
    chosen: dict[str, float]
    unread: dict[str, int]
    scores: Floats | None = None


def inner_split(texts: Texts, pairs: Pairs, seed: int, *, share: float = CHOOSING) -> Pairs:
    """Return the training pairs alone, those between sources drawn for validation as held; pairs with one
    side there are left out. Sources whose texts share words in a row are drawn together (`related`).

    That loses labelled pairs and no parallel ones, so the weights of these are scaled, in each part, to the
    share of the labelled pairs' weight that they have among all training pairs: lambda stays.
    """
    train = pairs.take(~pairs.held)
    groups = related_sources(texts)[0]
    drawn = keyed_uniform(seed, [groups[source] for source in texts.source], "validation") < share
    a, b = drawn[train.a], drawn[train.b]
    kept = train.take(a == b)
    held, weight, share = drawn[kept.a], kept.weight.copy(), _parallel_share(train)
    for part in (held, ~held):
        own = _parallel_share(kept.take(part))
        if share > 0 and own > 0:
            weight[part & (kept.kind == PARALLEL)] *= share / own
    return replace(kept, held=held, weight=weight)


def _parallel_share(pairs: Pairs) -> float:
    """Return the weight of parallel pairs per weight of labelled ones, 0 where there are no labelled ones."""
    parallel = pairs.kind == PARALLEL
    labelled = float(pairs.weight[~parallel].sum())
    return float(pairs.weight[parallel].sum()) / labelled if labelled > 0 else 0.0


def train_tier(
    recipe: RaterRecipe, folder: Path, texts: Texts, pairs: Pairs, tell: Tell | None, *, vectors: Path
) -> Trained:
    """Train the tier that the settings name and write its folder `model` into `folder`.

    vectors: where a frozen encoder's vectors of texts are kept. Raises InputError for pairs or an encoder
    that cannot be used, and for a head that the tier does not have.
    """
    kind = recipe.encoder.kind
    if kind == "hashed":
        if recipe.head != "plain":
            raise InputError(
                f"head is {recipe.head!r}, but character n-grams have no head that reads the language; set "
                "head: plain, or encoder.kind: frozen"
            )
        return _hashed(recipe, folder, texts, pairs, tell)
    if kind == "frozen":
        return _frozen(recipe, folder, texts, pairs, tell, vectors)
    return _tuned(recipe, folder, texts, pairs, tell)


def _hashed(recipe: RaterRecipe, folder: Path, texts: Texts, pairs: Pairs, tell: Tell | None) -> Trained:
    training, inner = HashedTraining(), inner_split(texts, pairs, recipe.seed)
    first = train_hashed(texts, inner, training, progress=telling(tell, "choose the penalty"))
    path = training.penalties[: [f.penalty for f in first.fits].index(first.chosen.penalty) + 1]
    last = replace(training, penalties=path, choose=False)
    rater = train_hashed(texts, pairs, last, progress=telling(tell, "train"))
    shutil.rmtree(folder / MODEL, ignore_errors=True)  # of a call that was killed before its report
    with new_folder(folder / MODEL) as target:
        save_hashed(target, rater, name=recipe.name, trained_on=_trained_on(recipe))
    chosen = {"penalty": first.chosen.penalty, "validation_accuracy": first.chosen.accuracy}
    return Trained(pairs=pairs, chosen=chosen, unread={})


def embedder(recipe: RaterRecipe) -> Placed:
    """Return the placed embedder of the settings."""
    model = str(recipe.encoder.model)
    card = load_card(model)
    return place(card, path=recipe.encoder.path, offline=is_offline(), beside=card_folder(model))


def encoder_digest(recipe: RaterRecipe) -> str | None:
    """Return the digest of the encoder's card and files, None for character n-grams, which have none."""
    return None if recipe.encoder.kind == "hashed" else embedder(recipe).digest


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
    recipe: RaterRecipe, store: Path, texts: Texts, pairs: Pairs, tell: Tell | None
) -> tuple[Vectors, Pairs]:
    """Return the vectors of the texts, kept in `store`, and the pairs whose texts both have one. Windows are
    those that the saved rater reads; a head is trained on one vector per text, the mean of its windows."""
    settings = Settings(device=recipe.run.device)
    vectors = embed(texts, by_windows(embedder(recipe)), settings, store, telling(tell, "embed"))
    return vectors, pairs.take(vectors.known[pairs.a] & vectors.known[pairs.b])


def _frozen(
    recipe: RaterRecipe, folder: Path, texts: Texts, pairs: Pairs, tell: Tell | None, store: Path
) -> Trained:
    check_code(recipe)
    vectors, usable = embedded(recipe, store, texts, pairs, tell)
    domains = code_domains(recipe, folder, texts)
    training, inner = dense_training(recipe), inner_split(texts, usable, recipe.seed)
    first = train_dense(
        vectors.values, texts, inner, training, domains=domains, checkpoint=folder / "choose.safetensors",
        progress=telling(tell, "choose the epochs"),
    )  # fmt: skip
    last = replace(training, epochs=first.best.epoch, patience=None)
    rater = train_dense(
        vectors.values, texts, usable, last, domains=domains, checkpoint=folder / "head.safetensors",
        progress=telling(tell, "train"),
    )  # fmt: skip
    model = str(recipe.encoder.model)
    base, placed = load_card(model), embedder(recipe)
    shutil.rmtree(folder / MODEL, ignore_errors=True)
    with new_folder(folder / MODEL) as target:
        named = model if recipe.encoder.path is None and card_folder(model) is None else "base.yaml"
        if named == "base.yaml":
            _save_base(target / named, base, placed.folder)
        save_dense(
            target, rater, name=recipe.name, base=base, base_name=named, base_digest=placed.digest,
            trained_on=_trained_on(recipe),
        )  # fmt: skip
    for name in ("choose.safetensors", "head.safetensors"):
        (folder / name).unlink(missing_ok=True)
    chosen = {"epochs": float(first.best.epoch), "validation_accuracy": first.best.accuracy}
    facts, tensors = read_rater(folder / MODEL)
    saved = head_of(tensors, facts.languages, facts.domains, where=str(folder / MODEL))
    rows = language_rows(texts.language, saved.languages), saved.domain_rows(domains or [""] * len(texts))
    scores = vectors.scores(saved, *rows)
    return Trained(pairs=usable, chosen=chosen, unread=vectors.missing, scores=scores)


def dense_training(recipe: RaterRecipe) -> DenseTraining:
    """Return the settings of a head."""
    own = recipe.encoder
    given: dict[str, Any] = {"epochs": own.epochs, "batch": own.batch, "lr": own.lr}
    known = {k: v for k, v in given.items() if v is not None}
    return DenseTraining(head=recipe.head, seed=recipe.seed, **known)


def _tuned(recipe: RaterRecipe, folder: Path, texts: Texts, pairs: Pairs, tell: Tell | None) -> Trained:
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
    # the weights of parallel pairs hold lambda where every pair is read equally often: no fixed shares
    known = {k: v for k, v in given.items() if v is not None}
    training = FineTuning(pooling=own.pooling, seed=recipe.seed, composition=None, **known)
    inner = inner_split(texts, pairs, recipe.seed, share=KEPT_OUT)
    settings = Settings(device=recipe.run.device)
    if not holds_training(folder / MODEL, training_identity(texts, inner, placed, training, settings)):
        shutil.rmtree(folder / MODEL, ignore_errors=True)  # of a call of other settings, killed as above
    finetune(
        texts, inner, placed, folder / MODEL, work=folder / "work", name=recipe.name,
        settings=settings, training=training, trained_on=_trained_on(recipe),
        progress=telling(tell, "train"),
    )  # fmt: skip
    return Trained(pairs=inner, chosen={}, unread={})


def _save_base(path: Path, base: ModelCard, folder: Path) -> None:
    save_card(path, base.model_copy(update={"model": str(folder)}))


def _trained_on(recipe: RaterRecipe) -> tuple[str, ...]:
    """Return what a rater has learnt from, itself or through its voters, for its card: the documents and the
    voters' texts, each file by its last folder and name, and what the cards of voting models name."""
    voters = recipe.raters
    files = [*expand(recipe.texts.paths), *(s.path for r in voters for s in (*r.good, *r.bad, *r.labelled))]
    named = [name for r in voters if r.kind == "model" for name in load_card(str(r.model)).trained_on]
    tails = ["/".join(redact(path).replace("\\", "/").rsplit("/", 2)[-2:]) for path in files]
    return tuple(dict.fromkeys([*tails, *named]))
