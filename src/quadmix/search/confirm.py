"""Fresh proxies decide: means, paired differences with honest errors, and a verdict in words.

In: trials of several labels (candidates and controls) with the same seeds. Out: `Measured` per
label, `Paired` against a control, and a `Confirmation`.

Objective of a trial: Σ_t w_t bits per byte. Trials of one seed share start and data order, so the
design is a block: value[label, seed] = label + seed + residual. Only seeds that every label
finished count. The residual variance of this two-way model, with (L-1)(S-1) degrees of freedom,
gives every difference the standard error √(2 MSE / S); with two labels this is the paired t test.

The winner is the best of several, so its advantage is partly luck. `decide` therefore uses
Dunnett's simultaneous intervals (all labels against one control): they hold for whichever label is
picked after looking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2, t

from quadmix.errors import SearchError
from quadmix.types import Confirmation, Floats, Loss, Measured, Paired, Proposal, Trial

CONFIDENCE = 0.95
CONTROL = "prior-mean"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """A complete design. values: (L, S) objective per label and seed; excluded: trial id -> reason."""

    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Floats
    excluded: dict[str, str]


def measure(trials: Sequence[Trial], target_weights: Mapping[str, float]) -> tuple[Measured, ...]:
    """Return mean and 95 % t interval of the objective per label, over all its finished seeds.

    Labels keep the order in which they first appear; values are in order of seeds. With one seed
    the interval is NaN. Labels without a finished trial are left out.
    """
    finished, _ = _finished(trials, target_weights)
    found: list[Measured] = []
    for label, own in finished.items():
        ordered = [own[seed] for seed in sorted(own)]
        values = np.array([objective(trial, target_weights) for trial in ordered])
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
            )
        )
    return tuple(found)


def paired(
    trials: Sequence[Trial],
    target_weights: Mapping[str, float],
    control: str,
    *,
    simultaneous: bool = False,
) -> tuple[Paired, ...]:
    """Return label minus control for every other label, with 95 % intervals (negative = better).

    simultaneous: use Dunnett's critical value, which holds for all labels together.
    With fewer than two common seeds standard error and interval are NaN.
    Raises SearchError if the control has no finished trial.
    """
    block = complete_block(trials, target_weights)
    if control not in block.labels:
        seen = ", ".join(block.labels) or "none"
        raise SearchError(
            f"control {control!r} has no finished trial (finished labels: {seen}); re-run the confirmation"
        )
    others = [label for label in block.labels if label != control]
    error = _stderr_of_difference(block.values)
    critical = _critical(block.values.shape, simultaneous=simultaneous)
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


def decide(proposal: Proposal, trials: Sequence[Trial], *, control: str = CONTROL) -> Confirmation:
    """Choose the candidate with the least mean objective and say whether it beats the control.

    Trials are labelled with the candidates' names; other labels are ignored. Confirmed means: the
    winner is not the control and the simultaneous 95 % interval of (winner - control) lies below 0.
    `theta` is the winner's, confirmed or not.
    """
    thetas = {candidate.name: candidate.theta for candidate in proposal.candidates}
    mine = [trial for trial in trials if trial.label in thetas]
    block = complete_block(mine, proposal.target_weights)
    against = paired(mine, proposal.target_weights, control, simultaneous=True)
    if not against:
        raise SearchError(f"only the control {control!r} has finished trials; re-run the confirmation")
    means = (
        block.values.mean(axis=1)
        if block.seeds
        else np.array([m.mean for m in _ordered(mine, block, proposal)])
    )
    winner = block.labels[int(np.argmin(means))]
    best = min(against, key=lambda p: (not np.isfinite(p.difference), p.difference, p.label))
    confirmed = winner != control and bool(best.high < 0)
    reason = _reason(best, winner, confirmed=confirmed, compared=len(against))
    if block.excluded:
        failed = "; ".join(f"{name}: {why}" for name, why in block.excluded.items())
        reason += f" Left out: {failed}."
    return Confirmation(
        winner=winner,
        theta=thetas[winner],
        confirmed=confirmed,
        reason=reason,
        measured=measure(mine, proposal.target_weights),
        against=against,
    )


def objective(trial: Trial, target_weights: Mapping[str, float]) -> float:
    """Return Σ_t w_t bits per byte of one finished trial."""
    return float(sum(w * trial.losses[target].bits_per_byte for target, w in target_weights.items()))


def complete_block(trials: Sequence[Trial], target_weights: Mapping[str, float]) -> Block:
    """Return the labels with a finished trial and the seeds that all of them finished."""
    finished, excluded = _finished(trials, target_weights)
    labels = tuple(finished)
    common = set.intersection(*(set(own) for own in finished.values())) if finished else set[int]()
    seeds = tuple(sorted(common))
    values = np.array([[objective(finished[label][s], target_weights) for s in seeds] for label in labels])
    return Block(
        labels=labels, seeds=seeds, values=values.reshape(len(labels), len(seeds)), excluded=excluded
    )


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
    trials: Sequence[Trial], target_weights: Mapping[str, float]
) -> tuple[dict[str, dict[int, Trial]], dict[str, str]]:
    """Return finished trials by label and seed, and why the others are left out."""
    found: dict[str, dict[int, Trial]] = {}
    excluded: dict[str, str] = {}
    for trial in trials:
        lacking = [n for n in target_weights if not _finite_loss(trial, n)]
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


def _critical(shape: tuple[int, ...], *, simultaneous: bool) -> float:
    labels, seeds = shape
    freedom = (labels - 1) * (seeds - 1)
    if freedom < 1:
        return float("nan")
    if simultaneous and labels > 2:
        return dunnett_critical(labels - 1, freedom)
    return float(t.ppf(0.5 + CONFIDENCE / 2, freedom))


def _half_width(values: Floats) -> float:
    if len(values) < 2:
        return float("nan")
    return float(t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def _mean_losses(losses: Sequence[Mapping[str, Loss]]) -> dict[str, float]:
    """Return the mean bits per byte of the names that every trial carries."""
    names = [name for name in losses[0] if all(name in own for own in losses)]
    return {name: float(np.mean([own[name].bits_per_byte for own in losses])) for name in names}


def _ordered(trials: Sequence[Trial], block: Block, proposal: Proposal) -> list[Measured]:
    by_label = {m.label: m for m in measure(trials, proposal.target_weights)}
    return [by_label[label] for label in block.labels]


def _reason(best: Paired, winner: str, *, confirmed: bool, compared: int) -> str:
    """Say what was measured and, if it is not enough, what would be."""
    among = f"best of {compared} candidates" if compared > 1 else "the only candidate"
    if not np.isfinite(best.stderr):
        return (
            f"Not confirmed: {best.pairs} seed(s) were finished by every label, so the noise cannot be "
            "estimated. At least 2 common seeds are needed."
        )
    numbers = (
        f"{best.label} minus {best.control}: {best.difference:+.5f} bits per byte, "
        f"simultaneous 95 % interval [{best.low:+.5f}, {best.high:+.5f}], {best.pairs} seeds, {among}."
    )
    if confirmed:
        return f"Confirmed: {numbers}"
    if winner == best.control:
        return (
            f"Not confirmed: no candidate measured better than {best.control}. {numbers} "
            "More seeds would not turn this into a gain; longer proxies or more trials might."
        )
    reach = (best.difference - best.low) / abs(best.difference) if best.difference else float("inf")
    factor = reach**2
    seeds = int(np.ceil(best.pairs * factor)) if np.isfinite(factor) and factor < 1e4 else None
    need = (
        f"If the difference is real, about {seeds} seeds ({factor:.1f} times as many) would show it."
        if seeds
        else "The difference is far too small to be shown by more seeds."
    )
    return f"Not confirmed: the gain is inside the noise. {numbers} {need}"
