"""What R2, R4, R6 and R8 share: proxies of their own, random θ, small statistics."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, Study, bootstrap_interval
from scipy.stats import chi2, rankdata
from scipy.stats import f as fisher
from scipy.stats import t as student

from quadmix.errors import BudgetError
from quadmix.mixing.prior import Prior, draw_theta
from quadmix.pipeline.folder import StageNotes
from quadmix.pipeline.mix import Part
from quadmix.pipeline.training import proxy_setting, train_jobs
from quadmix.proxy.setting import ProxyJob
from quadmix.types import Annotations, Copies, Floats, Theta, Trial


def with_recipe(options: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add `--recipe`: the same study on another corpus; its result gets the recipe's name."""
    options.add_argument("--recipe", type=Path, default=HERE / "study.yaml", help="another recipe to study")
    return options


def result_name(name: str, args: argparse.Namespace) -> str:
    """Return the name of the result file: that of the study, with the recipe's if it is not study.yaml."""
    return name if args.recipe == HERE / "study.yaml" else f"{name}-{args.recipe.stem}"


def pool_part(study: Study, tokens: int) -> Part:
    """Return the documents that a model of so many tokens works on; the run must have tokenised them all."""
    part = study.part(tokens)
    if not np.isin(np.flatnonzero(study.mix.excluded == 0)[part.rows], study.pool.rows).all():
        raise SystemExit(f"the run's token pool is too small for models of {tokens:,} tokens: lower --tokens")
    return part


def published(prior: Prior) -> Prior:
    """Return the ranges of Algorithm 1 as printed, for the same domains and criteria."""
    return Prior(
        num_domains=prior.num_domains, num_criteria=prior.num_criteria, steepness=prior.steepness,
        multipliers=prior.multipliers,
    )  # fmt: skip


def fitted_thetas(part: Part, prior: Prior, rng: np.random.Generator, count: int) -> list[Theta]:
    """Return random θ fitted to the part's budget; what cannot meet it is drawn again, BudgetError if hardly
    any can."""
    found, missed = list[Theta](), 0
    while len(found) < count:
        try:
            found.append(part.calibrate(draw_theta(rng, prior, 1)[0]))
        except BudgetError:
            missed += 1
            if missed > 20 * count:
                raise
    return found


def trained(study: Study, name: str, jobs: Sequence[ProxyJob], tokens: int) -> list[Trial]:
    """Train proxies of the run's size on so many tokens, measured on its targets; their weights are not kept.

    Trials lie in <run>/studies/<name>; what is there from the same jobs is loaded.
    """
    proxy = study.recipe.proxy
    training = proxy.training.model_copy(update={"tokens": tokens})
    setting = replace(proxy_setting(study.job, study.mix, study.pool), training=training)
    plain = study.recipe.model_copy(update={"proxy": proxy.model_copy(update={"save_weights": False})})
    notes = StageNotes()
    trials = train_jobs(
        replace(study.job, recipe=plain), name, jobs, setting, notes, folder=f"studies/{name}"
    )
    for warning in notes.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return trials


def unaimed(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials of the first design: later batches lie where the run's own objective was low, which
    would favour it over any other objective or subset of the criteria that is searched on them."""
    return [t for t in trials if not t.label.startswith("batch-")]


def mean_interval(values: Floats) -> dict[str, float]:
    """Return the mean of (n,) values with its 95 % t interval, NaN with one value."""
    n, mean = len(values), float(np.mean(values))
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5) if n > 1 else float("nan")
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def sd_interval(values: Floats) -> dict[str, float]:
    """Return the standard deviation of (n,) values with its 95 % interval (normal theory); NaN below 2."""
    return sd_with(float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"), len(values) - 1)


def sd_with(sd: float, freedom: int) -> dict[str, float]:
    """Return a standard deviation of so many degrees of freedom with its 95 % interval (normal theory)."""
    if freedom < 1:
        return {"sd": float("nan"), "low": float("nan"), "high": float("nan"), "freedom": freedom}
    low, high = (sd * (freedom / q) ** 0.5 for q in chi2.ppf([0.975, 0.025], freedom))
    return {"sd": sd, "low": float(low), "high": float(high), "freedom": freedom}


def paired_facts(values: Floats, base: Floats) -> dict[str, Any]:
    """Return the mean difference of pairs (n,) with its 95 % t interval, and the sd of the differences."""
    rest = known(values - base)
    return {**mean_interval(rest), "spread_of_differences": sd_interval(rest)} if len(rest) else {"n": 0}


def ratio_of_spreads(values: Floats, base: Floats) -> dict[str, float]:
    """Return the ratio of the standard deviations of paired values (n,) with its 95 % jackknife interval."""
    both = np.isfinite(values) & np.isfinite(base)
    a, b = values[both], base[both]
    kept = ~np.eye(len(a), dtype=bool)
    logs = np.array([np.log(a[k].std(ddof=1) / b[k].std(ddof=1)) for k in kept])
    ratio = float(np.log(a.std(ddof=1) / b.std(ddof=1)))
    error = float(np.sqrt((len(a) - 1) * ((logs - logs.mean()) ** 2).mean()))
    return {"ratio": float(np.exp(ratio)), "low": float(np.exp(ratio - 1.96 * error)),
            "high": float(np.exp(ratio + 1.96 * error)), "n": len(a)}  # fmt: skip


def common_numbers(losses: Floats) -> dict[str, Any]:
    """Return the noise of one model and what is left of it between models of one seed. losses: (K, S), K θ.

    all: sd over seeds, everything new, pooled over θ. common: sd after taking off what a seed does to all θ
    alike. times: variance of a difference of two θ without common random numbers over that with them, so many
    times more seeds would be needed without; its 95 % interval is that of two independent variances (F).
    """
    thetas, seeds = losses.shape
    noise = sd_with(float(np.sqrt(losses.var(axis=1, ddof=1).mean())), thetas * (seeds - 1))
    rest = losses - losses.mean(axis=1, keepdims=True) - losses.mean(axis=0) + losses.mean()
    freedom = (thetas - 1) * (seeds - 1)
    common = sd_with(float(np.sqrt((rest**2).sum() / max(freedom, 1))), freedom)
    times = (noise["sd"] / common["sd"]) ** 2
    low, high = times / fisher.ppf([0.975, 0.025], thetas * (seeds - 1), freedom)
    return {
        "all": noise, "common": common, "times": times, "times_low": float(low), "times_high": float(high),
        "of_the_first": sd_interval(losses[0]), "spread_of_means": float(losses.mean(axis=1).std(ddof=1)),
    }  # fmt: skip


def known(values: Floats) -> Floats:
    """Return the values of models that finished; others are NaN."""
    return values[np.isfinite(values)]


def spearman_rows(a: Floats, b: Floats) -> Floats:
    """Return the rank correlation of each row pair; a constant row ranks nothing and counts as 0.

    a, b: (B, K).
    """
    ra, rb = rankdata(a, axis=1), rankdata(b, axis=1)
    ra, rb = ra - ra.mean(axis=1, keepdims=True), rb - rb.mean(axis=1, keepdims=True)
    scale = np.sqrt((ra**2).sum(axis=1) * (rb**2).sum(axis=1))
    return np.where(scale > 0, (ra * rb).sum(axis=1) / np.where(scale > 0, scale, 1.0), 0.0)


def moved_share(
    table: Annotations, arm: Sequence[Copies | None], base: Sequence[Copies | None]
) -> dict[str, float]:
    """Return the share of selected tokens that lies in other domains: mean over θ, bootstrap interval."""
    pairs = [(a, b) for a, b in zip(arm, base, strict=True) if a is not None and b is not None]
    if not pairs:
        return {"mean": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    moved = [0.5 * float(np.abs(shares(table, a) - shares(table, b)).sum()) for a, b in pairs]
    low, high = bootstrap_interval(moved)
    return {"mean": float(np.mean(moved)), "low": low, "high": high, "n": len(moved)}


def shares(table: Annotations, copies: Copies) -> Floats:
    """Return (M,) the shares of the domains among the selected tokens, copies counted."""
    taken = np.bincount(table.domain, copies.astype(np.float64) * table.tokens, len(table.domains))
    return taken / max(float(taken.sum()), 1.0)
