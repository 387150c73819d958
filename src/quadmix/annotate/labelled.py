"""The labelled files of a recipe: texts that are good, bad, or carry a number or a domain.

In: `LabelledSet` sections. Out: texts and labels, at most so many, drawn by a hash of the text. A row that
does not fit is an InputError with its file and number: these files decide what is taken for quality.
"""

from collections.abc import Sequence

import numpy as np

from quadmix.annotate.trained import Examples
from quadmix.errors import InputError
from quadmix.io.rows import read_records
from quadmix.recipe import CriterionSection, LabelledSet
from quadmix.rng import keyed_uniform

MAX_EXAMPLES = 20_000  # texts per class (or labelled texts) used for training, drawn by a hash of the text


def good_and_bad(section: CriterionSection, sample: Sequence[str]) -> tuple[Examples, int]:
    good = texts_only(section.good, f"criterion {section.name!r}: good")
    if section.bad:
        bad = texts_only(section.bad, f"criterion {section.name!r}: bad")
    else:
        known = set(good)
        bad = [t for t in sample if t not in known]
    good = [good[i] for i in thin(good, MAX_EXAMPLES)]
    bad = [bad[i] for i in thin(bad, MAX_EXAMPLES)]
    labels = np.repeat([1.0, 0.0], [len(good), len(bad)])
    examples = Examples(texts=good + bad, labels=labels, groups=np.zeros(len(labels), np.int64))
    return examples, 0 if section.bad else len(bad)


def numbered(section: CriterionSection) -> Examples:
    texts: list[str] = []
    numbers: list[float] = []
    groups: list[int] = []
    for group, labelled in enumerate(section.labelled):
        found, labels = texts_and_labels([labelled], f"criterion {section.name!r}")
        kept = thin(found, MAX_EXAMPLES)
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


def label_name(label: object) -> str:
    if isinstance(label, str | int) and not isinstance(label, bool) and str(label).strip():
        return str(label).strip()
    raise InputError(f"annotate.domain: a labelled text has the label {label!r}, expected a domain name")


def texts_only(sets: Sequence[LabelledSet], what: str) -> list[str]:
    """Return the texts of all sets; `what` begins the message of a row that holds none."""
    return [t for s in sets for t, _ in _rows(s, what, None)]


def texts_and_labels(sets: Sequence[LabelledSet], what: str) -> tuple[list[str], list[object]]:
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


def thin(texts: Sequence[str], limit: int) -> list[int]:
    """Return the rows of at most `limit` texts, chosen by a hash of the text, in the order of the file."""
    if len(texts) <= limit:
        return list(range(len(texts)))
    order = np.argsort(keyed_uniform(0, texts, "examples"), kind="stable")
    return sorted(order[:limit].tolist())
