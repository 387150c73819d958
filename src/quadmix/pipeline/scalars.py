"""The numbers of a run over time, for the dashboards of other tools: read from the files of its folder.

In: a run folder, finished or at work. Out: `Scalar` values: loss of every trial, best so far, training
curves, out-of-fold quality of the surrogates, confirmation, comparison, seconds per stage. Losses and
objectives are bits per byte, gains are control minus choice. What is missing or not finite is left out.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from quadmix.io.atomic import read_json, read_value
from quadmix.io.trials import read_trials
from quadmix.report.verdict import shown_surrogates
from quadmix.types import Comparison, Confirmation, DatasetManifest, Measured, Paired, Proposal, Trial

T = TypeVar("T")
CURVES = 8  # training curves of each group of trials: thousands of series help nobody
_KNOWN = re.compile(r"[^A-Za-z0-9_.\- ]")
_MOST = 80  # characters of one part of a tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """One number. tag: its series, parts joined by "/". axis: what `step` counts ("" for numbers that a run
    has once, then step is 0)."""

    tag: str
    axis: str
    step: int
    value: float


def read_scalars(run_folder: str | Path) -> list[Scalar]:
    """Return all that the files of a run folder say, in an order that does not depend on when they came."""
    folder = Path(run_folder)
    trials = read_trials(folder)
    found = [*_trials(trials, "trials"), *_best(trials), *_curves(trials, "curves")]
    for name, home in _rungs(folder):
        compared = [read_value(path, Trial) for path in sorted(home.glob("[!.]*.json"))]
        found += [*_trials(compared, f"comparison/{name}/trials"), *_curves(compared, f"curves/{name}")]
    found += _read(folder / "search/proposal.json", Proposal, _search)
    found += _read(folder / "search/confirm.json", Confirmation, _confirm)
    found += _read(folder / "evaluate/comparison.json", Comparison, _comparison)
    found += _read(folder / "dataset/manifest.json", DatasetManifest, _dataset)
    found += _stages(folder)
    return [s for s in found if math.isfinite(s.value)]


def _read(path: Path, kind: type[T], scalars: Callable[[T], Iterator[Scalar]]) -> list[Scalar]:
    return list(scalars(read_value(path, kind))) if path.is_file() else []


def _once(tag: str, value: float) -> Scalar:
    return Scalar(tag=tag, axis="", step=0, value=float(value))


def part(name: str) -> str:
    """Return a name as part of a tag that every tool accepts; different names stay different."""
    plain = name.replace(":", ".")
    if not _KNOWN.search(plain) and plain.strip(" .") == plain and 0 < len(plain) <= _MOST:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_KNOWN.sub('_', plain)[:_MOST].strip(' .')}-{digest}"


# --------------------------------------------------------------------------- trials
def _group(trial: Trial, place: int) -> tuple[str, int]:
    """Return the group and the number that a trial's id consists of: prior-0003 is number 3 of prior."""
    name, _, number = trial.trial_id.rpartition("-")
    return (name, int(number)) if name and number.isdecimal() else (trial.trial_id, place)


def _trials(trials: Sequence[Trial], prefix: str) -> Iterator[Scalar]:
    for place, trial in enumerate(trials):
        name, number = _group(trial, place)
        for target, loss in trial.losses.items() if trial.status == "done" else ():
            tag = f"{prefix}/{part(name)}/{part(target)}"
            yield Scalar(tag=tag, axis="trial", step=number, value=loss.bits_per_byte)
    if trials:
        failed = sum(t.status == "failed" for t in trials)
        yield Scalar(tag=f"{prefix}/failed", axis="trials", step=len(trials), value=float(failed))


def _best(trials: Iterable[Trial]) -> Iterator[Scalar]:
    """Yield the least loss so far of the swarm, as far as all trials before are there: what is said of a
    trial must not depend on which others came first."""
    numbered = [(_group(t, place), t) for place, t in enumerate(trials)]
    swarm = {number: t for (name, number), t in numbered if name == "prior"}
    least: dict[str, float] = {}
    for number in range(len(swarm)):
        if number not in swarm:
            return
        for target, loss in swarm[number].losses.items() if swarm[number].status == "done" else ():
            least[target] = min(loss.bits_per_byte, least.get(target, math.inf))
        for target, value in least.items():
            yield Scalar(tag=f"best/{part(target)}", axis="trial", step=number, value=value)


def _curves(trials: Sequence[Trial], prefix: str) -> Iterator[Scalar]:
    """Yield training loss (bits per token) by step of the first CURVES trials of every group."""
    for place, trial in enumerate(trials):
        name, number = _group(trial, place)
        for step, value in trial.curve if number < CURVES else ():
            tag = f"{prefix}/{part(name)}/{number}"
            yield Scalar(tag=tag, axis="training_step", step=step, value=value)


def _rungs(folder: Path) -> list[tuple[str, Path]]:
    """Return the name of each rung of the comparison and where its trials lie; the first is "base"."""
    further = sorted(p for p in folder.glob("evaluate/rungs/*") if p.is_dir())
    return [("base", folder / "evaluate" / "trials"), *((part(p.name), p / "trials") for p in further)]


# --------------------------------------------------------------------------- results
def _search(proposal: Proposal) -> Iterator[Scalar]:
    for target, report in shown_surrogates(proposal.diagnostics).items():
        yield _once(f"search/spearman/{part(target)}", report.spearman)
        yield _once(f"search/spearman_low/{part(target)}", report.spearman_low)
        yield _once(f"search/spearman_high/{part(target)}", report.spearman_high)
        yield _once(f"search/rmse/{part(target)}", report.rmse)
    yield _once("search/noise_sd", proposal.noise_sd)
    yield _once("search/spread_sd", proposal.spread_sd)
    best = {b.trials: b.best for b in proposal.batches} | {proposal.trials_used: proposal.best_observed}
    for trials, value in best.items():
        yield Scalar(tag="search/best_objective", axis="trials", step=trials, value=value)
    for point in proposal.learning.points if proposal.learning else ():
        yield Scalar(tag="search/learning_rmse", axis="trials", step=point.trials, value=point.rmse)


def _measured(prefix: str, measured: Iterable[Measured]) -> Iterator[Scalar]:
    for m in measured:
        for name, value in (("objective", m.mean), ("objective_low", m.low), ("objective_high", m.high)):
            yield _once(f"{prefix}/{part(m.label)}/{name}", value)


def _gains(prefix: str, pairs: Iterable[Paired], label: str) -> Iterator[Scalar]:
    for p in pairs:
        if p.label == label:
            for name, value in (("gain", -p.difference), ("gain_low", -p.high), ("gain_high", -p.low)):
                yield _once(f"{prefix}/{name}_over/{part(p.control)}", value)


def _confirm(confirmation: Confirmation) -> Iterator[Scalar]:
    yield _once("confirm/confirmed", float(confirmation.confirmed))
    yield from _measured("confirm", confirmation.measured)
    yield from _gains("confirm", confirmation.against, confirmation.winner)


def _comparison(comparison: Comparison) -> Iterator[Scalar]:
    if not comparison.rungs:
        yield from _measured("comparison/base", comparison.measured)
        yield from _gains("comparison/base", comparison.against, comparison.chosen)
    for place, rung in enumerate(comparison.rungs):
        prefix = f"comparison/{part(rung.name) if place else 'base'}"
        yield from _measured(prefix, rung.measured)
        yield from _gains(prefix, rung.against, comparison.chosen)


def _dataset(manifest: DatasetManifest) -> Iterator[Scalar]:
    yield _once("dataset/tokens_out", manifest.ledger.tokens_out)
    yield _once("dataset/token_budget", manifest.token_budget)
    yield _once("dataset/documents", manifest.ledger.selected)


def _stages(folder: Path) -> Iterator[Scalar]:
    for path in sorted(folder.glob("stages/[!.]*.json")):
        data: Any = read_json(path)
        yield _once(f"stages/{part(path.stem)}/seconds", float(data.get("seconds") or 0.0))
