"""What a user does with the trials of a run: look at them, drop and restore them, have them made again.

Every change is a file (trials/dropped.json, or a record that is gone) and takes effect with the next
`quadmix run`; nothing is changed while a run holds the folder (promise P9). An id that is not there is an
error with the nearest ones.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quadmix.errors import InputError
from quadmix.io.atomic import read_value
from quadmix.io.lease import lease
from quadmix.io.trials import (
    TRIALS,
    apply_dropped,
    is_dropped,
    read_dropped,
    read_trials,
    trial_files,
    write_dropped,
)
from quadmix.types import Trial

__all__ = [
    "TrialLine",
    "apply_dropped",
    "drop_trials",
    "list_trials",
    "next_step",
    "restore_trials",
    "retry_trials",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLine:
    """One trial as it is listed. losses: bits per byte per target; tokens: it selected, and trained on."""

    trial_id: str
    kind: str
    status: Literal["done", "failed", "dropped"]
    reason: str
    losses: dict[str, float]
    selected_tokens: int
    train_tokens: int

    def render(self) -> str:
        """Return one line of text."""
        losses = " ".join(f"{name} {loss:.4f}" for name, loss in self.losses.items()) or "-"
        line = f"{self.trial_id:24} {self.kind:8} {self.status:8} {self.selected_tokens:>13,} {losses}"
        return f"{line}  ({self.reason})" if self.reason else line


def list_trials(run_folder: str | Path) -> list[TrialLine]:
    """Return every trial of a run folder, in the order of their ids."""
    _check_run(run_folder)
    return [
        TrialLine(
            trial_id=trial.trial_id,
            kind=trial.kind,
            status="dropped" if is_dropped(trial) else trial.status,
            reason=trial.reason,
            losses={name: loss.bits_per_byte for name, loss in trial.losses.items()},
            selected_tokens=trial.selected_tokens,
            train_tokens=trial.train_tokens,
        )
        for trial in read_trials(run_folder)
    ]


def drop_trials(run_folder: str | Path, ids: Sequence[str], why: str) -> list[str]:
    """Take trials out of the search, with the reason; their files stay. Returns what is dropped now."""
    if not why.strip():
        raise InputError("--why is empty; expected the reason, which the report shows beside the trial")
    _known(run_folder, ids)
    with lease(run_folder):
        dropped = read_dropped(run_folder) | dict.fromkeys(ids, why.strip())
        write_dropped(run_folder, dropped)
    return sorted(dropped)


def restore_trials(run_folder: str | Path, ids: Sequence[str]) -> list[str]:
    """Take dropped trials back into the search. Returns what is still dropped."""
    _known(run_folder, ids)
    with lease(run_folder):
        dropped = read_dropped(run_folder)
        if there := [i for i in ids if i not in dropped]:
            listed = ", ".join(sorted(dropped)) or "none"
            raise InputError(
                f"trial {there[0]!r} is not dropped, so it cannot be restored; dropped: {listed}"
            )
        write_dropped(run_folder, {i: why for i, why in dropped.items() if i not in ids})
    return sorted(dropped.keys() - set(ids))


def retry_trials(
    run_folder: str | Path, ids: Sequence[str] = (), *, failed: bool = False, force: bool = False
) -> list[str]:
    """Remove the records of trials, so that the next run makes them again; returns which.

    failed: all that failed. InputError for the id of a good trial, unless `force`.
    """
    if not ids and not failed:
        raise InputError("no trial is named; expected ids, or --failed for all that failed")
    trials = _known(run_folder, ids)
    chosen = sorted({*ids, *(i for i, t in trials.items() if failed and t.status == "failed")})
    if (good := [i for i in chosen if trials[i].status == "done"]) and not force:
        hint = "; it is dropped: to have it back, restore it" if good[0] in read_dropped(run_folder) else ""
        raise InputError(f"trial {good[0]!r} did not fail{hint}; to train it again all the same, add --force")
    with lease(run_folder):
        for trial_id in chosen:
            Path(run_folder, TRIALS, f"{trial_id}.json").unlink(missing_ok=True)
    return chosen


def next_step(run_folder: str | Path) -> str:
    """Return how a change takes effect; a dataset in the folder stands in the way of another θ*."""
    text = "the next `quadmix run` of the recipe takes it up"
    if not Path(run_folder, "dataset", "manifest.json").is_file():
        return text
    return (
        f"{text}; if that changes θ*, it stops before writing, as {Path(run_folder) / 'dataset'} holds the "
        "dataset of the present one: move it away to have the new one written"
    )


def _known(run_folder: str | Path, ids: Sequence[str]) -> dict[str, Trial]:
    """Return the run's trials by id as they are on disk; InputError names an id that is not there."""
    _check_run(run_folder)
    trials = {path.stem: read_value(path, Trial) for path in trial_files(run_folder)}
    for trial_id in ids:
        if trial_id not in trials:
            near = difflib.get_close_matches(trial_id, trials, n=3, cutoff=0.4)
            hint = (
                f"did you mean {', '.join(near)}?"
                if near
                else f"`quadmix trials list {run_folder}` shows all"
            )
            raise InputError(f"trial {trial_id!r} is not in {Path(run_folder) / TRIALS}; {hint}")
    return trials


def _check_run(run_folder: str | Path) -> None:
    if not (Path(run_folder) / "identity.json").is_file():
        raise InputError(
            f"{str(run_folder)!r} is no run folder (it has no identity.json); expected one such as runs/demo"
        )
