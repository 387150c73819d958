"""R2, how well does a surrogate predict the loss of an unseen θ, and how many proxies does it need?

The paper (§3.3, Fig. 3) trains 3,000 proxies on random θ, fits LightGBM on 2,800 and tests on 200: its error
falls with the number of proxies and lies below that of SVR with a linear and an RBF kernel. Here 192 random θ
of Algorithm 1 (one batch, with its published ranges, each fitted to the run's budget) train proxies of the
run's size on 1M tokens. 48 θ are held out; random subsets of the others, 12 to 144 of them, are what every
surrogate learns from, once as θ itself (raw, as in the paper) and once as what θ selects (realised). Measured
loss is noisy, so no prediction reaches a correlation of 1: the ceiling is given, from repeats of the prior
mean and from the held-out θ trained again.

Cost: 248 models of 0.3M parameters and 1M tokens, about 35 minutes on two idle cores; the fits about 8.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
from common import Study, opened, parser, save
from numpy.typing import NDArray
from shared import (
    fitted_thetas,
    pool_part,
    published,
    result_name,
    sd_interval,
    spearman_rows,
    trained,
    with_recipe,
)  # fmt: skip

from quadmix.engine.threads import one_thread
from quadmix.errors import SearchError
from quadmix.mixing.prior import prior_mean
from quadmix.pipeline.mix import Part
from quadmix.pipeline.training import repeat_jobs, swarm_job
from quadmix.proxy.model import parameter_count
from quadmix.proxy.setting import ProxyJob
from quadmix.rng import stream
from quadmix.search.confirm import objectives
from quadmix.search.model import Fit, cross_fit, fit_model
from quadmix.search.surrogate import fit_plain, members_of
from quadmix.search.swarm import Swarm, combined, make_objective
from quadmix.search.table import FeatureTable
from quadmix.search.theta_space import theta_space
from quadmix.types import Floats, Objective, Theta, Trial

SIZES = (12, 24, 48, 96, 144)
HELD_OUT = 48
KINDS = ("auto", "paper", "lightgbm", "ridge", "gp-structured", "svr-linear", "svr-rbf")
_LEAST_SVR = 10
_PENALTIES = (0.1, 1.0, 10.0, 100.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A kind of `quadmix.search.surrogate` or svr-linear, svr-rbf, and what it learns from."""

    kind: str
    features: Literal["realised", "raw"]


METHODS = tuple(Method(kind=k, features=f) for k, f in product(KINDS, ("realised", "raw")))


def main() -> None:
    options = with_recipe(parser(str(__doc__)))
    options.add_argument("--trials", type=int, default=192, help="random θ, the held-out ones among them")
    options.add_argument("--held-out", type=int, default=HELD_OUT)
    options.add_argument("--tokens", type=int, default=1_000_000)
    options.add_argument("--repeats", type=int, default=8, help="models of the prior mean that share nothing")
    options.add_argument("--sizes", default=",".join(map(str, SIZES)), help="trials to learn from")
    options.add_argument("--subsets", type=int, default=10, help="random subsets of each size")
    args = options.parse_args()
    with opened(args.overrides, args.recipe) as study:
        save(result_name("r2_surrogate", args), _result(study, args), study)


def _result(study: Study, args: argparse.Namespace) -> dict[str, Any]:
    part, prior = pool_part(study, args.tokens), published(study.mix.prior)
    thetas = fitted_thetas(part, prior, stream(study.recipe.seed, "r2"), args.trials)
    held = _held_out(args.trials, args.held_out, study.recipe.seed)
    jobs = _jobs(study, part, thetas, held, args.repeats)
    trials = {t.trial_id: t for t in trained(study, "r2", jobs, args.tokens) if t.status == "done"}
    first = [trials.get(f"prior-{i:04d}") for i in range(args.trials)]
    rows = [i for i, trial in enumerate(first) if trial is not None]
    own = [t for t in first if t is not None]
    losses = {t.name: np.array([o.losses[t.name].bits_per_byte for o in own]) for t in study.recipe.targets}
    objective = make_objective({t.name: t.weight for t in study.recipe.targets}, losses)
    space = theta_space(part.table, part.normalised, prior, budget=part.budget, exact=part.calibrate,
                        seed=study.recipe.seed, method=part.method, limits=part.limits)  # fmt: skip
    table = space.features([thetas[i] for i in rows])
    out = np.isin(rows, held)
    sizes = [int(s) for s in args.sizes.split(",")]
    found = compare(table, losses, objective, out, sizes, args.subsets, study.recipe.seed)
    model = study.recipe.proxy.model
    return {
        "parameters": parameter_count(model, model.padded(study.pool.manifest.vocab_size)),
        "tokens": own[0].train_tokens, "thetas": len(own), "failed": len(jobs) - len(trials),
        "held_out": int(out.sum()), "prior": asdict(prior), "seed": study.recipe.seed,
        "common": list(study.recipe.proxy.common), "domains": len(part.table.domains),
        "criteria": len(part.table.criteria), "objective": objective.weights,
        "noise": _noise(trials, held, objective, combined(objective, losses)), **found,
    }  # fmt: skip


def _jobs(
    study: Study, part: Part, thetas: Sequence[Theta], held: Sequence[int], repeats: int
) -> list[ProxyJob]:
    """Return the random θ with common random numbers, the held-out ones with another seed, the repeats."""
    pool, mix, common = study.pool, study.mix, study.recipe.proxy.common
    jobs = [swarm_job(pool, mix, part, theta, i, common) for i, theta in enumerate(thetas)]
    jobs += [
        replace(swarm_job(pool, mix, part, thetas[i], i, common, 1), trial_id=f"again-{i:04d}", label="again")
        for i in held
    ]
    centre = part.calibrate(prior_mean(published(mix.prior)))
    return [*jobs, *repeat_jobs(pool, mix, part, centre, repeats)]


def _held_out(count: int, held: int, seed: int) -> list[int]:
    """Return which θ no surrogate learns from."""
    if not 2 <= held < count:
        raise SystemExit(f"--held-out is {held}, expected 2 to {count - 1} of the {count} trials")
    return sorted(stream(seed, "r2", "held-out").permutation(count)[:held].tolist())


def _noise(
    trials: Mapping[str, Trial], held: Sequence[int], objective: Objective, measured: Floats
) -> dict[str, Any]:
    """Return what limits a perfect prediction: noise of one model, spread of the θ, ceilings."""
    again = [(trials[a], trials[b]) for i in held
             if (a := f"prior-{i:04d}") in trials and (b := f"again-{i:04d}") in trials]  # fmt: skip
    repeats = objectives([t for t in trials.values() if t.kind == "repeat"], objective)
    spread = float(measured.std(ddof=1))
    first, second = (objectives(pair, objective) for pair in zip(*again, strict=True))
    return {
        "spread": spread,
        "repeats": {**sd_interval(repeats), "ceiling": ceiling(repeats, spread)},
        "trained_again": agreement(first, second),
    }


def ceiling(repeats: Floats, spread: float) -> float:
    """Return √(1 - noise² / spread²), what a perfect prediction correlates with measured losses; NaN below 3
    repeats."""
    if len(repeats) < 3:
        return float("nan")
    return max(0.0, 1.0 - float(repeats.var(ddof=1)) / spread**2) ** 0.5


def agreement(first: Floats, second: Floats) -> dict[str, float]:
    """Compare two measurements (K,) of the same θ that share random numbers with the others of their seed.

    noise: sd of one measurement, without what a seed does to all θ alike. ceiling: √ of their correlation.
    """
    pearson = float(np.corrcoef(first, second)[0, 1])
    return {
        "pairs": len(first), "noise": float((first - second).std(ddof=1) / 2**0.5), "pearson": pearson,
        "spearman": float(spearman_rows(first[None], second[None])[0]), "ceiling": max(0.0, pearson) ** 0.5,
    }  # fmt: skip


def compare(
    table: FeatureTable, losses: Mapping[str, Floats], objective: Objective, out: NDArray[np.bool_],
    sizes: Sequence[int], subsets: int, seed: int, methods: Sequence[Method] = METHODS,
) -> dict[str, Any]:  # fmt: skip
    """Return a row per method and size, and predictions beside measurements at the largest size.

    table: (K, P) features of all θ. losses: (K,) per target. out: (K,) which of them are held out.
    """
    inside, truth = np.flatnonzero(~out), combined(objective, losses)[out]
    rows: list[dict[str, Any]] = []
    parity: dict[str, list[float]] = {"measured": truth.tolist()}
    for size in sizes:
        if size > len(inside):
            print(f"only {len(inside)} θ to learn from: size {size} is left out", file=sys.stderr)
            continue
        count = 1 if size == len(inside) else subsets
        chosen = [inside[stream(seed, "r2", size, s).permutation(len(inside))[:size]] for s in range(count)]
        for method in methods:
            label = {"surrogate": method.kind, "features": method.features, "trials": size}
            try:
                found = np.stack([_predict(method, table, losses, objective, r, out, seed) for r in chosen])
            except SearchError as error:
                rows.append({**label, "cannot": str(error)})
                continue
            rows.append({**label, "subsets": count, **scores(truth, found, seed=seed)})
            parity[f"{method.kind}, {method.features}, {size}"] = found[0].tolist()
        print(f"R2: fitted {len(methods)} surrogates on {count} x {size} trials", file=sys.stderr)
    largest = max((r["trials"] for r in rows), default=0)
    kept = {k: v for k, v in parity.items() if k == "measured" or k.endswith(f", {largest}")}
    guess = float(np.abs(truth - combined(objective, losses)[inside].mean()).mean())
    return {"rows": rows, "mae_of_the_mean": guess, "parity": kept}


def _predict(
    method: Method, table: FeatureTable, losses: Mapping[str, Floats], objective: Objective,
    rows: NDArray[np.integer], out: NDArray[np.bool_], seed: int,
) -> Floats:  # fmt: skip
    """Return the objective (H,) of the held-out θ as predicted from `rows`."""
    own = table.columns(raw=method.features == "raw")
    found = {
        t: fit_and_predict(method, own.rows(rows), y[rows], own.rows(out), seed) for t, y in losses.items()
    }
    return combined(objective, found)


def fit_and_predict(
    method: Method, known: FeatureTable, y: Floats, asked: FeatureTable, seed: int = 0
) -> Floats:
    """Return the losses (H,) of `asked` by a fit on `known`; SearchError where the kind needs more trials."""
    if method.kind.startswith("svr-"):
        return svr(method.kind.removeprefix("svr-"), known, y, asked)
    members_of(method.kind, known, len(y), method.features)  # refuses too few trials
    with one_thread():
        if method.kind != "auto":
            return fit_plain(method.kind, known, y, method.features).mean(asked)
        swarm = Swarm(ids=tuple(map(str, range(len(y)))), table=known, losses={"y": y})
        cross = cross_fit(swarm, Fit(features=method.features), stream(seed, "r2", "folds"))
        return fit_model(swarm, cross, Objective(weights={"y": 1.0})).surrogates["y"].mean(asked)


def svr(kernel: str, known: FeatureTable, y: Floats, asked: FeatureTable) -> Floats:
    """Return predictions (H,) of scikit-learn's SVR on standardised features and losses; its C by 5-fold
    cross-validation, the rest as scikit-learn has it (the paper names the kernels alone)."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    if len(y) < _LEAST_SVR:
        raise SearchError(f"SVR needs at least {_LEAST_SVR} trials, there are {len(y)}")
    centre, spread = float(y.mean()), float(y.std()) or 1.0
    fits = GridSearchCV(
        make_pipeline(StandardScaler(), SVR(kernel=kernel)), {"svr__C": _PENALTIES}, cv=5,
        scoring="neg_mean_absolute_error",
    ).fit(known.values, (y - centre) / spread)  # fmt: skip
    return centre + spread * np.asarray(fits.predict(asked.values), dtype=np.float64)


def scores(truth: Floats, predicted: Floats, *, seed: int = 0, draws: int = 1000) -> dict[str, Any]:
    """Return rank correlation, mean absolute error and regrets with 95 % bootstrap intervals over held-out θ.

    truth: (H,) measured. predicted: (S, H), one row per subset that was learnt from; values are means over S.
    regret_at_k: the least loss of the k θ predicted best, minus the least of all.
    """
    rng, size = np.random.default_rng(seed), len(truth)
    rows = np.concatenate([np.arange(size)[None], rng.integers(size, size=(draws, size))])
    found = {"spearman": [], "mae": [], "regret_at_1": [], "regret_at_5": []}
    for one in predicted:
        y, p = truth[rows], one[rows]
        found["spearman"].append(spearman_rows(y, p))
        found["mae"].append(np.abs(y - p).mean(axis=1))
        best = np.take_along_axis(y, np.argsort(p, axis=1, kind="stable"), axis=1)
        found["regret_at_1"].append(best[:, 0] - y.min(axis=1))
        found["regret_at_5"].append(best[:, :5].min(axis=1) - y.min(axis=1))
    out: dict[str, Any] = {}
    for name, values in found.items():
        mean = np.mean(values, axis=0)
        low, high = np.quantile(mean[1:], [0.025, 0.975])
        out[name] = {"mean": float(mean[0]), "low": float(low), "high": float(high),
                     "subsets": [float(v[0]) for v in values]}  # fmt: skip
    return out


if __name__ == "__main__":
    main()
