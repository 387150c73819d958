"""Columns as scores and labels: what is no number is missing, and every missing one has a reason."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from quadmix.annotate.annotator import UNKNOWN, ColumnAnnotator, ColumnLabeller, SingleLabeller


def batch(values: list[Any], kind: pa.DataType | None = None) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(values, kind)], names=["v"])


def scored(values: list[Any], kind: pa.DataType | None = None) -> tuple[list[float], dict[str, int]]:
    result = ColumnAnnotator.make("c", "v", "higher").score([""] * len(values), batch(values, kind))
    assert result.values.dtype == np.float32
    assert int(np.isnan(result.values).sum()) == sum(result.missing.values())
    return result.values.tolist(), result.missing


def test_floats_pass_and_null_nan_infinity_and_overflow_are_missing_with_reasons() -> None:
    values, missing = scored([1.5, None, math.nan, math.inf, -math.inf, 1e300, -2.0])
    assert [v for v in values if not math.isnan(v)] == [1.5, -2.0]
    assert missing == {"infinite": 2, "nan": 1, "null": 1, "too_large": 1}


def test_integers_with_nulls_keep_their_values() -> None:
    values, missing = scored([3, None, -4], pa.int64())
    assert values[0] == 3.0
    assert values[2] == -4.0
    assert missing == {"null": 1}


def test_text_counts_only_when_it_spells_a_finite_number() -> None:
    values, missing = scored(["0.25", "good", "nan", "inf", "", None, "1e300"])
    assert values[0] == 0.25
    assert missing == {"infinite": 1, "nan": 1, "not_a_number": 2, "null": 1, "too_large": 1}


@pytest.mark.parametrize("value", [[1.0], {"a": 1}])
def test_lists_and_objects_are_no_numbers(value: object) -> None:
    assert scored([value])[1] == {"not_a_number": 1}


def test_dots_lead_into_nested_fields_and_a_null_parent_is_missing() -> None:
    rows = pa.RecordBatch.from_pylist([{"m": {"q": {"s": 2.0}}}, {"m": None}, {"m": {"q": {"s": None}}}])
    result = ColumnAnnotator.make("c", "m.q.s", "lower").score(["", "", ""], rows)
    assert result.values[0] == 2.0
    assert result.missing == {"null": 2}


def test_labels_are_text_and_an_empty_cell_is_unknown_and_counted() -> None:
    labels = ColumnLabeller.make("v").label(["", "", ""], batch([" web ", None, "  "]))
    assert labels.labels == ["web", UNKNOWN, UNKNOWN]
    assert labels.missing == {"no_label": 2}
    assert ColumnLabeller.make("v").label(["", ""], batch([7, 0])).labels == ["7", "0"]


def test_without_domains_every_document_has_the_same_label() -> None:
    assert SingleLabeller.make().label(["a", "b"], batch([1, 2])).labels == ["all", "all"]


def test_the_digest_names_column_and_direction() -> None:
    made = [ColumnAnnotator.make("c", c, d).card.digest for c in ("a", "b") for d in ("higher", "lower")]
    assert len(set(made)) == 4
