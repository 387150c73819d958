"""SIGKILL at random moments, of the whole run or of one worker: the same call ends with the same files (P6).

The moments are uniform over the time that an undisturbed run takes, by a fixed seed. Where the run was faster
than its moment, the next moment is taken, so that the number of kills is what is asked for.
"""

import random
import signal
import statistics

import pytest
from crash_cases import MANIFEST, ORDERS, Lab

KILLS = 25  # with each executor
WORKER_KILLS = 10


def seconds(lab: Lab, **case: str) -> float:
    """Return how long an undisturbed run takes beside another one, as the cases have it."""
    taken: list[float] = []

    def once(_: int) -> None:
        answer = lab.run(lab.new(), **case)
        assert answer.status == 0, answer.trace
        taken.append(answer.seconds)

    lab.side_by_side(once, range(4))
    return statistics.median(taken)


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_killed_at_any_moment_the_same_call_gives_the_same_files(lab: Lab, executor: str) -> None:
    whole, kills, dice = seconds(lab, executor=executor), list[float](), random.Random(6)

    def kill(number: int) -> None:
        order, form = ORDERS[number % 2]
        case = {"executor": executor, "order": order, "format": form}
        for _ in range(20):
            folder, moment = lab.new(), dice.random() * whole
            answer = lab.run(folder, kill_after=moment, **case)
            assert answer.status in (0, -signal.SIGKILL), answer.trace
            lab.check_visible(folder, **case)
            lab.finish(folder, **case)
            if answer.status:
                kills.append(moment)
                return

    lab.side_by_side(kill, range(KILLS))
    assert len(kills) == KILLS


def test_a_run_that_is_killed_again_and_again_ends_alike(lab: Lab) -> None:
    whole, dice, folder = seconds(lab, executor="threads"), random.Random(7), lab.new()
    for _ in range(8):
        lab.run(folder, executor="threads", kill_after=dice.random() * whole / 2)
        lab.check_visible(folder)
    lab.finish(folder, executor="threads")


def test_a_worker_killed_at_any_moment_does_not_disturb_the_run(lab: Lab) -> None:
    whole, kills, dice = seconds(lab, executor="processes"), list[int](), random.Random(8)

    def kill(number: int) -> None:
        order, form = ORDERS[number % 2]
        for _ in range(20):
            folder = lab.new()
            answer = lab.run(
                folder, executor="processes", order=order, format=form, victim="worker",
                kill_after=dice.random() * whole, seed=number,
            )  # fmt: skip
            assert answer.status == 0, answer.trace
            assert (folder / MANIFEST).exists()
            lab.check_visible(folder, order=order, format=form)
            lab.finish(folder, order=order, format=form)
            if answer.killed:
                kills.append(number)
                return

    lab.side_by_side(kill, range(WORKER_KILLS))
    assert len(kills) == WORKER_KILLS
