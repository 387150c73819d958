"""The whole report: nulls beside every number, ties, parts, means, code-switched items, and its page."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from mubench_files import aligned, answered

from quadmix.errors import InputError
from quadmix.evaluate.mubench.items import AlignedTask, Item, Predictions
from quadmix.evaluate.mubench.measure import Sampling
from quadmix.evaluate.mubench.mix import mix_task
from quadmix.evaluate.mubench.nulls import predictions
from quadmix.evaluate.mubench.report import consistency_report
from quadmix.evaluate.mubench.splits import parts_of
from quadmix.report.consistency import write_consistency
from quadmix.types.consistency import ConsistencyReport

FEW = Sampling(draws=200)
SAMPLES = Path(__file__).parent / "samples"


def reported(*tasks: AlignedTask, knows: float = 0.5, **options: object) -> ConsistencyReport:
    found = [answered(t, knows) for t in tasks]
    keys = {(t.task, t.mode): t for t in tasks}
    return consistency_report(found, keys, sampling=FEW, **options)  # pyright: ignore[reportArgumentType]


def test_the_shortest_option_is_consistent_and_knows_nothing() -> None:
    """The trap: a null with MLC 1 and accuracy at chance, above a model that knows half of the answers."""
    (found,) = reported(aligned("arc_easy", count=400)).tasks
    whole = found.sets[0]
    assert whole.nulls == {"shortest": 1.0, "longest": 1.0}
    assert whole.over_null.high < 0
    assert whole.both_right.value > 0.45
    for language in found.by_language:
        assert abs(language.accuracy_nulls["shortest"] - 0.25) < 0.06
        assert language.nulls == {"shortest": 1.0, "longest": 1.0}
        assert language.accuracy.value > 0.5
    assert found.anchor == "en"
    german = next(r for r in found.by_language if r.language == "de")
    assert german.anchor_nulls == {"shortest": 1.0, "longest": 1.0}


def test_every_consistency_has_its_nulls_beside_it() -> None:
    """With a null that only a model can give, too, ties settled."""
    task = aligned("arc_easy")
    extra = answered(task, 0.0, seed=5, name="unconditional")
    found = consistency_report([answered(task, 0.5), extra], {("arc_easy", "lighteval"): task}, sampling=FEW)
    (own,) = found.tasks
    names = {"shortest", "longest", "unconditional"}
    assert own.estimator == "acc"
    for s in own.sets:
        assert set(s.nulls) == names
    for r in own.by_language:
        assert set(r.nulls) == set(r.accuracy_nulls) == names
        assert set(r.anchor_nulls) == (set() if r.language == "en" else names)
    assert set(own.pairs.nulls) == names


def test_without_texts_the_nulls_must_be_among_the_predictions() -> None:
    task = aligned("arc_easy")
    found, null = answered(task, 0.5), answered(task, 0.0, name="shortest")
    with pytest.raises(InputError, match=r"arc_easy \(lighteval\): no content-free predictor beside 'acc'"):
        consistency_report([found], {}, sampling=FEW)
    report = consistency_report([found, null], {}, sampling=FEW)
    assert list(report.tasks[0].sets[0].nulls) == ["shortest"]
    assert any("option texts not at hand" in note for note in report.notes)
    assert {r.settled for r in report.tasks[0].by_language} == {-1}
    with pytest.raises(InputError, match="no predictions of a model"):
        consistency_report([null], {}, sampling=FEW)


def test_ties_with_the_right_text_are_settled_and_counted() -> None:
    task = aligned("arc_easy", count=20)
    first = task.items["de"][0]
    double = first.choices[first.label]
    other = (first.label + 1) % 4
    choices = tuple(double.upper() if n == other else c for n, c in enumerate(first.choices))
    items = {
        **task.items,
        "de": (Item(id=first.id, prompt="?", choices=choices, label=first.label), *task.items["de"][1:]),
    }
    task = AlignedTask(task=task.task, mode=task.mode, ids=task.ids, items=items)
    raw = answered(task, 1.0)
    chosen = {**raw.chosen, "de": raw.chosen["de"].copy()}
    chosen["de"][0] = other
    chosen["en"] = chosen["en"].copy()
    chosen["en"][1] = -1
    found = Predictions(
        task=raw.task,
        mode=raw.mode,
        estimator="acc",
        ids=raw.ids,
        chosen=chosen,
        labels=raw.labels,
        options=raw.options,
    )
    report = consistency_report([found], {("arc_easy", "lighteval"): task}, sampling=FEW)
    by_language = {r.language: r for r in report.tasks[0].by_language}
    assert (by_language["de"].settled, by_language["de"].accuracy.value) == (1, 1.0)
    assert (by_language["en"].unanswered, by_language["en"].accuracy.value) == (1, 0.95)
    assert any("1 choices count as right because their text" in n for n in report.notes)
    assert any("1 items without an answer" in n for n in report.notes)


def test_a_part_of_the_split_is_measured_alone() -> None:
    task = aligned("arc_easy", count=100)
    (found,) = reported(task, part="report").tasks
    keep = parts_of("arc_easy", task.ids) == "report"
    raw = answered(task, 0.5)
    assert (found.items, found.part) == (int(keep.sum()), "report")
    german = next(r for r in found.by_language if r.language == "de")
    assert german.accuracy.value == pytest.approx(np.mean(raw.chosen["de"][keep] == raw.labels[keep]))


def test_groups_and_anchor_are_the_users_or_classes_of_resources() -> None:
    task = aligned("arc_easy", "af bg de en fr sw te")
    (found,) = reported(task).tasks
    assert {s.name: s.languages for s in found.sets[1:]} == {
        "high": ("de", "en", "fr"), "mid": ("af", "bg"), "low": ("sw", "te")
    }  # fmt: skip
    (own,) = reported(task, groups={"mine": ["sw", "en", "xx"]}, anchor="fr").tasks
    assert [(s.name, s.languages) for s in own.sets[1:]] == [("mine", ("en", "sw"))]
    assert own.anchor == "fr"
    with pytest.raises(InputError, match="no predictions in the anchor 'xx'; its languages are af"):
        reported(task, anchor="xx")


def test_means_count_the_nli_family_once_and_never_pool_items() -> None:
    tasks = [
        aligned(name, count=count)
        for name, count in (("snli", 20), ("mnli", 80), ("winogrande", 40), ("mmlu", 30))
    ]
    report = reported(*tasks)
    value = {t.task: t.sets[0].mlc.value for t in report.tasks}
    means = {m.name: m for m in report.means}
    nli = (value["snli"] + value["mnli"]) / 2
    assert means["understanding"].mlc.value == pytest.approx((nli + value["winogrande"]) / 2)
    assert means["tasks"].mlc.value == pytest.approx((nli + value["winogrande"] + value["mmlu"]) / 3)
    assert means["abilities"].mlc.value == pytest.approx(
        ((nli + value["winogrande"]) / 2 + value["mmlu"]) / 2
    )
    assert means["tasks"].nulls == {"shortest": pytest.approx(1.0), "longest": pytest.approx(1.0)}
    assert means["tasks"].mlc.low < means["tasks"].mlc.value < means["tasks"].mlc.high
    assert reported(tasks[0], tasks[1]).means == ()  # one family alone has no mean


def test_means_of_tasks_with_one_estimator_each_are_over_all_of_them() -> None:
    tasks = [aligned(name) for name in ("snli", "mmlu")]
    found = [answered(t, 0.5, name=name) for t, name in zip(tasks, ("acc_cal", "acc"), strict=True)]
    items = {(t.task, t.mode): t for t in tasks}
    report = consistency_report(found, items, sampling=FEW)
    assert [(m.name, m.estimator) for m in report.means] == [
        ("understanding", "acc_cal"), ("knowledge", "acc"), ("tasks", "each task's"),
        ("abilities", "each task's"),
    ]  # fmt: skip
    mean = sum(t.sets[0].mlc.value for t in report.tasks) / 2
    assert report.means[2].mlc.value == pytest.approx(mean)
    both = consistency_report([*found, answered(tasks[0], 0.5)], items, sampling=FEW)
    assert {m.estimator for m in both.means} == {"acc"}  # a task with two: a mean per estimator


def test_tasks_in_different_languages_are_noted_beside_their_means() -> None:
    report = reported(aligned("snli"), aligned("mmlu", languages="en de"))
    assert (
        "lighteval: tasks are in different languages, so means over them mix sets: mmlu lacks zh"
        in report.notes
    )
    assert not any("different" in note for note in reported(aligned("snli"), aligned("mmlu")).notes)


def test_intervals_of_shares_stay_between_0_and_1() -> None:
    task = aligned("mmlu", count=8)
    chosen = {
        language: np.array([(i.label + (n > 0)) % 4 for n, i in enumerate(items)], dtype=np.int16)
        for language, items in task.items.items()
    }
    found = consistency_report([predictions(task, "acc", chosen)], {("mmlu", task.mode): task}, sampling=FEW)
    for own in (found.tasks[0].sets[0].both_right, *(r.accuracy for r in found.tasks[0].by_language)):
        assert own.value == 1 / 8
        assert own.low == 0


def test_code_switched_items_are_compared_with_the_same_items_in_the_base_language() -> None:
    task = aligned("bmlama", count=50)
    mixed = mix_task(task, most=2).task
    plain, switched = answered(task, 0.6, seed=1), answered(mixed, 0.4, seed=2)
    keys = {(t.task, t.mode): t for t in (task, mixed)}
    report = consistency_report([plain, switched], keys, sampling=FEW)
    assert [m.language for m in report.mixes] == ["en", "de", "zh"]
    for m in report.mixes:
        a, b = plain.chosen[m.language], switched.chosen[m.language]
        assert m.plain == pytest.approx(np.mean(a == plain.labels))
        assert m.mixed == pytest.approx(np.mean(b == plain.labels))
        assert m.difference.value == pytest.approx(m.mixed - m.plain)
        assert m.kept.value == pytest.approx(np.mean(a == b))
        assert m.difference.low < m.difference.value < m.difference.high
        assert set(m.nulls) == {"shortest", "longest"}
    less = Predictions(
        task="bmlama",
        mode="lighteval",
        estimator="acc",
        ids=plain.ids[1:],
        labels=plain.labels[1:],
        options=plain.options[1:],
        chosen={k: v[1:] for k, v in plain.chosen.items()},
    )
    with pytest.raises(InputError, match=r"1 of its ids, as '000', are not predicted in mode lighteval"):
        consistency_report([less, switched], keys, sampling=FEW)


def test_one_language_alone_is_noted_not_compared() -> None:
    task = aligned("arc_easy", "en")
    report = reported(task)
    assert report.tasks == ()
    assert "arc_easy (lighteval, acc): predictions in en alone, so nothing to compare" in report.notes


# --------------------------------------------------------------------------- page
def test_the_page_holds_the_numbers_and_loads_nothing(tmp_path: Path) -> None:
    tasks = [aligned("arc_easy"), aligned("mmlu", "en de")]
    report = reported(*tasks)
    page, pairs = write_consistency(report, tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)
    assert text.count("<figure>") == 2
    assert "do not choose data or models by it" in text
    whole = report.tasks[0].sets[0]
    assert f"{whole.mlc.value:.3f} [{whole.mlc.low:.3f}, {whole.mlc.high:.3f}]" in text
    assert "MLC of shortest" in text
    rows = list(csv.DictReader(pairs.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 3 + 1
    first = report.tasks[0]
    german = next(
        r for r in rows if r["task"] == "arc_easy" and {r["language"], r["other_language"]} == {"de", "en"}
    )
    assert float(german["mlc"]) == pytest.approx(first.pairs.mlc[0, 1])
    assert float(german["null_shortest"]) == 1.0
    again, _ = write_consistency(report, tmp_path / "again.html")
    assert again.read_text(encoding="utf-8") == text.replace("page.csv", "again.csv")


def test_names_of_the_users_cannot_become_markup(tmp_path: Path) -> None:
    task = aligned("arc_easy")
    found = answered(task, 0.5, name="<script>alert(1)</script>")
    report = consistency_report([found], {("arc_easy", "lighteval"): task}, sampling=FEW)
    text = write_consistency(report, tmp_path / "page.html")[0].read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
