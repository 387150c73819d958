"""What the studies share: the run they start from, models trained on any selection, results as small files.

Every study is a command: `python studies/rN_*.py`. It opens the run of studies/study.yaml (made on first
use, resumable), trains its own models beside it in <run>/studies/<name>/, and writes
studies/results/<name>.json. A study that is stopped goes on where it was with the same command.
"""

import argparse
import contextlib
import platform
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from quadmix.codec import to_json
from quadmix.corpus.benchmarks import BenchmarkItems
from quadmix.corpus.targets import TargetText
from quadmix.engine.tasks import session
from quadmix.io.atomic import read_json, write_json
from quadmix.pipeline import stages
from quadmix.pipeline.confirming import confirm, file_names
from quadmix.pipeline.folder import Job, StageNotes, library_versions, open_run
from quadmix.pipeline.mix import Mix, Part
from quadmix.pipeline.place import data_place
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.run import RunResult
from quadmix.pipeline.swarming import search, train_swarm
from quadmix.pipeline.training import copies_job, train_jobs
from quadmix.proxy.pool import TokenPool
from quadmix.proxy.setting import ProxySetting
from quadmix.recipe import ModelSection, Recipe, TrainingSection, load_recipe
from quadmix.search.confirm import paired
from quadmix.types import Confirmation, Copies, Corpus, Loss, Objective, Proposal, Theta, Trial

HERE = Path(__file__).parent
RESULTS = HERE / "results"
_FIRST_SEED = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """The open run with everything that its stages made."""

    job: Job
    corpus: Corpus
    targets: Sequence[TargetText]
    benchmarks: Sequence[BenchmarkItems]
    mix: Mix
    pool: TokenPool
    swarm: tuple[Trial, ...]
    proposal: Proposal
    confirmation: Confirmation

    @property
    def recipe(self) -> Recipe:
        return self.job.recipe

    def part(self, tokens: int) -> Part:
        """Return the documents that a model of so many training tokens works on."""
        return self.mix.part(self.mix.proxy_share(tokens, self.recipe.proxy.pool))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """One selection to train on: copies (D',) over the rows of a part, for a seed."""

    part: Part
    copies: Callable[[int], Copies]
    theta: Theta | None = None


@contextlib.contextmanager
def opened(overrides: Sequence[str] = (), recipe: Path = HERE / "study.yaml") -> Generator[Study]:
    """Open the studies' run up to its confirmation; what is on disk already is loaded."""
    settings = load_recipe(str(recipe), ["run.accept_unconfirmed=true", *overrides])
    with open_run(settings, Progress()) as job, session(data_place(settings.run)):
        targets = stages.read_targets(job)
        benchmarks = stages.read_benchmarks(job, targets)
        corpus = stages.open_pool(job)
        mix = stages.prepare_mixing(job, stages.annotate(job, corpus, targets, benchmarks))
        pool = stages.tokenise(job, corpus, mix, targets)
        swarm = train_swarm(job, mix, pool)
        proposal = search(job, mix, swarm)
        yield Study(
            job=job, corpus=corpus, targets=targets, benchmarks=benchmarks, mix=mix, pool=pool,
            swarm=swarm.trials, proposal=proposal, confirmation=confirm(job, mix, pool, proposal),
        )  # fmt: skip


def by_theta(part: Part, theta: Theta) -> Choice:
    """Return the selection of a θ, fitted to the part's budget; seeds redraw the copies."""
    fitted = part.calibrate(theta)
    return Choice(part=part, theta=fitted, copies=lambda seed: part.select(fitted, _FIRST_SEED + seed).copies)


def train(
    study: Study, name: str, choices: Mapping[str, Choice], model: ModelSection, training: TrainingSection,
    *, seeds: int, judges: str = "judges", first_draw: int = 0,
) -> list[Trial]:  # fmt: skip
    """Train every choice with several seeds and return the trials, measured on the judging rows of the
    targets. Choices of one seed share start and order of documents. first_draw: seed of the first selection,
    others follow; settings that are compared as if apart have selections of their own."""
    names = file_names(choices)
    jobs = [
        copies_job(study.pool, study.mix, choice.part, f"{names[label]}-{seed}", "study", label, choice.theta,
                   choice.copies(first_draw + seed), _FIRST_SEED + seed)
        for seed in range(seeds)
        for label, choice in choices.items()
    ]  # fmt: skip
    setting = ProxySetting(
        pool=str(study.job.path("pool")), targets=str(study.job.path(judges)), heldout=None, model=model,
        training=training, vocab_size=model.padded(study.pool.manifest.vocab_size),
        domains=study.mix.full.domains, device=study.recipe.run.device,
        checkpoint_seconds=study.recipe.run.checkpoint_seconds,
    )  # fmt: skip
    notes = StageNotes()
    trials = train_jobs(study.job, name, jobs, setting, notes, folder=f"studies/{name}", save=False)
    for warning in notes.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return trials


def differences(trials: Sequence[Trial], objective: Objective, control: str) -> list[dict[str, Any]]:
    """Return label minus control with 95 % intervals, as plain rows.

    Student's t over the seeds of each pair by itself: selectors that draw documents anew for every seed are
    noisier than others (`quadmix.evaluate.rungs`).
    """
    others = dict.fromkeys(t.label for t in trials if t.label != control)
    return [
        to_json(pair)
        for label in others
        for pair in paired([t for t in trials if t.label in (label, control)], objective, control)
    ]


def target_losses(trials: Sequence[Trial], target: str) -> dict[str, dict[int, float]]:
    """Return bits per byte per label and seed, of the trials that finished."""
    found: dict[str, dict[int, float]] = {}
    for trial in sorted(trials, key=lambda t: t.seed):
        loss: Loss | None = trial.losses.get(target)
        if trial.status == "done" and loss is not None:
            found.setdefault(trial.label, {})[trial.seed] = loss.bits_per_byte
    return found


def pair_interval(values: Mapping[int, float], control: Mapping[int, float]) -> dict[str, Any] | None:
    """Return values minus control over their common seeds, with the 95 % t interval; None below two."""
    common = sorted(values.keys() & control.keys())
    if len(common) < 2:
        return None
    gaps = np.array([values[seed] - control[seed] for seed in common])
    half = float(student.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
    mean = float(gaps.mean())
    return {"difference": mean, "low": mean - half, "high": mean + half, "pairs": len(gaps)}


def comparison_facts(result: RunResult) -> dict[str, Any]:
    """Return a run's comparison, without the per-seed values of single tasks, and its confirmation."""
    assert result.comparison is not None
    assert result.confirmation is not None
    comparison, confirmation = to_json(result.comparison), to_json(result.confirmation)
    for rung in comparison["rungs"]:
        rung["scores"] = [{k: v for k, v in s.items() if k != "values"} for s in rung["scores"]]
    confirmation.pop("theta")
    return {"comparison": comparison, "confirmation": confirmation}


def save(
    name: str, result: Mapping[str, Any], study: Study | None = None, run: RunResult | None = None
) -> Path:
    """Write studies/results/<name>.json: the result, the command that made it, and from which run."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    facts = {
        "command": " ".join(["python", f"studies/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {platform.system()}", "libraries": library_versions(),
        "identity": study.job.identity if study else read_json(run.folder / "identity.json") if run else None,
    }  # fmt: skip
    write_json(file, {"made": facts, **to_json(dict(result))})
    print(file)
    return file


def parser(text: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all studies have."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", dest="overrides",
        help="override a key of studies/study.yaml (run.device=cuda, proxy.trials=256, ...)",
    )  # fmt: skip
    return made


def bootstrap_interval(
    values: Sequence[float], *, seed: int = 0, draws: int = 2000
) -> tuple[float, float]:  # fmt: skip
    """Return the 95 % bootstrap interval of a mean."""
    data, rng = np.asarray(values), np.random.default_rng(seed)
    means = data[rng.integers(0, len(data), (draws, len(data)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
