"""A disk that fails under the run, or a kill right before one of its calls (promises P2, P3, P6, P13).

The failures are made below Python and Arrow, by a library that is preloaded (`faulty_disk.c`). Every call of
a kind is counted in an undisturbed run; where there are more than CASES of them, as many are taken by a fixed
seed. With QUADMIX_ALL_CASES=1 every single call fails once.
"""

import errno
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_cases import MANIFEST, ORDERS, Lab, laboratory
from crash_child import CALLS

CASES = 8
COMPILER = shutil.which("cc") or ""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not COMPILER, reason="needs Linux, and a C compiler for the preloaded library"
)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    library = tmp_path_factory.mktemp("faulty") / "faulty_disk.so"
    source = Path(__file__).with_name("faulty_disk.c")
    subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    with laboratory(LD_PRELOAD=str(library), FAULTY_FOLDER="{folder}") as made:
        yield made


@pytest.fixture(scope="module")
def calls(faulty: Lab) -> dict[tuple[str, str], int]:
    """Return how many calls of each kind an undisturbed run makes: (kind, order) -> number."""
    found: dict[tuple[str, str], int] = {}
    for order, form in ORDERS:
        answer = faulty.run(faulty.new(), order=order, format=form, call=failing("open", 0))
        assert (answer.status, answer.failed) == (0, ""), answer.trace
        found |= {(kind, order): n for kind, n in zip(CALLS, answer.calls, strict=True)}
    return found


def failing(kind: str, n: int, error: int = errno.EIO, *, sticky: bool = False) -> dict[str, object]:
    return {"kind": kind, "n": n, "errno": error, "sticky": sticky}


def chosen(kind: str, order: str, count: int) -> list[int]:
    """Return the calls that are to fail: all, or CASES of them with the first and the last."""
    assert count
    everything = list(range(1, count + 1))
    if count <= CASES or os.environ.get("QUADMIX_ALL_CASES"):
        return everything
    some = random.Random(f"{kind} {order}").sample(everything[1:-1], CASES - 2)
    return [1, *sorted(some), count]


def names(failed: str) -> str:
    """Return the file that an error must name: the one that was to be written, not its temporary name."""
    return re.sub(r"\.tmp-[0-9a-f]{32}-", "", failed.rstrip("/")).rsplit("/", 1)[-1]


@pytest.mark.parametrize(("order", "form"), ORDERS)
@pytest.mark.parametrize("kind", CALLS)
def test_a_call_that_fails_is_an_error_with_the_file_and_nothing_half_is_visible(
    faulty: Lab, calls: dict[tuple[str, str], int], kind: str, order: str, form: str
) -> None:
    def fail(n: int) -> None:
        folder = faulty.new()
        answer = faulty.run(folder, order=order, format=form, call=failing(kind, n))
        assert answer.failed, f"{kind} {n} was not reached"
        if answer.status:
            assert answer.status == 1
            assert names(answer.failed) in answer.error, (kind, n, answer.failed, answer.error)
        faulty.check_visible(folder, order=order, format=form)
        faulty.finish(folder, order=order, format=form)

    faulty.side_by_side(fail, chosen(kind, order, calls[kind, order]))


@pytest.mark.parametrize(("order", "form"), ORDERS)
def test_a_disk_that_is_full_is_an_error_that_says_so(
    faulty: Lab, calls: dict[tuple[str, str], int], order: str, form: str
) -> None:
    def fill(n: int) -> None:
        folder = faulty.new()
        call = failing("write", n, errno.ENOSPC, sticky=True)
        answer = faulty.run(folder, order=order, format=form, call=call)
        assert answer.status == 1
        assert re.search("the disk is full at|No space left on device", answer.error), answer.error
        assert str(folder) in answer.error
        assert not (folder / MANIFEST).exists()
        faulty.check_visible(folder, order=order, format=form)
        faulty.finish(folder, order=order, format=form)

    faulty.side_by_side(fill, chosen("full", order, calls["write", order]))


@pytest.mark.parametrize(("order", "form"), ORDERS)
@pytest.mark.parametrize("kind", ["write", "fsync", "rename", "unlink"])
def test_killed_right_before_a_call_the_same_call_gives_the_same_files(
    faulty: Lab, calls: dict[tuple[str, str], int], kind: str, order: str, form: str
) -> None:
    def kill(n: int) -> None:
        folder = faulty.new()
        assert faulty.run(folder, order=order, format=form, call=failing(kind, n, 0)).status == -9
        faulty.check_visible(folder, order=order, format=form)
        faulty.finish(folder, order=order, format=form)

    faulty.side_by_side(kill, chosen(f"kill {kind}", order, calls[kind, order]))


def test_a_small_disk_that_is_made_larger(lab: Lab) -> None:
    """A real file system of 96 KiB, where the system lets us mount one."""
    place = lab.folder / "small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", place], capture_output=True
    ).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        folder = Path(shutil.copytree(lab.world / "base", place / "run"))
        answer = lab.run(folder)
        assert answer.status == 1
        assert re.search("the disk is full at|No space left on device", answer.error), answer.error
        assert str(folder) in answer.error
        lab.check_visible(folder)
        subprocess.run(["mount", "-o", "remount,size=16m", place], check=True)
        lab.finish(folder)
    finally:
        subprocess.run(["umount", place], check=True)
