"""Successive halving: which models to train next, as a function of the trials that are done.

In: the rules and all trials so far, in any order. Out: a `Race`, whose `jobs` are to be trained next. The
first round trains every candidate and the control; each further one the better half of the candidates and
the control, with as many seeds more; it ends when at most `finalists` candidates are left or `rounds` rounds
are done. What is trained depends on the losses alone, so a resume after a kill goes the same way.

A label leaves by its rank in mean objective over the common seeds; candidates that break a ceiling rank last,
equal means by name. Halving can cost the best candidate its place, never the validity of the final interval
(`confirm.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from quadmix.search.confirm import anchored, broken_ceilings, complete_block, label_means
from quadmix.types import Objective, Trial
from quadmix.types.results import Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """candidates: labels without the control, in the order of training. seeds: of each round."""

    candidates: tuple[str, ...]
    control: str
    seeds: int
    rounds: int
    finalists: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """round: the one to train, or the last. labels: who is in it. jobs: all of the round, seed by seed, as
    (label, number of the seed), also where some are trained already; none when the race is over.
    standings: who left and, at the end, who stayed, best first."""

    round: int
    labels: tuple[str, ...]
    jobs: tuple[tuple[str, int], ...]
    standings: tuple[Standing, ...]


def run_race(rules: Rules, trials: Sequence[Trial], objective: Objective) -> Race:
    """Return where the race stands after `trials`: one per label and seed, failed ones included.

    A label whose models all failed leaves; without a finished control the race is over.
    """
    labels, gone = (*rules.candidates, rules.control), list[Standing]()
    for number in range(1, rules.rounds + 1):
        trained = {name: {t.seed for t in trials if t.label == name} for name in labels}
        if any(len(seeds) < number * rules.seeds for seeds in trained.values()):
            numbers = range((number - 1) * rules.seeds, number * rules.seeds)
            jobs = tuple((name, seed) for seed in numbers for name in labels)
            return Race(round=number, labels=labels, jobs=jobs, standings=tuple(gone))
        # Every round but the last is left by someone who has no later seeds, so the common ones end with it.
        common = set.intersection(*trained.values())
        own = [t for t in trials if t.label in trained and t.seed in common]
        found = _round(rules, number, own, objective)
        dead = [_failed(name, number, own) for name in labels if name not in {s.label for s in found}]
        running = sum(standing.label != rules.control for standing in found)
        stop = number == rules.rounds or running <= rules.finalists or len(found) == running
        keep = running if stop else survivors(running, rules.finalists)
        stay, leave = _split(found, rules.control, keep)
        gone = [*leave, *dead, *gone]
        labels = tuple(name for name in labels if name in {s.label for s in stay})
        if stop:
            return Race(round=number, labels=labels, jobs=(), standings=(*stay, *gone))
    raise AssertionError("a race has at least one round")


def survivors(candidates: int, finalists: int) -> int:
    """Return how many of that many candidates go on: the better half, but no fewer than the finalists."""
    return max(finalists, -(-candidates // 2))


def round_sizes(candidates: int, rounds: int, finalists: int) -> tuple[int, ...]:
    """Return how many labels, the control included, are trained in each round if no model fails."""
    sizes = [candidates + 1]
    while len(sizes) < rounds and sizes[-1] - 1 > finalists:
        sizes.append(survivors(sizes[-1] - 1, finalists) + 1)
    return tuple(sizes)


def _round(rules: Rules, number: int, trials: Sequence[Trial], objective: Objective) -> list[Standing]:
    """Return the standings of the labels with a finished model, candidates that break a ceiling last."""
    objective = anchored(objective, trials, rules.control)
    means, broken = label_means(trials, objective), broken_ceilings(trials, objective)
    seeds = len(complete_block(trials, objective).seeds)
    barred = {name for name in broken if name != rules.control}
    ordered = sorted(means, key=lambda name: (name in barred, means[name], name))
    lead = next((means[name] for name in ordered if name != rules.control), float("nan"))
    count = len(set(means) - {rules.control})
    return [
        Standing(
            label=name, round=number, seeds=seeds, mean=means[name], behind=means[name] - lead,
            left=broken.get(name, f"among the worse of {count} candidates"),
        )
        for name in ordered
    ]  # fmt: skip


def _split(found: Sequence[Standing], control: str, keep: int) -> tuple[list[Standing], list[Standing]]:
    """Return the control with the `keep` best candidates, and the others, who say why they left."""
    candidates = [s for s in found if s.label != control]
    names = {control, *(s.label for s in candidates[:keep])}
    stay = [
        Standing(label=s.label, round=s.round, seeds=s.seeds, mean=s.mean, behind=s.behind)
        for s in found
        if s.label in names
    ]
    return stay, [s for s in found if s.label not in names]


def _failed(label: str, number: int, trials: Sequence[Trial]) -> Standing:
    reasons = [t.reason for t in trials if t.label == label and t.reason]
    some = any(t.label == label and t.status == "done" for t in trials)
    why = "too few models finished" if some else "no model finished"
    why += f": {reasons[0]}" if reasons else ""
    nan = float("nan")
    return Standing(label=label, round=number, seeds=0, mean=nan, behind=nan, left=why)
