"""From the recipe's `annotate` section to annotators that any worker can load.

In: the section, the corpus, the run folder. Out: an `AnnotatorSet`; what had to be trained lies under
annotators/ as .npy weights beside manifest.json (cards, settings, digest). A second call with the same
request loads instead of training. Nothing is pickled.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from quadmix.annotate.annotator import (
    Annotator,
    AnnotatorCard,
    ColumnAnnotator,
    ColumnLabeller,
    DomainLabeller,
    SingleLabeller,
)
from quadmix.annotate.clusters import ClusterLabeller, load_clusters, save_clusters, train_clusters
from quadmix.annotate.heuristic import HeuristicAnnotator
from quadmix.annotate.labelled import (
    MAX_EXAMPLES,
    good_and_bad,
    label_name,
    numbered,
    texts_and_labels,
    thin,
)
from quadmix.annotate.models.load import PlacedRecord, forget_models
from quadmix.annotate.models.prepare import (
    DOMAIN,
    Records,
    computed_by,
    domain_model,
    model_annotator,
    model_columns,
    model_labeller,
    place_models,
    try_models,
)
from quadmix.annotate.models.rater import ModelAnnotator
from quadmix.annotate.probes import probe, probe_warnings
from quadmix.annotate.trained import (
    TrainedAnnotator,
    TrainedLabeller,
    train_labeller,
    train_linear,
    train_regression,
)
from quadmix.corpus.columns import has_column
from quadmix.corpus.read import read_documents, schema_of
from quadmix.errors import InputError, RecipeError
from quadmix.io.atomic import copy_file, map_array, read_value, value_digest, write_array, write_json
from quadmix.io.fs import file_info
from quadmix.recipe import AnnotateSection, CriterionSection
from quadmix.rng import keyed_uniform
from quadmix.types import Corpus

MIN_SAMPLE = 1_000  # pool documents that stand for `bad`, if the good set is smaller
SAMPLE_SHARE = 0.25  # at most this share of the pool is sampled as `bad`
VERSION = 1
_OF_TARGETS = ("overlap", "circularity.json", "manifest.json")  # not taken over from another run


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorManifest:
    """annotators/manifest.json. request: digest of its inputs; columns: the user's columns that are read;
    models: criterion (`domain:` for the domains) -> the model it is made of."""

    request: str
    section: dict[str, Any]
    criteria: tuple[AnnotatorCard, ...]
    domain: AnnotatorCard
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    digest: str
    models: dict[str, PlacedRecord] = field(default_factory=dict[str, PlacedRecord])
    version: int = VERSION


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnnotatorSet:
    """All annotators of a run in the recipe's order; `columns` are the user's columns they read."""

    criteria: tuple[Annotator, ...]
    domain: DomainLabeller
    columns: tuple[str, ...]
    digest: str

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(w for a in (*self.criteria, self.domain) for w in a.card.warnings)

    @property
    def slow(self) -> bool:
        """Is a model among them, so that unfinished work is worth keeping?"""
        return any(a.card.kind.startswith(("model:", "clusters")) for a in (*self.criteria, self.domain))

    @staticmethod
    def load(folder: str | Path, *, models: Records | None = None) -> "AnnotatorSet":
        """Load the set that `prepare_annotators` left in a run folder.

        models: found and checked anew, instead of those that the folder names.
        """
        home = Path(folder) / "annotators"
        manifest = read_value(home / "manifest.json", AnnotatorManifest)
        if models is not None:
            if other := _other_models(models, manifest.models):
                raise InputError(f"{folder} was annotated with other models: {'; '.join(other)}")
            manifest = replace(manifest, models=dict(models))
        section = AnnotateSection.model_validate(manifest.section)
        criteria = [
            replace(model_annotator(c, section, manifest.models), card=k)
            if c.kind == "model"
            else _load_criterion(c, k, home)
            for c, k in zip(section.criteria, manifest.criteria, strict=True)
        ]
        return AnnotatorSet(
            criteria=tuple(criteria),
            domain=_load_labeller(section, manifest, home),
            columns=manifest.columns,
            digest=manifest.digest,
        )


def adopt_annotators(
    source: str | Path, folder: str | Path, section: AnnotateSection, corpus: Corpus
) -> AnnotatorSet:
    """Take over the annotators of another run, so that its scores and these mean the same.

    Raises RecipeError if the recipe's criteria are not those of that run, InputError for a column that the
    corpus lacks.
    """
    found = read_value(Path(source) / "annotators" / "manifest.json", AnnotatorManifest)
    theirs, models = AnnotateSection.model_validate(found.section), place_models(section)
    if differing := [*_differences(section, theirs), *_other_models(models, found.models)]:
        raise RecipeError(
            f"the recipe's annotate section is not that of {source}, for which its θ was found: "
            f"{'; '.join(differing)}; use the same `annotate`"
        )
    _columns(section, corpus, models)
    for path in sorted(Path(source, "annotators").rglob("*")):
        inside = path.relative_to(source)
        if path.is_file() and inside.parts[1] not in _OF_TARGETS:
            copy_file(path, Path(folder) / inside)
    # the same models may lie elsewhere now
    own = replace(found, models=models, section=section.model_dump(mode="json"))
    write_json(Path(folder) / "annotators" / "manifest.json", own)
    return AnnotatorSet.load(folder)


def _other_models(ours: Records, theirs: Records) -> list[str]:
    """Name the models whose files or cards are not those of the other run."""
    return [
        f"the model of {name.rstrip(':')!r} has digest {ours[name].digest}, there {theirs[name].digest}"
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name].digest != theirs[name].digest
    ]


def _differences(ours: AnnotateSection, theirs: AnnotateSection) -> list[str]:
    """Name what makes the scores or domains of two sections different things; paths may have moved."""
    here, there = (_meaning(section) for section in (ours, theirs))
    return [
        f"{name} is {here.get(name)!r}, there {there.get(name)!r}"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    ]


def _meaning(section: AnnotateSection) -> dict[str, Any]:
    out: dict[str, Any] = {"criteria": [c.name for c in section.criteria]}
    for criterion in section.criteria:
        keys = ("kind", "column", "direction", "output", "domain")
        out |= {f"criteria.{criterion.name}.{key}": getattr(criterion, key) for key in keys}
    domain = section.domain
    out |= {f"domain.{key}": getattr(domain, key) for key in ("kind", "column", "confidence", "clusters")}
    out["domain.model"] = domain.model is not None
    return out | {key: getattr(section, key) for key in ("missing", "language", "precision")}


def prepare_annotators(
    section: AnnotateSection, corpus: Corpus, folder: str | Path, *, seed: int
) -> AnnotatorSet:
    """Check columns, train what must be trained, store it, return the set.

    Raises InputError for a column the corpus lacks or a labelled set that cannot be learned from.
    """
    home = Path(folder) / "annotators"
    models = place_models(section)
    request = _request(section, corpus, seed, models)
    if (home / "manifest.json").is_file():
        found = read_value(home / "manifest.json", AnnotatorManifest)
        if found.request == request:
            return AnnotatorSet.load(folder)
    columns = _columns(section, corpus, models)
    try_models(section, models)
    sample = _bad_sample(section, corpus, seed)
    criteria = [
        _probed(
            model_annotator(c, section, models) if c.kind == "model" else _make_criterion(c, sample, home)
        )
        for c in section.criteria
    ]
    domain = _make_labeller(section, home, models, corpus, seed)
    forget_models()  # the workers load their own
    manifest = AnnotatorManifest(
        request=request,
        section=section.model_dump(mode="json"),
        criteria=tuple(a.card for a in criteria),
        domain=domain.card,
        classes=domain.classes if isinstance(domain, TrainedLabeller) else (),
        columns=columns,
        digest=value_digest([[a.card.name, a.card.digest] for a in (*criteria, domain)]),
        models=models,
    )
    write_json(home / "manifest.json", manifest)
    return AnnotatorSet.load(folder)


def prepare_criteria(
    section: AnnotateSection, columns: Sequence[str], sample: Sequence[str], folder: str | Path
) -> tuple[Annotator, ...]:
    """Return the criteria alone, for texts that are no corpus: models tried, others trained, all probed.

    columns: of the user's rows. sample: texts that stand for `bad` where a criterion of kind linear names
    none. folder: weights of what was trained lie there. Raises InputError as `prepare_annotators` does.
    """
    models = place_models(section)
    asked = [(f"criterion {c.name!r}", str(c.column)) for c in section.criteria if c.kind == "column"]
    for what, name in (*asked, *model_columns(section, models)):
        if name.partition(".")[0] not in columns:
            raise InputError(
                f"{what}: the rows have no column {name!r}, only {', '.join(map(repr, columns[:40]))}; "
                "name one of these (nested fields are written a.b)"
            )
    try_models(section, models)
    made = tuple(
        _probed(
            model_annotator(c, section, models)
            if c.kind == "model"
            else _make_criterion(c, sample, Path(folder))
        )
        for c in section.criteria
    )
    forget_models()
    return made


def _probed(annotator: Annotator) -> Annotator:
    """Return the annotator with a warning on its card if it ranks plain pairs the wrong way round.

    A model that cannot tell them apart is told too; one trained here has its held-out quality for that.
    """
    found = probe(annotator)
    if found.verdict != "wrong" and not isinstance(annotator, ModelAnnotator):
        return annotator
    card = replace(annotator.card, warnings=(*annotator.card.warnings, *probe_warnings(found)))
    return cast(Annotator, replace(cast(Any, annotator), card=card))


def _request(section: AnnotateSection, corpus: Corpus, seed: int, models: Records) -> str:
    """Digest of everything the annotators depend on; thresholds applied later are not part of it."""
    sets = [s for c in section.criteria for s in (*c.good, *c.bad, *c.labelled)]
    if section.domain.kind == "classifier":
        sets += section.domain.labelled
    settings = {
        "version": VERSION,
        "seed": seed,
        "corpus": corpus.digest,
        "criteria": [c.model_dump(mode="json") for c in section.criteria],
        "domain": section.domain.model_dump(mode="json", exclude={"min_documents", "min_token_share"}),
        "files": [file_info(s.path).digest for s in sets],
        "models": {name: record.digest for name, record in models.items()},
        "reads": [section.language, computed_by(section, models)],
    }
    return value_digest(settings)


def _columns(section: AnnotateSection, corpus: Corpus, models: Records) -> tuple[str, ...]:
    schema: pa.Schema = schema_of(corpus)
    asked = [(f"criterion {c.name!r}", c.column) for c in section.criteria if c.kind == "column" and c.column]
    if section.domain.kind == "column" and section.domain.column:
        asked.append(("annotate.domain", section.domain.column))
    asked += model_columns(section, models)
    for what, name in asked:
        if not has_column(schema, name):
            raise InputError(
                f"{what}: the files have no column {name!r}, only {', '.join(map(repr, schema.names[:40]))}; "
                "name one of these (nested fields are written a.b)"
            )
    tokens = [corpus.columns.tokens] if corpus.columns.tokens else []
    return tuple(sorted({*(name for _, name in asked), *tokens}))


def _make_criterion(section: CriterionSection, sample: Sequence[str], home: Path) -> Annotator:
    if section.kind == "column":
        return ColumnAnnotator.make(section.name, str(section.column), section.direction)
    if section.kind == "heuristic":
        return HeuristicAnnotator.make(section.name, section.direction)
    if section.kind == "linear":
        examples, pool = good_and_bad(section, sample)
        made = train_linear(section.name, examples, direction=section.direction, pool=pool)
    else:
        examples = numbered(section)
        made = train_regression(section.name, examples, direction=section.direction)
    write_array(home / f"criterion-{section.name}.npy", made.weights)
    return made


def _load_criterion(section: CriterionSection, card: AnnotatorCard, home: Path) -> Annotator:
    if section.kind == "column":
        return ColumnAnnotator(card, str(section.column))
    if section.kind == "heuristic":
        return HeuristicAnnotator(card)
    return TrainedAnnotator(card, map_array(home / f"criterion-{section.name}.npy"))


def _make_labeller(
    section: AnnotateSection, home: Path, models: Records, corpus: Corpus, seed: int
) -> DomainLabeller:
    domain = section.domain
    if domain.kind == "model":
        return model_labeller(section, models)
    if domain.kind == "clusters":
        return _make_clusters(section, home, models, corpus, seed)
    if domain.kind == "column":
        return ColumnLabeller.make(str(domain.column))
    if domain.kind == "single":
        return SingleLabeller.make()
    texts, labels = texts_and_labels(domain.labelled, "annotate.domain")
    kept = thin(texts, 2 * MAX_EXAMPLES)
    names = [label_name(labels[i]) for i in kept]
    made = train_labeller([texts[i] for i in kept], names, confidence=domain.confidence)
    write_array(home / "domain.npy", made.weights)
    return made


def _load_labeller(section: AnnotateSection, manifest: AnnotatorManifest, home: Path) -> DomainLabeller:
    if section.domain.kind == "column":
        return ColumnLabeller(manifest.domain, str(section.domain.column))
    if section.domain.kind == "single":
        return SingleLabeller(manifest.domain)
    if section.domain.kind == "model":
        return model_labeller(section, manifest.models)
    if section.domain.kind == "clusters":
        asked, embed = domain_model(section, manifest.models)
        made = load_clusters(home / "clusters")
        return ClusterLabeller.make(made, embed=embed, confidence=section.domain.confidence, asked=asked)
    weights = map_array(home / "domain.npy")
    return TrainedLabeller(manifest.domain, weights, manifest.classes, section.domain.confidence)


def _make_clusters(
    section: AnnotateSection, home: Path, models: Records, corpus: Corpus, seed: int
) -> ClusterLabeller:
    asked, embed = domain_model(section, models)
    model = models[f"{DOMAIN}:"].digest if embed else ""
    sample = [t for t in _pool_sample(corpus, MAX_EXAMPLES / max(corpus.documents, 1), seed) if t.strip()]
    made = train_clusters(sample, embed=embed, clusters=section.domain.clusters, seed=seed, embedder=model)
    save_clusters(home / "clusters", made)
    return ClusterLabeller.make(made, embed=embed, confidence=section.domain.confidence, asked=asked)


def _bad_sample(section: AnnotateSection, corpus: Corpus, seed: int) -> list[str]:
    """Return pool texts that stand for `bad`, none where nobody needs them."""
    if not any(c.kind == "linear" and not c.bad for c in section.criteria):
        return []
    wanted = max(MIN_SAMPLE, min(MAX_EXAMPLES, corpus.documents // 10))
    return _pool_sample(corpus, min(SAMPLE_SHARE, wanted / max(corpus.documents, 1)), seed)


def _pool_sample(corpus: Corpus, share: float, seed: int) -> list[str]:
    """Return about this share of the pool's texts, drawn by a hash of the document id in one pass."""
    texts: list[str] = []
    for split in corpus.splits:
        for batch in read_documents(corpus, split, columns=()):
            drawn = keyed_uniform(seed, batch.doc_id, "pool-sample") < share
            texts += [t for t, d in zip(batch.text, drawn.tolist(), strict=True) if d]
    return texts
