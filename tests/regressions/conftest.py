"""No waiting for the disk; a run whose θ* is applied, an undisturbed run, and killed ones."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from regression_world import (
    KILL_POINTS,
    Begun,
    Reference,
    command,
    files_of,
    fill,
    home,
    make_source,
    settings,
    write,
)


@pytest.fixture(scope="package", autouse=True)
def no_fsync() -> Iterator[None]:
    """These tests write thousands of small files; waiting for the disk proves nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose θ* the tests apply."""
    return make_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The input of the runs that are killed, copied and damaged."""
    return fill(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, pool: Path, source: Path) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    manifest = write(folder, source, corpus__paths=[str(pool)])
    return Reference(folder=folder, pool=pool, source=source, files=files_of(home(folder)), manifest=manifest)


@pytest.fixture(scope="session", params=KILL_POINTS)
def killed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pool: Path, source: Path
) -> Begun:
    """A run killed with kill -9 at a point."""
    folder = tmp_path_factory.mktemp("killed")
    given = settings(folder, source, corpus__paths=[str(pool)])
    done = command(folder, given, "materialise", QUADMIX_FAULT=request.param)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return Begun(folder=folder, pool=pool, source=source, files=files_of(home(folder)))
