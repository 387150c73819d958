"""What `quadmix raters` does: raters by their cards, tried, trained and looked at in a finished annotation.

In: a card and where its files lie; labelled files; a run folder. Out: small values with lines for people.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from quadmix.annotate.diagnostics import Diagnosis, diagnose
from quadmix.annotate.labelled import texts_and_labels, texts_only
from quadmix.annotate.models.base import Settings
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.golden import GoldenCheck, check_golden, record_golden
from quadmix.annotate.models.load import load_model
from quadmix.annotate.models.prepare import is_pinned, place_models
from quadmix.annotate.models.rater import Asked, ModelAnnotator
from quadmix.annotate.models.train_fasttext import FastTextTraining, train_fasttext
from quadmix.annotate.prepare import AnnotatorSet
from quadmix.annotate.probes import ProbeResult, probe, probe_lines
from quadmix.annotate.table import survey
from quadmix.errors import InputError
from quadmix.io.atomic import read_json, read_value
from quadmix.io.door import is_offline
from quadmix.pipeline.circular import circular_warnings
from quadmix.pipeline.stages import held_out
from quadmix.recipe import (
    LabelledSet,
    ModelCard,
    Recipe,
    card_names,
    fixed_texts,
    load_card,
    load_recipe,
    save_card,
)
from quadmix.recipe.cards import card_folder
from quadmix.types import Corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A model that was loaded and run. scores: of the 20 fixed texts, as the card turns outputs into numbers
    (empty for domains and embeddings)."""

    card: ModelCard
    digest: str
    golden: GoldenCheck
    scores: tuple[float, ...]
    probe: ProbeResult | None


def cards() -> list[ModelCard]:
    """Return all cards of the package."""
    return [load_card(name) for name in card_names()]


def ask(model: str, path: str | None, settings: Settings, *, accept_remote_code: str | None = None) -> Asked:
    """Return a model whose files were found and checked; nothing is loaded yet."""
    card = load_card(model)
    placed = place(
        card,
        path=path,
        accept_remote_code=accept_remote_code,
        offline=is_offline(),
        beside=card_folder(model),
    )
    return Asked(
        placed=placed, settings=settings, language="language" if card.reads_language else None,
        domain="domain" if card.reads_domains else None, pinned=is_pinned(card),
    )  # fmt: skip


def is_local(model: str, path: str | None) -> bool:
    """Do a card's files lie with the user, at `path` or where his own card says, rather than on the hub?"""
    beside = card_folder(model)
    return path is not None or (beside is not None and (beside / load_card(model).model).exists())


def try_rater(asked: Asked, output: str | None = None) -> Tried:
    """Load a model, run the 20 fixed texts and, for quality, the pairs that say whether it points the right
    way."""
    card, probed = asked.placed.card, None
    scores: tuple[float, ...] = ()
    if card.role == "quality":
        if output is None and card.output.kind == "number" and len(card.output.labels) > 1:
            output = next(iter(card.output.labels))
        rater = ModelAnnotator.make(card.name, asked, output)
        texts = fixed_texts()
        scores = tuple(float(v) for v in rater.score(texts, no_columns(asked, len(texts))).values)
        probed = probe(rater)
    return Tried(
        card=card, digest=asked.placed.digest, golden=check_golden(asked), scores=scores, probe=probed
    )


def no_columns(asked: Asked, documents: int) -> pa.RecordBatch:
    """Return rows in which every column that the model reads is empty; their language is English, as the
    fixed texts are."""
    values = {name: "en" if name == asked.language else "" for name in asked.columns or ("",)}
    return pa.RecordBatch.from_pydict({name: [value] * documents for name, value in values.items()})


def keep_golden(asked: Asked, out: Path, *, local: bool) -> ModelCard:
    """Write the card with the outputs of this model as its golden ones, and the digests of its files.

    local: the files are the user's, and the card says where they lie; else they are the hub's.
    """
    card, folder = asked.placed.card, asked.placed.folder
    update: dict[str, Any] = {"golden": record_golden(asked)}
    if local:
        single = card.family in ("fasttext", "ngram")
        update["model"] = str((folder / next(iter(card.files)) if single else folder).absolute())
    made = card.model_copy(update=update)
    save_card(out, made)
    return made


def numbered(path: str, text: str, label: str) -> tuple[list[str], list[float]]:
    """Return texts and numbers of a labelled file; InputError names a row that holds none."""
    texts, labels = texts_and_labels([LabelledSet(path=path, text=text, label=label)], "train-head")
    for number, value in enumerate(labels):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{path}, row {number}: column {label!r} holds {value!r}, expected a number")
    return texts, [float(cast(float, value)) for value in labels]


def diagnose_run(run_folder: str | Path) -> Diagnosis:
    """Look at the annotations of a run: correlations, length, coverage, drift, orientation, circularity.

    Raises InputError where there are no annotations yet.
    """
    folder = Path(run_folder)
    for needed in ("recipe.resolved.yaml", "annotations/manifest.json"):
        if not (folder / needed).is_file():
            raise InputError(
                f"{str(folder)!r} has no {needed}; run `quadmix annotate RECIPE` and name its run folder"
            )
    recipe = load_recipe(str(folder / "recipe.resolved.yaml"))
    corpus = read_value(folder / "corpus" / "manifest.json", Corpus)
    section = recipe.annotate.model_copy(update={"min_coverage": 0.0})  # what is low is to be looked at
    surveyed = survey(folder, corpus, section, holdout=held_out(recipe), seed=recipe.seed)
    found = diagnose(surveyed)
    annotators = AnnotatorSet.load(folder, models=place_models(recipe.annotate))
    probes = tuple(probe(a) for a in annotators.criteria)
    return replace(found, probes=probes, circular=tuple(circular_warnings(recipe, _target_texts(recipe))))


def _target_texts(recipe: Recipe) -> dict[str, list[str]]:
    from quadmix.corpus.targets import read_target

    accept = recipe.run.accept_test_targets
    return {
        t.name: list(read_target(t, seed=recipe.seed, accept_test=accept).texts()) for t in recipe.targets
    }


def short(card: ModelCard) -> Sequence[str]:
    """Return the columns of a card in a list: name, role, family, languages, licence."""
    languages = ", ".join(card.languages[:6]) + (" ..." if len(card.languages) > 6 else "")
    return (card.name, card.role, card.family, languages, card.licence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A rater that was trained. facts: what was measured on held-out text, as in its metrics.json."""

    card: str
    facts: dict[str, Any]

    def lines(self) -> list[str]:
        """Return the single numbers, then how to use it."""
        plain = {k: v for k, v in self.facts.items() if isinstance(v, int | float | str)}
        told = [f"{k:24} {v:.4g}" if isinstance(v, float) else f"{k:24} {v}" for k, v in plain.items()]
        use = f"in a recipe: annotate.criteria: [{{name: ..., kind: model, model: {self.card}}}]"
        points = [f"{p['texts']:,} texts {p['spearman']:.3f}" for p in self.facts.get("curve", [])]
        curve = [f"{'learning curve':24} {', '.join(points)}"] if points else []
        warnings = [f"! {warning}" for warning in self.facts.get("warnings", [])]
        return [*told, *curve, f"{'card':24} {self.card}", use, *warnings]


def train_from_files(
    name: str,
    sides: tuple[Sequence[str], Sequence[str]],
    text: str,
    out: Path,
    *,
    training: FastTextTraining,
    trained_on: Sequence[str] = (),
) -> Made:
    """Train a fastText classifier of the texts of some files (good) against those of others (bad)."""
    good, bad = (
        texts_only([LabelledSet(path=p, text=text) for p in paths], "train-fasttext") for paths in sides
    )
    train_fasttext(good, bad, out, name=name, training=training, trained_on=trained_on)
    return _made(out)


def train_head_from_file(
    name: str, labelled: str, columns: tuple[str, str], embedder: Asked, out: Path, *, local: bool
) -> Made:
    """Train a head on frozen embeddings of the texts of a file."""
    from quadmix.annotate.models.train_head import train_head

    model = load_model(embedder.placed, embedder.settings)
    folder = embedder.placed.folder if local else None
    train_head(*numbered(labelled, *columns), out, embedder=model, name=name, folder=folder)
    return _made(out)


def _made(out: Path) -> Made:
    return Made(card=str(out / "card.yaml"), facts=read_json(out / "metrics.json"))


def tried_lines(tried: Tried) -> list[str]:
    """Return a trial as text."""
    card = tried.card
    lines = [f"{card.name}: {card.description}", f"digest   {tried.digest}", f"outputs  {tried.golden.told}"]
    if tried.scores:
        shown = ", ".join(f"{s:.4g}" for s in tried.scores)
        lines.append(f"scores   of the 20 texts ({card.direction} is better): {shown}")
    return [*lines, *(probe_lines(tried.probe) if tried.probe else [])]
