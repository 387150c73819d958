"""Noise of a proxy's loss and spread over θ, with and without each trick that a recipe can switch.

Run: python benchmarks/noise.py RECIPE [--set A.B=C ...] [--thetas 8] [--seeds 3] [--variants all]

Opens the recipe's run folder (annotates and tokenises if that is not done), trains thetas x seeds models per
variant and prints, for the weighted objective and every target, in bits per byte:
  noise    sd over seeds of one θ, everything redrawn (initial weights, order, drawn copies)
  common   the same after taking off what a seed does to all θ alike: the noise of a comparison inside a swarm
  spread   sd over θ inside a seed, noise included, as the report of a run gives it
  true     sd over θ of the means over seeds, its share of noise taken off
  ratio    spread / noise, and (in brackets) its 90 % interval by bootstrap over θ
With --run FOLDER instead of a recipe: the same of a finished search (64 random θ, repeats of the prior mean),
with the surrogate's out-of-fold rank correlation and its ceiling: a perfect prediction of the noiseless loss
correlates with measured losses like sqrt(1 - noise² / spread²).
The last line is JSON. Trials are kept in <run folder>/noise/<variant>, so a stopped benchmark goes on.
"""

import argparse
import json
import sys
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quadmix.io.atomic import read_value
from quadmix.mixing.prior import draw_theta
from quadmix.pipeline import stages
from quadmix.pipeline.folder import open_run
from quadmix.pipeline.place import even_group, fitting, training_place
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.training import proxy_setting, swarm_job
from quadmix.proxy.swarm import run_swarm
from quadmix.recipe import Recipe, load_recipe
from quadmix.rng import stream
from quadmix.types import Proposal

EVERYTHING = ["init", "order", "draw"]
VARIANTS: dict[str, tuple[list[str], dict[str, object]]] = {
    "recipe": (EVERYTHING, {}),
    "own-init": (["order", "draw"], {}),
    "own-order": (["init", "draw"], {}),
    "own-draw": (["init", "order"], {}),
    "shuffled": (EVERYTHING, {"order": "shuffled"}),
    "stratified": (EVERYTHING, {"order": "stratified"}),
    "constant": (EVERYTHING, {"schedule": "constant"}),
    "constant-ema": (EVERYTHING, {"schedule": "constant", "average": "ema", "average_share": 0.1}),
    "wsd": (EVERYTHING, {"schedule": "wsd"}),
    "last": (EVERYTHING, {"average": "last", "average_share": 0.2}),
    "ema": (EVERYTHING, {"average": "ema", "average_share": 0.05}),
    "batch-8": (EVERYTHING, {"batch": 8}),
    "batch-64": (EVERYTHING, {"batch": 64}),
    "adamw": (EVERYTHING, {"optimizer": "adamw", "peak_lr": 0.003}),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("--run", help="a run folder with a finished search")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--thetas", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", default="recipe", help=f"all, or some of {','.join(VARIANTS)}")
    options = parser.parse_args()
    if options.run:
        sys.stdout.write(json.dumps(signal_of(options.run)) + "\n")
        return
    if not options.recipe:
        parser.error("give a recipe, or --run with a run folder")
    names = list(VARIANTS) if options.variants == "all" else options.variants.split(",")
    recipe = load_recipe(options.recipe, options.set)
    results = {name: measure(recipe, name, options.thetas, options.seeds) for name in names}
    sys.stdout.write(json.dumps({"tokens": recipe.proxy.training.tokens, "variants": results}) + "\n")


def measure(recipe: Recipe, name: str, thetas: int, seeds: int) -> dict[str, dict[str, float]]:
    """Train thetas x seeds models of one variant and print its table."""
    common, changes = VARIANTS[name]
    proxy = recipe.proxy
    with open_run(recipe, Progress(quiet=True)) as job:
        targets = stages.read_targets(job)
        corpus = stages.open_pool(job)
        mix = stages.prepare_mixing(job, stages.annotate(job, corpus, targets))
        pool = stages.tokenise(job, corpus, mix, targets)
        part = mix.part(mix.proxy_share(proxy.training.tokens, proxy.pool))
        rng = stream(recipe.seed, "noise")
        drawn = [part.calibrate(draw_theta(rng, mix.prior, 1)[0]) for _ in range(thetas)]
        jobs = [
            replace(swarm_job(pool, mix, part, theta, k, common, seed), trial_id=f"t{k:02d}-{seed}")
            for seed in range(seeds)
            for k, theta in enumerate(drawn)
        ]
        setting = proxy_setting(job, mix, pool)
        setting = replace(setting, training=setting.training.model_copy(update=changes))
        begun = time.monotonic()
        trials = run_swarm(
            jobs, setting, folder=job.path("noise", name), place=training_place(recipe.run),
            group=even_group(len(jobs), fitting(setting, proxy.group, recipe.run)),
        )  # fmt: skip
    weights = {t.name: t.weight for t in recipe.targets}
    losses = np.array([[t.losses[n].bits_per_byte for n in weights] for t in trials])
    cube = losses.reshape(seeds, thetas, -1)
    objective = np.average(cube, axis=2, weights=list(weights.values()))
    rows = {"objective": summary(objective)}
    rows |= {target: summary(cube[:, :, i]) for i, target in enumerate(weights)}
    sys.stdout.write(f"{name}: {thetas} θ x {seeds} seeds, {time.monotonic() - begun:.0f} s\n")
    for row, values in rows.items():
        sys.stdout.write(f"  {row:16}" + "  ".join(f"{k} {v:.4f}" for k, v in values.items()) + "\n")
    sys.stdout.flush()
    return rows


def signal_of(folder: str) -> dict[str, dict[str, float | str]]:
    """Print and return what a finished search says of spread, noise and surrogate."""
    proposal = read_value(f"{folder}/search/proposal.json", Proposal)
    rows: dict[str, dict[str, float | str]] = {
        "objective": {
            "noise": proposal.noise_sd, "spread": proposal.spread_sd,
            "ratio": proposal.spread_sd / proposal.noise_sd,
        }
    }  # fmt: skip
    for report in proposal.diagnostics:
        rows[report.target] = {
            "noise": report.noise_sd, "spread": report.spread_sd, "ratio": report.spread_sd / report.noise_sd,
            "spearman": report.spearman, "low": report.spearman_low, "high": report.spearman_high,
            "ceiling": max(0.0, 1 - (report.noise_sd / report.spread_sd) ** 2) ** 0.5,
        }  # fmt: skip
    for row, values in rows.items():
        sys.stdout.write(f"{row:16}" + "  ".join(f"{k} {v:.4f}" for k, v in values.items()) + "\n")
    return rows


def summary(values: NDArray[np.float64]) -> dict[str, float]:
    """Summarise losses (S, K)."""
    ratios = []
    rng = np.random.default_rng(0)
    for _ in range(400):
        take = rng.integers(0, values.shape[1], values.shape[1])
        ratios.append(spread_of(values[:, take]) / max(noise_of(values[:, take]), 1e-12))
    noise, spread = noise_of(values), spread_of(values)
    seeds, thetas = values.shape
    rest = values - values.mean(axis=1, keepdims=True)
    rest = rest - rest.mean(axis=0)
    common = np.sqrt((rest**2).sum() / ((seeds - 1) * (thetas - 1)))
    true = np.sqrt(max(0.0, values.mean(axis=0).var(ddof=1) - common**2 / seeds))
    low, high = np.quantile(ratios, [0.05, 0.95])
    return {
        "mean": values.mean(), "noise": noise, "common": common, "spread": spread, "true": true,
        "ratio": spread / noise, "ratio_low": low, "ratio_high": high, "ratio_common": spread / common,
    }  # fmt: skip


def noise_of(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(values.var(axis=0, ddof=1).mean()))


def spread_of(values: NDArray[np.float64]) -> float:
    return float(values.std(axis=1, ddof=1).mean())


if __name__ == "__main__":
    main()
