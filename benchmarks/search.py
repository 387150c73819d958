"""The adaptive search against the published recipe in a simulator with known truth; how long a search takes.

    python benchmarks/search.py [--trials 100,300] [--worlds 3] [--swarms 2] [--variant wide|paper]
                                [--cache FILE]
    python benchmarks/search.py --time FOLDER     # RegMix's 512 released trials; 300 trials of 182 parameters

The simulator (benchmarks/simulator.py) has 26 domains x 7 parameters and 5 % measurement noise. Both searches
see the same kind of noisy trials and may use the same number of them; ours in three batches (4:2:1), the
first of them random vectors too. Score: share of the attainable gain, (mean random - found) / (mean random -
optimum of the truth). Worlds differ in everything, swarms in their trials and noise. `observed` is the best
measured trial of the published recipe's random swarm. The last line is JSON.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import simulator

from quadmix.engine.threads import one_thread
from quadmix.mixing.prior import Prior
from quadmix.mixing.quota import fit_budget
from quadmix.recipe import SearchSection
from quadmix.rng import derived_seed, doc_keys, stream
from quadmix.search.adaptive import Known, batch_sizes, next_batch
from quadmix.search.find import RUNS
from quadmix.search.learning import best_points
from quadmix.search.model import Fit, cross_fit, fit_model
from quadmix.search.optimise import THOROUGH
from quadmix.search.propose import SearchContext, first_thetas, make_space, propose
from quadmix.search.swarm import check_swarm, make_objective
from quadmix.search.table import FeatureTable
from quadmix.types import Annotations, CriterionInfo, Loss, Objective, Trial

BARS = {"100": 0.80, "300": 0.87}
SECONDS = {"512 trials, 17 shares, 13 targets": 120.0, "300 trials, 182 parameters": 60.0}


@dataclass(frozen=True)
class WorldSpace:
    """A simulated world as a space of the search; its unit box is the published prior."""

    world: simulator.World

    @property
    def size(self) -> int:
        return self.world.size

    @property
    def groups(self) -> tuple[tuple[str, str], ...]:
        names = ("weight[0]", "weight[1]", "weight[2]", "steepness", "cutoff", "exponent", "floor")
        return tuple((name, f"d{m:02d}") for m in range(self.size // 7) for name in names)

    def table(self, points: np.ndarray) -> FeatureTable:
        return self.world.table(points)

    def published_table(self, points: np.ndarray) -> FeatureTable:
        return self.world.table(points)

    def select(self, points: np.ndarray) -> tuple[FeatureTable, np.ndarray]:
        return self.table(points), np.ones(len(points), dtype=bool)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return self.world.draw(rng, count)

    def design(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return self.world.draw(rng, count)

    def average(self, points: np.ndarray) -> np.ndarray:
        return points.mean(axis=0)

    def swap(self, into: np.ndarray, source: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
        mixed = into.copy()
        mixed[coordinates] = source[coordinates]
        return mixed


def known_at(space: WorldSpace, points: np.ndarray, measured: np.ndarray) -> tuple[Known, Objective]:
    ids = [f"t{i:04d}" for i in range(len(points))]
    swarm, _ = check_swarm(ids, space.table(points), {"loss": measured})
    return Known(space=space, swarm=swarm, points=points), make_objective({"loss": 1.0}, swarm.losses)


def adaptive(world: simulator.World, trials: int, seed: int, fit: Fit) -> np.ndarray:
    """Return the point that the default search proposes after `trials` noisy measurements."""
    space = WorldSpace(world)
    sizes = batch_sizes(trials)
    points = space.design(stream(seed, "design"), sizes[0])
    measured = simulator.noisy(world, points, seed)
    for size in sizes[1:]:
        known, objective = known_at(space, points, measured)
        model = fit_model(known.swarm, cross_fit(known.swarm, fit, stream(seed, "folds")), objective)
        new = next_batch(known, model, size, seed=seed).points
        measured = np.concatenate([measured, simulator.noisy(world, new, seed, first=len(points))])
        points = np.concatenate([points, new])
    known, objective = known_at(space, points, measured)
    model = fit_model(known.swarm, cross_fit(known.swarm, fit, stream(seed, "folds")), objective)
    return best_points(known, model, RUNS, derived_seed(seed, "final"), THOROUGH)[0]


def compare(arguments: argparse.Namespace) -> None:
    results: dict[str, dict[str, list[float]]] = {}
    for trials in map(int, arguments.trials.split(",")):
        rows = results[str(trials)] = {"ours": [], "published": [], "observed": []}
        for number in range(arguments.worlds):
            world = simulator.make_world(number, variant=arguments.variant)

            def share(point: np.ndarray, world: simulator.World = world) -> float:
                loss = float(world.loss(point[None])[0])
                return float(simulator.attainable(world, loss, cache=arguments.cache))

            for swarm in range(arguments.swarms):
                seed = 100 * number + swarm
                points, measured = simulator.swarm(world, trials, seed, 0.05)
                rows["observed"].append(share(points[int(np.argmin(measured))]))
                rows["published"].append(share(simulator.published(world, trials, seed)))
                rows["ours"].append(share(adaptive(world, trials, seed, Fit(surrogate=arguments.surrogate))))
                shown = ", ".join(f"{name} {found[-1]:.3f}" for name, found in rows.items())
                print(f"{trials} trials, world {number}, swarm {swarm}: {shown}", flush=True)
    means = {n: {who: float(np.mean(v)) for who, v in rows.items()} for n, rows in results.items()}
    passed = {n: bool(means[n]["ours"] >= bar) for n, bar in BARS.items() if n in means}
    print(json.dumps({"variant": arguments.variant, "means": means, "each": results, "passed": passed}))


def clock(folder: Path) -> None:
    """Time a whole proposal: validation, fits, searches, published recipe, learning curve, effects."""
    from quadmix.search.exchange import ShareWishes, read_mixtures
    from quadmix.search.shares import propose_shares
    from quadmix.search.space import ShareBounds

    table = read_mixtures(str(folder / "train_mixture_1m.csv"), str(folder / "train_pile_loss_1m.csv"))
    rng = np.random.default_rng(0)
    first = list(table.metrics.items())[:3]  # the released file has ten targets: three come twice, with noise
    metrics = {**table.metrics, **{f"{n} again": y + 0.01 * rng.normal(size=len(y)) for n, y in first}}
    bounds = ShareBounds(domains=table.domains, low=np.zeros(17), high=np.ones(17))
    from dataclasses import replace

    seconds: dict[str, float] = {}
    start = time.monotonic()
    wishes = ShareWishes(
        weights={}, ceilings={}, bounds=bounds, natural=table.shares.mean(axis=0), current=None
    )
    propose_shares(replace(table, metrics=metrics), wishes, SearchSection(), seed=0)
    seconds["512 trials, 17 shares, 13 targets"] = time.monotonic() - start
    context, trials = made_up_run(300)
    start = time.monotonic()
    propose(trials, context, SearchSection())
    seconds["300 trials, 182 parameters"] = time.monotonic() - start
    passed = {name: bool(found <= SECONDS[name]) for name, found in seconds.items()}
    print(json.dumps({"seconds": seconds, "passed": passed}))


def made_up_run(count: int) -> tuple[SearchContext, list[Trial]]:
    """Return a search over 26 domains x 400 documents with 3 criteria (182 parameters) and `count` random
    trials with a made-up loss: a power law of the shares and scores of what they select."""
    rng = np.random.default_rng(0)
    domain = np.repeat(np.arange(26), 400).astype(np.int16)
    scores, tokens = rng.random((len(domain), 3)).astype(np.float32), rng.integers(50, 2000, len(domain))
    ids = [f"d{i}" for i in range(len(domain))]
    table = Annotations(
        doc_id=pa.chunked_array([pa.array(ids)]), keys=doc_keys(ids), tokens=tokens.astype(np.int32),
        domain=domain, scores=scores, held_out=np.zeros(len(ids), bool), split=np.zeros(len(ids), np.int32),
        criteria=tuple(
            CriterionInfo(name=f"c{n}", declared="higher", kind="column", digest="") for n in range(3)
        ),
        domains=tuple(f"domain{m}" for m in range(26)),
    )  # fmt: skip
    budget = 0.06 * float(tokens.sum())
    context = SearchContext(
        annotations=table, normalised=scores, prior=Prior(num_domains=26, num_criteria=3), budget=budget,
        fit=lambda theta: fit_budget(theta, table, budget), seed=0, target_weights={"loss": 1.0},
        planned=count,
    )  # fmt: skip
    thetas = list(first_thetas(context, count).values())
    features = make_space(context).features(thetas)
    shares, quality = features.values[:, :26], features.values[:, 26:104].reshape(count, 26, 3).mean(axis=2)
    worth = (shares * (1.2 - quality)) @ rng.gamma(0.5, 1.0, 26)
    losses = 1.0 + (0.05 + worth) ** -0.2 + 0.01 * rng.normal(size=count)
    return context, [
        Trial(
            trial_id=f"t{i:04d}", kind="prior", label="design", theta=theta, seed=0, selected_tokens=1,
            unique_tokens=1, train_tokens=1, epochs=1.0, heldout={}, status="done",
            losses={"loss": Loss(bits_per_byte=float(y), stderr=0.0, rows=1, tokens=1, bytes=1)},
        )
        for i, (theta, y) in enumerate(zip(thetas, losses, strict=True))
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", default="100,300")
    parser.add_argument("--worlds", type=int, default=3)
    parser.add_argument("--swarms", type=int, default=2)
    parser.add_argument("--variant", choices=("wide", "paper"), default="wide")
    parser.add_argument("--surrogate", default="auto")
    parser.add_argument("--cache", type=Path, help="JSON file for the worlds' optima, which are expensive")
    parser.add_argument("--time", type=Path, metavar="FOLDER", help="time a search instead")
    arguments = parser.parse_args()
    if arguments.time:
        clock(arguments.time)
        return
    with one_thread():
        compare(arguments)


if __name__ == "__main__":
    main()
