"""SIGKILL at every named point of the selection and the writing, the same call again: the same files (P6)."""

import re
import signal
from pathlib import Path

import pytest
from crash_cases import ELSEWHERE, MANIFEST, ORDERS, Lab

import quadmix
from quadmix.io.faults import POINTS

OF_TASKS = ("select.merged", "select.part", "materialise.spill", "materialise.before_part")


def test_every_point_of_these_rooms_is_in_the_list() -> None:
    """So that no point can be added that these tests do not kill at."""
    texts = [p.read_text() for p in Path(quadmix.__file__).parent.rglob("*.py") if p.name != "faults.py"]
    found = {name for text in texts for name in re.findall(r'fault_point\("([^"]+)"\)', text)}
    assert {n for n in found if n.startswith(("select.", "materialise."))} == set(POINTS)


@pytest.mark.parametrize("point", POINTS)
def test_killed_there_the_same_call_gives_the_same_files(lab: Lab, point: str) -> None:
    """At the first and at the third passage, in every order that comes by at all."""
    deaths = 0
    for order, form in ORDERS:
        for nth in ("", "@3"):
            case = {"order": order, "format": form, "executor": "threads" if nth else "serial"}
            folder = lab.new()
            answer = lab.run(folder, point=point + nth, **case)
            assert answer.status in (0, -signal.SIGKILL), answer.trace
            deaths += answer.status != 0
            if answer.status:
                finished = point == "materialise.after_manifest"
                assert (folder / MANIFEST).exists() == finished
                assert (folder / "selection" / "manifest.json").exists() == point.startswith("materialise.")
                lab.check_visible(folder, **case)
            lab.finish(folder, **case)
    assert deaths


@pytest.mark.parametrize("order", ["shuffled", "corpus"])
def test_one_run_killed_at_point_after_point_ends_alike(lab: Lab, order: str) -> None:
    folder = lab.new()
    for point in (p for p in POINTS if p not in ELSEWHERE[order]):
        assert lab.run(folder, point=point, order=order).status == -signal.SIGKILL, point
        lab.check_visible(folder, order=order)
    lab.finish(folder, order=order)


@pytest.mark.parametrize("point", OF_TASKS)
def test_workers_that_always_die_there_end_the_run_with_the_task_named(lab: Lab, point: str) -> None:
    folder = lab.new()
    answer = lab.run(folder, point=point, executor="processes")
    assert answer.status == 1
    assert "ended its worker process 3 times (last: signal 9)" in answer.error
    assert not (folder / MANIFEST).exists()
    lab.check_visible(folder)
    lab.finish(folder, executor="processes")


@pytest.mark.parametrize(("executor", "workers"), [("serial", 1), ("threads", 5), ("processes", 2)])
@pytest.mark.parametrize(("order", "form"), ORDERS)
def test_executor_workers_and_the_order_of_tasks_change_nothing(
    lab: Lab, executor: str, workers: int, order: str, form: str
) -> None:
    lab.finish(lab.new(), executor=executor, workers=workers, order=order, format=form, shuffle=len(executor))
