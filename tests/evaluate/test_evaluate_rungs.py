"""A rung: differences of the chosen one, what it can show, and flags with numbers."""

import numpy as np
import pytest
from scipy.stats import t

from quadmix.errors import SearchError
from quadmix.evaluate.rungs import build_rung
from quadmix.evaluate.tasks import TaskValues
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


def test_differences_are_chosen_minus_baseline_with_the_block_interval():
    trials = trials_of({"random": 1.1, "quadmix": 1.0, "top": 0.9})
    found = build(trials)
    by = {
        (x.label, x.seed): 0.25 * x.losses["x"].bits_per_byte + 0.75 * x.losses["y"].bits_per_byte
        for x in trials
    }
    values = np.array([[by[label, s] for s in SEEDS] for label in ("random", "quadmix", "top")])
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    error = np.sqrt(2 * (rest**2).sum() / 6 / 4)
    assert [(p.label, p.control) for p in found.against] == [("quadmix", "random"), ("quadmix", "top")]
    difference = values[1].mean() - values[0].mean()
    assert found.against[0].difference == pytest.approx(difference)
    assert found.against[0].high == pytest.approx(difference + t.ppf(0.975, 6) * error)
    assert found.detectable == pytest.approx((t.ppf(0.975, 6) + t.ppf(0.8, 6)) * error)
    assert "is worse than top" in found.verdict
    assert "beats random" in found.verdict
    assert found.flags == ()


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


def test_a_label_that_mostly_failed_takes_no_seed_from_the_others():
    trials = trials_of({"quadmix": 1.0, "random": 1.1})
    trials += [trial("top", 1000, 1.0), *(failed("top", s) for s in SEEDS[1:])]
    found = build(trials)
    by = {p.control: p for p in found.against}
    assert by["random"].pairs == 4
    assert by["top"].pairs == 0
    assert np.isnan([by["top"].difference, by["top"].high]).all()
    assert "cannot be judged against top" in found.verdict
    assert found.flags == ("top finished 1 of 4 seeds and is not compared with the others",)


def test_a_label_that_lacks_a_seed_is_flagged_and_compared_over_the_common_ones():
    trials = trials_of({"quadmix": 1.0, "random": 1.1, "top": 1.2})
    trials[-1] = failed("top", 1003)
    found = build(trials)
    assert [p.pairs for p in found.against] == [3, 3]
    assert found.flags == (
        "top finished 3 of 4 seeds",
        "differences of the objective are over the 3 of 4 seeds that quadmix, random, top all finished",
    )


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
    assert flag.startswith("benchmark arc (acc): no selector is above chance (0.250; best 0.")
    assert flag.endswith("so it cannot tell them apart at this size")


def test_the_confidence_is_that_of_the_tasks():
    trials = trials_of({"quadmix": 1.0, "random": 1.1})
    narrow, wide = (build(trials, [benchmark(0.5)], confidence=c) for c in (0.9, 0.99))
    assert wide.scores[0].low < narrow.scores[0].low
    assert wide.against == narrow.against
