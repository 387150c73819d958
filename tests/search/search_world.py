"""A small world with a known truth: shares, latent quality and repetition decide the losses.

The loss of θ is computed from all documents by the `mixing` room, not from the search's features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from quadmix.mixing.prior import Prior, draw_theta, prior_mean
from quadmix.mixing.quota import fit_budget
from quadmix.mixing.select import select
from quadmix.recipe import SearchSection
from quadmix.rng import doc_keys
from quadmix.search.adaptive import Known, batch_sizes
from quadmix.search.model import CrossFit, Fit, Model, cross_fit, fit_model
from quadmix.search.propose import SearchContext, first_thetas, next_thetas
from quadmix.search.swarm import check_swarm, make_objective
from quadmix.search.table import FeatureTable
from quadmix.types import Annotations, Batch, CriterionInfo, Loss, Objective, Theta, Trial


@dataclass
class World:
    annotations: Annotations
    normalised: np.ndarray
    quality: np.ndarray
    transfer: np.ndarray
    prior: Prior
    budget: int
    noise: float
    weights: dict[str, float]

    def fit(self, theta: Theta) -> Theta:
        return fit_budget(theta, self.annotations, self.budget)

    def losses(self, theta: Theta) -> dict[str, float]:
        """True bits per byte of each target, without noise."""
        expected = select(theta, self.normalised, self.annotations, seed=0).expected
        tokens, domain = self.annotations.tokens, self.annotations.domain
        m = self.prior.num_domains
        mass = np.bincount(domain, weights=expected * tokens, minlength=m)
        # copies beyond the first are worth less
        worth = np.where(expected <= 1, expected, 1 + 0.6 * (expected - 1))
        useful = np.bincount(domain, weights=worth * tokens * np.exp(0.6 * self.quality), minlength=m)
        effective = self.transfer @ (useful / mass.sum())
        return {name: 0.8 + 0.5 * (0.1 + e) ** -0.4 for name, e in zip(self.weights, effective, strict=True)}

    def trial(self, number: int, theta: Theta, kind: str, label: str, seed: int) -> Trial:
        rng = np.random.default_rng([number, seed, 7])
        noisy = {n: v + self.noise * rng.normal() for n, v in self.losses(theta).items()}
        return make_trial(f"{kind}-{number:03d}", noisy, theta=theta, kind=kind, label=label, seed=seed)

    def repeats(self, count: int = 4) -> list[Trial]:
        centre = self.fit(prior_mean(self.prior))
        return [self.trial(i, centre, "repeat", "prior-mean", 100 + i) for i in range(count)]

    def swarm(self, count: int, repeats: int = 4) -> list[Trial]:
        drawn = [self.fit(t) for t in draw_theta(np.random.default_rng(11), self.prior, count)]
        trials = [self.trial(i, t, "prior", "theta", 1) for i, t in enumerate(drawn)]
        return trials + self.repeats(repeats)

    def context(self, planned: int, seed: int = 5, **changes) -> SearchContext:
        return SearchContext(**{
            "annotations": self.annotations, "normalised": self.normalised, "prior": self.prior,
            "fit": self.fit, "seed": seed, "target_weights": self.weights, "planned": planned,
            "budget": self.budget, "workers": 1, **changes,
        })  # fmt: skip

    def adaptive(
        self, count: int, section: SearchSection, context: SearchContext | None = None
    ) -> tuple[list[Trial], list[Batch]]:
        """Train three batches, each aimed by the trials before it, and four repeats of the control."""
        context = context or self.context(count)
        sizes, repeats, batches = batch_sizes(count), self.repeats(), []
        first = first_thetas(context, sizes[0])
        trials = [self.trial(i, t, "prior", label, 1) for i, (label, t) in enumerate(first.items())]
        for number, size in enumerate(sizes[1:], 2):
            found = next_thetas(trials + repeats, context, section, size)
            batches.append(found.batch)
            trials += [
                self.trial(len(trials) + i, t, "prior", f"batch-{number}-{i:04d}", 1)
                for i, t in enumerate(found.thetas)
            ]
        return trials + repeats, batches


def make_loss(value):
    return Loss(bits_per_byte=value, stderr=0.01, rows=9, tokens=90, bytes=300)


def make_trial(
    trial_id, losses, *, theta=None, kind="prior", label="theta", seed=1, status="done", reason=""
):
    return Trial(
        trial_id=trial_id, kind=kind, label=label, theta=theta, seed=seed, selected_tokens=1000,
        unique_tokens=800, train_tokens=2000, epochs=2.0, status=status, reason=reason,
        losses={n: make_loss(v) for n, v in losses.items()},
        heldout={"a": make_loss(1.5)},
    )  # fmt: skip


def make_annotations(domain, tokens, scores):
    ids = [f"doc-{i}" for i in range(len(tokens))]
    m = int(domain.max()) + 1
    return Annotations(
        doc_id=pa.chunked_array([pa.array(ids)]), keys=doc_keys(ids), tokens=tokens.astype(np.int32),
        domain=domain.astype(np.int16), scores=scores.astype(np.float32),
        held_out=np.zeros(len(ids), dtype=bool), split=np.zeros(len(ids), dtype=np.int32),
        criteria=tuple(
            CriterionInfo(name=f"c{n}", declared="higher", kind="column", digest="")
            for n in range(scores.shape[1])
        ),
        domains=tuple(f"d{i}" for i in range(m)),
    )  # fmt: skip


def make_world(*, documents=1200, domains=5, criteria=2, noise=0.002, seed=0) -> World:
    rng = np.random.default_rng(seed)
    size = rng.lognormal(0, 0.6, domains)
    domain = np.concatenate(
        [np.arange(domains), rng.choice(domains, documents - domains, p=size / size.sum())]
    )
    quality = rng.normal(size=documents)
    tokens = rng.lognormal(5, 0.7, documents).astype(int) + 10
    # how much of the latent quality each criterion sees in each domain; some see nothing
    sight = rng.uniform(-0.2, 0.9, (domains, criteria))[domain]
    hidden = sight * quality[:, None] + np.sqrt(1 - sight**2) * rng.normal(size=(documents, criteria))
    ranks = (np.argsort(np.argsort(-hidden, axis=0), axis=0) + 0.5) / documents
    transfer = rng.gamma(0.5, 1.0, (2, domains))
    annotations = make_annotations(domain, tokens, -hidden)
    return World(
        annotations=annotations, normalised=ranks.astype(np.float32), quality=quality, transfer=transfer,
        prior=Prior(num_domains=domains, num_criteria=criteria), budget=int(0.05 * tokens.sum()), noise=noise,
        weights={"easy": 1.0, "hard": 2.0},
    )  # fmt: skip


@dataclass
class BoxSpace:
    """A space whose features are its coordinates. allowed: (B, P) -> (B,) what the constraints permit."""

    names: tuple[tuple[str, str], ...]
    allowed: Callable[[np.ndarray], np.ndarray] = lambda points: np.ones(len(points), dtype=bool)

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def groups(self) -> tuple[tuple[str, str], ...]:
        return self.names

    def table(self, points: np.ndarray) -> FeatureTable:
        domains = sorted({domain for _, domain in self.names})
        return FeatureTable(
            values=points, names=tuple(f"{kind}[{domain}]" for kind, domain in self.names),
            types=tuple(kind for kind, _ in self.names),
            domains=tuple(domains.index(domain) for _, domain in self.names),
        )  # fmt: skip

    def published_table(self, points: np.ndarray) -> FeatureTable:
        return self.table(points)

    def select(self, points: np.ndarray) -> tuple[FeatureTable, np.ndarray]:
        return self.table(points), self.allowed(points)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        points = rng.random((50 * count, self.size))
        return points[self.allowed(points)][:count]

    def design(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return self.draw(rng, count)

    def average(self, points: np.ndarray) -> np.ndarray:
        return points.mean(axis=0)

    def swap(self, into, source, coordinates):
        mixed = into.copy()
        mixed[coordinates] = source[coordinates]
        return mixed


def box(size: int, **options) -> BoxSpace:
    return BoxSpace(tuple(("score", f"d{i}") for i in range(size)), **options)


def measured(
    space: BoxSpace,
    losses: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    count: int,
    *,
    seed=0,
    noise=0.0,
) -> tuple[Known, Objective]:
    """Measure random points of a space: target -> its true loss of points (B, P)."""
    rng = np.random.default_rng(seed)
    points = space.draw(rng, count)
    values = {t: truth(points) + noise * rng.normal(size=count) for t, truth in losses.items()}
    swarm, _ = check_swarm([f"t{i:03d}" for i in range(count)], space.table(points), values)
    objective = make_objective(dict.fromkeys(losses, 1.0), swarm.losses)
    return Known(space=space, swarm=swarm, points=points), objective


def fitted(known: Known, objective: Objective, kind: str = "ridge", seed: int = 0) -> tuple[CrossFit, Model]:
    cross = cross_fit(known.swarm, Fit(surrogate=kind, workers=1), np.random.default_rng(seed))
    return cross, fit_model(known.swarm, cross, objective)
