"""The step `pairs`: from documents and raters to the labelled pairs of texts that a rater is trained on.

In: the settings of a rater. Out: texts.parquet, ratings.parquet, pairs.parquet, recipe.resolved.yaml and,
written last, pairs.json with every count, in the rater's folder. The same settings and files again load what
is there; a killed step goes on with the translations and the judge's answers that it has.

Direction E compares documents in the language that the raters read, and carries the label over to their
translations; direction M compares documents in other languages by their translations into it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quadmix.annotate.annotator import Annotator, AnnotatorCard
from quadmix.annotate.models.prepare import place_models
from quadmix.annotate.prepare import prepare_criteria
from quadmix.errors import InputError
from quadmix.io.atomic import read_value, value_digest, write_json, write_text
from quadmix.io.fs import expand, file_info
from quadmix.io.lease import lease
from quadmix.raters.asking import JudgeFacts, judge_votes, translator_digest
from quadmix.raters.compared import Tell, compared, telling
from quadmix.raters.compose import Composition, compose_pairs
from quadmix.raters.decontaminate import Benchmark
from quadmix.raters.diagnostics import RaterDiagnostics, diagnose_raters
from quadmix.raters.documents import Documents, read_texts_section
from quadmix.raters.domains import DOMAINS
from quadmix.raters.fidelity import Route
from quadmix.raters.pairs import check_split
from quadmix.raters.related import Related
from quadmix.raters.stage1 import Stage1, label_by_stage1
from quadmix.raters.table import (
    KINDS,
    MONO,
    PAIRS,
    RATINGS,
    TEXTS,
    Pairs,
    Ratings,
    Rows,
    Texts,
    join_pairs,
    used_alone,
    write_pairs,
    write_ratings,
    write_texts,
)
from quadmix.raters.tiers import encoder_digest
from quadmix.raters.translate import Count, join_texts
from quadmix.raters.validation import held_pairs
from quadmix.raters.votes import JudgeVotes, Votes, label_pairs, voting_settings
from quadmix.recipe import AnnotateSection, RaterRecipe, dump_recipe

FACTS, RESOLVED = "pairs.json", "recipe.resolved.yaml"
VERSION = 3
_MADE = (TEXTS, RATINGS, PAIRS, DOMAINS)
# settings that change what a call costs or how long it takes, not what comes out
_MONEY: dict[str, Any] = {
    "judge": {"price_in", "price_out", "parallel", "timeout"},
    "transfer": {"translator": {"price_in", "price_out", "parallel", "max_requests"}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionFacts:
    """One direction. asked, drawn: pairs of documents. unrated: documents that no rater rates. refused:
    reason -> pairs that could not be cut. unlabelled: reason -> pairs without a label. labelled: pairs with
    one. texts: originals that were cut."""

    direction: str
    documents: int
    asked: int
    drawn: int
    unrated: int
    refused: dict[str, int]
    unlabelled: dict[str, int]
    labelled: int
    texts: int
    missing: dict[str, dict[str, int]]
    judge: JudgeFacts | None
    diagnostics: RaterDiagnostics


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsMade:
    """pairs.json. request: digest of settings and files. languages: documents read by language; rows: read
    in all, of which `dropped` (language -> reason -> rows) were of no use. benchmarks: that the documents
    were held against. related: documents that share text, which are split together. translated: language ->
    what a translator made. routes: fidelity by route. wanted:
    kind -> pairs for training; made: part -> kind -> pairs. sides: kind -> language -> texts in training
    pairs. unused, missing: see `compose.Composed`. stage1: what labelled the pairs with a translation, None:
    the votes did. digest: of the three tables and of the domains, which the report reads."""

    request: str
    languages: dict[str, int]
    rows: int
    dropped: dict[str, dict[str, int]]
    benchmarks: tuple[Benchmark, ...]
    raters: tuple[AnnotatorCard, ...]
    directions: tuple[DirectionFacts, ...]
    translated: dict[str, Count]
    routes: tuple[Route, ...]
    wanted: dict[str, int]
    made: dict[str, dict[str, int]]
    sides: dict[str, dict[str, int]]
    unused: dict[str, int]
    missing: dict[str, str]
    stage1: Stage1 | None
    warnings: tuple[str, ...]
    digest: str
    related: Related = field(default_factory=Related)
    version: int = VERSION


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Labelled:
    """Texts of one direction with labelled pairs of them. rated: rows of `texts` that have ratings."""

    texts: Texts
    pairs: Pairs
    rated: Texts
    ratings: Ratings
    facts: DirectionFacts
    translated: dict[str, Count]
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """languages: of the pairs: the source, the targets, and those kept out of training."""

    documents: Documents
    raters: tuple[Annotator, ...]
    languages: list[str]


def rater_folder(recipe: RaterRecipe) -> Path:
    """Return the folder of a rater: <folder>/<name>."""
    return Path(recipe.folder) / recipe.name


def make_pairs(recipe: RaterRecipe, folder: Path, tell: Tell | None = None) -> PairsMade:
    """Make the pairs, or return what is there from the same settings and files.

    Raises InputError for documents, raters, translations or a judge that cannot be used; what each lost is in
    the result by reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lease(folder):
        request = pairs_request(recipe)
        if (folder / FACTS).is_file():
            found = read_value(folder / FACTS, PairsMade)
            failed = any(count.failed for count in found.translated.values())
            if found.request == request and not failed and found.digest == _made_digest(folder):
                return found
        inputs = read_inputs(recipe, folder)
        documents, languages = inputs.documents, inputs.languages
        parts = [_direction(recipe, folder, inputs, one, tell) for one in directions_of(recipe)]
        texts = parts[0].texts if len(parts) == 1 else join_texts(parts[0].texts, parts[1].texts)
        labelled, how = _all_pairs(parts), _composition(recipe)
        _check_labelled(labelled, parts)
        seen = [code for code in languages if code not in recipe.transfer.without]
        train = labelled.take(~labelled.held)
        composed = compose_pairs(texts, train, how, languages=seen, seed=recipe.seed)
        stage1 = None
        if recipe.transfer.label_source == "stage1_model":
            told = label_by_stage1(recipe, folder, texts, labelled, composed.pairs, tell)
            composed, stage1 = dataclasses.replace(composed, pairs=told.pairs), told.facts
        held = held_pairs(texts, labelled.take(labelled.held), how, languages, seed=recipe.seed)
        pairs = join_pairs(composed.pairs, held)
        ratings = _all_ratings(parts, texts)
        rated = np.isfinite(ratings.values).sum(axis=1) > 0
        rows, pairs = used_alone(texts, pairs, rated)
        texts, ratings = texts.take(rows.tolist()), dataclasses.replace(ratings, values=ratings.values[rows])
        check_split(texts, pairs)
        _write_tables(folder, texts, ratings, pairs, documents.domains)
        made = PairsMade(
            request=request, languages=_counts(documents.texts.language), rows=documents.rows,
            dropped=documents.dropped, benchmarks=documents.benchmarks,
            raters=tuple(r.card for r in inputs.raters), directions=tuple(p.facts for p in parts),
            translated={code: n for p in parts for code, n in p.translated.items()},
            routes=tuple(r for p in parts for r in p.routes), wanted=composed.wanted["train"],
            made={**composed.made, "held": _by_kind(held)}, sides=composed.sides, unused=composed.unused,
            missing=composed.missing, stage1=stage1,
            warnings=(*documents.related.warnings(), *_warnings(parts, inputs.raters, composed.missing)),
            related=documents.related, digest=str(_made_digest(folder)),
        )  # fmt: skip
        write_text(folder / RESOLVED, dump_recipe(recipe))
        write_json(folder / FACTS, made)
        return made


def _made_digest(folder: Path) -> str | None:
    """Return the digest of the tables, None where one is absent."""
    if not all((folder / name).is_file() for name in _MADE):
        return None
    return value_digest([file_info(str(folder / name)).digest for name in _MADE])


def _write_tables(
    folder: Path, texts: Texts, ratings: Ratings, pairs: Pairs, domains: Mapping[str, str]
) -> None:
    # first: a call killed below must not leave the facts of other settings beside these tables
    (folder / FACTS).unlink(missing_ok=True)
    known = {s: domains[s] for s in sorted(set(texts.source)) if s in domains}
    write_json(folder / DOMAINS, known)
    write_texts(folder / TEXTS, texts)
    write_ratings(folder / RATINGS, ratings, texts)
    write_pairs(folder / PAIRS, pairs, texts)


def directions_of(recipe: RaterRecipe) -> tuple[str, ...]:
    """Return the directions that are asked for, "E" and "M"."""
    return ("E", "M") if recipe.transfer.direction == "both" else (recipe.transfer.direction,)


def pairs_request(recipe: RaterRecipe) -> str:
    """Return the digest of all that the pairs depend on: settings, files, models."""
    sections = {"seed", "texts", "raters", "judge", "pairs", "transfer"}
    sets, texts = [s.path for r in recipe.raters for s in (*r.good, *r.bad, *r.labelled)], recipe.texts
    models = place_models(AnnotateSection(criteria=list(recipe.raters)))
    stage1 = recipe.transfer.label_source == "stage1_model"
    return value_digest(
        {
            "version": VERSION,
            "settings": recipe.model_dump(mode="json", include=sections, exclude=_MONEY),
            "files": [file_info(path).digest for path in (*expand(texts.paths), *sets)],
            "benchmarks": [file_info(path).digest for path in expand(texts.decontaminate)],
            "models": {name: record.digest for name, record in models.items()},
            "translator": translator_digest(recipe),
            "stage1": recipe.encoder.model_dump(mode="json", exclude={"max_unknown", "code"})
            if stage1
            else None,
            "encoder": encoder_digest(recipe) if stage1 else None,
        }
    )


def read_inputs(recipe: RaterRecipe, folder: Path) -> Inputs:
    """Return what the pairs are made from; InputError for documents or raters that cannot be used."""
    section = AnnotateSection(
        criteria=list(recipe.raters), device=recipe.run.device, language=recipe.texts.language
    )
    wanted = [str(r.column) for r in recipe.raters if r.kind == "column"]
    documents = read_texts_section(recipe.texts, recipe.transfer.source, wanted, seed=recipe.seed)
    texts = documents.texts
    sample = [t for t, code in zip(texts.text, texts.language, strict=True) if code == recipe.transfer.source]
    raters = prepare_criteria(section, documents.columns, sample, folder / "annotators")
    return Inputs(documents=documents, raters=raters, languages=_languages(recipe, documents))


def _languages(recipe: RaterRecipe, documents: Documents) -> list[str]:
    """Return the languages of the texts: the source, the targets, and those kept out of training."""
    transfer = recipe.transfer
    if transfer.translator.kind == "none":
        return [transfer.source]
    there = set(documents.texts.language)
    named = (set(transfer.languages) or there) | set(transfer.without)
    if transfer.translator.kind == "parallel" and (unknown := sorted(named - there)):
        raise InputError(
            f"transfer.languages names {unknown[0]!r}, but no document is in that language; found "
            f"{', '.join(sorted(there))}. Use the codes of column {recipe.texts.language!r}"
        )
    return sorted(named | {transfer.source, *transfer.without})


def _direction(
    recipe: RaterRecipe,
    folder: Path,
    inputs: Inputs,
    direction: str,
    tell: Tell | None,
) -> _Labelled:
    step = compared(recipe, folder, inputs.documents, inputs.raters, inputs.languages, direction, tell)
    votes, judge = _votes(recipe, folder, step.judged, step.ratings, step.a, step.b, tell)
    place = {id_: i for i, id_ in enumerate(step.texts.ids)}
    at = np.array([place[i] for i in step.judged.ids], np.int32)
    ok = votes.kept
    labelled = Pairs(
        a=at[step.a[ok]], b=at[step.b[ok]], p=votes.p[ok], weight=np.ones(int(ok.sum())),
        kind=np.full(int(ok.sum()), MONO, np.int8), held=step.held[ok],
    )  # fmt: skip
    refused = {**step.sides.refused, **({"a side has no translation": step.lost} if step.lost else {})}
    facts = DirectionFacts(
        direction=direction, documents=len(step.pool), asked=step.drawn.asked, drawn=len(step.drawn),
        unrated=step.drawn.unrated, refused=refused, unlabelled=dict(votes.dropped), labelled=len(labelled),
        texts=len(step.sides.texts), missing=step.missing, judge=judge,
        diagnostics=diagnose_raters(votes, step.ratings, step.judged.ids),
    )  # fmt: skip
    return _Labelled(
        texts=step.texts, pairs=labelled, rated=step.judged, ratings=step.ratings, facts=facts,
        translated=step.translated, routes=step.routes,
    )  # fmt: skip


def _votes(
    recipe: RaterRecipe,
    folder: Path,
    texts: Texts,
    ratings: Ratings,
    a: Rows,
    b: Rows,
    tell: Tell | None,
) -> tuple[Votes, JudgeFacts | None]:
    pairs = recipe.pairs
    sides = ratings.values[a], ratings.values[b]
    weights, ties = voting_settings(recipe, ratings.names)

    def label(answers: JudgeVotes | None) -> Votes:
        return label_pairs(
            *sides, weights=weights, tie_eps=ties, least=pairs.least_voters,
            min_confidence=pairs.min_confidence, temperature=pairs.temperature, judge=answers,
        )  # fmt: skip

    if recipe.judge is None:
        return label(None), None
    cheap = label_pairs(*sides, weights=weights, tie_eps=ties, least=1)
    answers, facts = judge_votes(recipe, folder, texts, cheap.p, (a, b), telling(tell, "judge"))
    return label(answers), facts


def _composition(recipe: RaterRecipe) -> Composition:
    transfer = recipe.transfer
    alone = transfer.translator.kind == "none"
    return Composition(
        direction=transfer.direction, mono=transfer.mono if not alone else 1.0,
        cross=0.0 if alone else transfer.cross, parallel=0.0 if alone else transfer.parallel,
        parallel_weight=transfer.weight, reuse=transfer.reuse and not alone,
    )  # fmt: skip


def _all_pairs(parts: Sequence[_Labelled]) -> Pairs:
    shift = np.cumsum([0, *(len(p.texts) for p in parts)]).astype(np.int32)
    moved = [
        dataclasses.replace(p.pairs, a=p.pairs.a + s, b=p.pairs.b + s)
        for p, s in zip(parts, shift, strict=False)
    ]
    return join_pairs(*moved)


def _check_labelled(labelled: Pairs, parts: Sequence[_Labelled]) -> None:
    """Refuse where one of the two parts has no labelled pair, with what was lost on the way."""
    train = int((~labelled.held).sum())
    if train and train < len(labelled):
        return
    lost = "; ".join(
        f"direction {p.facts.direction}: {p.facts.documents:,} documents, {p.facts.unrated:,} rated by "
        f"nobody, {p.facts.drawn:,} pairs drawn, refused {dict(p.facts.refused)}, without a label "
        f"{dict(p.facts.unlabelled)}, ratings missing {p.facts.missing}"
        for p in parts
    )
    raise InputError(
        f"{train:,} labelled pairs for training and {len(labelled) - train:,} held out, expected some "
        f"of both ({lost}). Add raters that rate these documents, lower pairs.least_voters, or add documents"
    )


def _by_kind(pairs: Pairs) -> dict[str, int]:
    return {name: int((pairs.kind == k).sum()) for k, name in enumerate(KINDS)}


def _all_ratings(parts: Sequence[_Labelled], texts: Texts) -> Ratings:
    place = {id_: row for row, id_ in enumerate(texts.ids)}
    names = parts[0].ratings.names
    values = np.full((len(texts), len(names)), np.nan, np.float32)
    for part in parts:
        rows = np.array([place.get(i, -1) for i in part.rated.ids], np.int64)
        values[rows[rows >= 0]] = part.ratings.values[rows >= 0]
    return Ratings(names=names, values=values)


def _warnings(parts: Sequence[_Labelled], raters: Sequence[Annotator], missing: dict[str, str]) -> list[str]:
    found = [w for r in raters for w in r.card.warnings]
    for part in parts:
        facts = part.facts
        if facts.drawn < facts.asked:
            found.append(
                f"direction {facts.direction}: {facts.drawn:,} pairs of {facts.asked:,} asked for; more need "
                "more documents, or a higher pairs.max_uses"
            )
        if lost := facts.drawn - facts.labelled:
            found.append(f"direction {facts.direction}: {lost:,} of {facts.drawn:,} pairs have no label")
    return [*found, *(f"language {code!r}: {why}" for code, why in missing.items())]


def _counts(values: Sequence[str]) -> dict[str, int]:
    names, counts = np.unique(np.array(values, dtype=str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))
