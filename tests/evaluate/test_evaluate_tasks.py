"""Scores and differences per task: signs, pairing, failed seeds, averages, correction."""

import numpy as np
import pytest

from quadmix.errors import RecipeError, ScoreError
from quadmix.evaluate.stats import holm
from quadmix.evaluate.tasks import (
    TaskValues,
    check_task_names,
    task_differences,
    task_scores,
    with_accuracy,
)

SEEDS = (1000, 1001, 1002)


def task(name="arc", values=None, **changes):
    """A benchmark of two labels x three seeds x the items of `values` (L, S, I)."""
    values = np.asarray(values, dtype=float)
    return TaskValues(**{
        "task": name, "kind": "benchmark", "metric": "acc", "labels": ("quadmix", "random"), "seeds": SEEDS,
        "values": values, "weights": np.ones(values.shape[-1]), "chance": 0.25, **changes,
    })  # fmt: skip


def answers(seed, *rates, items=200, seeds=3):
    """0/1 answers (L, S, I): labels of the given hit rates, harder and easier items."""
    rng = np.random.default_rng(seed)
    hard = rng.uniform(-0.2, 0.2, items)
    return np.array([rng.random((seeds, items)) < rate + hard for rate in rates], dtype=float)


def losses(seed, *levels, items=100, seeds=3):
    """Bits (L, S, I) of items of 10 bytes, the same noise of item and seed for all labels."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(1, seeds, 1)) + rng.normal(size=(1, 1, items))
    own = 0.1 * rng.normal(size=(len(levels), seeds, items))
    return 10 * np.array(levels)[:, None, None] + shared + own


def lossy(name, values, **changes):
    """A target of the bits of `values`; items have 10 bytes unless told."""
    weights = np.full(values.shape[-1], 10.0)
    fields = {"kind": "target", "metric": "bits_per_byte", "weights": weights, "chance": None}
    return task(name, values, **{**fields, **changes})


def pick(found, **wanted):
    (one,) = [f for f in found if all(getattr(f, key) == value for key, value in wanted.items())]
    return one


def test_scores_are_means_over_seeds_and_items_with_values_per_seed():
    values = [[[1, 0, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]], [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]]
    found = task_scores([task(values=values)], seed=0)
    ours = pick(found, task="arc", label="quadmix")
    assert ours.values == (0.75, 0.25, 1.0)
    assert ours.mean == pytest.approx(2 / 3)
    assert ours.low < ours.mean < ours.high
    assert (ours.items, ours.chance, ours.kind, ours.metric) == (4, 0.25, "benchmark", "acc")
    assert pick(found, task="arc", label="random").values == (0.0, 0.25, 0.25)


def test_losses_are_bits_over_bytes():
    values = np.array([[[8.0, 8.0]] * 3, [[4.0, 1.0]] * 3])
    found = task_scores([lossy("web", values, weights=np.array([4.0, 12.0]))], seed=0)
    assert pick(found, task="web", label="quadmix").mean == 1.0
    assert pick(found, task="web", label="random").mean == 5 / 16


def test_a_lower_loss_is_better_and_a_higher_accuracy_is_better():
    found = task_differences(
        [lossy("web", losses(0, 1.0, 1.2)), task(values=answers(0, 0.7, 0.4))], "quadmix", seed=0
    )
    loss, accuracy = pick(found, task="web"), pick(found, task="arc")
    assert loss.high < 0
    assert (loss.better, loss.worse) == (True, False)
    assert accuracy.low > 0
    assert (accuracy.better, accuracy.worse) == (True, False)


def test_the_other_way_round_it_is_worse():
    found = task_differences(
        [lossy("web", losses(0, 1.0, 1.2)), task(values=answers(0, 0.7, 0.4))], "random", seed=0
    )
    assert {(f.task, f.control, f.better, f.worse) for f in found if f.task in ("web", "arc")} == {
        ("web", "quadmix", False, True),
        ("arc", "quadmix", False, True),
    }


def test_pairing_takes_out_what_items_and_seeds_share():
    tasks = [lossy("web", losses(1, 1.0, 1.05))]
    difference = pick(task_differences(tasks, "quadmix", seed=0), task="web")
    ours = pick(task_scores(tasks, seed=0), task="web", label="quadmix")
    assert difference.difference == pytest.approx(-0.05, abs=0.005)
    assert difference.high - difference.low < 0.1 * (ours.high - ours.low)
    assert difference.better


def test_a_failed_seed_takes_no_seed_from_others():
    values = answers(3, 0.6, 0.5, 0.4)
    values[1, 2] = np.nan
    found = [task(values=values, labels=("quadmix", "random", "top"))]
    scores = task_scores(found, seed=0)
    assert {s.label: len(s.values) for s in scores if s.task == "arc"} == {
        "quadmix": 3,
        "random": 2,
        "top": 3,
    }
    differences = task_differences(found, "quadmix", seed=0)
    cut = pick(differences, task="arc", control="random")
    assert (cut.seeds, pick(differences, task="arc", control="top").seeds) == (2, 3)
    assert cut.difference == pytest.approx((values[0, :2] - values[1, :2]).mean())
    assert np.isfinite([cut.low, cut.high, cut.p]).all()


def test_a_label_without_a_seed_is_left_out_and_one_common_seed_gives_no_interval():
    values = answers(3, 0.6, 0.5, 0.4)
    values[1] = np.nan
    values[2, 1:] = np.nan
    found = [task(values=values, labels=("quadmix", "random", "top"))]
    assert {s.label for s in task_scores(found, seed=0)} == {"quadmix", "top"}
    (difference,) = [d for d in task_differences(found, "quadmix", seed=0) if d.task == "arc"]
    assert (difference.control, difference.seeds, difference.better, difference.worse) == (
        "top",
        1,
        False,
        False,
    )
    assert np.isfinite(difference.difference)
    assert np.isnan([difference.low, difference.p, difference.p_holm]).all()


def test_the_chosen_one_may_have_failed():
    values = answers(3, 0.6, 0.5)
    values[0] = np.nan
    assert task_differences([task(values=values)], "quadmix", seed=0) == ()


def test_averages_are_per_kind_and_metric():
    small, large = answers(1, 0.9, 0.5, items=50), answers(2, 0.5, 0.5, items=150)
    tasks = [task("a", small), task("b", large, chance=0.5), lossy("web", losses(0, 1.0, 1.1))]
    found = task_scores(tasks, seed=0)
    macro = pick(found, task="macro", metric="acc", label="quadmix")
    micro = pick(found, task="micro", metric="acc", label="quadmix")
    assert macro.mean == pytest.approx((small[0].mean() + large[0].mean()) / 2)
    assert micro.mean == pytest.approx((small[0].sum() + large[0].sum()) / 600)
    assert (macro.chance, micro.chance) == (0.375, pytest.approx(0.4375))
    assert macro.items == micro.items == 200
    alone = pick(found, task="macro", metric="bits_per_byte", label="quadmix")
    assert alone.mean == pytest.approx(pick(found, task="web", label="quadmix").mean)
    assert alone.chance is None


def test_an_average_has_the_models_that_finished_all_its_tasks():
    first, second = answers(1, 0.9, 0.5), answers(2, 0.5, 0.5)
    second[0, 1] = np.nan
    second[1] = np.nan
    found = task_scores([task("a", first), task("b", second)], seed=0)
    macro = [s for s in found if s.task == "macro"]
    assert [s.label for s in macro] == ["quadmix"]
    assert macro[0].values == pytest.approx([(first[0, s].mean() + second[0, s].mean()) / 2 for s in (0, 2)])


def test_holm_is_over_the_tasks_of_one_control_metric_and_kind():
    tasks = [
        task(name, answers(n, 0.55, 0.5, 0.45), labels=("quadmix", "random", "top"))
        for n, name in enumerate("abcd")
    ]
    tasks.append(
        task("e", answers(9, 0.55, 0.5, 0.4), labels=("quadmix", "random", "top"), metric="acc_norm")
    )
    found = task_differences(tasks, "quadmix", seed=0)
    for control in ("random", "top"):
        family = [pick(found, task=name, control=control) for name in "abcd"]
        assert [f.p_holm for f in family] == pytest.approx(holm(np.array([f.p for f in family])))
        assert any(f.p_holm > f.p for f in family)
        for single in (
            pick(found, task="e", control=control),
            pick(found, task="macro", metric="acc", control=control),
        ):
            assert single.p_holm == single.p


def test_two_metrics_of_a_task_see_the_same_resamples():
    values = answers(1, 0.6, 0.5)
    both = task_scores([task(values=values), task(values=values, metric="acc_norm")], seed=0)
    first, second = (pick(both, task="arc", metric=m, label="quadmix") for m in ("acc", "acc_norm"))
    assert (first.low, first.high) == (second.low, second.high)


def test_the_order_of_tasks_changes_no_number():
    tasks = [task("a", answers(1, 0.6, 0.5)), task("b", answers(2, 0.6, 0.5))]
    forward, backward = (task_differences(order, "quadmix", seed=4) for order in (tasks, tasks[::-1]))
    for name in ("a", "b", "macro", "micro"):
        assert pick(forward, task=name) == pick(backward, task=name)


def test_a_wider_confidence_gives_a_wider_interval():
    tasks = [task(values=answers(1, 0.6, 0.5))]
    narrow, wide = (
        pick(task_differences(tasks, "quadmix", confidence=c, seed=0), task="arc") for c in (0.9, 0.99)
    )
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.ones(5)}, r"shape \(2, 3, 4\), expected labels x seeds x items = \(2, 3, 5\)"),
        ({"weights": np.array([1.0, 0.0, 1.0, 1.0])}, "above 0 and finite"),
        ({"labels": ("a", "a")}, "must each be there once"),
        ({"name": "macro"}, "are kept for averages; rename it"),
    ],
)
def test_values_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ScoreError, match=message):
        task(**{"values": np.zeros((2, 3, 4)), **changes})


def test_a_model_with_some_items_missing_is_refused_with_its_name():
    values = np.zeros((2, 3, 4))
    values[1, 2, :3] = np.nan
    with pytest.raises(ScoreError, match="label 'random', seed 1002 has 3 of 4 items without a finite value"):
        task(values=values)


def test_a_task_given_twice_is_refused():
    with pytest.raises(ScoreError, match="task 'arc' of kind benchmark is there twice with acc"):
        task_scores([task(values=answers(1, 0.6, 0.5))] * 2, seed=0)


def test_a_task_of_one_item_is_scored_and_in_no_average():
    tasks = [
        lossy(n, losses(i, 1.0, 1.1, items=k)) for i, (n, k) in enumerate([("a", 50), ("b", 1), ("c", 9)])
    ]
    found = task_scores(tasks, seed=0)
    alone = pick(found, task="b", label="random")
    assert np.isfinite(alone.mean)
    assert np.isnan([alone.low, alone.high]).all()
    for name in ("macro", "micro"):
        average = pick(found, task=name, label="quadmix")
        assert average.low < average.mean < average.high
        assert average.items == 59
    macro = pick(found, task="macro", label="quadmix").mean
    assert macro == pytest.approx(np.mean([pick(found, task=t, label="quadmix").mean for t in "ac"]))


def test_every_benchmark_has_one_accuracy_acc_norm_else_acc_else_greedy():
    values = [answers(n, 0.6, 0.5) for n in range(4)]
    tasks = [
        task("arc", values[0]), task("arc", values[1], metric="acc_norm"),
        task("winogrande", values[2], chance=0.5), task("lambada", values[3], metric="greedy", chance=None),
        lossy("arc", losses(0, 1.0, 1.1), kind="benchmark"), lossy("web", losses(1, 1.0, 1.1)),
    ]  # fmt: skip
    found = with_accuracy(tasks)
    assert found[:6] == tasks
    assert [(t.task, t.metric) for t in found[6:]] == [
        (n, "accuracy") for n in ("arc", "winogrande", "lambada")
    ]
    for own, expected in zip(found[6:], values[1:], strict=True):
        np.testing.assert_array_equal(own.values, expected)


def test_the_mean_accuracy_is_over_all_benchmarks_and_words_are_guessed_never():
    first, second = answers(1, 0.9, 0.5), answers(2, 0.3, 0.2)
    tasks = [task("arc", first, metric="acc_norm"), task("lambada", second, metric="greedy", chance=None)]
    found = task_scores(with_accuracy(tasks), seed=0)
    macro = pick(found, task="macro", metric="accuracy", label="quadmix")
    assert macro.mean == pytest.approx((first[0].mean() + second[0].mean()) / 2)
    assert (macro.chance, macro.items) == (0.125, 400)
    assert pick(found, task="lambada", metric="accuracy", label="quadmix").chance is None
    assert pick(found, task="macro", metric="greedy", label="quadmix").chance is None


def test_names_of_averages_are_refused_before_training():
    check_task_names(["arc", "web"])
    with pytest.raises(RecipeError, match=r"is named 'micro', but macro and micro are kept .* rename it"):
        check_task_names(["arc", "micro"])
