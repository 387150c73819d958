"""A QuaDMix search with known truth: 26 domains x 7 parameters = 182 coordinates and the loss they lead to.

Run: python benchmarks/simulator.py [--worlds 3] [--swarms 3] [--variant wide] [--cache FILE]
(two minutes on one core), or import `make_world` to compare ways of searching in the same worlds.

A world is a pool of documents with a latent quality that no search may see, three scorers per domain
(useful, useless or misleading) and five tasks. A point of the unit box says, domain by domain, how to merge
the scorers and which copies to take (Eq. 1-3); the copies are scaled to a token budget, extra copies of a
document are worth less and less, and each task's loss is a power law of the worth it is shown:

    L_k = E_k + b_k (0.05 + Σ_m T_km p_m U_m ρ_m)^-γ_k

with p the domain's share of the tokens, U the mean worth of its copies and ρ what repetition leaves of it.
Losses, scores and percentiles: smaller = better.

Numbers marked "open" are not given by the study that this rebuilds. They are first guesses, kept because
with them a published recipe (`published`) and the best trial of a random swarm reach about the share of the
attainable gain that the study reports for them (.39 and .40 after 100 trials, .45 and .40 after 300). No
surrogate or search of quadmix was run to choose them.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import lightgbm
import numpy as np
from cmaes import SepCMA
from numpy.typing import NDArray
from scipy.stats import spearmanr

from quadmix.io.atomic import read_json, write_json
from quadmix.rng import derived_seed, stream
from quadmix.search.table import SHARE, FeatureTable

Floats = NDArray[np.float64]
Variant = Literal["wide", "paper"]

DOMAINS, SCORERS, TASKS = 26, 3, 5
PARAMETERS = ("weight.0", "weight.1", "weight.2", "steepness", "cutoff", "exponent", "floor")
SIZE = DOMAINS * len(PARAMETERS)

SIZE_SPREAD = 1.0  # natural domain sizes are log-normal(0, 1)
WORTH = (0.1, 0.7)  # κ: a document of latent quality u is worth exp(κ_m u)
CORRELATION = (0.0, 0.85)  # of a scorer with u ...
MISLEADING, MISLEADING_MULTIPLE = 0.25, -0.6  # ... of which a quarter at a negative multiple (multiple: open)
TRANSFER_DENSITY = 0.3  # open: how many domains a task can learn from (at least one)
TRANSFER_SHAPE = 1.0  # open: shape of the Gamma distribution of a transfer that is not zero
TASK_LEVEL, TASK_SCALE = (1.5, 2.5), (0.5, 1.5)  # open: E_k and b_k, in nats
TASK_EXPONENT = (0.08, 0.25)  # γ_k
NO_DATA = 0.05  # effective share of a task that nothing selected helps
SATURATION = 4.0  # all further copies of a document together are worth this many
NOTHING = 1e-12  # a domain with floor 0 and an empty window counts as its limit from above

TIES = 1e-9  # equal merged scores are ordered by a fixed number per document
CHUNK_COPIES = 100_000  # documents x vectors at a time: arrays that stay in the processor's cache

REFERENCE_DRAWS = 2_000
POOL, POOL_CHUNK, AVERAGED = 100_000, 10_000, 10
REGMIX = {  # LightGBM as in RegMix's notebook: all else at the library's defaults
    "objective": "regression", "metric": "l1", "learning_rate": 0.01, "num_iterations": 1000, "seed": 42,
    "num_threads": 1, "verbosity": -1,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Prior:
    """What a coordinate in [0, 1] means and how large the pool is. budget: tokens as a share of the pool."""

    documents: int
    budget: float
    cutoff: tuple[float, float]
    log_floor: bool  # ε log-uniform in `floor`, else uniform
    floor: tuple[float, float]
    iterations: int  # of the search for the optimum


PRIORS: dict[Variant, Prior] = {
    "wide": Prior(
        documents=64, budget=0.6, cutoff=(0.01, 1.0), log_floor=True, floor=(1e-4, 0.1), iterations=900
    ),
    "paper": Prior(
        documents=256, budget=0.06, cutoff=(0.0, 0.1), log_floor=False, floor=(0.0, 1e-3), iterations=500
    ),
}
RESTARTS, POPULATION, SIGMA = 2, 24, 0.25


@dataclass(frozen=True, kw_only=True)
class _Mixtures:
    """What n vectors select. All but `total` (n,): (M, n); scores: (M, N, n) or None when not asked for."""

    share: Floats  # of the tokens
    worth: Floats  # U: mean worth of the selected copies
    retained: Floats  # ρ: worth of the copies over worth without repetition
    repeats: Floats  # copies per distinct selected document
    scores: Floats | None  # mean percentile of the selected copies
    total: Floats  # copies before they are scaled to the budget, as a share of the pool


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """One pool and its tasks. M domains, N scorers, D documents per domain, K tasks.

    sizes: (M,) natural shares. percentiles: (M, N, D) of each scorer inside the domain, 0 = best. worth:
    (M, D), hidden. transfer: (K, M). level, scale, exponent: (K,) E, b and γ of the tasks.
    """

    seed: int
    variant: Variant
    sizes: Floats
    percentiles: Floats
    worth: Floats
    transfer: Floats
    level: Floats
    scale: Floats
    exponent: Floats

    @property
    def size(self) -> int:
        """Number of coordinates; domain m's are `PARAMETERS` at 7 m to 7 m + 6."""
        return SIZE

    @property
    def prior(self) -> Prior:
        return PRIORS[self.variant]

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """Return (n, 182) random parameter vectors, uniform in the unit box."""
        return rng.random((n, SIZE))

    def losses(self, points: Floats) -> Floats:
        """Return (n, 5) true losses of the tasks in nats; points: (n, 182), clipped to the unit box."""
        return np.concatenate([self._task_losses(m) for m in self._mixtures(points, scores=False)])

    def loss(self, points: Floats) -> Floats:
        """Return (n,) the mean of the tasks' true losses; points: (n, 182)."""
        return self.losses(points).mean(axis=1)

    def table(self, points: Floats) -> FeatureTable:
        """Return what n vectors select (131 columns), then their coordinates (182), as a (n, 313) table.

        Columns: token share per domain; mean percentile per domain and scorer, domain by domain; log copies
        per distinct document under the budget; log copies before scaling; coordinates as in `points`. Nothing
        of the hidden worth or of the value of repeated copies enters.
        """
        realised = np.concatenate([_columns(mixture) for mixture in self._mixtures(points, scores=True)])
        names, types, domains = _layout()
        values = np.concatenate([realised, points], axis=1)
        return FeatureTable(values=values, names=names, types=types, domains=domains)

    @cached_property
    def reference(self) -> Floats:
        """(2000,) true losses of fixed random vectors: where the spread and the mean come from."""
        return self.loss(self.draw(stream(self.seed, "simulator", "reference"), REFERENCE_DRAWS))

    @property
    def spread(self) -> float:
        """Standard deviation of the loss over random vectors, in nats."""
        return float(self.reference.std())

    def _mixtures(self, points: Floats, *, scores: bool) -> Iterator[_Mixtures]:
        rows = max(1, CHUNK_COPIES // (DOMAINS * self.prior.documents))
        for start in range(0, len(points), rows):
            yield _mixtures_of(self, np.clip(points[start : start + rows], 0.0, 1.0), scores=scores)

    def _task_losses(self, mixture: _Mixtures) -> Floats:
        """Return (n, K)."""
        shown = (self.transfer @ (mixture.share * mixture.worth * mixture.retained)).T
        return self.level + self.scale * (NO_DATA + shown) ** -self.exponent


def make_world(seed: int, *, variant: Variant = "wide") -> World:
    """Return the world of a seed.

    variant: "wide" (λ log-uniform in 1-1000, ω 0.01-1, η 0-1, ε log-uniform in 1e-4-0.1, 64 documents per
    domain, budget 0.6 of the pool) or "paper" (λ = 10^3u, ω = 0.1 u, η = u, ε = u / 1000, 256, 0.06).
    """
    rng = stream(seed, "simulator", "world", variant)
    shape = (DOMAINS, SCORERS, PRIORS[variant].documents)
    sizes = rng.lognormal(0.0, SIZE_SPREAD, DOMAINS)
    quality = rng.standard_normal((DOMAINS, shape[2]))
    correlation = rng.uniform(*CORRELATION, shape[:2])
    misleading = rng.permutation(correlation.size).reshape(shape[:2]) < MISLEADING * correlation.size
    correlation = np.where(misleading, MISLEADING_MULTIPLE, 1.0) * correlation
    own = np.sqrt(1.0 - correlation**2)[:, :, None] * rng.standard_normal(shape)
    opinion = correlation[:, :, None] * quality[:, None, :] + own
    kappa = rng.uniform(*WORTH, DOMAINS)
    return World(
        seed=seed,
        variant=variant,
        sizes=sizes / sizes.sum(),
        percentiles=(np.argsort(np.argsort(-opinion, axis=2), axis=2) + 0.5) / shape[2],
        worth=np.exp(kappa[:, None] * quality),
        transfer=_transfer(rng),
        level=rng.uniform(*TASK_LEVEL, TASKS),
        scale=rng.uniform(*TASK_SCALE, TASKS),
        exponent=rng.uniform(*TASK_EXPONENT, TASKS),
    )


def _transfer(rng: np.random.Generator) -> Floats:
    """Return (K, M) sparse Gamma transfer; a task's mean over all domains is 1, so that γ alone says how
    steep it is."""
    strength = rng.gamma(TRANSFER_SHAPE, 1.0, (TASKS, DOMAINS))
    order = np.argsort(rng.random((TASKS, DOMAINS)), axis=1)
    helpful = (rng.random((TASKS, DOMAINS)) < TRANSFER_DENSITY) | (order == 0)
    strength = np.where(helpful, strength, 0.0)
    return strength / strength.mean(axis=1, keepdims=True)


def _parameters(points: Floats, prior: Prior) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return merge weights (M, n, N) that sum to 1 and λ, ω, η, ε as (M, n, 1); points: (n, 182)."""
    unit = points.reshape(len(points), DOMAINS, len(PARAMETERS)).transpose(1, 0, 2)
    weights, total = unit[..., :SCORERS], unit[..., :SCORERS].sum(axis=2, keepdims=True)
    weights = np.where(total > 0.0, weights / np.where(total > 0.0, total, 1.0), 1.0 / SCORERS)
    steepness, cutoff, exponent, floor = (unit[..., i : i + 1] for i in range(SCORERS, len(PARAMETERS)))
    low, high = prior.floor
    floor = low * (high / low) ** floor if prior.log_floor else low + (high - low) * floor
    cutoff = prior.cutoff[0] + (prior.cutoff[1] - prior.cutoff[0]) * cutoff
    return weights, 10.0 ** (3.0 * steepness), cutoff, exponent, np.maximum(floor, NOTHING)


def _mixtures_of(world: World, points: Floats, *, scores: bool) -> _Mixtures:
    """Return what (n, 182) vectors select.

    Documents stand in order of their merged score, so the curve is evaluated on one grid of percentiles, and
    only as far as the widest window reaches; behind it a document gets ε copies, whoever it is.
    """
    weights, steepness, cutoff, exponent, floor = _parameters(points, world.prior)
    documents = world.prior.documents
    ranks = (np.arange(documents) + 0.5) / documents
    width = int(np.searchsorted(ranks, cutoff.max(), side="right"))
    ranks = ranks[:width]
    # weights sum to 1, so a tie-break added to every scorer is added once to the merged score
    tie = TIES * np.arange(documents) / documents
    order = np.argsort(weights @ (world.percentiles + tie), axis=2)[..., :width]

    behind = np.maximum(steepness * (cutoff - ranks), 0.0)
    window = np.exp(exponent * (np.log(2.0) - np.log1p(np.exp(-behind)))) * (ranks <= cutoff)
    mean = window.sum(axis=2) / documents + floor[..., 0]  # copies per document before scaling
    total = world.sizes @ mean
    factor = world.prior.budget / total
    copies, rest = (window + floor) * factor[:, None], floor[..., 0] * factor
    over, rest_over = np.maximum(copies - 1.0, 0.0), np.maximum(rest - 1.0, 0.0)
    distinct = copies.sum(axis=2) - over.sum(axis=2) + (documents - width) * (rest - rest_over)
    worthwhile = distinct + _saturated(over).sum(axis=2) + (documents - width) * _saturated(rest_over)
    taken = mean * factor * documents

    def selected_mean(values: Floats) -> Floats:
        """(M, D) -> (M, n): mean over selected copies."""
        inside = np.take_along_axis(values[:, None, :], order, axis=2)
        everyone = floor[..., 0] * values.sum(axis=1)[:, None]
        return (np.einsum("mnw,mnw->mn", window, inside) + everyone) / (mean * documents)

    rated = [selected_mean(world.percentiles[:, n]) for n in range(SCORERS)] if scores else None
    return _Mixtures(
        share=world.sizes[:, None] * mean / total,
        worth=selected_mean(world.worth),
        retained=worthwhile / taken,
        repeats=taken / distinct,
        scores=None if rated is None else np.stack(rated, axis=1),
        total=total,
    )


def _saturated(over: Floats) -> Floats:
    """Return what copies beyond a document's first are worth together."""
    return -SATURATION * np.expm1(-over / SATURATION)


def _columns(mixture: _Mixtures) -> Floats:
    """Return (n, 131) realised columns in the order of `_layout`."""
    assert mixture.scores is not None
    scores = mixture.scores.reshape(DOMAINS * SCORERS, -1)
    return np.concatenate([mixture.share, scores, np.log(mixture.repeats), np.log(mixture.total)[None]]).T


def _layout() -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
    """Return names, types and domains of the 313 columns of `World.table`."""
    every = range(DOMAINS)
    rows = [
        *((f"share[{m}]", SHARE, m) for m in every),
        *((f"score[{m},{n}]", "score", m) for m in every for n in range(SCORERS)),
        *((f"repeats[{m}]", "repetition", m) for m in every),
        ("total", "total", DOMAINS),
        *((f"raw[{m},{parameter}]", f"raw.{parameter}", m) for m in every for parameter in PARAMETERS),
    ]
    names, types, domains = zip(*rows, strict=True)
    return names, types, domains


def mean_random(world: World) -> float:
    """Return the mean true loss of random vectors (2,000 fixed ones)."""
    return float(world.reference.mean())


def optimum(world: World, *, cache: Path | None = None) -> float:
    """Return the least true loss that CMA-ES finds on the truth itself: 2 restarts x 900 iterations x 24.

    (500 iterations in a "paper" world.) cache: a JSON file of known optima, read and extended. The key holds
    the world's mean and spread, so a changed simulator never meets an old number.
    """
    effort = f"{RESTARTS}x{world.prior.iterations}x{POPULATION}"
    key = f"{world.variant}/{world.seed}/{mean_random(world):.9g}/{world.spread:.9g}/{effort}"
    known: dict[str, float] = read_json(cache) if cache is not None and cache.exists() else {}
    if key not in known:
        known[key] = min(_descend(world, restart) for restart in range(RESTARTS))
        if cache is not None:
            write_json(cache, known)
    return known[key]


def _descend(world: World, restart: int) -> float:
    """Return the least loss of one run of CMA-ES with a diagonal covariance, at points clipped to the box."""
    start = stream(world.seed, "simulator", "optimum", restart)
    search = SepCMA(
        mean=0.5 + 0.1 * (start.random(SIZE) - 0.5),
        sigma=SIGMA,
        seed=derived_seed(world.seed, "simulator", "optimum", restart) % 2**32,
        population_size=POPULATION,
    )
    best = np.inf
    for _ in range(world.prior.iterations):
        asked = np.stack([search.ask() for _ in range(POPULATION)])
        inside = np.clip(asked, 0.0, 1.0)
        values = world.loss(inside)
        best = min(best, float(values.min()))
        # distance from the box costs a little, or the mean would drift off where clipping hides it
        cost = values + world.spread * ((asked - inside) ** 2).sum(axis=1)
        search.tell(list(zip(asked, cost.tolist(), strict=True)))
    return best


def attainable(world: World, loss_value: float, *, cache: Path | None = None) -> float:
    """Return the share of the gain from the mean random vector (0) to the optimum (1) that a loss reaches."""
    start = mean_random(world)
    return (start - loss_value) / (start - optimum(world, cache=cache))


def noisy(world: World, points: Floats, seed: int, share: float = 0.05, *, first: int = 0) -> Floats:
    """Return (n,) measured losses: truth + normal noise of `share` of the variance under random vectors.

    Row i gets the noise of (seed, first + i), whatever else is measured with it; a second batch of the same
    swarm passes how many were measured before as `first`.
    """
    noise = stream(seed, "simulator", "noise", world.variant, world.seed).standard_normal(first + len(points))
    return world.loss(points) + np.sqrt(share) * world.spread * noise[first:]


def swarm(world: World, n: int, seed: int, share: float = 0.05) -> tuple[Floats, Floats]:
    """Return n random vectors (n, 182) and their measured losses (n,); a larger n extends a smaller one."""
    points = world.draw(stream(seed, "simulator", "swarm", world.variant, world.seed), n)
    return points, noisy(world, points, seed, share)


def regmix(points: Floats, measured: Floats) -> lightgbm.Booster:
    """Return LightGBM with RegMix's settings on (n, 182) raw coordinates."""
    return lightgbm.train(dict(REGMIX), lightgbm.Dataset(points, measured))


def published(world: World, n: int, seed: int, share: float = 0.05) -> Floats:
    """Return (182,) the choice of the published recipe after n trials (`swarm`): LightGBM on raw coordinates,
    100,000 random vectors, mean of the 10 with the least prediction."""
    return random_pool(world, regmix(*swarm(world, n, seed, share)), seed)


def random_pool(world: World, model: lightgbm.Booster, seed: int) -> Floats:
    """Return (182,) the mean of the 10 best predicted of 100,000 random vectors."""
    rng = stream(seed, "simulator", "pool", world.variant, world.seed)
    best, predicted = np.empty((0, SIZE)), np.empty(0)
    for _ in range(POOL // POOL_CHUNK):
        fresh = world.draw(rng, POOL_CHUNK)
        best = np.concatenate([best, fresh])
        predicted = np.concatenate([predicted, np.asarray(model.predict(fresh, num_threads=1))])
        keep = np.argsort(predicted, kind="stable")[:AVERAGED]
        best, predicted = best[keep], predicted[keep]
    return np.clip(best.mean(axis=0), 0.0, 1.0)


def _speed(world: World) -> float:
    """Return vectors per second."""
    points = world.draw(stream(0, "simulator", "speed"), 2_000)
    start = time.perf_counter()
    world.loss(points)
    return len(points) / (time.perf_counter() - start)


def _row(world: World, n: int, swarms: int, cache: Path | None) -> tuple[float, float, float]:
    """Return shares of the attainable gain of the best observed trial and of `published`, and LightGBM's
    Spearman on 1,000 unseen vectors, each the mean over swarms."""
    unseen = world.draw(stream(world.seed, "simulator", "unseen"), 1_000)
    truth = world.loss(unseen)
    found: list[tuple[float, float, float]] = []
    for seed in range(swarms):
        points, measured = swarm(world, n, seed)
        model = regmix(points, measured)
        chosen = np.stack([points[np.argmin(measured)], random_pool(world, model, seed)])
        observed, proposed = (attainable(world, value, cache=cache) for value in world.loss(chosen).tolist())
        predicted = np.asarray(model.predict(unseen, num_threads=1))
        found.append((observed, proposed, float(spearmanr(predicted, truth).statistic)))
    observed, proposed, rank = np.mean(found, axis=0).tolist()
    return observed, proposed, rank


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=3, help="seeds 0, 1, ...")
    parser.add_argument("--swarms", type=int, default=3, help="random swarms per world that are averaged")
    parser.add_argument("--variant", choices=sorted(PRIORS), default="wide")
    parser.add_argument("--cache", type=Path, help="JSON file of optima, read and extended")
    options = parser.parse_args()
    sys.stdout.write("world  spread  mean     optimum  vectors/s  trials  observed  published  spearman\n")
    for seed in range(options.worlds):
        world = make_world(seed, variant=options.variant)
        facts = f"{seed:5}  {world.spread:.4f}  {mean_random(world):.4f}  "
        facts += f"{optimum(world, cache=options.cache):.4f}  {_speed(world):11.0f}"
        for n in (100, 300):
            observed, proposed, rank = _row(world, n, options.swarms, options.cache)
            sys.stdout.write(f"{facts}  {n:6}  {observed:8.3f}  {proposed:9.3f}  {rank:8.3f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
