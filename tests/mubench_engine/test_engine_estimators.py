"""Choices and scores, against numbers worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from quadmix.evaluate.mubench.cells import Cell, read_cell, write_cell
from quadmix.evaluate.mubench.engine import TaskFacts, macro_scores, task_shares
from quadmix.evaluate.mubench.estimators import (
    accuracy_scores,
    common,
    estimators,
    headline,
    loss_scores,
    option_scores,
    predicted,
)
from quadmix.evaluate.mubench.items import AlignedTask, Item
from quadmix.types import Score


def cell(rows: list[list[float]], *, same: bool = False, bare: list[list[float]] | None = None) -> Cell:
    """A cell of items "a", "b", ...; option c has 2c + 1 bytes and one more with its space."""
    item = np.array([i for i, row in enumerate(rows) for _ in row])
    option = np.array([c for row in rows for c in range(len(row))])
    return Cell(
        ids=tuple("abcdef"[: len(rows)]), item=item, option=option,
        log_likelihood=np.array([x for row in rows for x in row], dtype=float),
        unconditional=None if bare is None else np.array([x for row in bare for x in row], dtype=float),
        weights=2 * option + 1, bytes=2 * option + 2, tokens=option + 1, cut=np.zeros(len(item), dtype=int),
        same=same,
    )  # fmt: skip


def task(labels: list[int], choices: list[tuple[str, ...]], *, name: str = "arc_easy") -> AlignedTask:
    items = tuple(
        Item(id="abcdef"[i], prompt="p", choices=choices[i], label=label) for i, label in enumerate(labels)
    )
    return AlignedTask(task=name, mode="lighteval", ids=tuple(i.id for i in items), items={"de": items})


def test_the_likeliest_option_and_the_likeliest_per_byte() -> None:
    one = cell([[-2.0, -3.0], [-1.0, -6.0, -4.0]])
    assert np.nanargmax(option_scores(one, "acc"), axis=1).tolist() == [0, 0]
    # per byte: -2, -1 and -1, -2, -0.8
    assert np.nanargmax(option_scores(one, "acc_bytes"), axis=1).tolist() == [1, 2]
    assert np.isnan(option_scores(one, "acc")[0, 2])


def test_calibration_takes_off_the_prior_of_a_label() -> None:
    """Option 0 has probability 0.8, 0.7, 0.9 on three items: prior 0.8; it is chosen where it is likelier."""
    shares = np.array([[0.8, 0.2], [0.7, 0.3], [0.9, 0.1]])
    one = cell(np.log(shares * 0.01).tolist(), same=True)
    found = option_scores(one, "acc_cal")
    np.testing.assert_allclose(found, np.log(shares / [0.8, 0.2]), atol=1e-12)
    assert np.argmax(option_scores(one, "acc"), axis=1).tolist() == [0, 0, 0]
    assert np.argmax(found[1:], axis=1).tolist() == [1, 0]


def test_mutual_information_takes_off_the_option_without_its_prompt() -> None:
    one = cell([[-2.0, -3.0]], bare=[[-1.0, -4.0]])
    assert option_scores(one, "acc_mutual_info").tolist() == [[-1.0, 1.0]]
    assert option_scores(one, "unconditional").tolist() == [[-1.0, -4.0]]


def test_which_estimators_a_task_has_and_which_stands_for_it() -> None:
    plain, labels = cell([[-1.0, -2.0]]), cell([[-1.0, -2.0]], same=True)
    assert estimators({"de": plain}) == ("acc", "acc_bytes")
    assert estimators({"de": labels, "zh": plain}) == ("acc", "acc_bytes")
    assert estimators({"de": replace(labels, unconditional=np.zeros(2))}) == (
        "acc", "acc_bytes", "acc_cal", "acc_mutual_info", "unconditional",
    )  # fmt: skip
    assert headline("mnli", {"de": labels}) == "acc_cal"
    assert headline("mnli", {"de": plain}) == "acc"
    assert [headline(name, {"de": plain}) for name in ("hellaswag", "bmlama", "mmlu")] == [
        "acc_bytes", "acc", "acc",
    ]  # fmt: skip


def test_a_tie_with_the_right_text_is_the_right_answer() -> None:
    own = task([1, 0], [("Yes", "yes "), ("a", "b")])
    found = predicted(own, {"de": cell([[-1.0, -1.0], [-3.0, -2.0]])}, "acc")
    assert found.chosen["de"].tolist() == [1, 1]
    scores = {s.metric: s for s in accuracy_scores(found)}
    assert scores["acc"].value == 0.5
    assert scores["acc"].chance == 0.5
    assert scores["acc"].stderr == pytest.approx(math.sqrt(0.5) / math.sqrt(2))
    # places: predicted 1, 1; right 1, 0: dealt out anew half are right
    assert scores["acc:null"].value == 0.5
    assert scores["acc:entropy"].value == 0.0


def test_items_that_do_not_fit_somewhere_are_common_nowhere() -> None:
    own = task([0, 0, 1], [("a", "b")] * 3)
    whole, part = cell([[-1.0, -2.0]] * 3), cell([[-1.0, -2.0], [-1.0, float("nan")], [-1.0, -2.0]])
    assert common(own, {"de": whole, "zh": part}).tolist() == [True, False, True]


def test_loss_of_the_right_answer_and_its_margin() -> None:
    bits = [[2.0, 8.0], [6.0, 4.0, 12.0]]
    one = cell([[-x * math.log(2) for x in row] for row in bits])
    scores = {s.metric: s for s in loss_scores(task([0, 1], [("a", "b"), ("a", "b", "c")]), {"de": one})}
    # right: 2 bits of 2 bytes, 4 bits of 4 bytes
    assert scores["bits_per_byte"].value == pytest.approx(1.0)
    assert scores["bits_per_byte"].stderr == pytest.approx(0.0, abs=1e-12)
    # margins: 1 - 8/4 = -1, and 1 - (6/2 + 12/6) / 2 = -1.5
    assert scores["margin"].value == pytest.approx(-1.25)
    assert scores["margin"].stderr == pytest.approx(math.sqrt(0.125) / math.sqrt(2))


def test_a_cell_comes_back_from_its_file_and_another_key_does_not(tmp_path) -> None:
    one = cell([[-1.5, float("nan")], [-2.0, -3.0, -1.0]], bare=[[-1.0, -2.0], [-3.0, -4.0, -5.0]])
    write_cell(tmp_path / "c.parquet", one, "key")
    back = read_cell(tmp_path / "c.parquet", "key")
    assert back is not None
    for name in ("item", "option", "log_likelihood", "unconditional", "weights", "bytes", "tokens", "cut"):
        np.testing.assert_array_equal(getattr(back, name), getattr(one, name))
    assert (back.ids, back.same) == (("a", "b"), False)
    assert back.fits.tolist() == [False, True]
    assert read_cell(tmp_path / "c.parquet", "other") is None
    assert read_cell(tmp_path / "none.parquet", "key") is None


def test_the_mean_counts_a_family_once_and_every_ability_alike() -> None:
    names = ("snli", "mnli", "winogrande", "bmlama")
    assert task_shares(names) == pytest.approx(
        {"snli": 0.125, "mnli": 0.125, "winogrande": 0.25, "bmlama": 0.5}
    )
    facts = [
        TaskFacts(task=n, mode="lighteval", split="report", headline="acc", items=4, left_out=(), cells=(),
                  converted=()) for n in names
    ]  # fmt: skip
    values = dict(zip(names, (0.4, 0.6, 0.5, 0.9), strict=True))
    rows = [
        Score(task=f"{n}_lighteval", language=code, metric="acc", value=v, stderr=0.04, n=10, chance=0.2)
        for code in ("de", "zh")
        for n, v in values.items()
        if (code, n) != ("zh", "bmlama")
    ]
    (mean,) = macro_scores(facts, rows)  # zh lacks a task, so its mean would be another one
    assert (mean.task, mean.language, mean.n) == ("macro_lighteval", "de", 40)
    assert mean.value == pytest.approx(0.7)
    assert mean.chance == pytest.approx(0.2)
    assert mean.stderr == pytest.approx(0.04 * math.sqrt(2 * 0.125**2 + 0.25**2 + 0.5**2))
    assert macro_scores(facts[:1], rows) == []
