"""Which trials a page counts: those that the comparison on it is made of."""

import hashlib
from dataclasses import replace
from pathlib import Path

from report_fixture import make_run

from quadmix.io.atomic import read_value, write_json
from quadmix.report.load import load_run
from quadmix.report.verdict import judge
from quadmix.types import Comparison, Measured, Rung, Trial

NAN = float("nan")


def measured(label: str) -> Measured:
    return Measured(
        label=label, mean=1.0, low=1.0, high=1.0, values=(1.0, 1.0), losses={}, heldout={},
        selected_tokens=9, unique_tokens=9, epochs=1.0,
    )  # fmt: skip


def rung(name: str, labels: tuple[str, ...], **changes: dict[str, str]) -> Rung:
    return Rung(
        name=name, parameters=1, train_tokens=1, learning_rate=1.0, budget=1.0, match="tokens", seeds=2,
        measured=tuple(measured(label) for label in labels), against=(), verdict="", detectable=NAN,
        **changes,
    )  # fmt: skip


def hashed(seed: int) -> int:
    """As a run derives it: 64 bits in no order."""
    return int.from_bytes(hashlib.sha256(bytes([seed])).digest()[:8], "little")


def write_trials(folder: Path, labels: tuple[str, ...], *, failed: tuple[str, ...] = ()) -> None:
    for label in labels:
        for seed in range(3):
            trial = Trial(
                trial_id=f"compare-{label}-{seed}", kind="compare", label=label, theta=None,
                seed=hashed(seed), selected_tokens=9, unique_tokens=9, train_tokens=9, epochs=1.0, losses={},
                heldout={}, status="failed" if label in failed else "done",
            )  # fmt: skip
            write_json(folder / "trials" / f"{trial.trial_id}.json", trial)


def counted(folder: Path) -> list[str]:
    return [t.trial_id.removeprefix("compare-") for t in load_run(folder).comparison_trials]


def test_trials_of_all_rungs_and_of_no_other_recipe_are_counted(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    home = folder / "evaluate"
    write_trials(home, ("quadmix", "random", "old", "lost", "left"), failed=("lost",))
    write_trials(home / "rungs" / "wide", ("quadmix", "random"))
    write_trials(home / "rungs" / "gone", ("quadmix",))
    file = home / "comparison.json"
    stored = read_value(file, Comparison)
    base = rung("base", ("quadmix", "random"), left_out={"lost": "diverged", "left": "too few documents"})
    write_json(file, replace(stored, rungs=(base, rung("wide", ("quadmix",)))))
    both = ["quadmix-0", "quadmix-1"]  # a third seed is none of these rungs
    assert sorted(counted(folder)) == sorted(["lost-0", "lost-1", "random-0", "random-1", *both, *both])
    write_json(file, replace(stored, rungs=(), measured=(measured("random"),)))  # of an older version
    assert counted(folder) == ["random-0", "random-1", "random-2"]


def test_without_a_comparison_all_trials_are_counted(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "evaluate" / "comparison.json").unlink()
    assert counted(folder) == []
    write_trials(folder / "evaluate", ("lost",), failed=("lost",))
    write_trials(folder / "evaluate" / "rungs" / "wide", ("quadmix",))
    assert len(counted(folder)) == 6


def test_failed_models_of_the_comparison_are_a_warning_and_those_of_no_seed_of_it_are_none(
    tmp_path: Path,
) -> None:
    folder = make_run(tmp_path / "run")
    home = folder / "evaluate"
    write_trials(home, ("quadmix", "random"))
    file = home / "comparison.json"
    write_json(file, replace(read_value(file, Comparison), rungs=(rung("base", ("quadmix", "random")),)))
    for seed in (1, 2):  # 2 is beyond the rung's two seeds, 0 and 1
        path = home / "trials" / f"compare-random-{seed}.json"
        write_json(path, replace(read_value(path, Trial), status="failed", reason="loss became NaN"))
        said = [w for w in judge(load_run(folder)).warnings if w.startswith("comparison: ")]
        assert said == ["comparison: 1 of 4 trials failed (compare-random-1)"], seed
