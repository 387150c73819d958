"""What a swarm tells the progress display: what was there, what is trained again, what is in work."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from proxy_world import make_job, make_setting, some_copies

from quadmix.engine.tasks import Place, run_tasks
from quadmix.pipeline.progress import Progress
from quadmix.proxy import swarm as swarm_room
from quadmix.proxy.swarm import Watch, run_swarm

SERIAL = Place("serial")


def test_a_watch_hears_of_loaded_trained_and_retried_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three groups one is there; the worker of the second died once."""
    setting, jobs = make_setting(tmp_path), [make_job(f"t{i}", some_copies(i), seed=0) for i in range(6)]
    run_swarm(jobs[:2], setting, folder=tmp_path / "trials", group=2, place=SERIAL)

    def dying(
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        *,
        on_death: Callable[[Any, int], Any],
        **keys: Any,
    ) -> list[Any]:
        assert on_death(tasks[0], 1) is tasks[0]  # after one death it is given out as it was
        return run_tasks(function, tasks, **keys)

    monkeypatch.setattr(swarm_room, "run_tasks", dying)
    progress = Progress({"swarm": 1.0}, quiet=True)
    with progress.stage("swarm", 6, "models", trains=setting.tokens) as step:
        loaded: list[str] = []
        trained: list[str] = []
        run_swarm(
            jobs, setting, folder=tmp_path / "trials", group=2, place=SERIAL,
            on_trial=lambda trial: (trained.append(trial.trial_id), step.advance()),
            watch=Watch(
                partial=step.partly, retried=step.retry,
                loaded=lambda trial: (loaded.append(trial.trial_id), step.load()),
            ),
        )  # fmt: skip
        shown = progress.snapshot()
    assert (loaded, trained) == (["t0", "t1"], ["t2", "t3", "t4", "t5"])
    assert shown.trials is not None
    assert (shown.trials.done, shown.trials.failed, shown.trials.retried, shown.trials.total) == (6, 0, 2, 6)
