"""The trials of a run folder: one JSON file each, and which of them the user dropped.

trials/<id>.json is a `Trial`; trials/dropped.json says by id why the user took one out of the search. The
files of dropped trials stay, so that `restore` brings them back; `apply_dropped` turns them into failed
ones, which the search excludes by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from quadmix.io.atomic import file_digest, read_value, value_digest, write_json
from quadmix.types import Trial

TRIALS = "trials"
_DROPPED = "dropped.json"
_MARK = "dropped: "  # begins the reason of a trial that the user dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """trials/dropped.json. why: trial id -> the user's reason."""

    why: dict[str, str] = field(default_factory=dict[str, str])
    version: int = 1


def trial_files(run_folder: str | Path) -> list[Path]:
    """Return the trial files of a run folder in the order of their names; none if there is no trial."""
    found = Path(run_folder, TRIALS).glob("[!.]*.json")
    return sorted(path for path in found if path.name != _DROPPED)


def read_trials(run_folder: str | Path) -> list[Trial]:
    """Return the trials of a run folder in the order of their ids, dropped ones marked as such."""
    return apply_dropped(run_folder, [read_value(path, Trial) for path in trial_files(run_folder)])


def read_dropped(run_folder: str | Path) -> dict[str, str]:
    """Return why the user dropped which trials, {} if none."""
    file = Path(run_folder, TRIALS, _DROPPED)
    return read_value(file, Dropped).why if file.exists() else {}


def write_dropped(run_folder: str | Path, why: dict[str, str]) -> None:
    """Replace trials/dropped.json, atomically."""
    write_json(Path(run_folder, TRIALS, _DROPPED), Dropped(why=dict(sorted(why.items()))))


def apply_dropped(run_folder: str | Path, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials with those that were dropped in `run_folder` marked as failed, so that the search
    excludes them by name; the others as they are, in the same order."""
    why = read_dropped(run_folder)
    return [
        replace(t, status="failed", reason=_MARK + why[t.trial_id]) if t.trial_id in why else t
        for t in trials
    ]


def is_dropped(trial: Trial) -> bool:
    """Did `apply_dropped` mark this trial?"""
    return trial.status == "failed" and trial.reason.startswith(_MARK)


def trials_digest(run_folder: str | Path) -> str:
    """Return the digest of a run's trials as another run reuses them: every trial file, what was dropped,
    which weights are there (names and sizes, as their bytes may be many)."""
    folder = Path(run_folder, TRIALS)
    files = [(path.name, file_digest(path)) for path in sorted(folder.glob("[!.]*.json"))]
    weights = [(path.name, path.stat().st_size) for path in sorted(folder.glob("weights/[!.]*.safetensors"))]
    return value_digest([files, weights])
