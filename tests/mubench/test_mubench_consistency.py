"""Consistency of choices: the fast form against plain loops, and values that can be worked out by hand."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.evaluate.mubench.consistency import agreement, pairs, with_others
from quadmix.evaluate.mubench.items import AlignedTask, Item, Predictions
from quadmix.evaluate.mubench.measure import Sampling, measure
from quadmix.evaluate.mubench.nulls import accuracy_null, entropy, items_of, settled, text_nulls

FEW = Sampling(draws=200)


def int16(values: object) -> NDArray[np.int16]:
    return np.asarray(values, dtype=np.int16)


@st.composite
def tables(draw: st.DrawFn) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]:
    """Choices of 2 to 6 languages on 1 to 12 items of 2 to 5 options, -1 among them; labels; options."""
    languages, count = draw(st.integers(2, 6)), draw(st.integers(1, 12))
    options = draw(st.lists(st.integers(2, 5), min_size=count, max_size=count))
    labels = [draw(st.integers(0, k - 1)) for k in options]
    chosen = [[draw(st.integers(-1, k - 1)) for k in options] for _ in range(languages)]
    return int16(chosen), int16(labels), int16(options)


@settings(max_examples=150, deadline=None)
@given(tables())
def test_the_fast_form_is_the_mean_over_all_pairs(
    table: tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]],
) -> None:
    chosen, labels, options = table
    every, items = list(combinations(range(len(chosen)), 2)), range(len(labels))
    agree = {(a, b): [chosen[a, i] == chosen[b, i] != -1 for i in items] for a, b in every}
    right = {(a, b): [chosen[a, i] == chosen[b, i] == labels[i] for i in items] for a, b in every}
    whole, both = agreement(chosen, labels, options)
    np.testing.assert_allclose(whole, np.mean([agree[p] for p in every], axis=0), atol=1e-12)
    np.testing.assert_allclose(both, np.mean([right[p] for p in every], axis=0), atol=1e-12)
    found = pairs(chosen, labels, options)
    for a, b in every:
        assert found.mlc[a, b] == found.mlc[b, a] == pytest.approx(np.mean(agree[a, b]))
        assert found.both_right[a, b] == pytest.approx(np.mean(right[a, b]))
    members = np.arange(len(chosen))
    assert found.mean(found.mlc, members) == pytest.approx(whole.mean())
    shared = with_others(chosen, options)
    for a in members:
        others = [agree[min(a, b), max(a, b)] for b in members if b != a]
        np.testing.assert_allclose(shared[a], np.mean(others, axis=0), atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(tables())
def test_chance_agreement_deals_answers_out_inside_each_number_of_options(
    table: tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]],
) -> None:
    """The mean over all pairings of an item of a with an item of b that has as many options."""
    chosen, labels, options = table
    found = pairs(chosen, labels, options)
    for a, b in combinations(range(len(chosen)), 2):
        total = 0.0
        for i in range(len(labels)):
            like = [j for j in range(len(labels)) if options[j] == options[i]]
            total += float(np.mean([chosen[a, i] == chosen[b, j] != -1 for j in like]))
        assert found.chance[a, b] == pytest.approx(total / len(labels))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (4, {0.4: 0.28, 0.6: 0.41, 0.8: 0.65, 0.95: 0.90}),
        (2, {0.4: 0.52, 0.6: 0.52, 0.8: 0.68, 0.95: 0.91}),
        (10, {0.4: 0.20, 0.6: 0.38, 0.8: 0.64, 0.95: 0.90}),
    ],
)
def test_agreement_of_two_independent_models_of_one_accuracy(
    options: int, expected: dict[float, float]
) -> None:
    """Values measured by the authors of the specification; high accuracy alone gives high agreement."""
    labels = int16(np.arange(400) % options)
    for accuracy, value in expected.items():
        wrong = np.arange(400) >= round(accuracy * 400)
        chosen = int16(np.where(wrong, (labels + 1) % options, labels))
        found = pairs(np.stack([chosen, chosen]), labels, np.full(400, options, dtype=np.int16))
        assert round(float(found.by_accuracy[0, 1]), 2) == pytest.approx(value, abs=0.0051)


def test_independent_models_agree_as_their_accuracies_say_and_no_more() -> None:
    """A simulation of what by_accuracy stands for: corrected agreement of independent guessers is 0."""
    rng = np.random.default_rng(1)
    items, options = 40_000, rng.integers(2, 7, size=40_000)
    labels = int16(rng.integers(options))
    chosen = []
    for accuracy in (0.7, 0.5):
        other = (labels + 1 + rng.integers(options - 1)) % options
        chosen.append(np.where(rng.random(items) < accuracy, labels, other))
    found = pairs(int16(chosen), labels, int16(options))
    assert abs(found.beyond_accuracy[0, 1]) < 0.02
    assert found.mlc[0, 1] > 0.4


def test_a_constant_answer_has_perfect_agreement_and_no_kappa() -> None:
    """MLC 1 with accuracy at chance: the trap in its plainest form."""
    labels = int16(np.arange(60) % 3)
    found = pairs(np.zeros((2, 60), dtype=np.int16), labels, np.full(60, 3, dtype=np.int16))
    assert found.mlc[0, 1] == 1.0
    assert found.accuracy[0] == pytest.approx(1 / 3)
    assert np.isnan(found.kappa[0, 1])


def test_transfer_is_of_the_weaker_language() -> None:
    labels = int16([0, 0, 0, 0])
    chosen = int16([[0, 0, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1]])
    found = pairs(chosen, labels, np.full(4, 2, dtype=np.int16))
    assert found.transfer[0, 1] == 0.5  # both right on one item, the weaker one right on two
    assert np.isnan(found.transfer[0, 2])  # nothing known, nothing to carry over


# --------------------------------------------------------------------------- nulls
def task(languages: dict[str, list[list[str]]], labels: list[int], mode: str = "lighteval") -> AlignedTask:
    items = {
        language: tuple(
            Item(id=f"q{n}", prompt="?", choices=tuple(c), label=label)
            for n, (c, label) in enumerate(zip(choices, labels, strict=True))
        )
        for language, choices in languages.items()
    }
    return AlignedTask(task="bmlama", mode=mode, ids=tuple(f"q{n}" for n in range(len(labels))), items=items)


def test_length_is_of_bytes_and_the_first_of_equal_ones_counts() -> None:
    own = task({"en": [["aaaa", "bb", "cc"]], "zh": [["水水", "aaa", "火"]]}, [0])
    shortest, longest = text_nulls(own)
    assert (shortest.estimator, longest.estimator) == ("shortest", "longest")
    assert (shortest.chosen["en"].tolist(), longest.chosen["en"].tolist()) == ([1], [0])
    assert (shortest.chosen["zh"].tolist(), longest.chosen["zh"].tolist()) == ([1], [0])  # 6, 3 and 3 bytes


def test_for_letters_the_texts_in_the_prompt_count() -> None:
    item = Item(id="q0", prompt="Q\nA: long one\nB: no\nAnswer:", choices=("A", "B"), label=0)
    own = AlignedTask(task="mmlu", mode="local_template", ids=("q0",), items={"en": (item,)})
    assert text_nulls(own)[0].chosen["en"].tolist() == [1]


def test_a_choice_with_the_text_of_the_right_one_counts_as_right() -> None:
    own = task({"en": [["a", "b", "c"]] * 3, "nl": [["Ja", "ja ", "nee"]] * 3}, [1, 1, 1])
    found = Predictions(
        task="bmlama",
        mode="lighteval",
        estimator="acc",
        ids=own.ids,
        labels=int16([1] * 3),
        options=int16([3] * 3),
        chosen={"en": int16([0, 1, 2]), "nl": int16([0, 2, -1])},
    )
    done, changed = settled(own, found)
    assert done.chosen["en"].tolist() == [0, 1, 2]
    assert done.chosen["nl"].tolist() == [1, 2, -1]
    assert changed == {"en": 0, "nl": 1}
    assert found.chosen["nl"].tolist() == [0, 2, -1]


def test_items_are_found_by_id_and_other_data_are_refused() -> None:
    own = task({"en": [["a", "b"], ["c", "d", "e"], ["f", "g"]]}, [0, 2, 1])
    kinds = {"task": "bmlama", "mode": "lighteval", "estimator": "acc"}
    found = Predictions(
        **kinds, ids=("q2", "q1"), chosen={"en": int16([0, 0])}, labels=int16([1, 2]), options=int16([2, 3])
    )
    assert [i.id for i in items_of(own, found).items["en"]] == ["q2", "q1"]
    wrong = Predictions(
        **kinds, ids=("q2",), chosen={"en": int16([0])}, labels=int16([0]), options=int16([2])
    )
    with pytest.raises(
        InputError, match=r"id 'q2': predicted with label 0 of 2 options, the data say 1 of 2"
    ):
        items_of(own, wrong)
    lost = Predictions(**kinds, ids=("x",), chosen={"en": int16([0])}, labels=int16([0]), options=int16([2]))
    with pytest.raises(InputError, match=r"1 predicted ids are not among the 3 of the data, as 'x'"):
        items_of(own, lost)
    other = Predictions(
        **kinds, ids=("q2",), chosen={"de": int16([0])}, labels=int16([1]), options=int16([2])
    )
    with pytest.raises(InputError, match="predicted in 'de', which the data lack"):
        items_of(own, other)


def test_what_stands_beside_an_accuracy() -> None:
    chosen, labels = int16([0, 0, 1, -1]), int16([0, 1, 1, 0])
    dealt = np.mean([[c == y for y in labels] for c in chosen])
    assert accuracy_null(chosen, labels) == pytest.approx(dealt)
    assert entropy(int16([0, 1, 2, 3])) == pytest.approx(2.0)
    assert entropy(int16([1, 1, -1])) == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": int16([0, 3])}, r"id 'b': label 3 is outside its 2 options"),
        ({"options": int16([2, 1]), "labels": int16([0, 0])}, r"id 'b': 1 options, expected two or more"),
        ({"chosen": {"en": int16([0, 2])}}, r"en, id 'b': choice 2 is outside -1 \(no answer\) to 1"),
        ({"chosen": {"en": int16([0, -2])}}, "choice -2"),
        ({"chosen": {"en": int16([0])}}, r"\(1,\) choices, expected \(2,\)"),
        ({"ids": ("a", "a")}, "an id is there twice"),
        ({"labels": int16([0])}, r"labels \(1,\) and options \(2,\)"),
    ],
)
def test_predictions_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    whole: dict[str, object] = {
        "task": "mmlu", "mode": "lighteval", "estimator": "acc", "ids": ("a", "b"),
        "chosen": {"en": int16([0, 1])}, "labels": int16([0, 1]), "options": int16([2, 2]),
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        Predictions(**{**whole, **change})  # pyright: ignore[reportArgumentType]


# --------------------------------------------------------------------------- one task, measured
def predicted(
    chosen: NDArray[np.int16], labels: NDArray[np.int16], name: str, options: int = 4
) -> Predictions:
    languages = [f"l{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(len(chosen))]
    return Predictions(
        task="mmlu", mode="lighteval", estimator=name, ids=tuple(f"q{i}" for i in range(len(labels))),
        chosen=dict(zip(languages, chosen, strict=True)), labels=labels,
        options=np.full(len(labels), options, np.int16),
    )  # fmt: skip


def world(
    rng: np.random.Generator, languages: int, items: int
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Choices that follow one common choice per item in six of ten cases; labels."""
    common = rng.integers(4, size=items)
    shape = (languages, items)
    chosen = np.where(rng.random(shape) < 0.6, common, rng.integers(4, size=shape))
    return int16(chosen), int16(rng.integers(4, size=items))


def test_the_split_adds_up_and_sets_are_means_of_their_pairs() -> None:
    chosen, labels = world(np.random.default_rng(0), 5, 300)
    null = predicted(np.zeros_like(chosen), labels, "shortest")
    found = measure(
        predicted(chosen, labels, "acc"),
        [null],
        anchor="lab",
        groups={"two": ["laa", "lad"], "one": ["laa"]},
        sampling=FEW,
    ).result
    assert [s.name for s in found.sets] == ["all", "two"]
    whole, two = found.sets
    for s in found.sets:
        assert s.both_right.value + s.same_wrong.value == pytest.approx(s.mlc.value)
        assert s.rel == pytest.approx(s.mlc.value / s.accuracy.value)
        assert s.nulls == {"shortest": 1.0}
        assert s.over_null.value == pytest.approx(s.mlc.value - 1)
    assert two.mlc.value == pytest.approx(np.mean(chosen[0] == chosen[3]))
    upper = np.triu_indices(5, 1)
    assert whole.mlc.value == pytest.approx(found.pairs.mlc[upper].mean())
    assert whole.kappa == pytest.approx((whole.mlc.value - whole.chance) / (1 - whole.chance))
    own = found.by_language[2]
    assert own.mlc.value == pytest.approx(np.mean([np.mean(chosen[2] == chosen[o]) for o in (0, 1, 3, 4)]))
    assert own.anchor is not None
    assert own.anchor.value == pytest.approx(np.mean(chosen[2] == chosen[1]))
    assert own.anchor_right == pytest.approx(np.mean((chosen[2] == labels) & (chosen[1] == labels)))
    assert found.by_language[1].anchor is None
    assert own.chance == 0.25


def test_intervals_are_of_items_with_all_their_languages_together() -> None:
    """The spread over 200 fresh draws of the items is that of the interval; pairs taken as independent would
    give a much shorter one."""
    rng, values, widths = np.random.default_rng(5), [], []
    for _ in range(200):
        chosen, labels = world(rng, 20, 150)
        values.append(float(agreement(chosen, labels, np.full(150, 4, np.int16))[0].mean()))
        if len(values) % 20 == 0:
            null = predicted(np.zeros_like(chosen), labels, "shortest")
            mlc = (
                measure(predicted(chosen, labels, "acc"), [null], anchor=None, groups={}, sampling=FEW)
                .result.sets[0]
                .mlc
            )
            widths.append((mlc.high - mlc.low) / (2 * 1.96))
    spread = float(np.std(values, ddof=1))
    assert np.mean(widths) == pytest.approx(spread, rel=0.15)
    naive = np.sqrt(0.45 * 0.55 / (150 * 190))
    assert spread > 2 * naive


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(8), 0
    truth = 0.36 + 0.64 * 0.25  # both follow the common choice, or one or both fell on it by chance
    for _ in range(120):
        chosen, labels = world(rng, 6, 120)
        null = predicted(np.zeros_like(chosen), labels, "shortest")
        mlc = (
            measure(predicted(chosen, labels, "acc"), [null], anchor=None, groups={}, sampling=FEW)
            .result.sets[0]
            .mlc
        )
        held += mlc.low <= truth <= mlc.high
    assert 107 <= held <= 120  # 95 % of 120 is 114, ± 3 standard errors


def test_the_same_seed_gives_the_same_interval_and_one_item_gives_none() -> None:
    chosen, labels = world(np.random.default_rng(2), 4, 40)
    null = predicted(np.zeros_like(chosen), labels, "shortest")

    def bounds(seed: int) -> tuple[float, float]:
        sampling = Sampling(draws=200, seed=seed)
        mlc = (
            measure(predicted(chosen, labels, "acc"), [null], anchor=None, groups={}, sampling=sampling)
            .result.sets[0]
            .mlc
        )
        return mlc.low, mlc.high

    assert bounds(1) == bounds(1) != bounds(2)
    one, tiny = predicted(chosen[:, :1], labels[:1], "acc"), predicted(chosen[:, :1], labels[:1], "shortest")
    assert np.isnan(measure(one, [tiny], anchor=None, groups={}, sampling=FEW).result.sets[0].mlc.low)


def test_nothing_is_measured_without_a_null_or_on_other_items() -> None:
    chosen, labels = world(np.random.default_rng(2), 3, 20)
    found = predicted(chosen, labels, "acc")
    with pytest.raises(InputError, match="no content-free predictor beside it"):
        measure(found, [], anchor=None, groups={}, sampling=FEW)
    with pytest.raises(InputError, match="null 'shortest' lacks language 'lac'"):
        measure(found, [predicted(chosen[:2], labels, "shortest")], anchor=None, groups={}, sampling=FEW)
    with pytest.raises(InputError, match="null 'shortest' lacks id 'q19'"):
        measure(
            found, [predicted(chosen[:, :19], labels[:19], "shortest")], anchor=None, groups={}, sampling=FEW
        )
    with pytest.raises(InputError, match="1 language; expected two or more"):
        measure(predicted(chosen[:1], labels, "acc"), [], anchor=None, groups={}, sampling=FEW)


def test_nulls_are_matched_by_id() -> None:
    chosen, labels = world(np.random.default_rng(3), 3, 30)
    null = predicted(chosen, labels, "shortest")
    turned = Predictions(
        task="mmlu", mode="lighteval", estimator="shortest", ids=null.ids[::-1], labels=labels[::-1],
        options=null.options, chosen={language: own[::-1] for language, own in null.chosen.items()},
    )  # fmt: skip
    found = predicted(chosen, labels, "acc")
    measured = measure(found, [turned], anchor=None, groups={}, sampling=FEW).result
    np.testing.assert_allclose(measured.pairs.nulls["shortest"], measured.pairs.mlc)
