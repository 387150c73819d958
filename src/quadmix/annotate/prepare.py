"""From the recipe's `annotate` section to annotators that any worker can load.

In: the section, the corpus, the run folder. Out: an `AnnotatorSet`; what had to be trained lies under
annotators/ as .npy weights beside manifest.json (cards, settings, digest). A second call with the same
request loads instead of training. Nothing is pickled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from quadmix.annotate.annotator import (
    Annotator,
    AnnotatorCard,
    ColumnAnnotator,
    ColumnLabeller,
    DomainLabeller,
    SingleLabeller,
)
from quadmix.annotate.heuristic import HeuristicAnnotator
from quadmix.annotate.trained import (
    Examples,
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
from quadmix.io.rows import read_records
from quadmix.recipe import AnnotateSection, CriterionSection, LabelledSet
from quadmix.rng import keyed_uniform
from quadmix.types import Corpus

MAX_EXAMPLES = 20_000  # texts per class (or labelled texts) used for training, drawn by a hash of the text
MIN_SAMPLE = 1_000  # pool documents that stand for `bad`, if the good set is smaller
SAMPLE_SHARE = 0.25  # at most this share of the pool is sampled as `bad`
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorManifest:
    """annotators/manifest.json. request: digest of its inputs; columns: the user's columns that are read."""

    request: str
    section: dict[str, Any]
    criteria: tuple[AnnotatorCard, ...]
    domain: AnnotatorCard
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    digest: str
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

    @staticmethod
    def load(folder: str | Path) -> "AnnotatorSet":
        """Load the set that `prepare_annotators` left in a run folder."""
        home = Path(folder) / "annotators"
        manifest = read_value(home / "manifest.json", AnnotatorManifest)
        section = AnnotateSection.model_validate(manifest.section)
        criteria = [
            _load_criterion(c, k, home) for c, k in zip(section.criteria, manifest.criteria, strict=True)
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
    _columns(section, corpus)
    found = read_value(Path(source) / "annotators" / "manifest.json", AnnotatorManifest)
    theirs = AnnotateSection.model_validate(found.section)
    if differing := _differences(section, theirs):
        raise RecipeError(
            f"the recipe's annotate section is not that of {source}, for which its θ was found: "
            f"{'; '.join(differing)}; use the same `annotate`"
        )
    for path in sorted(Path(source, "annotators").rglob("*")):
        inside = path.relative_to(source)
        if path.is_file() and inside.parts[1] != "overlap":  # which is of that run's targets
            copy_file(path, Path(folder) / inside)
    return AnnotatorSet.load(folder)


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
        keys = ("kind", "column", "direction")
        out |= {f"criteria.{criterion.name}.{key}": getattr(criterion, key) for key in keys}
    domain = section.domain
    out |= {f"domain.{key}": getattr(domain, key) for key in ("kind", "column", "confidence")}
    return out | {"missing": section.missing}


def prepare_annotators(
    section: AnnotateSection, corpus: Corpus, folder: str | Path, *, seed: int
) -> AnnotatorSet:
    """Check columns, train what must be trained, store it, return the set.

    Raises InputError for a column the corpus lacks or a labelled set that cannot be learned from.
    """
    home = Path(folder) / "annotators"
    request = _request(section, corpus, seed)
    if (home / "manifest.json").is_file():
        found = read_value(home / "manifest.json", AnnotatorManifest)
        if found.request == request:
            return AnnotatorSet.load(folder)
    columns = _columns(section, corpus)
    sample = _pool_sample(section, corpus, seed)
    criteria = [_make_criterion(c, sample, home) for c in section.criteria]
    domain = _make_labeller(section, home)
    manifest = AnnotatorManifest(
        request=request,
        section=section.model_dump(mode="json"),
        criteria=tuple(a.card for a in criteria),
        domain=domain.card,
        classes=domain.classes if isinstance(domain, TrainedLabeller) else (),
        columns=columns,
        digest=value_digest([[a.card.name, a.card.digest] for a in (*criteria, domain)]),
    )
    write_json(home / "manifest.json", manifest)
    return AnnotatorSet.load(folder)


def _request(section: AnnotateSection, corpus: Corpus, seed: int) -> str:
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
    }
    return value_digest(settings)


def _columns(section: AnnotateSection, corpus: Corpus) -> tuple[str, ...]:
    schema: pa.Schema = schema_of(corpus)
    asked = {f"criterion {c.name!r}": c.column for c in section.criteria if c.kind == "column" and c.column}
    if section.domain.kind == "column" and section.domain.column:
        asked["annotate.domain"] = section.domain.column
    for what, name in asked.items():
        if not has_column(schema, name):
            raise InputError(
                f"{what}: the files have no column {name!r}, only {', '.join(map(repr, schema.names[:40]))}; "
                "name one of these (nested fields are written a.b)"
            )
    tokens = [corpus.columns.tokens] if corpus.columns.tokens else []
    return tuple(sorted({*asked.values(), *tokens}))


def _make_criterion(section: CriterionSection, sample: Sequence[str], home: Path) -> Annotator:
    if section.kind == "column":
        return ColumnAnnotator.make(section.name, str(section.column), section.direction)
    if section.kind == "heuristic":
        return HeuristicAnnotator.make(section.name, section.direction)
    if section.kind == "linear":
        examples, pool = _good_and_bad(section, sample)
        made = train_linear(section.name, examples, direction=section.direction, pool=pool)
    else:
        examples = _numbers(section)
        made = train_regression(section.name, examples, direction=section.direction)
    write_array(home / f"criterion-{section.name}.npy", made.weights)
    return made


def _load_criterion(section: CriterionSection, card: AnnotatorCard, home: Path) -> Annotator:
    if section.kind == "column":
        return ColumnAnnotator(card, str(section.column))
    if section.kind == "heuristic":
        return HeuristicAnnotator(card)
    return TrainedAnnotator(card, map_array(home / f"criterion-{section.name}.npy"))


def _make_labeller(section: AnnotateSection, home: Path) -> DomainLabeller:
    domain = section.domain
    if domain.kind == "column":
        return ColumnLabeller.make(str(domain.column))
    if domain.kind == "single":
        return SingleLabeller.make()
    texts, labels = _texts_and_labels(domain.labelled, "annotate.domain")
    kept = _thin(texts, 2 * MAX_EXAMPLES)
    names = [_name(labels[i]) for i in kept]
    made = train_labeller([texts[i] for i in kept], names, confidence=domain.confidence)
    write_array(home / "domain.npy", made.weights)
    return made


def _load_labeller(section: AnnotateSection, manifest: AnnotatorManifest, home: Path) -> DomainLabeller:
    if section.domain.kind == "column":
        return ColumnLabeller(manifest.domain, str(section.domain.column))
    if section.domain.kind == "single":
        return SingleLabeller(manifest.domain)
    weights = map_array(home / "domain.npy")
    return TrainedLabeller(manifest.domain, weights, manifest.classes, section.domain.confidence)


def _pool_sample(section: AnnotateSection, corpus: Corpus, seed: int) -> list[str]:
    """Return pool texts that stand for `bad`, drawn by a hash of the document id in one pass."""
    if not any(c.kind == "linear" and not c.bad for c in section.criteria):
        return []
    wanted = max(MIN_SAMPLE, min(MAX_EXAMPLES, corpus.documents // 10))
    share = min(SAMPLE_SHARE, wanted / max(corpus.documents, 1))
    texts: list[str] = []
    for split in corpus.splits:
        for batch in read_documents(corpus, split, columns=()):
            drawn = keyed_uniform(seed, batch.doc_id, "pool-sample") < share
            texts += [t for t, d in zip(batch.text, drawn.tolist(), strict=True) if d]
    return texts


def _good_and_bad(section: CriterionSection, sample: Sequence[str]) -> tuple[Examples, int]:
    good = _texts(section.good, f"criterion {section.name!r}: good")
    if section.bad:
        bad = _texts(section.bad, f"criterion {section.name!r}: bad")
    else:
        known = set(good)
        bad = [t for t in sample if t not in known]
    good = [good[i] for i in _thin(good, MAX_EXAMPLES)]
    bad = [bad[i] for i in _thin(bad, MAX_EXAMPLES)]
    labels = np.repeat([1.0, 0.0], [len(good), len(bad)])
    examples = Examples(texts=good + bad, labels=labels, groups=np.zeros(len(labels), np.int64))
    return examples, 0 if section.bad else len(bad)


def _numbers(section: CriterionSection) -> Examples:
    texts: list[str] = []
    numbers: list[float] = []
    groups: list[int] = []
    for group, labelled in enumerate(section.labelled):
        found, labels = _texts_and_labels([labelled], f"criterion {section.name!r}")
        kept = _thin(found, MAX_EXAMPLES)
        texts += [found[i] for i in kept]
        numbers += [_finite(labels[i], labelled, section.name) for i in kept]
        groups += [group] * len(kept)
    return Examples(texts=texts, labels=np.array(numbers, np.float64), groups=np.array(groups, np.int64))


def _finite(label: object, labelled: LabelledSet, name: str) -> float:
    if isinstance(label, bool | int | float) and np.isfinite(label):
        return float(label)
    raise InputError(
        f"criterion {name!r}: {labelled.path} has the label {label!r} in column {labelled.label!r}, "
        "expected a finite number; remove or mend such rows"
    )


def _name(label: object) -> str:
    if isinstance(label, str | int) and not isinstance(label, bool) and str(label).strip():
        return str(label).strip()
    raise InputError(f"annotate.domain: a labelled text has the label {label!r}, expected a domain name")


def _texts(sets: Sequence[LabelledSet], what: str) -> list[str]:
    return [t for s in sets for t, _ in _rows(s, what, None)]


def _texts_and_labels(sets: Sequence[LabelledSet], what: str) -> tuple[list[str], list[object]]:
    pairs = [pair for s in sets for pair in _rows(s, what, s.label)]
    return [t for t, _ in pairs], [label for _, label in pairs]


def _rows(labelled: LabelledSet, what: str, label: str | None) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for number, row in enumerate(read_records(labelled.path)):
        for column in (labelled.text, *((label,) if label else ())):
            if column not in row:
                known = ", ".join(sorted(row))
                raise InputError(
                    f"{what}: {labelled.path}, row {number} has no column {column!r}; it has {known}"
                )
        text = row[labelled.text]
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f"{what}: {labelled.path}, row {number}: column {labelled.text!r} holds "
                f"{type(text).__name__} {str(text)[:40]!r}, expected text; remove or mend the row"
            )
        pairs.append((text, row[label] if label else None))
    if not pairs:
        raise InputError(f"{what}: {labelled.path} has no rows; name another file")
    return pairs


def _thin(texts: Sequence[str], limit: int) -> list[int]:
    """Return the rows of at most `limit` texts, chosen by a hash of the text, in the order of the file."""
    if len(texts) <= limit:
        return list(range(len(texts)))
    order = np.argsort(keyed_uniform(0, texts, "examples"), kind="stable")
    return sorted(order[:limit].tolist())
