"""A plausible comparison with a ladder of rungs: real types, numbers as a bootstrap would leave them."""

import math

import numpy as np

from quadmix.types import Comparison, Measured, Paired, Rung, TaskDifference, TaskScore, Transfer

GAINS = {  # of θ* over each selector, bits per byte at the first rung
    "quadmix": 0.0, "regmix": 0.003, "prior-mean": 0.009, "top-domain:edu": -0.001, "top:fluency": 0.017,
    "criteria-mix": 0.012, "qurating": 0.006, "dsir": 0.013, "global-cut": 0.008, "upsampling": 0.015,
    "random-mean": 0.021, "random": 0.049,
}  # fmt: skip
TARGETS = ("arc-easy", "openbookqa", "wiki")
CHOICES = {
    "arc-challenge": 0.25, "arc-easy": 0.25, "commonsenseqa": 0.2, "hellaswag": 0.25, "mmlu": 0.25,
    "openbookqa": 0.25, "piqa": 0.5, "winogrande": 0.5,
}  # fmt: skip
FEW = ("quadmix", "regmix", "top-domain:edu", "top:fluency", "random")
SHORT = {name: CHOICES[name] for name in ("arc-challenge", "mmlu", "piqa", "winogrande")}
DOMAINS = ("books", "code", "forum", "science", "web")
RUNGS = (("1M", 1_120_000, 20e6, 3e-3), ("5M", 5_310_000, 60e6, 2e-3), ("20M", 20_900_000, 60e6, 1e-3))
ITEMS = 400


def make_rung(rng: np.random.Generator, place: int, *, seeds: int, labels, choices) -> Rung:
    """A rung with scores and differences as a paired bootstrap would leave them."""
    name, parameters, tokens, rate = RUNGS[place]
    level = 1.62 - 0.17 * place
    shift = {label: rng.normal(0, 0.0015) for label in labels}
    means = {label: level + GAINS[label] * (1 + 0.2 * place) + shift[label] for label in labels}
    measured, scores, differences = [], [], []
    for label in labels:
        values = means[label] + rng.normal(0, 0.003, seeds)
        half = 2.78 * 0.003 / math.sqrt(seeds)
        measured.append(Measured(
            label=label, mean=float(values.mean()), low=float(values.mean() - half),
            high=float(values.mean() + half), values=tuple(values.tolist()),
            losses={t: means[label] for t in TARGETS}, heldout={}, selected_tokens=2_010_000,
            unique_tokens=1_650_000, epochs=10.0,
        ))  # fmt: skip
    for kind, metric, task, base, gain, sd, chance in tasks(place, choices):
        true = {label: base + gain * (means[label] - means["quadmix"]) for label in labels}
        for label in labels:
            values = true[label] + rng.normal(0, sd, seeds)
            mean = float(values.mean())
            scores.append(TaskScore(
                task=task, kind=kind, metric=metric, label=label, mean=mean, low=mean - 2 * sd,
                high=mean + 2 * sd, values=tuple(values.tolist()), items=ITEMS, chance=chance,
            ))  # fmt: skip
        for label in labels:
            if label != "quadmix":
                found = next(s.mean for s in scores if (s.kind, s.metric, s.task, s.label) ==
                             (kind, metric, task, label))  # fmt: skip
                own = next(s.mean for s in scores if (s.kind, s.metric, s.task, s.label) ==
                           (kind, metric, task, "quadmix"))  # fmt: skip
                differences.append(make_difference(kind, metric, task, label, own - found, sd, seeds))
    pairs = tuple(
        Paired(label="quadmix", control=m.label, difference=measured[0].mean - m.mean,
               low=measured[0].mean - m.mean - 0.005, high=measured[0].mean - m.mean + 0.005,
               stderr=0.0018, pairs=seeds) for m in measured[1:]
    )  # fmt: skip
    lost = [p.control for p in pairs if p.high >= 0]
    return Rung(
        name=name, parameters=parameters, train_tokens=int(tokens), learning_rate=rate, budget=1.0,
        match="tokens", seeds=seeds, measured=tuple(measured), against=pairs, detectable=0.0056,
        promised=0.0049, scores=tuple(scores), differences=tuple(differences),
        verdict=f"θ* did NOT beat {', '.join(lost)} (of {len(pairs)} baselines)",
        left_out={"top:heuristic": "reached 1.2 of 2.0 M tokens: too few documents score above its cut"},
        flags=("selected tokens differ by 3.1 % between regmix and quadmix",) if place == 1 else (),
    )  # fmt: skip


def tasks(place: int, choices: dict[str, float]):
    """Return (kind, metric, task, base, factor on the loss difference, sd, chance) of everything scored."""
    out = [("target", "bits_per_byte", t, 1.5 + 0.1 * i, 1.0, 0.003, None) for i, t in
           enumerate((*TARGETS, "macro", "micro"))]  # fmt: skip
    for i, (name, chance) in enumerate((*choices.items(), ("macro", 0.3), ("micro", 0.28))):
        hard = name in ("mmlu", "arc-challenge", "winogrande")
        lift = 0.0 if hard else 0.03 + 0.01 * i
        metrics = ("accuracy", "acc") if name == "winogrande" else ("accuracy", "acc_norm", "acc")
        out += [("benchmark", metric, name, chance + lift + 0.02 * place * (not hard), -1.0, 0.008, chance)
                for metric in metrics]  # fmt: skip
    out += [("benchmark", metric, "lambada", 0.02 + 0.03 * place, -0.2, 0.006, None)
            for metric in ("accuracy", "greedy")]  # fmt: skip
    out += [("benchmark", "bits_per_byte", name, 1.3 + 0.02 * i, 1.2, 0.004, None) for i, name in
            enumerate((*choices, "lambada", "macro", "micro"))]  # fmt: skip
    out += [("heldout", "bits_per_byte", d, 1.7 + 0.05 * i, -0.4, 0.003, None) for i, d in
            enumerate((*DOMAINS, "macro", "micro"))]  # fmt: skip
    return out


def make_difference(kind, metric, task, label, difference, sd, seeds) -> TaskDifference:
    half = 2.2 * sd
    sign = 1 if metric == "bits_per_byte" else -1
    p = math.erfc(abs(difference) / (1.1 * sd) / math.sqrt(2))
    return TaskDifference(
        task=task, kind=kind, metric=metric, control=label, difference=difference, low=difference - half,
        high=difference + half, p=p, p_holm=min(1.0, 9 * p), items=ITEMS, seeds=seeds,
        better=sign * difference < -half, worse=sign * difference > half,
    )  # fmt: skip


def make_transfer(small: Rung, large: Rung) -> Transfer:
    of = {m.label: m.mean for m in small.measured}
    labels = tuple(m.label for m in large.measured)
    return Transfer(
        small=small.name, large=large.name, labels=labels, small_means=tuple(of[m] for m in labels),
        large_means=tuple(m.mean for m in large.measured), spearman=0.87, low=0.66, high=0.95, ceiling=0.93,
        decision_accuracy=0.94, decided=47, all_pairs=0.86,
    )  # fmt: skip


def make_comparison(rungs: int = 2, *, labels=FEW, choices=SHORT, seeds: int = 5) -> Comparison:
    """The selectors of `labels` on `choices` and LAMBADA at up to three sizes."""
    rng = np.random.default_rng(3)
    found = [make_rung(rng, place, seeds=seeds, labels=labels, choices=choices) for place in range(rungs)]
    base = found[0]
    return Comparison(
        chosen="quadmix", measured=base.measured, against=base.against,
        predicted={"quadmix": 1.61, "prior-mean": 1.62}, model_parameters=base.parameters,
        train_tokens=base.train_tokens, target_weights=dict.fromkeys(TARGETS, 1 / 3), verdict=base.verdict,
        proxies={"quadmix": 46, "regmix": 24}, rungs=tuple(found),
        transfers=tuple(make_transfer(base, r) for r in found[1:]),
        overlaps={"wiki": 12, **dict.fromkeys(choices, 0)},
    )  # fmt: skip
