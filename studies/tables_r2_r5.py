"""R2 to R5: what a study wrote -> the lines of its tables in docs/reproduction.md."""

from collections.abc import Mapping, Sequence

import numpy as np
from cells import Result, difference, number, spread, table, transfer_rows
from numpy.typing import NDArray
from shared import mean_interval

_ALPHA = 0.05


def r2_grid(result: Result, measure: str, form: str) -> list[str]:
    """Return a row per surrogate and features, a column per number of trials."""
    rows = {(r["surrogate"], r["features"], r["trials"]): r for r in result["rows"]}
    methods = dict.fromkeys((s, f) for s, f, _ in rows)
    sizes = sorted({size for _, _, size in rows})
    cells = [[*m, *(spread(rows.get((*m, s), {}).get(measure), form) for s in sizes)] for m in methods]
    return table(["surrogate", "learns from", *(f"{s} trials" for s in sizes)], cells)


def r2_spearman(result: Result) -> list[str]:
    facts = (
        f"Rank correlation of predicted and measured loss. {result['thetas']} θ ({result['failed']} models "
        f"failed), {result['held_out']} of them held out; {result['domains']} domains, {result['criteria']} "
        f"criteria; models of {result['parameters']:,} parameters and {result['tokens']:,} tokens; seed "
        f"{result['seed']}. Means over random subsets of each size, 95 % bootstrap intervals over the "
        "held-out θ; –: refuses so few trials."
    )
    return [facts, "", *r2_grid(result, "spearman", ".2f")]


def r2_error(result: Result) -> list[str]:
    guess = number(result["mae_of_the_mean"])
    facts = f"Mean absolute error, bits per byte. Predicting the mean of the trials for every θ: {guess}."
    return [facts, "", *r2_grid(result, "mae", ".4f")]


def r2_regret(result: Result) -> list[str]:
    most = max(r["trials"] for r in result["rows"])
    rows = [
        [r["surrogate"], r["features"], spread(r["regret_at_1"]), spread(r["regret_at_5"])]
        for r in result["rows"] if r["trials"] == most and "cannot" not in r
    ]  # fmt: skip
    facts = (
        "Least measured loss of the k θ predicted best, minus the least of all "
        f"{result['held_out']}, bits per byte."
    )
    return [facts, "", *table([f"surrogate, {most} trials", "learns from", "k = 1", "k = 5"], rows)]


def r2_noise(result: Result) -> list[str]:
    noise = result["noise"]
    repeats, again = noise["repeats"], noise["trained_again"]
    rows = [
        ["spread over θ (sd)", number(noise["spread"]), "–"],
        [f"noise of one model (sd): {repeats['freedom'] + 1} repeats of the prior mean, all drawn anew",
         spread(repeats, key="sd"), number(repeats["ceiling"], ".2f")],
        [f"noise of one model (sd): {again['pairs']} held-out θ trained again, effect of the seed taken off",
         number(again["noise"]), number(again["ceiling"], ".2f")],
    ]  # fmt: skip
    return [
        *table(["what limits a perfect prediction", "bits per byte", "ceiling of the correlation"], rows),
        "",
        f"Both trainings of the held-out θ: Spearman {number(again['spearman'], '.2f')}.",
    ]


def r3_main(result: Result) -> list[str]:
    comparison, confirmed = result["comparison"], result["confirmation"]
    facts = [
        f"The confirmation's winner is {confirmed['winner']}. {confirmed['reason']}",
        "",
        f"Every selector worked on {100 * comparison['pool_share']:.0f} % of the pool's tokens. Proxies "
        f"trained for it: {_listed(comparison['proxies'])}. Documents of the pool that share 13 words in a "
        f"row with a set: {_listed(comparison['overlaps'])}.",
    ]
    rungs = [line for rung in comparison["rungs"] for line in r3_rung(rung, comparison["chosen"])]
    return [*facts, *rungs]


def r3_likeness(result: Result) -> list[str]:
    """Return the main table of the run whose criteria know the target, with θ*'s mean weight of each."""
    largest = sorted(result["weights"].items(), key=lambda w: -w[1])
    weights = ", ".join(f"{name} {value:.2f}" for name, value in largest)
    return [*r3_main(result), "", f"θ*'s weights, mean over the domains: {weights}."]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "none"


def r3_rung(rung: Result, chosen: str) -> list[str]:
    """Return caption, table, verdict and what could be seen, of one rung."""
    own = next((m["mean"] for m in rung["measured"] if m["label"] == chosen), None)
    against = {p["control"]: p for p in rung["against"]}
    rows = [
        [m["label"], f"{m['unique_tokens']:,}", spread(m), difference(pair := against.get(m["label"])),
         _percent(pair, own)]
        for m in sorted(rung["measured"], key=lambda m: m["mean"])
    ]  # fmt: skip
    head = [
        "selector",
        "unique tokens",
        "bits per byte [95 %]",
        "θ* minus it [95 %]",
        "upper end, % of θ*'s loss",
    ]
    notes = [*rung["flags"], *(f"left out: {name}: {why}" for name, why in rung["left_out"].items())]
    return [
        "", f"**{rung['name']}**: {rung['parameters']:,} parameters, {rung['train_tokens']:,} training "
        f"tokens, {rung['seeds']} seeds, peak learning rate {rung['learning_rate']:g}", "",
        *table(head, rows), "",
        rung["verdict"], "",
        f"Detectable in four comparisons of five: {number(rung['detectable'])} bits per byte; said "
        f"before training: at least {number(rung['promised'])}.",
        *([""] if notes else []), *(f"- {note}" for note in notes),
    ]  # fmt: skip


def _percent(pair: Result | None, loss: float | None) -> str:
    return "–" if pair is None or pair["high"] is None or not loss else f"{100 * pair['high'] / loss:+.2f}"


def r3_benchmarks(result: Result) -> list[str]:
    """Return per rung the macro averages over the benchmarks, beside chance, and θ* minus each selector."""
    lines: list[str] = []
    for rung in result["comparison"]["rungs"]:
        scores, pairs = _tasks(rung["scores"], "label"), _tasks(rung["differences"], "control")
        labels = [m["label"] for m in sorted(rung["measured"], key=lambda m: m["mean"])]
        keys = [("macro", "acc_norm"), ("macro", "bits_per_byte")]
        rows = [
            [label, *(cell for key in keys for cell in (spread(scores.get((*key, label))),
                                                        difference(pairs.get((*key, label)))))]
            for label in labels
        ]  # fmt: skip
        some = next((s for k, s in scores.items() if k[:2] == keys[0]), {"chance": None, "items": 0})
        lines += [
            "", f"**{rung['name']}**, mean of the benchmarks, {some['items']:,} items with choices, "
            f"{rung['seeds']} seeds. Accuracy by length-normalised likelihood: positive differences are "
            "better. Bits per byte of the right answers: negative ones are.", "",
            *table(["selector", f"accuracy (chance {number(some['chance'])})", "θ* minus it", "bits per byte",
                    "θ* minus it"], rows),
        ]  # fmt: skip
    return lines[1:]


def r3_heldout(result: Result) -> list[str]:
    """Return per rung the loss on held-out documents of the pool, and the benchmarks item by item."""
    lines: list[str] = []
    for rung in result["comparison"]["rungs"]:
        scores, pairs = _heldout(rung["scores"], "label"), _heldout(rung["differences"], "control")
        micro = _tasks(rung["differences"], "control")
        rows = [
            [m["label"], spread(scores.get(m["label"])), difference(pairs.get(m["label"])),
             difference(micro.get(("micro", "bits_per_byte", m["label"])))]
            for m in sorted(rung["measured"], key=lambda m: m["mean"])
        ]  # fmt: skip
        head = ["selector", "held-out documents, mean of the domains", "θ* minus it",
                "benchmarks' right answers, mean of the items: θ* minus it"]  # fmt: skip
        lines += ["", f"**{rung['name']}**, bits per byte, {rung['seeds']} seeds", "", *table(head, rows)]
    return lines[1:]


def _heldout(rows: Sequence[Result], by: str) -> dict[str, Result]:
    return {r[by]: r for r in rows if r["kind"] == "heldout" and r["task"] == "macro"}


def _tasks(rows: Sequence[Result], by: str) -> dict[tuple[str, str, str], Result]:
    return {(r["task"], r["metric"], r[by]): r for r in rows if r["kind"] == "benchmark"}


def r3_tasks(result: Result, control: str = "random") -> list[str]:
    """Return per rung θ* and θ* minus random on every benchmark; bold is what survives Holm's correction."""
    lines: list[str] = []
    for rung in result["comparison"]["rungs"]:
        scores, pairs = _tasks(rung["scores"], "label"), _tasks(rung["differences"], "control")
        chosen = result["comparison"]["chosen"]
        rows: list[list[str]] = []
        for task, metric, label in scores:
            if label == chosen and task not in ("macro", "micro"):
                own, pair = scores[task, metric, label], pairs.get((task, metric, control))
                holm = None if pair is None else pair["p_holm"]
                cell = difference(pair, bold=holm is not None and holm < _ALPHA)
                row = [task, metric, f"{own['items']:,}", number(own["chance"], ".3f"), spread(own), cell]
                rows.append([*row, "< 0.001" if holm is not None and holm < 0.001 else number(holm, ".3f")])
        head = ["benchmark", "metric", "items", "chance", "θ*", f"θ* minus {control}", "p (Holm)"]
        lines += ["", f"**{rung['name']}**, {rung['seeds']} seeds", "", *table(head, rows)]
    return lines[1:]


def r3_transfer(result: Result) -> list[str]:
    found = result["comparison"]["transfers"]
    return transfer_rows(found) if found else ["One rung: there is no second ranking to hold it against."]


_OTHERS = {"quadmix": "all, full search"}


def r4_criteria(result: Result) -> list[str]:
    every = "+".join(result["criteria"])
    rows = [
        [row["label"], str(len(row["criteria"]) or _OTHERS.get(row["label"], "top cut")),
         number(row["predicted"]), number(row["as_proxy"]), spread(row), difference(row["minus_all"]),
         f"{row['unique_tokens']:,}"]
        for row in result["rows"]
    ]  # fmt: skip
    against = [[p["label"], difference(p)] for p in result["singles_minus_all"]]
    agree = [f"{r['from']} and {r['to']} {number(r['spearman'], '.2f')}" for r in result["rank_correlations"]]
    return [
        f"{result['size']} models, {result['tokens']:,} tokens, {result['seeds']} seeds; {result['draws']:,} "
        f"draws per subset, mean of the best {result['top']}, surrogates of {result['trials']} trials.", "",
        *table(["criteria", "how many", "predicted", "as proxies", "measured [95 %]", f"it minus {every}",
                "unique tokens"], rows), "",
        f"Each criterion alone minus {every}; the intervals hold for all of them together:", "",
        *table(["criterion", "it minus all"], against), "",
        f"Best criterion alone: {result['best_single'] or '–'}. Rank correlations over the "
        f"{result['rank_correlations'][0]['subsets']} subsets: {', '.join(agree)} (as proxies: "
        f"{result['proxy_seeds']} seeds of the run's own size and tokens).",
    ]  # fmt: skip


def r4_count(result: Result) -> list[str]:
    rows = [
        [str(r["criteria"]), str(r["subsets"]), spread(r), difference(r["minus_one"], key="mean")]
        for r in result["by_count"]
    ]
    return table(["criteria", "subsets", "mean loss [95 %]", "minus one criterion, paired by seed"], rows)


def _mean(row: Result) -> str:
    return spread(mean_interval(np.array(row["values"])) if row["values"] else None)


def _r5(result: Result, match: str) -> list[str]:
    rows = {r["label"]: r for r in result["rows"] if r["match"] == match}
    cells: list[list[str]] = []
    for label, star in rows.items():
        if label.startswith("θ* "):
            other = rows["random" + label.removeprefix("θ*")]
            own = [_mean(star), _mean(other)]
            if match == "tokens":
                own = [own[0], difference(star.get("minus_x1")), own[1], difference(other.get("minus_x1"))]
            cutoff = f"{number(star['cutoff_mean'], '.3f')} ({star['cutoffs_at_one'] or 0})"
            cells.append(
                [label.removeprefix("θ* "), f"{star['selected_tokens']:,.0f}", f"{star['train_tokens']:,}",
                 number(star["epochs"], ".2f"), cutoff, *own, difference(star["minus_random"])]
            )  # fmt: skip
    head = ["factor", "selected", "trained on", "epochs", "mean ω (domains at 1)"]
    head += ["θ*", "θ* minus ×1", "random", "random minus ×1"] if match == "tokens" else ["θ*", "random"]
    note = (
        f"1M models, {result['seeds']} seeds, bits per byte. 95 % intervals by Student's t over seeds; "
        "those of differences are paired by seed."
    )
    return [note, "", *table([*head, "θ* minus random"], cells)]


def r5_fixed_tokens(result: Result) -> list[str]:
    return _r5(result, "tokens")


def r5_fixed_epochs(result: Result) -> list[str]:
    return _r5(result, "epochs")


def r5_contrasts(result: Result) -> list[str]:
    """Return, for every two factors, θ* minus θ* and lead minus lead (θ* minus random), paired by seed."""
    values = {(r["match"], r["label"]): np.asarray(r["values"], float) for r in result["rows"]}
    short = {label.split(" ")[1] for (_, label), own in values.items() if len(own) < result["seeds"]}
    factors = [f for f in dict.fromkeys(label.split(" ")[1] for _, label in values) if f not in short]
    cells: list[list[str]] = []
    for i, one in enumerate(factors):
        for other in factors[i + 1 :]:
            row = [f"{one} minus {other}", _contrast([values["tokens", f"θ* {f}"] for f in (one, other)])]
            for match in ("tokens", "epochs"):
                lead = [values[match, f"θ* {f}"] - values[match, f"random {f}"] for f in (one, other)]
                row.append(_contrast(lead))
            cells.append(row)
    head = ["factors", "θ*, fixed tokens", "θ* minus random, fixed tokens", "θ* minus random, fixed epochs"]
    note = (
        f"Differences of two factors, {result['seeds']} seeds, bits per byte; 95 % intervals by Student's t, "
        "paired by seed, not corrected for their number; factors of which a model failed are left out. Leads "
        "are negative: a negative difference is the larger lead."
    )
    return [note, "", *table(head, cells)]


def _contrast(pair: Sequence[NDArray[np.float64]]) -> str:
    first, second = pair
    return difference(mean_interval(first - second), key="mean")
