"""R4, does merging criteria beat the best criterion alone?

The paper (§4.3, Table 2) sets the weights of left-out criteria to 0 "when finding the optimal parameters" and
trains 530M models: single criteria reach an average of 35.2, 37.4 and 37.3, pairs 37.5 to 38.7, all three
39.0; no seeds, no intervals. Here the same, read literally (the run's own trials, no new proxies): for each
subset of the criteria, draws of Algorithm 1 with the other weights at 0, renormalised, predicted by the run's
surrogates; the mean of the 10 best in unit coordinates is that subset's θ*. Each trains 1M models with five
seeds beside the best single criterion's top documents and the run's own θ* (all criteria, its own search).
Only the run's first design is learnt from: its later batches lie near the optimum over all criteria and would
favour that subset. The design reaches weights near 0, and each criterion alone is among it, which the paper's
draws do not. The subsets' θ* are also trained as the run's proxies are, so that an
error of the surrogates can be told from a ranking that changes with size and tokens.

Cost: about 70 models of 1M parameters and 500k tokens, 14 minutes on two idle cores; 39 proxies, 12 minutes;
20,000 draws per subset take about 6 minutes more (--draws 100000, as published, about 30).
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from common import Choice, Study, by_theta, differences, opened, parser, save, train
from shared import mean_interval, pool_part, result_name, spearman_rows, trained, unaimed, with_recipe

from quadmix.codec import to_json
from quadmix.engine.threads import one_thread
from quadmix.evaluate.cuts import top_copies
from quadmix.mixing.prior import Prior, draw_theta, mean_theta
from quadmix.pipeline.mix import Part
from quadmix.pipeline.swarming import search_context
from quadmix.pipeline.training import swarm_job
from quadmix.recipe import LADDER, ModelSection
from quadmix.rng import derived_seed, stream
from quadmix.search.confirm import measure, paired
from quadmix.search.model import Fit, Model, cross_fit, fit_model
from quadmix.search.propose import LEAST_TRIALS, SearchContext, make_space, usable_trials
from quadmix.search.swarm import check_swarm
from quadmix.search.theta_space import ThetaSpace
from quadmix.types import Candidate, Floats, Objective, Theta, Trial

TOKENS = 500_000
SEEDS = 5
TOP = 10
STAR = "quadmix"
_BLOCK = 5_000


def main() -> None:
    options = with_recipe(parser(str(__doc__)))
    options.add_argument("--draws", type=int, default=20_000, help="draws of Algorithm 1 for each subset")
    options.add_argument("--tokens", type=int, default=TOKENS)
    options.add_argument("--seeds", type=int, default=SEEDS)
    options.add_argument("--proxies", type=int, default=3, help="seeds of every θ* at the proxies' size")
    options.add_argument("--size", default="1M", choices=list(LADDER), help="model that is trained")
    args = options.parse_args()
    with opened(args.overrides, args.recipe) as study:
        save(result_name("r4_criteria", args), _result(study, args), study)


def _result(study: Study, args: argparse.Namespace) -> dict[str, Any]:
    names = tuple(c.name for c in study.mix.whole.table.criteria)
    swarm = unaimed(study.swarm)
    context = search_context(study.job, study.mix, planned=len(swarm))
    space = make_space(context)
    objective = study.proposal.objective
    model = learned(swarm, context, space, objective)
    part = pool_part(study, args.tokens)
    star = study.proposal.candidates[0].theta
    assert star is not None
    thetas: dict[str, Theta] = {}
    promised: dict[str, float] = {}
    for subset in subsets(names, star.weights.mean(axis=0)):
        label = "+".join(subset)
        found = literal(space, model, [names.index(c) for c in subset], args.draws, study.recipe.seed)
        thetas[label], promised[label] = part.calibrate(found), _predicted(space, model, context.fit(found))
        print(f"R4: {label}: predicted {promised[label]:.5f}", file=sys.stderr)
    best = best_single(study.proposal.candidates)
    choices = {label: by_theta(part, theta) for label, theta in thetas.items()}
    choices[f"top:{best}"] = _top(part, names.index(best), study.recipe.seed)
    training = study.recipe.evaluate.training.model_copy(update={"tokens": args.tokens})
    section = ModelSection.model_validate(LADDER[args.size])
    trials = train(study, "r4", choices, section, training, seeds=args.seeds)
    own = {STAR: by_theta(part, study.confirmation.theta)}
    trials += train(study, "r4-star", own, section, training, seeds=args.seeds)
    proxies = as_proxies(study, {**thetas, STAR: study.confirmation.theta}, args.proxies, objective)
    return {
        "size": args.size, "tokens": trials[0].train_tokens, "seeds": args.seeds, "draws": args.draws,
        "top": TOP, "trials": len(swarm), "objective": objective.weights, "criteria": names,
        "seed": study.recipe.seed, "proxy_seeds": args.proxies,
        **summary(trials, objective, names, promised, thetas, proxies),
    }  # fmt: skip


def subsets(names: Sequence[str], weights: Floats) -> list[tuple[str, ...]]:
    """Return each criterion, each pair, the three of the largest weights (N,), and all; none twice."""
    three = set(np.argsort(-weights, kind="stable")[:3].tolist())
    wanted: list[tuple[str, ...]] = [(name,) for name in names]
    wanted += list(combinations(names, 2))
    wanted += [tuple(name for i, name in enumerate(names) if i in three), tuple(names)]
    return list(dict.fromkeys(wanted))


def masked(theta: Theta, keep: Sequence[int]) -> Theta:
    """Return θ with the weights of the criteria that are not in `keep` at 0 and the rest renormalised."""
    weights = np.zeros_like(theta.weights)
    weights[:, keep] = theta.weights[:, keep]
    total = weights.sum(axis=1, keepdims=True)
    even = np.zeros(theta.num_criteria)
    even[keep] = 1.0 / len(keep)
    return replace(theta, weights=np.where(total > 0, weights / np.where(total > 0, total, 1.0), even))


def learned(
    trials: Sequence[Trial], context: SearchContext, space: ThetaSpace, objective: Objective
) -> Model:
    """Return the run's surrogates, one for each target of the objective, fitted on all its usable trials."""
    used, _ = usable_trials(trials, replace(context, target_weights=objective.weights), LEAST_TRIALS)
    losses = {t: np.array([u.losses[t].bits_per_byte for u in used]) for t in objective.weights}
    table = space.features([u.theta for u in used if u.theta is not None])
    swarm, _ = check_swarm([u.trial_id for u in used], table, losses)
    with one_thread():
        cross = cross_fit(swarm, Fit(workers=context.workers), stream(context.seed, "folds"))
        return fit_model(swarm, cross, objective)


def literal(space: ThetaSpace, model: Model, keep: Sequence[int], draws: int, seed: int) -> Theta:
    """Return the published θ* over the criteria of `keep`: the mean of the best of many draws.

    Draws that cannot meet the budget count as draws. They are the same for each subset.
    """
    rng, done = stream(seed, "r4"), 0
    best: list[tuple[float, int, Theta]] = []
    with one_thread():
        while done < draws:
            count = min(_BLOCK, draws - done)
            drawn = [masked(theta, keep) for theta in draw_theta(rng, space.prior, count)]
            points = space.points(drawn)
            fitted = space.fitted(points)
            values = np.where(fitted.ok, model.acquisition(space.table(points), 0.0), np.inf)
            first = np.argsort(values, kind="stable")[:TOP]
            best += [(float(values[i]), done + int(i), fitted.batch.theta(int(i))) for i in first]
            best = sorted(best, key=lambda b: b[:2])[:TOP]
            done += count
    return _average([theta for value, _, theta in best if np.isfinite(value)], space.prior)


def _average(thetas: Sequence[Theta], prior: Prior) -> Theta:
    if not thetas:
        raise SystemExit("no draw of Algorithm 1 can meet the budget; raise --draws or the budget")
    return mean_theta(thetas, prior)


def _predicted(space: ThetaSpace, model: Model, theta: Theta) -> float:
    return float(model.predict(space.features([theta]))[0].mean[0])


def as_proxies(
    study: Study, thetas: Mapping[str, Theta], seeds: int, objective: Objective
) -> dict[str, float]:  # fmt: skip
    """Return the mean objective by label of the θ trained as the run's proxies are, on as many tokens."""
    proxy = study.recipe.proxy
    part = pool_part(study, proxy.training.tokens)
    jobs = [
        replace(swarm_job(study.pool, study.mix, part, part.calibrate(theta), number, proxy.common, seed),
                trial_id=f"{number:02d}-{seed}", kind="study", label=label)
        for seed in range(seeds)
        for number, (label, theta) in enumerate(thetas.items())
    ]  # fmt: skip
    return {
        m.label: m.mean for m in measure(trained(study, "r4-proxies", jobs, proxy.training.tokens), objective)
    }


def best_single(candidates: Sequence[Candidate]) -> str:
    """Return the criterion whose trivial recipe (`single:<criterion>`) was predicted best."""
    single = [c for c in candidates if c.name.startswith("single:")]
    return min(single, key=lambda c: c.predicted).name.partition(":")[2]


def _top(part: Part, criterion: int, seed: int) -> Choice:
    def copies(s: int):  # a seed redraws ties
        own = derived_seed(seed, "baseline", s)
        return top_copies(part.table, part.normalised, criterion, part.budget, seed=own)

    return Choice(part=part, copies=copies)


def summary(
    trials: Sequence[Trial], objective: Objective, names: Sequence[str], promised: Mapping[str, float],
    thetas: Mapping[str, Theta], proxies: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Return a row per subset, means by number of criteria, and whether all together beat each one alone.

    minus_all: label minus all criteria, 95 % interval for that pair alone. singles_minus_all: the same, but
    the intervals hold for all single criteria together (Dunnett), as the best of them is picked afterwards.
    """
    every, measured = "+".join(names), {m.label: m for m in measure(trials, objective)}
    against = {d["label"]: d for d in differences(trials, objective, every)}
    rows: list[dict[str, Any]] = []
    for label, m in measured.items():
        theta = thetas.get(label)
        rows.append(
            {
                "label": label, "criteria": label.split("+") if theta is not None else [],
                "predicted": promised.get(label), "as_proxy": proxies.get(label), "mean": m.mean,
                "low": m.low, "high": m.high,
                "values": list(m.values), "unique_tokens": m.unique_tokens, "epochs": m.epochs,
                "weights": None if theta is None else theta.weights.mean(axis=0).tolist(),
                "minus_all": against.get(label),
            }
        )  # fmt: skip
    single = [t for t in trials if t.label in (*names, every)]
    alone = [measured[n] for n in names if n in measured]
    pairs = [label for label in thetas if label in measured]
    ranked = {
        "predicted": [promised[p] for p in pairs], "proxies": [proxies.get(p, np.nan) for p in pairs],
        "measured": [measured[p].mean for p in pairs],
    }  # fmt: skip
    return {
        "rows": rows, "by_count": by_count({label: measured[label].values for label in pairs}),
        "singles_minus_all": [to_json(p) for p in paired(single, objective, every, comparisons=len(names))],
        "best_single": min(alone, key=lambda m: m.mean).label if alone else None,
        "rank_correlations": [
            {"from": a, "to": b, "subsets": len(pairs),
             "spearman": float(spearman_rows(np.array([ranked[a]]), np.array([ranked[b]]))[0])}
            for a, b in combinations(ranked, 2)
        ],
    }  # fmt: skip


def by_count(values: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return the mean loss by number of criteria, and its difference to one criterion, paired by seed.

    values: label ("a+b") -> loss per seed; labels that lack a seed are left out.
    """
    seeds = max((len(v) for v in values.values()), default=0)
    groups: dict[int, list[Sequence[float]]] = {}
    for label, own in values.items():
        if len(own) == seeds:
            groups.setdefault(label.count("+") + 1, []).append(own)
    means = {count: np.mean(own, axis=0) for count, own in sorted(groups.items())}
    return [
        {
            "criteria": count, "subsets": len(groups[count]), **mean_interval(mean),
            "minus_one": mean_interval(mean - means[1]) if count > 1 and 1 in means else None,
        }
        for count, mean in means.items()
    ]  # fmt: skip


if __name__ == "__main__":
    main()
