"""Circularity: a rater trained on the target is flagged by name and by shared text, another is not."""

from pathlib import Path

import numpy as np
import pytest
from annotate_world import write_rows

from quadmix.annotate import circularity as module
from quadmix.annotate.circularity import (
    circularity,
    criterion_circularity,
    families,
    shared_text,
    shared_warnings,
)
from quadmix.errors import InputError
from quadmix.recipe import CriterionSection

DCLM = ("OpenHermes-2.5", "r/ExplainLikeImFive", "RefinedWeb")


@pytest.mark.parametrize(
    "target",
    [
        "openhermes",
        "OpenHermes 2.5",
        "teknium/OpenHermes-2.5",
        "/data/sets/open_hermes2_5.jsonl.zst",
        "oh_eli5",
    ],
)
def test_the_classifier_of_dclm_is_flagged_on_openhermes(target: str) -> None:
    found = circularity(DCLM, ["arc", target], rater="dclm")
    assert found
    assert all(repr(target) in w for w in found)
    assert found[-1].startswith("dclm was trained on 'OpenHermes-2.5', and the target")
    assert "is OpenHermes by its name" in found[-1]


@pytest.mark.parametrize(
    "target", ["arc", "mmlu", "hermes", "/data/openhermes-runs/targets/gsm8k.jsonl", "s3://c4me/x/hellaswag"]
)
def test_other_targets_are_not_flagged(target: str) -> None:
    assert circularity(DCLM, [target]) == ()


def test_names_are_told_apart_by_the_longest_alias() -> None:
    assert families("HuggingFaceFW/fineweb-edu") == {"FineWeb-Edu"}
    assert families("HuggingFaceFW/fineweb") == {"FineWeb"}
    assert families("ai2_arc/ARC-Challenge") == {"ARC"}
    assert families("cerebras/SlimPajama-627B") == {"SlimPajama"}
    assert circularity(["450,000 labels of FineWeb-Edu"], ["fineweb_sample.jsonl"]) == ()
    assert len(circularity(["HuggingFaceFW/fineweb"], ["fineweb_sample.jsonl"])) == 1


def test_unknown_data_sets_are_compared_by_their_own_names() -> None:
    found = circularity(["acme/Support-Tickets"], ["in/support_tickets.parquet", "in/other_tickets.jsonl"])
    assert len(found) == 1
    assert "'in/support_tickets.parquet' is the same by its name" in found[0]


def sentences(seed: int, count: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{i}" for i in rng.integers(5_000, size=40)) for _ in range(count)]


def test_rows_whose_words_stand_in_the_training_text_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 7)
    target, other = sentences(0, 20), sentences(1, 10)
    training = sentences(2, 50) + [f"Before, {t.upper()}! And after." for t in target[:5]]
    rows = {"mine": [*target, "too short"], "other": other, "empty": []}
    mine, clean, empty = shared_text("r", "good", iter(training), rows)
    assert (mine.rows, mine.comparable, mine.shared, mine.share) == (21, 20, 5, 0.25)
    assert (clean.comparable, clean.shared) == (10, 0)
    assert (empty.rows, empty.comparable) == (0, 0)
    warnings = shared_warnings([mine, clean, empty])
    assert len(warnings) == 1
    assert (
        "criterion 'r' takes as good text of the target 'mine': 5 of 20 rows (25.0%) share 13" in warnings[0]
    )


def test_training_text_without_targets_and_targets_without_training_text() -> None:
    assert shared_text("r", "good", ["a b c"], {}) == ()
    assert shared_text("r", "good", [], {"t": sentences(0, 3)})[0].shared == 0


def test_the_labelled_sets_of_a_criterion_are_read_by_their_role(tmp_path: Path) -> None:
    target = sentences(0, 10)
    good = write_rows(tmp_path / "good.jsonl", [{"body": t} for t in target[:4] + sentences(1, 5)])
    bad = write_rows(tmp_path / "bad.jsonl", [{"text": t} for t in sentences(3, 5)])
    section = CriterionSection.model_validate(
        {"name": "q", "kind": "linear", "good": [{"path": good, "text": "body"}], "bad": [{"path": bad}]}
    )
    found = criterion_circularity(section, {"t": target})
    assert [(s.role, s.shared) for s in found] == [("good", 4), ("bad", 0)]
    column = CriterionSection.model_validate({"name": "c", "kind": "column", "column": "x"})
    assert criterion_circularity(column, {"t": target}) == ()


def test_a_labelled_set_without_the_column_is_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "l.jsonl", [{"text": "fine", "label": 1}, {"label": 2}])
    section = CriterionSection.model_validate(
        {"name": "q", "kind": "regression", "labelled": [{"path": path}]}
    )
    with pytest.raises(InputError, match=r"l\.jsonl, row 1 has no text in column 'text'"):
        criterion_circularity(section, {"t": sentences(0, 2)})
