"""A run folder -> the values the page shows; what a stage has not written yet is None or empty.

This, `records` and `selection` are the only places of this room that touch the run folder.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from quadmix.codec import from_json
from quadmix.errors import InputError, RecipeError
from quadmix.io.atomic import read_json, read_table, read_text, read_value
from quadmix.io.trials import read_trials
from quadmix.recipe import Recipe, load_recipe
from quadmix.report.records import Records, load_records
from quadmix.report.selection import Table, load_table
from quadmix.types import (
    Batch,
    Comparison,
    Confirmation,
    DatasetManifest,
    Proposal,
    Theta,
    Trial,
)

T = TypeVar("T")
STAGES = ("corpus", "annotate", "mixing", "pool", "swarm", "search", "confirm", "materialise", "evaluate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What one stage said about itself."""

    stage: str
    seconds: float
    warnings: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBatch:
    """One batch of the swarm: how many trials it has (0: the search stopped there) and what was known when
    it was planned (None for the first)."""

    trials: int
    seen: Batch | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunFiles:
    """Everything the page reads. theta: the parameters that were applied, or else the confirmed or
    proposed ones, whose cutoffs may have been scaled afterwards to meet the budget. theta_file: where that
    θ stands, "" if there is none."""

    folder: Path
    identity: dict[str, Any]
    recipe: Recipe | None
    recipe_text: str
    stages: tuple[Stage, ...]
    trials: tuple[Trial, ...]
    planned: tuple[PlannedBatch, ...]
    proposal: Proposal | None
    confirmation: Confirmation | None
    comparison: Comparison | None
    comparison_trials: tuple[Trial, ...]
    dataset: DatasetManifest | None
    table: Table | None
    samples: tuple[dict[str, Any], ...]
    domains: tuple[str, ...]
    theta: Theta | None
    theta_file: str
    notes: tuple[str, ...]
    records: Records


def load_run(run_folder: str | Path) -> RunFiles:
    """Read a run folder; InputError only if the folder itself is missing or a file in it is broken."""
    folder = Path(run_folder)
    if not folder.is_dir():
        raise InputError(f"run folder {str(folder)!r} does not exist; `quadmix run RECIPE` makes one")
    recipe, notes = _recipe(folder / "recipe.resolved.yaml")
    dataset = _value(folder / "dataset/manifest.json", DatasetManifest)
    proposal = _proposal(folder / "search/proposal.json")
    confirmation = _value(folder / "search/confirm.json", Confirmation)
    proposed = proposal.candidates[0].theta if proposal and proposal.candidates else None
    theta, theta_file = _theta(_value(folder / "theta.json", Theta), confirmation, proposed)
    domains = tuple(d.domain for d in dataset.domains) if dataset else ()
    table = load_table(folder)
    comparison = _value(folder / "evaluate/comparison.json", Comparison)
    return RunFiles(
        folder=folder,
        identity=_mapping(folder / "identity.json"),
        recipe=recipe,
        recipe_text=_text(folder / "recipe.resolved.yaml"),
        stages=_stages(folder / "stages"),
        trials=tuple(read_trials(folder)),
        planned=_planned(folder / "search/batches.json"),
        proposal=proposal,
        confirmation=confirmation,
        comparison=comparison,
        comparison_trials=_comparison_trials(folder, comparison),
        dataset=dataset,
        table=table,
        samples=_samples(folder / "samples.parquet"),
        domains=table.domains if table else domains,
        theta=theta,
        theta_file=theta_file,
        notes=notes,
        records=load_records(folder),
    )


def _theta(
    applied: Theta | None, confirmation: Confirmation | None, proposed: Theta | None
) -> tuple[Theta | None, str]:
    """Return the θ that says most about the dataset, and the file it stands in."""
    if applied is not None:
        return applied, "theta.json"
    if confirmation is not None:
        return confirmation.theta, "search/confirm.json"
    return (proposed, "search/proposal.json") if proposed is not None else (None, "")


def _value(path: Path, cls: type[T]) -> T | None:
    return read_value(path, cls) if path.is_file() else None


def _proposal(path: Path) -> Proposal | None:
    """Return the proposal; files from before the objective became a value of its own have its weights."""
    if not path.is_file():
        return None
    data = read_json(path)
    if isinstance(data, dict) and "target_weights" in data and "objective" not in data:
        data["objective"] = {"weights": data.pop("target_weights")}
    return from_json(Proposal, data, where=str(path))


def _planned(path: Path) -> tuple[PlannedBatch, ...]:
    data: list[dict[str, Any]] = read_json(path) if path.is_file() else []
    return tuple(
        PlannedBatch(
            trials=len(d.get("labels") or ()),
            seen=from_json(Batch, d["seen"], where=str(path)) if d.get("seen") else None,
        )
        for d in data
    )


def _mapping(path: Path) -> dict[str, Any]:
    data = read_json(path) if path.is_file() else {}
    return data if isinstance(data, dict) else {"value": data}


def _text(path: Path) -> str:
    return read_text(path) if path.is_file() else ""


def _recipe(path: Path) -> tuple[Recipe | None, tuple[str, ...]]:
    if not path.is_file():
        return None, ()
    try:
        return load_recipe(str(path)), ()
    except RecipeError as error:
        return None, (f"the resolved recipe is of another version and is shown as text only: {error}",)


def _comparison_trials(folder: Path, comparison: Comparison | None) -> tuple[Trial, ...]:
    """Return the trials of all rungs that the comparison is made of (without one: of all that lie there).

    Models that an earlier recipe compared stay on disk: those of other labels, rungs and seeds are left out.
    Seeds are told apart by their number in the id, as the seed of a trial is a hash of it.
    """
    rungs = sorted(p.name for p in folder.glob("evaluate/rungs/*")) if comparison is None else []
    if comparison is None:
        return tuple(t for rung in ("", *rungs) for t in _trials(_rung_folder(folder, rung)))
    if not comparison.rungs:
        labels = {m.label for m in comparison.measured}
        return tuple(t for t in _trials(_rung_folder(folder, "")) if t.label in labels)
    found: list[Trial] = []
    for place, rung in enumerate(comparison.rungs):
        trials = _trials(_rung_folder(folder, rung.name if place else ""))
        measured = {m.label for m in rung.measured}
        found += [
            t
            for t in trials
            if t.label in measured or (t.status == "failed" and t.label in rung.left_out)
            if _seed_number(t) < rung.seeds
        ]
    return tuple(found)


def _seed_number(trial: Trial) -> int:
    """Return k of the id compare-LABEL-k, 0 if the id has none."""
    last = trial.trial_id.rpartition("-")[2]
    return int(last) if last.isascii() and last.isdigit() else 0


def _rung_folder(folder: Path, rung: str) -> Path:
    """Return where a rung's trials lie; "" is the first one."""
    return folder / "evaluate" / "trials" if not rung else folder / "evaluate" / "rungs" / rung / "trials"


def _trials(folder: Path) -> tuple[Trial, ...]:
    return tuple(read_value(path, Trial) for path in sorted(folder.glob("[!.]*.json")))


def _stages(folder: Path) -> tuple[Stage, ...]:
    found: list[Stage] = []
    for path in folder.glob("[!.]*.json"):
        data = _mapping(path)
        found.append(
            Stage(
                stage=str(data.get("stage", path.stem)),
                seconds=float(data.get("seconds") or 0.0),
                warnings=tuple(str(w) for w in data.get("warnings") or ()),
                facts=dict(data.get("facts") or {}),
            )
        )
    order = {name: place for place, name in enumerate(STAGES)}
    return tuple(sorted(found, key=lambda s: (order.get(s.stage, len(order)), s.stage)))


def _samples(path: Path) -> tuple[dict[str, Any], ...]:
    return tuple(read_table(path).to_pylist()) if path.is_file() else ()
