"""R8, what do the paper's open questions matter? λ's prior, ties, the percentile estimator, the noise.

All models are proxies of the run's size on 500k tokens; models that are compared share start, order of the
documents and drawn numbers. θ come from Algorithm 1 with its published ranges.

prior (A1): λ̃ = "10 3λ" is 10^(3u) or 1000u. 16 pairs of θ from the same uniform numbers, one of each reading:
   difference in loss, in spread over θ, and how many curves are flat (λ and η without effect) or steps.
rank (A6): Eq. 2 literally gives tied documents the worst rank of their group. 12 θ ranked by `interval`,
   `paper` and `hash-tiebreak`, each fitted to the budget; and, without training, how many domains vanish when
   an educational score is rounded to whole numbers.
percentile (A7): the paper maps scores to percentiles by "a subset of 10,000 documents", 385 of each of 26
   domains if that is the total. 12 θ selected by exact ranks and by subsets of 385 and 1,000 documents per
   domain, either one subset for all (three of them) or a new one for each proxy; selected tokens alone for
   more sizes. Budgets are not fitted again: that they are missed is part of what an estimator does.
noise: sd of the loss over 8 repeats in which initial weights, order or draw alone are new, and what common
   random numbers take off the noise of a comparison.

Cost: 232 models of 0.3M parameters and 500k tokens, 18 minutes on two idle cores. --only noise,prior
runs some of them; finished models are loaded.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from common import Study, opened, parser, save
from numpy.typing import NDArray
from shared import (
    common_numbers,
    fitted_thetas,
    known,
    mean_interval,
    moved_share,
    paired_facts,
    pool_part,
    published,
    ratio_of_spreads,
    result_name,
    sd_interval,
    spearman_rows,
    trained,
    with_recipe,
)  # fmt: skip

from quadmix.errors import BudgetError
from quadmix.mixing.curve import curve_mass, expected_copies
from quadmix.mixing.draw import settle_copies
from quadmix.mixing.merge import merge_scores
from quadmix.mixing.prior import Prior, draw_theta, prior_mean
from quadmix.mixing.rank import RankMode, rank_within_domain
from quadmix.pipeline.mix import Part
from quadmix.pipeline.training import copies_job, swarm_job
from quadmix.proxy.setting import ProxyJob
from quadmix.rng import keyed_uniform, stream
from quadmix.search.confirm import objectives
from quadmix.types import Annotations, Copies, Floats, Ints, Ranks, Theta, Trial

TOKENS = 500_000
PAIRS, THETAS, REPEATS, NOISE_THETAS = 16, 12, 8, 4
MODES: tuple[RankMode, ...] = ("interval", "paper", "hash-tiebreak")
SUBSETS = (385, 1000)
# how a reference comes about: one for all θ, three times over, or a new one for every θ
REFERENCES = {"frozen": "all", "frozen 2": "all-2", "frozen 3": "all-3", "own": None}
SIZES = (50, 100, 200, 385, 1000, 2000)
CUTOFFS = (0.02, 0.05, 0.1, 0.2)
_CURVES = 2000  # draws of θ whose curves are counted
_FLAT, _STEP = 1.05, 5.0  # least height of a curve that is not flat; λω of a step


def main() -> None:
    options = with_recipe(parser(str(__doc__)))
    options.add_argument("--only", default=",".join(STUDIES), help="some of " + ",".join(STUDIES))
    options.add_argument("--tokens", type=int, default=TOKENS)
    options.add_argument("--thetas", type=int, default=THETAS, help="θ of rank and percentile")
    options.add_argument("--pairs", type=int, default=PAIRS, help="pairs of θ of prior")
    options.add_argument("--repeats", type=int, default=REPEATS, help="models per source of noise")
    options.add_argument("--criterion", default="edu", help="the score that is rounded")
    args = options.parse_args()
    wanted = args.only.split(",")
    if unknown := sorted(set(wanted) - set(STUDIES)):
        raise SystemExit(f"--only names {unknown[0]!r}, expected some of {', '.join(STUDIES)}")
    with opened(args.overrides, args.recipe) as study:
        found = {name: STUDIES[name](study, args) for name in wanted}
        facts = {"tokens": args.tokens, "seed": study.recipe.seed, "domains": len(study.mix.full.domains),
                 "model": study.recipe.proxy.model.model_dump()}  # fmt: skip
        save(result_name("r8_ablations", args), {**facts, **found}, study)


def _prior(study: Study, args: argparse.Namespace) -> dict[str, Any]:
    part = pool_part(study, args.tokens)
    priors = {r: replace(published(study.mix.prior), steepness=r) for r in ("log", "linear")}
    drawn = {r: _uniform(study, "prior", prior, args.pairs) for r, prior in priors.items()}
    arms = {reading: [_fit(part, theta) for theta in thetas] for reading, thetas in drawn.items()}
    copies = {reading: [_selected(part, theta) for theta in thetas] for reading, thetas in arms.items()}
    losses = _losses(study, "r8-prior", part, copies, args.tokens)
    curves = {r: curve_facts(_uniform(study, "curves", prior, _CURVES)) for r, prior in priors.items()}
    fitted = {reading: curve_facts([t for t in thetas if t is not None]) for reading, thetas in arms.items()}
    return {
        "pairs": args.pairs, "linear_minus_log": paired_facts(losses["linear"], losses["log"]),
        "spread": {reading: sd_interval(known(values)) for reading, values in losses.items()},
        "spread_ratio": ratio_of_spreads(losses["linear"], losses["log"]),
        "curves": curves, "curves_after_the_fit": fitted,
        "share_moved": moved_share(part.table, copies["linear"], copies["log"]),
    }  # fmt: skip


def curve_facts(thetas: Sequence[Theta]) -> dict[str, float]:
    """Return how many curves of all domains (Eq. 3 in the window) are flat or steps, and their height.

    flat: the best document gets at most 5 % more than the worst inside. step: λω > 5. near_the_top: nine
    tenths of the window get at least 95 % of the best. mean_height: copies per token inside the window.
    """
    steepness, cutoff, exponent = (
        np.concatenate([getattr(t, name) for t in thetas]) for name in ("steepness", "cutoff", "exponent")
    )
    mass = np.concatenate([curve_mass(replace(t, scale=np.ones(t.num_domains))) - t.floor for t in thetas])
    u = steepness * cutoff
    top, low = ((2.0 / (1.0 + np.exp(-part * u))) ** exponent for part in (1.0, 0.1))
    return {
        "curves": len(u), "flat": float((top <= _FLAT).mean()), "step": float((u > _STEP).mean()),
        "near_the_top": float((low >= 0.95 * top).mean()), "mean_height": float(np.mean(mass / cutoff)),
    }  # fmt: skip


def _rank(study: Study, args: argparse.Namespace) -> dict[str, Any]:
    part = pool_part(study, args.tokens)
    parts: dict[str, Part] = {mode: replace(part, rank_mode=mode) for mode in MODES}
    drawn = _uniform(study, "rank", published(study.mix.prior), args.thetas)
    copies = {m: [_selected(p, _fit(p, theta)) for theta in drawn] for m, p in parts.items()}
    plain = [theta for theta in (_fit(parts["interval"], t) for t in drawn) if theta is not None]
    losses = _losses(study, "r8-rank", part, copies, args.tokens)
    column = _criterion(part.table, args.criterion)
    return {
        "thetas": args.thetas,
        "modes": {
            mode: {
                "fitted": int(np.isfinite(losses[mode]).sum()), "spread": sd_interval(known(losses[mode])),
                "minus_interval": paired_facts(losses[mode], losses["interval"]),
                "share_moved": moved_share(part.table, copies[mode], copies["interval"]),
                "budget_met_without_a_fit": mean_interval(_taken(parts[mode], plain) / part.budget),
            }
            for mode in MODES
        },
        "rounded": {
            "criterion": part.table.criteria[column].name,
            "rows": rounded_facts(study.mix.whole.table, study.mix.whole.table.scores[:, column]),
        },
    }  # fmt: skip


def _taken(part: Part, thetas: Sequence[Theta]) -> Floats:
    """Return the tokens (K,) that θ select of a part in its own rank mode."""
    return np.array([float(part.select(t).copies.astype(np.float64) @ part.table.tokens) for t in thetas])


def rounded_facts(table: Annotations, score: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Return, per rank mode and cutoff, how many domains vanish when a score is rounded to whole numbers, and
    how far the selected share of a domain is off the cutoff, relatively (root mean square over domains).

    score: (D,) smaller = better, NaN = missing (ranked last).
    """
    worst = np.nanmax(score) if np.isfinite(score).any() else 0.0
    merged = np.rint(np.where(np.isnan(score), worst, score)).astype(np.float64)
    rows: list[dict[str, Any]] = []
    for mode in MODES:
        ranks = rank_within_domain(merged, table.tokens, table.domain, mode=mode, keys=table.keys)
        for cutoff in CUTOFFS:
            share = window_shares(ranks, table, cutoff)
            rows.append(
                {
                    "mode": mode, "cutoff": cutoff, "levels": len(np.unique(merged)), "domains": len(share),
                    "vanished": float((share == 0).mean()),
                    "relative_error": float(np.sqrt(np.mean((share / cutoff - 1) ** 2))),
                }
            )  # fmt: skip
    return rows


def window_shares(ranks: Ranks, table: Annotations, cutoff: float) -> Floats:
    """Return (M,) the share of each domain's tokens in the window [0, cutoff]; empty domains are left out."""
    width = ranks.high - ranks.low
    covered = np.clip((cutoff - ranks.low) / np.where(width > 0, width, 1.0), 0.0, 1.0)
    inside = np.where(width > 0, covered, ranks.high <= cutoff)
    total = table.domain_tokens()
    taken = np.bincount(table.domain, inside * table.tokens, len(total))
    return taken[total > 0] / total[total > 0]


def _percentile(study: Study, args: argparse.Namespace) -> dict[str, Any]:
    largest = pool_part(study, study.recipe.proxy.training.tokens)
    part = replace(largest, rank_mode="paper")
    thetas = [
        t
        for t in (
            _fit(part, theta)
            for theta in _uniform(study, "percentile", published(study.mix.prior), args.thetas)
        )
        if t is not None
    ]
    every = np.arange(len(part.table))
    copies = {"exact": [estimated_copies(part, theta, every) for theta in thetas]}
    for size in SUBSETS:
        for how in REFERENCES:
            refs = [_reference(study, part, size, how, i) for i in range(len(thetas))]
            copies[f"{size} {how}"] = [
                estimated_copies(part, t, r) for t, r in zip(thetas, refs, strict=True)
            ]
    losses = _losses(study, "r8-percentile", part, copies, args.tokens)
    count = np.bincount(part.table.domain, minlength=len(part.table.domains))
    return {
        "thetas": len(thetas),
        "documents_per_domain": dict(zip(part.table.domains, count.tolist(), strict=True)),
        "spread": sd_interval(known(losses["exact"])),
        "arms": {
            arm: {
                "minus_exact": paired_facts(values, losses["exact"]),
                "spearman_with_exact": _agreement(values, losses["exact"]),
                "share_moved": moved_share(part.table, copies[arm], copies["exact"]),
                "selected": mean_interval(_tokens(part, copies[arm]) / _tokens(part, copies["exact"])),
            }
            for arm, values in losses.items() if arm != "exact"
        },
        "frozen": {size: over_references(losses, size) for size in SUBSETS},
        "budget": float(_tokens(part, copies["exact"]).mean()),
        "selected": [_selected_facts(study, part, thetas, size) for size in SIZES],
    }  # fmt: skip


def over_references(losses: Mapping[str, Floats], size: int) -> dict[str, float]:
    """Return the mean difference to exact ranks with a 95 % t interval over frozen references of a size: what
    one reference does to all θ alike is chance of that reference."""
    arms = [f"{size} {how}" for how, name in REFERENCES.items() if name is not None]
    return mean_interval(np.array([float(np.nanmean(losses[arm] - losses["exact"])) for arm in arms]))


def _tokens(part: Part, copies: Sequence[Copies]) -> Floats:
    """Return the selected tokens (K,) of copies (D',) each."""
    return np.array([float(own.astype(np.float64) @ part.table.tokens) for own in copies])


def _reference(study: Study, part: Part, size: int, how: str, number: int) -> Ints:
    own = REFERENCES[how] or str(number)
    return reference(part.table, size, study.recipe.seed, f"r8-{size}-{own}")


def reference(table: Annotations, size: int, seed: int, name: str) -> Ints:
    """Return the rows of `size` random documents of each domain, or all that it has."""
    hashes = keyed_uniform(seed, table.keys, name)
    order = np.lexsort((hashes, table.domain))
    starts = np.searchsorted(table.domain[order], np.arange(len(table.domains)))
    place = np.arange(len(order)) - starts[table.domain[order]]
    return np.sort(order[place < size])


def estimated_ranks(merged: Floats, table: Annotations, rows: Ints) -> Floats:
    """Return (D,) the token-weighted percentile (Eq. 2, `<=`) of every document among those of `rows`.

    A document better than all of them has rank 0. With all rows it is rank mode `paper`.
    """
    ranks = np.zeros(len(merged))
    for domain in range(len(table.domains)):
        mine, known = np.flatnonzero(table.domain == domain), rows[table.domain[rows] == domain]
        if not len(known):
            continue
        known = known[np.argsort(merged[known], kind="stable")]
        through = np.concatenate([[0], np.cumsum(table.tokens[known], dtype=np.int64)])
        ranks[mine] = through[np.searchsorted(merged[known], merged[mine], side="right")] / through[-1]
    return ranks


def estimated_copies(part: Part, theta: Theta, rows: Ints) -> Copies:
    """Return the copies (D',) of a θ over a part when ranks are read off the documents of `rows`."""
    table = part.table
    return settle_copies(
        _estimated(part, theta, rows), table.keys, table.tokens, table.domain,
        num_domains=len(table.domains), seed=part.draw_seed(0),
    ).copies  # fmt: skip


def _estimated(part: Part, theta: Theta, rows: Ints) -> Floats:
    merged = merge_scores(part.normalised, theta.weights, part.table.domain)
    return expected_copies(estimated_ranks(merged, part.table, rows), theta, part.table.domain)


def _selected_facts(study: Study, part: Part, thetas: Sequence[Theta], size: int) -> dict[str, Any]:
    """Return how far the expected tokens of domains and in total are off; each θ has a subset of its own."""
    table, every = part.table, np.arange(len(part.table))
    larger = np.bincount(table.domain, minlength=len(table.domains)) > size
    if not larger.any():
        return {"documents": size, "domains": 0}
    single, total = list[Floats](), list[float]()
    for number, theta in enumerate(thetas):
        rows = _reference(study, part, size, "own", number)
        exact, found = (
            np.bincount(table.domain, _estimated(part, theta, r) * table.tokens, len(larger))
            for r in (every, rows)
        )
        single.append(found[larger & (exact > 0)] / exact[larger & (exact > 0)] - 1)
        total.append(float(found.sum() / exact.sum() - 1))
    errors = np.concatenate(single)
    return {
        "documents": size, "domains": int(larger.sum()), "bias": mean_interval(errors),
        "relative_error": float(np.sqrt(np.mean(errors**2))),
        "median_error": float(np.median(np.abs(errors))),
        "total_error": float(np.sqrt(np.mean(np.square(total)))),
    }  # fmt: skip


def _noise(study: Study, args: argparse.Namespace) -> dict[str, Any]:
    part, prior = pool_part(study, args.tokens), published(study.mix.prior)
    thetas = [
        part.calibrate(prior_mean(prior)),
        *fitted_thetas(part, prior, stream(study.recipe.seed, "r8", "noise"), NOISE_THETAS - 1),
    ]
    sources = ("init", "order", "draw")
    jobs: list[ProxyJob] = []
    for own in sources:
        shared = [s for s in sources if s != own]
        jobs += [
            _repeat(study, part, thetas[0], own, k, shared, trial=k, seed=0) for k in range(args.repeats)
        ]
    for number, theta in enumerate(thetas):
        jobs += [
            _repeat(study, part, theta, f"all-{number}", k, sources, trial=number, seed=k)
            for k in range(args.repeats)
        ]
    losses = _by_label(study, trained(study, "r8-noise", jobs, args.tokens), args.repeats)
    block = np.stack([losses[f"all-{n}"] for n in range(len(thetas))])
    return {
        "repeats": args.repeats, "thetas": len(thetas),
        "alone": {own: sd_interval(known(losses[own])) for own in sources},
        **common_numbers(block[:, np.isfinite(block).all(axis=0)]),
    }  # fmt: skip


def _repeat(
    study: Study, part: Part, theta: Theta, label: str, number: int, common: Sequence[str], *, trial: int,
    seed: int,
) -> ProxyJob:  # fmt: skip
    job = swarm_job(study.pool, study.mix, part, theta, trial, common, seed)
    return replace(job, trial_id=f"{label}-{number}", kind="study", label=label)


STUDIES: dict[str, Callable[[Study, argparse.Namespace], dict[str, Any]]] = {
    "prior": _prior, "rank": _rank, "percentile": _percentile, "noise": _noise,
}  # fmt: skip


def _uniform(study: Study, name: str, prior: Prior, count: int) -> list[Theta]:
    """Return random θ; equal names give the same uniform numbers whatever the prior."""
    return draw_theta(stream(study.recipe.seed, "r8", name), prior, count)


def _fit(part: Part, theta: Theta) -> Theta | None:
    """Return θ fitted to the part's budget, None where it cannot meet it."""
    try:
        return part.calibrate(theta)
    except BudgetError:
        return None


def _selected(part: Part, theta: Theta | None) -> Copies | None:
    return None if theta is None else part.select(theta).copies


def _losses(
    study: Study, name: str, part: Part, arms: Mapping[str, Sequence[Copies | None]], tokens: int
) -> dict[str, Floats]:
    """Train every selection once, all with one start and order; return losses per arm, NaN where none."""
    jobs = [
        copies_job(
            study.pool, study.mix, part, f"{arm.replace(' ', '-')}-{i:02d}", "study", arm, None, copies, 0
        )
        for arm, own in arms.items()
        for i, copies in enumerate(own)
        if copies is not None
    ]
    most = max(map(len, arms.values()))
    found = _by_label(study, trained(study, name, jobs, tokens), most)
    return {arm: found.get(arm, np.full(most, np.nan))[: len(own)] for arm, own in arms.items()}


def _by_label(study: Study, trials: Sequence[Trial], count: int) -> dict[str, Floats]:
    """Return the objective by label and number (the end of the trial's id), NaN where a model failed."""
    found: dict[str, Floats] = {}
    for trial in trials:
        values = found.setdefault(trial.label, np.full(count, np.nan))
        if trial.status == "done":
            values[int(trial.trial_id.rpartition("-")[2])] = objectives([trial], study.proposal.objective)[0]
    return found


def _agreement(values: Floats, base: Floats) -> float:
    both = np.isfinite(values) & np.isfinite(base)
    return float(spearman_rows(values[both][None], base[both][None])[0])


def _criterion(table: Annotations, name: str) -> int:
    names = [c.name for c in table.criteria]
    return names.index(name) if name in names else len(names) - 1


if __name__ == "__main__":
    main()
