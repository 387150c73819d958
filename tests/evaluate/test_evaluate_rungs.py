"""A rung: differences of the chosen one, what it can show, and flags with numbers."""

import time

import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from quadmix.errors import SearchError
from quadmix.evaluate.rungs import _objectives, _pair, build_rung
from quadmix.evaluate.tasks import TaskValues, resampled
from quadmix.search.confirm import measure
from quadmix.types import Loss, Objective, Trial, from_json, to_json
from quadmix.types.comparing import Rung

OBJECTIVE = Objective(weights={"x": 0.25, "y": 0.75})
SEEDS = (1000, 1001, 1002, 1003)


def trial(label, seed, value, **changes):
    """A model whose objective is `value`."""
    losses = {
        t: Loss(bits_per_byte=value + shift, stderr=0.01, rows=9, tokens=9, bytes=9)
        for t, shift in (("x", -0.3), ("y", 0.1))
    }
    return Trial(**{
        "trial_id": f"{label}-{seed}", "kind": "compare", "label": label, "theta": None, "seed": seed,
        "selected_tokens": 1000, "unique_tokens": 900, "train_tokens": 5000, "epochs": 5.0, "losses": losses,
        "heldout": {}, "status": "done", **changes,
    })  # fmt: skip


def failed(label, seed, reason="loss is not finite"):
    return trial(label, seed, 0.0, losses={}, status="failed", reason=reason)


def trials_of(means, *, sd=0.002, seeds=SEEDS, **changes):
    """Trials of label -> mean; seeds shift all labels alike; changes: label -> fields of its trials."""
    rng = np.random.default_rng(0)
    shift = 0.1 * rng.normal(size=len(seeds))
    return [
        trial(label, seed, mean + shift[i] + sd * rng.normal(), **changes.get(label, {}))
        for label, mean in means.items()
        for i, seed in enumerate(seeds)
    ]


def build(trials, tasks=(), objective=OBJECTIVE, **changes):
    return build_rung(trials, list(tasks), objective, **{
        "name": "5M", "parameters": 5_000_000, "train_tokens": 5000, "learning_rate": 0.01, "budget": 1.0,
        "match": "tokens", "promised": 0.03, "left_out": {}, "seed": 0, **changes,
    })  # fmt: skip


def benchmark(rate, *, name="arc", chance=0.25, kind="benchmark"):
    rng = np.random.default_rng(5)
    return TaskValues(
        task=name, kind=kind, metric="acc", labels=("quadmix", "random"), seeds=SEEDS, chance=chance,
        values=(rng.random((2, len(SEEDS), 200)) < rate).astype(float), weights=np.ones(200),
    )  # fmt: skip


def objectives(trials, *labels):
    """The objective (L, S) of trials of all seeds."""
    by = {
        (x.label, x.seed): 0.25 * x.losses["x"].bits_per_byte + 0.75 * x.losses["y"].bits_per_byte
        for x in trials
    }
    return np.array([[by[label, s] for s in SEEDS] for label in labels])


def rows(values, name, *, labels=("quadmix", "random"), items=80, item_sd=1.0, seed=0):
    """A target of items of 10 bytes whose losses are `values` (L, S); items are harder or easier for all, and
    each label has easy and hard ones of its own."""
    rng = np.random.default_rng(seed)
    shared, own = rng.normal(size=items), item_sd * rng.normal(size=(len(values), 1, items))
    own -= own.mean(axis=2, keepdims=True)
    return TaskValues(
        task=name, kind="target", metric="bits_per_byte", labels=labels, seeds=SEEDS[: values.shape[1]],
        values=10 * values[:, :, None] + own + shared - shared.mean(), weights=np.full(items, 10.0),
    )  # fmt: skip


def scored(trials, *, labels=("quadmix", "random"), **changes):
    """Both targets of trials of these labels, whose means over items are the trials' losses."""
    by = {(x.label, x.seed): x.losses for x in trials}
    seeds = sorted({x.seed for x in trials})
    tables = {
        n: np.array([[by[label, s][n].bits_per_byte for s in seeds] for label in labels]) for n in ("x", "y")
    }
    return [rows(table, n, labels=labels, seed=i, **changes) for i, (n, table) in enumerate(tables.items())]


def test_differences_are_chosen_minus_baseline_each_with_the_t_interval_of_its_own_seeds():
    trials = trials_of({"random": 1.1, "quadmix": 1.0, "top": 0.9})
    found = build(trials)
    values = objectives(trials, "random", "quadmix", "top")
    assert [(p.label, p.control) for p in found.against] == [("quadmix", "random"), ("quadmix", "top")]
    tests = [ttest_rel(values[1], values[other]) for other in (0, 2)]
    for pair, test in zip(found.against, tests, strict=True):
        ends = test.confidence_interval(0.95)
        assert (pair.low, pair.high) == pytest.approx((ends.low, ends.high))
        assert pair.stderr == pytest.approx(pair.difference / test.statistic)
    errors = [p.stderr for p in found.against]
    assert found.detectable == pytest.approx((t.ppf(0.975, 3) + t.ppf(0.8, 3)) * np.median(errors))
    assert "is worse than top" in found.verdict
    assert "beats random" in found.verdict
    assert found.flags == ()


def test_with_rows_of_every_target_items_enter_the_intervals_of_the_objective():
    trials = trials_of({"quadmix": 1.0, "random": 1.01})
    seeds, both = build(trials), build(trials, scored(trials))
    assert both.against[0].difference == pytest.approx(seeds.against[0].difference)
    assert [m.mean for m in both.measured] == [m.mean for m in seeds.measured]
    weights = np.array([0.25, 0.75])
    items = [np.diff(task.values.mean(axis=1), axis=0)[0] / 10 for task in scored(trials)]
    error = np.sqrt((weights**2 * [own.var(ddof=1) / 80 for own in items]).sum())
    assert both.against[0].stderr == pytest.approx(np.hypot(seeds.against[0].stderr, error), rel=0.05)
    for wide, narrow in zip((*both.measured, *both.against), (*seeds.measured, *seeds.against), strict=True):
        assert wide.high - wide.low > narrow.high - narrow.low
    assert both.flags == ()


def test_with_one_target_the_objective_and_the_target_say_the_same():
    trials = trials_of({"quadmix": 1.0, "random": 1.002})
    found = build(trials, scored(trials)[:1], Objective(weights={"x": 1.0}))
    (own,) = [d for d in found.differences if d.task == "x"]
    (pair,) = found.against
    assert (pair.difference, pair.low, pair.high, pair.pairs) == (
        own.difference,
        own.low,
        own.high,
        own.seeds,
    )


@pytest.mark.parametrize("items", [0, 60])
@pytest.mark.parametrize("noisy", ["random", "quadmix"])
def test_a_label_of_three_times_the_noise_has_honest_intervals_and_takes_none_from_the_others(items, noisy):
    """Five seeds, one variance for all pairs: of 95 % intervals 74 % held against the noisy label."""
    labels, worlds = ("quadmix", "random", "top", "dsir"), 300
    rng, seeds = np.random.default_rng(items), (0, 1, 2, 3, 4)
    inside = {label: 0 for label in labels[1:]}
    for world in range(worlds):
        noise = 0.01 * rng.normal(size=(4, 5)) * np.where(np.array(labels) == noisy, 3, 1)[:, None]
        shift = 0.1 * rng.normal(size=5)
        tasks, losses = [], {}
        for name in ("x", "y") if items else ():
            own = (
                0.1 * rng.normal(size=(4, 1, items)) + rng.normal(size=items) + rng.normal(size=(4, 5, items))
            )
            values = 10 * (1 + shift + noise)[:, :, None] + own
            tasks.append(TaskValues(
                task=name, kind="target", metric="bits_per_byte", labels=labels, seeds=seeds, values=values,
                weights=np.full(items, 10.0),
            ))  # fmt: skip
            losses[name] = values.mean(axis=2) / 10
        plain = {"x": 1 + shift + noise, "y": 1 + shift + noise}
        trials = [
            trial(label, s, 0.0, losses={
                n: Loss(bits_per_byte=float(v[i, s]), stderr=0.0, rows=9, tokens=9, bytes=9)
                for n, v in (losses or plain).items()
            })
            for i, label in enumerate(labels) for s in seeds
        ]  # fmt: skip
        measured = measure(trials, OBJECTIVE)
        table, _ = _objectives(resampled(tasks, seed=world, draws=200), OBJECTIVE, measured)
        for label in inside:
            pair = _pair(table, "quadmix", label, 0.95)
            inside[label] += pair.low <= 0 <= pair.high
    assert all(0.91 <= held / worlds <= 0.985 for held in inside.values())


def test_a_rung_holds_what_it_was_given_and_survives_the_disk():
    found = build(
        trials_of({"quadmix": 1.0, "random": 1.1}), [benchmark(0.6)], budget=2.0, match="epochs",
        left_out={"dsir": "cannot reach the budget"},
    )  # fmt: skip
    assert (found.name, found.parameters, found.train_tokens, found.learning_rate) == (
        "5M",
        5_000_000,
        5000,
        0.01,
    )
    assert (found.budget, found.match, found.promised, found.seeds) == (2.0, "epochs", 0.03, 4)
    assert found.left_out == {"dsir": "cannot reach the budget"}
    assert {s.task for s in found.scores} == {d.task for d in found.differences} == {"arc", "macro", "micro"}
    assert from_json(Rung, to_json(found)) == found


def test_worst_is_reckoned_from_the_control_of_these_models():
    worst = Objective(weights={"x": 0.5, "y": 0.5}, how="worst", levels={"x": 99.0, "y": 0.0})
    found = build(trials_of({"quadmix": 1.0, "prior-mean": 1.1}, sd=0.0), objective=worst)
    assert found.against[0].difference == pytest.approx(-0.1)


def test_worst_of_resampled_items_is_reckoned_from_the_levels_of_the_same_items():
    """Items that are hard for all labels alike move the levels with the losses: they are no noise."""
    worst = Objective(weights={"x": 0.5, "y": 0.5}, how="worst", levels={"x": 99.0, "y": 0.0})
    labels = ("quadmix", "prior-mean")
    trials = trials_of(dict(zip(labels, (1.0, 1.1), strict=True)))
    tasks = scored(trials, labels=labels, item_sd=0.0)
    plain, found = build(trials, objective=worst), build(trials, tasks, objective=worst)
    assert found.against[0].difference == pytest.approx(plain.against[0].difference)
    assert (found.against[0].low, found.against[0].high) == pytest.approx(
        (plain.against[0].low, plain.against[0].high), rel=1e-6
    )
    assert found.measured[0].low < plain.measured[0].low


def test_without_the_control_it_is_said_from_what_levels_the_objective_is_reckoned():
    trials = trials_of({"quadmix": 1.0, "random": 1.1})
    worst = Objective(weights={"x": 0.5, "y": 0.5}, how="worst", levels={"x": 0.7, "y": 1.1})
    (flag,) = build(trials, objective=worst).flags
    assert flag.startswith('no model of prior-mean finished, so "worst" is reckoned from the mean losses')
    assert "(x 0.7000, y 1.1000)" in flag
    bound = Objective(weights=OBJECTIVE.weights, ceilings={"x": 1.25}, relative=("x",))
    (flag,) = build(trials, objective=bound).flags
    assert flag.startswith("no model of prior-mean finished, so ceilings that are its losses")
    assert "(x 1.2500)" in flag
    trials += trials_of({"prior-mean": 1.1})
    assert build(trials, objective=worst).flags == build(trials, objective=bound).flags == ()


def test_a_label_that_mostly_failed_takes_no_seed_from_the_others():
    trials = trials_of({"quadmix": 1.0, "random": 1.1})
    trials += [trial("top", 1000, 1.0), *(failed("top", s) for s in SEEDS[1:])]
    found = build(trials)
    by = {p.control: p for p in found.against}
    assert (by["random"].pairs, by["top"].pairs) == (4, 1)
    assert np.isnan([by["top"].low, by["top"].high, by["top"].stderr]).all()
    assert "cannot be judged against top" in found.verdict
    assert found.flags == ("top finished 1 of 4 seeds; the difference to it is over 1 and has no interval",)


def test_labels_without_a_common_seed_are_not_compared():
    trials = [trial("quadmix", 1000, 1.0), failed("quadmix", 1001), trial("top", 1001, 1.0)]
    (pair,) = build(trials).against
    assert pair.pairs == 0
    assert np.isnan([pair.difference, pair.low, pair.high]).all()


def test_a_label_that_lacks_a_seed_is_flagged_and_costs_no_other_its_seed():
    trials = trials_of({"quadmix": 1.0, "random": 1.1, "top": 1.2})
    trials[-1] = failed("top", 1003)
    found = build(trials)
    assert [p.pairs for p in found.against] == [4, 3]
    expected = objectives([*trials[:-1], trial("top", 1003, 0.0)], "quadmix", "top")[:, :3]
    assert found.against[1].difference == pytest.approx(expected[0].mean() - expected[1].mean())
    assert found.against[0] == build(trials[:8]).against[0]
    assert found.flags == ("top finished 3 of 4 seeds; the difference to it is over 3",)
    chosen = build([failed("quadmix", 1000), *trials[1:8]])
    assert chosen.flags == ("quadmix finished 3 of 4 seeds, so no difference is over more",)


def test_targets_without_rows_of_every_model_leave_intervals_over_seeds_and_say_so():
    trials = trials_of({"quadmix": 1.0, "random": 1.1})
    whole = scored(trials)
    single = [whole[0], rows(objectives(trials, "quadmix", "random"), "y", items=1, item_sd=0.0)]
    for tasks, flags in ((whole[:1], 1), (single, 2)):
        found = build(trials, tasks)
        assert found.against == build(trials).against
        assert len(found.flags) == flags
        assert found.flags[0].endswith("not every model has two or more scored items of y")
    assert found.flags[1] == "one item only, so no interval and no part in averages: target y"


def test_a_label_that_failed_altogether_is_left_out_with_its_reason():
    trials = trials_of({"quadmix": 1.0, "random": 1.1}) + [failed("top", s) for s in SEEDS]
    found = build(trials)
    assert found.left_out == {"top": "loss is not finite"}
    assert [m.label for m in found.measured] == ["quadmix", "random"]
    assert found.flags == ()


def test_a_chosen_one_that_failed_is_said_and_not_judged():
    trials = trials_of({"random": 1.1, "top": 1.0}) + [failed("quadmix", s) for s in SEEDS]
    found = build(trials)
    assert found.left_out == {"quadmix": "loss is not finite"}
    assert found.verdict.startswith("θ* did NOT beat every baseline: it cannot be judged against random, top")
    assert np.isnan(found.detectable)


def test_no_baseline_is_said_and_no_model_at_all_is_refused():
    alone = build(trials_of({"quadmix": 1.0}))
    assert (alone.against, alone.verdict) == ((), "quadmix was compared with nothing: no baseline finished")
    with pytest.raises(
        SearchError, match=r"no model of the rung '5M' finished \(quadmix-1000: loss is not finite"
    ):
        build([failed("quadmix", 1000)])


def test_unequal_selected_tokens_are_flagged_beyond_one_percent():
    means = {"quadmix": 1.0, "random": 1.1, "top": 1.2}
    (flag,) = build(trials_of(means, random={"selected_tokens": 1032}, top={"selected_tokens": 1001})).flags
    assert flag.startswith(
        "unequal budgets: selected tokens, copies counted, differ by 3.2 % (least: quadmix with 1,000; most: "
        "random with 1,032)"
    )
    assert build(trials_of(means, random={"selected_tokens": 1010})).flags == ()


def test_unequal_unique_tokens_are_a_note_on_repeats_beyond_two_percent():
    means = {"quadmix": 1.0, "random": 1.1}
    (flag,) = build(trials_of(means, quadmix={"unique_tokens": 450, "epochs": 11.1})).flags
    assert flag.startswith(
        "note on repeats: unique tokens differ by 100.0 % (least: quadmix with 450; most: random"
    )
    assert flag.endswith("passes over the unique tokens 5.00 to 11.10 times")
    assert build(trials_of(means, quadmix={"unique_tokens": 890})).flags == ()


def test_unequal_training_is_flagged_with_its_tokens():
    found = build(trials_of({"quadmix": 1.0, "random": 1.1}, random={"train_tokens": 4000}))
    assert found.flags == ("unequal training: the rung trains on 5,000 tokens, but random 4,000",)


def test_one_seed_is_flagged():
    found = build(trials_of({"quadmix": 1.0, "random": 1.1}, seeds=(1000,)))
    assert found.flags == ("one seed: no interval, nothing is shown",)
    assert np.isnan(found.detectable)


def test_a_benchmark_that_nobody_solves_is_flagged_and_one_without_chance_is_not():
    trials = trials_of({"quadmix": 1.0, "random": 1.1})
    tasks = [benchmark(0.25), benchmark(0.5, name="easy"), benchmark(0.0, name="cloze", chance=None)]
    (flag,) = build(trials, tasks).flags
    assert flag.startswith("benchmark arc: no selector is above chance (0.250; best 0.")
    assert flag.endswith("so it cannot tell them apart at this size")


def test_the_confidence_is_that_of_all_intervals():
    trials = trials_of({"quadmix": 1.0, "random": 1.1})
    tasks = [benchmark(0.5), *scored(trials)]
    narrow, wide = (build(trials, tasks, confidence=c) for c in (0.9, 0.99))
    for part in ("scores", "differences", "measured", "against"):
        pairs = list(zip(getattr(wide, part), getattr(narrow, part), strict=True))
        assert pairs
        assert all(w.low < n.low <= n.high < w.high for w, n in pairs)
    assert wide.detectable > narrow.detectable
    assert (narrow.confidence, wide.confidence) == (0.9, 0.99)
    assert "beyond its 99 % interval" in wide.verdict


def test_a_rung_of_fifteen_labels_and_ten_tasks_takes_a_second():
    labels, seeds = tuple(f"s{i}" for i in range(15)), (0, 1, 2, 3, 4)
    rng = np.random.default_rng(0)
    tasks = [
        TaskValues(
            task=f"t{n}", kind="heldout", metric="bits_per_byte", labels=labels, seeds=seeds,
            values=rng.normal(20, 1, (15, 5, 300)), weights=np.full(300, 10.0),
        )
        for n in range(10)
    ]  # fmt: skip
    trials = [trial(label, s, 1 + 0.01 * rng.normal()) for label in labels for s in seeds]
    start = time.process_time()
    found = build(trials, tasks, chosen="s0")
    assert time.process_time() - start < 4
    assert len(found.differences) == 14 * 12
