"""Models as annotators: documents through a card's input, a model's outputs into one number or one label.

In: batches of documents. Out: `Scored` and `Labelled`. A document that the model may not judge (no text, a
language that the card does not name) or could not judge (not finite, out of memory) has no score, and each
such document is counted with its reason (promise P8).
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.annotate.annotator import OTHER, UNKNOWN, AnnotatorCard, Labelled, Scored
from quadmix.annotate.fallback import ask_batch
from quadmix.annotate.models.base import Outputs, Placed, Settings, with_code
from quadmix.annotate.models.devices import NEURAL, resolved
from quadmix.annotate.models.languages import ANY, check_languages, language_reason
from quadmix.annotate.models.load import load_model
from quadmix.corpus.columns import column_values
from quadmix.errors import InputError
from quadmix.io.atomic import value_digest
from quadmix.recipe.cards import ModelCard

KEPT = 8  # models whose outputs for the batch at hand are kept
Numbers = NDArray[np.float32]
_FIELD = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """A model and how its documents are prepared. language, domain: the user's columns, None where there is
    none; domain: of a card that names domains alone. pinned: were its files held against digests on its
    card?"""

    placed: Placed
    settings: Settings
    language: str | None = None
    domain: str | None = None
    pinned: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The user's columns that the model reads."""
        card = self.placed.card
        needed = self.language and (ANY not in card.languages or card.reads_language)
        return (
            *template_columns(card.input.template),
            *([self.language] if self.language and needed else []),
            *([self.domain] if self.domain else []),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ModelAnnotator:
    """One output of a model as a quality criterion."""

    card: AnnotatorCard
    asked: Asked
    output: str | None = None

    @staticmethod
    def make(name: str, asked: Asked, output: str | None = None) -> "ModelAnnotator":
        """Return the annotator with its card; InputError if the model gives no quality, or no such output, or
        its card names a language by no code, or its device is not there."""
        model = asked.placed.card
        check_languages(model)
        if model.role != "quality":
            raise InputError(
                f"criterion {name!r}: card {model.name!r} is for {model.role}, expected one for quality; "
                "`quadmix raters list` names them"
            )
        if model.reads_language and asked.language is None:
            raise InputError(
                f"criterion {name!r}: card {model.name!r} reads a text's language, but annotate.language is "
                "not set; set it to the column with the language codes"
            )
        _check_domain(name, asked)
        several = model.output.kind == "number" and len(model.output.labels) > 1
        if (several and output is None) or (output is not None and output not in model.output.labels):
            raise InputError(
                f"criterion {name!r}: output is {output!r}, expected one of "
                f"{', '.join(model.output.labels) or 'none: the model has one output'}"
            )
        card = AnnotatorCard(
            name=name,
            kind=f"model:{model.family}",
            direction="lower" if model.direction == "lower" else "higher",
            description=f"{model.name}{f' ({output})' if output else ''}: {model.description}",
            digest=asked_digest(asked, output),
            warnings=asked_warnings(name, asked),
        )
        return ModelAnnotator(card, asked, output)

    def score(self, texts: Sequence[str], rows: pa.RecordBatch) -> Scored:
        """Return (D,) float32 as the card says, NaN with a reason where there is no score."""
        model, missing = self.asked.placed.card, Counter[str]()
        usable, inputs = readable(self.asked, texts, rows, missing)
        given = _judged(self.asked, inputs)
        values = np.full(len(texts), np.nan, np.float32)
        with np.errstate(all="ignore"):  # what is not finite is counted below
            numbers = to_numbers(model, given.values, self.output)
        bad = ~np.isfinite(numbers)
        lost = int(bad.sum()) - sum(given.missing.values())
        missing.update(given.missing)
        missing["not_finite"] += max(0, lost)
        values[usable] = np.where(bad, np.float32(np.nan), numbers)
        return Scored(values=values, missing=_sorted(missing))


@dataclass(frozen=True, slots=True, eq=False)
class ModelLabeller:
    """The most probable class of a model as the domain; below `confidence` it is `other`."""

    card: AnnotatorCard
    asked: Asked
    confidence: float

    @staticmethod
    def make(asked: Asked, confidence: float) -> "ModelLabeller":
        """Return the labeller with its card; InputError if the model has no classes, or its card names a
        language by no code, or its device is not there."""
        model = asked.placed.card
        check_languages(model)
        if model.role != "domain" or model.output.kind != "classes":
            raise InputError(
                f"annotate.domain: card {model.name!r} is for {model.role} ({model.output.kind}), expected "
                "classes of domains; `quadmix raters list` names them"
            )
        card = AnnotatorCard(
            name="domain",
            kind=f"model:{model.family}",
            direction="none",
            description=f"{model.name}: {model.description}",
            digest=asked_digest(asked),
            facts={"classes": len(model.output.labels)},
            warnings=asked_warnings("domain", asked),
        )
        return ModelLabeller(card, asked, confidence)

    def label(self, texts: Sequence[str], rows: pa.RecordBatch) -> Labelled:
        """Return one label per document: a class, `other` (unsure) or `unknown` (not judged).

        If the model fails on the batch, it is asked document by document; those it fails on are `unknown`
        with the reason failed_<error>. If it fails on all of them it is broken, and its error is raised.
        """
        return ask_batch(self._labelled, _joined_labels, texts, rows)

    def _labelled(self, texts: Sequence[str], rows: pa.RecordBatch) -> Labelled:
        missing = Counter[str]()
        usable, inputs = readable(self.asked, texts, rows, missing)
        given = _judged(self.asked, inputs)
        labels = [UNKNOWN] * len(texts)
        names = self.asked.placed.card.output.labels
        missing.update(given.missing)
        for place, row in zip(usable.tolist(), given.values, strict=True):
            if np.isnan(row).any():
                continue
            best = int(row.argmax())
            sure = row[best] >= self.confidence
            labels[place] = names[best] if sure else OTHER
            missing["below_confidence"] += not sure
        return Labelled(labels=labels, missing=_sorted(missing))


def _joined_labels(answers: list[Labelled | None], failed: Counter[str]) -> Labelled:
    reasons = sum((Counter(a.missing) for a in answers if a), failed)
    return Labelled(labels=[a.labels[0] if a else UNKNOWN for a in answers], missing=_sorted(reasons))


def _check_domain(name: str, asked: Asked) -> None:
    card = asked.placed.card
    if card.reads_domains and asked.domain is None:
        raise InputError(
            f"criterion {name!r}: card {card.name!r} reads the domain of a text "
            f"({', '.join(card.reads_domains)}), but no column says it: other domains than those of a "
            "column are found beside the criteria, not before them; set the criterion's key `domain` to the "
            "column that holds them, or annotate.domain to kind column"
        )
    if asked.domain is not None and not card.reads_domains:
        raise InputError(
            f"criterion {name!r}: it names the column {asked.domain!r} for the domain, but card "
            f"{card.name!r} reads no domain; take the key `domain` off"
        )


def to_numbers(card: ModelCard, values: Numbers, output: str | None = None) -> Numbers:
    """Return (D,) the number of each row of outputs (D, K), as the card's `output` says."""
    out = card.output
    if out.kind == "classes":
        number = _of_classes(card, np.clip(values, 0.0, 1.0), output)
    else:
        number = values[:, out.labels.index(output) if output else 0]
    number = number.astype(np.float64)
    if out.transform == "sigmoid":
        number = 1.0 / (1.0 + np.exp(-number))
    elif out.transform == "log":
        number = np.log(number)
    return (np.clip(number, *out.clamp) if out.clamp else number).astype(np.float32)


def _of_classes(card: ModelCard, values: Numbers, output: str | None) -> NDArray[Any]:
    out = card.output
    if output is None and out.values is not None:
        weights = np.array([out.values[name] for name in out.labels], np.float32)
        return (values * weights).sum(axis=1) / values.sum(axis=1)
    column = values[:, out.labels.index(output or str(out.positive))]
    if output is None and out.negative is not None:
        # the published rule reads the top label alone, and turns it round where it is the negative one
        other = values[:, out.labels.index(out.negative)]
        return np.where(other > column, 1.0 - other, column)
    return column


def template_columns(template: str) -> tuple[str, ...]:
    """Return the user's columns that a template names besides the text."""
    return tuple(dict.fromkeys(name for name in _FIELD.findall(template) if name != "text"))


def readable(
    asked: Asked, texts: Sequence[str], rows: pa.RecordBatch, missing: Counter[str]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the documents (U,) that the model judges and what it reads; counts the others in `missing`."""
    reasons = refused(asked, texts, rows)
    missing.update(reason for reason in reasons if reason)
    usable = np.array([i for i, reason in enumerate(reasons) if not reason], np.int64)
    return usable, _inputs(asked, texts, rows, usable.tolist())


def refused(asked: Asked, texts: Sequence[str], rows: pa.RecordBatch) -> list[str]:
    """Return why the model may not judge each document (empty_text, language_unknown, language_outside_card),
    "" where it may."""
    reasons = ["" if text.strip() else "empty_text" for text in texts]
    card, known = asked.placed.card, asked.placed.card.languages
    if asked.language is None or (ANY in known and not card.reads_language):
        return reasons
    languages = column_values(rows, asked.language)
    if ANY in known:  # a code that the model does not know is read as such, none at all is not
        own = ["" if _plain(value).strip() else "language_unknown" for value in languages]
    else:
        own = [language_reason(value, known) for value in languages]
    return [reason or other for reason, other in zip(reasons, own, strict=True)]


def _inputs(asked: Asked, texts: Sequence[str], rows: pa.RecordBatch, usable: Sequence[int]) -> list[str]:
    """Return what the model reads of each usable document."""
    card = asked.placed.card
    columns = {name: column_values(rows, name) for name in template_columns(card.input.template)}
    made = [prepare_text(card, texts[i], {n: _plain(v[i]) for n, v in columns.items()}) for i in usable]
    if not card.reads_language or asked.language is None:
        return made
    names = [asked.language, *([asked.domain] if asked.domain else [])]
    code = zip(*(column_values(rows, name) for name in names), strict=True)
    told = [[_plain(value).strip() for value in one] for one in code]
    return [with_code(text, *told[i]) for i, text in zip(usable, made, strict=True)]


def prepare_text(card: ModelCard, text: str, columns: dict[str, str]) -> str:
    """Return one text cut to `chars`, in the template, on one line and in lower case as the card says."""
    given, values = card.input, columns | {"text": text[: card.input.chars]}
    made = _FIELD.sub(lambda found: values[found[1]], given.template)
    if given.one_line:
        made = " ".join(made.strip().splitlines())
    return made.lower() if given.lower else made


def _plain(value: object) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


_LAST: dict[tuple[str, Settings], tuple[list[str], Outputs]] = {}


def _judged(asked: Asked, inputs: list[str]) -> Outputs:
    """Run each model once for all criteria that read the same batch (QuRater has four)."""
    key = (asked.placed.digest, asked.settings)
    last = _LAST.get(key)
    if last is not None and last[0] == inputs:
        return last[1]
    if not inputs:
        width = max(1, len(asked.placed.card.output.labels))
        return Outputs(values=np.empty((0, width), np.float32))
    given = load_model(asked.placed, asked.settings).outputs(inputs)
    if last is not None:  # a new batch has begun: what is kept, of other models too, is of the one before
        _LAST.clear()
    for old in list(_LAST)[: 1 - KEPT]:
        _LAST.pop(old, None)
    _LAST[key] = (inputs, given)
    return given


def check_text_alone(card: ModelCard) -> None:
    """Raise InputError if the card's template names columns: texts are embedded without them."""
    if columns := template_columns(card.input.template):
        raise InputError(
            f"card {card.name!r}: input.template names {', '.join(map(repr, columns))}, expected {{text}} "
            "alone, since texts are embedded without the user's columns; take the names out of the template "
            "or choose another embedding"
        )


def embedder(asked: Asked) -> Callable[[Sequence[str]], Numbers]:
    """Return texts -> (D, H) vectors, NaN rows where a text could not be read.

    Raises InputError for a card of another role, or whose template names columns, which texts alone lack.
    """
    card = asked.placed.card
    check_languages(card)
    if card.role != "embedding":
        raise InputError(
            f"card {card.name!r} is for {card.role}, expected one for embedding; `quadmix raters list` names "
            "them"
        )
    check_text_alone(card)

    def embed(texts: Sequence[str]) -> Numbers:
        model = load_model(asked.placed, asked.settings)
        return model.outputs([prepare_text(card, text, {}) for text in texts]).values

    return embed


def asked_digest(asked: Asked, output: str | None = None) -> str:
    """Return the digest of all that the numbers of a model depend on.

    Device and number format of neural models are in it as they are here, not as `auto`: scores in bfloat16
    and in float32 are not mixed. Raises InputError if device is cuda and no GPU is here.
    """
    settings: list[Any] = [asked.placed.digest, output, asked.language, *computing(asked)]
    domain = [asked.domain] if asked.domain else []
    return value_digest(["model", *settings, *domain])


def computing(asked: Asked) -> tuple[str, ...]:
    """Return device and number format in which a neural model runs here, such as (cuda, bfloat16); nothing
    for other models, whose numbers depend on neither. InputError as `asked_digest`."""
    placed = asked.placed
    below = placed.base.card.family if placed.base else ""
    return resolved(asked.settings) if NEURAL & {placed.card.family, below} else ()


def asked_warnings(name: str, asked: Asked) -> tuple[str, ...]:
    """Name what of a card could not be held against the files or the documents."""
    card, found = asked.placed.card, list[str]()
    if ANY not in card.languages and asked.language is None:
        found.append(
            f"{name}: {card.name} is for {', '.join(card.languages)}; without annotate.language every "
            "document is taken to be in these"
        )
    if not asked.pinned:
        found.append(
            f"{name}: the card of {card.name} does not pin the digests of its files; those found are "
            "recorded in the run, not held against the publisher's"
        )
    return tuple(found)


def _sorted(missing: Counter[str]) -> dict[str, int]:
    return {reason: count for reason, count in sorted(missing.items()) if count}
