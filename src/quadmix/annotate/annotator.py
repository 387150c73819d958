"""What an annotator is: something that turns texts and the user's columns into one number per document.

In: a batch of texts and the user's columns of the same documents. Out: `Scored`, numbers as delivered
(NaN = missing) with a reason for every missing one (promise P8), and an `AnnotatorCard` that says what
the number is, which way it points, how it was checked, and the digest that names it in a run's identity.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.corpus.columns import column_values
from quadmix.io.atomic import value_digest

MAX_CHARS = 50_000  # of a text are scored: a 5 MB line must not cost more than a long article
UNKNOWN = "unknown"  # label of a document whose domain column is empty
OTHER = "other"  # label of small domains and of unsure classifications
MAX_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorCard:
    """What a column of the annotations means. `metrics` hold measured qualities with their baselines,
    `facts` counts of what it was made from; the digest covers settings and weights, not the metrics."""

    name: str
    kind: str
    direction: Literal["higher", "lower", "none"]
    description: str
    digest: str
    version: int = 1
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    facts: dict[str, int] = field(default_factory=dict[str, int])
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """values: (D,) float32 as delivered, finite or NaN. missing: reason -> number of NaN."""

    values: NDArray[np.float32]
    missing: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """labels: one domain name per document. missing: reason -> documents labelled for want of a label."""

    labels: list[str]
    missing: dict[str, int] = field(default_factory=dict[str, int])


class Annotator(Protocol):
    """A quality criterion. What `score` says of a document is a function of that document.

    Its last bits may depend on the batch: a model of texts pads documents to one length, and sums of floats
    then differ (by up to 3e-7 measured on encoders in float32, more in bfloat16). Batches are formed from the
    files alone, the same way whatever the workers, so equal inputs still give equal bytes (promise P7). No
    annotator may take anything else from a batch, such as a mean or a rank.
    """

    @property
    def card(self) -> AnnotatorCard: ...

    def score(self, texts: Sequence[str], rows: pa.RecordBatch) -> Scored: ...


class DomainLabeller(Protocol):
    """Gives every document the name of its domain."""

    @property
    def card(self) -> AnnotatorCard: ...

    def label(self, texts: Sequence[str], rows: pa.RecordBatch) -> Labelled: ...


@dataclass(frozen=True, slots=True)
class ColumnAnnotator:
    """A number in the user's columns; null, text, NaN and infinity are missing, each with its reason."""

    card: AnnotatorCard
    column: str

    @staticmethod
    def make(name: str, column: str, direction: Literal["higher", "lower"]) -> "ColumnAnnotator":
        settings = {"kind": "column", "column": column, "direction": direction}
        card = AnnotatorCard(
            name=name, kind="column", direction=direction, digest=value_digest(settings),
            description=f"the number in column {column!r}",
        )  # fmt: skip
        return ColumnAnnotator(card, column)

    def score(self, texts: Sequence[str], rows: pa.RecordBatch) -> Scored:
        """Return the column as (D,) float32."""
        if self.column in rows.schema.names and _is_number(rows.schema.field(self.column).type):
            return _numeric(rows.column(self.column))
        pairs = [_number(v) for v in column_values(rows, self.column)]
        missing = Counter(reason for _, reason in pairs if reason)
        return Scored(
            values=np.array([v for v, _ in pairs], np.float32), missing=dict(sorted(missing.items()))
        )


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _numeric(values: pa.Array) -> Scored:
    """The fast path: a numeric Arrow column, without a Python object per row."""
    numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    null = values.is_null().to_numpy(zero_copy_only=False)
    nan = np.isnan(numbers) & ~null
    huge = np.abs(numbers) > MAX_FLOAT32
    infinite = np.isinf(numbers)
    counts = {
        "infinite": int(infinite.sum()),
        "nan": int(nan.sum()),
        "null": int(null.sum()),
        "too_large": int((huge & ~infinite).sum()),
    }
    kept = np.where(null | nan | huge, np.nan, numbers)
    return Scored(values=kept.astype(np.float32), missing={k: n for k, n in counts.items() if n})


def _number(value: object) -> tuple[float, str]:
    """Return (number, "") or (NaN, reason); text that spells a number counts as that number."""
    if value is None:
        return math.nan, "null"
    if not isinstance(value, bool | int | float | str):
        return math.nan, "not_a_number"
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan, "not_a_number"
    if math.isnan(number):
        return math.nan, "nan"
    if math.isinf(number):
        return math.nan, "infinite"
    return (number, "") if abs(number) <= MAX_FLOAT32 else (math.nan, "too_large")


@dataclass(frozen=True, slots=True)
class ColumnLabeller:
    """The domain as the user's column names it; an empty cell is the domain `unknown`, and is counted."""

    card: AnnotatorCard
    column: str

    @staticmethod
    def make(column: str) -> "ColumnLabeller":
        digest = value_digest({"kind": "domain-column", "column": column})
        description = f"the label in column {column!r}"
        return ColumnLabeller(_domain_card("column", digest, description), column)

    def label(self, texts: Sequence[str], rows: pa.RecordBatch) -> Labelled:
        """Return the label of every document."""
        labels = [_label(v) for v in column_values(rows, self.column)]
        unknown = sum(not label for label in labels)
        return Labelled(
            labels=[x or UNKNOWN for x in labels], missing={"no_label": unknown} if unknown else {}
        )


def _label(value: object) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else orjson.dumps(value, default=str).decode()


@dataclass(frozen=True, slots=True)
class SingleLabeller:
    """No domains: every document belongs to `all`."""

    card: AnnotatorCard

    @staticmethod
    def make() -> "SingleLabeller":
        return SingleLabeller(_domain_card("single", value_digest({"kind": "single"}), "one domain for all"))

    def label(self, texts: Sequence[str], rows: pa.RecordBatch) -> Labelled:
        """Return `all` for every document."""
        return Labelled(labels=["all"] * len(texts))


def _domain_card(kind: str, digest: str, description: str) -> AnnotatorCard:
    return AnnotatorCard(name="domain", kind=kind, direction="none", digest=digest, description=description)
