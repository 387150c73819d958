"""Fresh proxies decide: means, paired differences with honest errors, and a verdict in words.

In: trials of several labels (candidates and controls) with the same seeds. Out: `Measured` per
label, `Paired` against a control, and a `Confirmation`.

Trials of one seed share start and data order, so the design is a block:
objective[label, seed] = label + seed + residual. Only seeds that every label finished count. The residual
variance of this two-way model, with (L-1)(S-1) degrees of freedom, gives every difference the standard error
√(2 MSE / S); with two labels this is the paired t test.

The winner is the best of several, so its advantage is partly luck. `decide` therefore uses Dunnett's
simultaneous intervals (all labels against one control): they hold for whichever label is picked after
looking. After a race (`race.py`) they hold for all labels that entered it, although only the last are in the
block: the winner's difference is one of those that the unhalved design would have had.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2, norm, t

from quadmix.errors import SearchError
from quadmix.search.swarm import combined
from quadmix.types import Confirmation, Floats, Loss, Measured, Objective, Paired, Proposal, Trial
from quadmix.types.results import Standing

CONFIDENCE = 0.95
CONTROL = "prior-mean"
_POWER = 0.8  # with which the seeds said to be needed would show the gain
_MOST_SEEDS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """A complete design. values: (L, S) objective per label and seed; excluded: trial id -> reason."""

    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Floats
    excluded: dict[str, str]


def measure(trials: Sequence[Trial], objective: Objective) -> tuple[Measured, ...]:
    """Return mean and 95 % t interval of the objective per label, over all its finished seeds.

    Labels keep the order in which they first appear; values are in order of seeds. With one seed
    the interval is NaN. Labels without a finished trial are left out.
    """
    finished, _ = _finished(trials, objective)
    found: list[Measured] = []
    for label, own in finished.items():
        ordered = [own[seed] for seed in sorted(own)]
        values = objectives(ordered, objective)
        half = _half_width(values)
        found.append(
            Measured(
                label=label,
                mean=float(values.mean()),
                low=float(values.mean() - half),
                high=float(values.mean() + half),
                values=tuple(float(v) for v in values),
                losses=_mean_losses([trial.losses for trial in ordered]),
                heldout=_mean_losses([trial.heldout for trial in ordered]),
                selected_tokens=round(float(np.mean([trial.selected_tokens for trial in ordered]))),
                unique_tokens=round(float(np.mean([trial.unique_tokens for trial in ordered]))),
                epochs=float(np.mean([trial.epochs for trial in ordered])),
                seeds=tuple(sorted(own)),
            )
        )
    return tuple(found)


def paired(
    trials: Sequence[Trial], objective: Objective, control: str, *, comparisons: int = 1
) -> tuple[Paired, ...]:
    """Return label minus control for every other label, with 95 % intervals (negative = better).

    comparisons: for how many labels together the intervals hold (Dunnett's critical value; one: Student's).
    With fewer than two common seeds standard error and interval are NaN.
    Raises SearchError if the control has no finished trial.
    """
    block = complete_block(trials, objective)
    if control not in block.labels:
        seen = ", ".join(block.labels) or "none"
        raise SearchError(
            f"control {control!r} has no finished trial (finished labels: {seen}); re-run the confirmation"
        )
    others = [label for label in block.labels if label != control]
    error = _stderr_of_difference(block.values)
    critical = _critical(len(block.labels), len(block.seeds), comparisons)
    base = block.values[block.labels.index(control)]
    found: list[Paired] = []
    for label in others:
        row = block.values[block.labels.index(label)]
        difference = float((row - base).mean()) if len(block.seeds) else float("nan")
        found.append(
            Paired(
                label=label,
                control=control,
                difference=difference,
                low=difference - critical * error,
                high=difference + critical * error,
                stderr=error,
                pairs=len(block.seeds),
            )
        )
    return tuple(found)


def decide(
    proposal: Proposal, trials: Sequence[Trial], *, control: str = CONTROL, rounds: Sequence[Standing] = ()
) -> Confirmation:
    """Choose the candidate with the least mean objective and say whether it beats the control.

    Trials are labelled with the candidates' names; labels of no candidate, or of one without θ, are ignored.
    rounds: the standings of a race; the labels left in it are compared, with intervals that hold for all that
    entered. Confirmed means: the winner is not the control and the simultaneous 95 % interval of
    (winner - control) lies below 0. A candidate that breaks a ceiling cannot win. `theta` is the winner's,
    confirmed or not.
    """
    thetas = {c.name: c.theta for c in proposal.candidates if c.theta is not None}
    mine = [trial for trial in trials if trial.label in thetas]
    objective = anchored(proposal.objective, mine, control)
    gone = {standing.label for standing in rounds if standing.left}
    final = [trial for trial in mine if trial.label not in gone]
    means = label_means(final, objective)
    entered = len({standing.label for standing in rounds} - {control}) or len(means) - 1
    against = paired(final, objective, control, comparisons=entered)
    if not against:
        raise SearchError(f"only the control {control!r} has finished trials; re-run the confirmation")
    broken = broken_ceilings(final, objective)
    able = [label for label in means if label == control or label not in broken]
    winner = min(able, key=lambda label: means[label])
    best = _best(against, winner, able)
    confirmed = winner != control and bool(best.high < 0)
    reason = _reason(best, winner, confirmed=confirmed, compared=entered, held=len(able) - 1)
    _, excluded = _finished(mine, objective)
    excluded |= {c.name: "has no θ" for c in proposal.candidates if c.theta is None}
    reason += "".join(f" {label} cannot win: {why}." for label, why in broken.items() if label != control)
    if excluded:
        reason += f" Left out: {'; '.join(f'{name}: {why}' for name, why in excluded.items())}."
    return Confirmation(
        winner=winner,
        theta=thetas[winner],
        confirmed=confirmed,
        reason=reason,
        measured=measure(mine, objective),
        against=against,
        rounds=tuple(rounds),
        needed="" if confirmed else _needed(best, winner, labels=len(means), entered=entered),
    )


def objectives(trials: Sequence[Trial], objective: Objective) -> Floats:
    """Return the objective (K,) of finished trials, bits per byte."""
    losses = {t: np.array([trial.losses[t].bits_per_byte for trial in trials]) for t in objective.weights}
    return combined(objective, losses)


def complete_block(trials: Sequence[Trial], objective: Objective) -> Block:
    """Return the labels that finished at least half of the seeds, and the seeds that all of those finished.

    One label whose models diverged must not take the others' seeds away; it is named among the excluded.
    """
    finished, excluded = _finished(trials, objective)
    most = max(map(len, finished.values()), default=0)
    for label in [name for name, own in finished.items() if 2 * len(own) < most]:
        excluded[label] = f"finished {len(finished.pop(label))} of {most} seeds"
    labels = tuple(finished)
    common = set.intersection(*(set(own) for own in finished.values())) if finished else set[int]()
    seeds = tuple(sorted(common))
    values = np.array([objectives([finished[label][s] for s in seeds], objective) for label in labels])
    return Block(
        labels=labels, seeds=seeds, values=values.reshape(len(labels), len(seeds)), excluded=excluded
    )


def anchored(objective: Objective, trials: Sequence[Trial], control: str = CONTROL) -> Objective:
    """Return the objective as it is to be read among these models, which may be larger than the proxies.

    "Worst" is reckoned from the control's losses here, and a ceiling that is the control's loss is its loss
    here.
    """
    own, _ = _finished([t for t in trials if t.label == control], objective)
    models = [trial for seeds in own.values() for trial in seeds.values()]
    if not models:
        return objective
    means = {t: float(np.mean([m.losses[t].bits_per_byte for m in models])) for t in objective.weights}
    ceilings = {**objective.ceilings, **{t: means[t] for t in objective.relative}}
    return replace(
        objective, ceilings=ceilings, levels=means if objective.how == "worst" else objective.levels
    )


def label_means(trials: Sequence[Trial], objective: Objective) -> dict[str, float]:
    """Return the mean objective per label over the common seeds; over its own ones where none are common."""
    block = complete_block(trials, objective)
    if not block.seeds:
        return {m.label: m.mean for m in measure(trials, objective)}
    return dict(zip(block.labels, map(float, block.values.mean(axis=1)), strict=True))


def broken_ceilings(trials: Sequence[Trial], objective: Objective) -> dict[str, str]:
    """Return, by label, which ceiling its mean loss exceeds by more than the standard error of that mean.

    One seed breaks no ceiling: its error is unknown.
    """
    finished, _ = _finished(trials, objective)
    found: dict[str, str] = {}
    for label, own in finished.items():
        for target, ceiling in objective.ceilings.items():
            losses = np.array([trial.losses[target].bits_per_byte for trial in own.values()])
            if len(losses) < 2:
                continue
            error = float(losses.std(ddof=1) / np.sqrt(len(losses)))
            if losses.mean() - error > ceiling:
                loss = f"{losses.mean():.4f} ± {error:.4f}"
                found.setdefault(
                    label, f"its loss of {loss} on {target!r} exceeds the ceiling of {ceiling:g}"
                )
    return found


@cache
def dunnett_critical(labels: int, freedom: float, confidence: float = CONFIDENCE) -> float:
    """Return c with P(all |T_i| <= c) = confidence for `labels` comparisons with one control.

    T_i = (Z_i - Z_0) / (√2 s), s² ~ χ²/ν: equal correlations of 1/2. Given Z_0 = z and s,
    the T_i are independent, so the probability is a double integral; it is taken by quadrature.
    """
    x, w = np.polynomial.hermite_e.hermegauss(64)
    quantiles = (np.arange(400) + 0.5) / 400
    scale = np.sqrt(chi2.ppf(quantiles, freedom) / freedom)[:, None]

    def missing(c: float) -> float:
        inside = ndtr(x + c * scale * 2**0.5) - ndtr(x - c * scale * 2**0.5)
        return float((inside**labels @ w).mean() / w.sum()) - confidence

    return float(brentq(missing, 0.1, 1e3, xtol=1e-6))  # pyright: ignore[reportArgumentType]


def _finished(
    trials: Sequence[Trial], objective: Objective
) -> tuple[dict[str, dict[int, Trial]], dict[str, str]]:
    """Return finished trials by label and seed, and why the others are left out."""
    found: dict[str, dict[int, Trial]] = {}
    excluded: dict[str, str] = {}
    for trial in trials:
        lacking = [n for n in {**objective.weights, **objective.ceilings} if not _finite_loss(trial, n)]
        if trial.status != "done":
            excluded[trial.trial_id] = trial.reason or "failed without a reason"
        elif lacking:
            excluded[trial.trial_id] = f"no finite loss on target {lacking[0]!r}"
        elif trial.seed in found.setdefault(trial.label, {}):
            raise SearchError(
                f"label {trial.label!r} has two trials with seed {trial.seed}, expected one: "
                f"{found[trial.label][trial.seed].trial_id} and {trial.trial_id}"
            )
        else:
            found[trial.label][trial.seed] = trial
    return found, excluded


def _finite_loss(trial: Trial, target: str) -> bool:
    return target in trial.losses and bool(np.isfinite(trial.losses[target].bits_per_byte))


def _stderr_of_difference(values: Floats) -> float:
    """Return √(2 MSE / S) of the additive two-way model, NaN when S < 2 or L < 2."""
    labels, seeds = values.shape
    if labels < 2 or seeds < 2:
        return float("nan")
    residual = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    return float(np.sqrt(2.0 * (residual**2).sum() / ((labels - 1) * (seeds - 1)) / seeds))


def _critical(labels: int, seeds: int, comparisons: int) -> float:
    freedom = (labels - 1) * (seeds - 1)
    if freedom < 1:
        return float("nan")
    if comparisons > 1:
        return dunnett_critical(comparisons, freedom)
    return float(t.ppf(0.5 + CONFIDENCE / 2, freedom))


def _half_width(values: Floats) -> float:
    if len(values) < 2:
        return float("nan")
    return float(t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def _mean_losses(losses: Sequence[Mapping[str, Loss]]) -> dict[str, float]:
    """Return the mean bits per byte of the names that every trial carries."""
    names = [name for name in losses[0] if all(name in own for own in losses)]
    return {name: float(np.mean([own[name].bits_per_byte for own in losses])) for name in names}


def _best(against: Sequence[Paired], winner: str, able: Sequence[str]) -> Paired:
    """Return the winner's pair; if the control won, that of the best candidate that could have won."""
    rivals = [p for p in against if p.label == winner] or [p for p in against if p.label in able] or against
    return min(rivals, key=lambda p: (not np.isfinite(p.difference), p.difference, p.label))


def _reason(best: Paired, winner: str, *, confirmed: bool, compared: int, held: int) -> str:
    """Say what was measured. held: how many candidates were left that break no ceiling."""
    if not np.isfinite(best.stderr):
        return (
            f"Not confirmed: {best.pairs} seed(s) were finished by every label, so the noise cannot be "
            "estimated."
        )
    among = f"best of {compared} candidates" if compared > 1 else "the only candidate"
    numbers = (
        f"{best.label} minus {best.control}: {best.difference:+.5f} bits per byte, "
        f"simultaneous 95 % interval [{best.low:+.5f}, {best.high:+.5f}], {best.pairs} seeds, {among}."
    )
    if confirmed:
        return f"Confirmed: {numbers}"
    if not held:
        return f"Not confirmed: every candidate breaks a ceiling. {numbers}"
    if winner == best.control:
        return f"Not confirmed: no candidate measured better than {best.control}. {numbers}"
    return f"Not confirmed: the gain is inside the noise. {numbers}"


def _needed(best: Paired, winner: str, *, labels: int, entered: int) -> str:
    """Say what it would take to recommend something."""
    if not np.isfinite(best.stderr):
        return "At least 2 common seeds are needed."
    if winner == best.control and best.difference < 0:
        return "Loosen the ceilings, or search for a mixture that keeps them with more trials."
    if winner == best.control or best.difference >= 0:
        return "More seeds would not turn this into a gain; longer proxies or more trials might."
    seeds = _seeds_needed(best, labels, entered)
    if seeds is None:
        return "The difference is far too small to be shown by more seeds; it hardly matters which is used."
    return (
        f"If the gain is real and as large as measured, about {seeds} seeds instead of {best.pairs} would "
        "show it four times in five (confirm.seeds, confirm.rounds); larger or longer confirm models are "
        "less noisy."
    )


def _seeds_needed(best: Paired, labels: int, entered: int) -> int | None:
    """Return the least S with (c_S + z_power) √(2 MSE / S) <= gain, None above `_MOST_SEEDS`."""
    noise, margin = best.stderr * best.pairs**0.5, float(norm.ppf(_POWER))

    def shown(seeds: int) -> bool:
        return (_critical(labels, seeds, entered) + margin) * noise / seeds**0.5 <= abs(best.difference)

    sizes = range(best.pairs + 1, _MOST_SEEDS)
    place = bisect_left(sizes, True, key=shown)
    return sizes[place] if place < len(sizes) else None
