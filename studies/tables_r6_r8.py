"""R6 to R8: what a study wrote -> the lines of its tables in docs/reproduction.md."""

from collections.abc import Sequence

import numpy as np
from cells import Result, difference, number, spread, table, transfer_rows
from numpy.typing import NDArray
from shared import mean_interval

_LARGEST_CHANGES = 6


def r6_targets(result: Result) -> list[str]:
    facts = result["targets"]
    rows = [
        [task, f"{facts['rows']['learn'][task]:,}", f"{facts['rows']['judge'][task]:,}",
         f"{facts['judging_rows_left_out'][task]:,}"]
        for task in facts["rows"]["learn"]
    ]  # fmt: skip
    seen = [[name, f"{count:,}", f"{facts['in_the_pool'][name]:,}"] for name, count in facts["texts"].items()]
    return [
        *table(["target", "rows that steer", "rows that judge", "left out: like a row that steers"],
               rows), "",
        f"Answers that may be targets: {facts['answers_free']:,}, to {facts['questions_free']:,} questions. "
        f"Saved proxies that were measured again: {result['scored_again']}.", "",
        *table(["texts", "looked for in the corpus", "share 13 words in a row with it"], seen),
    ]  # fmt: skip


def r6_families(result: Result) -> list[str]:
    """Return a row per selection with its loss on both families, and the difference of the two θ*."""
    families = result["families"]
    losses = {name: {m["label"]: m for m in f["losses"]} for name, f in families.items()}
    labels = list(dict.fromkeys(label for own in losses.values() for label in own))
    rows = [[label, *(spread(own.get(label)) for own in losses.values())] for label in labels]
    pair = [difference(f["difference"]) for f in families.values()]
    return [
        f"{result['size']} models, {result['tokens']:,} tokens, {result['seeds']} seeds; bits per byte, "
        "tasks of a family weighted alike in units of their spread.", "",
        *table(["selection", *losses], [*rows, ["theta-answers minus theta-benchmarks", *pair]]),
    ]  # fmt: skip


def r6_contrasts(result: Result) -> list[str]:
    """Return differences of selections, by seed, on both families and on the benchmarks without BoolQ."""
    own = {
        t["task"]: {m["label"]: np.asarray(m["values"], float) for m in t["losses"]} for t in result["tasks"]
    }
    weights = {name: dict(f["objective"]) for name, f in result["families"].items()}
    if rest := {task: w for task, w in weights["benchmarks"].items() if task != "boolq"}:
        weights["benchmarks without boolq"] = rest

    def loss(family: str, label: str) -> NDArray[np.float64]:
        total = sum(weights[family].values())
        return np.sum([w / total * own[task][label] for task, w in weights[family].items()], axis=0)

    pairs = [("theta-answers", "theta-benchmarks"), ("quadmix", "theta-benchmarks"),
             *((label, "random") for label in ("theta-answers", "theta-benchmarks", "quadmix"))]  # fmt: skip
    cells = [
        [f"{a} minus {b}", *(difference(mean_interval(loss(f, a) - loss(f, b)), key="mean") for f in weights)]
        for a, b in pairs
        if all({a, b} <= set(losses) for losses in own.values())
    ]
    note = (
        "`quadmix` is the run's own θ*, searched on BoolQ in three batches and confirmed; 95 % intervals by "
        "Student's t, paired by seed."
    )
    return [note, "", *table(["selections", *weights], cells)]


def r6_tasks(result: Result) -> list[str]:
    """Return predicted and measured difference of the two θ* per task, with the surrogate's own quality."""
    own = {r["target"]: r for f in result["surrogates"].values() for r in f if r["surrogate"] != "paper"}
    rows = [
        [t["task"], spread(own.get(t["task"]), ".2f", "spearman"), f"{t['predicted']:+.4f}",
         difference(t["measured"]), _sign(t)]
        for t in result["tasks"]
    ]  # fmt: skip
    head = ["task", "surrogate's Spearman, out of fold", "predicted", "measured [95 %]", "same sign"]
    return [
        "θ* of the answers minus θ* of the benchmarks, bits per byte:", "", *table(head, rows), "",
        f"Signs that agree: {result['signs_that_agree']} of {len(rows)}; of the {result['decided']} measured "
        f"differences beyond their interval: {result['decided_that_agree']}.",
    ]  # fmt: skip


def _sign(task: Result) -> str:
    return ("yes" if task["same_sign"] else "no") + ("" if task["decided"] else ", not decided")


def r6_search(result: Result) -> list[str]:
    """Return what the two searches propose: mean weights of the criteria, the domains that differ most."""
    weights, shares = result["weights"], result["shares"]
    families = list(weights)
    rows = [
        [f"weight of {name}", *(number(weights[f][i], ".2f") for f in families)]
        for i, name in enumerate(result["criteria"])
    ]
    one, other = (shares[f] for f in families)
    apart = sorted(one, key=lambda d: -abs(one[d] - other[d]))[:_LARGEST_CHANGES]
    rows += [[f"share of {d}", *(f"{100 * shares[f][d]:.1f} %" for f in families)] for d in apart]
    note = (
        f"Weights are means over domains; of the shares the {len(apart)} that differ most. Proposals, "
        "which have no intervals."
    )
    return [note, "", *table(["what θ* selects", *families], rows)]


def r7_sizes(result: Result) -> list[str]:
    facts = f"{result['tokens']:,} tokens for every model; {_seeds(result['rungs'])}."
    return [facts, "", *transfer_rows(result["sizes"])]


def _seeds(rungs: Sequence[Result]) -> str:
    return "seeds: " + ", ".join(f"{r['name']} {r['seeds']}" for r in rungs)


def r7_rates(result: Result) -> list[str]:
    return transfer_rows(result["rates"])


def r7_rungs(result: Result) -> list[str]:
    """Return a row per rung: what its selections span, and θ* against the two simplest rivals."""
    rows: list[list[str]] = []
    for rung in result["rungs"]:
        means = [m["mean"] for m in rung["measured"]]
        against = {p["control"]: p for p in rung["against"]}
        rows.append(
            [rung["name"], f"{rung['parameters']:,}", f"{rung['learning_rate']:g}", str(rung["seeds"]),
             f"{min(means):.4f} to {max(means):.4f}", number(rung["detectable"]),
             difference(against.get("prior-mean")), difference(against.get("random"))]
        )  # fmt: skip
    return table(["rung", "parameters", "peak learning rate", "seeds", "means, bits per byte", "detectable",
                  "θ* minus prior-mean", "θ* minus random"], rows)  # fmt: skip


def r8_prior(result: Result) -> list[str]:
    prior = result["prior"]
    pair, readings = prior["linear_minus_log"], ("log", "linear")
    rows = [
        [
            r,
            spread(prior["spread"][r], key="sd"),
            *(_curves(prior[k][r]) for k in ("curves", "curves_after_the_fit")),
        ]
        for r in readings
    ]
    return [
        f"{_facts(result)}, {prior['pairs']} pairs.", "",
        *table(["λ̃", "spread of the loss over θ (sd)", "flat / steps / mean height, as drawn",
                "the same, fitted to the budget"], rows), "",
        f"Linear minus log, bits per byte: {difference(pair, key='mean')} ({pair['n']} pairs). Ratio of the "
        f"spreads: {spread(prior['spread_ratio'], '.2f', 'ratio')}. Selected tokens in other domains: "
        f"{spread(_percent(prior['share_moved']), '.1f')} %.",
    ]  # fmt: skip


def _facts(result: Result) -> str:
    model = result["model"]
    return (f"Models of {model['layers']} layers, width {model['width']}, {result['tokens']:,} tokens; "
            f"{result['domains']} domains; seed {result['seed']}")  # fmt: skip


def _curves(facts: Result) -> str:
    return f"{100 * facts['flat']:.0f} % / {100 * facts['step']:.0f} % / {facts['mean_height']:.2f}"


def _percent(row: Result) -> Result:
    return {k: None if row[k] is None else 100 * row[k] for k in ("mean", "low", "high")}


def r8_rank(result: Result) -> list[str]:
    rows = [
        [mode, str(m["fitted"]), spread(m["spread"], key="sd"), difference(m["minus_interval"], key="mean"),
         spread(_percent(m["share_moved"]), ".1f"), spread(m["budget_met_without_a_fit"], ".2f")]
        for mode, m in result["rank"]["modes"].items()
    ]  # fmt: skip
    head = ["ranks", "θ fitted", "spread over θ (sd)", "minus interval", "% of the tokens in other domains",
            "budget met with the fit of `interval`"]  # fmt: skip
    return [f"{_facts(result)}, {result['rank']['thetas']} θ, bits per byte.", "", *table(head, rows)]


def r8_rounded(result: Result) -> list[str]:
    rounded = result["rank"]["rounded"]
    rows = [
        [r["mode"], f"{r['cutoff']:g}", f"{100 * r['vanished']:.0f} %", f"{100 * r['relative_error']:.0f} %"]
        for r in rounded["rows"]
    ]
    levels = rounded["rows"][0]
    facts = (f"Criterion `{rounded['criterion']}` rounded to whole numbers: {levels['levels']} levels, "
             f"{levels['domains']} domains. No training, no random numbers, hence no intervals.")  # fmt: skip
    return [
        facts,
        "",
        *table(["ranks", "ω", "domains that vanish", "selected share of a domain, error"], rows),
    ]


def r8_percentile(result: Result) -> list[str]:
    part = result["percentile"]
    rows = [
        [f"{arm} per domain", difference(m["minus_exact"], key="mean"),
         spread(m["minus_exact"].get("spread_of_differences"), key="sd"),
         number(m["spearman_with_exact"], ".2f"), spread(_percent(m["share_moved"]), ".1f"),
         spread(_percent(m["selected"]), ".1f")]
        for arm, m in sorted(part["arms"].items(), key=lambda a: (int(a[0].split()[0]), a[0]))
    ]  # fmt: skip
    head = ["reference documents", "minus exact", "sd of the differences", "Spearman with exact",
            "% of the tokens in other domains", "tokens selected, % of exact"]  # fmt: skip
    frozen = [f"{size} documents {difference(own, key='mean')}" for size, own in part["frozen"].items()]
    facts = (
        f"{_facts(result)}, {part['thetas']} θ, bits per byte; spread over θ (sd) "
        f"{spread(part['spread'], key='sd')}."
    )
    over = f"Frozen minus exact, intervals over the references instead of over θ: {', '.join(frozen)}."
    return [facts, "", *table(head, rows), "", over]


def r8_selected(result: Result) -> list[str]:
    kinds = ("relative_error", "median_error", "total_error")
    rows = [
        [str(r["documents"]), str(r["domains"]),
         *([_per_cent(r["bias"]), *(f"{100 * r[k]:.1f} %" for k in kinds)] if r["domains"] else ["–"] * 4)]
        for r in result["percentile"]["selected"]
    ]  # fmt: skip
    return table(["reference documents per domain", "domains that are larger", "bias of a domain's tokens",
                  "error of a domain (rms)", "median error", "error of the total (rms)"], rows)  # fmt: skip


def _per_cent(row: Result) -> str:
    return difference(_percent(row), "+.1f", "mean") + " %"


def r8_noise(result: Result) -> list[str]:
    noise = result["noise"]
    rows = [[f"new {name} alone, prior mean", spread(sd, key="sd")] for name, sd in noise["alone"].items()]
    rows += [
        ["all new, prior mean", spread(noise["of_the_first"], key="sd")],
        [f"all new, {noise['thetas']} θ pooled", spread(noise["all"], key="sd")],
        ["the same without what a seed does to all θ alike", spread(noise["common"], key="sd")],
        ["spread of the means of the θ", number(noise["spread_of_means"])],
    ]
    return [
        f"{_facts(result)}, {noise['repeats']} models each.", "",
        *table(["random numbers", "sd of the loss, bits per byte [95 %]"], rows), "",
        "Without common random numbers a comparison would need "
        f"{number(noise['times'], '.1f')} [{number(noise['times_low'], '.1f')}, "
        f"{number(noise['times_high'], '.1f')}] times the seeds.",
    ]  # fmt: skip
