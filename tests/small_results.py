"""Small results of all studies, made by the studies' own functions where these are pure."""

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
for folder in ("studies", "tests/search", "tests/mixing"):
    sys.path.insert(0, str(ROOT / folder))

import common  # noqa: E402
import r2_surrogate as r2  # noqa: E402
import r4_criteria as r4  # noqa: E402
import r5_tokens as r5  # noqa: E402
import r6_targets as r6  # noqa: E402
import r8_ablations as r8  # noqa: E402
import shared  # noqa: E402
from mixing_tables import make_table, random_table  # noqa: E402
from search_world import make_trial  # noqa: E402

from quadmix.codec import to_json  # noqa: E402
from quadmix.evaluate.rungs import build_rung  # noqa: E402
from quadmix.evaluate.tasks import TaskValues  # noqa: E402
from quadmix.evaluate.transfer import transfer  # noqa: E402
from quadmix.mixing.prior import Prior, draw_theta, prior_mean  # noqa: E402
from quadmix.search.diagnostics import OBJECTIVE  # noqa: E402
from quadmix.search.table import SHARE, FeatureTable  # noqa: E402
from quadmix.types import (  # noqa: E402
    Comparison,
    Confirmation,
    Objective,
    Proposal,
    SurrogateReport,
)

ONE = Objective(weights={"t": 1.0})


def trials_of(means, seeds=4, target="t"):
    """Trials of label -> loss; seeds shift all labels alike, and a little each."""
    return [
        make_trial(
            f"{label}-{s}", {target: loss + 0.02 * s + 0.001 * ((i + s) % 3)}, label=label, seed=1000 + s
        )
        for s in range(seeds)
        for i, (label, loss) in enumerate(means.items())
    ]


def rung_of(name, means, tasks=()):
    return build_rung(
        trials_of(means), list(tasks), ONE, name=name, parameters=1_000_000, train_tokens=2000,
        learning_rate=0.02, promised=0.03, left_out={"dsir": "it reached 10 of 20 tokens"}, seed=0,
    )  # fmt: skip


def benchmark(task, metric, rates):
    """40 items of 4 seeds, right at the rate of each label."""
    right = (
        np.random.default_rng(0).random((len(rates), 4, 40)) < np.array(list(rates.values()))[:, None, None]
    )
    return TaskValues(
        task=task, kind="benchmark", metric=metric, labels=tuple(rates), seeds=(1000, 1001, 1002, 1003),
        values=right.astype(float), weights=np.ones(40), chance=0.25 if metric == "acc_norm" else None,
    )  # fmt: skip


def r2_result():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.dirichlet(np.ones(3), 60), rng.random((60, 1))], axis=1)
    table = FeatureTable(
        values=values, names=tuple("abcd"), types=(SHARE,) * 3 + ("raw.weight.c",), domains=(0, 1, 2, 0)
    )
    losses = {"t": 2.0 + values[:, 0]}
    methods = [r2.Method(kind=k, features="realised") for k in ("ridge", "svr-linear")]
    found = r2.compare(table, losses, ONE, np.arange(60) < 20, [8, 30], 2, 0, methods)
    held, loss = [0, 1, 2, 3], losses["t"]
    trials = [make_trial(f"prior-{i:04d}", {"t": loss[i]}) for i in held]
    trials += [make_trial(f"again-{i:04d}", {"t": loss[i] + 0.01 * (i % 2)}, label="again") for i in held]
    trials += [make_trial(f"repeat-{i}", {"t": 2.3 + 0.01 * i}, kind="repeat") for i in range(3)]
    noise = r2._noise({t.trial_id: t for t in trials}, held, ONE, loss)
    return {
        "parameters": 300_000, "tokens": 2000, "thetas": 60, "failed": 0, "held_out": 20, "seed": 0,
        "domains": 3, "criteria": 1, "noise": noise, **found,
    }  # fmt: skip


def r3_result():
    means = {"quadmix": 2.0, "random": 2.1, "top:edu": 2.0005}
    rates = {"quadmix": 0.9, "random": 0.3, "top:edu": 0.88}
    tasks = [
        benchmark("arc", "acc_norm", rates),
        benchmark("arc", "bits_per_byte", rates),
        benchmark("csqa", "acc_norm", dict.fromkeys(rates, 0.25)),
    ]
    rungs = (rung_of("1M", means, tasks), rung_of("5M", {k: m - 0.1 for k, m in means.items()}, tasks))
    comparison = to_json(
        Comparison(
            chosen="quadmix", measured=rungs[0].measured, against=rungs[0].against, predicted={},
            model_parameters=1_000_000, train_tokens=2000, target_weights={"t": 1.0}, verdict="",
            pool_share=0.12,
            proxies={"quadmix": 80}, rungs=rungs, transfers=(transfer(*rungs),), overlaps={"t": 3},
        )
    )  # fmt: skip
    for rung in comparison["rungs"]:
        rung["scores"] = [{k: v for k, v in s.items() if k != "values"} for s in rung["scores"]]
    confirmation = to_json(
        Confirmation(
            winner="theta-star", theta=prior_mean(Prior(num_domains=2, num_criteria=1)), confirmed=True,
            reason="better than prior-mean", measured=(), against=(),
        )
    )  # fmt: skip
    confirmation.pop("theta")
    return {"seconds_of_this_call": 1, "comparison": comparison, "confirmation": confirmation}


def r4_result():
    losses = {"a": 1.0, "b": 1.2, "a+b": 0.9, "top:a": 1.05, "quadmix": 0.85}
    thetas = dict.fromkeys(("a", "b", "a+b"), prior_mean(Prior(num_domains=2, num_criteria=2)))
    promised = {"a": 1.0, "b": 1.1, "a+b": 0.8}
    return {
        "size": "1M", "tokens": 2000, "seeds": 4, "draws": 300, "top": 10, "trials": 64,
        "criteria": ("a", "b"), "proxy_seeds": 3,
        **r4.summary(trials_of(losses), ONE, ("a", "b"), promised, thetas, {"a": 2.0, "b": 1.8, "a+b": 2.1}),
    }  # fmt: skip


def r5_result():
    means = {"θ* x1": 2.0, "random x1": 2.1, "θ* x2": 2.05, "random x2": 2.06}
    theta = prior_mean(Prior(num_domains=2, num_criteria=2))
    thetas = {label: theta if label.startswith("θ*") else None for label in means}
    trials = trials_of(means)
    rows = [row for match in ("tokens", "epochs") for row in r5.rows(match, trials, "t", thetas)]
    return {"seeds": 4, "rows": rows}


def report_of(target, surrogate):
    return SurrogateReport(
        target=target, surrogate=surrogate, spearman=0.7, spearman_low=0.5, spearman_high=0.8, rmse=0.1,
        r2=0.5,
        regret_at_1=0.0, pairwise_accuracy=0.8, interval_coverage=0.9, noise_sd=0.01, spread_sd=0.1,
        parity=(),
    )  # fmt: skip


def r6_result():
    losses = {"theta-benchmarks": (1.0, 2.0), "theta-answers": (1.1, 1.9), "random": (1.3, 2.3)}
    trials = [
        make_trial(f"{label}-{s}", {"boolq": q + 0.02 * s + 0.001 * ((i + s) % 3), "answers": a + 0.02 * s},
                   label=label, seed=s)
        for s in range(4)
        for i, (label, (q, a)) in enumerate(losses.items())
    ]  # fmt: skip
    objectives = {
        "benchmarks": Objective(weights={"boolq": 1.0}),
        "answers": Objective(weights={"answers": 1.0}),
    }
    families = {"benchmarks": "boolq", "answers": "answers"}
    proposals = {
        family: Proposal(
            candidates=(), objective=objectives[family], trials_used=9, trials_excluded={}, noise_sd=0.01,
            spread_sd=0.1, diagnostics=tuple(report_of(t, s) for t in (task, OBJECTIVE) for s in ("auto",
            "paper")),
        )
        for family, task in families.items()
    }  # fmt: skip
    return {
        "size": "1M", "tokens": 2000, "seeds": 4, "scored_again": 64, "criteria": ["a", "b"],
        "targets": {
            "rows": {"learn": {"boolq": 500, "answers": 500}, "judge": {"boolq": 400, "answers": 300}},
            "judging_rows_left_out": {"boolq": 100, "answers": 0},
            "texts": {"answers": 4461, "boolq, train": 500},
            "in_the_pool": {"answers": 3384, "boolq, train": 2},
            "answers_free": 1077, "questions_free": 600,
        },
        "shares": {"benchmarks": {"web": 0.6, "news": 0.4}, "answers": {"web": 0.5, "news": 0.5}},
        "weights": {"benchmarks": [0.3, 0.7], "answers": [0.8, 0.2]},
        "surrogates": {f: r6.surrogate_rows(p) for f, p in proposals.items()},
        **r6.verdicts(trials, objectives, {"boolq": [1.2, 1.1], "answers": [1.9, 1.8]}),
    }  # fmt: skip


def r7_result():
    means = {"quadmix": 2.0, "random": 2.1, "prior-mean": 2.05}
    one, five = rung_of("1M", means), rung_of("5M", {k: m - 0.1 for k, m in means.items()})
    return {
        "tokens": 2000,
        "rungs": [one, five],
        "sizes": [transfer(one, five)],
        "rates": [transfer(five, one)],
    }


def r8_result():
    losses = np.random.default_rng(0).normal(2.0, 0.1, (4, 8))
    base, other = losses[0], losses[0] + np.linspace(0.01, 0.02, 8)
    curves = r8.curve_facts(draw_theta(np.random.default_rng(0), Prior(num_domains=3, num_criteria=2), 20))
    table = make_table([10, 10, 10, 10], [0, 0, 1, 1], [1, 2, 3, 4])
    copies = [np.array(c, np.int32) for c in ([1, 1, 0, 0], [1, 0, 1, 0])]
    moved = shared.moved_share(table, copies, copies[::-1])
    whole = random_table(5, documents=300, domains=3)
    mode = {
        "fitted": 8, "spread": shared.sd_interval(base), "minus_interval": shared.paired_facts(other, base),
        "share_moved": moved, "budget_met_without_a_fit": shared.mean_interval(base),
    }  # fmt: skip
    arm = {
        "minus_exact": shared.paired_facts(other, base),
        "spearman_with_exact": 1.0,
        "share_moved": moved,
        "selected": shared.mean_interval(np.array([0.9, 1.0, 1.1])),
    }
    selected = {
        "documents": 50, "domains": 3, "bias": shared.mean_interval(np.array([0.1, -0.1, 0.2])),
        "relative_error": 0.1, "median_error": 0.08, "total_error": 0.02,
    }  # fmt: skip
    return {
        "tokens": 2000, "seed": 0, "domains": 3, "model": common.ModelSection(layers=2,
        width=64).model_dump(),
        "prior": {
            "pairs": 8, "linear_minus_log": shared.paired_facts(other, base),
            "spread": dict.fromkeys(("log", "linear"), shared.sd_interval(base)),
            "spread_ratio": shared.ratio_of_spreads(other, base),
            "curves": {"log": curves, "linear": curves}, "curves_after_the_fit": {"log": curves,
            "linear": curves},
            "share_moved": moved,
        },
        "rank": {"thetas": 8, "modes": {"interval": mode, "paper": mode},
                 "rounded": {"criterion": "edu", "rows": r8.rounded_facts(whole, whole.scores[:, 0])}},
        "percentile": {"thetas": 8, "spread": shared.sd_interval(base), "arms": {"385 own": arm},
                       "frozen": {"385": shared.mean_interval(np.array([0.1, 0.2, 0.3]))}, "budget": 1000.0,
                       "selected": [selected, {"documents": 2000, "domains": 0}]},
        "noise": {"repeats": 8, "thetas": 4, "alone": {"init": shared.sd_interval(base)},
                  **shared.common_numbers(losses)},
    }  # fmt: skip


MADE = {
    "r2_surrogate": r2_result, "r3_main": r3_result,
    "r3_likeness": lambda: {**r3_result(), "weights": {"rules": 0.25, "likeness": 0.75}},
    "r4_criteria": r4_result, "r5_tokens": r5_result,
    "r6_targets": r6_result, "r7_transfer": r7_result, "r8_ablations": r8_result,
}  # fmt: skip
